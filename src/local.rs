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
use crate::task::locals::{self, Locals};
use crate::task::{self, Description, Task};

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
/// and may make their values. A value that was dropped, or is being dropped, gives an [`AccessError`].
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
            static __GREENROOM_KEY: $crate::__local::ValueKey<$t> = $crate::__local::ValueKey::new();
            $crate::__local::thread_local! {
                static __GREENROOM_THREAD: $t = const $init;
            }
            $crate::LocalKey::constant(
                &__GREENROOM_KEY,
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
            static __GREENROOM_KEY: $crate::__local::ValueKey<$t> = $crate::__local::ValueKey::new();
            $crate::__local::thread_local! {
                static __GREENROOM_THREAD: $t =
                    $crate::__local::first(&__GREENROOM_KEY, __greenroom_make);
            }
            $crate::LocalKey::lazy(
                &__GREENROOM_KEY,
                __greenroom_make,
                &__GREENROOM_THREAD,
            )
        };
        $($crate::coroutine_local! { $($rest)* })?
    };
}

/// What the expansion of [`coroutine_local!`](crate::coroutine_local) uses, besides [`LocalKey`].
pub mod parts {
    pub use std::thread_local;

    pub use crate::local::{ValueKey, first};
}

/// Identifies a coroutine local by its address. A static.
#[derive(Debug)]
pub struct ValueKey<T>(locals::KeyAddress, PhantomData<fn() -> T>);

impl<T> ValueKey<T> {
    /// A new key, different from all others once it has its place.
    #[allow(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> ValueKey<T> {
        ValueKey(locals::KeyAddress::new(), PhantomData)
    }
}

thread_local! {
    /// Set while `LocalKey::initialize_with` makes a value of this thread: the key, and the `Option<T>` that
    /// holds the value to begin with instead of the initialiser's.
    static FIRST: Cell<Option<(NonNull<locals::KeyAddress>, NonNull<()>)>> = const { Cell::new(None) };

    /// In a forked child: the values of the coroutine that has forked. The thread still runs that
    /// coroutine's code, though it does not count as a coroutine any more.
    static FORKED: Cell<*const Locals> = const { Cell::new(ptr::null()) };
}

/// The first value of the calling thread: the one that is about to be set, or else that of the
/// initialiser `make`.
pub fn first<T: 'static>(key: &'static ValueKey<T>, make: fn() -> T) -> T {
    match FIRST.get() {
        Some((of, value)) if of == NonNull::from(&key.0) => {
            // SAFETY: `initialize_with` has stored a pointer to its `Option<T>` under the key of this type.
            // It waits for this call, and does not use the `Option` meanwhile.
            unsafe { value.cast::<Option<T>>().as_mut() }.take()
        }
        _ => None,
    }
    .unwrap_or_else(make)
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
    // SAFETY: the caller is the task. Its closure has returned, has unwound, or was dropped without running,
    // and references to values cannot outlive that.
    unsafe { task.locals().end(|payload| survive(task, &*payload)) };
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
    key: &'static ValueKey<T>,
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
        key: &'static ValueKey<T>,
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
        key: &'static ValueKey<T>,
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
        let value = self.find(self.make, || {
            self.thread.try_with(|value| NonNull::from(value))
        })?;
        // SAFETY: the value stays in place until the coroutine or thread ends, which cannot happen during
        // this call. Only shared references to it are ever given out.
        Ok(f(unsafe { value.as_ref() }))
    }

    /// The address of the caller's value. In a coroutine, `make` makes the value if there is none. On an
    /// OS thread, this is what `of_thread` returns.
    #[inline]
    fn find(
        &'static self,
        make: impl FnOnce() -> T,
        of_thread: impl FnOnce() -> Result<NonNull<T>, std::thread::AccessError>,
    ) -> Result<NonNull<T>, AccessError> {
        task::with_running(|task| {
            // SAFETY: `FORKED` is null, or this is a forked child, in which the coroutine that has forked
            // never returns. So its task, with its values, is never freed there.
            let forked = || unsafe { FORKED.get().as_ref() };
            match task.map(Task::locals).or_else(forked) {
                Some(locals) => {
                    // SAFETY: they are the values of the running coroutine, or of the one that has forked and
                    // still runs on this thread. A `ValueKey<T>` is only used with its type `T`.
                    let found = unsafe { locals.get_or_make(&self.key.0, make) };
                    found.map_err(|_| AccessError)
                }
                None => of_thread().map_err(|_| AccessError),
            }
        })
    }

    /// Calls `f` with the caller's value, which is made from `value` if there is none. If there is one
    /// already, or it must begin as a constant, `f` gets `value`, too.
    #[track_caller]
    fn initialize_with<R>(&'static self, value: T, f: impl FnOnce(Option<T>, &T) -> R) -> R {
        let unused = Cell::new(Some(value));
        let make = || {
            // A constant's value exists from the beginning, so it begins as the constant.
            let first = if self.constant { None } else { unused.take() };
            first.unwrap_or_else(self.make)
        };
        let of_thread = || {
            let mut value = unused.take();
            let before = FIRST.replace(Some((
                NonNull::from(&self.key.0),
                NonNull::from(&mut value).cast(),
            )));
            let found = self.thread.try_with(|value| NonNull::from(value));
            FIRST.set(before);
            unused.set(value);
            found
        };
        match self.find(make, of_thread) {
            // SAFETY: the value stays in place until the coroutine or thread ends, which cannot happen
            // during this call. Only shared references to it are ever given out.
            Ok(found) => f(unused.take(), unsafe { found.as_ref() }),
            Err(error) => refuse(error),
        }
    }
}

impl<T: 'static> LocalKey<Cell<T>> {
    /// Like [`std::thread::LocalKey::set`]. If there is no value yet, makes it without calling the
    /// initialiser.
    ///
    /// # Panics
    ///
    /// If the value was dropped or is being dropped.
    #[track_caller]
    pub fn set(&'static self, value: T) {
        self.initialize_with(Cell::new(value), |value, cell| {
            if let Some(value) = value {
                cell.set(value.into_inner());
            }
        });
    }

    /// Like [`std::thread::LocalKey::get`].
    ///
    /// # Panics
    ///
    /// If [`with`](LocalKey::with) does.
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
    #[track_caller]
    pub fn set(&'static self, value: T) {
        self.initialize_with(RefCell::new(value), |value, cell| {
            if let Some(value) = value {
                *cell.borrow_mut() = value.into_inner();
            }
        });
    }

    /// Like [`std::thread::LocalKey::take`].
    ///
    /// # Panics
    ///
    /// If [`with`](LocalKey::with) does, or if the value is borrowed.
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
