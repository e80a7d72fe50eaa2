//! Futexes, as code that makes its own locks uses them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use libc::{
    FUTEX_OP_CMP_EQ, FUTEX_OP_SET, FUTEX_PRIVATE_FLAG, FUTEX_WAIT, FUTEX_WAKE, FUTEX_WAKE_OP,
    SYS_futex, c_int, c_long,
};

use crate::util::{on_workers, until};

/// Wakes one waiter of `first`, sets `second` to one, and if it was zero wakes one waiter of that, too.
fn wake_first_and_set_second(first: &AtomicU32, second: &AtomicU32) -> c_long {
    let operation = FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG;
    let change = libc::FUTEX_OP(FUTEX_OP_SET, 1, FUTEX_OP_CMP_EQ, 0);
    let (first, second) = (first.as_ptr(), second.as_ptr());
    // SAFETY: both words are there.
    unsafe { libc::syscall(SYS_futex, first, operation, 1, 1_usize, second, change) }
}

/// Waits for as long as the word is zero, by a futex that is private or shared.
fn wait_by(operation: c_int, word: &AtomicU32) {
    while word.load(Ordering::SeqCst) == 0 {
        // SAFETY: the word is there, and the time is null.
        unsafe {
            libc::syscall(
                SYS_futex,
                word.as_ptr(),
                operation,
                0,
                std::ptr::null::<u8>(),
            )
        };
    }
}

/// Wakes `count` waiters. Returns how many it has woken.
fn wake_by(operation: c_int, word: &AtomicU32, count: c_int) -> c_long {
    // SAFETY: the word is there.
    unsafe { libc::syscall(SYS_futex, word.as_ptr(), operation, count) }
}

/// Those of the function-local statics of C++ are.
#[test]
fn a_shared_futex_is_waited_for_by_several_coroutines_of_a_worker() {
    on_workers(1, || {
        let (word, waiting) = (AtomicU32::new(0), AtomicU32::new(0));
        greenroom::scope(|s| {
            let waiters = [(); 3].map(|()| {
                s.spawn(|| {
                    waiting.fetch_add(1, Ordering::SeqCst);
                    wait_by(FUTEX_WAIT, &word);
                })
            });
            until("all wait", || waiting.load(Ordering::SeqCst) == 3);
            word.store(1, Ordering::SeqCst);
            // One that just looks at the word is not woken.
            assert!((0..=3).contains(&wake_by(FUTEX_WAKE, &word, 3)));
            for waiter in waiters {
                waiter.join().unwrap();
            }
        });
    });
}

#[test]
fn a_shared_futex_has_a_time() {
    on_workers(1, || {
        let word = AtomicU32::new(0);
        let wait = |millis: u64| {
            let time = libc::timespec {
                tv_sec: 0,
                tv_nsec: (millis * 1_000_000) as _,
            };
            let begin = Instant::now();
            // SAFETY: the word and the time are there.
            let waited =
                unsafe { libc::syscall(SYS_futex, word.as_ptr(), FUTEX_WAIT, 0, &raw const time) };
            assert_eq!((waited, crate::calls::errno()), (-1, libc::ETIMEDOUT));
            assert!(begin.elapsed() >= Duration::from_millis(millis));
        };
        wait(3);
        wait(30);
    });
}

#[test]
fn a_wake_up_of_no_waiters_or_of_fewer_wakes_one_as_the_kernel_does() {
    for count in [0, -1, c_int::MIN, 1] {
        on_workers(1, || {
            let (word, waiting) = (AtomicU32::new(0), AtomicU32::new(0));
            let operation = FUTEX_WAIT | FUTEX_PRIVATE_FLAG;
            greenroom::scope(|s| {
                let waiters = [(); 2].map(|()| {
                    s.spawn(|| {
                        waiting.fetch_add(1, Ordering::SeqCst);
                        wait_by(operation, &word);
                    })
                });
                until("both wait", || waiting.load(Ordering::SeqCst) == 2);
                word.store(1, Ordering::SeqCst);
                let wake = |count| wake_by(FUTEX_WAKE | FUTEX_PRIVATE_FLAG, &word, count);
                assert_eq!(wake(count), 1, "{count}");
                assert_eq!(wake(count), 1, "{count}");
                for waiter in waiters {
                    waiter.join().unwrap();
                }
                assert_eq!(wake(count), 0, "{count}");
            });
        });
    }
}

/// If the wake-up came before the change, a coroutine would find its word as it was, and wait again.
#[test]
fn a_wake_up_that_changes_a_word_wakes_coroutines_at_both_words() {
    const ROUNDS: usize = 5000;

    let words = || [(); 3].map(|()| AtomicU32::new(0));
    let words: Vec<_> = std::iter::repeat_with(words).take(ROUNDS).collect();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for [waiting, first, second] in &words {
                while waiting.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
                first.store(1, Ordering::SeqCst);
                assert!(wake_first_and_set_second(first, second) >= 0);
            }
        });
        on_workers(1, || {
            greenroom::scope(|s| {
                for index in [1, 2] {
                    let words = &words;
                    s.spawn(move || {
                        for round in words {
                            round[0].fetch_add(1, Ordering::SeqCst);
                            wait_by(FUTEX_WAIT | FUTEX_PRIVATE_FLAG, &round[index]);
                        }
                    });
                }
            });
        });
    });
}
