//! `greenroom::sync`: events, semaphores, wait groups, queues and barriers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use greenroom::channel::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use greenroom::sync::{Barrier, BarrierError, Event, Queue, Semaphore, ValueEvent, WaitGroup};
use greenroom::{Cancelled, JoinHandle, RuntimeBuilder, park_timeout, spawn, yield_now};

use crate::util::{self, counter, everywhere, ms};

const LONG: Duration = Duration::from_secs(100);

/// Spawns coroutines and OS threads, two of each.
fn four<T: Send + 'static>(f: impl Fn(usize) -> T + Clone + Send + 'static) -> Vec<T> {
    let coroutines: Vec<_> = [0, 1].map(|n| spawn_with(&f, n)).into();
    let threads: Vec<_> = [2, 3]
        .map(|n| {
            let f = f.clone();
            std::thread::spawn(move || f(n))
        })
        .into();
    let coroutines = coroutines.into_iter().map(|one| one.join().unwrap());
    let coroutines: Vec<_> = coroutines.collect();
    let threads = threads.into_iter().map(|one| one.join().unwrap());
    coroutines.into_iter().chain(threads).collect()
}

fn spawn_with<T: Send + 'static>(
    f: &(impl Fn(usize) -> T + Clone + Send + 'static),
    n: usize,
) -> JoinHandle<T> {
    let f = f.clone();
    spawn(move || f(n))
}

// ---------------------------------------------------------- events

#[test]
fn an_event_wakes_all_that_wait_and_lets_pass_until_it_is_cleared() {
    everywhere(|| {
        let event = Arc::new(Event::new());
        let passed = counter();
        let sets = {
            let event = Arc::clone(&event);
            spawn(move || {
                util::settle();
                event.set();
            })
        };
        let waits = {
            let (event, passed) = (Arc::clone(&event), Arc::clone(&passed));
            move |_| {
                event.wait();
                event.wait();
                passed.fetch_add(1, SeqCst);
            }
        };
        four(waits);
        sets.join().unwrap();
        assert_eq!(passed.load(SeqCst), 4);
        assert!(event.is_set() && event.wait_timeout(Duration::ZERO));
        event.clear();
        assert!(!event.is_set() && !event.wait_timeout(ms(1)));
        assert!(!event.wait_deadline(Instant::now()));
    });
}

#[test]
fn an_event_that_is_cleared_at_once_wakes_those_that_waited() {
    util::on_workers(1, || {
        let event = Arc::new(Event::new());
        let waits = [(); 3].map(|()| {
            let event = Arc::clone(&event);
            spawn(move || event.wait_timeout(LONG))
        });
        (0..10).for_each(|_| yield_now());
        event.set();
        event.clear();
        assert!(
            waits
                .map(|waits| waits.join().unwrap())
                .iter()
                .all(|&set| set)
        );
        assert!(!event.wait_timeout(ms(1)));
    });
}

#[test]
fn a_value_is_set_once_and_seen_by_all() {
    everywhere(|| {
        let value = Arc::new(ValueEvent::new());
        assert!(value.get().is_none() && value.wait_timeout(ms(1)).is_none());
        let sets = {
            let value = Arc::clone(&value);
            spawn(move || {
                util::settle();
                [value.set(1), value.set(2)]
            })
        };
        let waits = Arc::clone(&value);
        let seen = four(move |n| match n % 2 {
            0 => *waits.wait(),
            _ => *waits.wait_deadline(Instant::now() + LONG).unwrap(),
        });
        assert_eq!(seen, [1; 4]);
        assert_eq!(
            sets.join().unwrap(),
            [Ok(()), Err(2)],
            "the second one comes back"
        );
        assert_eq!(
            Arc::into_inner(value).and_then(ValueEvent::into_inner),
            Some(1)
        );
    });
}

// ---------------------------------------------------------- semaphores

#[test]
fn no_more_hold_permits_than_there_are() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let semaphore = Arc::new(Semaphore::new(3));
            let (inside, most) = (counter(), counter());
            let takes = {
                let (semaphore, most) = (Arc::clone(&semaphore), Arc::clone(&most));
                move |n: usize| {
                    for round in 0..200 {
                        let count = 1 + (n + round) % 3;
                        let permit = semaphore.acquire_many(count);
                        assert_eq!(permit.count(), count);
                        let now = inside.fetch_add(count, SeqCst) + count;
                        most.fetch_max(now, SeqCst);
                        if round % 16 == 0 {
                            greenroom::shims::thread::yield_now();
                        }
                        inside.fetch_sub(count, SeqCst);
                    }
                }
            };
            four(takes);
            assert!((1..=3).contains(&most.load(SeqCst)));
            assert_eq!(semaphore.available_permits(), 3, "all came back");
        });
    }
}

#[test]
fn nothing_overtakes_a_waiter_that_needs_many_permits() {
    util::on_workers(1, || {
        let semaphore = Arc::new(Semaphore::new(2));
        let held = semaphore.acquire_many(2);
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let takers: Vec<_> = [3, 1, 1]
            .into_iter()
            .enumerate()
            .map(|(name, count)| {
                let (semaphore, order) = (Arc::clone(&semaphore), Arc::clone(&order));
                let taker = spawn(move || {
                    let _permit = semaphore.acquire_many(count);
                    order.lock().unwrap().push(name);
                });
                yield_now();
                taker
            })
            .collect();
        drop(held);
        yield_now();
        assert!(order.lock().unwrap().is_empty(), "the first needs one more");
        assert!(
            semaphore.try_acquire().is_none(),
            "others wait for what is free"
        );
        semaphore.add_permits(1);
        takers.into_iter().for_each(|taker| taker.join().unwrap());
        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
        assert_eq!(semaphore.available_permits(), 3);
    });
}

#[test]
fn those_behind_a_waiter_that_gives_up_go_on() {
    everywhere(|| {
        let semaphore = Arc::new(Semaphore::new(1));
        let first = {
            let semaphore = Arc::clone(&semaphore);
            spawn(move || semaphore.acquire_many_timeout(2, ms(100)).is_none())
        };
        util::settle();
        // One permit is free, but the first one waits for two.
        let got = semaphore.acquire_timeout(LONG);
        assert!(got.is_some());
        assert!(first.join().unwrap());
        drop(got);
        assert_eq!(semaphore.available_permits(), 1);
    });
}

#[test]
fn a_timeout_takes_no_permit() {
    everywhere(|| {
        let semaphore = Arc::new(Semaphore::new(1));
        let held = semaphore.acquire();
        assert!(semaphore.try_acquire().is_none());
        assert!(semaphore.acquire_timeout(ms(1)).is_none());
        assert!(semaphore.acquire_deadline(Instant::now()).is_none());
        drop(held);
        let owned = semaphore.acquire_owned();
        assert_eq!(semaphore.available_permits(), 0);
        drop(owned);
        semaphore.acquire_owned().forget();
        assert!(semaphore.try_acquire().is_none());
        semaphore.add_permits(2);
        semaphore.try_acquire().unwrap().forget();
        assert_eq!(semaphore.available_permits(), 1);
        let message = util::message_of(|| semaphore.add_permits(usize::MAX));
        assert!(message.contains("too many permits"), "{message}");
    });
}

// ---------------------------------------------------------- wait groups

#[test]
fn a_wait_group_waits_for_all_its_members() {
    everywhere(|| {
        let group = WaitGroup::new();
        let done = counter();
        for n in 0..6 {
            let (member, done) = (group.clone(), Arc::clone(&done));
            let works = move || {
                greenroom::shims::thread::sleep(ms(n));
                done.fetch_add(1, SeqCst);
                drop(member);
            };
            match n % 2 {
                0 => drop(spawn(works)),
                _ => drop(std::thread::spawn(works)),
            }
        }
        group.wait();
        assert_eq!(done.load(SeqCst), 6);
    });
}

#[test]
fn a_wait_group_that_is_not_done_in_time_can_be_waited_for_again() {
    everywhere(|| {
        let group = WaitGroup::new();
        let member = group.clone();
        let group = group.wait_timeout(ms(1)).unwrap_err();
        let group = group.wait_deadline(Instant::now()).unwrap_err();
        assert_eq!(group.members(), 2);
        let done = spawn(move || {
            util::settle();
            drop(member);
        });
        group.wait_timeout(LONG).unwrap();
        done.join().unwrap();
        WaitGroup::new().wait();
    });
}

// ---------------------------------------------------------- queues

#[test]
fn a_queue_knows_when_all_its_work_is_done() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            for queue in [Queue::bounded(0), Queue::bounded(3), Queue::unbounded()] {
                let queue = Arc::new(queue);
                let done = counter();
                let workers: Vec<_> = (0..3)
                    .map(|_| {
                        let (queue, done) = (Arc::clone(&queue), Arc::clone(&done));
                        spawn(move || {
                            while let Ok(n) = queue.get() {
                                yield_now();
                                done.fetch_add(n, SeqCst);
                                queue.task_done();
                            }
                        })
                    })
                    .collect();
                for round in 1..=3 {
                    (0..50).for_each(|_| queue.put(1).unwrap());
                    queue.join();
                    assert_eq!(done.load(SeqCst), 50 * round);
                }
                queue.close();
                workers
                    .into_iter()
                    .for_each(|worker| worker.join().unwrap());
            }
        });
    }
}

/// Between the end of one item and the wake-ups for it, another item may be put, and joined.
#[test]
fn a_join_of_a_queue_waits_for_the_items_that_were_put_before_it() {
    const ROUNDS: usize = 3_000;
    util::on_an_os_thread(|| {
        let queue = Queue::<(Duration, Arc<AtomicBool>)>::unbounded();
        let is_over = AtomicBool::new(false);
        let put = |takes| {
            let is_done = Arc::new(AtomicBool::new(false));
            queue.put((takes, Arc::clone(&is_done))).unwrap();
            is_done
        };
        let early = std::thread::scope(|s| {
            s.spawn(|| {
                while let Ok((takes, is_done)) = queue.get() {
                    std::thread::sleep(takes);
                    is_done.store(true, SeqCst);
                    queue.task_done();
                }
            });
            // Others that join keep those that wake waiting for the lock.
            for _ in 0..2 {
                s.spawn(|| {
                    while !is_over.load(SeqCst) {
                        queue.join_timeout(Duration::ZERO);
                    }
                });
            }
            let is_early = |_: &usize| {
                put(Duration::ZERO);
                while queue.unfinished() != 0 {
                    std::thread::yield_now();
                }
                let is_done = put(Duration::from_micros(1));
                queue.join();
                !is_done.load(SeqCst)
            };
            let early = (0..ROUNDS).filter(is_early).count();
            is_over.store(true, SeqCst);
            queue.close();
            early
        });
        assert_eq!(early, 0, "of {ROUNDS} joins");
    });
}

#[test]
fn a_queue_that_is_full_or_closed_gives_the_item_back() {
    everywhere(|| {
        let queue = Queue::bounded(1);
        queue.put(1).unwrap();
        assert_eq!(queue.try_put(2), Err(TrySendError::Full(2)));
        assert_eq!(queue.put_timeout(2, ms(1)).unwrap_err().into_inner(), 2);
        assert_eq!(
            (queue.len(), queue.is_full(), queue.capacity()),
            (1, true, Some(1))
        );
        assert_eq!(queue.unfinished(), 1, "what was not put is not counted");
        assert!(!queue.join_timeout(ms(1)));
        queue.close();
        assert_eq!(queue.put(3), Err(SendError(3)));
        assert_eq!(queue.get(), Ok(1));
        assert!(!queue.join_deadline(Instant::now()), "taken, not done");
        queue.task_done();
        queue.join();
        assert!(queue.join_timeout(LONG) && queue.is_empty());
        assert_eq!(queue.get(), Err(RecvError));
        assert_eq!(queue.try_get(), Err(TryRecvError::Disconnected));
        let message = util::message_of(|| queue.task_done());
        assert!(message.contains("more often than items"), "{message}");
        let empty = Queue::<u8>::unbounded();
        assert_eq!(empty.get_timeout(ms(1)), Err(RecvTimeoutError::Timeout));
    });
}

// ---------------------------------------------------------- barriers

#[test]
fn a_barrier_lets_full_rounds_pass() {
    everywhere(|| {
        let barrier = Arc::new(Barrier::new(4));
        let rounds = counter();
        let meets = {
            let (barrier, rounds) = (Arc::clone(&barrier), Arc::clone(&rounds));
            move |_| {
                let mut last = 0;
                for round in 0..50 {
                    assert!(rounds.load(SeqCst) <= round, "nobody is a round ahead");
                    let before = match round % 2 {
                        0 => barrier.wait().unwrap(),
                        _ => barrier.wait_timeout(LONG).unwrap(),
                    };
                    if before == 3 {
                        last += 1;
                    }
                    let _ = barrier.wait().unwrap();
                    rounds.fetch_max(round + 1, SeqCst);
                }
                last
            }
        };
        let last: usize = four(meets).into_iter().sum();
        assert_eq!(last, 50, "one of each round is the last");
        assert_eq!((barrier.waiting(), barrier.size()), (0, 4));
        assert_eq!(Barrier::new(0).wait(), Ok(0));
    });
}

#[test]
fn aborting_and_timing_out_break_a_barrier_for_all() {
    everywhere(|| {
        for aborts in [true, false] {
            let barrier = Arc::new(Barrier::new(4));
            let waits = [(); 2].map(|()| {
                let barrier = Arc::clone(&barrier);
                spawn(move || barrier.wait())
            });
            util::until("both wait", || barrier.waiting() == 2);
            match aborts {
                true => barrier.abort(),
                false => {
                    assert_eq!(barrier.wait_timeout(ms(1)), Err(BarrierError::TimedOut));
                }
            }
            for waits in waits {
                assert_eq!(waits.join().unwrap(), Err(BarrierError::Broken));
            }
            assert!(barrier.is_broken());
            assert_eq!(barrier.wait(), Err(BarrierError::Broken));
            barrier.reset();
            assert!(!barrier.is_broken() && barrier.waiting() == 0);
            let all = Arc::clone(&barrier);
            assert!(four(move |_| all.wait()).iter().all(Result::is_ok));
        }
    });
}

#[test]
fn resetting_a_barrier_sends_those_that_wait_away() {
    everywhere(|| {
        let barrier = Arc::new(Barrier::new(2));
        let waits = {
            let barrier = Arc::clone(&barrier);
            spawn(move || barrier.wait())
        };
        util::until("one waits", || barrier.waiting() == 1);
        barrier.reset();
        assert_eq!(waits.join().unwrap(), Err(BarrierError::Broken));
        assert!(!barrier.is_broken());
    });
}

#[test]
fn a_caller_that_was_cancelled_before_it_arrives_breaks_the_barrier() {
    everywhere(|| {
        let barrier = Arc::new(Barrier::new(3));
        let waits = {
            let barrier = Arc::clone(&barrier);
            spawn(move || barrier.wait())
        };
        util::until("one waits", || barrier.waiting() == 1);
        let comes = {
            let barrier = Arc::clone(&barrier);
            util::begin_cancelled(move || barrier.wait())
        };
        assert!(comes.join().unwrap_err().is::<Cancelled>());
        assert!(barrier.is_broken());
        assert_eq!(barrier.waiting(), 0);
        assert_eq!(waits.join().unwrap(), Err(BarrierError::Broken));
    });
}

// ---------------------------------------------------------- interrupts

/// Each wait unwinds when its runtime ends, and leaves no waiter behind.
#[test]
fn all_waits_are_interruption_points_and_leave_nothing() {
    util::on_an_os_thread(|| {
        let event = Arc::new(Event::new());
        let value = Arc::new(ValueEvent::new());
        let semaphore = Arc::new(Semaphore::new(1));
        let group = WaitGroup::new();
        let queue = Arc::new(Queue::bounded(1));
        let barrier = Arc::new(Barrier::new(2));
        queue.put(0).unwrap();
        let unwound = counter();
        let waits: [Box<dyn FnOnce() + Send>; 7] = [
            Box::new({
                let event = Arc::clone(&event);
                move || event.wait()
            }),
            Box::new({
                let value = Arc::clone(&value);
                move || assert_eq!(value.wait(), &1)
            }),
            Box::new({
                let semaphore = Arc::clone(&semaphore);
                move || semaphore.acquire_many(2).forget()
            }),
            Box::new({
                let group = group.clone();
                move || group.wait()
            }),
            Box::new({
                let queue = Arc::clone(&queue);
                move || queue.put(1).unwrap()
            }),
            Box::new({
                let queue = Arc::clone(&queue);
                move || queue.join()
            }),
            Box::new({
                let barrier = Arc::clone(&barrier);
                move || assert_eq!(barrier.wait(), Ok(0))
            }),
        ];
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        runtime.run(|| {
            for wait in waits {
                let unwound = Arc::clone(&unwound);
                spawn(move || {
                    let payload = catch_unwind(AssertUnwindSafe(wait)).unwrap_err();
                    unwound.fetch_add(usize::from(payload.is::<Cancelled>()), SeqCst);
                });
            }
            park_timeout(ms(5));
        });
        drop(runtime);
        assert_eq!(unwound.load(SeqCst), 7);
        event.set();
        value.set(1).unwrap();
        assert!(
            semaphore.try_acquire().is_some(),
            "nobody waits for permits"
        );
        group.wait();
        assert_eq!((queue.unfinished(), queue.len()), (1, 1));
        assert!(
            barrier.is_broken(),
            "its other waiters must not wait for ever"
        );
    });
}

/// Counts what is taken and given back, while waits time out at random.
#[test]
fn permits_are_neither_lost_nor_doubled_under_timeouts() {
    util::on_workers(4, || {
        let semaphore = Arc::new(Semaphore::new(2));
        let served = Arc::new(AtomicUsize::new(0));
        let takes = {
            let (semaphore, served) = (Arc::clone(&semaphore), Arc::clone(&served));
            move |n: usize| {
                for round in 0..300 {
                    let timeout = Duration::from_micros(((n * 7 + round * 13) % 40) as u64);
                    if let Some(_permit) = semaphore.acquire_many_timeout(1 + round % 2, timeout) {
                        served.fetch_add(1, SeqCst);
                        greenroom::shims::thread::sleep(Duration::from_micros(10));
                    }
                }
            }
        };
        four(takes);
        assert!(served.load(SeqCst) > 0);
        assert_eq!(semaphore.available_permits(), 2);
    });
}
