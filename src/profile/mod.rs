//! The off-CPU profile: where coroutines spend their waiting time.
//!
//! - this file: the profile, and the thread that takes it;
//! - `waits`: the sums, and how they are written.
//!
//! # Why samples
//!
//! Waits could be measured exactly: each wake-up would add the length of its wait to a sum of its stack. But then each
//! wait would have to find its stack, for microseconds, whether anybody asks or not. A profile by samples costs
//! what is asked for, and nothing in the waits themselves: every interval, a thread has the workers describe coroutines,
//! as for a dump, and adds the time since the last sample to what each one waits for. A wait that is shorter than the
//! interval is seen by chance, in proportion to its length.
//!
//! A worker answers between two turns, when the coroutine of the last turn may wait already. So a coroutine that runs
//! would seem to wait whenever it is looked at. Therefore the thread first looks, from outside, which coroutine each
//! worker runs, and leaves that one out.
//!
//! # What it costs
//!
//! A look at a parked coroutine takes about ten microseconds of its worker. So at most [`MOST`] coroutines are looked
//! at in each sample. Of more, every second one is, or every third, beginning with a random one, and each counts for
//! so many.
#![forbid(unsafe_code)]

mod waits;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::pool;
use crate::sys::switches::own_lock;
use crate::sys::thread_state::OwnMemory;
use crate::task::Deadline;
use crate::worker::{Answer, Scheduler, Wanted};
use waits::Waits;

/// The most coroutines that are looked at in one sample.
const MOST: usize = 256;

/// Where the coroutines of the process have spent their waiting time: an *off-CPU profile*.
///
/// ```
/// use greenroom::WaitProfile;
/// use greenroom::shims::thread;
/// use std::time::Duration;
///
/// greenroom::run(|| {
///     let profiler = WaitProfile::start(Duration::from_millis(5))?;
///     let sleeper = thread::Builder::new().name("sleeper".into());
///     let naps = || (0..10).for_each(|_| thread::sleep(Duration::from_millis(20)));
///     sleeper.spawn(naps)?.join().unwrap();
///     let mut folded = Vec::new();
///     profiler.finish().write_folded(&mut folded)?;
///     let folded = String::from_utf8(folded).unwrap();
///     assert!(folded.lines().any(|line| line.starts_with("sleeper;") && line.contains(";sleep ")));
///     # std::io::Result::Ok(())
/// }).unwrap();
/// ```
///
/// Every interval, a thread looks at the coroutines that have started and do not run, and adds the time since the last
/// sample to the stack of each. Sums of long waits are exact up to an interval, and those of many short ones right on
/// average. If there are more than 256 coroutines, a part of them is looked at, so that all sums are right on average.
///
/// A wait lasts until the coroutine runs: it includes the time for which the coroutine is ready and its worker is not
/// (see [`Metrics::run_queue_delay`](crate::Metrics::run_queue_delay)). If a coroutine holds its worker for long, the waits of that
/// worker's other coroutines are added when the worker answers again.
///
/// While a profile is taken, no deadlock is reported (see
/// [`abort_on_deadlock`](crate::RuntimeBuilder::abort_on_deadlock)), because its thread is there.
///
/// [The guide](crate::guide::insight#flame-graphs) has an example, and says what a profile costs.
#[must_use = "a profile is to be written"]
pub struct WaitProfile {
    waits: Waits,
}

/// Takes a [`WaitProfile`], until it is finished or dropped.
#[must_use = "dropping this ends the profile"]
pub struct WaitProfiler {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<WaitProfile>>,
}

impl fmt::Debug for WaitProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitProfile")
            .field("total", &self.total())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for WaitProfiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitProfiler").finish_non_exhaustive()
    }
}

impl WaitProfile {
    /// Begins a profile of all runtimes of the process, with a sample every `interval`.
    ///
    /// 10 ms are enough for a second, and 100 ms for a minute. A sample costs the workers up to three milliseconds in
    /// all, if as many as 256 coroutines wait.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if `interval` is zero. The operating system's if there is no thread to be had.
    pub fn start(interval: Duration) -> io::Result<WaitProfiler> {
        if interval.is_zero() {
            let message = "the interval between two samples is zero";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let stop = Arc::new(Stop::default());
        let asked = Arc::clone(&stop);
        let builder = thread::Builder::new().name("greenroom-profile".into());
        let thread = builder.spawn(move || take(interval, &asked))?;
        Ok(WaitProfiler {
            stop,
            thread: Some(thread),
        })
    }

    /// The time that coroutines have waited, in all. Two coroutines that wait for a second are two seconds.
    pub fn total(&self) -> Duration {
        self.waits.total()
    }

    /// Writes the profile in the format that makers of flame graphs take, as folded stacks: for each different stack a
    /// line with the name of the coroutine, its functions from the outermost on, and what it waits for, separated by
    /// semicolons; and how long, in microseconds.
    ///
    /// A coroutine without a name has the place where it was spawned. What it waits for is one of the reasons that
    /// [a dump](crate::guide::insight#json) has, or `yield`, without functions.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_folded(&self, out: impl Write) -> io::Result<()> {
        self.waits.write_folded(out)
    }
}

impl WaitProfiler {
    /// Ends the profile. What was waited for after the last sample is not in it.
    ///
    /// This takes some milliseconds for each different stack: the names of functions are looked up now.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn finish(mut self) -> WaitProfile {
        self.stop.ask();
        let thread = self.thread.take().expect("it is finished once");
        let profile = pool::unblock_waiting(move || thread.join());
        profile.expect("the thread does not panic")
    }
}

impl Drop for WaitProfiler {
    fn drop(&mut self) {
        self.stop.ask();
    }
}

/// Whether the profile is to end.
#[derive(Default)]
struct Stop {
    is_asked: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn ask(&self) {
        *own_lock(&self.is_asked) = true;
        self.changed.notify_all();
    }

    /// Waits until that time; `None` is never. Returns whether the profile is to go on.
    fn goes_on_until(&self, time: Option<Instant>) -> bool {
        let mut is_asked = own_lock(&self.is_asked);
        while !*is_asked {
            let left = time.map_or(Duration::MAX, |time| {
                time.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(is_asked, left);
            is_asked = waited.unwrap_or_else(|error| error.into_inner()).0;
        }
        false
    }
}

/// Takes a profile until it is to end.
fn take(interval: Duration, stop: &Stop) -> WaitProfile {
    let mut waits = Waits::default();
    let mut sampler = Sampler::new();
    // `None` is beyond the range of the clock.
    let mut next = Instant::now().checked_add(interval);
    while stop.goes_on_until(next) {
        sampler.sample(&mut waits);
        // A sample that is late is not made up for.
        let after = next.and_then(|next| next.checked_add(interval));
        next = after.map(|after| after.max(Instant::now()));
    }
    waits.resolve();
    WaitProfile { waits }
}

/// Takes samples, and knows when it took the last one of each worker.
struct Sampler {
    /// By the number of the runtime and the index of the worker there.
    last: HashMap<(u32, usize), Instant>,
    /// The last sample of all.
    before: Instant,
    /// `None` if it cannot be read. Then coroutines that run seem to wait.
    memory: Option<OwnMemory>,
    random: RandomState,
    count: u64,
}

impl Sampler {
    fn new() -> Sampler {
        Sampler {
            last: HashMap::new(),
            before: Instant::now(),
            memory: OwnMemory::open().ok(),
            random: RandomState::new(),
            count: 0,
        }
    }

    fn sample(&mut self, waits: &mut Waits) {
        /// A worker that does not answer in this time is asked again in the next sample.
        const PATIENCE: Duration = Duration::from_millis(100);
        let now = Instant::now();
        let schedulers = Scheduler::all();
        let load: usize = schedulers.iter().map(|scheduler| scheduler.load()).sum();
        let stride = load.div_ceil(MOST).max(1);
        self.count += 1;
        let first = self.random.hash_one(self.count) as usize % stride;
        let wanted = Wanted::Sample { stride, first };
        // All are asked before the first one is waited for.
        let calls: Vec<_> = schedulers
            .iter()
            .map(|scheduler| {
                let running = self.memory.as_ref().map(|memory| scheduler.running(memory));
                (scheduler.number(), running, scheduler.call_roll(wanted))
            })
            .collect();
        let deadline = Deadline::after(PATIENCE);
        let mut last = HashMap::new();
        for (runtime, running, call) in calls {
            // A thread that is no coroutine's is not interrupted.
            let Ok((_, answers)) = call.answers(deadline, PATIENCE) else {
                continue;
            };
            for (index, answer) in answers.into_iter().enumerate() {
                let worker = (runtime, index);
                let before = self.last.get(&worker).copied().unwrap_or(self.before);
                last.insert(worker, before);
                let Answer::Entries(mut entries) = answer else {
                    continue;
                };
                if let Some(running) = running.as_ref().and_then(|running| running[index]) {
                    entries.retain(|entry| !entry.is_at(running));
                }
                let each = now.duration_since(before) * stride as u32;
                for entry in entries {
                    waits.add(entry, each);
                }
                last.insert(worker, now);
            }
        }
        self.last = last;
        self.before = now;
    }
}
