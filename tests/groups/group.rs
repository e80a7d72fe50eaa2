//! Groups: the limit, the results, the end.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use greenroom::shims::sync::{Barrier, mpsc};
use greenroom::shims::thread::sleep;
use greenroom::{Builder, Cancelled, Full, Group, scope, spawn, timeout};

use crate::Gauge;
use crate::util::{PATIENCE, everywhere, message_of, ms, on_workers, until};

fn forever() {
    sleep(std::time::Duration::MAX);
}

#[test]
fn no_more_members_run_than_the_limit_allows_and_all_run() {
    everywhere(|| {
        let group = Group::bounded(3);
        let gauge = Arc::new(Gauge::default());
        let three = Arc::new(Barrier::new(3));
        for _ in 0..30 {
            let (gauge, three) = (Arc::clone(&gauge), Arc::clone(&three));
            group.spawn(move || {
                let _inside = gauge.enter();
                three.wait();
            });
            assert!(group.len() <= 3);
        }
        group.join().unwrap();
        assert!(group.is_empty() && !group.is_full());
        assert_eq!((gauge.entered(), gauge.most()), (30, 3));
    });
}

#[test]
fn a_full_group_gives_the_closure_back() {
    everywhere(|| {
        let group = Group::bounded(1);
        let first = group.try_spawn(forever).expect("there is room");
        assert!(group.is_full() && group.try_reserve().is_none());
        let Err(Full(returned)) = group.try_spawn(|| 7) else {
            panic!("it is full")
        };
        assert_eq!(returned(), 7);
        first.cancel();
        assert!(first.join().unwrap_err().is::<Cancelled>());
        until("the room is given back", || !group.is_full());
        assert_eq!(group.try_spawn(returned).unwrap().join().unwrap(), 7);
        assert_eq!((group.limit(), Group::new().limit()), (Some(1), None));
    });
}

#[test]
fn those_that_wait_for_room_are_served_in_order() {
    on_workers(1, || {
        let group = Arc::new(Group::bounded(1));
        let room = group.reserve();
        let (log, logged) = mpsc::channel();
        for n in 0..5 {
            let (group, log) = (Arc::clone(&group), log.clone());
            spawn(move || {
                let log = group.reserve().spawn(move || log.send(n).unwrap());
                log.join().unwrap();
            });
            greenroom::yield_now();
        }
        drop(log);
        // Nobody gets ahead of those that wait.
        drop(room);
        assert!(group.try_reserve().is_none());
        assert_eq!(logged.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    });
}

#[test]
fn an_interrupted_wait_for_room_takes_none() {
    everywhere(|| {
        let group = Group::bounded(1);
        let room = group.reserve();
        assert!(timeout(ms(2), || group.spawn(|| ())).is_err());
        drop(room);
        assert!(!group.is_full());
        assert!(timeout(PATIENCE, || group.spawn(|| ()).join()).is_ok());
    });
}

#[test]
fn map_returns_the_results_in_order_and_may_borrow() {
    everywhere(|| {
        let words = [String::from("one"), String::from("three"), String::new()];
        let group = Group::bounded(2);
        let lengths = group.map(&words, |word| {
            sleep(ms(3 - word.len().min(3) as u64));
            assert!(!word.is_empty(), "an empty word");
            word.len()
        });
        let lengths: Vec<_> = lengths.into_iter().map(Result::ok).collect();
        assert_eq!(lengths, [Some(3), Some(5), None]);
        assert!(group.is_empty());
        assert!(group.join().is_ok(), "the panic was a result");
    });
}

#[test]
fn an_interrupted_map_has_ended_its_calls_when_it_unwinds() {
    on_workers(2, || {
        let group = Group::bounded(2);
        let gauge = Gauge::default();
        scope(|s| {
            let mapper = s.spawn(|| {
                group.map(0..4, |_| {
                    let _inside = gauge.enter();
                    forever();
                })
            });
            until("two calls have begun", || gauge.inside() == 2);
            mapper.cancel();
            assert!(mapper.join().unwrap_err().is::<Cancelled>());
        });
        assert_eq!((gauge.entered(), gauge.inside()), (2, 0));
        assert!(group.is_empty());
    });
}

#[test]
fn imap_is_lazy_ordered_and_bounded() {
    everywhere(|| {
        let group = Group::bounded(3);
        let gauge = Arc::new(Gauge::default());
        let taken = Arc::new(AtomicUsize::new(0));
        let items = (0..).inspect({
            let taken = Arc::clone(&taken);
            move |_| {
                taken.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut results = group.imap(items, {
            let gauge = Arc::clone(&gauge);
            move |n: u64| {
                let _inside = gauge.enter();
                sleep(ms(3 - n % 3));
                assert_ne!(n, 4, "four");
                n * 10
            }
        });
        assert_eq!(taken.load(Ordering::Relaxed), 0);
        let first: Vec<_> = results.by_ref().take(6).map(Result::ok).collect();
        assert_eq!(
            first,
            [Some(0), Some(10), Some(20), Some(30), None, Some(50)]
        );
        assert!(gauge.most() <= 3);
        let taken = taken.load(Ordering::Relaxed);
        assert!(taken <= 6 + 4, "{taken} items");
        drop(results);
        group.join().unwrap();
        assert_eq!(gauge.inside(), 0, "what nobody asks for is cancelled");
    });
}

#[test]
fn imap_unordered_yields_what_ends_first_and_each_result_once() {
    everywhere(|| {
        let group = Group::bounded(4);
        let another = Arc::new(AtomicBool::new(false));
        let is_there = Arc::clone(&another);
        let results = group.imap_unordered(0..40_u64, move |n| {
            match n {
                0 => until("another result is there", || {
                    is_there.load(Ordering::Relaxed)
                }),
                _ => sleep(ms(n % 3)),
            }
            n
        });
        let results = results.inspect(|_| another.store(true, Ordering::Relaxed));
        let results: Vec<_> = results.map(Result::unwrap).collect();
        assert_ne!(results[0], 0, "the slow one does not hold up the others");
        let mut sorted = results;
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..40));
        let none = group.imap_unordered([0_u64; 0], |n| n);
        assert_eq!(none.count(), 0);
    });
}

#[test]
fn failures_and_cancellations_of_calls_are_results_of_imap_unordered() {
    on_workers(1, || {
        let group = Group::new();
        let mut results = group.imap_unordered(0..3, |n| match n {
            0 => resume_unwind(Box::new("no luck")),
            _ => forever(),
        });
        let failure = results.next().unwrap().unwrap_err();
        assert_eq!(failure.downcast_ref(), Some(&"no luck"));
        group.cancel();
        for _ in 0..2 {
            assert!(results.next().unwrap().unwrap_err().is::<Cancelled>());
        }
        assert!(results.next().is_none());
        // Calls that never run report, too.
        let mut results = group.imap_unordered(0..2, |n| n);
        drop(results.next());
        drop(results);
        group.join().unwrap();
    });
}

#[test]
fn join_returns_the_first_panic_that_was_not_joined_once() {
    everywhere(|| {
        let group = Group::new();
        let joined = group.spawn(|| -> () { resume_unwind(Box::new(1)) });
        assert_eq!(joined.join().unwrap_err().downcast_ref(), Some(&1));
        group.spawn(|| resume_unwind(Box::new(2)));
        let failure = group.join().unwrap_err();
        assert_eq!(failure.downcast_ref(), Some(&2));
        group.join().unwrap();
        // The handle may be dropped after the end, too.
        let late = group.spawn(|| resume_unwind(Box::new(3)));
        until("it has ended", || late.is_finished());
        drop(late);
        assert_eq!(group.join().unwrap_err().downcast_ref(), Some(&3));
        // A cancellation is no failure.
        group.spawn(forever);
        assert!(group.cancel_wait(PATIENCE));
        group.join().unwrap();
    });
}

#[test]
fn join_waits_for_members_that_are_spawned_meanwhile() {
    on_workers(2, || {
        let group = Arc::new(Group::new());
        let ended = Arc::new(AtomicBool::new(false));
        group.spawn({
            let (group, ended) = (Arc::clone(&group), Arc::clone(&ended));
            move || {
                group.spawn(move || {
                    sleep(ms(5));
                    ended.store(true, Ordering::Release);
                });
            }
        });
        group.join().unwrap();
        assert!(ended.load(Ordering::Acquire));
    });
}

#[test]
fn join_timeout_and_cancel_wait_say_whether_all_have_ended() {
    everywhere(|| {
        let group = Group::new();
        group.spawn(forever);
        assert!(group.join_timeout(ms(2)).is_none());
        assert_eq!(group.len(), 1);
        let (release, released) = mpsc::channel::<()>();
        let (reached, is_reached) = mpsc::channel();
        let stubborn = group.spawn(move || {
            greenroom::shield(|| {
                reached.send(()).unwrap();
                released.recv().unwrap();
            });
        });
        is_reached.recv().unwrap();
        assert!(!group.cancel_wait(ms(2)), "one is shielded");
        release.send(()).unwrap();
        assert!(group.cancel_wait(PATIENCE));
        assert!(stubborn.join().is_ok(), "it has met no interruption point");
        assert!(group.spawn(|| ()).join().is_ok(), "the group is usable");
    });
}

#[test]
fn members_that_are_spawned_while_the_group_is_cancelled_are_cancelled() {
    on_workers(1, || {
        let group = Arc::new(Group::new());
        let again = Arc::clone(&group);
        group.spawn(move || {
            let _spawns = SpawnsOnDrop(again);
            forever();
        });
        sleep(ms(2));
        assert!(group.cancel_wait(PATIENCE));
        assert!(group.is_empty());
    });
}

struct SpawnsOnDrop(Arc<Group>);

impl Drop for SpawnsOnDrop {
    fn drop(&mut self) {
        self.0.spawn(forever);
    }
}

#[test]
fn dropping_a_group_cancels_its_members_and_detaching_it_does_not() {
    everywhere(|| {
        let group = Group::new();
        let member = group.spawn(forever);
        drop(group);
        assert!(member.join().unwrap_err().is::<Cancelled>());
        let group = Group::new();
        let (tell, told) = mpsc::channel();
        let member = group.spawn(move || told.recv().unwrap());
        group.detach();
        tell.send(7).unwrap();
        assert_eq!(member.join().unwrap(), 7);
    });
}

#[test]
fn a_member_of_a_scope_is_bounded_by_the_group_and_waited_for_by_the_scope() {
    everywhere(|| {
        let group = Group::bounded(2);
        let gauge = Gauge::default();
        scope(|s| {
            for _ in 0..8 {
                group.spawn_scoped(s, || {
                    let _inside = gauge.enter();
                    sleep(ms(1));
                });
            }
        });
        assert_eq!(gauge.entered(), 8);
        assert!(gauge.most() <= 2);
        assert!(group.is_empty());
        let panics = message_of(|| {
            scope(|s| {
                group.spawn_scoped(s, || resume_unwind(Box::new(())));
            });
        });
        assert_eq!(panics, "a scoped thread panicked");
        group.join().unwrap();
        let cancelled = scope(|s| {
            let member = group.spawn_scoped(s, forever);
            group.cancel();
            member.join()
        });
        assert!(cancelled.unwrap_err().is::<Cancelled>());
    });
}

#[test]
fn builders_name_members() {
    on_workers(1, || {
        let group = Group::bounded(1);
        let name = || greenroom::current().name().map(str::to_owned);
        let builder = Builder::new().name("member".into());
        let named = builder.spawn_in_group(&group, name).unwrap();
        assert_eq!(named.join().unwrap().as_deref(), Some("member"));
        let too_large = Builder::new().stack_size(usize::MAX);
        assert!(too_large.spawn_in_group(&group, || ()).is_err());
        until("the room is given back", || !group.is_full());
    });
}

#[test]
fn a_member_that_joins_its_group_panics() {
    on_workers(1, || {
        let group = Arc::new(Group::new());
        let own = Arc::clone(&group);
        let member = group.spawn(move || message_of(|| own.join()));
        assert!(member.join().unwrap().contains("waits for ever"));
    });
}

#[test]
fn members_of_many_workers_come_and_go() {
    on_workers(4, || {
        let group = Arc::new(Group::bounded(5));
        let gauge = Arc::new(Gauge::default());
        let spawners: Vec<_> = (0..8)
            .map(|_| {
                let (group, gauge) = (Arc::clone(&group), Arc::clone(&gauge));
                spawn(move || {
                    for _ in 0..100 {
                        let gauge = Arc::clone(&gauge);
                        group.spawn(move || {
                            let _inside = gauge.enter();
                            greenroom::yield_now();
                        });
                    }
                })
            })
            .collect();
        greenroom::try_join_all(spawners).unwrap();
        group.join().unwrap();
        assert_eq!(gauge.entered(), 800);
        assert!(gauge.most() <= 5);
    });
}

#[test]
fn a_call_of_imap_that_is_interrupted_leaves_its_result_for_the_next_call() {
    on_workers(1, || {
        let group = Group::bounded(2);
        let mut results = group.imap(0..4, |n| {
            sleep(ms(10));
            n
        });
        let mut got = Vec::new();
        loop {
            match timeout(ms(2), || results.next()) {
                Ok(Some(result)) => got.push(result.unwrap()),
                Ok(None) => break,
                Err(_) => {}
            }
        }
        assert_eq!(got, [0, 1, 2, 3]);
    });
}

/// A coroutine that has used up its turn would be interrupted when it reports.
#[test]
fn a_cancelled_call_of_imap_unordered_reports_however_many_operations_it_has_made() {
    on_workers(1, || {
        for operations in 0..70 {
            let group = Arc::new(Group::new());
            let mut results = group.imap_unordered(0..3, {
                let group = Arc::clone(&group);
                move |_| {
                    let (sender, _receiver) = mpsc::channel();
                    for n in 0..operations {
                        sender.send(n).unwrap();
                    }
                    group.cancel();
                }
            });
            let reports = std::iter::from_fn(|| timeout(PATIENCE, || results.next()).unwrap());
            assert_eq!(reports.count(), 3, "after {operations} operations");
        }
    });
}
