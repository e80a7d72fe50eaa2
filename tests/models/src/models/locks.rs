//! The locks: `sync/{mutex,rwlock,condvar,once}.rs`.

use super::condvar::Condvar;
use super::futex::{Deadline, with_lot};
use super::mutex::Mutex;
use super::once::Once;
use super::rwlock::RwLock;
use super::{Model, large, small};
use crate::check::atomic::AtomicU32;
use crate::check::{Arc, UnsafeCell, thread};

pub(super) const MODELS: &[Model] = &[
    small("locks: a mutex of two", 3, || mutex(2, 2)),
    small("locks: a mutex of three", 2, || mutex(3, 1)),
    large("locks: a mutex of many", || mutex(5, 4)),
    small("locks: a reader and a writer", 3, || {
        rwlock(&[Read], &[Write])
    }),
    small("locks: two readers and a writer", 2, || {
        rwlock(&[Read], &[Read, Write])
    }),
    small("locks: a writer that becomes a reader", 2, || {
        rwlock(&[Downgrade], &[Read])
    }),
    large("locks: many readers and writers", || {
        rwlock(
            &[Read, Write, Read, Downgrade, Write, Read],
            &[Write, Read, Read],
        );
    }),
    small("locks: a notification against a wait", 3, notification),
    small("locks: a notification against a deadline", 2, deadline),
    large("locks: many that are notified", many_notifications),
    small("locks: two that complete a once", 3, || once(2, false)),
    small("locks: a once that is poisoned", 2, || once(2, true)),
    large("locks: many that complete a once", || once(5, true)),
];

/// What somebody does with a lock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Read,
    Write,
    Downgrade,
}

use Act::{Downgrade, Read, Write};

struct Data {
    lock: RwLock,
    value: UnsafeCell<usize>,
}

// SAFETY: the value is used under the lock, which is what is checked.
unsafe impl Sync for Data {}
// SAFETY: as above.
unsafe impl Send for Data {}

impl Act {
    fn on(self, data: &Data) {
        // SAFETY: each is unlocked as it was locked.
        match self {
            Read => unsafe {
                data.lock.read();
                look(data);
                data.lock.unlock_read();
            },
            Write => unsafe {
                data.lock.write();
                add(data);
                data.lock.unlock_write();
            },
            Downgrade => unsafe {
                data.lock.write();
                let value = add(data);
                data.lock.downgrade();
                assert_eq!(look(data), value, "no writer came in between");
                data.lock.unlock_read();
            },
        }
    }
}

fn look(data: &Data) -> usize {
    // SAFETY: checked by the cell.
    data.value.with(|value| unsafe { *value })
}

fn add(data: &Data) -> usize {
    data.value.with_mut(|value| {
        // SAFETY: checked by the cell.
        unsafe {
            *value += 1;
            *value
        }
    })
}

/// One thread does the acts of `here`, and one for each of `there` that act.
fn rwlock(here: &[Act], there: &[Act]) {
    with_lot(|| {
        let data = Arc::new(Data {
            lock: RwLock::of(AtomicU32::new(0)),
            value: UnsafeCell::new(0),
        });
        let threads: Vec<_> = there
            .iter()
            .map(|&act| {
                let data = data.clone();
                thread::spawn(move || act.on(&data))
            })
            .collect();
        for act in here {
            act.on(&data);
        }
        for thread in threads {
            thread.join().unwrap();
        }
        let all = here.iter().chain(there);
        let writers = all.filter(|&&act| act != Read).count();
        assert_eq!(look(&data), writers);
        assert!(data.lock.try_write(), "nobody has left it locked");
        // SAFETY: just locked.
        unsafe { data.lock.unlock_write() };
    });
}

struct Guarded {
    mutex: Mutex,
    condvar: Condvar,
    value: UnsafeCell<usize>,
}

// SAFETY: the value is used under the mutex, which is what is checked.
unsafe impl Sync for Guarded {}
// SAFETY: as above.
unsafe impl Send for Guarded {}

impl Guarded {
    fn new() -> Arc<Guarded> {
        Arc::new(Guarded {
            mutex: Mutex::of(AtomicU32::new(0)),
            condvar: Condvar::of(AtomicU32::new(0)),
            value: UnsafeCell::new(0),
        })
    }

    fn locked<R>(&self, f: impl FnOnce() -> R) -> R {
        self.mutex.lock();
        let result = f();
        // SAFETY: locked above.
        unsafe { self.mutex.unlock() };
        result
    }

    /// To be called under the mutex.
    fn value(&self) -> usize {
        // SAFETY: checked by the cell.
        self.value.with(|value| unsafe { *value })
    }

    /// As `value`.
    fn add(&self) {
        // SAFETY: checked by the cell.
        self.value.with_mut(|value| unsafe { *value += 1 });
    }

    /// As `value`. Returns whether it was notified.
    fn wait(&self, deadline: Option<Deadline>) -> bool {
        // SAFETY: the caller has locked it.
        unsafe { self.condvar.wait(&self.mutex, deadline) }
    }
}

fn mutex(threads: usize, rounds: usize) {
    with_lot(|| {
        let guarded = Guarded::new();
        let work = {
            let guarded = guarded.clone();
            move || {
                for _ in 0..rounds {
                    guarded.locked(|| guarded.add());
                }
            }
        };
        let others: Vec<_> = (1..threads).map(|_| thread::spawn(work.clone())).collect();
        work();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(guarded.locked(|| guarded.value()), threads * rounds);
        assert!(guarded.mutex.try_lock(), "nobody has left it locked");
    });
}

fn notification() {
    with_lot(|| {
        let guarded = Guarded::new();
        let notifier = thread::spawn({
            let guarded = guarded.clone();
            move || {
                guarded.locked(|| guarded.add());
                guarded.condvar.notify_one();
            }
        });
        guarded.locked(|| {
            while guarded.value() == 0 {
                assert!(guarded.wait(None));
            }
        });
        notifier.join().unwrap();
    });
}

/// A notification ends one wait, and a deadline that one alone which it is for.
fn deadline() {
    with_lot(|| {
        let guarded = Guarded::new();
        let notifier = thread::spawn({
            let guarded = guarded.clone();
            move || {
                guarded.locked(|| {
                    guarded.add();
                    guarded.condvar.notify_one();
                });
            }
        });
        guarded.locked(|| {
            if guarded.value() == 0 && !guarded.wait(Some(Deadline)) {
                while guarded.value() == 0 {
                    assert!(guarded.wait(None));
                }
            }
            assert_eq!(guarded.value(), 1);
        });
        notifier.join().unwrap();
    });
}

/// As many notifications as there are waiters, in two kinds, and a deadline now and then.
fn many_notifications() {
    const WAITERS: usize = 4;
    with_lot(|| {
        let guarded = Guarded::new();
        let waiters: Vec<_> = (0..WAITERS)
            .map(|me| {
                let guarded = guarded.clone();
                thread::spawn(move || {
                    guarded.locked(|| {
                        while guarded.value() <= me {
                            guarded.wait((me % 2 == 0).then_some(Deadline));
                        }
                    });
                })
            })
            .collect();
        for n in 0..WAITERS {
            guarded.locked(|| guarded.add());
            if n == WAITERS - 2 {
                // Which may wake the wrong one, but the next wakes all.
                guarded.condvar.notify_one();
            } else {
                guarded.condvar.notify_all();
            }
        }
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

struct Done {
    once: Once,
    value: UnsafeCell<usize>,
}

// SAFETY: the value is written by who runs the once, and read when that is complete, which is what
// is checked.
unsafe impl Sync for Done {}
// SAFETY: as above.
unsafe impl Send for Done {}

/// It is completed by one, and awaited by another; where it `is_poisoned` first, by one of those who
/// wait.
fn once(threads: usize, is_poisoned: bool) {
    with_lot(|| {
        let done = Arc::new(Done {
            once: Once::of(AtomicU32::new(0)),
            value: UnsafeCell::new(0),
        });
        let first = if is_poisoned {
            done.once.begin(false).ok()
        } else {
            None
        };
        let complete = move |done: &Done| {
            if let Ok(running) = done.once.begin(true) {
                assert_eq!(running.was_poisoned(), is_poisoned);
                // SAFETY: checked by the cell.
                done.value.with_mut(|value| unsafe { *value += 1 });
                running.complete();
            }
        };
        let others: Vec<_> = (1..threads)
            .map(|n| {
                let done = done.clone();
                thread::spawn(move || {
                    if n % 2 == 0 {
                        complete(&done);
                    }
                    assert!(done.once.wait(true));
                    // SAFETY: checked by the cell.
                    assert_eq!(done.value.with(|value| unsafe { *value }), 1);
                })
            })
            .collect();
        drop(first);
        complete(&done);
        for other in others {
            other.join().unwrap();
        }
        assert!(done.once.is_completed());
    });
}
