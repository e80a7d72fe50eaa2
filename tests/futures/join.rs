//! Coroutines that async code awaits.

use std::future::{Future, IntoFuture, pending, poll_fn};
use std::mem;
use std::panic::resume_unwind;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};

use greenroom::shims::sync::mpsc;
use greenroom::shims::thread::sleep;
use greenroom::{Cancelled, JoinHandle, block_on, scope, spawn, spawn_local};

use crate::util::{everywhere, message, ms, on_an_os_thread, on_workers, settle, until};
use crate::{Counting, Tells, flag, is_cancelled, is_set, poll};

/// A coroutine that returns what it receives.
fn receiver() -> (mpsc::Sender<u32>, JoinHandle<u32>) {
    let (sender, receiver) = mpsc::channel();
    (sender, spawn(move || receiver.recv().unwrap()))
}

#[test]
fn the_output_is_that_of_join() {
    everywhere(|| {
        let (returned, panicked, cancelled) = block_on(async {
            let returned = spawn(|| 7).await;
            let panicked = spawn(|| -> () { resume_unwind(Box::new("its panic")) }).await;
            let sleeper = spawn(|| sleep(ms(60_000)));
            sleeper.cancel();
            (returned, panicked, sleeper.await)
        });
        assert_eq!(returned.unwrap(), 7);
        assert_eq!(message(&*panicked.unwrap_err()), "its panic");
        assert!(is_cancelled(cancelled));
    });
}

#[test]
fn a_pending_future_is_woken_once_by_the_end() {
    everywhere(|| {
        let (sender, handle) = receiver();
        let (counting, waker) = Counting::new();
        let mut joined = handle.into_future();
        assert!(poll(&mut joined, &waker).is_pending());
        assert!(poll(&mut joined, &waker).is_pending());
        assert_eq!(counting.wakes(), 0);
        sender.send(7).unwrap();
        until("it is woken", || counting.wakes() > 0);
        let Poll::Ready(result) = poll(&mut joined, &waker) else {
            panic!("the coroutine has ended");
        };
        assert_eq!(result.unwrap(), 7);
        settle();
        assert_eq!(counting.wakes(), 1);
    });
}

#[test]
fn the_end_wakes_the_waker_of_the_last_poll_only() {
    everywhere(|| {
        let (sender, handle) = receiver();
        let (first, first_waker) = Counting::new();
        let (last, last_waker) = Counting::new();
        let mut joined = handle.into_future();
        assert!(poll(&mut joined, &first_waker).is_pending());
        assert!(poll(&mut joined, &last_waker).is_pending());
        drop(first_waker);
        assert_eq!(Arc::strong_count(&first), 1, "a replaced waker is dropped");
        sender.send(7).unwrap();
        until("it is woken", || last.wakes() > 0);
        assert_eq!(first.wakes(), 0);
        assert!(poll(&mut joined, &last_waker).is_ready());
    });
}

#[test]
fn a_future_that_moves_after_a_poll_is_still_woken() {
    on_workers(2, || {
        let (sender, handle) = receiver();
        let (counting, waker) = Counting::new();
        let mut joined = handle.into_future();
        assert!(poll(&mut joined, &waker).is_pending());
        let mut elsewhere = Box::new(joined);
        sender.send(7).unwrap();
        until("it is woken", || counting.wakes() > 0);
        assert!(poll(&mut elsewhere, &waker).is_ready());
    });
}

#[test]
fn polling_after_the_result_panics() {
    on_an_os_thread(|| {
        let (_, waker) = Counting::new();
        let mut joined = spawn(|| 7).into_future();
        until("it is ready", || poll(&mut joined, &waker).is_ready());
        let again = std::panic::AssertUnwindSafe(|| poll(&mut joined, &waker).is_ready());
        assert!(std::panic::catch_unwind(again).is_err());
    });
}

#[test]
fn dropping_the_future_detaches_the_coroutine_and_drops_the_waker() {
    everywhere(|| {
        let (sender, receiver) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let handle = spawn(move || tell.send(receiver.recv().unwrap()).unwrap());
        let (counting, waker) = Counting::new();
        let mut joined = handle.into_future();
        assert!(poll(&mut joined, &waker).is_pending());
        drop(joined);
        drop(waker);
        assert_eq!(Arc::strong_count(&counting), 1);
        sender.send(7).unwrap();
        assert_eq!(told.recv().unwrap(), 7, "it runs on");
        settle();
        assert_eq!(counting.wakes(), 0);
    });
}

#[test]
fn the_result_of_a_dropped_future_is_dropped() {
    everywhere(|| {
        let dropped = flag();
        let tells = Tells(Arc::clone(&dropped));
        let (sender, receiver) = mpsc::channel();
        let handle = spawn(move || {
            receiver.recv().unwrap();
            tells
        });
        let (_, waker) = Counting::new();
        let mut joined = handle.into_future();
        assert!(poll(&mut joined, &waker).is_pending());
        drop(joined);
        assert!(!is_set(&dropped));
        sender.send(()).unwrap();
        until("the result is dropped", || is_set(&dropped));
    });
}

#[test]
fn a_forgotten_future_is_woken_and_harms_nothing() {
    on_workers(2, || {
        let (sender, handle) = receiver();
        let (counting, waker) = Counting::new();
        let mut joined = handle.into_future();
        assert!(poll(&mut joined, &waker).is_pending());
        mem::forget(joined);
        sender.send(7).unwrap();
        until("it is woken", || counting.wakes() == 1);
    });
}

#[test]
fn a_waker_that_panics_or_waits_does_not_harm_the_worker() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            resume_unwind(Box::new("in a waker"));
        }
    }
    struct Waits(AtomicUsize);
    impl Wake for Waits {
        fn wake(self: Arc<Self>) {
            sleep(ms(1));
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    on_workers(1, || {
        let waits = Arc::new(Waits(AtomicUsize::new(0)));
        for waker in [Waker::from(Arc::new(Panics)), Waker::from(waits.clone())] {
            let (sender, handle) = receiver();
            let canceller = handle.canceller();
            let mut joined = handle.into_future();
            assert!(poll(&mut joined, &waker).is_pending());
            sender.send(7).unwrap();
            until("it has ended", || canceller.is_finished());
            assert!(poll(&mut joined, &waker).is_ready());
        }
        until("the second waker has run", || {
            waits.0.load(Ordering::SeqCst) == 1
        });
        assert_eq!(spawn(|| 7).join().unwrap(), 7);
    });
}

#[test]
fn scoped_and_local_coroutines_can_be_awaited() {
    on_workers(2, || {
        let word = String::from("borrowed");
        let lengths = scope(|s| {
            let coroutines = [(); 2].map(|()| s.spawn(|| word.len()));
            block_on(async {
                let mut lengths = Vec::new();
                for coroutine in coroutines {
                    lengths.push(coroutine.await.unwrap());
                }
                lengths
            })
        });
        assert_eq!(lengths, [8, 8]);
        let local = spawn_local(|| Rc::new(7));
        assert_eq!(*block_on(local).unwrap(), 7);
    });
}

#[test]
fn ends_that_race_with_polls_and_drops_are_neither_lost_nor_late() {
    on_workers(4, || {
        for round in 0..2_000 {
            let handle = spawn(move || {
                (0..round % 7).for_each(|_| greenroom::yield_now());
                round
            });
            let mut joined = handle.into_future();
            if round % 3 == 0 {
                // Each poll has another waker.
                for _ in 0..round % 11 {
                    let (_, waker) = Counting::new();
                    if poll(&mut joined, &waker).is_ready() {
                        break;
                    }
                }
                continue;
            }
            let mut polls = 0;
            let result = block_on(poll_fn(|context| {
                let (_, other) = Counting::new();
                polls += 1;
                // Replaces the waker, so that the task may find either.
                match poll(&mut joined, &other) {
                    Poll::Pending => poll(&mut joined, context.waker()),
                    ready => ready,
                }
            }));
            assert_eq!(result.unwrap(), round);
            assert!(polls <= 2, "an end wakes once");
        }
    });
}

#[test]
fn a_guard_that_is_awaited_cancels_the_coroutine_when_its_future_is_dropped() {
    everywhere(|| {
        let dropped = flag();
        let tells = Tells(Arc::clone(&dropped));
        let guard = spawn(move || {
            let _tells = tells;
            sleep(ms(60_000));
        });
        let guard = guard.cancel_on_drop();
        let canceller = guard.canceller();
        let (_, waker) = Counting::new();
        let mut joined = guard.into_future();
        assert!(poll(&mut joined, &waker).is_pending());
        assert!(!canceller.is_finished());
        drop(joined);
        until("it was cancelled", || canceller.is_finished());
        assert!(is_set(&dropped));
    });
}

#[test]
fn a_guard_that_is_awaited_has_the_result() {
    everywhere(|| {
        assert_eq!(block_on(spawn(|| 7).cancel_on_drop()).unwrap(), 7);
    });
}

#[test]
fn a_future_can_cross_threads() {
    fn send<T: Send + Sync>(_: &T) {}
    on_workers(2, || {
        let (sender, handle) = receiver();
        let (_, waker) = Counting::new();
        let mut joined = handle.into_future();
        send(&joined);
        assert!(poll(&mut joined, &waker).is_pending());
        let elsewhere = std::thread::spawn(move || block_on(joined).unwrap());
        sender.send(7).unwrap();
        assert_eq!(elsewhere.join().unwrap(), 7);
    });
}

#[test]
fn a_coroutine_that_awaits_itself_stays_cancellable() {
    on_workers(1, || {
        let (sender, receiver) = mpsc::channel::<JoinHandle<()>>();
        let coroutine = spawn(move || {
            let itself = receiver.recv().unwrap();
            let _ = block_on(itself);
        });
        let canceller = coroutine.canceller();
        sender.send(coroutine).unwrap();
        settle();
        assert!(!canceller.is_finished());
        canceller.cancel();
        until("it has ended", || canceller.is_finished());
    });
}

#[test]
fn a_coroutine_that_its_runtime_unwinds_fails_the_future() {
    let mut joined = None;
    on_workers(1, || {
        let mut future = spawn(|| sleep(ms(60_000))).into_future();
        let (_, waker) = Counting::new();
        assert!(poll(&mut future, &waker).is_pending());
        joined = Some(future);
    });
    let result = block_on(joined.unwrap());
    assert!(result.unwrap_err().is::<Cancelled>());
}

#[test]
fn a_select_by_hand_can_drop_the_slower_coroutine() {
    everywhere(|| {
        let slow = spawn(|| sleep(ms(60_000))).cancel_on_drop();
        let canceller = slow.canceller();
        let fast = spawn(|| 7);
        let first = block_on(async {
            let mut slow = pin!(slow.into_future());
            let mut fast = pin!(fast.into_future());
            let never = pin!(pending::<()>());
            let mut never = never;
            poll_fn(|context| {
                assert!(never.as_mut().poll(context).is_pending());
                if slow.as_mut().poll(context).is_ready() {
                    return Poll::Ready(0);
                }
                fast.as_mut().poll(context).map(Result::unwrap)
            })
            .await
        });
        assert_eq!(first, 7);
        until("the slow one was cancelled", || canceller.is_finished());
    });
}
