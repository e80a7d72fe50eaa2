//! The high-water mark of stacks is what coroutines have used, even after that memory was given back.
//!
//! The mark is the whole process's, so each test runs in a child.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::thread::available_parallelism;
use std::time::Duration;

use greenroom::shims::thread;
use greenroom::{Builder, JoinHandle, StackStats, stats};

use crate::util::{self, on_workers};

const PAGE: usize = 4096;

/// The least that a coroutine uses. The frames of the runtime are larger without optimisation.
const SHALLOW: usize = if cfg!(debug_assertions) { 2 } else { 1 } * PAGE;

/// The mark counts whole pages, and tops are shifted by less than one.
const INEXACT: usize = 2 * PAGE;

/// Runs `body` in a process of its own: this test, started again.
fn alone(test: &str, body: impl FnOnce()) {
    if util::role().is_some() {
        body();
        eprintln!("end of child");
        return;
    }
    let output = util::again!(test, "child")
        .env_remove("GREENROOM_STACK_SIZE")
        .env_remove("RUST_MIN_STACK")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("end of child"), "{printed}");
}

/// Writes to `BYTES` bytes of the stack.
#[inline(never)]
fn deepen<const BYTES: usize>() {
    // Not an array that is made elsewhere on the stack, and moved.
    let mut bytes = [const { MaybeUninit::<u8>::uninit() }; BYTES];
    for byte in &mut bytes {
        byte.write(1);
    }
    black_box(&mut bytes);
}

/// The statistics of stacks of this size, if there are any.
fn of_size(size: usize) -> Option<StackStats> {
    stats().stacks.into_iter().find(|of| of.size == size)
}

/// The high-water mark of stacks of the default size. The stack of main has another size.
fn hwm() -> usize {
    of_size(256 << 10).unwrap().hwm
}

#[track_caller]
fn assert_mark(used: usize) {
    let hwm = hwm();
    assert!(hwm >= used, "{hwm}");
    assert!(hwm <= used + SHALLOW + INEXACT, "{hwm}");
}

fn spawn_parked<const BYTES: usize>() -> JoinHandle<()> {
    greenroom::spawn(|| {
        deepen::<BYTES>();
        greenroom::park();
    })
}

fn finish(parked: impl IntoIterator<Item = JoinHandle<()>>) {
    for handle in parked {
        handle.thread().unpark();
        handle.join().unwrap();
    }
}

#[test]
fn a_process_without_coroutines_has_used_no_stacks() {
    alone("a_process_without_coroutines_has_used_no_stacks", || {
        let stats = stats();
        assert_eq!((stats.stack_hwm, stats.stacks.len()), (0, 0));
    });
}

#[test]
fn shallow_coroutines_use_about_a_page() {
    alone("shallow_coroutines_use_about_a_page", || {
        on_workers(2, || {
            let shallow: Vec<_> = (0..200).map(|_| spawn_parked::<1>()).collect();
            let of = loop {
                thread::sleep(Duration::from_millis(1));
                match of_size(256 << 10) {
                    Some(of) if of.resident >= 200 * PAGE => break of,
                    _ => {}
                }
            };
            assert!((PAGE..=SHALLOW + PAGE).contains(&of.hwm), "{of:?}");
            assert!((200..300).contains(&of.count), "{of:?}");
            assert!(of.resident <= 200 * (SHALLOW + PAGE), "{of:?}");
            finish(shallow);
            assert!((PAGE..=SHALLOW + PAGE).contains(&hwm()));
        });
    });
}

#[test]
fn the_mark_is_the_depth_of_the_deepest_coroutine() {
    alone("the_mark_is_the_depth_of_the_deepest_coroutine", || {
        on_workers(2, || {
            let deep = spawn_parked::<{ 100 << 10 }>();
            while of_size(256 << 10).is_none_or(|of| of.hwm < 100 << 10) {
                thread::yield_now();
            }
            assert_mark(100 << 10);
            finish([deep]);
            assert_mark(100 << 10);
            finish([spawn_parked::<1>()]);
            assert_mark(100 << 10);
            finish([spawn_parked::<{ 150 << 10 }>()]);
            assert_mark(150 << 10);
            let own = greenroom::spawn(|| {
                deepen::<{ 200 << 10 }>();
                assert_mark(200 << 10);
            });
            own.join().unwrap();
        });
        assert_mark(200 << 10);
        assert!(stats().stack_hwm >= 200 << 10);
    });
}

/// An idle worker gives the memory of deep stacks back. The mark cannot be read from that memory any
/// more.
#[test]
fn the_mark_outlasts_the_memory_of_trimmed_stacks() {
    let name = "the_mark_outlasts_the_memory_of_trimmed_stacks";
    alone(name, || {
        on_workers(1, || {
            finish([spawn_parked::<{ 100 << 10 }>()]);
            let before = of_size(256 << 10).unwrap();
            assert!(before.resident >= 100 << 10);
            while of_size(256 << 10).unwrap().resident >= 100 << 10 {
                thread::sleep(Duration::from_millis(50));
            }
            assert_eq!(hwm(), before.hwm);
            assert_mark(100 << 10);
        });
    });
}

/// When many coroutines end, a worker keeps few stacks, and gives the memory of the others back at once.
#[test]
fn the_deepest_coroutine_of_a_burst_is_found() {
    fn burst<const DEEPEST: usize>(at: usize) {
        on_workers(1, || {
            let all: Vec<_> = (0..300)
                .map(|index| match index == at {
                    true => spawn_parked::<DEEPEST>(),
                    false => spawn_parked::<1000>(),
                })
                .collect();
            thread::yield_now();
            finish(all);
        });
        let of = of_size(256 << 10).unwrap();
        assert!(of.resident < 64 << 10, "{of:?}");
        assert_mark(DEEPEST);
    }
    let name = "the_deepest_coroutine_of_a_burst_is_found";
    alone(name, || {
        burst::<{ 100 << 10 }>(0);
        burst::<{ 120 << 10 }>(1);
        burst::<{ 140 << 10 }>(150);
        burst::<{ 240 << 10 }>(298);
    });
}

#[test]
fn each_size_has_its_own_mark() {
    alone("each_size_has_its_own_mark", || {
        on_workers(1, || {
            let of = |size: usize, body: fn()| {
                let builder = Builder::new().stack_size(size);
                builder.spawn(body).unwrap().join().unwrap();
            };
            of(64 << 10, deepen::<{ 20 << 10 }>);
            of(1 << 20, deepen::<{ 900 << 10 }>);
            of(1 << 20, deepen::<10>);
        });
        for (size, used) in [(64 << 10, 20 << 10), (1 << 20, 900 << 10)] {
            let of = of_size(size).unwrap();
            assert!(of.hwm >= used, "{of:?}");
            assert!(of.hwm <= used + SHALLOW + INEXACT, "{of:?}");
        }
        let stats = stats();
        assert!(stats.stacks.is_sorted_by_key(|of| of.size));
        assert!(stats.stack_hwm >= 900 << 10);
    });
}

/// Reading the statistics disturbs neither coroutines nor other readers.
#[test]
fn stats_may_be_read_while_coroutines_come_and_go() {
    let name = "stats_may_be_read_while_coroutines_come_and_go";
    alone(name, || {
        let workers = available_parallelism().unwrap().get().max(2);
        on_workers(workers, || {
            let mut last = 0;
            for round in 0..50 {
                let some: Vec<_> = (0..100).map(|_| spawn_parked::<1000>()).collect();
                if round == 25 {
                    finish([spawn_parked::<{ 100 << 10 }>()]);
                }
                let now = stats().stack_hwm;
                assert!(now >= last, "{last}, then {now}");
                last = now;
                finish(some);
            }
        });
        assert_mark(100 << 10);
    });
}
