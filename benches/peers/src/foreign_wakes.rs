//! A task that a thread outside of the runtime wakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::peers::{Blocking, Greenroom, May, Peer, Threads, run_tokio};
use crate::stats::{median, percentile};

const WAKES: usize = 2_000;

/// The thread waits for so long before it wakes the task, which then has parked, and whose worker sleeps.
const PAUSE: Duration = Duration::from_micros(200);

/// From just before the wake to the first instruction of the task: `[median µs, p99 µs]`
pub(crate) fn run(peer: Peer) -> Vec<f64> {
    let late = match peer {
        Peer::Greenroom => blocking::<Greenroom>(1),
        Peer::May => blocking::<May>(1),
        // One CPU for the task and one for the thread that wakes it.
        Peer::Threads => blocking::<Threads>(2),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, async {
            let moment = Arc::new(Moment::new());
            let woken = Arc::new(Notify::new());
            let wake = Arc::clone(&woken);
            let waker = moment.wake_each(move || wake.notify_one());
            let mut late = Vec::with_capacity(WAKES);
            while late.len() < WAKES {
                match moment.take() {
                    Some(passed) => late.push(passed),
                    None => woken.notified().await,
                }
            }
            waker.join().expect("a thread that does not panic");
            late
        }),
        Peer::Mio => unreachable!("not a peer of this work"),
    };
    vec![median(&late), percentile(&late, 0.99)]
}

fn blocking<P: Blocking>(workers: usize) -> Vec<f64> {
    P::run(workers, || {
        let moment = Arc::new(Moment::new());
        let task = P::unparker();
        let waker = moment.wake_each(move || P::unpark(&task));
        let mut late = Vec::with_capacity(WAKES);
        while late.len() < WAKES {
            match moment.take() {
                Some(passed) => late.push(passed),
                None => P::park(),
            }
        }
        waker.join().expect("a thread that does not panic");
        late
    })
}

/// When the thread has woken the task.
struct Moment {
    start: Instant,
    /// In nanoseconds since the start. Zero once the task has seen it.
    last: AtomicU64,
}

impl Moment {
    fn new() -> Moment {
        Moment {
            start: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    /// Starts the thread, which calls `wake` for each wake.
    fn wake_each(self: &Arc<Self>, wake: impl Fn() + Send + 'static) -> thread::JoinHandle<()> {
        let moment = Arc::clone(self);
        thread::spawn(move || {
            for _ in 0..WAKES {
                thread::sleep(PAUSE);
                while moment.last.load(Acquire) != 0 {
                    thread::yield_now();
                }
                moment.last.store(moment.now(), Release);
                wake();
            }
        })
    }

    /// The time in µs since the wake, unless there was none.
    fn take(&self) -> Option<f64> {
        match self.last.swap(0, AcqRel) {
            0 => None,
            last => Some((self.now() - last) as f64 / 1e3),
        }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}
