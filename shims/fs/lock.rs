//! The lock of a file, and waits for it that were given up.
//!
//! All duplicates of a descriptor share one lock. A thread of the pool that waits for the lock gets it even if the
//! coroutine has given up meanwhile, and must then unlock the file: unless the lock, which is the same one, was taken
//! by a later call, or is waited for by one.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::pool::unblock_operation;
use crate::sys::switches::own_lock;

/// What the duplicates of a descriptor in the shims know of the file's lock.
#[derive(Clone, Default)]
pub(super) struct FileLock(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Whether the last call that has succeeded has locked the file.
    is_held: bool,
    /// How many calls wait for the lock.
    waiting: usize,
}

impl FileLock {
    /// Calls `lock`, which does not wait for the lock.
    ///
    /// # Errors
    ///
    /// Those of `lock`.
    pub(super) fn take<E>(&self, lock: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let mut state = self.state();
        lock()?;
        state.is_held = true;
        Ok(())
    }

    /// Calls `unlock`.
    ///
    /// # Errors
    ///
    /// Those of `unlock`.
    pub(super) fn release(&self, unlock: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state();
        unlock()?;
        state.is_held = false;
        Ok(())
    }

    /// Calls `lock`, which blocks the thread until it has the lock.
    ///
    /// # Errors
    ///
    /// Those of `lock`.
    pub(super) fn block(&self, lock: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.state().waiting += 1;
        let locked = lock();
        let mut state = self.state();
        state.waiting -= 1;
        state.is_held |= locked.is_ok();
        locked
    }

    /// Has the pool call `lock`, which waits for the lock, with a duplicate of the descriptor.
    ///
    /// # Errors
    ///
    /// Those of `lock`. That of an interrupt, if interrupts are delivered as errors.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub(super) fn wait(
        &self,
        duplicate: fs::File,
        lock: fn(&fs::File) -> io::Result<()>,
    ) -> io::Result<()> {
        self.state().waiting += 1;
        let wait = Arc::new(Wait {
            file: duplicate,
            lock: self.clone(),
            is_over: AtomicBool::new(false),
        });
        let waiter = Waiter(Arc::clone(&wait));
        unblock_operation(move || lock(&wait.file).map(|()| Locked(wait)))??.keep();
        drop(waiter);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        own_lock(&self.0)
    }
}

/// A wait for a lock.
struct Wait {
    file: fs::File,
    lock: FileLock,
    /// Whether the wait counts no more. Changed under the lock of the state.
    is_over: AtomicBool,
}

impl Wait {
    /// Counts the wait no more. It ends before or after its thread has the lock.
    fn end(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock.state();
        if !self.is_over.swap(true, Ordering::Relaxed) {
            state.waiting -= 1;
        }
        state
    }
}

/// The caller that waits, until it has the lock or gives up.
struct Waiter(Arc<Wait>);

impl Drop for Waiter {
    fn drop(&mut self) {
        drop(self.0.end());
    }
}

/// The lock of a file, which a thread of the pool has waited for. If the caller has given up meanwhile, nothing takes
/// this over, and the drop unlocks the file.
struct Locked(Arc<Wait>);

impl Locked {
    /// Leaves the file locked.
    fn keep(self) {
        self.0.lock.state().is_held = true;
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let state = self.0.end();
        if !state.is_held && state.waiting == 0 {
            // Unlocking a locked file does not fail.
            let _ = self.0.file.unlock();
        }
    }
}
