//! The raw condition variable: without the data of the mutex.
//!
//! A waiter queues before it unlocks the mutex. So a notifier that has the mutex, or has had it after
//! the waiter, finds the waiter queued.
//!
//! WAITING tells notifiers whether to look at the queue at all. A waiter sets it under the lock of the
//! queue when it queues; a notifier that takes the last waiter clears it under the same lock. So while
//! waiters are queued it is set. A notifier may read it without that lock: a notifier that has had the
//! mutex after the waiter sees WAITING, because the mutex orders the two.

use crate::atomic::{AtomicU32, Ordering};

use super::futex::{self, Awaiting, Deadline, Parked, Reason, WaitRequest};
use super::mutex::Mutex;

/// Waiters may be queued. The word is this or zero.
const WAITING: u32 = 1;

/// A raw condition variable of the size of its word.
#[derive(Debug)]
pub(crate) struct Condvar {
    word: AtomicU32,
}

impl Condvar {
    /// Makes one of a word that is zero. Not `new`: the models' words cannot be made in a constant.
    pub(super) const fn of(word: AtomicU32) -> Condvar {
        Condvar { word }
    }

    /// Unlocks `mutex`, waits until it is notified or `deadline` has passed, and locks `mutex` again.
    /// Returns whether it was notified.
    ///
    /// # Safety
    ///
    /// The caller has locked `mutex`.
    #[inline]
    pub(crate) unsafe fn wait(&self, mutex: &Mutex, deadline: Option<Deadline>) -> bool {
        let request = WaitRequest {
            deadline: deadline.as_ref(),
            ..WaitRequest::default()
        };
        let mark_waiting = || {
            self.word.store(WAITING, Ordering::Relaxed);
            true
        };
        // SAFETY: the caller has locked the mutex, and this is the only unlock before it is locked
        // again.
        let unlock = || unsafe { mutex.unlock() };
        let awaiting = Awaiting::object(Reason::Condvar, self);
        let parked = futex::park(&self.word, awaiting, request, mark_waiting, unlock);
        mutex.lock();
        parked != Parked::TimedOut
    }

    #[inline]
    pub(crate) fn notify_one(&self) {
        self.notify(1);
    }

    #[inline]
    pub(crate) fn notify_all(&self) {
        self.notify(usize::MAX);
    }

    #[inline]
    fn notify(&self, n: usize) {
        if self.word.load(Ordering::Relaxed) != 0 {
            self.notify_waiting(n);
        }
    }

    #[cold]
    fn notify_waiting(&self, n: usize) {
        futex::with_waiters(&self.word, |queue| {
            // `wake_first` skips waiters that have timed out, so no notification is spent on one.
            let woken = (0..n).take_while(|_| queue.wake_first().is_some());
            woken.for_each(drop);
            if queue.is_empty() {
                self.word.store(0, Ordering::Relaxed);
            }
        });
    }
}
