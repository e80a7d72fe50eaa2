//! What does the access to a coroutine local cost: in a coroutine, on a thread, and next to std's?

mod util;

use std::cell::Cell;
use std::hint::black_box;

use greenroom::{coroutine_local, spawn};

coroutine_local! {
    static CONST: Cell<u64> = const { Cell::new(0) };
    static LAZY: Cell<u64> = Cell::new(0);
    static OTHERS: [u64; 4] = [0; 4];
}

thread_local!(static OF_STD: Cell<u64> = Cell::new(0));

fn main() {
    util::run(|criterion| {
        let mut group = criterion.benchmark_group("local");
        let access = |key: &'static greenroom::LocalKey<Cell<u64>>| {
            key.with(|value| value.set(black_box(value.get() + 1)));
        };
        for (name, key) in [("const", &CONST), ("lazy", &LAZY)] {
            group.bench_function(format!("{name}, in a coroutine"), |bencher| {
                util::one_worker().run(|| {
                    OTHERS.with(|others| others[0]);
                    bencher.iter(|| access(key));
                });
            });
        }
        group.bench_function("lazy, on a thread", |bencher| {
            bencher.iter(|| access(&LAZY));
        });
        group.bench_function("std's", |bencher| {
            bencher.iter(|| OF_STD.with(|value| value.set(black_box(value.get() + 1))));
        });
        // What it adds to a coroutine that uses one: see `spawn.rs`.
        group.bench_function("spawned coroutine that uses one", |bencher| {
            util::one_worker().run(|| {
                bencher.iter(|| spawn(|| access(&CONST)).join().expect("it does not panic"));
            });
        });
        group.finish();
    });
}
