//! Values that code passes on to the coroutines that it spawns.
//!
//! A [`ContextKey`] is a static, like a coroutine local. [`scope`](ContextKey::scope) sets its value for the
//! code inside a call, for all coroutines that this code spawns, for those that they spawn, and so on. So a
//! request's number or user is known wherever the request is worked on, and is no parameter of every
//! function.
//!
//! ```
//! use greenroom::context::ContextKey;
//!
//! static REQUEST: ContextKey<u32> = ContextKey::new();
//!
//! fn log(text: &str) -> String {
//!     format!("[{:?}] {text}", REQUEST.get())
//! }
//!
//! greenroom::run(|| {
//!     let line = REQUEST.scope(7, || greenroom::spawn(|| log("hello")));
//!     assert_eq!(line.join().unwrap(), "[Some(7)] hello");
//!     assert_eq!(log("no request"), "[None] no request");
//! });
//! ```
//!
//! # What inherits
//!
//! A coroutine has the values that its spawner has at the spawn, for as long as it runs. The same holds for
//! jobs of [`unblock`](crate::unblock), for the closures of [`after`](crate::after()) and
//! [`every`](crate::every()), and for the main coroutine of [`run`](crate::run). Not for threads of the real
//! std, nor for messages that are sent to other coroutines: a [`Context`] carries the values there.
//!
//! The hooks of [`with_unjoined_hook`](crate::with_unjoined_hook), which hear of panics that nobody joins, are
//! inherited in the same way. A hook is called with the values that its coroutine has inherited.
//!
//! A program that sets no value pays one load for each spawn.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::local::coroutine_local;
use crate::task::{Task, locals};

/// The values of a caller. None of them changes; a scope makes a new list. A key has one entry at most, so
/// the list stays short, however deep scopes nest and however long spawns follow on one another.
type Values = Arc<Vec<Entry>>;

#[derive(Clone)]
struct Entry {
    /// The number of the key.
    number: usize,
    value: Arc<dyn Any + Send + Sync>,
}

coroutine_local! {
    /// The values of the calling coroutine or OS thread, for the code that runs there now.
    static CURRENT: RefCell<Option<Values>> = const { RefCell::new(None) };
}

/// Whether a value has ever been set in this process. While it is false, nothing inherits anything.
static USED: AtomicBool = AtomicBool::new(false);

/// The caller's values.
#[inline]
fn current() -> Option<Values> {
    // Relaxed: a caller with values has set this itself, or was spawned by code that had.
    if USED.load(Ordering::Relaxed) {
        look_up()
    } else {
        None
    }
}

#[cold]
fn look_up() -> Option<Values> {
    // In a destructor of a coroutine local they may be gone.
    CURRENT.try_with(|values| values.borrow().clone()).ok()?
}

/// Makes `values` the caller's. Returns those that the caller had.
fn replace(values: Option<Values>) -> Option<Values> {
    CURRENT.try_with(|current| current.replace(values)).ok()?
}

/// Code that runs with other values. When dropped, also by an unwind, gives the caller those that it had.
struct Inside(Option<Values>);

impl Inside {
    fn enter(values: Option<Values>) -> Inside {
        Inside(replace(values))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        // The replaced values are dropped here, not while the cell is borrowed.
        drop(replace(self.0.take()));
    }
}

/// Gives the caller's values to `task`.
///
/// # Safety
///
/// The task has not begun, and only the caller can reach it.
#[inline]
pub(crate) unsafe fn hand_down(task: &Task) {
    if let Some(values) = current() {
        // SAFETY: the caller promises the same.
        unsafe { CURRENT.give(task, RefCell::new(Some(values))) };
    }
}

/// The values that `task` has inherited, or has entered and not left.
///
/// # Safety
///
/// The caller runs `task`, or abandons it without running it.
pub(crate) unsafe fn that_of(task: &Task) -> Context {
    if !USED.load(Ordering::Relaxed) {
        return Context::empty();
    }
    // SAFETY: the caller promises the same.
    let values = unsafe { CURRENT.try_with_that_of(task, |values| values.borrow().clone()) };
    Context(values.ok().flatten())
}

/// Has `f` run with the values that the caller has now, as the body of a coroutine, which keeps them to its
/// end.
pub(crate) fn hand_over<R>(f: impl FnOnce() -> R) -> impl FnOnce() -> R {
    let values = current();
    move || {
        if values.is_some() {
            drop(replace(values));
        }
        f()
    }
}

/// Has `f` run with the values that the caller has now, wherever it is called. For what is no coroutine.
#[inline]
pub(crate) fn carry<R>(f: impl FnOnce() -> R) -> impl FnOnce() -> R {
    let values = current();
    move || {
        let _inside = values.map(|values| Inside::enter(Some(values)));
        f()
    }
}

/// Calls `f` without any values: for coroutines that serve all callers.
pub(crate) fn without<R>(f: impl FnOnce() -> R) -> R {
    let _inside = current().map(|_| Inside::enter(None));
    f()
}

/// A value that is passed on to spawned coroutines. A static. See the [module](self).
pub struct ContextKey<T> {
    /// Zero until a value is set.
    number: AtomicUsize,
    value: PhantomData<fn(T) -> T>,
}

impl<T> ContextKey<T> {
    /// A key, which has no value anywhere.
    #[must_use]
    pub const fn new() -> ContextKey<T> {
        ContextKey {
            number: AtomicUsize::new(0),
            value: PhantomData,
        }
    }
}

impl<T: Send + Sync + 'static> ContextKey<T> {
    /// Calls `f` with `value` as the value of this key. Afterwards the key has the value that it had before,
    /// also if `f` panics.
    pub fn scope<R>(&'static self, value: T, f: impl FnOnce() -> R) -> R {
        USED.store(true, Ordering::Relaxed);
        let number = self.take_number();
        let own = Entry {
            number,
            value: Arc::new(value),
        };
        let outer = current();
        let outer = outer.iter().flat_map(|values| values.iter());
        let others = outer.filter(|entry| entry.number != number).cloned();
        let values = std::iter::once(own).chain(others).collect();
        let _inside = Inside::enter(Some(Arc::new(values)));
        f()
    }

    /// Calls `f` with the value; with `None` if none is set where the caller is.
    pub fn with<R>(&'static self, f: impl FnOnce(Option<&T>) -> R) -> R {
        // `f` may enter scopes itself, so it gets a reference of its own.
        f(self.find().as_deref())
    }

    /// The value, if one is set where the caller is.
    #[must_use]
    pub fn get(&'static self) -> Option<T>
    where
        T: Clone,
    {
        self.find().map(Arc::unwrap_or_clone)
    }

    fn find(&self) -> Option<Arc<T>> {
        let values = current()?;
        let number = self.number.load(Ordering::Relaxed);
        let entry = values.iter().find(|entry| entry.number == number)?;
        Arc::clone(&entry.value).downcast().ok()
    }

    /// The number of this key, which is not zero.
    fn take_number(&self) -> usize {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        locals::take_number(&self.number, &LAST)
    }
}

impl<T> Default for ContextKey<T> {
    fn default() -> ContextKey<T> {
        ContextKey::new()
    }
}

impl<T> fmt::Debug for ContextKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextKey").finish_non_exhaustive()
    }
}

/// The values of all keys at one point of the code, to be carried to another.
///
/// For threads and coroutines that work for others: they take a context along with each piece of work.
///
/// ```
/// use greenroom::context::{Context, ContextKey};
///
/// static USER: ContextKey<&str> = ContextKey::new();
///
/// let context = USER.scope("ada", Context::current);
/// let thread = std::thread::spawn(move || context.enter(|| USER.get()));
/// assert_eq!(thread.join().unwrap(), Some("ada"));
/// ```
#[derive(Clone, Default)]
pub struct Context(Option<Values>);

impl Context {
    /// The values where the caller is.
    #[must_use]
    pub fn current() -> Context {
        Context(current())
    }

    /// No values.
    #[must_use]
    pub fn empty() -> Context {
        Context(None)
    }

    /// Calls `f` with these values, and no others. Afterwards the caller has those that it had before.
    pub fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        match &self.0 {
            None => without(f),
            values => {
                let _inside = Inside::enter(values.clone());
                f()
            }
        }
    }
}

// A list of values does not change, so a panic leaves it as it was.
impl UnwindSafe for Context {}
impl RefUnwindSafe for Context {}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.0.as_ref().map_or(0, |values| values.len());
        f.debug_struct("Context").field("values", &values).finish()
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Context>();
    send_and_sync::<ContextKey<u8>>();
};
