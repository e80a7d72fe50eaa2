//! The numbers of the process's runtimes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use greenroom::{Metrics, RuntimeBuilder, metrics, shims, spawn};
use serial_test::serial;

use crate::util;

#[test]
#[serial]
fn spawns_turns_wakes_and_yields_are_counted() {
    const YIELDS: u64 = 40;
    util::on_workers(1, || {
        let before = metrics();
        let children: Vec<_> = (0..10)
            .map(|_| {
                spawn(|| {
                    greenroom::yield_now();
                    greenroom::yield_now();
                    greenroom::park();
                })
            })
            .collect();
        // The third turn of each ends in the park. Those that are fresh start one by one.
        (0..YIELDS).for_each(|_| greenroom::yield_now());
        let parked = metrics();
        assert_eq!(parked.spawned - before.spawned, 10);
        assert_eq!(parked.live - before.live, 10);
        assert_eq!(parked.runnable, 0);
        assert_eq!(parked.turns - before.turns, 10 * 3 + YIELDS);
        assert_eq!(parked.yields - before.yields, 10 * 2 + YIELDS);
        assert_eq!(parked.wakes, before.wakes);

        children.iter().for_each(|child| child.thread().unpark());
        let woken = metrics();
        assert_eq!(woken.runnable, 10);
        assert_eq!(woken.wakes, before.wakes, "they have not had their turns");
        greenroom::yield_now();
        let ended = metrics();
        assert_eq!(ended.wakes - before.wakes, 10);
        assert_eq!(ended.live, before.live);
        children.into_iter().for_each(|child| child.join().unwrap());
    });
}

#[test]
#[serial]
fn coroutines_that_have_not_started_are_runnable() {
    util::on_workers(1, || {
        let before = metrics();
        let children: Vec<_> = (0..10).map(|_| spawn(|| ())).collect();
        let fresh = metrics();
        assert_eq!(fresh.live - before.live, 10);
        assert_eq!(fresh.runnable - before.runnable, 10);
        drop(children);
        greenroom::wait_idle();
        assert_eq!(metrics().live, before.live);
        assert_eq!(metrics().runnable, before.runnable);
    });
}

#[test]
#[serial]
fn parked_coroutines_are_counted_by_what_they_wait_for() {
    util::on_workers(2, || {
        let before = greenroom::parked_by_reason().unwrap();
        let lock = Arc::new(shims::sync::Mutex::new(()));
        let guard = lock.lock().unwrap();
        let (sender, receiver) = shims::sync::mpsc::channel::<()>();
        let mut children = vec![spawn(move || assert!(receiver.recv().is_err()))];
        for _ in 0..2 {
            let lock = Arc::clone(&lock);
            children.push(spawn(move || drop(lock.lock().unwrap())));
        }
        for _ in 0..3 {
            children.push(spawn(greenroom::park));
        }
        let added = || {
            let after = greenroom::parked_by_reason().unwrap();
            let names = |counts: &[(&'static str, usize)]| -> Vec<_> {
                counts.iter().map(|(name, _)| *name).collect()
            };
            assert_eq!(names(&after), names(&before));
            let added = after.iter().zip(&before);
            let added = added.filter(|(after, before)| after.1 > before.1);
            added
                .map(|(after, before)| (after.0, after.1 - before.1))
                .collect::<Vec<_>>()
        };
        let start = Instant::now();
        let wanted = [("park", 3), ("mutex", 2), ("receive", 1)];
        while added() != wanted {
            assert!(start.elapsed() < util::PATIENCE, "{:?}", added());
            greenroom::yield_now();
        }
        drop((guard, sender));
        children.iter().for_each(|child| child.thread().unpark());
        children.into_iter().for_each(|child| child.join().unwrap());
    });
}

#[test]
#[serial]
fn mains_and_daemons_are_counted_too() {
    let before = metrics();
    util::on_workers(2, || {
        let daemon = greenroom::spawn_daemon(greenroom::park);
        let during = metrics();
        assert_eq!(during.live - before.live, 2);
        assert_eq!(during.spawned - before.spawned, 2);
        assert_eq!(during.workers - before.workers, 2);
        daemon.thread().unpark();
        daemon.join().unwrap();
        // Its worker counts it as ended a moment after it has woken its joiner.
        util::until("it has ended", || metrics().live - before.live == 1);
    });
    let after = metrics();
    assert_eq!(after.live, before.live);
    assert_eq!(after.workers, before.workers);
}

#[test]
#[serial]
fn the_numbers_of_a_runtime_stay_after_its_end() {
    let before = metrics();
    for _ in 0..3 {
        util::on_workers(2, || {
            let children: Vec<_> = (0..100).map(|_| spawn(greenroom::yield_now)).collect();
            children.into_iter().for_each(|child| child.join().unwrap());
            // It unwinds at the end of the runtime.
            spawn(|| shims::thread::sleep(Duration::from_secs(600)));
            // This one may never start.
            spawn(|| ());
        });
    }
    let after = metrics();
    assert_eq!(after.spawned - before.spawned, 3 * (1 + 100 + 2));
    assert!(after.turns - before.turns >= 3 * 200, "{after:?}");
    assert_eq!(after.yields - before.yields, 3 * 100);
    assert!(after.polls > before.polls);
    assert_eq!((after.live, after.runnable), (before.live, before.runnable));
}

#[test]
#[serial]
fn numbers_that_grow_never_shrink() {
    let growing = |of: &Metrics| {
        let counts = of.run_queue_delay.buckets().map(|(_, count)| count);
        let mut all = vec![
            of.spawned, of.turns, of.yields, of.steals, of.polls, of.sleeps,
        ];
        all.extend(counts);
        all
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut before = growing(&metrics());
            while !over.load(SeqCst) {
                let after = growing(&metrics());
                let shrunk = before
                    .iter()
                    .zip(&after)
                    .any(|(before, after)| before > after);
                assert!(!shrunk, "{before:?} {after:?}");
                before = after;
            }
        });
        // Runtimes come and go meanwhile.
        for workers in [1, 2, 3].repeat(10) {
            let runtime = RuntimeBuilder::new().workers(workers).build().unwrap();
            runtime.run(|| {
                let children: Vec<_> = (0..200).map(|_| spawn(greenroom::yield_now)).collect();
                children.into_iter().for_each(|child| child.join().unwrap());
            });
        }
        over.store(true, SeqCst);
    });
}

#[test]
#[serial]
fn stolen_coroutines_are_counted() {
    util::on_workers(2, || {
        let before = metrics().steals;
        let start = Instant::now();
        while metrics().steals == before {
            assert!(start.elapsed() < util::PATIENCE, "nothing was stolen");
            // Another worker must start the child, because this one waits for it without letting it run.
            let has_run = Arc::new(AtomicBool::new(false));
            let child = spawn({
                let has_run = Arc::clone(&has_run);
                move || has_run.store(true, SeqCst)
            });
            while !has_run.load(SeqCst) {
                std::thread::yield_now();
            }
            child.join().unwrap();
            // The worker that has stolen publishes its counts.
            shims::thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
#[serial]
fn the_delay_of_the_run_queue_is_that_of_the_turns_before() {
    const TURN: Duration = Duration::from_millis(5);
    util::on_workers(1, || {
        let before = metrics().run_queue_delay;
        let over = Arc::new(AtomicBool::new(false));
        let slow: Vec<_> = (0..3)
            .map(|_| {
                let over = Arc::clone(&over);
                spawn(move || {
                    while !over.load(SeqCst) {
                        let start = Instant::now();
                        while start.elapsed() < TURN {}
                        greenroom::yield_now();
                    }
                })
            })
            .collect();
        let start = Instant::now();
        // The coroutine that asks is in the queue, too. Between two of its turns are three of the others'.
        while metrics().run_queue_delay.count() < before.count() + 2 {
            assert!(
                start.elapsed() < 3 * util::PATIENCE,
                "no delay was measured"
            );
            greenroom::yield_now();
        }
        // Before the others end: the turns after that are short.
        let after = metrics().run_queue_delay;
        over.store(true, SeqCst);
        slow.into_iter().for_each(|slow| slow.join().unwrap());
        let added = after.buckets().zip(before.buckets());
        let added = added.map(|((bound, after), (_, before))| (bound, after - before));
        for (bound, count) in added {
            // Delays that were measured before all three had started may be shorter, but at least one turn.
            let is_short = bound.is_some_and(|bound| bound < TURN);
            assert!(!is_short || count == 0, "{count} delays of {bound:?}");
        }
        assert!(after.sum() >= before.sum() + 2 * TURN);
    });
}

#[test]
#[serial]
fn the_pool_and_the_stacks_are_counted() {
    util::on_workers(1, || {
        greenroom::unblock(|| {
            let during = metrics();
            assert!(during.pool.threads > during.pool.idle, "{during:?}");
        });
        let before = metrics();
        let builder = || greenroom::Builder::new().stack_size(1 << 20);
        let parked: Vec<_> = (0..100)
            .map(|_| builder().spawn(greenroom::park).unwrap())
            .collect();
        let after = metrics();
        assert_eq!(after.stacks.count - before.stacks.count, 100);
        assert_eq!(after.stacks.reserved - before.stacks.reserved, 100 << 20);
        assert!(after.stacks.mapped >= after.stacks.reserved, "{after:?}");
        parked.iter().for_each(|parked| parked.thread().unpark());
        parked.into_iter().for_each(|parked| parked.join().unwrap());
    });
}

#[test]
#[serial]
fn an_interrupt_that_ends_in_the_drop_of_a_result_does_not_count_as_swallowed_by_the_coroutine() {
    struct InterruptedOnDrop;
    impl Drop for InterruptedOnDrop {
        fn drop(&mut self) {
            greenroom::interruption_point();
        }
    }
    util::on_workers(1, || {
        let before = greenroom::stats().swallowed_interrupts;
        let ends = spawn(|| InterruptedOnDrop);
        util::until("it has ended", || ends.is_finished());
        let dropper = util::begin_cancelled(|| {
            drop(ends);
            greenroom::interruption_point();
        });
        let payload = dropper.join().unwrap_err();
        assert!(payload.is::<greenroom::Cancelled>());
        assert_eq!(greenroom::stats().swallowed_interrupts, before);
    });
}
