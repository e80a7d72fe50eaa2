//! A value that is set once.

use ::std::cell::UnsafeCell;
use ::std::fmt;
use ::std::panic::{RefUnwindSafe, UnwindSafe};

use crate::sync::once as raw;

/// Like [`std::sync::OnceLock`], but waiting for the value parks the coroutine. The initialiser may
/// wait, too.
///
/// ```
/// use greenroom::shims as std;
/// use std::sync::OnceLock;
/// use std::{thread, time::Duration};
///
/// static CONFIG: OnceLock<String> = OnceLock::new();
///
/// let reader = thread::spawn(|| CONFIG.wait().len());
/// CONFIG.get_or_init(|| {
///     thread::sleep(Duration::from_millis(1));
///     "a value that takes a while".into()
/// });
/// assert_eq!(reader.join().unwrap(), 26);
/// ```
pub struct OnceLock<T> {
    once: raw::Once,
    /// Written only by the task that runs `once`. When `once` is complete, the value is there.
    value: UnsafeCell<Option<T>>,
}

// SAFETY: threads that share the lock share the value, which is why `T` is `Sync`. The thread that makes
// the value may differ from the thread that drops the lock, which is why `T` is `Send`.
unsafe impl<T: Sync + Send> Sync for OnceLock<T> {}

// An initialiser that unwinds leaves no value that could be half-made.
impl<T: RefUnwindSafe + UnwindSafe> RefUnwindSafe for OnceLock<T> {}

impl<T> OnceLock<T> {
    /// Like [`std::sync::OnceLock::new`].
    #[must_use]
    #[inline]
    pub const fn new() -> OnceLock<T> {
        OnceLock {
            once: raw::Once::new(),
            value: UnsafeCell::new(None),
        }
    }

    /// Like [`std::sync::OnceLock::get`].
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if !self.once.is_completed() {
            return None;
        }
        // SAFETY: `once` is complete. From then on, the value changes only through `&mut OnceLock`, which
        // cannot exist beside `&self`.
        unsafe { (*self.value.get()).as_ref() }
    }

    /// Like [`std::sync::OnceLock::get_mut`].
    #[inline]
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.get_mut().as_mut()
    }

    /// Like [`std::sync::OnceLock::wait`], but parks the coroutine.
    #[inline]
    pub fn wait(&self) -> &T {
        match self.get() {
            Some(value) => value,
            None => {
                self.once.wait(true);
                self.completed()
            }
        }
    }

    /// Like [`std::sync::OnceLock::set`], but parks the coroutine while another task initialises the
    /// value.
    ///
    /// # Errors
    ///
    /// If there is a value already. The error is `value`.
    #[inline]
    pub fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        if self.get().is_none() {
            self.initialize(|| value.take());
        }
        value.map_or(Ok(()), Err)
    }

    /// Like [`std::sync::OnceLock::get_or_init`], but parks the coroutine while another task
    /// initialises the value.
    ///
    /// # Panics
    ///
    /// If `f` panics. There is no value then.
    #[inline]
    pub fn get_or_init<F>(&self, f: F) -> &T
    where
        F: FnOnce() -> T,
    {
        match self.get() {
            Some(value) => value,
            None => {
                self.initialize(|| Some(f()));
                self.completed()
            }
        }
    }

    /// Like [`std::sync::OnceLock::into_inner`].
    #[inline]
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Like [`std::sync::OnceLock::take`].
    #[inline]
    pub fn take(&mut self) -> Option<T> {
        ::std::mem::take(self).into_inner()
    }

    /// Makes the value with `f`, unless another task makes it or has made it.
    #[cold]
    fn initialize(&self, f: impl FnOnce() -> Option<T>) {
        if let Ok(running) = self.once.begin(true) {
            let value = f();
            // SAFETY: `running` shows that this task runs `once`. Until `once` is complete, nothing else
            // accesses the value.
            unsafe { *self.value.get() = value };
            running.complete();
        }
    }

    fn completed(&self) -> &T {
        self.get().expect("it is complete when it has a value")
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> OnceLock<T> {
        OnceLock::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_tuple("OnceLock");
        match self.get() {
            Some(value) => debug.field(value),
            None => debug.field(&format_args!("<uninit>")),
        };
        debug.finish()
    }
}

impl<T: Clone> Clone for OnceLock<T> {
    fn clone(&self) -> OnceLock<T> {
        self.get()
            .cloned()
            .map_or_else(OnceLock::new, OnceLock::from)
    }
}

impl<T> From<T> for OnceLock<T> {
    fn from(value: T) -> OnceLock<T> {
        let lock = OnceLock::new();
        lock.initialize(|| Some(value));
        lock
    }
}

impl<T: PartialEq> PartialEq for OnceLock<T> {
    fn eq(&self, other: &OnceLock<T>) -> bool {
        self.get() == other.get()
    }
}

impl<T: Eq> Eq for OnceLock<T> {}
