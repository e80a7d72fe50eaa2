//! Waiting for several coroutines: all, any, some, and the first failure.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greenroom::shims::sync::mpsc;
use greenroom::shims::thread::sleep;
use greenroom::{
    Builder, Cancelled, Deadline, JoinHandle, Joinable, join_all, join_any, join_thread, scope,
    spawn, spawn_local, timeout, try_join_all, try_join_all_by, wait_all, wait_any, wait_count,
};

use crate::util::{PATIENCE, everywhere, message, ms, on_workers, until};

fn sleeper() -> JoinHandle<()> {
    spawn(|| sleep(Duration::MAX))
}

/// Coroutines that return what they are told to.
struct Told {
    tell: Vec<mpsc::Sender<u32>>,
    handles: Vec<JoinHandle<u32>>,
}

impl Told {
    fn new(count: usize) -> Told {
        let (tell, handles) = (0..count)
            .map(|_| {
                let (tell, told) = mpsc::channel();
                (tell, spawn(move || told.recv().unwrap()))
            })
            .unzip();
        Told { tell, handles }
    }

    fn tell(&self, index: usize) {
        self.tell[index].send(index as u32).unwrap();
    }
}

#[test]
fn join_all_returns_all_results_in_the_order_of_the_handles() {
    everywhere(|| {
        let told = Told::new(3);
        for index in [2, 0, 1] {
            told.tell(index);
        }
        let failing = spawn(|| -> u32 { resume_unwind(Box::new("no luck")) });
        let mut results = join_all(told.handles.into_iter().chain([failing]));
        let failure = results.pop().unwrap().unwrap_err();
        assert_eq!(failure.downcast_ref(), Some(&"no luck"));
        let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
        assert_eq!(results, [0, 1, 2]);
        assert!(join_all([0; 0].map(|_| sleeper())).is_empty());
    });
}

#[test]
fn two_waits_joined_together_take_as_long_as_one() {
    on_workers(1, || {
        // One after the other, they would never take less than 600 ms. On a busy machine, one of several attempts
        // is enough.
        let attempts = (0..10).map(|_| {
            let start = Instant::now();
            let fetches = [(); 2].map(|()| spawn(|| sleep(ms(300))));
            assert!(join_all(fetches).into_iter().all(|result| result.is_ok()));
            let took = start.elapsed();
            assert!(took >= ms(300), "{took:?}");
            took
        });
        let mut attempts = attempts.inspect(|took| eprintln!("{took:?}"));
        assert!(attempts.any(|took| took < ms(550)));
    });
}

#[test]
fn join_any_returns_the_coroutines_in_the_order_of_their_ends() {
    everywhere(|| {
        let Told { tell, mut handles } = Told::new(3);
        let mut left = vec![0, 1, 2];
        for told in [1, 2, 0] {
            tell[told].send(told as u32).unwrap();
            let (index, result) = join_any(&mut handles).unwrap();
            assert_eq!(result.unwrap(), told as u32);
            assert_eq!(left.remove(index), told);
        }
        assert!(join_any(&mut handles).is_none());
    });
}

#[test]
fn the_first_failure_ends_try_join_all_and_cancels_the_rest() {
    everywhere(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let sleepers = (0..10).map(|_| {
            let dropped = CountsDrop(Arc::clone(&dropped));
            spawn(move || {
                let _dropped = dropped;
                sleep(Duration::MAX);
            })
        });
        let failing = spawn(|| {
            sleep(ms(2));
            resume_unwind(Box::new("no luck"))
        });
        let failure = try_join_all(sleepers.chain([failing])).unwrap_err();
        assert_eq!(failure.downcast_ref(), Some(&"no luck"));
        assert_eq!(
            dropped.load(Ordering::SeqCst),
            10,
            "all have ended before the failure is returned"
        );
    });
}

#[test]
fn try_join_all_without_a_failure_returns_the_values_in_order() {
    everywhere(|| {
        let told = Told::new(4);
        for index in [3, 1, 2, 0] {
            told.tell(index);
        }
        assert_eq!(try_join_all(told.handles).unwrap(), [0, 1, 2, 3]);
    });
}

#[test]
fn an_error_by_the_callers_own_judgement_ends_try_join_all_by() {
    everywhere(|| {
        let words = ["1", "x", "3"].map(|word| spawn(move || word.parse::<u32>()));
        assert!(try_join_all_by(words, |joined| joined.unwrap()).is_err());
        let words = ["1", "2"].map(|word| spawn(move || word.parse::<u32>()));
        assert_eq!(
            try_join_all_by(words, |joined| joined.unwrap()).unwrap(),
            [1, 2]
        );
    });
}

struct CountsDrop(Arc<AtomicUsize>);

impl Drop for CountsDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn the_waits_leave_the_handles_usable() {
    everywhere(|| {
        let mut told = Told::new(3);
        let soon = || Deadline::after(ms(1));
        assert_eq!(wait_any(&mut told.handles, soon()), None);
        assert!(!wait_all(&mut told.handles, soon()));
        assert_eq!(wait_count(&mut told.handles, 2, soon()), 0);
        told.tell(1);
        assert_eq!(wait_any(&mut told.handles, Deadline::NEVER), Some(1));
        assert_eq!(wait_count(&mut told.handles, 2, soon()), 1);
        told.tell(2);
        assert_eq!(wait_count(&mut told.handles, 2, Deadline::NEVER), 2);
        assert!(!wait_all(&mut told.handles, soon()));
        told.tell(0);
        assert!(wait_all(&mut told.handles, Deadline::NEVER));
        assert_eq!(wait_count(&mut told.handles, 9, Deadline::NEVER), 3);
        let results = told
            .handles
            .into_iter()
            .map(|handle| handle.join().unwrap());
        assert_eq!(results.collect::<Vec<_>>(), [0, 1, 2]);
    });
}

#[test]
fn nothing_is_waited_for_where_there_is_nothing() {
    everywhere(|| {
        let mut none: [JoinHandle<()>; 0] = [];
        assert_eq!(wait_any(&mut none, Deadline::NEVER), None);
        assert!(wait_all(&mut none, Deadline::NEVER));
        assert_eq!(wait_count(&mut none, 3, Deadline::NEVER), 0);
    });
}

#[test]
fn handles_of_scopes_local_coroutines_and_mixed_ones_are_waited_for() {
    on_workers(2, || {
        let words = [String::from("one"), String::from("three")];
        scope(|s| {
            let mut lengths: Vec<_> = words.iter().map(|word| s.spawn(|| word.len())).collect();
            assert!(wait_all(&mut lengths, Deadline::NEVER));
            let mut local = spawn_local(|| 7_usize);
            let mut far = spawn(|| 8_usize);
            let [first, second] = &mut lengths[..] else {
                panic!("two")
            };
            let mixed: [&mut dyn Joinable<Output = usize>; 4] =
                [first, second, &mut local, &mut far];
            assert_eq!(wait_count(mixed, 4, Deadline::NEVER), 4);
            assert_eq!(try_join_all(lengths).unwrap(), [3, 5]);
            assert_eq!(local.join().unwrap() + far.join().unwrap(), 15);
        });
    });
}

#[test]
fn a_wait_for_several_is_woken_once() {
    on_workers(1, || {
        let mut told = Told::new(4);
        let waiter = spawn({
            let mut handles = std::mem::take(&mut told.handles);
            move || {
                assert_eq!(wait_count(&mut handles, 3, Deadline::NEVER), 3);
                handles
            }
        });
        sleep(ms(2));
        for index in [3, 0] {
            told.tell(index);
            sleep(ms(2));
            assert!(!waiter.is_finished());
        }
        told.tell(1);
        let mut handles = waiter.join().unwrap();
        assert_eq!(wait_any(&mut handles, Deadline::NEVER), Some(0));
        told.tell(2);
        assert!(wait_all(&mut handles, Deadline::NEVER));
    });
}

#[test]
fn interrupted_waits_leave_nothing_behind() {
    everywhere(|| {
        let mut told = Told::new(3);
        for _ in 0..50 {
            let waited = timeout(Duration::from_micros(50), || {
                wait_any(&mut told.handles, Deadline::NEVER)
            });
            assert!(waited.is_err());
        }
        (0..3).for_each(|index| told.tell(index));
        assert!(wait_all(&mut told.handles, Deadline::NEVER));
        let results = join_all(told.handles).into_iter().map(Result::unwrap);
        assert_eq!(results.sum::<u32>(), 3);
    });
}

#[test]
fn a_cancelled_wait_for_any_unwinds_and_a_cancelled_first_error_join_cancels() {
    on_workers(1, || {
        let dropped = Arc::new(AtomicUsize::new(0));
        let sleepers: Vec<_> = (0..3)
            .map(|_| {
                let dropped = CountsDrop(Arc::clone(&dropped));
                spawn(move || {
                    let _dropped = dropped;
                    sleep(Duration::MAX);
                })
            })
            .collect();
        let joiner = spawn(move || try_join_all(sleepers).is_ok());
        sleep(ms(2));
        joiner.cancel();
        assert!(joiner.join().unwrap_err().is::<Cancelled>());
        until("the members were cancelled", || {
            dropped.load(Ordering::SeqCst) == 3
        });
    });
}

#[test]
fn ends_race_with_waits_and_deadlines() {
    on_workers(4, || {
        for round in 0..200_u64 {
            let mut handles: Vec<_> = (0..8)
                .map(|n| {
                    spawn(move || {
                        for _ in 0..(round + n) % 5 {
                            greenroom::yield_now();
                        }
                        n
                    })
                })
                .collect();
            let mut count = 1;
            while count < 8 {
                let deadline = Deadline::after(Duration::from_micros(round % 40));
                let ended = wait_count(&mut handles, count, deadline);
                count = (ended + 1).max(count);
            }
            let sum: u64 = join_all(handles).into_iter().map(Result::unwrap).sum();
            assert_eq!(sum, 28);
        }
    });
}

#[test]
fn a_coroutine_that_is_among_those_it_waits_for_panics() {
    on_workers(1, || {
        let (give, given) = mpsc::channel::<JoinHandle<()>>();
        let (tell, told) = mpsc::channel();
        let own = spawn(move || {
            let mut handles = [sleeper(), given.recv().unwrap()];
            let wait = || wait_any(&mut handles, Deadline::NEVER);
            let payload = catch_unwind(AssertUnwindSafe(wait)).unwrap_err();
            tell.send(message(&*payload).to_owned()).unwrap();
        });
        give.send(own).unwrap();
        assert!(told.recv().unwrap().contains("waits for itself"));
    });
}

#[test]
fn the_join_of_an_unchecked_coroutine_is_not_interrupted_among_others_either() {
    on_workers(1, || {
        let (tell, told) = mpsc::channel::<()>();
        // SAFETY: the closure borrows nothing.
        let unchecked = unsafe { Builder::new().spawn_unchecked(move || told.recv().is_ok()) };
        let mut handles = [unchecked.unwrap()];
        spawn(move || {
            sleep(ms(20));
            tell.send(()).unwrap();
        });
        let start = Instant::now();
        let waited = timeout(ms(1), || wait_any(&mut handles, Deadline::NEVER));
        assert_eq!(waited, Ok(Some(0)));
        assert!(start.elapsed() >= ms(20) && start.elapsed() < PATIENCE);
    });
}

#[test]
fn joining_an_os_thread_parks_the_coroutine_and_not_its_worker() {
    everywhere(|| {
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || told.recv().unwrap());
        let teller = spawn(move || {
            sleep(ms(1));
            tell.send(7).unwrap();
        });
        assert_eq!(join_thread(thread).unwrap(), 7);
        teller.join().unwrap();
        let failing = std::thread::spawn(|| resume_unwind(Box::new("no luck")));
        let failure: Box<_> = join_thread::<()>(failing).unwrap_err();
        assert_eq!(failure.downcast_ref(), Some(&"no luck"));
    });
}

#[test]
fn any_number_of_os_threads_are_joined_at_the_same_time() {
    on_workers(1, || {
        // More than the pool has threads without this.
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let told = Arc::new(std::sync::Mutex::new(told));
        let joiners: Vec<_> = (0..300)
            .map(|n| {
                let told = Arc::clone(&told);
                let small = std::thread::Builder::new().stack_size(64 << 10);
                let thread = small.spawn(move || {
                    // An error: the sender is gone.
                    assert!(told.lock().unwrap().recv().is_err());
                    n
                });
                spawn(move || join_thread(thread.unwrap()).unwrap())
            })
            .collect();
        sleep(ms(20));
        assert!(joiners.iter().all(|joiner| !joiner.is_finished()));
        assert_eq!(greenroom::unblock(|| 1), 1, "the pool still has a thread");
        drop(tell);
        assert!(try_join_all(joiners).unwrap().into_iter().eq(0..300));
    });
}

#[test]
fn an_interrupted_join_leaves_the_os_thread_alone() {
    on_workers(1, || {
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let (ended, has_ended) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            told.recv().unwrap();
            ended.send(()).unwrap();
        });
        assert!(timeout(ms(5), || join_thread(thread)).is_err());
        tell.send(()).unwrap();
        has_ended.recv().unwrap();
    });
}
