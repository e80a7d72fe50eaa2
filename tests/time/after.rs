//! Timers that run a closure, and tickers.

use std::cell::RefCell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use greenroom::shims::thread;
use greenroom::{
    Builder, Runtime, RuntimeBuilder, TimerHandle, Unparker, after, current, interval, park,
    park_timeout, spawn, spawn_local, wait_idle, yield_now,
};
use serial_test::{parallel, serial};

use crate::util::{self, Finally};

const MILLI: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(1_000);

/// Fewer without optimisation, where each takes longer.
const MANY: usize = if cfg!(debug_assertions) {
    100_000
} else {
    1_000_000
};

/// Counts the closures that have run, and those that were dropped.
#[derive(Clone, Debug, Default)]
struct Fate {
    run: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

impl Fate {
    /// A closure that is counted.
    fn closure(&self) -> impl FnOnce() + Send + 'static {
        let Fate { run, dropped } = self.clone();
        let drops = Finally(move || {
            dropped.fetch_add(1, SeqCst);
        });
        move || {
            let _drops = drops;
            run.fetch_add(1, SeqCst);
        }
    }

    /// How many have run, and how many were dropped.
    fn counts(&self) -> (usize, usize) {
        (self.run.load(SeqCst), self.dropped.load(SeqCst))
    }
}

/// Waits until `happened` returns true. The watchdog of the test limits the wait.
fn until(happened: impl Fn() -> bool) {
    while !happened() {
        thread::sleep(MILLI);
    }
}

fn runtime(workers: usize) -> Runtime {
    RuntimeBuilder::new().workers(workers).build().unwrap()
}

#[test]
#[parallel]
fn a_closure_runs_once_in_its_own_coroutine_when_its_delay_has_passed() {
    util::everywhere(|| {
        let here = current().id();
        let main = Unparker::current();
        let ran = Arc::new(Mutex::new(Vec::new()));
        let start = Instant::now();
        let handle = after(5 * MILLI, {
            let ran = Arc::clone(&ran);
            move || {
                ran.lock().unwrap().push((Instant::now(), current().id()));
                park_timeout(MILLI); // as any coroutine may
                main.unpark();
            }
        });
        // On a busy machine it may have fired by now.
        let due = handle.deadline().unwrap_or(start + 5 * MILLI);
        assert!(due >= start + 5 * MILLI);
        park();
        assert!(!handle.is_active());
        assert_eq!(handle.deadline(), None);
        let ran = ran.lock().unwrap();
        let [(at, there)] = ran[..] else {
            panic!("{ran:?}")
        };
        assert!(at >= due);
        assert_ne!(there, here);
    });
}

#[test]
#[parallel]
fn a_delay_of_zero_fires_soon_and_on_one_worker_not_before_the_caller_waits() {
    util::on_workers(1, || {
        let fate = Fate::default();
        let handle = after(Duration::ZERO, fate.closure());
        assert_eq!(fate.counts(), (0, 0));
        assert!(handle.is_active());
        until(|| fate.counts() == (1, 1));
        // The same while the keeper sleeps.
        after(LONG, fate.closure());
        thread::sleep(MILLI);
        after(Duration::ZERO, fate.closure());
        assert_eq!(fate.counts(), (1, 1));
        until(|| fate.counts() == (2, 2));
    });
    util::everywhere(|| {
        let fate = Fate::default();
        after(Duration::ZERO, fate.closure());
        until(|| fate.counts() == (1, 1));
    });
}

#[test]
#[parallel]
fn dropping_the_handle_does_not_cancel() {
    util::everywhere(|| {
        let fate = Fate::default();
        drop(after(2 * MILLI, fate.closure()));
        until(|| fate.counts() == (1, 1));
    });
}

#[test]
#[serial]
fn timers_fire_by_their_deadlines_on_one_worker() {
    util::on_workers(1, || {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut due = Vec::new();
        for n in 0..1_000_u32 {
            let order = Arc::clone(&order);
            // Several timers for each moment, set far out of order.
            let delay = (n * 7_919 % 10) * MILLI;
            let handle = after(delay, move || order.lock().unwrap().push(n));
            due.push((handle.deadline().unwrap(), n));
        }
        wait_idle();
        due.sort();
        let due: Vec<_> = due.into_iter().map(|(_, n)| n).collect();
        assert_eq!(*order.lock().unwrap(), due);
    });
}

#[test]
#[serial]
fn a_hundred_thousand_timers_at_once_fire_in_order() {
    const TIMERS: usize = 100_000;
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let order = Arc::new(Mutex::new(Vec::with_capacity(TIMERS)));
            for n in 0..TIMERS {
                let order = Arc::clone(&order);
                after(20 * MILLI, move || order.lock().unwrap().push(n));
            }
            wait_idle();
            let mut order = order.lock().unwrap();
            if workers > 1 {
                order.sort();
            }
            assert!(order.iter().copied().eq(0..TIMERS));
        });
    }
}

#[test]
#[parallel]
fn a_closure_may_set_the_next_timer() {
    fn count_down(left: u32, done: Unparker) {
        match left {
            0 => done.unpark(),
            _ => drop(after(Duration::ZERO, move || count_down(left - 1, done))),
        }
    }
    util::everywhere(|| {
        count_down(100, Unparker::current());
        park();
    });
}

#[test]
#[parallel]
fn cancel_tells_whether_the_timer_had_fired_and_cancels_once() {
    util::everywhere(|| {
        let fate = Fate::default();
        let handle = after(LONG, fate.closure());
        let clone = handle.clone();
        assert!(clone.is_active());
        assert!(handle.cancel());
        assert_eq!(fate.counts(), (0, 1), "dropped by the canceller");
        assert!(!handle.cancel() && !clone.cancel());
        assert!(!handle.is_active() && !clone.is_active());
        assert!(!handle.reset(Duration::ZERO));
        assert_eq!(handle.deadline(), None);

        let handle = after(Duration::ZERO, fate.closure());
        until(|| fate.counts() == (1, 2));
        assert!(!handle.cancel());
        assert!(!handle.reset(Duration::ZERO));
        thread::sleep(2 * MILLI);
        assert_eq!(fate.counts(), (1, 2));
    });
}

#[test]
#[parallel]
fn a_timer_that_has_fired_is_not_cancelled_though_its_coroutine_has_not_started() {
    util::on_workers(1, || {
        let (fate, seen) = (Fate::default(), Arc::new(OnceLock::new()));
        let handles = Arc::new(Mutex::new(Vec::new()));
        let looks = {
            let (handles, seen) = (Arc::clone(&handles), Arc::clone(&seen));
            move || {
                let handles: &Vec<TimerHandle> = &handles.lock().unwrap();
                seen.set((handles[1].is_active(), handles[1].cancel()))
                    .unwrap();
            }
        };
        let second = fate.closure();
        handles
            .lock()
            .unwrap()
            .extend([after(Duration::ZERO, looks), after(Duration::ZERO, second)]);
        wait_idle();
        // Both were due, so both had fired when the first one ran.
        assert_eq!(seen.get(), Some(&(false, false)));
        assert_eq!(fate.counts(), (1, 1));
    });
}

#[test]
#[parallel]
fn cancelling_the_first_timer_leaves_the_others_as_they_are() {
    util::everywhere(|| {
        let (cancelled, fired) = (Fate::default(), Fate::default());
        let first = after(5 * MILLI, cancelled.closure());
        after(10 * MILLI, fired.closure());
        thread::sleep(MILLI);
        let was_cancelled = first.cancel(); // on a busy machine it may have fired
        until(|| fired.counts() == (1, 1));
        let run = usize::from(!was_cancelled);
        assert_eq!(cancelled.counts(), (run, 1));
    });
}

#[test]
#[parallel]
fn a_timer_can_be_put_forward_while_the_keeper_sleeps() {
    util::everywhere(|| {
        let fate = Fate::default();
        let others = [after(LONG, fate.closure()), after(2 * LONG, fate.closure())];
        let handle = after(3 * LONG, fate.closure());
        thread::sleep(2 * MILLI);
        assert!(handle.reset(2 * MILLI));
        // On a busy machine it may have fired by now.
        let due = handle.deadline();
        assert!(due.is_none_or(|due| due < Instant::now() + LONG));
        until(|| fate.counts() == (1, 1));
        assert!(!handle.reset(LONG));
        // A new timer may be the earliest, too.
        after(2 * MILLI, fate.closure());
        until(|| fate.counts() == (2, 2));
        assert!(others.iter().all(TimerHandle::cancel));
    });
}

#[test]
#[parallel]
fn a_timer_that_is_put_off_does_not_fire_before_its_new_deadline() {
    util::everywhere(|| {
        let fired_at = Arc::new(OnceLock::new());
        let start = Instant::now();
        let handle = after(20 * MILLI, {
            let fired_at = Arc::clone(&fired_at);
            move || fired_at.set(Instant::now()).unwrap()
        });
        // On a busy machine it may have fired by now.
        let mut due = handle.deadline().unwrap_or(start + 20 * MILLI);
        for _ in 0..10 {
            thread::sleep(MILLI);
            if handle.reset(20 * MILLI) {
                let new = handle.deadline();
                // On a busy machine it may fire during this loop.
                due = new.unwrap_or(due);
            }
        }
        until(|| fired_at.get().is_some());
        assert!(*fired_at.get().unwrap() >= due);
    });
}

#[test]
#[parallel]
fn a_reset_timer_goes_behind_those_that_are_due_before() {
    util::on_workers(1, || {
        let order = Arc::new(Mutex::new(Vec::new()));
        let set = |n| {
            let order = Arc::clone(&order);
            after(LONG, move || order.lock().unwrap().push(n))
        };
        let handles = [0, 1, 2].map(set);
        for n in [2, 0, 1] {
            assert!(handles[n].reset(Duration::ZERO));
        }
        wait_idle();
        assert_eq!(*order.lock().unwrap(), [2, 0, 1]);
    });
}

#[test]
#[parallel]
fn a_delay_beyond_the_clock_never_passes_but_can_be_cancelled_and_reset() {
    util::everywhere(|| {
        let fate = Fate::default();
        let never = after(Duration::MAX, fate.closure());
        assert!(never.is_active());
        assert_eq!(never.deadline(), None);
        let other = after(Duration::from_secs(u64::MAX / 2), fate.closure());
        // Earlier and later timers fire beside it.
        after(2 * MILLI, fate.closure());
        until(|| fate.counts() == (1, 1));
        assert!(never.is_active() && other.is_active());
        assert!(never.reset(Duration::ZERO));
        until(|| fate.counts() == (2, 2));
        assert!(other.reset(Duration::MAX));
        assert!(other.cancel());
        assert_eq!(fate.counts(), (2, 3));
    });
}

#[test]
#[serial]
fn a_panic_ends_its_own_coroutine_and_no_other_timer() {
    util::everywhere(|| {
        let fate = Fate::default();
        after(MILLI, || panic!("a test's panic"));
        after(MILLI, fate.closure());
        after(4 * MILLI, fate.closure());
        until(|| fate.counts() == (2, 2));
        after(MILLI, fate.closure());
        until(|| fate.counts() == (3, 3));
    });
}

#[test]
#[parallel]
fn the_destructor_of_a_cancelled_closure_may_use_timers_itself() {
    util::everywhere(|| {
        let fate = Fate::default();
        let own = Arc::new(OnceLock::<TimerHandle>::new());
        let victim = after(LONG, fate.closure());
        let put_off = after(LONG, fate.closure());
        let drops = Finally({
            let (own, fate, put_off) = (Arc::clone(&own), fate.clone(), put_off.clone());
            move || {
                let own = own.get().unwrap();
                assert!(!own.cancel() && !own.is_active() && !own.reset(MILLI));
                assert!(victim.cancel());
                assert!(put_off.reset(MILLI));
                after(MILLI, fate.closure());
            }
        });
        let handle = after(LONG, move || drop(drops));
        own.set(handle.clone()).unwrap();
        assert!(handle.cancel());
        until(|| fate.counts() == (2, 3));
    });
}

#[test]
#[parallel]
fn a_destructor_that_panics_panics_in_the_canceller() {
    util::everywhere(|| {
        let fate = Fate::default();
        let drops = Finally(|| std::panic::resume_unwind(Box::new(5)));
        let handle = after(LONG, move || drop(drops));
        let payload = catch_unwind(AssertUnwindSafe(|| handle.cancel())).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&5));
        assert!(!handle.is_active() && !handle.cancel());
        after(Duration::ZERO, fate.closure());
        until(|| fate.counts() == (1, 1));
    });
}

#[test]
#[parallel]
fn wait_idle_waits_for_pending_timers_and_those_they_set() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let fate = Fate::default();
            for millis in 0..10 {
                let (closure, next) = (fate.closure(), fate.closure());
                after(millis * MILLI, || {
                    closure();
                    after(2 * MILLI, next);
                });
            }
            wait_idle();
            assert_eq!(fate.counts(), (20, 20));
        });
    }
}

#[test]
#[serial]
fn wait_idle_waits_on_a_plain_thread_too() {
    util::on_an_os_thread(|| {
        let fate = Fate::default();
        after(5 * MILLI, fate.closure());
        wait_idle();
        assert_eq!(fate.counts(), (1, 1));
    });
}

#[test]
#[parallel]
fn cancelled_timers_do_not_hold_up_wait_idle() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let fate = Fate::default();
            let set = || [LONG, Duration::MAX].map(|delay| after(delay, fate.closure()));
            let handles = set();
            assert!(handles.iter().all(TimerHandle::cancel));
            wait_idle();
            // The same for timers that are cancelled during the wait.
            let handles = set();
            spawn(move || {
                thread::sleep(2 * MILLI);
                assert!(handles.iter().all(TimerHandle::cancel));
            });
            wait_idle();
            assert_eq!(fate.counts(), (0, 4));
        });
    }
}

#[test]
#[parallel]
fn pending_closures_are_dropped_when_their_runtime_ends_though_handles_remain() {
    for workers in [1, 4] {
        for settle in [false, true] {
            let fate = Fate::default();
            let handles = util::on_workers(workers, || {
                let delays = [LONG, Duration::MAX, LONG / 2];
                let handles = delays.map(|delay| after(delay, fate.closure()));
                if settle {
                    thread::sleep(2 * MILLI); // the keeper sleeps, or has never run
                }
                handles
            });
            assert_eq!(fate.counts(), (0, 3));
            for handle in handles {
                assert!(!handle.is_active());
                assert!(!handle.reset(Duration::ZERO));
                assert!(!handle.cancel());
            }
        }
    }
}

#[test]
#[parallel]
fn closures_are_dropped_though_a_coroutine_of_another_runtime_drops_theirs() {
    let fate = Fate::default();
    let set = || [LONG, Duration::MAX].map(|delay| after(delay, fate.closure()));
    let early = runtime(1);
    // The handles are dropped, so a closure that stays belongs to nobody. The keeper has not run.
    early.run(|| drop(set()));
    let late = runtime(1);
    let fired = late.run(|| {
        let timer = after(Duration::ZERO, fate.closure());
        while timer.is_active() {
            yield_now();
        }
        timer
    });
    assert_eq!(
        fate.counts(),
        (0, 0),
        "the coroutine of the fired one has not run"
    );
    util::on_workers(1, || {
        drop(early);
        assert_eq!(fate.counts(), (0, 2));
        drop(late);
        assert_eq!(fate.counts(), (0, 3));
    });
    assert!(!fired.is_active());
}

#[test]
#[parallel]
fn due_closures_are_run_or_dropped_when_their_runtime_ends() {
    for workers in [1, 4] {
        for round in 0..20 {
            let fate = Fate::default();
            let handles: Vec<_> = util::on_workers(workers, || {
                let handles = (0..500).map(|_| after(Duration::ZERO, fate.closure()));
                let handles = handles.collect();
                for _ in 0..round / 4 {
                    yield_now();
                }
                handles
            });
            assert_eq!(fate.counts().1, 500, "{fate:?}");
            assert!(handles.iter().all(|handle| !handle.is_active()));
        }
    }
}

#[test]
#[parallel]
fn destructors_at_the_end_of_a_runtime_may_use_timers_and_wait() {
    for workers in [1, 4] {
        let fate = Fate::default();
        util::on_workers(workers, || {
            let other = after(LONG, fate.closure());
            let sleeper = Mutex::new(Some(spawn(|| thread::sleep(LONG))));
            let drops = Finally({
                let fate = fate.clone();
                move || {
                    other.cancel();
                    let late = after(Duration::ZERO, fate.closure());
                    late.reset(LONG);
                    let sleeper = sleeper.lock().unwrap().take();
                    let _ = sleeper.unwrap().join();
                }
            });
            after(LONG, move || drop(drops));
            let panics = Finally(|| std::panic::resume_unwind(Box::new(5)));
            after(LONG, move || drop(panics));
            after(LONG, fate.closure());
            // The destructor of a coroutine may do so, too.
            let late = fate.clone();
            spawn(move || {
                let _sets = Finally(move || drop(after(Duration::ZERO, late.closure())));
                thread::sleep(LONG);
            });
            thread::sleep(2 * MILLI);
        });
        assert_eq!(fate.counts(), (0, 4));
    }
}

#[test]
#[parallel]
fn handles_work_from_other_threads_and_other_runtimes() {
    for workers in [1, 4] {
        let fate = Fate::default();
        util::on_workers(workers, || {
            let [cancelled, forward, kept] = [(); 3].map(|()| after(LONG, fate.closure()));
            let elsewhere = [cancelled.clone(), forward.clone()];
            let on_a_thread = std::thread::spawn(move || {
                assert!(elsewhere[0].cancel());
                assert!(elsewhere[1].reset(MILLI));
            });
            until(|| fate.counts() == (1, 2));
            on_a_thread.join().unwrap();
            assert!(!cancelled.is_active() && !forward.is_active());
            let in_a_runtime = std::thread::spawn(move || {
                runtime(1).run(|| {
                    assert!(kept.is_active());
                    assert!(kept.reset(MILLI));
                });
            });
            until(|| fate.counts() == (2, 3));
            in_a_runtime.join().unwrap();
        });
    }
}

#[test]
#[parallel]
fn each_runtime_has_its_own_timers_which_rest_between_two_runs() {
    util::on_an_os_thread(|| {
        let fate = Fate::default();
        let runtime = runtime(1);
        let handle = runtime.run(|| after(LONG, fate.closure()));
        assert!(handle.reset(2 * MILLI));
        wait_idle(); // that of the default runtime, if there is one
        std::thread::sleep(4 * MILLI);
        assert_eq!(fate.counts(), (0, 0));
        assert!(handle.is_active());
        runtime.run(wait_idle);
        assert_eq!(fate.counts(), (1, 1));
    });
}

/// Firing and cancelling race. Whichever comes first, each timer fires once or is cancelled once.
#[test]
#[serial]
fn each_timer_fires_once_or_is_cancelled_once() {
    const ROUNDS: usize = if cfg!(debug_assertions) { 20 } else { 100 };
    const TIMERS: usize = 500;
    const THREADS: usize = 3;
    for workers in [1, 4] {
        util::on_workers(workers, || {
            for round in 0..ROUNDS {
                let runs: Arc<Vec<_>> =
                    Arc::new((0..TIMERS).map(|_| AtomicUsize::new(0)).collect());
                let fate = Fate::default();
                let handles: Vec<_> = (0..TIMERS)
                    .map(|n| {
                        let (runs, closure) = (Arc::clone(&runs), fate.closure());
                        after(n as u32 % 16 * MILLI / 16, move || {
                            runs[n].fetch_add(1, SeqCst);
                            closure();
                        })
                    })
                    .collect();
                let cancels: Vec<_> = (0..TIMERS).map(|_| AtomicUsize::new(0)).collect();
                let stir = |seed: u64| {
                    let noise = util::noise(TIMERS, seed);
                    for (n, (handle, noise)) in handles.iter().zip(noise).enumerate() {
                        match noise % 4 {
                            0 | 1 => {
                                cancels[n].fetch_add(handle.cancel().into(), SeqCst);
                            }
                            2 => drop(handle.reset(u32::from(noise) * MILLI / 256)),
                            _ => drop(handle.reset(LONG) && handle.reset(Duration::ZERO)),
                        }
                    }
                };
                let stirring = AtomicUsize::new(THREADS);
                std::thread::scope(|s| {
                    for thread in 0..THREADS {
                        let (stir, stirring) = (&stir, &stirring);
                        s.spawn(move || {
                            stir((round * THREADS + thread) as u64 * 0x9e37_79b9 + 1);
                            stirring.fetch_sub(1, SeqCst);
                        });
                    }
                    // Timers fire here meanwhile.
                    while stirring.load(SeqCst) > 0 {
                        thread::sleep(MILLI / 10);
                    }
                });
                wait_idle();
                for n in 0..TIMERS {
                    let (run, cancelled) = (runs[n].load(SeqCst), cancels[n].load(SeqCst));
                    assert_eq!(run + cancelled, 1, "timer {n}: {run} + {cancelled}");
                    assert!(!handles[n].is_active());
                }
                assert_eq!(fate.counts().1, TIMERS);
            }
        });
    }
}

/// The keeper idles while no timer is pending, and sleeps while none is due: in both cases a new timer
/// must wake it.
#[test]
#[serial]
fn a_timer_that_is_set_as_the_keeper_begins_to_idle_or_falls_asleep_is_not_forgotten() {
    const ROUNDS: usize = if cfg!(debug_assertions) {
        3_000
    } else {
        20_000
    };
    util::on_an_os_thread(|| {
        for sleeps in [false, true] {
            let other = sleeps.then(|| after(LONG, || ()));
            // On the default runtime, so that each is set beside its workers.
            std::thread::scope(|s| {
                for _ in 0..3 {
                    s.spawn(|| {
                        for round in 0..ROUNDS {
                            let setter = Unparker::current();
                            let handle = after(Duration::ZERO, move || setter.unpark());
                            if round % 3 == 0 && handle.cancel() {
                                continue;
                            }
                            park();
                        }
                    });
                }
            });
            assert!(other.is_none_or(|other| other.cancel()));
            wait_idle();
        }
    });
}

/// The resident memory of this process, in bytes.
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Calls `cycle` many times, and checks that memory does not grow.
#[track_caller]
fn assert_flat(mut cycle: impl FnMut(usize)) {
    for round in 0..MANY / 10 {
        cycle(round);
    }
    let before = resident();
    for round in 0..MANY {
        cycle(round);
    }
    let after = resident();
    assert!(after < before + (1 << 20), "{before} bytes became {after}");
}

#[test]
#[serial]
fn timers_that_are_set_and_cancelled_without_a_yield_take_no_memory() {
    let cycle = |_| {
        let payload = [7_u8; 64];
        let handle = after(LONG, move || _ = std::hint::black_box(payload));
        assert!(handle.cancel());
    };
    for workers in [1, 4] {
        util::on_workers(workers, || assert_flat(cycle));
    }
    util::on_an_os_thread(|| assert_flat(cycle));
}

#[test]
#[serial]
fn timers_that_are_set_cancelled_and_reset_beside_others_take_no_memory() {
    util::on_workers(1, || {
        let pending: RefCell<Vec<TimerHandle>> = RefCell::default();
        assert_flat(|round| {
            let mut pending = pending.borrow_mut();
            pending.push(after(LONG - round as u32 % 7 * MILLI, || ()));
            assert!(pending[0].reset(LONG + round as u32 % 5 * MILLI));
            if pending.len() > 100 {
                assert!(pending.swap_remove(round % 100).cancel());
            }
            if round % 1_000 == 0 {
                yield_now();
            }
        });
    });
}

#[test]
#[serial]
fn timers_that_fire_take_no_memory() {
    const BATCH: usize = 100;
    util::on_workers(1, || {
        let fate = Fate::default();
        assert_flat(|round| {
            after(Duration::ZERO, fate.closure());
            if round % BATCH == BATCH - 1 {
                wait_idle();
            }
        });
        wait_idle();
        assert_eq!(fate.counts(), (MANY / 10 + MANY, MANY / 10 + MANY));
    });
}

/// Runs `body` in a process of its own. The test passes if `body` reaches its end.
fn alone(test: &str, body: impl FnOnce()) {
    if util::role().is_some() {
        body();
        eprintln!("end of child");
        return;
    }
    let output = util::again!(test, "child")
        .env_remove("GREENROOM_STACK_SIZE")
        .env_remove("RUST_MIN_STACK")
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{:?}\n{text}", output.status);
    assert!(text.contains("end of child"), "{text}");
}

/// Limits the address space of this process, and has parked coroutines take all stacks.
fn take_all_stacks() -> Vec<greenroom::JoinHandle<()>> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let size = size.unwrap().trim().trim_end_matches(" kB");
    let limit = (size.parse::<u64>().unwrap() << 10) + (256 << 20);
    let limit = libc::rlimit {
        rlim_cur: limit,
        rlim_max: limit,
    };
    // SAFETY: the structure is valid.
    assert_eq!(0, unsafe {
        libc::setrlimit(libc::RLIMIT_AS, &raw const limit)
    });
    let mut parked = Vec::with_capacity(10_000);
    while let Ok(handle) = Builder::new().spawn(park) {
        parked.push(handle);
    }
    assert!(parked.len() > 100, "{}", parked.len());
    parked
}

#[test]
#[serial]
fn a_timer_without_a_stack_fires_when_there_is_one() {
    alone("a_timer_without_a_stack_fires_when_there_is_one", || {
        util::on_workers(1, || {
            let order = Arc::new(Mutex::new(Vec::with_capacity(10)));
            let set = |n| {
                let order = Arc::clone(&order);
                after(LONG, move || order.lock().unwrap().push(n))
            };
            let timers = [1, 2, 3].map(set);
            thread::sleep(MILLI); // the keeper has its stack
            let parked = take_all_stacks();
            assert!(timers.iter().all(|timer| timer.reset(MILLI)));
            let [first, _, third] = timers;
            until(|| !first.is_active());
            thread::sleep(10 * MILLI);
            assert!(order.lock().unwrap().is_empty(), "there is no stack");
            assert!(third.cancel(), "it has not fired");
            for parked in parked {
                parked.thread().unpark();
            }
            wait_idle();
            assert_eq!(*order.lock().unwrap(), [1, 2]);
        });
    });
}

#[test]
#[serial]
fn without_a_stack_for_the_keeper_after_panics_and_drops_its_closure() {
    alone(
        "without_a_stack_for_the_keeper_after_panics_and_drops_its_closure",
        || {
            util::on_workers(1, || {
                let fate = Fate::default();
                let parked = take_all_stacks();
                let set = AssertUnwindSafe(|| after(MILLI, fate.closure()));
                assert!(catch_unwind(set).is_err());
                assert_eq!(fate.counts(), (0, 1));
                for parked in parked {
                    parked.thread().unpark();
                }
                wait_idle();
                after(MILLI, fate.closure());
                wait_idle();
                assert_eq!(fate.counts(), (1, 2));
            });
        },
    );
}

#[test]
#[serial]
fn fired_closures_without_a_stack_are_dropped_with_their_runtime() {
    alone(
        "fired_closures_without_a_stack_are_dropped_with_their_runtime",
        || {
            let fate = Fate::default();
            let handles = util::on_workers(1, || {
                let handles = [LONG, LONG].map(|delay| after(delay, fate.closure()));
                thread::sleep(MILLI); // the keeper has its stack
                std::mem::forget(take_all_stacks());
                assert!(handles[0].reset(MILLI));
                until(|| !handles[0].is_active());
                handles
            });
            assert_eq!(fate.counts(), (0, 2));
            assert!(!handles[1].is_active());
        },
    );
}

#[test]
#[serial]
fn in_a_forked_child_the_timers_of_the_parent_are_not_active() {
    alone(
        "in_a_forked_child_the_timers_of_the_parent_are_not_active",
        || {
            util::on_workers(2, || {
                let handle = after(LONG, || ());
                // SAFETY: the child makes a few calls of this crate, and ends.
                let child = unsafe { libc::fork() };
                assert!(child >= 0);
                if child == 0 {
                    let refused = catch_unwind(AssertUnwindSafe(|| after(MILLI, || ())));
                    let inert = !handle.is_active()
                        && handle.deadline().is_none()
                        && !handle.reset(MILLI)
                        && !handle.cancel();
                    let ticks = catch_unwind(|| interval(MILLI).tick());
                    let done = refused.is_err() && inert && ticks.is_ok();
                    // SAFETY: the call has no preconditions.
                    unsafe { libc::_exit(i32::from(!done)) };
                }
                let mut status = 0;
                // SAFETY: `status` is valid to write to.
                let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
                assert_eq!((waited, status), (child, 0));
                assert!(handle.cancel());
            });
        },
    );
}

#[test]
#[parallel]
fn ticks_are_due_at_multiples_of_their_period() {
    const PERIOD: Duration = MILLI;
    util::everywhere(|| {
        let before = Instant::now();
        let mut ticks = interval(PERIOD);
        assert_eq!(ticks.period(), PERIOD);
        let first = ticks.tick();
        assert!(first >= before + PERIOD);
        let mut last = first;
        for n in 0..20 {
            if n % 3 == 0 {
                thread::sleep(PERIOD / 3); // less than a period makes no difference
            }
            let due = ticks.tick();
            assert!(due <= Instant::now(), "it is not early");
            assert!(due >= last + PERIOD);
            // However late a tick was, there is no drift.
            assert_eq!((due - first).as_nanos() % PERIOD.as_nanos(), 0);
            last = due;
        }
    });
}

#[test]
#[parallel]
fn missed_ticks_are_skipped_and_the_next_is_in_step() {
    const PERIOD: Duration = Duration::from_millis(2);
    util::everywhere(|| {
        let mut ticks = interval(PERIOD);
        let first = ticks.tick();
        std::thread::sleep(5 * PERIOD + PERIOD / 2);
        let back = Instant::now();
        let due = ticks.tick();
        assert!(due >= first + 5 * PERIOD, "four were missed");
        assert!(due + PERIOD > back, "it is the last of those that were due");
        assert_eq!((due - first).as_nanos() % PERIOD.as_nanos(), 0);
        assert!(ticks.tick() >= due + PERIOD, "no burst");
    });
}

#[test]
#[parallel]
fn ticks_with_a_period_of_zero_let_others_go_first() {
    util::on_workers(1, || {
        let turns = Rc::new(RefCell::new(Vec::new()));
        let tickers = [0, 1].map(|n| {
            let turns = Rc::clone(&turns);
            spawn_local(move || {
                let mut ticks = interval(Duration::ZERO);
                let mut last = Instant::now();
                for _ in 0..10 {
                    turns.borrow_mut().push(n);
                    let tick = ticks.tick();
                    assert!(tick >= last);
                    last = tick;
                }
            })
        });
        for ticker in tickers {
            ticker.join().unwrap();
        }
        let turns = turns.take();
        assert_eq!(turns, [0, 1].repeat(10));
    });
    util::everywhere(|| {
        let mut ticks = interval(Duration::ZERO);
        for _ in 0..100 {
            ticks.tick();
        }
    });
}

#[test]
#[parallel]
fn a_ticker_ends_with_its_runtime_whatever_its_period() {
    for workers in [1, 4] {
        let (ticks, dropped) = (Arc::new(AtomicUsize::new(0)), Fate::default());
        util::on_workers(workers, || {
            for period in [Duration::ZERO, MILLI / 100, MILLI, LONG, Duration::MAX] {
                let (ticks, drops) = (Arc::clone(&ticks), dropped.closure());
                spawn(move || {
                    let _drops = drops;
                    let mut interval = interval(period);
                    loop {
                        interval.tick();
                        ticks.fetch_add(1, SeqCst);
                        assert!(period < LONG);
                    }
                });
            }
            until(|| ticks.load(SeqCst) > 100);
        });
        assert_eq!(dropped.counts(), (0, 5));
    }
}

#[test]
#[parallel]
fn a_ticker_that_is_always_behind_lets_others_run() {
    util::on_workers(1, || {
        let over = Arc::new(AtomicBool::new(false));
        let behind = Arc::clone(&over);
        let ticker = spawn(move || {
            let mut ticks = interval(Duration::from_nanos(1));
            while !behind.load(SeqCst) {
                ticks.tick();
            }
        });
        thread::sleep(2 * MILLI);
        over.store(true, SeqCst);
        ticker.join().unwrap();
    });
}
