//! One-time initialisation.
#![forbid(unsafe_code)]

use ::std::cell::Cell;
use ::std::fmt;
use ::std::marker::PhantomData;

use crate::sync::once as raw;

/// Like [`std::sync::Once`], but waiting parks the coroutine. The closure may wait, too.
pub struct Once {
    once: raw::Once,
}

/// Like [`std::sync::OnceState`].
pub struct OnceState {
    poisoned: bool,
    /// Makes the type `!Sync`, as std's is.
    not_sync: PhantomData<Cell<()>>,
}

impl Once {
    /// Like [`std::sync::Once::new`].
    #[must_use]
    #[inline]
    #[allow(clippy::new_without_default, reason = "mirrors std")]
    pub const fn new() -> Once {
        Once {
            once: raw::Once::new(),
        }
    }

    /// Like [`std::sync::Once::call_once`], but parks the coroutine while another task
    /// runs its closure.
    ///
    /// # Panics
    ///
    /// If `f` panics, or if this is poisoned: a closure has panicked before.
    #[inline]
    #[track_caller]
    pub fn call_once<F>(&self, f: F)
    where
        F: FnOnce(),
    {
        if self.is_completed() {
            return;
        }
        match self.once.begin(false) {
            Ok(running) => {
                f();
                running.complete();
            }
            Err(raw::Ended::Poisoned) => panic_poisoned(),
            Err(_) => {}
        }
    }

    /// Like [`std::sync::Once::call_once_force`], but parks the coroutine while another task
    /// runs its closure.
    ///
    /// # Panics
    ///
    /// If `f` panics.
    #[inline]
    pub fn call_once_force<F>(&self, f: F)
    where
        F: FnOnce(&OnceState),
    {
        if self.is_completed() {
            return;
        }
        if let Ok(running) = self.once.begin(true) {
            f(&OnceState {
                poisoned: running.was_poisoned(),
                not_sync: PhantomData,
            });
            running.complete();
        }
    }

    /// Like [`std::sync::Once::is_completed`].
    #[inline]
    pub fn is_completed(&self) -> bool {
        self.once.is_completed()
    }

    /// Like [`std::sync::Once::wait`], but parks the coroutine.
    ///
    /// # Panics
    ///
    /// If this is poisoned: a closure has panicked before.
    pub fn wait(&self) {
        if !self.is_completed() && !self.once.wait(false) {
            panic_poisoned();
        }
    }

    /// Like [`std::sync::Once::wait_force`], but parks the coroutine.
    pub fn wait_force(&self) {
        if !self.is_completed() {
            self.once.wait(true);
        }
    }
}

#[cold]
#[track_caller]
fn panic_poisoned() -> ! {
    panic!("Once instance has previously been poisoned");
}

impl OnceState {
    /// Like [`std::sync::OnceState::is_poisoned`].
    #[inline]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").finish_non_exhaustive()
    }
}

impl fmt::Debug for OnceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnceState")
            .field("poisoned", &self.poisoned)
            .finish()
    }
}
