//! Tasks that wait for each other at mutexes, barriers and condition variables.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::peers::{Blocking, Greenroom, May, Peer, Threads, run_tokio};

/// `tasks` tasks that take one lock again and again, and yield while they hold the lock: `[ns per
/// lock and unlock, ns per hand-over]`
///
/// A hand-over is an acquisition by a different task than the previous acquisition. With a fair
/// lock, each acquisition is a hand-over. A lock has fewer hand-overs if the task that unlocks may
/// take the lock again at once.
///
/// While one task yields, all other tasks wait. If no other task is runnable, a yield on tokio
/// polls the system, and these polls are most of tokio's time here.
pub(crate) fn mutex(peer: Peer, tasks: usize) -> Vec<f64> {
    let tasks = peer.capped(tasks);
    let turns = match peer {
        Peer::Threads => 100_000 / tasks,
        _ => 1_000_000 / tasks,
    };
    match peer {
        Peer::Greenroom => contend::<Greenroom>(tasks, turns),
        Peer::May => contend::<May>(tasks, turns),
        Peer::Threads => contend::<Threads>(tasks, turns),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, contend_async(tasks, turns)),
        Peer::Mio => unreachable!("not a peer of this work"),
    }
}

/// `tasks` tasks that meet at a barrier again and again: `[ns per wait]`
pub(crate) fn barrier(peer: Peer, tasks: usize) -> Vec<f64> {
    let rounds = match peer {
        Peer::Threads => 5_000,
        _ => 50_000,
    };
    vec![match peer {
        Peer::Greenroom => meet::<Greenroom>(tasks, rounds),
        Peer::May => meet::<May>(tasks, rounds),
        Peer::Threads => meet::<Threads>(tasks, rounds),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, meet_async(tasks, rounds)),
        Peer::Mio => unreachable!("not a peer of this work"),
    }]
}

/// Two tasks that wait for their turn at a condition variable: `[ns per round trip]`
pub(crate) fn condvar_ping_pong(peer: Peer) -> Vec<f64> {
    vec![match peer {
        Peer::Greenroom => take_turns::<Greenroom>(500_000),
        Peer::May => take_turns::<May>(500_000),
        Peer::Threads => take_turns::<Threads>(50_000),
        Peer::Tokio | Peer::TokioMt | Peer::Mio => unreachable!("not a peer of this work"),
    }]
}

/// The locks of a peer with blocking tasks.
trait Locks: Blocking {
    type Mutex<T: Send + 'static>: Send + Sync + 'static;
    fn mutex<T: Send + 'static>(value: T) -> Self::Mutex<T>;
    fn lock<T: Send + 'static, R>(mutex: &Self::Mutex<T>, f: impl FnOnce(&mut T) -> R) -> R;

    type Condvar: Send + Sync + 'static;
    fn condvar() -> Self::Condvar;
    /// Takes the lock, waits at `condvar` until `is_time`, and calls `f` with the lock held.
    fn lock_when<T: Send + 'static, R>(
        mutex: &Self::Mutex<T>,
        condvar: &Self::Condvar,
        is_time: impl Fn(&T) -> bool,
        f: impl FnOnce(&mut T) -> R,
    ) -> R;
    fn notify_one(condvar: &Self::Condvar);

    type Barrier: Send + Sync + 'static;
    fn barrier(tasks: usize) -> Self::Barrier;
    /// Returns whether the caller is the leader.
    fn wait(barrier: &Self::Barrier) -> bool;
}

/// The locks of these peers all have std's interface.
macro_rules! locks {
    ($peer:ty, $($sync:ident)::+) => {
        impl Locks for $peer {
            type Mutex<T: Send + 'static> = $($sync)::+::Mutex<T>;

            fn mutex<T: Send + 'static>(value: T) -> Self::Mutex<T> {
                Self::Mutex::new(value)
            }

            #[inline]
            fn lock<T: Send + 'static, R>(
                mutex: &Self::Mutex<T>,
                f: impl FnOnce(&mut T) -> R,
            ) -> R {
                f(&mut mutex.lock().expect("not poisoned"))
            }

            type Condvar = $($sync)::+::Condvar;

            fn condvar() -> Self::Condvar {
                Self::Condvar::new()
            }

            #[inline]
            fn lock_when<T: Send + 'static, R>(
                mutex: &Self::Mutex<T>,
                condvar: &Self::Condvar,
                is_time: impl Fn(&T) -> bool,
                f: impl FnOnce(&mut T) -> R,
            ) -> R {
                let mut guard = mutex.lock().expect("not poisoned");
                while !is_time(&guard) {
                    guard = condvar.wait(guard).expect("not poisoned");
                }
                f(&mut guard)
            }

            #[inline]
            fn notify_one(condvar: &Self::Condvar) {
                condvar.notify_one();
            }

            type Barrier = $($sync)::+::Barrier;

            fn barrier(tasks: usize) -> Self::Barrier {
                Self::Barrier::new(tasks)
            }

            #[inline]
            fn wait(barrier: &Self::Barrier) -> bool {
                barrier.wait().is_leader()
            }
        }
    };
}

locks!(Greenroom, greenroom::shims::sync);
locks!(May, may::sync);
locks!(Threads, std::sync);

/// The lock of [`mutex`] guards the history of its own acquisitions.
struct History {
    locks: usize,
    hand_overs: usize,
    last: Option<usize>,
    start: Instant,
    end: Instant,
}

impl History {
    fn new() -> History {
        let now = Instant::now();
        History {
            locks: 0,
            hand_overs: 0,
            last: None,
            start: now,
            end: now,
        }
    }

    /// Records that `task` has held the lock over a yield. `locks` is the count from before the
    /// yield. The time ends when the count reaches `all`.
    #[inline]
    fn add(&mut self, task: usize, locks: usize, all: usize) {
        // Not `+= 1`: if another task held the lock meanwhile, this store undoes that task's count,
        // and the final count is too low.
        self.locks = locks + 1;
        if self.last.replace(task) != Some(task) {
            self.hand_overs += 1;
        }
        if self.locks == all {
            self.end = Instant::now();
        }
    }

    fn figures(&self, all: usize) -> Vec<f64> {
        assert_eq!(self.locks, all, "two had the lock at once");
        let elapsed = (self.end - self.start).as_nanos() as f64;
        vec![elapsed / all as f64, elapsed / self.hand_overs as f64]
    }
}

/// How long the tasks that started last get to queue at the lock.
const SETTLE: Duration = Duration::from_millis(50);

fn contend<P: Locks>(tasks: usize, turns: usize) -> Vec<f64> {
    let all = tasks * turns;
    P::run(1, move || {
        let mutex = Arc::new(P::mutex(History::new()));
        let started = Arc::new(AtomicUsize::new(0));
        let contend = |task| {
            let (mutex, started) = (Arc::clone(&mutex), Arc::clone(&started));
            P::spawn(move || {
                started.fetch_add(1, Relaxed);
                for _ in 0..turns {
                    P::lock(&mutex, |history| {
                        let locks = history.locks;
                        P::yield_now();
                        history.add(task, locks, all);
                    });
                }
            })
        };
        // This task holds the lock until all other tasks are in the queue.
        let handles: Vec<_> = P::lock(&mutex, |history| {
            let handles = (0..tasks).map(contend).collect();
            while started.load(Relaxed) < tasks {
                // A sleep, not a yield: may starts no new task while another task is ready.
                P::sleep(SETTLE);
            }
            P::sleep(SETTLE);
            history.start = Instant::now();
            handles
        });
        handles.into_iter().for_each(P::join);
        P::lock(&mutex, |history| history.figures(all))
    })
}

async fn contend_async(tasks: usize, turns: usize) -> Vec<f64> {
    let all = tasks * turns;
    let mutex = Arc::new(tokio::sync::Mutex::new(History::new()));
    let started = Arc::new(AtomicUsize::new(0));
    let contend = |task| {
        let (mutex, started) = (Arc::clone(&mutex), Arc::clone(&started));
        tokio::spawn(async move {
            started.fetch_add(1, Relaxed);
            for _ in 0..turns {
                let mut history = mutex.lock().await;
                let locks = history.locks;
                tokio::task::yield_now().await;
                history.add(task, locks, all);
            }
        })
    };
    let mut history = mutex.lock().await;
    let handles: Vec<_> = (0..tasks).map(contend).collect();
    while started.load(Relaxed) < tasks {
        tokio::time::sleep(SETTLE).await;
    }
    tokio::time::sleep(SETTLE).await;
    history.start = Instant::now();
    drop(history);
    for handle in handles {
        handle.await.expect("a task that does not panic");
    }
    mutex.lock().await.figures(all)
}

/// Counts the arrivals at the barrier of [`barrier`], over all rounds.
struct Arrivals {
    tasks: usize,
    count: AtomicUsize,
}

impl Arrivals {
    fn new(tasks: usize) -> Arc<Arrivals> {
        Arc::new(Arrivals {
            tasks,
            count: AtomicUsize::new(0),
        })
    }

    #[inline]
    fn add(&self) {
        self.count.fetch_add(1, Relaxed);
    }

    /// Panics if the barrier has let the caller through before all tasks arrived for `round`.
    #[inline]
    fn check(&self, round: usize) {
        let all = (round + 1) * self.tasks;
        assert!(self.count.load(Relaxed) >= all, "let through too early");
    }
}

fn meet<P: Locks>(tasks: usize, rounds: usize) -> f64 {
    P::run(1, move || {
        let barrier = Arc::new(P::barrier(tasks));
        let arrivals = Arrivals::new(tasks);
        // Returns 1 if the caller was the leader, else 0.
        let meet = |barrier: &P::Barrier, arrivals: &Arrivals, round| {
            arrivals.add();
            let leads = P::wait(barrier);
            arrivals.check(round);
            usize::from(leads)
        };
        let spawn = |_| {
            let (barrier, arrivals) = (Arc::clone(&barrier), Arc::clone(&arrivals));
            P::spawn(move || {
                (0..=rounds)
                    .map(|round| meet(&barrier, &arrivals, round))
                    .sum()
            })
        };
        let others: Vec<P::Handle<usize>> = (1..tasks).map(spawn).collect();
        // The first round is not timed: after this round, all tasks have started.
        let mut led = meet(&barrier, &arrivals, 0);
        let start = Instant::now();
        for round in 1..=rounds {
            led += meet(&barrier, &arrivals, round);
        }
        let elapsed = start.elapsed();
        led += others.into_iter().map(P::join).sum::<usize>();
        assert_eq!(led, rounds + 1, "not one that leads in each round");
        elapsed.as_nanos() as f64 / (rounds * tasks) as f64
    })
}

async fn meet_async(tasks: usize, rounds: usize) -> f64 {
    async fn meet(barrier: &tokio::sync::Barrier, arrivals: &Arrivals, round: usize) -> usize {
        arrivals.add();
        let leads = barrier.wait().await.is_leader();
        arrivals.check(round);
        usize::from(leads)
    }
    let barrier = Arc::new(tokio::sync::Barrier::new(tasks));
    let arrivals = Arrivals::new(tasks);
    let spawn = |_| {
        let (barrier, arrivals) = (Arc::clone(&barrier), Arc::clone(&arrivals));
        tokio::spawn(async move {
            let mut led = 0;
            for round in 0..=rounds {
                led += meet(&barrier, &arrivals, round).await;
            }
            led
        })
    };
    let others: Vec<_> = (1..tasks).map(spawn).collect();
    let mut led = meet(&barrier, &arrivals, 0).await;
    let start = Instant::now();
    for round in 1..=rounds {
        led += meet(&barrier, &arrivals, round).await;
    }
    let elapsed = start.elapsed();
    for other in others {
        led += other.await.expect("a task that does not panic");
    }
    assert_eq!(led, rounds + 1, "not one that leads in each round");
    elapsed.as_nanos() as f64 / (rounds * tasks) as f64
}

fn take_turns<P: Locks>(trips: usize) -> f64 {
    P::run(1, move || {
        // The number of turns taken so far. This task takes the even turns.
        let table = Arc::new((P::mutex(0_usize), P::condvar()));
        fn take_turn<P: Locks>((mutex, condvar): &(P::Mutex<usize>, P::Condvar), turn: usize) {
            P::lock_when(
                mutex,
                condvar,
                |&now| now % 2 == turn % 2,
                |now| {
                    assert_eq!(*now, turn, "not whose turn it is");
                    *now += 1;
                },
            );
            P::notify_one(condvar);
        }
        let theirs = Arc::clone(&table);
        let other = P::spawn(move || {
            (0..trips).for_each(|trip| take_turn::<P>(&theirs, 2 * trip + 1));
        });
        let mut start = Instant::now();
        for trip in 0..trips {
            if trip == trips / 10 {
                start = Instant::now();
            }
            take_turn::<P>(&table, 2 * trip);
        }
        P::join(other);
        let elapsed = start.elapsed();
        P::lock(&table.0, |&mut turns| assert_eq!(turns, 2 * trips));
        elapsed.as_nanos() as f64 / (trips - trips / 10) as f64
    })
}
