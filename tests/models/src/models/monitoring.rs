//! The monitor sleeps as long as all workers do: `diagnose/monitor_sleep.rs`.
//!
//! The monitor and each worker are threads. The monitor's `Signal` stands for its unparking.

use super::monitor_sleep::MonitorSleep;
use super::{Model, large, small};
use crate::check::atomic::{AtomicBool, Mutex, Ordering};
use crate::check::{Arc, Signal, thread};

pub(super) const MODELS: &[Model] = &[
    small("monitoring: a worker wakes up", 3, one_worker),
    small("monitoring: two workers wake up", 3, two_workers),
    small("monitoring: a new worker begins to run", 3, new_worker),
    large("monitoring: workers wake up and fall asleep", many_rounds),
];

struct Monitored {
    sleep: MonitorSleep,
    unparked: Signal,
    /// Of each worker, whether it is asleep.
    workers: Mutex<Vec<Arc<AtomicBool>>>,
}

impl Monitored {
    /// With so many workers, which are asleep.
    fn new(workers: usize) -> Arc<Monitored> {
        let workers = (0..workers).map(|_| Arc::new(AtomicBool::new(true)));
        Arc::new(Monitored {
            sleep: MonitorSleep(AtomicBool::new(false)),
            unparked: Signal::new(),
            workers: Mutex::new(workers.collect()),
        })
    }

    /// Worker `number` wakes up.
    fn wake_up(&self, number: usize) {
        let asleep = Arc::clone(&self.workers.lock().unwrap()[number]);
        asleep.store(false, Ordering::Relaxed);
        if self.sleep.end() {
            self.unparked.raise();
        }
    }

    fn fall_asleep(&self, number: usize) {
        let asleep = Arc::clone(&self.workers.lock().unwrap()[number]);
        asleep.store(true, Ordering::Relaxed);
    }

    /// One round of the monitor, which sleeps if all workers do.
    fn watch(&self) {
        let all_asleep = || {
            let workers = self.workers.lock().unwrap().clone();
            workers.iter().all(|asleep| asleep.load(Ordering::Relaxed))
        };
        if self.sleep.begin(all_asleep) {
            while self.sleep.is_asleep() {
                self.unparked.wait();
            }
        }
    }
}

/// The monitor does not sleep on, which would be a deadlock of the model.
fn one_worker() {
    let monitored = Monitored::new(1);
    let worker = thread::spawn({
        let monitored = Arc::clone(&monitored);
        move || monitored.wake_up(0)
    });
    monitored.watch();
    worker.join().unwrap();
    assert!(!monitored.sleep.is_asleep());
}

fn two_workers() {
    let monitored = Monitored::new(2);
    let workers = [0, 1].map(|number| {
        let monitored = Arc::clone(&monitored);
        thread::spawn(move || monitored.wake_up(number))
    });
    monitored.watch();
    for worker in workers {
        worker.join().unwrap();
    }
}

/// The worker is not in the list that the monitor has seen before.
fn new_worker() {
    let monitored = Monitored::new(0);
    let worker = thread::spawn({
        let monitored = Arc::clone(&monitored);
        move || {
            let asleep = Arc::new(AtomicBool::new(true));
            monitored.workers.lock().unwrap().push(asleep);
            monitored.wake_up(0);
        }
    });
    monitored.watch();
    worker.join().unwrap();
}

/// After the last round one worker stays awake.
fn many_rounds() {
    const ROUNDS: usize = 5;
    let monitored = Monitored::new(2);
    let workers = [0, 1].map(|number| {
        let monitored = Arc::clone(&monitored);
        thread::spawn(move || {
            for _ in 0..ROUNDS {
                monitored.wake_up(number);
                monitored.fall_asleep(number);
            }
            if number == 0 {
                monitored.wake_up(0);
            }
        })
    });
    for _ in 0..ROUNDS {
        monitored.watch();
    }
    for worker in workers {
        worker.join().unwrap();
    }
    assert!(!monitored.sleep.begin(|| false));
}
