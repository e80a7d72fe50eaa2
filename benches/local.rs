//! What does an access to a coroutine-local cost: in a coroutine, on a thread, and compared with std's
//! thread-local?

mod util;

use std::cell::Cell;
use std::hint::black_box;

use greenroom::{coroutine_local, spawn};

coroutine_local! {
    static CONST: Cell<u64> = const { Cell::new(0) };
    static LAZY: Cell<u64> = Cell::new(0);
    static OTHERS: [u64; 4] = [0; 4];
}

thread_local!(static OF_STD: Cell<u64> = const { Cell::new(0) });

fn main() {
    util::run(|criterion| {
        let mut group = criterion.benchmark_group("local");
        group.bench_function("const, in a coroutine", |bencher| {
            in_a_coroutine(|| bencher.iter(|| CONST.with(count)));
        });
        group.bench_function("lazy, in a coroutine", |bencher| {
            in_a_coroutine(|| bencher.iter(|| LAZY.with(count)));
        });
        group.bench_function("lazy, on a thread", |bencher| {
            bencher.iter(|| LAZY.with(count));
        });
        group.bench_function("std's", |bencher| {
            bencher.iter(|| OF_STD.with(count));
        });
        // The cost that it adds to a coroutine: compare with `spawn.rs`.
        group.bench_function("spawned coroutine that uses one", |bencher| {
            in_a_coroutine(|| {
                bencher.iter(|| spawn(|| CONST.with(count)).join().expect("no panic"));
            });
        });
        group.finish();
    });
}

fn in_a_coroutine(bench: impl FnOnce()) {
    util::one_worker().run(|| {
        OTHERS.with(|others| black_box(others[0]));
        bench();
    });
}

#[inline]
fn count(value: &Cell<u64>) {
    value.set(black_box(value.get() + 1));
}
