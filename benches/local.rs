//! What does an access to a coroutine-local cost, in a coroutine and on a thread, compared with std's
//! thread-local?
//!
//! Each access adds one to a counter. The sums are of eight counters, each of which is a static of its own.

mod util;

use std::cell::{Cell, RefCell};
use std::hint::black_box;

use criterion::BenchmarkGroup;
use criterion::measurement::WallTime;
use greenroom::{coroutine_local, spawn};

/// The same statics, declared by the macro `$declare`, and the benches on them.
macro_rules! statics {
    ($module:ident, $declare:path) => {
        mod $module {
            use super::*;

            $declare! {
                pub(super) static CONST: Cell<u64> = const { Cell::new(0) };
                static LAZY: Cell<u64> = Cell::new(one());
                static LIST: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
                static A: Cell<u64> = const { Cell::new(0) };
                static B: Cell<u64> = const { Cell::new(0) };
                static C: Cell<u64> = const { Cell::new(0) };
                static D: Cell<u64> = const { Cell::new(0) };
                static E: Cell<u64> = const { Cell::new(0) };
                static F: Cell<u64> = const { Cell::new(0) };
                static G: Cell<u64> = const { Cell::new(0) };
                static H: Cell<u64> = const { Cell::new(0) };
            }

            pub(super) fn bench(
                group: &mut BenchmarkGroup<'_, WallTime>,
                place: Place,
                name: &str,
            ) {
                group.bench_function(format!("const, {name}"), |bencher| {
                    place.run(|| bencher.iter(|| CONST.with(count)));
                });
                group.bench_function(format!("lazy, {name}"), |bencher| {
                    place.run(|| bencher.iter(|| LAZY.with(count)));
                });
                group.bench_function(format!("with a destructor, {name}"), |bencher| {
                    place.run(|| {
                        LIST.with_borrow_mut(|list| list.push(0));
                        bencher.iter(|| LIST.with_borrow_mut(|list| list[0] += 1));
                    });
                });
                group.bench_function(format!("sum of eight, {name}"), |bencher| {
                    place.run(|| {
                        bencher.iter(|| {
                            A.set(1);
                            A.get()
                                + B.get()
                                + C.get()
                                + D.get()
                                + E.get()
                                + F.get()
                                + G.get()
                                + H.get()
                        });
                    });
                });
            }
        }
    };
}

statics!(of_greenroom, greenroom::coroutine_local);
statics!(of_std, std::thread_local);

coroutine_local!(static USED: Cell<u64> = const { Cell::new(0) });

fn main() {
    util::run(|criterion| {
        let mut group = criterion.benchmark_group("local");
        of_greenroom::bench(&mut group, Place::Coroutine, "in a coroutine");
        of_greenroom::bench(&mut group, Place::Thread, "on a thread");
        of_std::bench(&mut group, Place::Thread, "std's");
        // What it adds to a coroutine's life.
        for (name, uses) in [("spawn", false), ("spawn and first use", true)] {
            group.bench_function(name, |bencher| {
                Place::Coroutine.run(|| {
                    bencher.iter(|| {
                        let spawned = spawn(move || {
                            if black_box(uses) {
                                USED.with(count);
                            }
                        });
                        spawned.join().expect("no panic");
                    });
                });
            });
        }
        group.finish();
    });
}

/// Where a bench runs.
#[derive(Clone, Copy)]
enum Place {
    Coroutine,
    Thread,
}

impl Place {
    fn run(self, mut bench: impl FnMut()) {
        match self {
            Place::Coroutine => util::one_worker().run(bench),
            Place::Thread => bench(),
        }
    }
}

#[inline]
fn count(value: &Cell<u64>) {
    value.set(black_box(value.get() + 1));
}

/// An initialiser that is no constant.
fn one() -> u64 {
    black_box(1)
}
