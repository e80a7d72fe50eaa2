//! Hooks around the polls of workers.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use greenroom::shims::thread::sleep;
use greenroom::{RuntimeBuilder, Turn, Unparker, park, spawn};

use crate::util::{again, ms, on_an_os_thread, role};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn hooks_are_called_by_turns_around_each_poll() {
    on_an_os_thread(|| {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let [before, after] = ["before", "after"].map(|name| {
            let calls = Arc::clone(&calls);
            move || calls.lock().unwrap().push(name)
        });
        let runtime = RuntimeBuilder::new().workers(1);
        let runtime = runtime.before_poll(before).after_poll(after);
        runtime.build().unwrap().run(|| {
            (0..3).for_each(|_| sleep(ms(2)));
        });
        let calls = calls.lock().unwrap();
        assert!(calls.len() >= 6, "{calls:?}");
        for pair in calls.chunks(2) {
            assert!(matches!(pair, ["before", "after"] | ["before"]), "{pair:?}");
        }
    });
}

#[test]
fn each_worker_calls_the_hooks_on_its_own_thread_and_on_no_coroutine() {
    on_an_os_thread(|| {
        let threads: Arc<Mutex<Vec<ThreadId>>> = Arc::default();
        let seen = Arc::clone(&threads);
        let note = move || {
            let id = std::thread::current().id();
            let mut seen = seen.lock().unwrap();
            if !seen.contains(&id) {
                seen.push(id);
            }
        };
        let runtime = RuntimeBuilder::new().workers(3).before_poll(note);
        let runtime = runtime.build().unwrap();
        runtime.run(|| {
            let begun = Instant::now();
            while threads.lock().unwrap().len() < 3 {
                assert!(begun.elapsed() < LONG);
                sleep(ms(1));
            }
        });
        assert!(
            threads
                .lock()
                .unwrap()
                .contains(&std::thread::current().id())
        );
    });
}

/// Also in the turns of a loop of other code.
#[test]
fn what_a_hook_spawns_or_wakes_is_not_slept_through() {
    for hook_is_before in [true, false] {
        on_an_os_thread(|| {
            let parked: Arc<Mutex<Option<Unparker>>> = Arc::default();
            let spawned = Arc::new(AtomicUsize::new(0));
            let hook = {
                let (parked, spawned) = (Arc::clone(&parked), Arc::clone(&spawned));
                let is_first = AtomicBool::new(true);
                move || {
                    if let Some(unparker) = parked.lock().unwrap().take() {
                        unparker.unpark();
                    }
                    if is_first.swap(false, Ordering::SeqCst) {
                        let spawned = Arc::clone(&spawned);
                        spawn(move || spawned.fetch_add(1, Ordering::SeqCst));
                    }
                }
            };
            let runtime = RuntimeBuilder::new().workers(1);
            let runtime = match hook_is_before {
                true => runtime.before_poll(hook),
                false => runtime.after_poll(hook),
            };
            let runtime = runtime.build().unwrap();
            // The second hook comes only after the wait.
            let wait = if hook_is_before { LONG } else { ms(1) };
            let begun = Instant::now();
            let parks = runtime.spawn(move || {
                for _ in 0..20 {
                    *parked.lock().unwrap() = Some(Unparker::current());
                    park();
                }
            });
            let is_done = || parks.is_finished() && spawned.load(Ordering::SeqCst) == 1;
            while !is_done() {
                assert_ne!(runtime.turn(Some(wait)), Turn::Stopped);
            }
            assert!(begun.elapsed() < LONG, "no turn has waited");
            runtime.run(|| parks.join().unwrap());
        });
    }
}

#[test]
fn a_panic_of_a_hook_aborts_the_process() {
    if role().is_some() {
        let runtime = RuntimeBuilder::new().workers(1);
        let runtime = runtime.after_poll(|| panic!("the hook"));
        runtime.build().unwrap().run(|| sleep(ms(1)));
        return;
    }
    let output = again!("a_panic_of_a_hook_aborts_the_process", "child");
    let output = { output }.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains("the hook"), "{stderr}");
    assert!(
        stderr.contains("a hook before or after the poll has panicked"),
        "{stderr}"
    );
}
