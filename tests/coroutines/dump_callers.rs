//! Dumps that are made on a worker's own thread, outside of coroutines.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenroom::shims::thread;
use greenroom::{Builder, Dump, RuntimeBuilder};
use serial_test::serial;

use crate::util;

fn text_of(dump: &Dump) -> String {
    let mut text = Vec::new();
    dump.text(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
#[serial]
fn a_hook_around_the_poll_dumps_the_coroutines_of_its_own_worker() {
    for is_before in [true, false] {
        let (told, is_ready) = (Arc::new(Mutex::default()), Arc::new(AtomicBool::new(false)));
        let hook = {
            let (told, is_ready) = (Arc::clone(&told), Arc::clone(&is_ready));
            move || {
                if is_ready.swap(false, Ordering::Relaxed) {
                    // The patience is for workers of other runtimes that are there. This thread's own worker would not
                    // answer however long this waited.
                    *told.lock().unwrap() = text_of(&Dump::new().patience(util::PATIENCE));
                }
            }
        };
        let runtime = RuntimeBuilder::new().workers(1);
        let runtime = match is_before {
            true => runtime.before_poll(hook),
            false => runtime.after_poll(hook),
        };
        util::on_an_os_thread(|| {
            runtime.build().unwrap().run(|| {
                let parked = Builder::new().name("hook-parked".into());
                let parked = parked.spawn(thread::park).unwrap();
                thread::yield_now();
                is_ready.store(true, Ordering::Relaxed);
                util::until("a hook has dumped", || !told.lock().unwrap().is_empty());
                parked.thread().unpark();
                parked.join().unwrap();
            });
        });
        let text = told.lock().unwrap();
        assert!(!text.contains("has not answered"), "{text}");
        let (_, group) = text.split_once("1 coroutine, parked (park)").unwrap();
        let (group, _) = group.split_once("\n\n").unwrap();
        assert!(
            group.contains(" 'hook-parked' waits to be unparked"),
            "{text}"
        );
        assert!(group.contains("\n      0: "), "no backtrace: {text}");
    }
}

#[test]
#[serial]
fn workers_that_dump_in_their_hooks_do_not_wait_for_each_other_in_vain() {
    const DUMPS: usize = 100;
    let [begun, ended] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let failed = Arc::new(Mutex::default());
    // Also those of two runtimes.
    std::thread::scope(|threads| {
        for _ in 0..2 {
            let hook = {
                let (begun, ended) = (Arc::clone(&begun), Arc::clone(&ended));
                let failed = Arc::clone(&failed);
                move || {
                    if begun.fetch_add(1, Ordering::Relaxed) < DUMPS {
                        let dump = Dump::new().backtraces(false);
                        let text = text_of(&dump.patience(Duration::from_secs(60)));
                        // The other runtime may not run yet.
                        let others =
                            text.replace("has not answered, since no thread drives it", "");
                        if others.contains("has not answered") {
                            *failed.lock().unwrap() = text;
                        }
                        ended.fetch_add(1, Ordering::Relaxed);
                    }
                }
            };
            // No runtime ends before all dumps have been made.
            let busy = || {
                while ended.load(Ordering::Relaxed) < DUMPS {
                    thread::sleep(Duration::from_micros(100));
                }
            };
            let runtime = RuntimeBuilder::new().workers(3).after_poll(hook);
            threads.spawn(move || {
                util::on_an_os_thread(|| {
                    runtime.build().unwrap().run(|| {
                        thread::scope(|scope| (0..6).for_each(|_| drop(scope.spawn(busy))));
                    });
                });
            });
        }
    });
    assert_eq!(*failed.lock().unwrap(), "");
}

#[test]
#[serial]
fn a_worker_between_its_turns_in_another_loop_is_not_said_to_be_held() {
    let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
    let parked = runtime.spawn_local(thread::park);
    let _ = runtime.turn(Some(Duration::ZERO));
    let brief = Dump::new().patience(Duration::from_millis(1));
    let text = text_of(&brief);
    assert!(
        text.contains(" has not answered, since no thread drives it; it had 1 coroutine "),
        "{text}"
    );
    brief.json(io::sink()).unwrap();
    parked.thread().unpark();
    let _ = runtime.turn(Some(Duration::ZERO));
}
