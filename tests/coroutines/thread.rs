//! Threads of the shims, beyond std's promises.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenroom::Cancelled;
use greenroom::shims::thread;

use crate::util::{self, Finally};

const MILLI: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(1_000);

/// What has happened, in order.
#[derive(Clone, Default)]
struct Steps(Arc<Mutex<Vec<&'static str>>>);

impl Steps {
    fn note(&self, step: &'static str) {
        self.0.lock().unwrap().push(step);
    }

    #[track_caller]
    fn assert_are(&self, expected: &[&str]) {
        assert_eq!(*self.0.lock().unwrap(), expected);
    }
}

#[test]
fn what_an_unchecked_thread_borrows_stays_until_it_has_ended_though_its_runtime_ends_first() {
    for workers in [1, 4] {
        let steps = Steps::default();
        util::on_workers(workers, || {
            let steps = steps.clone();
            let started = Arc::new(AtomicUsize::new(0));
            let starts = Arc::clone(&started);
            thread::spawn(move || {
                let _lent = Finally(|| steps.note("what was lent goes"));
                let child = || {
                    let _slow = Finally(|| {
                        thread::sleep(5 * MILLI);
                        steps.note("the child ends");
                    });
                    starts.store(1, SeqCst);
                    thread::sleep(LONG);
                };
                // SAFETY: the thread is joined before `steps` and `starts` are dropped, which it borrows.
                let child = unsafe { thread::Builder::new().spawn_unchecked(child) }.unwrap();
                let payload = child.join().unwrap_err();
                assert!(payload.is::<Cancelled>());
                steps.note("the join returns");
                thread::sleep(LONG);
                steps.note("slept for long");
            });
            while started.load(SeqCst) == 0 {
                thread::sleep(MILLI);
            }
        });
        steps.assert_are(&["the child ends", "the join returns", "what was lent goes"]);
    }
}

#[test]
fn panicking_is_false_while_another_coroutine_waits_during_its_unwind() {
    let [told, told_by_std, over]: [Arc<AtomicUsize>; 3] = Default::default();
    util::on_workers(1, || {
        let ends = Arc::clone(&over);
        thread::spawn(move || {
            let _unwinds = Finally(|| {
                assert!(thread::panicking());
                thread::sleep(10 * MILLI);
                assert!(thread::panicking());
                ends.store(1, SeqCst);
            });
            thread::sleep(LONG);
        });
        let (told, told_by_std) = (Arc::clone(&told), Arc::clone(&told_by_std));
        thread::spawn(move || {
            while over.load(SeqCst) == 0 {
                told.fetch_add(thread::panicking().into(), SeqCst);
                told_by_std.fetch_add(std::thread::panicking().into(), SeqCst);
                thread::yield_now(); // no interruption point
            }
        });
        thread::sleep(5 * MILLI);
    });
    assert_eq!(told.load(SeqCst), 0);
    assert!(told_by_std.load(SeqCst) > 0, "they were not at it together");
}

#[test]
fn a_thread_of_the_pool_may_do_what_any_thread_may() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let sum = greenroom::unblock(|| {
                assert_eq!(thread::current().name(), Some("greenroom-pool"));
                assert_eq!(thread::spawn(|| 1).join().unwrap(), 1);
                let lent = String::from("lent");
                let borrows = thread::scope(|s| s.spawn(|| lent.len()).join().unwrap());
                // The thread and the coroutine unpark each other in turns. One blocks, the other parks.
                let me = thread::current();
                let other = thread::spawn(move || {
                    thread::park();
                    me.unpark();
                    thread::current().id()
                });
                other.thread().unpark();
                thread::park();
                assert_ne!(other.join().unwrap(), thread::current().id());
                thread::yield_now();
                thread::sleep(MILLI);
                assert!(
                    thread::spawn(|| resume_unwind(Box::new(())))
                        .join()
                        .is_err()
                );
                borrows
            });
            assert_eq!(sum, 4);
        });
    }
}

#[test]
fn a_caught_panic_is_not_taken_for_an_unwind_during_those_of_others() {
    let [told, over]: [Arc<AtomicUsize>; 2] = Default::default();
    util::on_workers(1, || {
        let ends = Arc::clone(&over);
        thread::spawn(move || {
            let _unwinds = Finally(|| {
                thread::sleep(10 * MILLI);
                ends.store(1, SeqCst);
            });
            thread::sleep(LONG);
        });
        let told = Arc::clone(&told);
        thread::spawn(move || {
            let _ = std::panic::catch_unwind(|| panic!("caught"));
            while over.load(SeqCst) == 0 {
                told.fetch_add(thread::panicking().into(), SeqCst);
                thread::yield_now();
            }
        });
        thread::sleep(5 * MILLI);
    });
    assert_eq!(told.load(SeqCst), 0);
}
