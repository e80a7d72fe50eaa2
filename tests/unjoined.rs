//! The hooks for panics and results of coroutines that nobody joins. Two of them belong to the process.

#[path = "util/mod.rs"]
mod util;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenroom::context::ContextKey;
use greenroom::shims::sync::mpsc;
use greenroom::shims::thread::{self, sleep};
use greenroom::{
    Builder, Group, JoinHandle, UnjoinedPanic, after, every, scope, set_dropped_handle_hook,
    set_unjoined_hook, spawn, spawn_local, timeout, try_join_all, unblock, with_unjoined_hook,
    yield_now,
};
use serial_test::serial;

use util::{Counted, Finally, PATIENCE, counter, everywhere, message_of, ms, on_workers, until};

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

// ---------------------------------------------------------- hooks around code

static REQUEST: ContextKey<u32> = ContextKey::new();

/// A hook that keeps the payloads that it gets, and what it keeps them in.
fn keeping() -> (
    impl Fn(UnjoinedPanic) + Clone + Send + Sync + 'static,
    Arc<Mutex<Vec<&'static str>>>,
) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeps = Arc::clone(&kept);
    let hook = move |failure: UnjoinedPanic| {
        let payload = failure.into_payload().downcast().unwrap();
        keeps.lock().unwrap().push(*payload);
    };
    (hook, kept)
}

/// A closure that panics with `what`.
fn fails(what: &'static str) -> impl FnOnce() + Send + 'static {
    move || resume_unwind(Box::new(what))
}

/// A handle of a coroutine that has panicked with `what`.
fn failed(what: &'static str) -> JoinHandle<()> {
    let failed = spawn(fails(what));
    until("it has ended", || failed.is_finished());
    failed
}

#[test]
#[serial]
fn a_failure_finds_its_request_three_spawns_deep_and_after_waits() {
    everywhere(|| {
        let of_process = record();
        let (fail, failures) = mpsc::channel();
        for request in 0..20 {
            let fail = fail.clone();
            let hook = move |failure: UnjoinedPanic| {
                assert_eq!(failure.name(), Some("deep"));
                let payload = *failure.payload().downcast_ref::<u32>().unwrap();
                fail.send((request, REQUEST.get(), payload)).unwrap();
            };
            let deep = move || {
                sleep(ms(1));
                resume_unwind(Box::new(REQUEST.get().unwrap()));
            };
            let middle = move || {
                sleep(ms(1));
                yield_now();
                drop(Builder::new().name("deep".into()).spawn(deep).unwrap());
            };
            let outer = move || {
                sleep(ms(1));
                drop(spawn(middle));
                sleep(ms(1));
            };
            let handle = || drop(REQUEST.scope(request, || spawn(outer)));
            with_unjoined_hook(hook, handle);
        }
        let mut told: Vec<_> = (0..20).map(|_| failures.recv().unwrap()).collect();
        told.sort_unstable();
        let expected = (0..20).map(|request| (request, Some(request), request));
        assert!(told.into_iter().eq(expected));
        assert!(taken(&of_process).is_empty());
        drop(failing("outside"));
        until("it was told", || !of_process.lock().unwrap().is_empty());
        drop(fail);
        assert!(failures.recv().is_err(), "the hooks are gone");
    });
}

#[test]
#[serial]
fn everything_that_is_spawned_inherits_the_hook() {
    on_workers(2, || {
        let of_process = record();
        let (hook, kept) = keeping();
        with_unjoined_hook(hook, || {
            drop(spawn(fails("spawn")));
            drop(spawn_local(fails("spawn_local")));
            drop(thread::spawn(fails("thread")));
            unblock(|| drop(spawn(fails("unblock"))));
            after(ms(1), fails("after"));
            drop(failed("ended"));
            let group = Group::new();
            let ended = |member: &dyn Fn() -> bool| until("it has ended", member);
            let first = group.spawn(fails("of no interest"));
            ended(&|| first.is_finished());
            drop(first);
            let second = group.spawn(fails("group"));
            ended(&|| second.is_finished());
            drop(second);
            assert!(group.join().is_err());
            let ticker = every(ms(1), |tick| {
                tick.stop();
                fails("every")();
            });
            until("all were told", || kept.lock().unwrap().len() == 8);
            drop(ticker);
        });
        let mut kept = std::mem::take(&mut *kept.lock().unwrap());
        kept.sort_unstable();
        let expected = [
            "after",
            "ended",
            "every",
            "group",
            "spawn",
            "spawn_local",
            "thread",
            "unblock",
        ];
        assert_eq!(kept, expected);
        assert!(taken(&of_process).is_empty());
    });
}

#[test]
#[serial]
fn the_innermost_hook_gets_a_failure_and_its_own_panic_goes_to_the_one_around_it() {
    everywhere(|| {
        let (kept, outermost) = keeping();
        set_unjoined_hook(kept);
        let (keep, middle) = keeping();
        let middle_hook = move |failure: UnjoinedPanic| match failure.payload().downcast_ref() {
            Some(&"for all") => resume_unwind(failure.into_payload()),
            _ => keep(failure),
        };
        let (keep, inner) = keeping();
        let inner_hook = move |failure: UnjoinedPanic| match failure.payload().downcast_ref() {
            Some(&"broken") => resume_unwind(Box::new("the hook's own")),
            Some(&"mine") => keep(failure),
            _ => resume_unwind(failure.into_payload()),
        };
        with_unjoined_hook(middle_hook, || {
            with_unjoined_hook(inner_hook, || {
                for what in ["mine", "broken", "not mine", "for all"] {
                    drop(failed(what));
                }
            });
            drop(failed("mine"));
        });
        drop(failed("mine"));
        let taken = |kept: Arc<Mutex<Vec<_>>>| std::mem::take(&mut *kept.lock().unwrap());
        assert_eq!(taken(inner), ["mine"]);
        assert_eq!(taken(middle), ["the hook's own", "not mine", "mine"]);
        assert_eq!(taken(outermost), ["for all", "mine"]);
    });
}

#[test]
#[serial]
fn the_hook_of_a_failure_is_that_of_the_spawn_wherever_the_handle_is_dropped() {
    everywhere(|| {
        let (hook, kept) = keeping();
        let (other_hook, other) = keeping();
        let failed = with_unjoined_hook(hook, || failed("dropped elsewhere"));
        with_unjoined_hook(other_hook, || {
            assert!(kept.lock().unwrap().is_empty());
            drop(failed);
        });
        assert_eq!(*kept.lock().unwrap(), ["dropped elsewhere"]);
        assert!(other.lock().unwrap().is_empty());
    });
}

#[test]
#[serial]
fn the_hook_of_a_coroutine_that_never_ran_hears_of_a_panic_of_its_closures_destructor() {
    on_workers(1, || {
        let of_process = record();
        let (hook, kept) = keeping();
        let panics = Finally(|| resume_unwind(Box::new("destructor")));
        let unstarted = with_unjoined_hook(hook, || spawn(move || drop(panics)));
        unstarted.cancel();
        drop(unstarted);
        until("it was told", || !kept.lock().unwrap().is_empty());
        assert_eq!(*kept.lock().unwrap(), ["destructor"]);
        assert!(taken(&of_process).is_empty());
    });
}

#[test]
#[serial]
fn no_hook_is_called_for_joins_cancellations_and_panics_of_the_code_itself() {
    everywhere(|| {
        let of_process = record();
        let (hook, kept) = keeping();
        let panics = || {
            with_unjoined_hook(hook, || {
                assert!(failed("joined").join().is_err());
                let mut sleeper = spawn(|| sleep(Duration::MAX));
                assert!(sleeper.cancel_wait(PATIENCE));
                drop(sleeper);
                resume_unwind(Box::new("its own"))
            });
        };
        let payload = catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"its own"));
        assert!(kept.lock().unwrap().is_empty() && taken(&of_process).is_empty());
        drop(failed("after the panic"));
        assert_eq!(taken(&of_process).len(), 1, "the hook was left");
    });
}

/// A hook that is called by a coroutine that unwinds could not join another one of the same worker.
#[test]
#[serial]
fn a_handle_that_an_unwind_drops_has_another_coroutine_call_the_hook() {
    on_workers(1, || {
        let (tell, told) = mpsc::channel();
        let hook = move |failure: UnjoinedPanic| {
            let caller = greenroom::current().id();
            let joined = spawn(|| sleep(ms(1))).join();
            let panicking = std::thread::panicking();
            let payload = failure.into_payload();
            tell.send((
                payload.downcast().unwrap(),
                caller,
                joined.is_ok(),
                panicking,
            ))
            .unwrap();
        };
        let unwinding = with_unjoined_hook(hook, || {
            let failed = failed("dropped by an unwind");
            spawn(move || {
                let _failed = failed;
                resume_unwind(Box::new("joined"));
            })
        });
        let unwinding_id = unwinding.thread().id();
        let (what, caller, joined, panicking): (Box<&str>, _, _, _) = told.recv().unwrap();
        assert_eq!(*what, "dropped by an unwind");
        assert!(caller != unwinding_id && joined && !panicking);
        assert_eq!(
            unwinding.join().unwrap_err().downcast_ref(),
            Some(&"joined")
        );
        assert!(told.recv().is_err(), "it was called once");
    });
}

#[test]
#[serial]
fn a_hook_is_called_also_if_the_end_of_the_runtime_drops_the_handle() {
    for workers in [1, 4] {
        let (hook, kept) = keeping();
        on_workers(workers, || {
            with_unjoined_hook(hook, || {
                let failed = failed("dropped at the end");
                spawn(move || {
                    let _failed = failed;
                    sleep(Duration::MAX);
                });
                sleep(ms(1));
            });
        });
        assert_eq!(*kept.lock().unwrap(), ["dropped at the end"]);
    }
}

#[test]
#[serial]
fn an_interrupt_of_the_code_that_drops_a_handle_does_not_end_the_hook() {
    on_workers(1, || {
        let (keep, kept) = keeping();
        let hook = move |failure| {
            sleep(ms(10));
            keep(failure);
        };
        let failed = with_unjoined_hook(hook, || [failed("timed out"), failed("cancelled")]);
        let [first, second] = failed;
        let timed_out = timeout(ms(1), || {
            drop(first);
            sleep(Duration::MAX);
        });
        assert!(timed_out.is_err());
        assert_eq!(*kept.lock().unwrap(), ["timed out"]);
        let dropping = spawn(move || {
            drop(second);
            sleep(Duration::MAX);
        });
        yield_now();
        dropping.cancel();
        assert!(dropping.join().unwrap_err().is::<greenroom::Cancelled>());
        assert_eq!(*kept.lock().unwrap(), ["timed out", "cancelled"]);
    });
}

#[test]
#[serial]
fn what_a_hook_spawns_has_the_hooks_around_it() {
    on_workers(1, || {
        let (hook, kept) = keeping();
        with_unjoined_hook(hook, || {
            let spawning = |_| {
                spawn(fails("spawned by the hook"));
            };
            with_unjoined_hook(spawning, || drop(failed("first")));
        });
        until("it was told", || !kept.lock().unwrap().is_empty());
        assert_eq!(*kept.lock().unwrap(), ["spawned by the hook"]);
    });
}

#[test]
#[serial]
fn a_hook_lives_as_long_as_something_has_inherited_it() {
    on_workers(1, || {
        let dropped = counter();
        let counted = Counted(Arc::clone(&dropped));
        let (leave, left) = mpsc::channel::<()>();
        let hook = move |_| drop(counted.clone());
        let heir = with_unjoined_hook(hook, || spawn(move || left.recv().unwrap()));
        yield_now();
        assert_eq!(dropped.load(SeqCst), 0);
        leave.send(()).unwrap();
        heir.join().unwrap();
        assert_eq!(dropped.load(SeqCst), 1);
    });
}

#[test]
#[serial]
fn a_long_chain_of_hooks_is_dropped_on_a_small_stack() {
    fn next(left: u32, dropped: Counted, tell: mpsc::Sender<()>) {
        if left == 0 {
            drop(dropped);
            return tell.send(()).unwrap();
        }
        let held = dropped.clone();
        let hook = move |_| drop(held.clone());
        with_unjoined_hook(hook, || spawn(move || next(left - 1, dropped, tell)));
    }

    on_workers(1, || {
        const HOOKS: u32 = 20_000;
        let (tell, told) = mpsc::channel();
        let dropped = counter();
        next(HOOKS, Counted(Arc::clone(&dropped)), tell);
        told.recv().unwrap();
        let all = HOOKS as usize + 1;
        until("all are gone", || dropped.load(SeqCst) == all);
    });
}

// ---------------------------------------------------------- dropped handles

/// Sets a hook that keeps what it is told of dropped handles.
fn record_dropped() -> Arc<Mutex<Vec<String>>> {
    let record = Arc::new(Mutex::new(Vec::new()));
    let recorded = Arc::clone(&record);
    set_dropped_handle_hook(move |dropped| {
        assert_eq!(dropped.spawned_at().file(), file!());
        recorded.lock().unwrap().push(dropped.to_string());
    });
    record
}

#[test]
#[serial]
fn a_handle_that_is_dropped_with_a_result_is_told_once_for_each_place_that_spawns() {
    everywhere(|| {
        let record = record_dropped();
        let parse = |name: &str| {
            let builder = Builder::new().name(name.into());
            builder.spawn(|| "two".parse::<i32>()).unwrap()
        };
        drop(parse("first"));
        let told = taken(&record);
        assert_eq!(told.len(), 1, "{told:?}");
        let parts = ["'first'", "unjoined.rs", "Result<i32", "ParseIntError"];
        assert!(parts.iter().all(|part| told[0].contains(part)), "{told:?}");
        drop(parse("second"));
        assert_eq!(taken(&record), [""; 0], "it is the same place");
        let late = spawn(|| 7_u8);
        until("it has ended", || late.is_finished());
        assert_eq!(taken(&record), [""; 0]);
        drop(late);
        let told = taken(&record);
        assert!(told.len() == 1 && told[0].contains("u8"), "{told:?}");
        scope(|s| drop(s.spawn(|| 'c')));
        let group = Group::new();
        drop(group.spawn(|| "text"));
        group.join().unwrap();
        let told = taken(&record);
        assert!(told.len() == 2 && told[0].contains("char") && told[1].contains("str"));
        let record = record_dropped();
        drop(parse("third"));
        assert_eq!(taken(&record).len(), 1, "a new hook is told again");
    });
}

#[test]
#[serial]
fn a_handle_is_not_told_if_no_result_is_lost_or_none_was_wanted() {
    everywhere(|| {
        let record = record_dropped();
        drop(spawn(|| ()));
        assert_eq!(spawn(|| 1).join().unwrap(), 1);
        assert!(spawn(|| 2).join_timeout(PATIENCE).is_ok());
        let forever = || {
            sleep(Duration::MAX);
            3
        };
        let cancelled = spawn(forever);
        cancelled.cancel();
        drop(cancelled);
        drop(spawn(forever).cancel_on_drop());
        let panics = || -> u8 { resume_unwind(Box::new("joined by no one")) };
        let failed = spawn(panics);
        until("it has ended", || failed.is_finished());
        drop(failed);
        // The result that is there gets lost, because the other coroutine has failed.
        let ended = spawn(|| 4_u8);
        until("it has ended", || ended.is_finished());
        assert!(try_join_all([spawn(panics), ended]).is_err());
        let unwinds = || {
            let _handle = spawn(|| 5);
            resume_unwind(Box::new("unwinds"))
        };
        assert!(catch_unwind(unwinds).is_err());
        assert_eq!(taken(&record), [""; 0]);
    });
}

#[test]
#[serial]
fn the_hook_for_dropped_handles_is_called_where_they_are_dropped_and_may_panic() {
    on_workers(1, || {
        let callers = Arc::new(Mutex::new(Vec::new()));
        let called = Arc::clone(&callers);
        set_dropped_handle_hook(move |dropped| {
            assert_eq!((dropped.name(), dropped.output()), (None, "i32"));
            called.lock().unwrap().push(greenroom::current().id());
            resume_unwind(Box::new("the hook's own"));
        });
        let handle = spawn(|| 6);
        let dropping = spawn(move || {
            drop(handle);
            greenroom::current().id()
        });
        let dropper = dropping.join().unwrap();
        assert_eq!(*callers.lock().unwrap(), [dropper]);
    });
}
