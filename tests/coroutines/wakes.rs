//! Waking another worker takes a system call. It is made when that worker sleeps, and not when it runs.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use greenroom::{Unparker, shims::thread};
use serial_test::serial;

use crate::util;

/// How often the calling thread has written to descriptors. `None`, if the kernel does not count that.
fn writes() -> Option<u64> {
    let counts = fs::read_to_string("/proc/thread-self/io").ok()?;
    let line = counts.lines().find_map(|line| line.strip_prefix("syscw:"));
    line?.trim().parse().ok()
}

/// Calls `f`. Returns how many writes that took.
fn writes_of(f: impl FnOnce()) -> u64 {
    let before = writes().expect("the kernel counts");
    f();
    writes().expect("the kernel counts") - before
}

/// Waits until the thread `id` sleeps.
fn wait_for_sleep(id: libc::pid_t) {
    let start = Instant::now();
    let stat = || fs::read_to_string(format!("/proc/self/task/{id}/stat")).unwrap();
    while !stat().rsplit(')').next().unwrap().starts_with(" S") {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "it does not sleep"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn own_id() -> libc::pid_t {
    // SAFETY: the call has no preconditions.
    unsafe { libc::gettid() }
}

/// Coroutines that park until they are told to end, and count their wake-ups.
struct Parked {
    unparkers: Vec<Unparker>,
    woken: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Parked {
    fn new(count: usize) -> Parked {
        let (woken, over) = (Arc::default(), Arc::default());
        let (sender, receiver) = channel();
        for _ in 0..count {
            let (woken, over) = (Arc::clone(&woken), Arc::clone(&over));
            let sender = sender.clone();
            thread::spawn(move || {
                sender.send(Unparker::current()).unwrap();
                loop {
                    greenroom::park();
                    if AtomicBool::load(&over, SeqCst) {
                        break;
                    }
                    AtomicUsize::fetch_add(&woken, 1, SeqCst);
                }
            });
        }
        // On one worker, a coroutine that has sent its unparker has parked when this one runs again.
        let mut unparkers = Vec::new();
        while unparkers.len() < count {
            thread::yield_now();
            unparkers.extend(receiver.try_iter());
        }
        Parked {
            unparkers,
            woken,
            over,
        }
    }

    fn wait_for(&self, woken: usize) {
        let start = Instant::now();
        while self.woken.load(SeqCst) < woken {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "they are not woken"
            );
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Ends the coroutines. Each must have been woken exactly once before.
    fn end(self) {
        let woken = self.woken.load(SeqCst);
        self.over.store(true, SeqCst);
        self.unparkers.iter().for_each(Unparker::unpark);
        greenroom::wait_idle();
        assert_eq!(self.woken.load(SeqCst), woken);
    }
}

#[test]
#[serial]
fn a_sleeping_worker_is_woken_by_one_write() {
    if writes().is_none() {
        return eprintln!("not tested: this kernel does not count writes");
    }
    util::on_workers(1, || {
        let parked = Parked::new(1);
        let worker = own_id();
        let main = Unparker::current();
        std::thread::scope(|s| {
            let tester = s.spawn(|| {
                let result = catch_unwind(AssertUnwindSafe(|| {
                    let mut woken_by_a_write = 0;
                    for round in 1..=100 {
                        wait_for_sleep(worker);
                        let writes = writes_of(|| parked.unparkers[0].unpark());
                        assert!(writes <= 1, "{writes} writes");
                        woken_by_a_write += writes;
                        parked.wait_for(round);
                    }
                    // Sometimes the worker was about to wake by itself, to trim its stacks.
                    assert!(woken_by_a_write > 90, "{woken_by_a_write} of 100");
                }));
                main.unpark();
                result.unwrap_or_else(|payload| resume_unwind(payload));
            });
            greenroom::park();
            tester.join().unwrap();
        });
        parked.end();
    });
}

#[test]
#[serial]
fn a_running_worker_is_not_woken() {
    const COUNT: usize = 1_000;
    if writes().is_none() {
        return eprintln!("not tested: this kernel does not count writes");
    }
    util::on_workers(1, || {
        let parked = Parked::new(COUNT);
        std::thread::scope(|s| {
            let tester = s.spawn(|| {
                writes_of(|| {
                    for _ in 0..10 {
                        parked.unparkers.iter().for_each(Unparker::unpark);
                    }
                })
            });
            // This computes. If it waited, its worker would sleep.
            while !tester.is_finished() {
                std::hint::spin_loop();
            }
            assert_eq!(tester.join().unwrap(), 0, "writes");
        });
        assert_eq!(parked.woken.load(SeqCst), 0, "nobody else has run");
        while parked.woken.load(SeqCst) < COUNT {
            thread::yield_now();
        }
        parked.end();
    });
}
