//! Interrupts of coroutines that run futures.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use greenroom::shims::thread::sleep;
use greenroom::{
    Builder, Interrupts, JoinHandle, block_on, catch_cancel, shield, spawn, timeout, yield_now,
};

use crate::util::{everywhere, ms, on_workers, settle, until};
use crate::{Gate, Tells, flag, is_cancelled, is_set};

/// A coroutine that runs a future that is never ready, and a flag that is set when the future is dropped.
fn waits_for_ever() -> (JoinHandle<()>, Arc<std::sync::atomic::AtomicBool>) {
    let (dropped, gate) = (flag(), Gate::new());
    let coroutine = spawn({
        let (tells, gate) = (Tells(Arc::clone(&dropped)), Arc::clone(&gate));
        move || {
            block_on(async move {
                let _tells = tells;
                gate.passed().await;
            });
        }
    });
    gate.waker();
    (coroutine, dropped)
}

#[test]
fn a_cancelled_coroutine_drops_its_future_and_unwinds() {
    everywhere(|| {
        let (coroutine, dropped) = waits_for_ever();
        assert!(!is_set(&dropped));
        coroutine.cancel();
        assert!(is_cancelled(coroutine.join()));
        assert!(is_set(&dropped));
    });
}

#[test]
fn a_coroutine_that_was_cancelled_before_polls_once_and_unwinds() {
    on_workers(1, || {
        let gate = Gate::new();
        let coroutine = spawn({
            let gate = Arc::clone(&gate);
            move || {
                yield_now(); // cancelled meanwhile
                block_on(gate.passed());
            }
        });
        yield_now();
        coroutine.cancel();
        assert!(is_cancelled(coroutine.join()));
        assert!(gate.polls() <= 1);
    });
}

#[test]
fn the_end_of_the_runtime_drops_the_future() {
    let dropped = on_workers(2, || {
        let (coroutine, dropped) = waits_for_ever();
        drop(coroutine);
        dropped
    });
    assert!(is_set(&dropped));
}

#[test]
fn a_timeout_drops_the_future() {
    everywhere(|| {
        let dropped = flag();
        let tells = Tells(Arc::clone(&dropped));
        let future = async move {
            let _tells = tells;
            pending::<()>().await;
        };
        assert!(timeout(ms(5), || block_on(future)).is_err());
        assert!(is_set(&dropped));
    });
}

#[test]
fn a_future_that_always_wakes_itself_can_be_interrupted() {
    everywhere(|| {
        let restless = || {
            block_on(poll_fn(|context| {
                context.waker().wake_by_ref();
                Poll::<()>::Pending
            }));
        };
        assert!(timeout(ms(5), restless).is_err());
        let coroutine = spawn(restless);
        settle();
        coroutine.cancel();
        assert!(is_cancelled(coroutine.join()));
    });
}

#[test]
fn a_shield_and_errors_let_the_future_finish() {
    on_workers(1, || {
        for interrupts in [Interrupts::Unwind, Interrupts::Errors] {
            let (gate, done) = (Gate::new(), flag());
            let coroutine = Builder::new().interrupts(interrupts).spawn({
                let (gate, tells) = (Arc::clone(&gate), Tells(Arc::clone(&done)));
                move || {
                    let run = || block_on(gate.passed());
                    match interrupts {
                        Interrupts::Unwind => shield(run),
                        _ => run(),
                    }
                    drop(tells);
                    7
                }
            });
            let coroutine = coroutine.unwrap();
            gate.waker();
            coroutine.cancel();
            settle();
            assert!(!is_set(&done));
            gate.open();
            assert_eq!(coroutine.join().unwrap(), 7);
        }
    });
}

#[test]
fn a_wake_after_the_cancellation_has_no_effect() {
    on_workers(1, || {
        let gate = Gate::new();
        let coroutine = spawn({
            let gate = Arc::clone(&gate);
            move || {
                let caught = catch_cancel(|| block_on(gate.passed()));
                assert!(caught.is_err());
                gate.waker().wake();
                assert!(!greenroom::park_timeout(ms(1)), "no wait was ended");
            }
        });
        gate.waker();
        coroutine.cancel();
        coroutine.join().unwrap();
        gate.waker().wake();
    });
}

#[test]
fn a_cancellation_goes_through_a_chain_of_futures_and_coroutines() {
    everywhere(|| {
        let dropped = flag();
        let tells = Tells(Arc::clone(&dropped));
        let gate = Gate::new();
        let outer = spawn({
            let gate = Arc::clone(&gate);
            move || {
                let inner = spawn(move || {
                    let _tells = tells;
                    gate.waker
                        .lock()
                        .unwrap()
                        .replace(std::task::Waker::noop().clone());
                    sleep(ms(60_000));
                });
                block_on(inner.cancel_on_drop()).unwrap();
            }
        });
        gate.waker();
        outer.cancel();
        assert!(is_cancelled(outer.join()));
        until("the inner one has ended, too", || is_set(&dropped));
    });
}
