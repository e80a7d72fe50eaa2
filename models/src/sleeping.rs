//! Who sleeps and who is woken: `scheduler/attention.rs` and `scheduler/sleep.rs`.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::attention::Attention;
use crate::sleep::{Sleep, Sleepers};
use crate::{Model, Signal};

pub(crate) const MODELS: &[Model] = &[
    (
        "sleeping: mail against falling asleep",
        4,
        mail_against_sleep,
    ),
    ("sleeping: two senders, one sleeper", 3, two_senders),
    (
        "sleeping: a spawn against falling asleep",
        4,
        spawn_against_sleep,
    ),
    (
        "sleeping: two spawns from outside, one worker",
        3,
        two_pushers_one_worker,
    ),
    (
        "sleeping: a spawn from outside, two workers",
        2,
        one_pusher_two_workers,
    ),
];

struct Worker {
    attention: Attention,
    /// The eventfd.
    kicked: Signal,
    mail: AtomicUsize,
}

impl Worker {
    fn new() -> Worker {
        let attention = Attention::new();
        attention.set_driven(true);
        Worker {
            attention,
            kicked: Signal::new(),
            mail: AtomicUsize::new(0),
        }
    }

    fn send(&self) {
        self.mail.fetch_add(1, Ordering::Release);
        self.kick();
    }

    fn kick(&self) {
        if self.attention.demand() {
            self.kicked.raise();
        }
    }
}

fn mail_against_sleep() {
    let worker = Arc::new(Worker::new());
    let sender = thread::spawn({
        let worker = worker.clone();
        move || worker.send()
    });
    read_mail(&worker, 1);
    sender.join().unwrap();
}

fn two_senders() {
    let worker = Arc::new(Worker::new());
    let senders = [(); 2].map(|()| {
        let worker = worker.clone();
        thread::spawn(move || worker.send())
    });
    read_mail(&worker, 2);
    for sender in senders {
        sender.join().unwrap();
    }
}

/// A worker that waits for mail and nothing else, until it has had enough.
fn read_mail(worker: &Worker, enough: usize) {
    let mut read = 0;
    while read < enough {
        read += worker.mail.swap(0, Ordering::AcqRel);
        if read == enough {
            break;
        }
        worker.attention.fall_asleep();
        if worker.mail.load(Ordering::Acquire) == 0 {
            worker.kicked.wait();
        }
        worker.attention.wake_up();
    }
}

/// A runtime whose fresh coroutines all come from outside.
struct Runtime {
    workers: Vec<Worker>,
    sleep: Sleep,
    fresh: AtomicUsize,
    /// Fresh coroutines that are still to be run before all workers leave.
    to_come: AtomicUsize,
}

impl Sleepers for Runtime {
    fn any_asleep(&self) -> bool {
        self.workers
            .iter()
            .any(|worker| worker.attention.is_asleep())
    }

    fn kick_one_to_search(&self) -> bool {
        self.workers.iter().any(|worker| {
            let kicked = worker.attention.demand_search();
            if kicked {
                worker.kicked.raise();
            }
            kicked
        })
    }

    fn any_fresh(&self) -> bool {
        self.fresh.load(Ordering::Acquire) > 0
    }
}

impl Runtime {
    fn new(workers: usize, to_come: usize) -> Arc<Runtime> {
        Arc::new(Runtime {
            workers: (0..workers).map(|_| Worker::new()).collect(),
            sleep: Sleep::new(),
            fresh: AtomicUsize::new(0),
            to_come: AtomicUsize::new(to_come),
        })
    }

    fn push(&self) {
        self.fresh.fetch_add(1, Ordering::AcqRel);
        self.sleep.notify(self);
    }

    fn steal(&self) -> bool {
        let take = |fresh: usize| fresh.checked_sub(1);
        self.fresh
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
            .is_ok()
    }

    /// Runs a stolen coroutine; the last one has everybody leave.
    fn run_one(&self) {
        if self.to_come.fetch_sub(1, Ordering::AcqRel) == 1 {
            for worker in &self.workers {
                worker.kick();
            }
        }
    }

    fn is_over(&self) -> bool {
        self.to_come.load(Ordering::Acquire) == 0
    }

    /// As `Worker::find_work_or_sleep`, again and again; counted as a searcher.
    fn search(&self) -> bool {
        if !self.steal() {
            return false;
        }
        if self.sleep.stop_searching() && self.any_fresh() {
            self.sleep.notify(self);
        }
        self.run_one();
        true
    }

    fn drive(&self, index: usize) {
        let worker = &self.workers[index];
        while !self.is_over() {
            self.sleep.start_searching();
            if self.search() {
                continue;
            }
            worker.attention.fall_asleep();
            self.sleep.stop_searching();
            loom::sync::atomic::fence(Ordering::SeqCst);
            if !self.any_fresh() && !self.is_over() {
                worker.kicked.wait();
            }
            if worker.attention.wake_up() && !self.search() {
                self.sleep.stop_searching();
            }
        }
    }
}

fn spawn_against_sleep() {
    run(1, 1);
}

fn two_pushers_one_worker() {
    run(1, 2);
}

fn one_pusher_two_workers() {
    run(2, 1);
}

/// Every coroutine that is pushed is run, whoever sleeps when: otherwise all block for ever, which
/// loom reports.
fn run(workers: usize, pushers: usize) {
    let runtime = Runtime::new(workers, pushers);
    let pushers: Vec<_> = (0..pushers)
        .map(|_| {
            let runtime = runtime.clone();
            thread::spawn(move || runtime.push())
        })
        .collect();
    let others: Vec<_> = (1..workers)
        .map(|index| {
            let runtime = runtime.clone();
            thread::spawn(move || runtime.drive(index))
        })
        .collect();
    runtime.drive(0);
    for thread in pushers.into_iter().chain(others) {
        thread.join().unwrap();
    }
}
