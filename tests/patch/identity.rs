//! Code that takes the OS thread for the waiter: what of it works on coroutines of one worker, and how the rest is
//! told.
//!
//! What may hang runs in child processes, which are ended when they have told of it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::util::{PATIENCE, again, on_one_worker, on_workers, role};

const PAUSE: Duration = Duration::from_millis(5);

/// How long a coroutine waits whose process is ended when it is told: long enough for another one to begin to wait
/// meanwhile, even if the machine stands still.
const LONG: Duration = Duration::from_secs(10);

/// Parks by std until `flag` is set.
fn park_until(flag: &AtomicBool) {
    while !flag.load(Ordering::Acquire) {
        thread::park();
    }
}

#[test]
fn one_coroutine_is_unparked_by_an_os_thread_and_by_a_coroutine_of_its_worker() {
    on_one_worker(|| {
        let flags: [_; 2] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        // std's handle of the worker's thread.
        let worker = thread::current();
        let unpark = |flag: &Arc<AtomicBool>| {
            let (flag, worker) = (Arc::clone(flag), worker.clone());
            move || {
                sleep(PAUSE);
                flag.store(true, Ordering::Release);
                worker.unpark();
            }
        };
        let os_thread = thread::spawn(unpark(&flags[0]));
        park_until(&flags[0]);
        let coroutine = greenroom::spawn(unpark(&flags[1]));
        park_until(&flags[1]);
        os_thread.join().unwrap();
        coroutine.join().unwrap();
    });
}

#[test]
fn one_coroutine_keeps_the_time_of_a_park_and_the_token() {
    on_one_worker(|| {
        let ticks = greenroom::spawn(|| (0..3).for_each(|_| sleep(PAUSE)));
        // The token of an `unpark` that comes before.
        thread::current().unpark();
        thread::park();
        let begin = Instant::now();
        // Each parks, so the other coroutine runs meanwhile.
        while begin.elapsed() < 10 * PAUSE || !ticks.is_finished() {
            assert!(begin.elapsed() < PATIENCE, "the other one does not run");
            thread::park_timeout(PAUSE);
        }
    });
}

#[test]
fn one_coroutine_receives_from_os_threads() {
    on_one_worker(|| {
        let (sender, receiver) = mpsc::channel();
        let (back, answers) = mpsc::sync_channel(0);
        let echo = thread::spawn(move || {
            for number in receiver {
                sleep(PAUSE);
                back.send(number).unwrap();
            }
        });
        for number in 0..3 {
            sender.send(number).unwrap();
            assert_eq!(answers.recv(), Ok(number));
        }
        let none = answers.recv_timeout(PAUSE);
        assert_eq!(none, Err(mpsc::RecvTimeoutError::Timeout));
        drop(sender);
        assert_eq!(answers.recv(), Err(mpsc::RecvError));
        echo.join().unwrap();
    });
}

#[test]
fn one_coroutine_waits_for_a_scope_of_os_threads() {
    on_one_worker(|| {
        let mut numbers = [0; 3];
        thread::scope(|scope| {
            for (i, number) in numbers.iter_mut().enumerate() {
                scope.spawn(move || {
                    sleep(PAUSE);
                    *number = i + 1;
                });
            }
        });
        assert_eq!(numbers, [1, 2, 3]);
    });
}

#[test]
fn locks_of_parking_lot_wait_for_os_threads() {
    on_one_worker(|| {
        let mutex = Arc::new(parking_lot::Mutex::new(0));
        let (held, is_held) = mpsc::channel();
        let holder = thread::spawn({
            let mutex = Arc::clone(&mutex);
            move || {
                let mut value = mutex.lock();
                held.send(()).unwrap();
                sleep(10 * PAUSE);
                *value = 1;
            }
        });
        is_held.recv().unwrap();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let mutex = Arc::clone(&mutex);
                greenroom::spawn(move || {
                    let mut value = mutex.lock();
                    *value += 1;
                    *value
                })
            })
            .collect();
        let mut seen: Vec<_> = waiters
            .into_iter()
            .map(|waiter| waiter.join().unwrap())
            .collect();
        seen.sort();
        assert_eq!(seen, [2, 3, 4]);
        holder.join().unwrap();
    });
}

/// Runs `waits` on one worker of a child process, whose test is `name`. Returns the report, and ends the child.
///
/// A child that never ends, and is not ended, aborts.
fn report_of(name: &str, waits: impl FnOnce()) -> Option<String> {
    if role().is_some() {
        on_workers(1, waits);
        return None;
    }
    let mut child = again!(name, "child")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let lines = stderr.lines().map(Result::unwrap);
    let mut reports = lines.filter(|line| line.starts_with("greenroom: coroutine '"));
    let report = reports.next();
    child.kill().unwrap();
    child.wait().unwrap();
    Some(report.expect("a report"))
}

/// Two coroutines with these names, in which `wait` is called at the same time.
fn two_wait(wait: impl Fn() + Clone + Send + 'static) {
    let waiters = ["waiter 1", "waiter 2"].map(|name| {
        let wait = wait.clone();
        let builder = greenroom::Builder::new().name(name.to_owned());
        builder.spawn(wait).unwrap()
    });
    for waiter in waiters {
        waiter.join().unwrap();
    }
}

#[track_caller]
fn assert_names_a_waiter(report: Option<String>) {
    let Some(report) = report else { return };
    assert!(
        report.starts_with("greenroom: coroutine 'waiter ") && report.contains("greenroom::patch"),
        "{report}"
    );
}

#[test]
fn coroutines_that_park_by_std_are_told() {
    let name = "coroutines_that_park_by_std_are_told";
    assert_names_a_waiter(report_of(name, || {
        let worker = thread::current();
        let over = Arc::new(AtomicBool::new(false));
        let unparker = {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                sleep(LONG);
                over.store(true, Ordering::Release);
                worker.unpark();
            })
        };
        two_wait(move || park_until(&over));
        unparker.join().unwrap();
    }));
}

#[test]
fn coroutines_that_receive_by_stds_channels_are_told() {
    let name = "coroutines_that_receive_by_stds_channels_are_told";
    assert_names_a_waiter(report_of(name, || {
        two_wait(|| {
            let (sender, receiver) = mpsc::channel();
            let sending = greenroom::spawn(move || {
                sleep(PAUSE);
                sender.send(()).unwrap();
                // What is sent from the receiver's own thread does not wake it, and neither does a second message.
                sleep(PAUSE);
                sender.send(()).unwrap();
                sleep(Duration::from_secs(3600));
            });
            receiver.recv().unwrap();
            sending.join().unwrap();
        });
    }));
}

#[test]
fn coroutines_with_scopes_of_std_are_told() {
    let name = "coroutines_with_scopes_of_std_are_told";
    assert_names_a_waiter(report_of(name, || {
        two_wait(|| {
            thread::scope(|scope| {
                scope.spawn(|| sleep(LONG));
            });
        });
    }));
}

#[test]
fn a_coroutine_that_waits_by_parking_lot_for_its_own_worker_is_told() {
    let name = "a_coroutine_that_waits_by_parking_lot_for_its_own_worker_is_told";
    assert_names_a_waiter(report_of(name, || {
        let mutex = Arc::new(parking_lot::Mutex::new(()));
        two_wait(move || {
            let _guard = mutex.lock();
            sleep(LONG);
        });
    }));
}

#[test]
fn coroutines_that_wait_by_condition_variables_of_parking_lot_are_told() {
    let name = "coroutines_that_wait_by_condition_variables_of_parking_lot_are_told";
    assert_names_a_waiter(report_of(name, || {
        let pair = Arc::new((parking_lot::Mutex::new(()), parking_lot::Condvar::new()));
        two_wait(move || pair.1.wait(&mut pair.0.lock()));
    }));
}

/// As rayon has it for those that call into its pool.
#[test]
fn a_coroutine_that_waits_by_a_latch_in_thread_local_storage_is_told() {
    thread_local! {
        static LATCH: (Mutex<bool>, Condvar) = const { (Mutex::new(false), Condvar::new()) };
    }
    let name = "a_coroutine_that_waits_by_a_latch_in_thread_local_storage_is_told";
    assert_names_a_waiter(report_of(name, || {
        two_wait(|| {
            LATCH.with(|(is_set, changed)| {
                drop(changed.wait_while(is_set.lock().unwrap(), |is_set| !*is_set));
            });
        });
    }));
}

#[test]
fn it_is_told_once() {
    if role().is_some() {
        let sleeps = || {
            let waiter = greenroom::Builder::new().name("waiter".to_owned());
            let waiter = waiter.spawn(|| thread::park_timeout(PAUSE)).unwrap();
            waiter.join().unwrap();
        };
        return on_workers(1, || (0..3).for_each(|_| sleeps()));
    }
    let output = again!("it_is_told_once", "child").output().unwrap();
    assert!(output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told.matches("greenroom: coroutine 'waiter'").count(), 1);
    assert_eq!(told.matches("greenroom: ").count(), 1, "{told}");
}

/// The locks of std, and what is made of them, are no one's own.
#[test]
fn coroutines_that_wait_by_stds_locks_are_not_told() {
    if role().is_some() {
        return on_workers(1, || {
            let pair = Arc::new((Mutex::new(0), Condvar::new()));
            let barrier = Arc::new(Barrier::new(2));
            two_wait(move || {
                barrier.wait();
                let mut count = pair.0.lock().unwrap();
                *count += 1;
                pair.1.notify_all();
                drop(pair.1.wait_while(count, |count| *count < 2).unwrap());
                let _ = pair.1.wait_timeout(pair.0.lock().unwrap(), PAUSE);
            });
        });
    }
    let name = "coroutines_that_wait_by_stds_locks_are_not_told";
    let output = again!(name, "child").output().unwrap();
    assert!(output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!told.contains("greenroom: "), "{told}");
}
