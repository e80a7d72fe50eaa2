//! A coroutine that yields gives up the processor, if nothing else of its worker is ready.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};

use greenroom::{RuntimeBuilder, spawn, yield_now};
use serial_test::serial;

use crate::util;

const ROUNDS: u32 = 100;

/// Far fewer than a coroutine could make between two turns of its thread.
const FEW: usize = 1_000 * ROUNDS as usize;

/// Two tasks that alternate by yielding.
struct Turns {
    turn: AtomicU32,
    yields: AtomicUsize,
}

impl Turns {
    const fn new() -> Turns {
        Turns {
            turn: AtomicU32::new(0),
            yields: AtomicUsize::new(0),
        }
    }

    fn play(&self, mine: u32, yield_now: fn()) {
        for _ in 0..ROUNDS {
            while self.turn.load(SeqCst) % 2 != mine {
                self.yields.fetch_add(1, SeqCst);
                yield_now();
            }
            self.turn.fetch_add(1, SeqCst);
        }
    }

    /// Has two tasks play, on one processor. Checks that they yield less often than `few` times. Others may have that
    /// processor for a while, so one attempt of ten is enough.
    fn check(&self, few: usize, both_play: impl Fn() + Sync) {
        util::in_one_of_ten(|| {
            self.turn.store(0, SeqCst);
            self.yields.store(0, SeqCst);
            on_one_processor(&both_play);
            let yields = self.yields.load(SeqCst);
            let are_few = yields < few;
            are_few
                .then_some(())
                .ok_or_else(|| format!("{yields} yields in {ROUNDS} rounds"))
        });
    }
}

/// Runs `test` on a thread. That thread, and those that it starts, share one processor.
fn on_one_processor(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: all-zero is a valid set, which the calls write and read.
            unsafe {
                let mut cpus: libc::cpu_set_t = std::mem::zeroed();
                let size = size_of::<libc::cpu_set_t>();
                assert_eq!(libc::sched_getaffinity(0, size, &raw mut cpus), 0);
                let first =
                    (0..libc::CPU_SETSIZE as usize).find(|&cpu| libc::CPU_ISSET(cpu, &cpus));
                libc::CPU_ZERO(&mut cpus);
                libc::CPU_SET(first.unwrap(), &mut cpus);
                assert_eq!(libc::sched_setaffinity(0, size, &raw const cpus), 0);
            }
            test();
        });
    });
}

#[test]
#[serial]
fn a_coroutine_and_a_thread_alternate_by_yielding() {
    static TURNS: Turns = Turns::new();
    TURNS.check(FEW, || {
        util::on_workers(1, || {
            let other = std::thread::spawn(|| TURNS.play(1, std::thread::yield_now));
            TURNS.play(0, yield_now);
            other.join().unwrap();
        });
    });
}

#[test]
#[serial]
fn coroutines_of_two_workers_alternate_by_yielding() {
    static TURNS: Turns = Turns::new();
    TURNS.check(FEW, || {
        let runtime = RuntimeBuilder::new().workers(2).build().unwrap();
        runtime.run(|| {
            let is_there = AtomicUsize::new(0);
            greenroom::scope(|scope| {
                scope.spawn(|| {
                    is_there.store(1, SeqCst);
                    TURNS.play(1, yield_now);
                });
                // So that another worker takes the coroutine.
                while is_there.load(SeqCst) == 0 {
                    std::thread::yield_now();
                }
                TURNS.play(0, yield_now);
            });
        });
    });
}

/// They yield to each other as well, which takes no system call each time.
#[test]
#[serial]
fn coroutines_of_a_worker_that_all_yield_let_a_thread_go_on() {
    static TURNS: Turns = Turns::new();
    TURNS.check(10 * FEW, || {
        util::on_workers(1, || {
            let other = std::thread::spawn(|| TURNS.play(1, std::thread::yield_now));
            let idle = || {
                while TURNS.turn.load(SeqCst) < 2 * ROUNDS {
                    yield_now();
                }
            };
            let idle: Vec<_> = (0..3).map(|_| spawn(idle)).collect();
            TURNS.play(0, yield_now);
            other.join().unwrap();
            idle.into_iter().for_each(|idle| idle.join().unwrap());
        });
    });
}
