//! What does an empty coroutine cost, from its spawn to its join?

mod util;

use std::time::Instant;

use criterion::Throughput;
use greenroom::spawn;

fn main() {
    util::run(|criterion| {
        let mut group = criterion.benchmark_group("spawn");
        for (name, coroutines) in [("one by one", 1), ("1,000, then join all", 1_000)] {
            group.throughput(Throughput::Elements(coroutines));
            group.bench_function(name, |bencher| {
                let runtime = util::one_worker();
                bencher.iter_custom(|times| {
                    runtime.run(|| {
                        let mut handles = Vec::with_capacity(coroutines as usize);
                        let start = Instant::now();
                        for _ in 0..times {
                            handles.extend((0..coroutines).map(|_| spawn(|| ())));
                            for handle in handles.drain(..) {
                                handle.join().expect("a coroutine that does not panic");
                            }
                        }
                        start.elapsed()
                    })
                });
            });
        }
        group.finish();
    });
}
