//! The locks: `sync/{mutex,rwlock,condvar,once}.rs`.

use super::condvar::Condvar;
use super::futex::{self, Deadline, be_coroutine, with_lot};
use super::mutex::Mutex;
use super::once::Once;
use super::rwlock::RwLock;
use super::{Model, large, small};
use crate::check::atomic::AtomicU32;
use crate::check::{Arc, Signal, UnsafeCell, thread};

pub(super) const MODELS: &[Model] = &[
    small("locks: a mutex of two", 3, || mutex(2, 2, 0)),
    small("locks: a mutex of two coroutines of one worker", 3, || {
        mutex(2, 2, 1)
    }),
    small("locks: a mutex of two coroutines of two workers", 3, || {
        mutex(2, 2, 2)
    }),
    small("locks: a mutex of three", 2, || mutex(3, 1, 0)),
    small(
        "locks: a mutex of three coroutines of two workers",
        2,
        || mutex(3, 1, 2),
    ),
    large("locks: a mutex of many", || mutex(5, 4, 0)),
    large("locks: a mutex of many coroutines of three workers", || {
        mutex(6, 4, 3)
    }),
    small("locks: a mutex whose first waiter is late", 2, || {
        late(1, Guarded::lock_and_add)
    }),
    large("locks: a mutex whose first waiter is late again", || {
        late(2, Guarded::lock_and_add);
    }),
    large("locks: a writer that is late", || {
        late(1, |guarded| Write.on(&guarded.data));
        late(2, |guarded| Write.on(&guarded.data));
    }),
    large("locks: a reader that is late", || {
        late(1, |guarded| Read.on(&guarded.data));
        late(2, |guarded| Read.on(&guarded.data));
    }),
    small("locks: a mutex that one of two gives up", 2, || {
        giving_up(1)
    }),
    large("locks: a mutex that some of many give up", || giving_up(4)),
    small("locks: a reader behind a writer that gives up", 2, || {
        writer_gives_up(1)
    }),
    large("locks: readers behind a writer that gives up", || {
        writer_gives_up(3);
    }),
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
    large("locks: many notifications", many_notifications),
    small("locks: two threads complete a once", 3, || once(2, false)),
    small("locks: a poisoned once", 2, || once(2, true)),
    large("locks: many threads complete a once", || once(5, true)),
];

/// What a thread does with a reader-writer lock.
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

// SAFETY: the cell panics if two threads use the value at the same time, and one of them writes. The
// lock under test should prevent that.
unsafe impl Sync for Data {}
// SAFETY: the value is a number, which may be sent to other threads.
unsafe impl Send for Data {}

impl Data {
    fn new() -> Data {
        Data {
            lock: RwLock::of(AtomicU32::new(0)),
            value: UnsafeCell::new(0),
        }
    }
}

impl Act {
    fn on(self, data: &Data) {
        match self {
            // SAFETY: unlocks what this thread has locked for reading.
            Read => unsafe {
                data.lock.read();
                look(data);
                data.lock.unlock_read();
            },
            // SAFETY: unlocks what this thread has locked for writing.
            Write => unsafe {
                data.lock.write();
                add(data);
                data.lock.unlock_write();
            },
            // SAFETY: downgrades what this thread has locked for writing, and unlocks that, which it
            // then has locked for reading.
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

/// Threads lock a mutex twice each, and another one gives up at some time. No other waiter is forgotten.
fn giving_up(patient: usize) {
    with_lot(|| {
        let mutex = Arc::new(Mutex::of(AtomicU32::new(0)));
        let threads: Vec<_> = (0..patient)
            .map(|n| {
                let mutex = mutex.clone();
                thread::spawn(move || {
                    be_coroutine(1 + n as u32 % 2, n as u32);
                    mutex.lock();
                    // SAFETY: this thread has just locked it.
                    unsafe { mutex.unlock() };
                })
            })
            .collect();
        be_coroutine(1, 9);
        if mutex.lock_until(|| Some(Deadline::Later)) {
            // SAFETY: this thread has just locked it.
            unsafe { mutex.unlock() };
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(mutex.try_lock(), "it is free at the end");
    });
}

/// A writer that gives up does not keep readers out, although another reader still has the lock.
fn writer_gives_up(readers: usize) {
    with_lot(|| {
        let data = Arc::new(Data::new());
        data.lock.read();
        let threads: Vec<_> = (0..readers)
            .map(|n| {
                let data = data.clone();
                thread::spawn(move || {
                    be_coroutine(1 + n as u32 % 2, n as u32);
                    Read.on(&data);
                })
            })
            .collect();
        let writing = thread::spawn({
            let data = data.clone();
            move || {
                be_coroutine(3, 1);
                assert!(!data.lock.write_until(|| Some(Deadline::Later)));
            }
        });
        for thread in threads {
            thread.join().unwrap();
        }
        writing.join().unwrap();
        // SAFETY: this thread has locked it above.
        unsafe { data.lock.unlock_read() };
        assert!(data.lock.try_write(), "it is free at the end");
    });
}

fn look(data: &Data) -> usize {
    // SAFETY: the cell has checked that nobody writes.
    data.value.with(|value| unsafe { *value })
}

fn add(data: &Data) -> usize {
    data.value.with_mut(|value| {
        // SAFETY: the cell has checked that nobody else uses the value.
        unsafe {
            *value += 1;
            *value
        }
    })
}

/// The calling thread does the acts in `here`. For each act in `there`, another thread does it.
fn rwlock(here: &[Act], there: &[Act]) {
    with_lot(|| {
        let data = Arc::new(Data::new());
        let threads: Vec<_> = there
            .iter()
            .zip(0..)
            .map(|(&act, n)| {
                let data = data.clone();
                thread::spawn(move || {
                    be_coroutine(1 + n % 2, n);
                    act.on(&data);
                })
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
        assert!(data.lock.try_write(), "the lock is free");
        // SAFETY: `try_write` has just locked it.
        unsafe { data.lock.unlock_write() };
    });
}

struct Guarded {
    mutex: Mutex,
    condvar: Condvar,
    value: UnsafeCell<usize>,
    data: Data,
}

// SAFETY: the cell panics if two threads use the value at the same time, and one of them writes. The
// mutex under test should prevent that.
unsafe impl Sync for Guarded {}
// SAFETY: the value is a number, which may be sent to other threads.
unsafe impl Send for Guarded {}

impl Guarded {
    fn new() -> Arc<Guarded> {
        Arc::new(Guarded {
            mutex: Mutex::of(AtomicU32::new(0)),
            condvar: Condvar::of(AtomicU32::new(0)),
            value: UnsafeCell::new(0),
            data: Data::new(),
        })
    }

    fn locked<R>(&self, f: impl FnOnce() -> R) -> R {
        self.mutex.lock();
        let result = f();
        // SAFETY: this function has locked it.
        unsafe { self.mutex.unlock() };
        result
    }

    /// The value. To be called with the mutex locked.
    fn value(&self) -> usize {
        // SAFETY: the cell has checked that nobody writes.
        self.value.with(|value| unsafe { *value })
    }

    /// Adds one. To be called with the mutex locked.
    fn add(&self) {
        // SAFETY: the cell has checked that nobody else uses the value.
        self.value.with_mut(|value| unsafe { *value += 1 });
    }

    /// Waits on the condition variable. To be called with the mutex locked. Returns whether the caller
    /// was notified.
    fn wait(&self, deadline: Option<Deadline>) -> bool {
        // SAFETY: the caller has locked the mutex.
        unsafe { self.condvar.wait(&self.mutex, deadline) }
    }
}

impl Guarded {
    fn lock_and_add(&self) {
        self.locked(|| self.add());
    }

    fn are_free(&self) -> bool {
        self.mutex.try_lock() && self.data.lock.try_write()
    }
}

/// Each of `threads` adds one, `rounds` times. They are coroutines of so many `workers`; OS threads if
/// that is zero.
fn mutex(threads: usize, rounds: usize, workers: u32) {
    with_lot(|| {
        let guarded = Guarded::new();
        let work = {
            let guarded = guarded.clone();
            move |n: usize| {
                if workers > 0 {
                    be_coroutine(1 + n as u32 % workers, n as u32);
                }
                for _ in 0..rounds {
                    guarded.lock_and_add();
                }
            }
        };
        let others: Vec<_> = (1..threads)
            .map(|n| {
                let work = work.clone();
                thread::spawn(move || work(n))
            })
            .collect();
        work(0);
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(guarded.locked(|| guarded.value()), threads * rounds);
        assert!(guarded.are_free(), "the lock is free");
    });
}

/// A coroutine that was woken for the `nth` time does not run before a coroutine of another worker has
/// had the lock. No thread holds the lock then, so the other coroutine must be able to take it.
fn late(nth: usize, act: fn(&Guarded)) {
    with_lot(|| {
        let guarded = Guarded::new();
        let over = Arc::new(Signal::new());
        let late = thread::spawn({
            let (guarded, over) = (guarded.clone(), over.clone());
            move || {
                be_coroutine(1, 1);
                futex::late(nth, over, || act(&guarded));
            }
        });
        let other = thread::spawn({
            let guarded = guarded.clone();
            move || {
                be_coroutine(2, 1);
                Write.on(&guarded.data);
                guarded.lock_and_add();
                over.raise();
            }
        });
        for _ in 0..nth {
            guarded.lock_and_add();
            Write.on(&guarded.data);
        }
        late.join().unwrap();
        other.join().unwrap();
        assert!(guarded.are_free(), "the lock is free");
    });
}

/// A waiter is notified after the change that it waits for, and must see it.
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

/// A notification ends one wait. A deadline ends only its own wait.
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
            if guarded.value() == 0 && !guarded.wait(Some(Deadline::Later)) {
                while guarded.value() == 0 {
                    assert!(guarded.wait(None));
                }
            }
            assert_eq!(guarded.value(), 1);
        });
        notifier.join().unwrap();
    });
}

/// As many notifications as waiters, of one or of all. Some waits have deadlines.
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
                            guarded.wait((me % 2 == 0).then_some(Deadline::Later));
                        }
                    });
                })
            })
            .collect();
        for n in 0..WAITERS {
            guarded.locked(|| guarded.add());
            if n == WAITERS - 2 {
                // This may wake a waiter for a later value. The next notification wakes all.
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

// SAFETY: the cell panics if two threads use the value at the same time, and one of them writes. The
// once under test should prevent that.
unsafe impl Sync for Done {}
// SAFETY: the value is a number, which may be sent to other threads.
unsafe impl Send for Done {}

/// Of several `threads`, one completes the `Once`, and the others wait for that. If it `is_poisoned`
/// first, a waiting thread completes it.
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
                // SAFETY: the cell has checked that nobody else uses the value.
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
                    // SAFETY: the cell has checked that nobody writes.
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
