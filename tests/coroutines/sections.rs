//! Sections of code that must not switch, which debug builds check.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use greenroom::shims::thread::sleep;
use greenroom::{assert_switches, no_switch, spawn, yield_now};

use crate::util::{message_of, on_an_os_thread, on_workers};

fn wait() {
    sleep(Duration::from_millis(1));
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "checked in debug builds only")]
fn a_wait_and_a_yield_in_a_section_panic_with_the_place_of_the_switch() {
    on_workers(1, || {
        let message = message_of(|| no_switch(wait));
        assert!(
            message.starts_with("switched 1 times where 0 are allowed"),
            "{message}"
        );
        assert!(message.contains("sections::wait"), "{message}");
        let message = message_of(|| no_switch(yield_now));
        assert!(message.starts_with("switched 1 times"), "{message}");
    });
}

#[test]
fn a_section_without_switches_returns_its_value() {
    on_workers(1, || {
        assert_eq!(no_switch(|| 7), 7);
        // Neither what comes before nor what comes after counts, nor what others do.
        wait();
        let other = spawn(wait);
        assert_eq!(no_switch(|| spawn(wait)).join().unwrap(), ());
        other.join().unwrap();
    });
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "checked in debug builds only")]
fn switches_are_counted_in_all_sections_around_them() {
    on_workers(1, || {
        assert_switches(3, || {
            assert_switches(2, || (wait(), wait()));
            wait();
        });
        let message = message_of(|| {
            assert_switches(2, || {
                assert_switches(2, || (wait(), wait()));
                wait();
            })
        });
        assert!(
            message.starts_with("switched 3 times where 2 are allowed"),
            "{message}"
        );
    });
}

#[test]
fn a_section_is_left_by_a_panic_too() {
    on_workers(1, || {
        let panicked = catch_unwind(|| {
            no_switch(|| {
                wait();
                resume_unwind(Box::new(()));
            })
        });
        assert!(panicked.is_err());
        wait();
    });
}

#[test]
fn an_operating_system_thread_switches_nothing() {
    on_an_os_thread(|| {
        let done = Cell::new(false);
        let section = || {
            wait();
            yield_now();
            done.set(true);
        };
        catch_unwind(AssertUnwindSafe(|| no_switch(section))).unwrap();
        assert!(done.get());
    });
}
