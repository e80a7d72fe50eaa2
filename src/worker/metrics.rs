//! The numbers of all runtimes of the process.
#![forbid(unsafe_code)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Worker;
use super::census::Census;
use super::counters::{self, BUCKETS};
use super::remote::Remote;
use crate::coroutine;
use crate::pool;
use crate::task;

/// The numbers of all runtimes of this process, since it began.
///
/// All of them are always counted. A call takes some microseconds, whatever the number of coroutines, so a program
/// may export them every second. What coroutines wait for is not among them:
/// [`parked_by_reason`](crate::parked_by_reason) counts that when it is asked. `examples/metrics.rs` exports them in the text format of Prometheus.
///
/// ```
/// let before = greenroom::metrics();
/// greenroom::spawn(|| ()).join().unwrap();
/// let after = greenroom::metrics();
/// assert_eq!(after.spawned, before.spawned + 1);
/// ```
///
/// # How exact they are
///
/// The workers go on while the numbers are read, so these are not of one moment. Numbers that only grow are never
/// less than in an earlier call, and a coroutine that has ended was counted as spawned. Other workers publish turns,
/// yields and the like after each batch, which takes about half a millisecond unless a turn takes longer. Once all
/// coroutines wait, the numbers are exact.
#[must_use]
pub fn metrics() -> Metrics {
    // Allocates under locks of this crate.
    Worker::with_current(|worker| worker.map(Worker::publish));
    task::aside(|| {
        let totals = REGISTRY.lock().totals();
        let live = totals.spawned.saturating_sub(totals.ended);
        let stacks = coroutine::reserved().fold(StackMemory::default(), |sum, class| StackMemory {
            count: sum.count + class.reserved,
            reserved: sum.reserved + class.reserved * class.size,
            mapped: sum.mapped + class.mapped,
        });
        let crew = pool::crew_size();
        Metrics {
            live: to_usize(live),
            runnable: to_usize((totals.ready + totals.fresh()).min(live)),
            spawned: totals.spawned,
            turns: totals.turns,
            wakes: totals.turns.saturating_sub(totals.starts + totals.yields),
            yields: totals.yields,
            steals: totals.steals,
            polls: totals.polls,
            sleeps: totals.sleeps,
            workers: totals.workers,
            run_queue_delay: Histogram {
                counts: totals.delays,
                sum: totals.delay,
            },
            pool: PoolMetrics {
                threads: crew.threads,
                idle: crew.idle,
                queued: crew.queued,
            },
            stacks,
        }
    })
}

/// The numbers of all runtimes of this process. See [`metrics`].
///
/// Those that are named after a state, such as `live`, say how it is. The others say how often something has
/// happened so far.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// The coroutines that have not ended: those that run, wait, or have not started.
    pub live: usize,
    /// The coroutines that could run, and wait for their turn. Of coroutines that other threads have just woken, some
    /// may be missing.
    pub runnable: usize,
    /// The coroutines that were spawned, with the main coroutines of [`run`](crate::run).
    pub spawned: u64,
    /// The turns that coroutines have had. A turn is from a coroutine's resumption to its next wait, yield or end.
    pub turns: u64,
    /// The turns that came from a wake-up, and not from a spawn or a yield.
    pub wakes: u64,
    /// The turns that ended with a yield: the coroutine did not wait, but let others run. This includes yields after
    /// many operations in one turn.
    pub yields: u64,
    /// The coroutines that a worker has taken from another worker, to start them.
    pub steals: u64,
    /// How often workers have asked the system for events.
    pub polls: u64,
    /// How often workers have waited in a poll, because they had nothing to run.
    pub sleeps: u64,
    /// The workers of the runtimes that have not ended.
    pub workers: usize,
    /// How long coroutines that could run have waited for their turn.
    ///
    /// After every 64th poll of a worker, if coroutines are ready there, the time is measured that one more would wait.
    /// What happened before the poll is not in it: while a worker is held by a coroutine, it learns of no event.
    pub run_queue_delay: Histogram,
    /// The pool of threads that [`unblock`](crate::unblock) uses.
    pub pool: PoolMetrics,
    /// The stacks of the coroutines.
    pub stacks: StackMemory,
}

/// How often a duration was in which range. See [`Metrics::run_queue_delay`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum: Duration,
}

impl Histogram {
    /// The ranges, the shortest first: the upper bound of each, inclusive, and how many durations were in that range,
    /// and not in the one before. The last range has no bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let counts = self.counts.into_iter().enumerate();
        counts.map(|(bucket, count)| (counters::bound(bucket), count))
    }

    /// How many durations there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all durations.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }
}

/// The pool of threads that [`unblock`](crate::unblock) uses. See [`Metrics`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolMetrics {
    /// Its threads, at work and idle.
    pub threads: usize,
    /// The threads without a job.
    pub idle: usize,
    /// The jobs that wait for a thread.
    pub queued: usize,
}

/// The stacks of coroutines. See [`Metrics`].
///
/// A stack occupies memory only as far as it was used. [`stats`](crate::stats) asks the system how much that is, which
/// takes longer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StackMemory {
    /// The stacks that coroutines have or will get: one for each live coroutine, one for the next connection of each
    /// [`Server`](crate::server::Server), and some that workers keep for the next ones.
    pub count: usize,
    /// The usable bytes of address space of these stacks.
    pub reserved: usize,
    /// The bytes of address space of all stacks, with guards, and with stacks that were never used.
    pub mapped: usize,
}

fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

static REGISTRY: Registry = Registry(Mutex::new(Runtimes {
    running: Vec::new(),
    ended: Totals::NONE,
}));

struct Registry(Mutex<Runtimes>);

/// All runtimes.
struct Runtimes {
    running: Vec<Arc<Counted>>,
    /// The sums of those that have ended.
    ended: Totals,
}

/// What is counted of a runtime.
pub(super) struct Counted {
    pub(super) workers: Box<[Arc<Remote>]>,
    pub(super) census: Arc<Census>,
}

impl Registry {
    fn lock(&self) -> task::AsideGuard<'_, Runtimes> {
        task::lock_aside(&self.0)
    }
}

/// Adds a new runtime.
pub(super) fn begin(counted: Arc<Counted>) {
    REGISTRY.lock().running.push(counted);
}

/// A runtime has ended. Its numbers stay in the sums.
pub(super) fn end(counted: &Arc<Counted>) {
    let mut runtimes = REGISTRY.lock();
    let at = runtimes
        .running
        .iter()
        .position(|other| Arc::ptr_eq(other, counted));
    let ended = at.map(|at| runtimes.running.swap_remove(at));
    let mut totals = counted.totals();
    // Coroutines that were left behind are not there any more, as far as anyone can tell.
    totals.ended = totals.spawned;
    totals.ready = 0;
    totals.starts = totals.spawned - totals.abandoned.min(totals.spawned);
    totals.workers = 0;
    runtimes.ended.add(&totals);
    drop(runtimes);
    // Not under the lock: it may own the last references to tasks.
    drop(ended);
}

impl Runtimes {
    fn totals(&self) -> Totals {
        let mut totals = self.ended.clone();
        for counted in &self.running {
            totals.add(&counted.totals());
        }
        totals
    }
}

/// Sums.
#[derive(Clone)]
struct Totals {
    workers: usize,
    ended: u64,
    spawned: u64,
    abandoned: u64,
    starts: u64,
    turns: u64,
    yields: u64,
    steals: u64,
    polls: u64,
    sleeps: u64,
    ready: u64,
    delays: [u64; BUCKETS],
    delay: Duration,
}

impl Totals {
    const NONE: Totals = Totals {
        workers: 0,
        ended: 0,
        spawned: 0,
        abandoned: 0,
        starts: 0,
        turns: 0,
        yields: 0,
        steals: 0,
        polls: 0,
        sleeps: 0,
        ready: 0,
        delays: [0; BUCKETS],
        delay: Duration::ZERO,
    };

    /// The coroutines that have not started.
    fn fresh(&self) -> u64 {
        self.spawned.saturating_sub(self.starts + self.abandoned)
    }

    fn add(&mut self, other: &Totals) {
        self.workers += other.workers;
        self.ended += other.ended;
        self.spawned += other.spawned;
        self.abandoned += other.abandoned;
        self.starts += other.starts;
        self.turns += other.turns;
        self.yields += other.yields;
        self.steals += other.steals;
        self.polls += other.polls;
        self.sleeps += other.sleeps;
        self.ready += other.ready;
        for (sum, count) in self.delays.iter_mut().zip(other.delays) {
            *sum += count;
        }
        self.delay += other.delay;
    }
}

impl Counted {
    fn totals(&self) -> Totals {
        let mut totals = Totals {
            workers: self.workers.len(),
            abandoned: self.census.abandoned(),
            ..Totals::NONE
        };
        for worker in &self.workers {
            let counters = worker.counters();
            // Yields and starts come before turns, each of which began before.
            totals.starts += counters.starts.get();
            totals.yields += counters.yields.get();
            totals.turns += counters.turns.get();
            totals.steals += counters.steals.get();
            totals.polls += counters.polls.get();
            totals.sleeps += counters.sleeps.get();
            totals.ready += counters.ready.get();
            for (sum, count) in totals.delays.iter_mut().zip(counters.delays.counts()) {
                *sum += count;
            }
            totals.delay += counters.delays.sum();
        }
        // Ends first: the thread that counted an end had seen the count of the same coroutine's beginning.
        let tallies = || {
            let of_workers = self.workers.iter();
            let of_workers = of_workers.flat_map(|worker| [worker.tally(), worker.uncounted()]);
            of_workers.chain([&self.census.elsewhere, &self.census.uncounted])
        };
        totals.ended = tallies().map(|tally| tally.ended() as u64).sum();
        totals.spawned = tallies().map(|tally| tally.made() as u64).sum();
        totals
    }
}
