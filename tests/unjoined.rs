//! The hook for panics of coroutines that nobody joins, which belongs to the process.

#[path = "util/mod.rs"]
mod util;

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenroom::shims::thread::sleep;
use greenroom::{Builder, Group, JoinHandle, every, scope, set_unjoined_hook, spawn};
use serial_test::serial;

use util::{PATIENCE, everywhere, message_of, on_workers, until};

/// Sets a hook that keeps the text of what it is called with.
fn record() -> Arc<Mutex<Vec<String>>> {
    let record = Arc::new(Mutex::new(Vec::new()));
    let recorded = Arc::clone(&record);
    set_unjoined_hook(move |failure| recorded.lock().unwrap().push(failure.to_string()));
    record
}

fn taken(record: &Mutex<Vec<String>>) -> Vec<String> {
    std::mem::take(&mut *record.lock().unwrap())
}

fn failing(name: &str) -> JoinHandle<()> {
    let builder = Builder::new().name(name.into());
    builder
        .spawn(|| resume_unwind(Box::new("no luck")))
        .unwrap()
}

#[test]
#[serial]
fn it_is_called_once_whenever_the_handle_is_dropped() {
    everywhere(|| {
        let record = record();
        drop(failing("early"));
        until("it was told", || !record.lock().unwrap().is_empty());
        let texts = taken(&record);
        assert_eq!(texts.len(), 1);
        assert!(texts[0].contains("'early'") && texts[0].contains("no luck"));
        assert!(texts[0].contains("unjoined.rs"), "{texts:?}");
        let late = failing("late");
        until("it has ended", || late.is_finished());
        assert!(taken(&record).is_empty());
        drop(late);
        let texts = taken(&record);
        assert!(texts.len() == 1 && texts[0].contains("'late'"), "{texts:?}");
    });
}

#[test]
#[serial]
fn it_is_not_called_for_joins_cancellations_and_scopes() {
    everywhere(|| {
        let record = record();
        assert!(failing("joined").join().is_err());
        let mut sleeper = spawn(|| sleep(Duration::MAX));
        assert!(sleeper.cancel_wait(PATIENCE));
        drop(sleeper);
        let unstarted = spawn(|| sleep(Duration::MAX));
        unstarted.cancel();
        drop(unstarted);
        let panics = || {
            scope(|s| {
                s.spawn(|| resume_unwind(Box::new("no luck")));
            });
        };
        assert_eq!(message_of(panics), "a scoped thread panicked");
        assert_eq!(taken(&record), [""; 0]);
    });
}

#[test]
#[serial]
fn a_group_tells_what_its_join_does_not_return() {
    everywhere(|| {
        let record = record();
        let group = Group::new();
        let fail = |what: &'static str| {
            let failed = group.spawn(move || resume_unwind(Box::new(what)));
            until("it has ended", || failed.is_finished());
        };
        fail("first");
        fail("second");
        assert!(taken(&record).concat().contains("second"));
        let first = group.join().unwrap_err();
        assert_eq!(first.downcast_ref(), Some(&"first"));
        fail("third");
        assert!(taken(&record).is_empty());
        drop(group);
        assert!(taken(&record).concat().contains("third"));
    });
}

#[test]
#[serial]
fn it_sees_payloads_of_any_type_and_may_panic_itself() {
    on_workers(1, || {
        let seen = Arc::new(Mutex::new(None));
        let sees = Arc::clone(&seen);
        set_unjoined_hook(move |failure| {
            assert_eq!(failure.name(), None);
            assert_eq!(failure.spawned_at().file(), file!());
            *sees.lock().unwrap() = failure.payload().downcast_ref::<u32>().copied();
            panic!("the hook's own");
        });
        spawn(|| resume_unwind(Box::new(7_u32)));
        until("it was called", || *seen.lock().unwrap() == Some(7));
        assert_eq!(spawn(|| 8).join().unwrap(), 8, "the worker goes on");
    });
}

#[test]
#[serial]
fn a_panic_in_a_call_of_every_is_told() {
    on_workers(1, || {
        let record = record();
        let ticker = every(Duration::from_millis(1), |tick| {
            tick.stop();
            resume_unwind(Box::new("no luck"));
        });
        until("it was told", || !record.lock().unwrap().is_empty());
        assert!(taken(&record).concat().contains("'every'"));
        drop(ticker);
    });
}
