//! A value that is initialised on first access.

use ::std::cell::UnsafeCell;
use ::std::fmt;
use ::std::mem;
use ::std::ops::{Deref, DerefMut};
use ::std::panic::{RefUnwindSafe, UnwindSafe};

use crate::sync::once as raw;

/// Like [`std::sync::LazyLock`], but waiting for the value parks the coroutine. The initialiser may
/// wait, too.
pub struct LazyLock<T, F = fn() -> T> {
    once: raw::Once,
    /// Changed only by the task that runs `once`. When `once` is complete, this is `Made`.
    stage: UnsafeCell<LazyStage<T, F>>,
}

enum LazyStage<T, F> {
    Fresh(F),
    Made(T),
    /// The initialiser runs, or has unwound.
    Taken,
}

// SAFETY: threads that share the lock share the value, which is why `T` is `Sync`. The thread that makes
// the value may differ from the thread that drops the lock, which is why `T` is `Send`. One thread calls
// the initialiser, which another thread may have put into the lock: so `F` is `Send`.
unsafe impl<T: Sync + Send, F: Send> Sync for LazyLock<T, F> {}

// An initialiser that unwinds leaves no value that could be half-made.
impl<T: RefUnwindSafe + UnwindSafe, F: UnwindSafe> RefUnwindSafe for LazyLock<T, F> {}
impl<T: UnwindSafe, F: UnwindSafe> UnwindSafe for LazyLock<T, F> {}

impl<T, F: FnOnce() -> T> LazyLock<T, F> {
    /// Like [`std::sync::LazyLock::new`].
    #[inline]
    pub const fn new(f: F) -> LazyLock<T, F> {
        LazyLock {
            once: raw::Once::new(),
            stage: UnsafeCell::new(LazyStage::Fresh(f)),
        }
    }

    /// Like [`std::sync::LazyLock::force`], but parks the coroutine while another task
    /// runs the initialiser.
    ///
    /// # Panics
    ///
    /// If the initialiser panics, or has panicked before.
    #[inline]
    pub fn force(this: &LazyLock<T, F>) -> &T {
        if !this.once.is_completed() {
            this.make();
        }
        LazyLock::get(this).unwrap_or_else(|| panic_poisoned())
    }

    /// Like [`std::sync::LazyLock::force_mut`].
    ///
    /// # Panics
    ///
    /// As [`force`](LazyLock::force).
    #[inline]
    pub fn force_mut(this: &mut LazyLock<T, F>) -> &mut T {
        if !this.once.is_completed() {
            this.make();
        }
        LazyLock::get_mut(this).unwrap_or_else(|| panic_poisoned())
    }

    #[cold]
    fn make(&self) {
        if let Ok(running) = self.once.begin(false) {
            // SAFETY: `running` shows that this task runs `once`. Until `once` is complete, nothing else
            // accesses the stage; and the borrow ends before the initialiser runs.
            let stage = unsafe { mem::replace(&mut *self.stage.get(), LazyStage::Taken) };
            if let LazyStage::Fresh(f) = stage {
                let value = f();
                // SAFETY: `running` shows that this task still runs `once`. Until `once` is complete,
                // nothing else accesses the stage.
                unsafe { *self.stage.get() = LazyStage::Made(value) };
                running.complete();
            }
        }
    }
}

impl<T, F> LazyLock<T, F> {
    /// Like [`std::sync::LazyLock::get`].
    #[inline]
    pub fn get(this: &LazyLock<T, F>) -> Option<&T> {
        if !this.once.is_completed() {
            return None;
        }
        // SAFETY: `once` is complete. From then on, the stage changes only through `&mut LazyLock`, which
        // cannot exist beside `this`.
        match unsafe { &*this.stage.get() } {
            LazyStage::Made(value) => Some(value),
            _ => None,
        }
    }

    /// Like [`std::sync::LazyLock::get_mut`].
    #[inline]
    pub fn get_mut(this: &mut LazyLock<T, F>) -> Option<&mut T> {
        match this.stage.get_mut() {
            LazyStage::Made(value) => Some(value),
            _ => None,
        }
    }
}

#[cold]
#[inline(never)]
fn panic_poisoned() -> ! {
    panic!("LazyLock instance has previously been poisoned")
}

impl<T, F: FnOnce() -> T> Deref for LazyLock<T, F> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        LazyLock::force(self)
    }
}

impl<T, F: FnOnce() -> T> DerefMut for LazyLock<T, F> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        LazyLock::force_mut(self)
    }
}

impl<T: Default> Default for LazyLock<T> {
    fn default() -> LazyLock<T> {
        LazyLock::new(T::default)
    }
}

impl<T: fmt::Debug, F> fmt::Debug for LazyLock<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_tuple("LazyLock");
        match LazyLock::get(self) {
            Some(value) => debug.field(value),
            None => debug.field(&format_args!("<uninit>")),
        };
        debug.finish()
    }
}
