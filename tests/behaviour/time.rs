//! What clocks promise.

use super::{std, util};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use util::everywhere;

const MILLI: Duration = Duration::from_millis(1);

#[test]
fn instants_do_not_go_back_on_any_thread() {
    everywhere(|| {
        let latest = Arc::new(Mutex::new(Instant::now()));
        let askers: Vec<_> = (0..4)
            .map(|_| {
                let latest = Arc::clone(&latest);
                thread::spawn(move || {
                    for i in 0..2_000 {
                        let mut latest = latest.lock().unwrap();
                        let now = Instant::now();
                        assert!(now >= *latest);
                        *latest = now;
                        drop(latest);
                        if i % 100 == 0 {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        for asker in askers {
            asker.join().unwrap();
        }
    });
}

#[test]
fn a_sleep_lasts_at_least_as_long_as_it_is_to() {
    everywhere(|| {
        for sleep in [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_micros(300),
            3 * MILLI,
        ] {
            let (start, system) = (Instant::now(), SystemTime::now());
            thread::sleep(sleep);
            assert!(start.elapsed() >= sleep, "{sleep:?}");
            // The system clock may be set meanwhile, so this may fail.
            let _ = system.elapsed();
        }
    });
}

#[test]
fn every_sleeper_wakes_and_none_early() {
    everywhere(|| {
        let start = Instant::now();
        let sleepers: Vec<_> = (0..50)
            .rev()
            .map(|millis| {
                thread::spawn(move || {
                    let end = start + millis * MILLI / 4;
                    thread::sleep(end.saturating_duration_since(Instant::now()));
                    assert!(Instant::now() >= end);
                })
            })
            .collect();
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
    });
}

#[test]
fn times_are_std_s_own() {
    everywhere(|| {
        let now: ::std::time::Instant = Instant::now();
        assert_eq!((now + MILLI) - now, MILLI);
        assert_eq!(now.checked_duration_since(now + MILLI), None);
        assert_eq!(now.saturating_duration_since(now + MILLI), Duration::ZERO);
        let today: ::std::time::SystemTime = SystemTime::now();
        assert!(today.duration_since(UNIX_EPOCH).unwrap() > 1_000_000 * MILLI);
        let error: std::time::SystemTimeError = UNIX_EPOCH.duration_since(today).unwrap_err();
        assert_eq!(error.duration(), today.duration_since(UNIX_EPOCH).unwrap());
    });
}
