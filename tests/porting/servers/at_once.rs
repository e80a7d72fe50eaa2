//! Many operations at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

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
}

impl Operations {
    /// Runs all of them at once, and returns their results in their order.
    ///
    /// Fails if they have waited for each other, or if they have kept others from running.
    #[track_caller]
    pub(crate) fn run<T: Send>(&self, operation: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let &Operations { what, count, each } = self;
        let start = Instant::now();
        let (results, gap) = beside_a_ticker(count, operation);
        let took = start.elapsed();
        eprintln!("{what}: {count} × {each:?} in {took:.1?}; the ticker's largest gap: {gap:.1?}");
        assert!(took >= each, "the server does not take its time: {took:?}");
        let sum = each * u32::try_from(count).unwrap();
        assert!(took < sum / 4, "one after the other: {took:?}");
        assert!(gap < each / 2, "nothing else ran for {gap:?}");
        results
    }
}

/// Runs the operations with these numbers, and returns the results and the longest time for which the ticker
/// did not run.
fn beside_a_ticker<T: Send>(
    count: usize,
    operation: impl Fn(usize) -> T + Sync,
) -> (Vec<T>, Duration) {
    let over = AtomicBool::new(false);
    let operation = &operation;
    thread::scope(|s| {
        let ticker = s.spawn(|| {
            let mut gap = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                thread::sleep(TICK);
                gap = gap.max(start.elapsed());
            }
            gap
        });
        let running: Vec<_> = (0..count)
            .map(|number| s.spawn(move || operation(number)))
            .collect();
        let ended: Vec<_> = running.into_iter().map(|one| one.join()).collect();
        over.store(true, Ordering::Relaxed);
        let gap = ticker.join().unwrap();
        let results = ended.into_iter().map(Result::unwrap).collect();
        (results, gap)
    })
}
