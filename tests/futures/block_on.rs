//! Futures that a coroutine or OS thread runs: their wakes, and what runs meanwhile.

use std::cell::Cell;
use std::future::{self, Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use greenroom::{Unparker, block_on, park_timeout, spawn, spawn_local, yield_now};

use crate::util::{everywhere, message, ms, on_an_os_thread, on_workers, settle, until};
use crate::{Gate, Tells, flag, is_set};

/// Pending once, after it has woken itself.
fn yields() -> impl Future<Output = ()> {
    let mut yielded = false;
    poll_fn(move |context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

#[test]
fn a_future_that_is_ready_is_polled_once() {
    everywhere(|| {
        let gate = Gate::new();
        gate.open();
        block_on(gate.passed());
        assert_eq!(gate.polls(), 1);
        assert_eq!(block_on(future::ready(7)), 7);
    });
}

#[test]
fn a_wake_by_another_coroutine_ends_the_wait() {
    everywhere(|| {
        let gate = Gate::new();
        let opener = spawn({
            let gate = Arc::clone(&gate);
            move || gate.open_when_awaited()
        });
        block_on(gate.passed());
        opener.join().unwrap();
        assert_eq!(gate.polls(), 2);
    });
}

#[test]
fn a_wake_by_an_os_thread_ends_the_wait() {
    everywhere(|| {
        let gate = Gate::new();
        let opener = std::thread::spawn({
            let gate = Arc::clone(&gate);
            move || gate.open_when_awaited()
        });
        block_on(gate.passed());
        opener.join().unwrap();
    });
}

#[test]
fn a_wake_during_the_poll_is_not_lost() {
    everywhere(|| {
        block_on(yields());
        // By another thread, which is done before the poll returns.
        let mut polls = 0;
        block_on(poll_fn(|context| {
            polls += 1;
            let waker = context.waker().clone();
            std::thread::spawn(move || waker.wake()).join().unwrap();
            if polls < 3 {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        }));
        assert_eq!(polls, 3);
    });
}

#[test]
fn many_wakes_before_the_next_poll_cause_one_poll() {
    on_workers(1, || {
        let gate = Gate::new();
        let waiter = spawn({
            let gate = Arc::clone(&gate);
            move || block_on(gate.passed())
        });
        let waker = gate.waker();
        // The waiter has the same worker, so it does not poll in between.
        (0..100).for_each(|_| waker.wake_by_ref());
        until("it has polled", || gate.polls() == 2);
        settle();
        assert_eq!(gate.polls(), 2);
        gate.open();
        waiter.join().unwrap();
    });
}

#[test]
fn wakes_of_many_threads_are_not_lost() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 2_000;
    /// Counts up to all rounds, and is only polled again by wakes.
    struct Counter {
        count: AtomicUsize,
        waker: Mutex<Option<Waker>>,
    }
    everywhere(|| {
        let counter = Arc::new(Counter {
            count: AtomicUsize::new(0),
            waker: Mutex::new(None),
        });
        let threads = [(); THREADS].map(|()| {
            let counter = Arc::clone(&counter);
            std::thread::spawn(move || {
                for _ in 0..ROUNDS {
                    counter.count.fetch_add(1, Ordering::SeqCst);
                    let waker = counter.waker.lock().unwrap().clone();
                    waker.inspect(Waker::wake_by_ref);
                }
            })
        });
        block_on(poll_fn(|context| {
            *counter.waker.lock().unwrap() = Some(context.waker().clone());
            match counter.count.load(Ordering::SeqCst) {
                count if count == THREADS * ROUNDS => Poll::Ready(()),
                _ => Poll::Pending,
            }
        }));
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_waker_that_is_kept_for_ever_ends_no_later_wait() {
    everywhere(|| {
        let first = Gate::new();
        first.open();
        block_on(first.passed());
        let kept = first.waker();
        kept.wake_by_ref();
        assert!(!park_timeout(ms(1)), "a wake is no token");

        let second = Gate::new();
        let opener = std::thread::spawn({
            let (second, kept) = (Arc::clone(&second), kept.clone());
            move || {
                second.waker();
                kept.wake_by_ref();
                settle();
                assert_eq!(second.polls(), 1, "the waker of one future wakes no other");
                second.open();
            }
        });
        block_on(second.passed());
        opener.join().unwrap();
        kept.wake();
    });
}

#[test]
fn a_waker_outlives_the_coroutine_and_its_runtime() {
    let gate = Gate::new();
    gate.open();
    on_workers(1, || {
        let gate = Arc::clone(&gate);
        spawn(move || block_on(gate.passed())).join().unwrap();
    });
    gate.waker().wake();
}

#[test]
fn the_token_of_park_is_neither_taken_nor_made() {
    everywhere(|| {
        Unparker::current().unpark();
        let gate = Gate::new();
        let opener = spawn({
            let gate = Arc::clone(&gate);
            move || {
                gate.waker();
                settle();
                assert_eq!(gate.polls(), 1, "the token does not end the wait");
                gate.open();
            }
        });
        block_on(gate.passed());
        opener.join().unwrap();
        assert!(park_timeout(ms(0)), "the token is still there");
        assert!(!park_timeout(ms(0)), "and it is one");
    });
}

#[test]
fn an_unpark_does_not_poll_the_future() {
    on_workers(1, || {
        let gate = Gate::new();
        let waiter = spawn({
            let gate = Arc::clone(&gate);
            move || block_on(gate.passed())
        });
        gate.waker();
        waiter.thread().unpark();
        settle();
        assert_eq!(gate.polls(), 1);
        gate.open();
        waiter.join().unwrap();
    });
}

#[test]
fn other_coroutines_of_the_worker_run_meanwhile() {
    on_workers(1, || {
        let gate = Gate::new();
        let waiter = spawn({
            let gate = Arc::clone(&gate);
            move || block_on(gate.passed())
        });
        gate.waker();
        assert_eq!(spawn(|| 7).join().unwrap(), 7);
        assert!(!waiter.is_finished());
        gate.open();
        waiter.join().unwrap();
    });
}

#[test]
fn a_future_that_wakes_itself_lets_others_run() {
    on_workers(1, || {
        let turns = Rc::new(Cell::new(0));
        let other = spawn_local({
            let turns = Rc::clone(&turns);
            move || {
                for _ in 0..3 {
                    turns.set(turns.get() + 1);
                    yield_now();
                }
            }
        });
        block_on(async {
            while turns.get() < 3 {
                yields().await;
            }
        });
        other.join().unwrap();
    });
}

#[test]
fn a_future_may_borrow_and_need_not_be_send() {
    everywhere(|| {
        let count = Cell::new(0);
        let shared = Rc::new(&count);
        let future = async {
            let shared = Rc::clone(&shared);
            yields().await;
            shared.set(shared.get() + 1);
        };
        block_on(future);
        assert_eq!(count.get(), 1);
    });
}

#[test]
fn a_poll_may_run_another_future() {
    everywhere(|| {
        let inner = Gate::new();
        let opener = spawn({
            let inner = Arc::clone(&inner);
            move || inner.open_when_awaited()
        });
        let output = block_on(async {
            block_on(inner.passed());
            yields().await;
            7
        });
        assert_eq!(output, 7);
        opener.join().unwrap();
    });
}

#[test]
fn a_panic_of_a_poll_goes_on_in_the_caller_and_drops_the_future() {
    everywhere(|| {
        let dropped = flag();
        let tells = Tells(Arc::clone(&dropped));
        let future = async move {
            let _tells = tells;
            yields().await;
            resume_unwind(Box::new("in a poll"));
        };
        let payload = catch_unwind(AssertUnwindSafe(|| block_on(future))).unwrap_err();
        assert_eq!(message(&*payload), "in a poll");
        assert!(is_set(&dropped));
    });
}

#[test]
fn the_future_is_dropped_before_the_output_is_returned() {
    everywhere(|| {
        let dropped = flag();
        let tells = Tells(Arc::clone(&dropped));
        let mut tells = Some(tells);
        block_on(poll_fn(move |_| {
            let _is_owned = &mut tells;
            Poll::Ready(())
        }));
        assert!(is_set(&dropped));
    });
}

#[test]
fn a_pinned_future_can_be_run_by_reference() {
    on_an_os_thread(|| {
        let gate = Gate::new();
        let mut future = pin!(async {
            gate.passed().await;
            7
        });
        gate.open();
        assert_eq!(block_on(future.as_mut()), 7);
    });
}

/// The worker runs no other coroutine meanwhile, as in all waits of a destructor amid a panic.
#[test]
fn a_destructor_amid_a_panic_waits_for_a_future_that_an_os_thread_wakes() {
    struct Waits {
        gate: Arc<Gate>,
        others: Arc<AtomicUsize>,
        ran: Arc<AtomicUsize>,
    }
    impl Drop for Waits {
        fn drop(&mut self) {
            let before = self.others.load(Ordering::SeqCst);
            block_on(self.gate.passed());
            let after = self.others.load(Ordering::SeqCst);
            self.ran.store(1 + after - before, Ordering::SeqCst);
        }
    }
    on_workers(1, || {
        let (gate, others, ran) = (Gate::new(), Arc::default(), Arc::default());
        let waits = Waits {
            gate: Arc::clone(&gate),
            others: Arc::clone(&others),
            ran: Arc::clone(&ran),
        };
        let opener = std::thread::spawn(move || {
            gate.waker();
            settle();
            gate.open();
        });
        let panics = spawn(move || {
            let _waits = waits;
            resume_unwind(Box::new("amid a panic"));
        });
        let other = spawn(move || {
            while !panics.is_finished() {
                others.fetch_add(1, Ordering::SeqCst);
                yield_now();
            }
            panics.join().unwrap_err()
        });
        assert_eq!(message(&*other.join().unwrap()), "amid a panic");
        assert_eq!(ran.load(Ordering::SeqCst), 1, "no other coroutine has run");
        opener.join().unwrap();
    });
}
