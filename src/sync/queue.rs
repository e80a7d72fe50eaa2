//! A queue of work that knows when all of it is done.
#![forbid(unsafe_code)]

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::channel::{
    self, Receiver, RecvError, RecvTimeoutError, SendError, SendTimeoutError, Sender, TryRecvError,
    TrySendError,
};
use crate::park::{self, Waiters};
use crate::task::word::{Kind, Outcome};
use crate::task::{Deadline, Reason};

/// A queue of items to work on, and a count of those that are not done, as Python's `queue.Queue`.
///
/// Each item that was put must be [done](Queue::task_done) at some time. [`join`](Queue::join) waits until
/// all are.
///
/// ```
/// use greenroom::sync::Queue;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// greenroom::run(|| {
///     let queue = Arc::new(Queue::bounded(2));
///     let sum = Arc::new(AtomicU32::new(0));
///     for _ in 0..3 {
///         let (queue, sum) = (Arc::clone(&queue), Arc::clone(&sum));
///         greenroom::spawn(move || {
///             while let Ok(n) = queue.get() {
///                 sum.fetch_add(n, Ordering::Relaxed);
///                 queue.task_done();
///             }
///         });
///     }
///     (1..=10).for_each(|n| queue.put(n).unwrap());
///     queue.join();
///     assert_eq!(sum.load(Ordering::Relaxed), 55);
///     queue.close(); // ends the workers
/// });
/// ```
///
/// # Unwinding
///
/// All waits are interruption points.
pub struct Queue<T> {
    sender: Sender<T>,
    receiver: Receiver<T>,
    /// The items that were put, or are about to be, and are not done. The step to zero is made under the lock of
    /// `joiners`.
    unfinished: AtomicUsize,
    /// Those that wait until there are none.
    joiners: Waiters,
}

impl<T> Queue<T> {
    /// Makes a queue for any number of items.
    pub fn unbounded() -> Queue<T> {
        Queue::of(channel::unbounded())
    }

    /// Makes a queue for at most `capacity` items. With a capacity of zero, each item is handed from `put`
    /// to `get`.
    pub fn bounded(capacity: usize) -> Queue<T> {
        Queue::of(channel::bounded(capacity))
    }

    fn of((sender, receiver): (Sender<T>, Receiver<T>)) -> Queue<T> {
        Queue {
            sender,
            receiver,
            unfinished: AtomicUsize::new(0),
            joiners: Waiters::new(Reason::Queue),
        }
    }

    /// Adds an item. Waits while the queue is full.
    ///
    /// # Errors
    ///
    /// If the queue was closed. The error has the item.
    pub fn put(&self, item: T) -> Result<(), SendError<T>> {
        self.counted(|| self.sender.send(item))
    }

    /// Adds an item, if there is room.
    ///
    /// # Errors
    ///
    /// If the queue is full or was closed. The error has the item.
    pub fn try_put(&self, item: T) -> Result<(), TrySendError<T>> {
        self.counted(|| self.sender.try_send(item))
    }

    /// Adds an item. Waits for at most `timeout` while the queue is full.
    ///
    /// # Errors
    ///
    /// If there was no room in time, or the queue was closed. The error has the item.
    pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        self.counted(|| self.sender.send_timeout(item, timeout))
    }

    /// Takes the first item. Waits until there is one.
    ///
    /// # Errors
    ///
    /// If the queue is empty and was closed.
    pub fn get(&self) -> Result<T, RecvError> {
        self.receiver.recv()
    }

    /// Takes the first item, if there is one.
    ///
    /// # Errors
    ///
    /// If the queue is empty.
    pub fn try_get(&self) -> Result<T, TryRecvError> {
        self.receiver.try_recv()
    }

    /// Takes the first item. Waits for at most `timeout`.
    ///
    /// # Errors
    ///
    /// If no item came in time, or the queue is empty and was closed.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.receiver.recv_timeout(timeout)
    }

    /// Says that an item is done. To be called once for each item that was taken.
    ///
    /// # Panics
    ///
    /// If it is called more often than items were put.
    pub fn task_done(&self) {
        let is_counted = self.count_down(2).is_some() || self.end_last();
        assert!(
            is_counted,
            "task_done was called more often than items were put"
        );
    }

    /// Waits until all items that were put are done. Returns at once if there are none.
    ///
    /// What was done to an item before [`task_done`](Queue::task_done) happens before this returns.
    pub fn join(&self) {
        self.join_until(|| None);
    }

    /// Like [`join`](Queue::join), for at most `timeout`. Returns whether all items were done.
    pub fn join_timeout(&self, timeout: Duration) -> bool {
        self.join_until(|| Deadline::after(timeout))
    }

    /// Like [`join`](Queue::join), until `deadline` at the latest. Returns whether all items were done.
    pub fn join_deadline(&self, deadline: Instant) -> bool {
        self.join_until(|| Some(Deadline::at(deadline)))
    }

    /// Closes the queue: nothing can be put any more. What is queued can still be taken; then `get` fails.
    pub fn close(&self) {
        self.sender.close();
    }

    /// How many items were put and are not done, taken or not.
    pub fn unfinished(&self) -> usize {
        self.unfinished.load(Ordering::Acquire)
    }

    /// How many items are queued.
    pub fn len(&self) -> usize {
        self.receiver.len()
    }

    /// Whether no item is queued.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// Whether as many items are queued as may be.
    pub fn is_full(&self) -> bool {
        self.receiver.is_full()
    }

    /// How many items may be queued. `None` if there is no bound.
    pub fn capacity(&self) -> Option<usize> {
        self.receiver.capacity()
    }

    /// Counts an item as unfinished, and adds it by `put`. It is counted first, since a worker may be done
    /// with it before `put` returns.
    fn counted<E>(&self, put: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        /// Takes the count back if the item was not put, be it by an unwind.
        struct Counted<'a, T>(&'a Queue<T>);
        impl<T> Drop for Counted<'_, T> {
            fn drop(&mut self) {
                self.0.task_done();
            }
        }
        self.unfinished.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(self);
        let put = put();
        if put.is_ok() {
            mem::forget(counted);
        }
        put
    }

    /// Takes one from the count, if that is `least` or more. Returns the count before that.
    fn count_down(&self, least: usize) -> Option<usize> {
        let one_less = |count: usize| (count >= least).then(|| count - 1);
        let (done, look) = (Ordering::AcqRel, Ordering::Acquire);
        self.unfinished.fetch_update(done, look, one_less).ok()
    }

    /// Takes the last one from the count, and wakes those that wait for that. Returns false if there is none.
    ///
    /// Counts under the lock of the joiners: one that comes after the count was zero waits for later items, and must
    /// not be woken for this one.
    fn end_last(&self) -> bool {
        let mut before = None;
        self.joiners.wake_all_if(|| {
            before = self.count_down(1);
            before == Some(1)
        });
        before.is_some()
    }

    fn join_until(&self, deadline: impl FnOnce() -> Option<Deadline>) -> bool {
        park::spend_operation();
        let are_done = || self.unfinished() == 0;
        if are_done() {
            return true;
        }
        // Being woken means that all were done at that moment, even if there are new items by now.
        self.joiners.wait(Kind::Peer, deadline(), are_done) == Outcome::Woken || are_done()
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .field("unfinished", &self.unfinished())
            .finish_non_exhaustive()
    }
}
