//! A condition variable, without what it guards.
//!
//! Who waits queues first and then unlocks the mutex: so whoever notifies with the mutex locked, or
//! after that, finds it. WAITING is set under the lock of the queue when somebody queues, and goes
//! with the last, under the same lock: while it is not set there is nobody to notify. A notifier that
//! has had the mutex after the waiter sees it set.

use crate::atomic::{AtomicU32, Ordering};

use super::futex::{self, Deadline, Parked, Request};
use super::mutex::Mutex;

const WAITING: u32 = 1;

#[derive(Debug)]
pub(crate) struct Condvar {
    word: AtomicU32,
}

impl Condvar {
    /// Of a word that is zero. (Of which the models can make none in a constant.)
    pub(super) const fn of(word: AtomicU32) -> Condvar {
        Condvar { word }
    }

    /// Unlocks `mutex`, waits to be notified, at most until `deadline`, and locks it again. Returns
    /// whether it was notified.
    ///
    /// # Safety
    ///
    /// The caller has locked `mutex`.
    #[inline]
    pub(crate) unsafe fn wait(&self, mutex: &Mutex, deadline: Option<Deadline>) -> bool {
        let request = Request {
            deadline,
            ..Request::default()
        };
        let set = || {
            self.word.store(WAITING, Ordering::Relaxed);
            true
        };
        // SAFETY: the caller has locked it.
        let parked = futex::park(&self.word, request, set, || unsafe { mutex.unlock() });
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
            let woken = (0..n).take_while(|_| queue.wake_first().is_some());
            woken.for_each(drop);
            if queue.is_empty() {
                self.word.store(0, Ordering::Relaxed);
            }
        });
    }
}
