//! nanosleep(2) and its relatives.

use std::ptr::null_mut;
use std::time::{Duration, Instant};

use libc::{
    CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_REALTIME, EFAULT, EINVAL,
    TIMER_ABSTIME, clockid_t, timespec,
};

use crate::calls::{Calls, alike, call, nowhere, on_coroutine};
use crate::util::ms;

fn time(duration: Duration) -> timespec {
    timespec {
        tv_sec: duration.as_secs() as _,
        tv_nsec: duration.subsec_nanos().into(),
    }
}

fn now(clock: clockid_t) -> Duration {
    let mut now = time(Duration::ZERO);
    // SAFETY: the pointer is to a time.
    assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut now) }, 0);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

const CLOCKS: [clockid_t; 3] = [CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME];

/// Calls `sleep`, which returns zero, and takes at least `least`.
#[track_caller]
fn takes(least: Duration, sleep: impl FnOnce() -> Result<i64, i32>) {
    let begin = Instant::now();
    assert_eq!(sleep(), Ok(0));
    assert!(begin.elapsed() >= least, "{:?}", begin.elapsed());
}

#[test]
fn sleeps_last_as_long_as_they_are_asked_to() {
    alike(|c| {
        for millis in [0, 30] {
            let asked = time(ms(millis));
            let asked = &raw const asked;
            takes(ms(millis), || call!(c.nanosleep(asked, null_mut())));
            takes(ms(millis), || call!(c.usleep(millis as u32 * 1000)));
            for clock in CLOCKS {
                takes(ms(millis), || {
                    call!(c.clock_nanosleep(clock, 0, asked, null_mut()))
                });
                takes(ms(millis), || {
                    let until = time(now(clock) + ms(millis));
                    call!(c.clock_nanosleep(clock, TIMER_ABSTIME, &raw const until, null_mut()))
                });
            }
        }
        takes(ms(1000), || call!(c.sleep(1)));
        takes(ms(0), || call!(c.sleep(0)));
        // A time that is over.
        let past = time(ms(1));
        for clock in CLOCKS {
            takes(ms(0), || {
                call!(c.clock_nanosleep(clock, TIMER_ABSTIME, &raw const past, null_mut()))
            });
        }
    });
}

#[test]
fn a_sleep_that_was_not_ended_leaves_the_rest_alone() {
    alike(|c| {
        let asked = time(ms(5));
        let mut left = time(ms(77_077));
        takes(ms(5), || {
            call!(c.nanosleep(&raw const asked, &raw mut left))
        });
        takes(ms(5), || {
            call!(c.clock_nanosleep(CLOCK_MONOTONIC, 0, &raw const asked, &raw mut left))
        });
        assert_eq!((left.tv_sec, left.tv_nsec), (77, 77_000_000));
    });
}

#[test]
fn bad_times_are_refused() {
    alike(|c| {
        // clock_nanosleep returns the number of its error.
        let on_clock = |c: &Calls, clock, time: *const timespec| {
            [0, TIMER_ABSTIME].map(|flags| call!(c.clock_nanosleep(clock, flags, time, null_mut())))
        };
        for (tv_sec, tv_nsec) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MIN, i64::MAX)] {
            let bad = timespec { tv_sec, tv_nsec };
            let bad = &raw const bad;
            assert_eq!(call!(c.nanosleep(bad, null_mut())), Err(EINVAL));
            for clock in CLOCKS {
                assert_eq!(on_clock(c, clock, bad), [Ok(EINVAL.into()); 2]);
            }
        }
        assert_eq!(call!(c.nanosleep(nowhere(), null_mut())), Err(EFAULT));
        for clock in CLOCKS {
            assert_eq!(on_clock(c, clock, nowhere()), [Ok(EFAULT.into()); 2]);
        }
        let good = time(ms(1));
        assert_eq!(on_clock(c, 9999, &raw const good), [Ok(EINVAL.into()); 2]);
        // A clock that the patch leaves to the kernel.
        let past = time(Duration::ZERO);
        let cpu = CLOCK_PROCESS_CPUTIME_ID;
        let slept = call!(c.clock_nanosleep(cpu, TIMER_ABSTIME, &raw const past, null_mut()));
        assert_eq!(slept, Ok(0));
    });
}

#[test]
fn sleeps_of_many_coroutines_end_in_the_order_of_their_times() {
    on_coroutine(|_| {
        let (ended, order) = std::sync::mpsc::channel();
        let sleepers: Vec<_> = [40, 10, 30, 20]
            .into_iter()
            .map(|millis| {
                let ended = ended.clone();
                greenroom::spawn(move || {
                    // SAFETY: the call takes any number.
                    assert_eq!(unsafe { libc::usleep(millis * 3000) }, 0);
                    ended.send(millis).unwrap();
                })
            })
            .collect();
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
        assert_eq!(order.try_iter().collect::<Vec<_>>(), [10, 20, 30, 40]);
    });
}
