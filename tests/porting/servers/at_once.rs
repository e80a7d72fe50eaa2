//! Many operations at once, as coroutines of one worker.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::util::{self, Idlers};

/// How often the ticker wants to run.
const TICK: Duration = Duration::from_millis(5);

/// Keeps the other tests of this binary waiting until it is dropped: they would disturb the ticker, and be
/// counted.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Operations of a driver that wait for a server.
#[derive(Debug)]
pub(crate) struct Operations {
    pub(crate) what: &'static str,
    pub(crate) count: usize,
    /// The time that the server takes for each.
    pub(crate) each: Duration,
    /// The names of the OS threads that the test or the driver itself makes.
    pub(crate) threads: &'static [&'static str],
}

impl Operations {
    /// Runs each as a coroutine of the same worker, all at once, and returns their results in their order.
    ///
    /// Fails if they have waited for each other, if they have kept another coroutine of the worker from
    /// running, or if there were OS threads for them.
    #[track_caller]
    pub(crate) fn run<T: Send>(&self, operation: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let &Operations {
            what,
            count,
            each,
            threads: expected,
        } = self;
        name_worker();
        let before = Threads::now();
        let idlers = Idlers::start(TICK);
        let start = Instant::now();
        let (results, ticker) = beside_a_ticker(count, operation);
        let took = start.elapsed();
        let of_the_machine = idlers.longest();
        let Ticker { gap, mut threads } = ticker;
        eprintln!("{what}: {count} × {each:?} in {took:.1?}; the ticker's largest gap: {gap:.1?}");
        util::print_mark(what);
        threads.0.retain(|thread, name| {
            let known = before.0.contains_key(thread) || expected.contains(&&**name);
            let of_the_test = [POOL, util::WATCHDOG, util::IDLER].contains(&&**name);
            !known && !of_the_test && !name.contains(OF_THE_HARNESS)
        });
        assert!(took >= each, "the server does not take its time: {took:?}");
        let sum = each * u32::try_from(count).unwrap();
        assert!(took < sum, "one after the other: {took:?}");
        let blocked = gap.saturating_sub(of_the_machine);
        assert!(blocked < each, "the worker was blocked for {blocked:?}");
        assert!(threads.0.is_empty(), "{threads:?}");
        results
    }
}

/// What the calling thread is called from here on.
const WORKER: &str = "worker";

/// Names the calling thread. Unnamed threads get the name of the thread that makes them: without this, those of a
/// driver would have that of a test.
pub(crate) fn name_worker() {
    fs::write("/proc/thread-self/comm", WORKER).unwrap();
}

/// How many threads there are that [`name_worker`] has named, and unnamed ones that they have made.
pub(crate) fn count_workers() -> usize {
    let threads = Threads::now();
    threads.0.values().filter(|&name| name == WORKER).count()
}

/// The name of the threads of greenroom's pool, which resolve names.
const POOL: &str = "greenroom-pool";

/// A part of the names of the threads on which the harness runs tests: these are their paths.
const OF_THE_HARNESS: &str = "::";

/// OS threads of the process, by their numbers, and their names.
#[derive(Debug, Default)]
struct Threads(BTreeMap<String, String>);

impl Threads {
    fn now() -> Threads {
        let threads = fs::read_dir("/proc/self/task").unwrap();
        let threads = threads.filter_map(|thread| {
            let thread = thread.ok()?;
            // None if the thread has ended meanwhile.
            let name = fs::read_to_string(thread.path().join("comm")).ok()?;
            let number = thread.file_name().into_string().unwrap();
            Some((number, name.trim().to_owned()))
        });
        Threads(threads.collect())
    }
}

/// What a coroutine has seen that runs every five milliseconds.
#[derive(Debug, Default)]
struct Ticker {
    /// The longest time for which the worker did nothing, between two turns.
    gap: Duration,
    /// The OS threads that it has seen.
    threads: Threads,
}

impl Ticker {
    fn run_until(mut self, over: &AtomicBool) -> Ticker {
        for tick in 0u64.. {
            let idle = util::idle_during(|| thread::sleep(TICK));
            self.gap = self.gap.max(idle);
            if over.load(Ordering::Relaxed) {
                break;
            }
            if tick.is_multiple_of(16) {
                self.threads.0.append(&mut Threads::now().0);
            }
        }
        self
    }
}

/// Runs the operations with these numbers, and returns their results.
fn beside_a_ticker<T: Send>(
    count: usize,
    operation: impl Fn(usize) -> T + Sync,
) -> (Vec<T>, Ticker) {
    let over = AtomicBool::new(false);
    let operation = &operation;
    let mut outcome = None;
    util::on_workers(1, || {
        outcome = greenroom::scope(|s| {
            let ticker = s.spawn(|| Ticker::default().run_until(&over));
            let running: Vec<_> = (0..count)
                .map(|number| s.spawn(move || operation(number)))
                .collect();
            let ended: Vec<_> = running.into_iter().map(|one| one.join()).collect();
            over.store(true, Ordering::Relaxed);
            let ticker = ticker.join().unwrap();
            Some((ended, ticker))
        });
    });
    let (ended, ticker) = outcome.unwrap();
    (ended.into_iter().map(Result::unwrap).collect(), ticker)
}
