//! A coroutine that notices when its worker is blocked.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use greenroom::LocalJoinHandle;

/// How often the ticker wants to run.
const TICK: Duration = Duration::from_millis(1);

/// A time between two turns of the ticker.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Gap {
    pub(crate) length: Duration,
    /// How much of it the worker had no processor, because other threads had them.
    without_processor: Duration,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gap {
            length,
            without_processor,
        } = self;
        write!(
            f,
            "{length:.1?} ({without_processor:.1?} of it without a processor)"
        )
    }
}

/// How long the calling thread has waited for a processor so far.
fn without_processor() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanos = stat.split(' ').nth(1).unwrap().parse();
    Duration::from_nanos(nanos.unwrap())
}

/// A coroutine of the calling worker that runs every millisecond.
pub(crate) struct Ticker {
    over: Arc<AtomicBool>,
    coroutine: LocalJoinHandle<Gap>,
}

impl Ticker {
    pub(crate) fn start() -> Ticker {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let coroutine = greenroom::spawn_local(move || {
            let mut largest = Gap::default();
            while !is_over.load(Ordering::Relaxed) {
                let before = without_processor();
                let start = Instant::now();
                sleep(TICK);
                let length = start.elapsed();
                let without_processor = without_processor().saturating_sub(before);
                largest = largest.max(Gap {
                    length,
                    without_processor,
                });
            }
            largest
        });
        Ticker { over, coroutine }
    }

    /// Ends it, and returns the longest time between two of its turns.
    pub(crate) fn largest_gap(self) -> Gap {
        self.over.store(true, Ordering::Relaxed);
        self.coroutine.join().unwrap()
    }
}
