//! What does a yield cost, between 2 coroutines, and where 10,000 compete for the caches?

mod util;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Throughput};
use greenroom::{Runtime, spawn, yield_now};

fn main() {
    util::run(|criterion| {
        let mut group = criterion.benchmark_group("switch");
        for coroutines in [2, 10_000] {
            group.throughput(Throughput::Elements(coroutines));
            group.bench_function(BenchmarkId::new("yield_now", coroutines), |bencher| {
                let runtime = util::one_worker();
                bencher.iter_custom(|rounds| yield_in_turn(&runtime, coroutines, rounds));
            });
        }
        group.finish();
    });
}

/// The time in which each of the coroutines yields `rounds` times.
fn yield_in_turn(runtime: &Runtime, coroutines: u64, rounds: u64) -> Duration {
    runtime.run(|| {
        let started = Arc::new(AtomicU64::new(1));
        let stop = Arc::new(AtomicBool::new(false));
        let other = |_| {
            let (started, stop) = (Arc::clone(&started), Arc::clone(&stop));
            spawn(move || {
                started.fetch_add(1, Relaxed);
                while !stop.load(Relaxed) {
                    yield_now();
                }
            })
        };
        let others: Vec<_> = (1..coroutines).map(other).collect();
        while started.load(Relaxed) < coroutines {
            yield_now();
        }

        // A worker's queue is first in, first out: when this one is back, all others have yielded.
        let start = Instant::now();
        for _ in 0..rounds {
            yield_now();
        }
        let elapsed = start.elapsed();

        stop.store(true, Relaxed);
        for other in others {
            other.join().expect("a coroutine that does not panic");
        }
        elapsed
    })
}
