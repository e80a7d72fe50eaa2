//! Coroutine locals: statics of which each coroutine has a value of its own.
//!
//! A key is two things, of which each access uses one: in a coroutine, a place among the values that
//! hang on its task (see `task::locals`); on an OS thread without one, a `thread_local!` of std's.

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

/// Declares statics of which each coroutine has a value of its own.
///
/// Like [`std::thread_local!`], and of the same form; it gives a [`LocalKey`], through which the
/// value is reached. It is made when a coroutine first uses it, and dropped when that ends, before
/// whoever joins it goes on. Nothing is shared, so that the value need not be [`Send`]; and since a
/// coroutine stays on its thread, a reference to it may be held across a wait.
///
/// On an OS thread outside of any coroutine it is the thread's. (A worker's thread has none of its
/// own in this sense, but for what runs there outside of coroutines.)
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
/// Values are dropped in the reverse order of their making. A destructor may use others, and make
/// them; what has been dropped, or is being, gives an [`AccessError`]. A panic in a destructor aborts
/// the process, as in std's; but an interrupt only ends that destructor.
#[macro_export]
macro_rules! coroutine_local {
    () => {};
    (
        $(#[$attr:meta])* $vis:vis static $name:ident: $t:ty = const $init:block
        $(; $($rest:tt)*)?
    ) => {
        $(#[$attr])*
        $vis const $name: $crate::LocalKey<$t> = {
            static __GREENROOM_KEY: $crate::__local::Key<$t> = $crate::__local::Key::new();
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
            static __GREENROOM_KEY: $crate::__local::Key<$t> = $crate::__local::Key::new();
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

/// What the macro expands to, besides the key.
pub mod parts {
    pub use std::thread_local;

    pub use crate::local::{Key, first};
}

/// Which value: its address counts.
#[derive(Debug)]
pub struct Key<T>(locals::Key, PhantomData<fn() -> T>);

impl<T> Key<T> {
    /// One of its own.
    #[allow(clippy::new_without_default, reason = "for statics")]
    pub const fn new() -> Key<T> {
        Key(locals::Key::new(), PhantomData)
    }
}

thread_local! {
    /// With which value of this thread to begin instead of calling its initialiser: the key, and an
    /// `Option<T>`.
    static FIRST: Cell<Option<(NonNull<locals::Key>, NonNull<()>)>> = const { Cell::new(None) };

    /// The values of the coroutine that the thread was in the middle of when the process was forked,
    /// and, in the child, still is.
    static FORKED: Cell<*const Locals> = const { Cell::new(ptr::null()) };
}

/// The first value of the calling thread: the one that is about to be set, if so.
pub fn first<T: 'static>(key: &'static Key<T>, make: fn() -> T) -> T {
    match FIRST.get() {
        Some((of, value)) if of == NonNull::from(&key.0) => {
            // SAFETY: `initialize_with` lends an `Option<T>` under this key while it calls us.
            unsafe { value.cast::<Option<T>>().as_mut() }.take()
        }
        _ => None,
    }
    .unwrap_or_else(make)
}

/// In the child of a fork: the values of the coroutine that has forked stay those of the thread.
pub(crate) fn keep_over_fork() {
    task::with_running(|task| {
        if let Some(task) = task {
            FORKED.set(task.locals());
        }
    });
}

/// Drops the values of `task`, which is the calling one and has ended, or never began.
#[inline]
pub(crate) fn end(task: &Task) {
    // SAFETY: its closure has returned, or unwound, or was dropped before it began, and with it all
    // that used its values.
    unsafe { task.locals().end(|payload| survive(task, &*payload)) };
}

#[cold]
fn survive(task: &Task, payload: &(dyn Any + Send)) {
    if !payload.is::<Cancelled>() {
        fatal::abort(format_args!(
            "a coroutine local of {} panicked on drop",
            Description(task),
        ));
    }
}

/// A static of which each coroutine has a value of its own.
///
/// Like [`std::thread::LocalKey`]; made by [`coroutine_local!`](crate::coroutine_local).
pub struct LocalKey<T: 'static> {
    key: &'static Key<T>,
    make: fn() -> T,
    /// Its first value is there before anybody asks.
    constant: bool,
    thread: &'static std::thread::LocalKey<T>,
}

impl<T: 'static> LocalKey<T> {
    #[doc(hidden)]
    pub const fn lazy(
        key: &'static Key<T>,
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
        key: &'static Key<T>,
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
    /// If the value was dropped, or is being; or if the initialiser does.
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
    /// If the value was dropped, or is being.
    ///
    /// # Panics
    ///
    /// If the initialiser does.
    #[inline]
    pub fn try_with<F, R>(&'static self, f: F) -> Result<R, AccessError>
    where
        F: FnOnce(&T) -> R,
    {
        let value = self.find(self.make, || {
            self.thread.try_with(|value| NonNull::from(value))
        })?;
        // SAFETY: it stays until the coroutine, or thread, has ended, which it does not while it is
        // in here; and there are no references but shared ones.
        Ok(f(unsafe { value.as_ref() }))
    }

    /// Looks in a coroutine for its value, which `make` makes if there is none, and elsewhere for
    /// the thread's.
    #[inline]
    fn find(
        &'static self,
        make: impl FnOnce() -> T,
        of_thread: impl FnOnce() -> Result<NonNull<T>, std::thread::AccessError>,
    ) -> Result<NonNull<T>, AccessError> {
        task::with_running(|task| {
            // SAFETY: in the child the coroutine that has forked stays where it is: it does not return.
            let forked = || unsafe { FORKED.get().as_ref() };
            match task.map(Task::locals).or_else(forked) {
                Some(locals) => {
                    // SAFETY: they are the caller's; and a `Key<T>` comes with this type alone.
                    let found = unsafe { locals.get_or_make(&self.key.0, make) };
                    found.map_err(|_| AccessError)
                }
                None => of_thread().map_err(|_| AccessError),
            }
        })
    }

    /// Calls `f` with the value; and with `value`, if that did not become it.
    #[track_caller]
    fn initialize_with<R>(&'static self, value: T, f: impl FnOnce(Option<T>, &T) -> R) -> R {
        let unused = Cell::new(Some(value));
        let make = || {
            // What a constant begins with is the constant.
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
            // SAFETY: as in `try_with`.
            Ok(found) => f(unused.take(), unsafe { found.as_ref() }),
            Err(error) => refuse(error),
        }
    }
}

impl<T: 'static> LocalKey<Cell<T>> {
    /// Like [`std::thread::LocalKey::set`]: makes the value, without calling its initialiser, or
    /// sets it.
    ///
    /// # Panics
    ///
    /// If the value was dropped, or is being.
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
    /// As [`with`](LocalKey::with).
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
    /// As [`with`](LocalKey::with).
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
    /// As [`with`](LocalKey::with).
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
    /// As [`with`](LocalKey::with), and if the value is mutably borrowed.
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
    /// As [`with`](LocalKey::with), and if the value is borrowed.
    #[track_caller]
    pub fn with_borrow_mut<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&mut T) -> R,
    {
        self.with(|cell| f(&mut cell.borrow_mut()))
    }

    /// Like [`std::thread::LocalKey::set`]: makes the value, without calling its initialiser, or
    /// sets it.
    ///
    /// # Panics
    ///
    /// If the value is borrowed, or was dropped, or is being.
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
    /// As [`with`](LocalKey::with), and if the value is borrowed.
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
    /// As [`with`](LocalKey::with), and if the value is borrowed.
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

/// A value was asked for that its coroutine, or thread, has dropped.
///
/// Like [`std::thread::AccessError`], of which only std can make values.
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
