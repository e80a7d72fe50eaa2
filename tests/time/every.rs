//! Closures that run at multiples of a period.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use greenroom::shims::thread::sleep;
use greenroom::{every, spawn, try_after, wait_idle};
use serial_test::parallel;

use crate::util::{Finally, PATIENCE, everywhere, message_of, ms, on_workers, until};

const LONG: Duration = Duration::from_secs(1_000);

#[test]
#[parallel]
fn calls_are_at_multiples_of_the_period_and_do_not_drift() {
    everywhere(|| {
        let (tell, told) = mpsc::channel();
        let start = Instant::now();
        let period = ms(3);
        let ticker = every(period, move |tick| {
            let _ = tell.send((tick.due(), tick.missed(), Instant::now()));
        });
        let mut ticks = 0;
        let mut first = None;
        for (due, missed, called) in (0..10).map(|_| recv(&told)) {
            ticks += 1 + missed;
            let first = *first.get_or_insert(due - period * (ticks - 1) as u32);
            assert_eq!(due, first + period * (ticks - 1) as u32, "in step");
            assert!(due >= start + period && called >= due);
        }
        drop(ticker);
    });
}

/// Receives without blocking a worker for good.
fn recv<T>(receiver: &mpsc::Receiver<T>) -> T {
    loop {
        match receiver.try_recv() {
            Ok(message) => return message,
            Err(mpsc::TryRecvError::Empty) => sleep(ms(1)),
            Err(mpsc::TryRecvError::Disconnected) => panic!("the closure is gone"),
        }
    }
}

#[test]
#[parallel]
fn a_slow_call_skips_the_ticks_that_it_misses_and_never_overlaps() {
    on_workers(2, || {
        let inside = Arc::new(AtomicBool::new(false));
        let (tell, told) = mpsc::channel();
        let ticker = every(ms(2), {
            let inside = Arc::clone(&inside);
            move |tick| {
                assert!(!inside.swap(true, SeqCst), "it overlaps");
                let _ = tell.send((tick.due(), tick.missed()));
                sleep(ms(9));
                inside.store(false, SeqCst);
            }
        });
        let (mut last, _) = recv(&told);
        for _ in 0..3 {
            let (due, missed) = recv(&told);
            assert!(missed >= 3, "{missed} missed");
            assert_eq!(due - last, ms(2) * (missed as u32 + 1));
            last = due;
        }
        drop(ticker);
    });
}

#[test]
#[parallel]
fn a_panic_in_one_tick_does_not_stop_the_next() {
    everywhere(|| {
        let calls = Arc::new(AtomicUsize::new(0));
        let ticker = every(ms(1), {
            let calls = Arc::clone(&calls);
            move |_| {
                if calls.fetch_add(1, SeqCst) == 0 {
                    resume_unwind(Box::new("no luck"));
                }
            }
        });
        until("it was called again", || calls.load(SeqCst) >= 3);
        assert!(ticker.is_active());
    });
}

#[test]
#[parallel]
fn dropping_the_guard_stops_the_calls_and_drops_the_closure() {
    everywhere(|| {
        let dropped = Arc::new(AtomicBool::new(false));
        let drops = Finally({
            let dropped = Arc::clone(&dropped);
            move || dropped.store(true, SeqCst)
        });
        let ticker = every(LONG, move |_| {
            let _drops = &drops;
            panic!("it is not due");
        });
        assert!(ticker.is_active());
        drop(ticker);
        until("the closure was dropped", || dropped.load(SeqCst));
    });
}

#[test]
#[parallel]
fn a_call_can_stop_itself() {
    everywhere(|| {
        let calls = Arc::new(AtomicUsize::new(0));
        let mut ticker = every(ms(1), {
            let calls = Arc::clone(&calls);
            move |tick| {
                if calls.fetch_add(1, SeqCst) == 2 {
                    tick.stop();
                }
            }
        });
        until("it has stopped itself", || !ticker.is_active());
        assert!(ticker.stop_wait(PATIENCE));
        assert_eq!(calls.load(SeqCst), 3);
    });
}

#[test]
#[parallel]
fn stopping_does_not_interrupt_a_call_and_can_wait_for_it() {
    on_workers(1, || {
        let done = Arc::new(AtomicBool::new(false));
        let (started, has_started) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let mut ticker = every(ms(1), {
            let done = Arc::clone(&done);
            move |_| {
                started.send(()).unwrap();
                recv(&may_go_on);
                done.store(true, SeqCst);
            }
        });
        recv(&has_started);
        assert!(!ticker.stop_wait(ms(1)), "the call is under way");
        assert!(!ticker.is_active());
        go_on.send(()).unwrap();
        assert!(ticker.stop_wait(PATIENCE));
        assert!(done.load(SeqCst));
    });
}

#[test]
#[parallel]
fn detached_calls_go_on_until_they_stop_themselves() {
    everywhere(|| {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        every(ms(1), move |tick| {
            if counter.fetch_add(1, SeqCst) == 4 {
                tick.stop();
            }
        })
        .detach();
        until("all calls were made", || {
            calls.load(SeqCst) == 5 && Arc::strong_count(&calls) == 1
        });
    });
}

#[test]
#[parallel]
fn a_call_that_waits_for_its_own_end_panics() {
    on_workers(1, || {
        let (give, given) = mpsc::channel::<greenroom::Every>();
        let (tell, told) = mpsc::channel();
        let ticker = every(ms(1), move |_| {
            let mut own = recv(&given);
            tell.send(message_of(|| own.stop_wait(PATIENCE))).unwrap();
        });
        give.send(ticker).unwrap();
        assert!(recv(&told).contains("waits for ever"));
    });
}

#[test]
#[parallel]
fn neither_every_nor_daemons_keep_wait_idle_waiting() {
    on_workers(2, || {
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let _ticker = every(ms(1), move |_| {
            counter.fetch_add(1, SeqCst);
        });
        let daemon = greenroom::spawn_daemon(|| sleep(LONG));
        let ended = Arc::new(AtomicBool::new(false));
        spawn({
            let ended = Arc::clone(&ended);
            move || {
                sleep(ms(10));
                ended.store(true, SeqCst);
            }
        });
        wait_idle();
        assert!(ended.load(SeqCst), "others are waited for");
        assert!(!daemon.is_finished());
        // What a daemon spawns is no daemon.
        let (started, has_started) = mpsc::channel();
        let spawned = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&spawned);
        let spawner = greenroom::spawn_daemon(move || {
            spawn(move || {
                sleep(ms(10));
                ends.store(true, SeqCst);
            });
            started.send(()).unwrap();
        });
        recv(&has_started);
        wait_idle();
        assert!(spawned.load(SeqCst));
        spawner.join().unwrap();
        // A daemon may wait for the others itself.
        greenroom::spawn_daemon(wait_idle).join().unwrap();
    });
}

#[test]
#[parallel]
fn a_daemon_is_joined_and_unwound_like_any_coroutine() {
    let dropped = Arc::new(AtomicBool::new(false));
    on_workers(1, || {
        assert_eq!(greenroom::spawn_daemon(|| 7).join().unwrap(), 7);
        let drops = Finally({
            let dropped = Arc::clone(&dropped);
            move || dropped.store(true, SeqCst)
        });
        greenroom::spawn_daemon(move || {
            let _drops = drops;
            sleep(LONG);
        });
        greenroom::yield_now();
    });
    assert!(dropped.load(SeqCst));
}

#[test]
#[parallel]
fn an_interval_that_is_reset_begins_anew_and_it_iterates() {
    everywhere(|| {
        let start = Instant::now();
        let mut ticks = greenroom::interval(ms(20));
        sleep(ms(5));
        ticks.reset();
        let due: Vec<_> = ticks.by_ref().take(2).collect();
        assert!(
            due[0] >= start + ms(25),
            "not in step with the first beginning"
        );
        assert_eq!((due[1] - due[0]).as_nanos() % ms(20).as_nanos(), 0);
    });
}

#[test]
#[parallel]
fn a_fallible_timer_fires_like_any() {
    everywhere(|| {
        let (tell, told) = mpsc::channel();
        let timer = try_after(ms(1), move || tell.send(7).unwrap()).unwrap();
        assert_eq!(recv(&told), 7);
        assert!(!timer.is_active());
    });
}
