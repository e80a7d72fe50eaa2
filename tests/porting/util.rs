//! What the tests share.

#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
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

/// The name of the threads of [`Idlers`].
pub(crate) const IDLER: &str = "idler";

/// A thread on each processor that does nothing but sleep. If it sleeps for too long, so does any other thread there: a
/// host may give a processor of a virtual machine no time, which [`idle_during`] cannot tell from a blocked thread.
pub(crate) struct Idlers {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Idlers {
    /// Starts threads that wake up as often as this.
    pub(crate) fn start(tick: Duration) -> Idlers {
        let over = Arc::new(AtomicBool::new(false));
        let idle = |processor| {
            let over = Arc::clone(&over);
            let thread = std::thread::Builder::new().name(IDLER.into());
            let idle = move || {
                stay_on(processor);
                let mut longest = Duration::ZERO;
                while !over.load(Ordering::Relaxed) {
                    let idle = idle_during(|| std::thread::sleep(tick));
                    longest = longest.max(idle.saturating_sub(tick));
                }
                longest
            };
            thread.spawn(idle).unwrap()
        };
        let threads = processors().into_iter().map(idle).collect();
        Idlers { over, threads }
    }

    /// Ends them, and returns the longest time for which one of them has slept more than it wanted.
    pub(crate) fn longest(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        let longest = self.threads.into_iter().map(|idler| idler.join().unwrap());
        longest.max().unwrap()
    }
}

/// The processors on which the calling thread may run.
fn processors() -> Vec<usize> {
    // SAFETY: a set without processors is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set has the size that is given.
    let got = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    assert_eq!(got, 0, "{}", std::io::Error::last_os_error());
    let all = 0..libc::CPU_SETSIZE as usize;
    // SAFETY: the number is below the size of the set.
    all.filter(|&processor| unsafe { libc::CPU_ISSET(processor, &set) })
        .collect()
}

/// Has the calling thread run on this processor only.
fn stay_on(processor: usize) {
    // SAFETY: a set without processors is valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the number is below the size of the set, which has the size that is given.
    let done = unsafe {
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
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
