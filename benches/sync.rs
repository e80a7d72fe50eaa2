//! What do locks cost, uncontended and contended?

mod util;

use std::sync::Arc;
use std::time::Instant;

use criterion::{Bencher, Criterion};
use greenroom::shims::sync::{Condvar, Mutex, RwLock};
use greenroom::{scope, spawn, yield_now};

fn main() {
    util::run(|criterion| {
        uncontended(criterion);
        criterion.bench_function("sync/mutex of 100, held over a yield", contended);
        criterion.bench_function("sync/condvar ping-pong", ping_pong);
    });
}

/// One lock and unlock in a coroutine, and the same with std's lock.
fn uncontended(criterion: &mut Criterion) {
    let in_a_coroutine = |bencher: &mut Bencher<'_>, mut lock: Box<dyn FnMut(u64)>| {
        let runtime = util::one_worker();
        bencher.iter_custom(|times| {
            runtime.run(|| {
                let start = Instant::now();
                lock(times);
                start.elapsed()
            })
        });
    };
    criterion.bench_function("sync/mutex", |bencher| {
        let mutex = Mutex::new(0_u64);
        in_a_coroutine(
            bencher,
            Box::new(move |times| {
                for _ in 0..times {
                    *mutex.lock().expect("not poisoned") += 1;
                }
            }),
        );
    });
    criterion.bench_function("sync/mutex of std", |bencher| {
        let mutex = std::sync::Mutex::new(0_u64);
        in_a_coroutine(
            bencher,
            Box::new(move |times| {
                for _ in 0..times {
                    *mutex.lock().expect("not poisoned") += 1;
                }
            }),
        );
    });
    criterion.bench_function("sync/rwlock, to read", |bencher| {
        let lock = RwLock::new(1_u64);
        in_a_coroutine(
            bencher,
            Box::new(move |times| {
                let mut sum = 0;
                for _ in 0..times {
                    sum += *lock.read().expect("not poisoned");
                }
                assert_eq!(sum, times);
            }),
        );
    });
}

/// One lock and unlock. Each of 100 coroutines yields while it holds the lock.
fn contended(bencher: &mut Bencher<'_>) {
    const COROUTINES: u64 = 100;
    let runtime = util::one_worker();
    bencher.iter_custom(|times| {
        let each = times.div_ceil(COROUTINES);
        let elapsed = runtime.run(|| {
            let mutex = Mutex::new(0_u64);
            let start = Instant::now();
            scope(|s| {
                for _ in 0..COROUTINES {
                    s.spawn(|| {
                        for _ in 0..each {
                            let mut guard = mutex.lock().expect("not poisoned");
                            yield_now();
                            *guard += 1;
                        }
                    });
                }
            });
            let elapsed = start.elapsed();
            assert_eq!(*mutex.lock().expect("not poisoned"), each * COROUTINES);
            elapsed
        });
        elapsed.mul_f64(times as f64 / (each * COROUTINES) as f64)
    });
}

/// A round trip: two waits, two notifications.
fn ping_pong(bencher: &mut Bencher<'_>) {
    let runtime = util::one_worker();
    bencher.iter_custom(|trips| {
        runtime.run(|| {
            let table = Arc::new((Mutex::new(0_u64), Condvar::new()));
            let play = |me: u64| {
                let table = Arc::clone(&table);
                move || {
                    let mut turn = table.0.lock().expect("not poisoned");
                    while *turn < 2 * trips {
                        while *turn % 2 != me {
                            turn = table.1.wait(turn).expect("not poisoned");
                        }
                        *turn += 1;
                        table.1.notify_one();
                    }
                }
            };
            let start = Instant::now();
            let other = spawn(play(1));
            play(0)();
            other.join().expect("a coroutine that does not panic");
            start.elapsed()
        })
    });
}
