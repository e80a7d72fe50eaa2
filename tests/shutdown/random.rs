//! Runtimes that end whatever their coroutines do.
//!
//! `GREENROOM_SHUTDOWNS` is the number of runtimes to make and end. `GREENROOM_SEED` is the seed of the
//! first one.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use greenroom::shims::sync::mpsc::{Receiver, SyncSender, sync_channel};
use greenroom::shims::sync::{Condvar, Mutex};
use greenroom::shims::thread;
use greenroom::{RuntimeBuilder, park, spawn, unblock, yield_now};

use crate::util::{self, Finally};

/// A number from the environment.
fn setting(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name);
    value.map_or(otherwise, |value| value.parse().expect("a number"))
}

/// Numbers that a seed determines (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % n
    }

    fn another(&mut self) -> Random {
        Random(self.below(u64::MAX))
    }

    fn micros(&mut self, n: u64) -> Duration {
        Duration::from_micros(self.below(n))
    }
}

/// What the coroutines of a runtime share, and a count of what they have done.
struct Shared {
    lock: Mutex<usize>,
    changed: Condvar,
    sender: SyncSender<u64>,
    receiver: Mutex<Receiver<u64>>,
    started: AtomicUsize,
    ended: AtomicUsize,
    unwound: AtomicUsize,
}

const LONG: Duration = Duration::from_secs(1_000);

fn do_something(shared: &Arc<Shared>, random: &mut Random, depth: u32) {
    match random.below(15) {
        0 => thread::sleep(random.micros(300)),
        1 => thread::sleep(LONG),
        2 => yield_now(),
        3 => {
            let mut guard = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            *guard += 1;
            shared.changed.notify_all();
            thread::sleep(random.micros(100));
        }
        4 => drop(shared.sender.send(random.below(9))),
        5 => {
            let receiver = shared.receiver.lock();
            let receiver = receiver.unwrap_or_else(PoisonError::into_inner);
            _ = receiver.recv();
        }
        6 => {
            let guard = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            drop(shared.changed.wait(guard));
        }
        7 => park(),
        8 => unblock(|| std::thread::sleep(Duration::from_micros(50))),
        9 if depth > 0 => {
            let child = start(shared, random.another(), depth - 1);
            drop(child.join());
        }
        10 if depth > 0 => greenroom::scope(|s| {
            for _ in 0..2 {
                let mut random = random.another();
                s.spawn(move || do_something(shared, &mut random, depth - 1));
            }
        }),
        11 => {
            // Catches the unwind, and goes on for a while.
            let tries = || do_something(shared, random, depth);
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(tries));
        }
        12 => {
            let (shared, mut random) = (Arc::clone(shared), random.another());
            let _cleans_up = Finally(move || clean_up(&shared, &mut random));
            thread::sleep(random_pause(&mut Random(depth.into())));
        }
        13 => {
            let _waits = Finally(|| thread::sleep(Duration::from_micros(200)));
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        _ => {}
    }
}

fn random_pause(random: &mut Random) -> Duration {
    match random.below(2) {
        0 => LONG,
        _ => random.micros(500),
    }
}

/// What destructors do, perhaps during a panic: they wait for time, and for locks that are held for a
/// moment.
fn clean_up(shared: &Shared, random: &mut Random) {
    match random.below(3) {
        0 => thread::sleep(random.micros(500)),
        1 => yield_now(),
        _ => drop(shared.lock.try_lock()),
    }
}

fn start(shared: &Arc<Shared>, mut random: Random, depth: u32) -> greenroom::JoinHandle<()> {
    let shared = Arc::clone(shared);
    spawn(move || {
        shared.started.fetch_add(1, SeqCst);
        let counted = Arc::clone(&shared);
        let _counts = Finally(move || _ = counted.unwound.fetch_add(1, SeqCst));
        for _ in 0..random.below(6) {
            do_something(&shared, &mut random, depth);
        }
        shared.ended.fetch_add(1, SeqCst);
    })
}

fn shut_down(seed: u64) {
    let mut random = Random(seed);
    let workers = 1 + random.below(3) as usize;
    let runtime = RuntimeBuilder::new().workers(workers).grace(LONG);
    let runtime = runtime.build().unwrap();
    let (sender, receiver) = sync_channel(random.below(3) as usize);
    let shared = Arc::new(Shared {
        lock: Mutex::new(0),
        changed: Condvar::new(),
        sender,
        receiver: Mutex::new(receiver),
        started: AtomicUsize::new(0),
        ended: AtomicUsize::new(0),
        unwound: AtomicUsize::new(0),
    });
    runtime.run(|| {
        for _ in 0..random.below(12) {
            drop(start(&shared, random.another(), 2));
        }
        thread::sleep(random.micros(1_000));
    });
    drop(runtime);
    let [started, ended, unwound] =
        [&shared.started, &shared.ended, &shared.unwound].map(|count| count.load(SeqCst));
    assert!(
        ended <= unwound && unwound <= started,
        "{ended} {unwound} {started}"
    );
    // What never ran has been dropped, and no coroutine runs any more.
    std::thread::yield_now();
    assert_eq!(shared.unwound.load(SeqCst), unwound);
}

#[test]
fn runtimes_end_whatever_their_coroutines_do() {
    let seed = setting("GREENROOM_SEED", 1);
    let shutdowns = setting("GREENROOM_SHUTDOWNS", 400);
    let next = AtomicUsize::new(0);
    std::thread::scope(|s| {
        // Most of the time the coroutines wait.
        for _ in 0..16 {
            s.spawn(|| {
                loop {
                    let n = next.fetch_add(1, SeqCst) as u64;
                    if n >= shutdowns {
                        return;
                    }
                    // Each on a fresh thread, on which no coroutine was left behind before.
                    let hangs = seed.wrapping_add(n);
                    let ends = std::thread::spawn(move || shut_down(hangs));
                    let start = std::time::Instant::now();
                    while !ends.is_finished() {
                        assert!(start.elapsed() < 6 * util::PATIENCE, "seed {hangs} hangs");
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    let ended = ends.join();
                    assert!(ended.is_ok(), "seed {hangs}");
                }
            });
        }
    });
}
