//! Turns at accepting from a listener without blocking.
//!
//! accept4(2) has no flag like `MSG_DONTWAIT`. A connection that poll(2) reports can be accepted without
//! blocking as long as nobody else takes it. If others may, the listener must be in non-blocking mode. The
//! mode belongs to the open file description, which clones of the descriptor
//! and other processes share. So each attempt sets the mode, accepts, and resets the mode:
//!
//! ```text
//!  attempt A:  set O_NONBLOCK                           accept: blocks the thread!
//!  attempt B:                  set, accept, reset
//! ```
//!
//! Without turns, attempt B could reset the mode before attempt A accepts. The thread of A would then
//! block until the next connection comes. A turn covers a whole attempt: some microseconds.
#![cfg_attr(not(test), forbid(unsafe_code))]

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::fs::{FlockOperation, fcntl_lock};

use super::fork::Process;
use super::switches::excused;

/// The number of the process in which a thread has the turn, or zero if no thread has it. One turn
/// serves all listeners of the process.
///
/// It is a number, not a flag, because of forks: a child inherits the value, but not the thread that
/// would reset it.
static HOLDER: AtomicU32 = AtomicU32::new(0);

/// The exclusive right to accept from a listener, to change its mode, and to rely on that, until it is
/// dropped.
///
/// Waiting for it spins with `sched_yield`, because a turn is short.
pub(crate) struct ModeTurn<'fd> {
    /// The socket that carries a record lock against other processes.
    locked: Option<BorrowedFd<'fd>>,
}

impl<'fd> ModeTurn<'fd> {
    /// Waits for the turn. It excludes the other threads of this process.
    pub(crate) fn take() -> ModeTurn<'fd> {
        let own = Process::current().number();
        loop {
            // Any number but our own is free to be replaced. Zero: no thread has the turn. Another
            // number: a thread of an ancestor has it, and does not exist in this process.
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

    /// Like `take`, and excludes other processes that call this for the same socket: by a record lock
    /// (fcntl(2)), which the kernel releases if the process ends.
    ///
    /// A process may be stopped in the middle of its turn. After a hundred attempts this goes on
    /// without the lock, which at worst makes a call block until the next connection.
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
            // Unlocking cannot fail for a lock that is held on an open descriptor.
            let _ = fcntl_lock(socket, FlockOperation::NonBlockingUnlock);
        }
        HOLDER.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_takes_over_the_turn_of_its_parent() {
        crate::sys::fork::count_forks().unwrap();
        let turn = ModeTurn::take();
        // SAFETY: the child only uses atomics and async-signal-safe calls, and then ends by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: alarm has no preconditions.
            unsafe { libc::alarm(60) };
            drop(ModeTurn::take());
            // SAFETY: _exit has no preconditions.
            unsafe { libc::_exit(7) };
        }
        drop(turn);
        let mut status = 0;
        // SAFETY: `status` is valid for the call to write.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status), "{status}");
        assert_eq!(libc::WEXITSTATUS(status), 7);
    }
}
