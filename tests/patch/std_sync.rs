//! std's own locks, on coroutines of one worker, and between coroutines and OS threads.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, Once, OnceLock, PoisonError, RwLock, mpsc};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::util::{contend_as_the_runtime_ends, counter, on_one_worker, on_workers, until};

const PAUSE: Duration = Duration::from_millis(2);

#[test]
fn a_mutex_is_held_across_a_sleep_while_others_wait() {
    on_one_worker(|| {
        let mutex = Arc::new(Mutex::new(0));
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let mutex = Arc::clone(&mutex);
                greenroom::spawn(move || {
                    let mut value = mutex.lock().unwrap();
                    let before = *value;
                    sleep(PAUSE);
                    *value = before + 1;
                })
            })
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        assert_eq!(*mutex.lock().unwrap(), 10);
    });
}

#[test]
fn a_condition_variable_wakes_one_and_all_and_times_out() {
    on_one_worker(|| {
        let pair = Arc::new((Mutex::new(0), Condvar::new()));
        let waiters: Vec<_> = (0..5)
            .map(|_| {
                let pair = Arc::clone(&pair);
                greenroom::spawn(move || {
                    let (mutex, condvar) = &*pair;
                    let tickets =
                        condvar.wait_while(mutex.lock().unwrap(), |tickets| *tickets == 0);
                    *tickets.unwrap() -= 1;
                })
            })
            .collect();
        let (mutex, condvar) = &*pair;
        sleep(PAUSE);
        *mutex.lock().unwrap() += 1;
        condvar.notify_one();
        sleep(PAUSE);
        *mutex.lock().unwrap() += 4;
        condvar.notify_all();
        for waiter in waiters {
            waiter.join().unwrap();
        }
        let begin = Instant::now();
        let waited = condvar
            .wait_timeout(mutex.lock().unwrap(), 10 * PAUSE)
            .unwrap();
        assert!(waited.1.timed_out() && begin.elapsed() >= 10 * PAUSE);
    });
}

#[test]
fn readers_writers_barriers_and_onces_wait() {
    on_one_worker(|| {
        let lock = Arc::new(RwLock::new(0));
        let barrier = Arc::new(Barrier::new(6));
        static ONCE: Once = Once::new();
        static CELL: OnceLock<u32> = OnceLock::new();
        let calls = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..6)
            .map(|i| {
                let (lock, barrier, calls) =
                    (Arc::clone(&lock), Arc::clone(&barrier), Arc::clone(&calls));
                greenroom::spawn(move || {
                    match i % 2 {
                        0 => {
                            let mut value = lock.write().unwrap();
                            let before = *value;
                            sleep(PAUSE);
                            *value = before + 1;
                        }
                        _ => {
                            let value = lock.read().unwrap();
                            let before = *value;
                            sleep(PAUSE);
                            assert_eq!(*value, before);
                        }
                    }
                    ONCE.call_once(|| {
                        sleep(PAUSE);
                        calls.fetch_add(1, Ordering::SeqCst);
                    });
                    let cell = CELL.get_or_init(|| {
                        sleep(PAUSE);
                        calls.fetch_add(1, Ordering::SeqCst);
                        7
                    });
                    assert_eq!(*cell, 7);
                    barrier.wait().is_leader()
                })
            })
            .collect();
        let leaders = tasks.into_iter().map(|task| task.join().unwrap());
        assert_eq!(leaders.filter(|leader| *leader).count(), 1);
        assert_eq!(calls.load(Ordering::SeqCst), 2);
        assert_eq!(*lock.read().unwrap(), 3);
    });
}

#[test]
fn coroutines_and_threads_share_a_mutex_and_none_starves() {
    on_one_worker(|| {
        let mutex = Arc::new(Mutex::new(0u64));
        let add = |mutex: Arc<Mutex<u64>>| {
            move || {
                for _ in 0..50 {
                    let mut value = mutex.lock().unwrap();
                    let before = *value;
                    sleep(Duration::from_micros(50));
                    *value = before + 1;
                }
            }
        };
        let tasks: Vec<_> = (0..4)
            .map(|_| greenroom::spawn(add(Arc::clone(&mutex))))
            .collect();
        let threads: Vec<_> = (0..4)
            .map(|_| thread::spawn(add(Arc::clone(&mutex))))
            .collect();
        for task in tasks {
            task.join().unwrap();
        }
        for thread in threads {
            // pthread_join parks.
            thread.join().unwrap();
        }
        assert_eq!(*mutex.lock().unwrap(), 400);
    });
}

#[test]
fn threads_and_coroutines_signal_each_other() {
    on_one_worker(|| {
        let pair = Arc::new((Mutex::new(0), Condvar::new()));
        let turns = |pair: Arc<(Mutex<u32>, Condvar)>, own: u32| {
            move || {
                let (mutex, condvar) = &*pair;
                for _ in 0..200 {
                    let turn = condvar.wait_while(mutex.lock().unwrap(), |turn| *turn % 2 != own);
                    *turn.unwrap() += 1;
                    condvar.notify_all();
                }
            }
        };
        let thread = thread::spawn(turns(Arc::clone(&pair), 0));
        let task = greenroom::spawn(turns(Arc::clone(&pair), 1));
        task.join().unwrap();
        thread.join().unwrap();
        assert_eq!(*pair.0.lock().unwrap(), 400);
    });
}

#[test]
fn joining_a_thread_and_waiting_for_a_child_park() {
    on_workers(1, || {
        let waiting = counter();
        let (end, ended) = mpsc::channel::<()>();
        let thread = {
            let waiting = Arc::clone(&waiting);
            greenroom::spawn(move || {
                let thread = thread::spawn(move || ended.recv().is_err());
                waiting.fetch_add(1, Ordering::SeqCst);
                thread.join().unwrap()
            })
        };
        let (children, inputs): (Vec<_>, Vec<_>) = (0..5)
            .map(|code| {
                let mut child = Command::new("sh")
                    .args(["-c", &format!("read line; exit {code}")])
                    .stdin(Stdio::piped())
                    .spawn()
                    .unwrap();
                let (input, waiting) = (child.stdin.take(), Arc::clone(&waiting));
                let child = greenroom::spawn(move || {
                    assert!(child.try_wait().unwrap().is_none());
                    waiting.fetch_add(1, Ordering::SeqCst);
                    child.wait().unwrap().code()
                });
                (child, input)
            })
            .unzip();
        // None of the waits keeps the worker from the others.
        until("all wait", || waiting.load(Ordering::SeqCst) == 6);
        drop((end, inputs));
        for (code, child) in children.into_iter().enumerate() {
            assert_eq!(child.join().unwrap(), Some(code as i32));
        }
        assert!(thread.join().unwrap());
    });
}

#[test]
fn a_destructor_waits_for_a_mutex_of_std_while_its_runtime_ends() {
    let mutex = Arc::new(Mutex::new(()));
    contend_as_the_runtime_ends(move |f| {
        let _locked = mutex.lock().unwrap_or_else(PoisonError::into_inner);
        f();
    });
}
