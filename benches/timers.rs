//! What does a deadline cost: one that is cancelled, as most are, and one that passes?

mod util;

use std::time::Duration;

use criterion::Throughput;
use greenroom::shims::thread::sleep;
use greenroom::{park_timeout, spawn};
use rustix::time::{ClockId, clock_gettime};

fn main() {
    util::run(|criterion| {
        let mut group = criterion.benchmark_group("timers");

        // The ping-pong of `park.rs`, in which one of the parks has a deadline. The difference is the
        // cost of reading the clock, arming and disarming.
        group.bench_function("arm and cancel", |bencher| {
            util::ping_pong(bencher, || {
                assert!(park_timeout(Duration::from_secs(60)), "timed out");
            });
        });

        // 1 ms of the time was asked for. All CPU time of the worker is cost.
        let clocks = [
            ("time", ClockId::Monotonic),
            ("CPU", ClockId::ThreadCPUTime),
        ];
        for (name, clock) in clocks {
            group.throughput(Throughput::Elements(SLEEPERS));
            group.bench_function(format!("1,000 sleeps of 0 to 1 ms, {name}"), |bencher| {
                let runtime = util::one_worker();
                bencher.iter_custom(|times| {
                    runtime.run(|| {
                        let start = now(clock);
                        for _ in 0..times {
                            sleep_at_once();
                        }
                        now(clock) - start
                    })
                });
            });
        }
        group.finish();
    });
}

const SLEEPERS: u64 = 1_000;

/// Coroutines that sleep for 0 to 999 µs, spawned out of the order of their deadlines.
fn sleep_at_once() {
    let sleeper = |index| {
        // Coprime to the number of sleepers, so each duration comes once.
        let micros = index * 617 % SLEEPERS;
        spawn(move || sleep(Duration::from_micros(micros)))
    };
    let sleepers: Vec<_> = (0..SLEEPERS).map(sleeper).collect();
    for sleeper in sleepers {
        sleeper.join().expect("a coroutine that does not panic");
    }
}

fn now(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
