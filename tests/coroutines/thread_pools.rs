//! Pools of threads of the user's own, and threads for values that must stay on one thread.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use greenroom::{Cancelled, PinnedThread, ThreadPool, timeout};

use crate::util::{begin_cancelled, on_workers, until};

const CALL: Duration = Duration::from_millis(20);

#[test]
fn a_pool_makes_as_many_calls_at_once_as_it_has_threads() {
    on_workers(1, || {
        let pool = ThreadPool::new(3);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let may_end = Arc::new(AtomicBool::new(false));
        let calls = (0..12).map(|i| {
            let (pool, now, most) = (pool.clone(), Arc::clone(&now), Arc::clone(&most));
            let may_end = Arc::clone(&may_end);
            greenroom::spawn(move || {
                pool.call(move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    while !may_end.load(Ordering::SeqCst) {
                        thread::sleep(CALL);
                    }
                    now.fetch_sub(1, Ordering::SeqCst);
                    i
                })
            })
        });
        let calls: Vec<_> = calls.collect();
        until("each thread has a call, and the others wait", || {
            now.load(Ordering::SeqCst) == 3 && pool.queued() == 9
        });
        may_end.store(true, Ordering::SeqCst);
        for (i, call) in calls.into_iter().enumerate() {
            assert_eq!(call.join().unwrap(), i);
        }
        assert_eq!(most.load(Ordering::SeqCst), pool.max_threads());
        assert_eq!(pool.queued(), 0);
    });
}

#[test]
fn calls_are_made_on_threads_of_the_pool_also_for_threads_and_panics_come_back() {
    let pool = ThreadPool::new(1);
    let own = thread::current().id();
    assert_ne!(pool.call(|| thread::current().id()), own);
    let panic = catch_unwind(AssertUnwindSafe(|| pool.call(|| panic!("in the call")))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"in the call"));
    assert_eq!(pool.call(|| 1), 1);
}

#[test]
#[should_panic(expected = "a pool needs a thread")]
fn a_pool_without_threads_is_refused() {
    ThreadPool::new(0);
}

#[test]
fn a_value_is_made_used_and_dropped_on_its_thread() {
    struct Handle(
        thread::ThreadId,
        Rc<Cell<u32>>,
        std::sync::mpsc::Sender<thread::ThreadId>,
    );
    impl Drop for Handle {
        fn drop(&mut self) {
            assert_eq!(self.0, thread::current().id());
            self.2.send(self.0).unwrap();
        }
    }

    on_workers(2, || {
        let pinned = PinnedThread::new("pinned").unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let handle = Arc::new(
            pinned.proxy(move || Handle(thread::current().id(), Rc::new(Cell::new(0)), tell)),
        );
        let uses = (0..10).map(|_| {
            let handle = Arc::clone(&handle);
            greenroom::spawn(move || {
                handle.with(|handle| {
                    assert_eq!(handle.0, thread::current().id());
                    assert_eq!(thread::current().name(), Some("pinned"));
                    handle.1.set(handle.1.get() + 1);
                });
            })
        });
        for each in uses.collect::<Vec<_>>() {
            each.join().unwrap();
        }
        assert_eq!(handle.with(|handle| handle.1.get()), 10);
        let id = pinned.call(|| thread::current().id());
        drop(handle);
        assert_eq!(greenroom::unblock(move || told.recv().unwrap()), id);
    });
}

#[test]
fn a_value_survives_a_panic_and_a_value_that_is_not_made_gives_its_error() {
    on_workers(1, || {
        let pinned = PinnedThread::new("pinned").unwrap();
        let value = pinned.proxy(|| Cell::new(1));
        let panics = || {
            value.with(|value| -> () {
                value.set(2);
                panic!("in use")
            })
        };
        let panic = catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"in use"));
        assert_eq!(value.with(|value| value.get()), 2);
        let error = pinned
            .try_proxy(|| Err::<Rc<()>, _>("no handle"))
            .unwrap_err();
        assert_eq!(error, "no handle");
    });
}

#[test]
fn calls_of_a_thread_are_in_order_and_one_that_is_given_up_is_still_made() {
    on_workers(1, || {
        let pinned = PinnedThread::new("pinned").unwrap();
        let log = Arc::new(std::sync::Mutex::new(Vec::new()));
        let slow = Arc::clone(&log);
        let (go_on, may_go_on) = std::sync::mpsc::channel();
        let given_up = timeout(Duration::from_millis(1), || {
            pinned.call(move || {
                may_go_on.recv().unwrap();
                slow.lock().unwrap().push("slow");
            });
        });
        assert!(given_up.is_err());
        let later = thread::spawn(move || {
            thread::sleep(CALL);
            go_on.send(()).unwrap();
        });
        let quick = Arc::clone(&log);
        pinned.call(move || quick.lock().unwrap().push("quick"));
        later.join().unwrap();
        assert_eq!(*log.lock().unwrap(), ["slow", "quick"]);
        // On the thread itself, a call is made at once.
        let again = pinned.clone();
        assert_eq!(pinned.call(move || again.call(|| 7)), 7);
    });
}

#[test]
fn a_call_is_made_and_a_value_dropped_though_the_caller_is_cancelled_whatever_it_has_done_before() {
    struct CountsDrops(Arc<AtomicUsize>);
    impl Drop for CountsDrops {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    on_workers(1, || {
        let pinned = PinnedThread::new("pinned").unwrap();
        // Every so many operations, a coroutine yields.
        for operations in 0..70 {
            let operate = move || {
                let (sender, _receiver) = greenroom::channel::unbounded();
                greenroom::shield(|| (0..operations).for_each(|n| sender.send(n).unwrap()));
            };
            let (calls, drops) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let caller = begin_cancelled({
                let (pinned, calls) = (pinned.clone(), Arc::clone(&calls));
                move || {
                    operate();
                    pinned.call(move || calls.fetch_add(1, Ordering::SeqCst));
                }
            });
            // If the call is over before the caller waits for it, there is nothing to interrupt.
            if let Err(payload) = caller.join() {
                assert!(payload.is::<Cancelled>());
            }
            let value = pinned.proxy({
                let drops = Arc::clone(&drops);
                move || CountsDrops(drops)
            });
            let dropper = begin_cancelled(move || {
                operate();
                drop(value);
            });
            dropper.join().unwrap();
            // Calls are made in order, so both are over then.
            pinned.call(|| ());
            let made = (calls.load(Ordering::SeqCst), drops.load(Ordering::SeqCst));
            assert_eq!(made, (1, 1), "after {operations} operations");
        }
    });
}
