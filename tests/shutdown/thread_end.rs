//! OS threads that end: what the destructors of their thread-locals may do.

use std::cell::{OnceCell, RefCell};
use std::mem;
use std::process::{Output, exit};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenroom::shims::thread;
use greenroom::{Builder, Runtime, RuntimeBuilder, ThreadId, Unparker};
use greenroom::{park, park_timeout, yield_now};

use crate::util;

const LONG: Duration = Duration::from_secs(1_000);

/// Calls a closure when dropped.
struct AtEnd(Option<Box<dyn FnOnce()>>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}

thread_local! {
    static AT_END: RefCell<AtEnd> = const { RefCell::new(AtEnd(None)) };
}

/// Calls `f` in the destructor of a thread-local of the calling thread.
fn at_end(f: impl FnOnce() + 'static) {
    AT_END.set(AtEnd(Some(Box::new(f))));
}

/// Runs `start` on a thread of its own, and waits for the end of that thread.
fn on_a_thread(start: impl FnOnce() + Send + 'static) {
    util::on_an_os_thread(|| std::thread::spawn(start).join().unwrap());
}

/// Unparks from another thread. Returns when that is done.
fn unpark_from_elsewhere(unparker: Unparker) {
    std::thread::spawn(move || unparker.unpark())
        .join()
        .unwrap();
}

#[test]
fn a_destructor_is_woken_by_a_thread_that_got_its_unparker() {
    for waited_before in [false, true] {
        on_a_thread(move || {
            at_end(|| {
                unpark_from_elsewhere(Unparker::current());
                assert!(park_timeout(LONG));
                let unparker = Unparker::current();
                let other = std::thread::spawn(move || unparker.unpark());
                park();
                other.join().unwrap();
            });
            if waited_before {
                park_timeout(Duration::ZERO);
            }
        });
    }
}

#[test]
fn a_destructor_is_woken_by_an_unparker_from_before() {
    on_a_thread(|| {
        let before = Rc::new(OnceCell::new());
        let known = Rc::clone(&before);
        at_end(move || {
            unpark_from_elsewhere(Unparker::clone(known.get().unwrap()));
            assert!(park_timeout(LONG));
        });
        // Thread-locals are dropped in the reverse order of their first uses.
        before.set(Unparker::current()).unwrap();
    });
}

#[test]
fn a_destructor_runs_on_its_thread() {
    let ids: Arc<Mutex<Vec<ThreadId>>> = Arc::default();
    let seen = Arc::clone(&ids);
    on_a_thread(move || {
        let note = move || seen.lock().unwrap().push(greenroom::current().id());
        let note_again = note.clone();
        at_end(note_again);
        note();
    });
    let ids = ids.lock().unwrap();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn a_destructor_knows_its_thread_by_name() {
    let names: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
    let seen = Arc::clone(&names);
    util::on_an_os_thread(|| {
        let named = std::thread::Builder::new().name("its name".into());
        let asks_in_the_end = move || {
            at_end(move || {
                let name = thread::current().name().map(str::to_owned);
                seen.lock().unwrap().push(name);
            });
        };
        named.spawn(asks_in_the_end).unwrap().join().unwrap();
    });
    assert_eq!(*names.lock().unwrap(), [Some("its name".to_owned())]);
}

#[test]
fn a_destructor_may_spawn_join_and_sleep() {
    for spawned_before in [false, true] {
        let results: Arc<Mutex<Vec<usize>>> = Arc::default();
        let seen = Arc::clone(&results);
        on_a_thread(move || {
            at_end(move || {
                let lent = String::from("lent");
                let lengths = [
                    thread::spawn(|| 1).join().unwrap(),
                    thread::scope(|s| s.spawn(|| lent.len()).join().unwrap()),
                ];
                thread::yield_now();
                thread::sleep(Duration::from_millis(1));
                seen.lock().unwrap().extend(lengths);
            });
            if spawned_before {
                thread::spawn(|| ()).join().unwrap();
            }
        });
        assert_eq!(*results.lock().unwrap(), [1, 4]);
    }
}

/// Writes the name to stderr when dropped.
struct Lent(&'static str);

impl Drop for Lent {
    fn drop(&mut self) {
        eprintln!("{} is dropped", self.0);
    }
}

thread_local! {
    static FIRST: Lent = const { Lent("what the first lends") };
    static SECOND: Lent = const { Lent("what the second lends") };
    static KEPT: RefCell<Option<Runtime>> = const { RefCell::new(None) };
}

fn runtime() -> Runtime {
    RuntimeBuilder::new().workers(1).build().unwrap()
}

/// Leaves a coroutine on the calling thread, which uses a thread-local of that thread.
fn leave(runtime: &Runtime, name: &str, lent: &'static std::thread::LocalKey<Lent>) {
    runtime.run(|| {
        let uses = Builder::new().name(name.into());
        drop(uses.spawn(|| lent.with(|_| park())).unwrap());
        yield_now();
    });
}

/// Runs the test `name` in a process of its own, as `role`.
fn in_a_child(name: &str, role: &str) -> Output {
    util::again!(name, role).output().unwrap()
}

#[test]
fn a_thread_whose_coroutines_have_ended_in_time_ends() {
    on_a_thread(|| {
        let (one, other) = (runtime(), runtime());
        leave(&one, "one", &FIRST);
        leave(&other, "other", &SECOND);
        leave(&one, "one more", &SECOND);
        drop(one);
        other.run(|| ());
    });
}

#[test]
fn a_process_that_exits_with_coroutines_left_keeps_its_status() {
    const NAME: &str = "a_process_that_exits_with_coroutines_left_keeps_its_status";
    let exit_with = |runtime: &Runtime, role: &str| match role {
        "in a coroutine" => runtime.run(|| exit(3)),
        "in main" => exit(3),
        _ => unreachable!(),
    };
    if let Some(role) = util::role() {
        let (how, role) = role.split_once(", ").unwrap();
        if role == "in main" {
            // The thread that forks becomes the main thread of the child. SAFETY: the child needs no lock
            // that another thread may hold.
            let child = unsafe { libc::fork() };
            if child != 0 {
                let mut status = 0;
                // SAFETY: `status` is valid to write to.
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert!(libc::WIFEXITED(status), "signal {status}");
                exit(libc::WEXITSTATUS(status));
            }
        }
        if how != "fresh" {
            let other = runtime();
            leave(&other, "of another runtime", &SECOND);
            mem::forget(other);
        }
        match how {
            "fresh" => KEPT.with_borrow_mut(|kept| exit_with(kept.insert(runtime()), role)),
            "kept" => {
                KEPT.set(Some(runtime()));
                KEPT.with_borrow(|kept| {
                    let kept = kept.as_ref().unwrap();
                    leave(kept, "left", &FIRST);
                    exit_with(kept, role)
                })
            }
            "forgotten" => {
                let runtime = runtime();
                leave(&runtime, "left", &FIRST);
                exit_with(&runtime, role)
            }
            _ => unreachable!(),
        }
    }
    for role in ["in a coroutine", "in main"] {
        for how in ["fresh", "kept", "forgotten"] {
            let role = format!("{how}, {role}");
            let output = in_a_child(NAME, &role);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{role}: {stderr}");
        }
    }
}
