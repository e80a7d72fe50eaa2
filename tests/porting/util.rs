//! What the tests share.

#![allow(dead_code, reason = "each test file uses its part")]

use std::time::{Duration, Instant};

use greenroom::{RuntimeBuilder, StackStats, stats};

/// The usable bytes of a stack whose size nobody has set.
const DEFAULT: usize = 256 << 10;

/// Runs `test` as the main coroutine of a runtime with so many workers; a hang ends the process.
pub(crate) fn on_workers(workers: usize, test: impl FnOnce()) {
    let watchdog = Watchdog::new();
    let runtime = RuntimeBuilder::new().workers(workers).stack_size(DEFAULT);
    runtime.build().unwrap().run(test);
    drop(watchdog);
}

/// For how long the calling thread neither computed nor waited for a processor during `f`, however fast the machine
/// is: it slept, or was blocked.
pub(crate) fn idle_during(f: impl FnOnce()) -> Duration {
    let busy = || {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        let mut nanos = stat.split(' ').map(|nanos| nanos.parse().unwrap());
        Duration::from_nanos(nanos.next().unwrap()) + Duration::from_nanos(nanos.next().unwrap())
    };
    let (start, before) = (Instant::now(), busy());
    f();
    let (busy, took) = (busy().saturating_sub(before), start.elapsed());
    took.saturating_sub(busy)
}

/// The name of the thread that ends the process.
pub(crate) const WATCHDOG: &str = "watchdog";

/// Ends the process, unless it is dropped in time.
struct Watchdog(Option<(std::sync::mpsc::Sender<()>, std::thread::JoinHandle<()>)>);

impl Watchdog {
    fn new() -> Watchdog {
        let (over, dropped) = std::sync::mpsc::channel();
        let builder = std::thread::Builder::new().name(WATCHDOG.into());
        let thread = builder.spawn(move || {
            use std::sync::mpsc::RecvTimeoutError::Timeout;
            if dropped.recv_timeout(Duration::from_secs(100)) == Err(Timeout) {
                eprintln!("a test hangs");
                std::process::abort();
            }
        });
        Watchdog(Some((over, thread.unwrap())))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some((over, thread)) = self.0.take() {
            drop(over);
            thread.join().unwrap();
        }
    }
}

fn of_size(size: usize) -> StackStats {
    let mut stacks = stats().stacks.into_iter();
    stacks.find(|of| of.size == size).unwrap()
}

/// Says how much of their stacks of the default size coroutines have used so far.
pub(crate) fn print_mark(what: &str) {
    print_mark_of(DEFAULT, what);
}

pub(crate) fn print_mark_of(size: usize, what: &str) {
    let of = of_size(size);
    eprintln!("{what}: {} KiB of {} KiB", of.hwm >> 10, of.size >> 10);
}

/// What was done is not just short of an overflow.
#[track_caller]
pub(crate) fn assert_default_stacks_had_room() {
    let of = of_size(DEFAULT);
    assert!(of.hwm <= of.size / 4 * 3, "{of:?}");
}
