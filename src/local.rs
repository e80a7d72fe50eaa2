//! Coroutine locals: statics of which each coroutine has its own value.
//!
//! A [`LocalKey`] leads to two kinds of values. In a coroutine, it finds the coroutine's value, which hangs
//! on the task (see `task::locals`). On an OS thread outside of any coroutine, it uses a `thread_local!` of
//! std's.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use crate::fatal;
use crate::park::Cancelled;
use crate::task::locals::{Key, Locals};
use crate::task::{self, Change, Description, InterruptScope, Task};

/// Declares statics of which each coroutine has its own value.
///
/// The form is that of [`std::thread_local!`]. Each static is a [`LocalKey`], through which code gets at
/// the value.
///
/// A coroutine's value is made when the coroutine first uses it. It is dropped when the coroutine ends,
/// before a join of the coroutine returns. Coroutines share no values, so a value need not be [`Send`].
/// References to a value may be held across waits, since a coroutine never leaves its thread.
///
/// On an OS thread outside of any coroutine, the static has the thread's value. Coroutines never see
/// that of their worker's thread.
///
/// ```
/// use std::cell::Cell;
///
/// greenroom::coroutine_local! {
///     /// How deep the calling coroutine is in its request.
///     pub static DEPTH: Cell<u32> = const { Cell::new(0) };
///     static NAME: String = format!("{:?}", greenroom::current().id());
/// }
///
/// greenroom::run(|| {
///     DEPTH.set(1);
///     let other = greenroom::spawn(|| (DEPTH.get(), NAME.with(String::clone)));
///     let (depth, name) = other.join().unwrap();
///     assert_eq!(depth, 0);
///     NAME.with(|mine| assert_ne!(*mine, name));
/// });
/// ```
///
/// # Destructors
///
/// Values are dropped in the reverse order of their making. A destructor may use other coroutine locals,
/// and may make their values. A value that was dropped, or is being dropped, gives an [`AccessError`]. A
/// value whose type has no destructor can be used by all destructors.
///
/// A panic in a destructor aborts the process, as in std. If a destructor is unwound because the runtime
/// stops, only that destructor ends.
#[macro_export]
macro_rules! coroutine_local {
    () => {};
    (
        $(#[$attr:meta])* $vis:vis static $name:ident: $t:ty = const $init:block
        $(; $($rest:tt)*)?
    ) => {
        $(#[$attr])*
        $vis const $name: $crate::LocalKey<$t> = {
            $crate::__local::thread_local! {
                static __GREENROOM_THREAD: $t = const $init;
            }
            $crate::LocalKey::constant(
                || {
                    static KEY: $crate::__local::ValueKey<$t> = $crate::__local::ValueKey::new(
                        $crate::__local::concat!(
                            $crate::__local::module_path!(),
                            "::",
                            $crate::__local::stringify!($name)
                        ),
                    );
                    &KEY
                },
                || const $init,
                &__GREENROOM_THREAD,
            )
        };
        $($crate::coroutine_local! { $($rest)* })?
    };
    (
        $(#[$attr:meta])* $vis:vis static $name:ident: $t:ty = $init:expr
        $(; $($rest:tt)*)?
    ) => {
        $(#[$attr])*
        $vis const $name: $crate::LocalKey<$t> = {
            fn __greenroom_make() -> $t {
                $init
            }
            $crate::__local::thread_local! {
                static __GREENROOM_THREAD: $t = __greenroom_make();
            }
            $crate::LocalKey::lazy(
                || {
                    static KEY: $crate::__local::ValueKey<$t> = $crate::__local::ValueKey::new(
                        $crate::__local::concat!(
                            $crate::__local::module_path!(),
                            "::",
                            $crate::__local::stringify!($name)
                        ),
                    );
                    &KEY
                },
                __greenroom_make,
                &__GREENROOM_THREAD,
            )
        };
        $($crate::coroutine_local! { $($rest)* })?
    };
}

pub(crate) use coroutine_local;

/// What the expansion of [`coroutine_local!`](crate::coroutine_local) uses, besides [`LocalKey`].
pub mod parts {
    pub use std::{concat, module_path, stringify, thread_local};

    pub use crate::local::ValueKey;
}

/// Identifies a coroutine local with values of type `T`. A static.
#[derive(Debug)]
pub struct ValueKey<T>(Key, PhantomData<fn() -> T>);

impl<T> ValueKey<T> {
    /// A new key, different from all others once it has its place. Dumps know it by `name`.
    pub const fn new(name: &'static str) -> ValueKey<T> {
        ValueKey(Key::new::<T>(name), PhantomData)
    }
}

thread_local! {
    /// In a forked child: the values of the coroutine that has forked. The thread still runs that
    /// coroutine's code, though it does not count as a coroutine any more.
    static FORKED: Cell<*const Locals> = const { Cell::new(ptr::null()) };
}

/// Calls `f` with the caller's values of coroutine locals. With `None` on an OS thread, whose values std
/// keeps.
#[inline]
fn with_locals<R>(f: impl FnOnce(Option<&Locals>) -> R) -> R {
    task::with_running(|task| {
        // SAFETY: `FORKED` is null, or this is a forked child, in which the coroutine that has forked never
        // returns. So its task, with its values, is never freed there.
        let forked = || unsafe { FORKED.get().as_ref() };
        f(task.map(Task::locals).or_else(forked))
    })
}

/// Called in a forked child, on a thread that still counts as a coroutine: keeps that coroutine's values
/// for the thread.
pub(crate) fn keep_over_fork() {
    task::with_running(|task| {
        if let Some(task) = task {
            FORKED.set(task.locals());
        }
    });
}

/// Drops the values of `task`. To be called by the task when its closure has ended or was dropped.
#[inline]
pub(crate) fn end(task: &Task) {
    if !task.locals().is_empty() {
        drop_all(task);
    }
}

#[cold]
fn drop_all(task: &Task) {
    InterruptScope::enter(Change::End, |_| {
        // SAFETY: the caller is the task. Its closure has returned, has unwound, or was dropped without
        // running, and references to values cannot outlive that.
        unsafe { task.locals().end(|payload| survive(task, &*payload)) }
    });
}

/// Called when the destructor of a value has panicked. Returns only if the runtime has unwound it.
#[cold]
fn survive(task: &Task, payload: &(dyn Any + Send)) {
    if !payload.is::<Cancelled>() {
        fatal::abort(format_args!(
            "a coroutine local of {} panicked on drop",
            Description(task),
        ));
    }
}

/// A static of which each coroutine has its own value.
///
/// Like [`std::thread::LocalKey`]. [`coroutine_local!`](crate::coroutine_local) makes it.
pub struct LocalKey<T: 'static> {
    /// A function, because Rust 1.89 has no constants that refer to a static which changes.
    key: fn() -> &'static ValueKey<T>,
    make: fn() -> T,
    /// The initialiser is a constant. In std such a value exists from the beginning, so `set` does not
    /// replace the initialiser but sets the value.
    constant: bool,
    /// The values of OS threads.
    thread: &'static std::thread::LocalKey<T>,
}

impl<T: 'static> LocalKey<T> {
    #[doc(hidden)]
    pub const fn lazy(
        key: fn() -> &'static ValueKey<T>,
        make: fn() -> T,
        thread: &'static std::thread::LocalKey<T>,
    ) -> LocalKey<T> {
        LocalKey {
            key,
            make,
            constant: false,
            thread,
        }
    }

    #[doc(hidden)]
    pub const fn constant(
        key: fn() -> &'static ValueKey<T>,
        make: fn() -> T,
        thread: &'static std::thread::LocalKey<T>,
    ) -> LocalKey<T> {
        LocalKey {
            key,
            make,
            constant: true,
            thread,
        }
    }

    /// Like [`std::thread::LocalKey::with`].
    ///
    /// # Panics
    ///
    /// If the value was dropped or is being dropped, or if the initialiser panics.
    #[inline]
    #[track_caller]
    pub fn with<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&T) -> R,
    {
        match self.try_with(f) {
            Ok(result) => result,
            Err(error) => refuse(error),
        }
    }

    /// Like [`std::thread::LocalKey::try_with`].
    ///
    /// # Errors
    ///
    /// If the value was dropped or is being dropped.
    ///
    /// # Panics
    ///
    /// If the initialiser panics.
    #[inline]
    pub fn try_with<F, R>(&'static self, f: F) -> Result<R, AccessError>
    where
        F: FnOnce(&T) -> R,
    {
        let value = with_locals(|locals| match locals {
            Some(locals) => {
                // SAFETY: they are the values of the running coroutine, or of the one that has forked and
                // still runs on this thread. The key is that of the type `T`.
                let found = unsafe { locals.get_or_make(&(self.key)().0, self.make) };
                found.map_err(|_| AccessError)
            }
            None => {
                let found = self.thread.try_with(|value| NonNull::from(value));
                found.map_err(|_| AccessError)
            }
        })?;
        // SAFETY: the value stays in place until the coroutine or thread ends, which cannot happen during
        // this call. Only shared references to it are ever given out.
        Ok(f(unsafe { value.as_ref() }))
    }

    /// Gives `task` its value.
    ///
    /// # Safety
    ///
    /// The task has not begun, and only the caller can reach it.
    pub(crate) unsafe fn give(&'static self, task: &Task, value: T) {
        // SAFETY: only the caller uses the locals of a task that only it can reach. The key is that of the
        // type `T`.
        let given = unsafe { task.locals().get_or_make(&(self.key)().0, || value) };
        debug_assert!(
            given.is_ok(),
            "a task that has not begun has dropped nothing"
        );
    }

    /// Calls `f` with the value of `task`.
    ///
    /// # Errors
    ///
    /// If the value was dropped or is being dropped.
    ///
    /// # Safety
    ///
    /// The caller runs `task`, or abandons it without running it.
    pub(crate) unsafe fn try_with_that_of<R>(
        &'static self,
        task: &Task,
        f: impl FnOnce(&T) -> R,
    ) -> Result<R, AccessError> {
        // SAFETY: the caller acts for the task, so nothing else uses its locals meanwhile. The key is that
        // of the type `T`.
        let found = unsafe { task.locals().get_or_make(&(self.key)().0, self.make) };
        let value = found.map_err(|_| AccessError)?;
        // SAFETY: the value stays in place until the task has ended, which cannot happen during this call.
        // Only shared references to it are ever given out.
        Ok(f(unsafe { value.as_ref() }))
    }

    /// Sets the caller's value: by `replace` if there is one, or if a constant must be there first. On an
    /// OS thread, calls `set_thread` instead, which is to do the same.
    #[inline]
    #[track_caller]
    fn set_with(&'static self, value: T, set_thread: impl FnOnce(T), replace: impl FnOnce(&T, T)) {
        let set = with_locals(|locals| match locals {
            Some(locals) => {
                // SAFETY: they are the values of the running coroutine, or of the one that has forked and
                // still runs on this thread. The key is that of the type `T`. The value stays in place until
                // the coroutine ends. Only shared references to it are ever given out.
                match unsafe { locals.find(&(self.key)().0).map(|found| found.as_ref()) } {
                    Some(found) => replace(found, value),
                    None => self.search_and_set(locals, value, replace)?,
                }
                Ok(())
            }
            None => {
                set_thread(value);
                Ok(())
            }
        });
        if let Err(error) = set {
            refuse(error);
        }
    }

    /// Sets the value among `locals`, which are the caller's. Makes it if there is none.
    #[cold]
    fn search_and_set(
        &'static self,
        locals: &Locals,
        value: T,
        replace: impl FnOnce(&T, T),
    ) -> Result<(), AccessError> {
        let mut unused = Some(value);
        let make = || {
            // A constant's value exists from the beginning, so it begins as the constant.
            let first = if self.constant { None } else { unused.take() };
            first.unwrap_or_else(self.make)
        };
        // SAFETY: the locals are the caller's. The key is that of the type `T`.
        let found = unsafe { locals.get_or_make(&(self.key)().0, make) };
        let found = found.map_err(|_| AccessError)?;
        if let Some(value) = unused {
            // SAFETY: the value stays in place until the coroutine ends, which cannot happen during this
            // call. Only shared references to it are ever given out.
            replace(unsafe { found.as_ref() }, value);
        }
        Ok(())
    }
}

impl<T: 'static> LocalKey<Cell<T>> {
    /// Like [`std::thread::LocalKey::set`]. If there is no value yet, makes it without calling the
    /// initialiser.
    ///
    /// # Panics
    ///
    /// If the value was dropped or is being dropped.
    #[inline]
    #[track_caller]
    pub fn set(&'static self, value: T) {
        self.set_with(
            Cell::new(value),
            |value| self.thread.set(value.into_inner()),
            |cell, value| cell.set(value.into_inner()),
        );
    }

    /// Like [`std::thread::LocalKey::get`].
    ///
    /// # Panics
    ///
    /// If [`with`](LocalKey::with) does.
    #[inline]
    #[track_caller]
    pub fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.with(Cell::get)
    }

    /// Like [`std::thread::LocalKey::take`].
    ///
    /// # Panics
    ///
    /// If [`with`](LocalKey::with) does.
    #[inline]
    #[track_caller]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(Cell::take)
    }

    /// Like [`std::thread::LocalKey::replace`].
    ///
    /// # Panics
    ///
    /// If [`with`](LocalKey::with) does.
    #[inline]
    #[track_caller]
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> LocalKey<RefCell<T>> {
    /// Like [`std::thread::LocalKey::with_borrow`].
    ///
    /// # Panics
    ///
    /// If [`with`](LocalKey::with) does, or if the value is mutably borrowed.
    #[inline]
    #[track_caller]
    pub fn with_borrow<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&T) -> R,
    {
        self.with(|cell| f(&cell.borrow()))
    }

    /// Like [`std::thread::LocalKey::with_borrow_mut`].
    ///
    /// # Panics
    ///
    /// If [`with`](LocalKey::with) does, or if the value is borrowed.
    #[inline]
    #[track_caller]
    pub fn with_borrow_mut<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&mut T) -> R,
    {
        self.with(|cell| f(&mut cell.borrow_mut()))
    }

    /// Like [`std::thread::LocalKey::set`]. If there is no value yet, makes it without calling the
    /// initialiser.
    ///
    /// # Panics
    ///
    /// If the value is borrowed, was dropped, or is being dropped.
    #[inline]
    #[track_caller]
    pub fn set(&'static self, value: T) {
        self.set_with(
            RefCell::new(value),
            |value| self.thread.set(value.into_inner()),
            |cell, value| *cell.borrow_mut() = value.into_inner(),
        );
    }

    /// Like [`std::thread::LocalKey::take`].
    ///
    /// # Panics
    ///
    /// If [`with`](LocalKey::with) does, or if the value is borrowed.
    #[inline]
    #[track_caller]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(RefCell::take)
    }

    /// Like [`std::thread::LocalKey::replace`].
    ///
    /// # Panics
    ///
    /// If [`with`](LocalKey::with) does, or if the value is borrowed.
    #[inline]
    #[track_caller]
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

/// The coroutine or thread has dropped the value that was asked for, or is dropping it.
///
/// Like [`std::thread::AccessError`], which is a different type because only std can make its values.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessError;

impl fmt::Debug for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessError").finish()
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("already destroyed")
    }
}

impl Error for AccessError {}

#[cold]
#[track_caller]
fn refuse(error: AccessError) -> ! {
    panic!("a coroutine local was used during or after its destruction: {error:?}")
}
