//! A value that is made when it is first needed.

use ::std::cell::UnsafeCell;
use ::std::fmt;
use ::std::mem;
use ::std::ops::{Deref, DerefMut};
use ::std::panic::{RefUnwindSafe, UnwindSafe};

use crate::sync::once as raw;

/// Like [`std::sync::LazyLock`], but waiting for the value parks the coroutine. What makes it may
/// wait, too.
pub struct LazyLock<T, F = fn() -> T> {
    once: raw::Once,
    /// Changed by whoever runs `once`; when that is complete the value is there.
    stage: UnsafeCell<Stage<T, F>>,
}

enum Stage<T, F> {
    Fresh(F),
    Made(T),
    /// The function runs, or has unwound.
    Taken,
}

// SAFETY: all may share the value, and one may have made it that another drops, on its own thread.
// The function is used by one, which others have sent it to.
unsafe impl<T: Sync + Send, F: Send> Sync for LazyLock<T, F> {}

// Where making the value unwinds there is none.
impl<T: RefUnwindSafe + UnwindSafe, F: UnwindSafe> RefUnwindSafe for LazyLock<T, F> {}
impl<T: UnwindSafe, F: UnwindSafe> UnwindSafe for LazyLock<T, F> {}

impl<T, F: FnOnce() -> T> LazyLock<T, F> {
    /// Like [`std::sync::LazyLock::new`].
    #[inline]
    pub const fn new(f: F) -> LazyLock<T, F> {
        LazyLock {
            once: raw::Once::new(),
            stage: UnsafeCell::new(Stage::Fresh(f)),
        }
    }

    /// Like [`std::sync::LazyLock::force`], but parks the coroutine while another one makes the value.
    ///
    /// # Panics
    ///
    /// With the panic of the function, now and if it has before.
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
            // SAFETY: the one that runs `once` has the stage to itself; it is not borrowed while
            // the function runs.
            let stage = unsafe { mem::replace(&mut *self.stage.get(), Stage::Taken) };
            if let Stage::Fresh(f) = stage {
                let value = f();
                // SAFETY: as above.
                unsafe { *self.stage.get() = Stage::Made(value) };
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
        // SAFETY: when `once` is complete the stage is shared, and changed no more.
        match unsafe { &*this.stage.get() } {
            Stage::Made(value) => Some(value),
            _ => None,
        }
    }

    /// Like [`std::sync::LazyLock::get_mut`].
    #[inline]
    pub fn get_mut(this: &mut LazyLock<T, F>) -> Option<&mut T> {
        match this.stage.get_mut() {
            Stage::Made(value) => Some(value),
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
