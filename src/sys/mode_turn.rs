//! Taking turns at the mode of a listener.
//!
//! The kernel knows no way to try to accept but on a descriptor in non-blocking mode. The mode is one
//! for all that share the open file description: clones, and other processes. So each accept sets it
//! for one call, and resets it. If another accept reset it in between, the call would block its
//! thread until the next connection comes: hence the turns.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::fs::{FlockOperation, fcntl_lock};

use super::fork::Process;
use super::switches::excused;

/// The number of the process whose thread has the turn, or zero.
static HOLDER: AtomicU32 = AtomicU32::new(0);

/// The right to change the mode of a listener, and to rely on it, for some microseconds.
pub(crate) struct ModeTurn<'fd> {
    /// What is locked against other processes.
    locked: Option<BorrowedFd<'fd>>,
}

impl<'fd> ModeTurn<'fd> {
    /// Waits for the turn among the threads of this process.
    pub(crate) fn take() -> ModeTurn<'fd> {
        let own = Process::current().number();
        loop {
            // Another number is that of a parent, whose thread is not there to give the turn back.
            let holder = HOLDER.load(Ordering::Relaxed);
            if holder != own {
                let taken =
                    HOLDER.compare_exchange(holder, own, Ordering::Acquire, Ordering::Relaxed);
                if taken.is_ok() {
                    return ModeTurn { locked: None };
                }
            }
            excused(thread::yield_now);
        }
    }

    /// As `take`, and waits for those of other processes, as far as they take turns, too: by a record
    /// lock on `socket`, which the kernel gives back for a process that ends.
    ///
    /// A process may be stopped amid its turn. It is not waited for any longer.
    pub(crate) fn take_among_processes(socket: BorrowedFd<'fd>) -> ModeTurn<'fd> {
        const ATTEMPTS: usize = 100;
        let mut turn = ModeTurn::take();
        for _ in 0..ATTEMPTS {
            if fcntl_lock(socket, FlockOperation::NonBlockingLockExclusive).is_ok() {
                turn.locked = Some(socket);
                break;
            }
            excused(thread::yield_now);
        }
        turn
    }
}

impl Drop for ModeTurn<'_> {
    fn drop(&mut self) {
        if let Some(socket) = self.locked {
            // What could be locked can be unlocked.
            let _ = fcntl_lock(socket, FlockOperation::NonBlockingUnlock);
        }
        HOLDER.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_does_not_wait_for_a_turn_of_its_parent() {
        crate::sys::fork::count_forks().unwrap();
        let turn = ModeTurn::take();
        // SAFETY: the child uses an atomic and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: it has no preconditions.
            unsafe { libc::alarm(60) };
            drop(ModeTurn::take());
            // SAFETY: as above.
            unsafe { libc::_exit(7) };
        }
        drop(turn);
        let mut status = 0;
        // SAFETY: the child is this test's, and `status` is valid.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status), "{status}");
        assert_eq!(libc::WEXITSTATUS(status), 7);
    }
}
