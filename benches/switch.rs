//! What does a yield cost, between 2 coroutines, and between 10,000 that compete for the caches?

mod util;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use criterion::{BenchmarkId, Throughput};
use greenroom::{JoinHandle, spawn, yield_now};

fn main() {
    util::run(|criterion| {
        let mut group = criterion.benchmark_group("switch");
        for coroutines in [2, 10_000] {
            group.throughput(Throughput::Elements(coroutines));
            group.bench_function(BenchmarkId::new("yield_now", coroutines), |bencher| {
                let runtime = util::one_worker();
                let stop = Arc::new(AtomicBool::new(false));
                // They live across several calls of `run`. If they were started for each sample, there
                // would be no time for rounds with caches in their usual state.
                let others = runtime.run(|| start(coroutines - 1, &stop));
                bencher.iter_custom(|rounds| {
                    runtime.run(|| {
                        // The queue is first in, first out: when this coroutine is back, all
                        // others have yielded once.
                        let start = Instant::now();
                        for _ in 0..rounds {
                            yield_now();
                        }
                        start.elapsed()
                    })
                });
                stop.store(true, Relaxed);
                runtime.run(|| {
                    for other in others {
                        other.join().expect("a coroutine that does not panic");
                    }
                });
            });
        }
        group.finish();
    });
}

/// Coroutines that have all begun to yield, and go on until `stop` is set.
fn start(count: u64, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<()>> {
    let started = Arc::new(AtomicU64::new(0));
    let one = |_| {
        let (started, stop) = (Arc::clone(&started), Arc::clone(stop));
        spawn(move || {
            started.fetch_add(1, Relaxed);
            while !stop.load(Relaxed) {
                yield_now();
            }
        })
    };
    let handles = (0..count).map(one).collect();
    while started.load(Relaxed) < count {
        yield_now();
    }
    handles
}
