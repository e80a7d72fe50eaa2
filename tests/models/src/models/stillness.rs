//! No worker has anything to do, and none will have: `worker/standstill.rs`.
//!
//! Each worker is a thread, and so is each other thread of the process. A mail stands for a coroutine that is woken,
//! and says what that coroutine does.

use super::inbox::{Inbox, Link};
use super::standstill::Standstill;
use super::{Model, large, small};
use crate::check::atomic::{AtomicBool, AtomicUsize, Mutex, Ordering};
use crate::check::{Arc, Signal, thread};

pub(super) const MODELS: &[Model] = &[
    small("stillness: another thread ends", 3, || {
        watch(&[], &[(0, Does::Nothing)], [1, 0]);
    }),
    small("stillness: a worker wakes the other", 3, || {
        watch(&[], &[(0, Does::Wake(1))], [1, 1]);
    }),
    small("stillness: a worker starts a thread", 4, || {
        watch(&[(0, Does::Start)], &[], [1, 1]);
    }),
    large(
        "stillness: threads, and workers that wake each other",
        || {
            const OTHERS: &[Mail] = &[(0, Does::Wake(1)), (1, Does::Start), (0, Does::Start)];
            watch(&[(1, Does::Wake(0))], OTHERS, [3, 5]);
        },
    ),
];

const WORKERS: usize = 2;

/// What a coroutine does when it is woken.
#[derive(Clone, Copy)]
enum Does {
    Nothing,
    /// It wakes a coroutine of that worker.
    Wake(usize),
    /// It starts a thread, which wakes a coroutine of worker 1.
    Start,
}

/// For that worker, a coroutine that does this.
type Mail = (usize, Does);

struct Worker {
    inbox: Inbox,
    kicked: Signal,
    /// How many coroutines have run.
    runs: AtomicUsize,
}

struct Process {
    workers: [Worker; WORKERS],
    standstill: Standstill,
    /// For each worker, its `runs` when it last became STILL.
    lists: Mutex<[usize; WORKERS]>,
    /// The number of threads that are no workers, as the kernel knows it.
    others: AtomicUsize,
    is_reported: AtomicBool,
}

impl Process {
    fn send(&self, worker: usize, does: Does) {
        // The link of a task of its own.
        let link = Box::leak(Box::new(Link::new()));
        link.set_slot(match does {
            Does::Nothing => 0,
            Does::Start => 1,
            Does::Wake(worker) => 2 + u32::try_from(worker).unwrap(),
        });
        let worker = &self.workers[worker];
        // SAFETY: the link is new, so it is in no inbox, and it is never freed.
        unsafe { worker.inbox.put(link) };
        worker.kicked.raise();
    }

    fn report(&self) {
        let copy = || {
            let is_alone = self.others.load(Ordering::SeqCst) == 0;
            is_alone.then(|| *self.lists.lock().unwrap())
        };
        let is_quiet = || self.workers.iter().all(|worker| !worker.inbox.has_mail());
        if let Some(Some(lists)) = self.standstill.look(WORKERS, copy, is_quiet) {
            let runs = self.workers.each_ref();
            let runs = runs.map(|worker| worker.runs.load(Ordering::Relaxed));
            assert_eq!(lists, runs, "a list is out of date");
            self.is_reported.store(true, Ordering::SeqCst);
        }
    }
}

fn start(process: &Arc<Process>, worker: usize, does: Does) -> thread::JoinHandle<()> {
    process.others.fetch_add(1, Ordering::SeqCst);
    let process = process.clone();
    thread::spawn(move || {
        process.send(worker, does);
        process.others.fetch_sub(1, Ordering::SeqCst);
    })
}

/// One turn of a worker, which takes its mail.
fn turn(process: &Arc<Process>, number: usize) {
    let worker = &process.workers[number];
    if !worker.inbox.has_mail() {
        return;
    }
    for mail in worker.inbox.take() {
        assert!(
            !process.is_reported.load(Ordering::SeqCst),
            "a coroutine runs after the report"
        );
        worker.runs.fetch_add(1, Ordering::Relaxed);
        match mail {
            0 => {}
            1 => drop(start(process, 1, Does::Nothing)),
            other => process.send(other as usize - 2, Does::Nothing),
        }
    }
}

/// Runs a worker until it is STILL after so many coroutines.
fn work(process: &Arc<Process>, number: usize, runs: usize) {
    let worker = &process.workers[number];
    loop {
        turn(process, number);
        let has_run = worker.runs.load(Ordering::Relaxed);
        process.lists.lock().unwrap()[number] = has_run;
        if process.standstill.enter() == WORKERS {
            process.report();
        }
        if has_run == runs {
            return;
        }
        worker.kicked.wait();
        process.standstill.leave();
    }
}

/// A process with this mail, and with other threads that send some. After that, so many coroutines run on each worker.
fn watch(mail: &'static [Mail], others: &'static [Mail], runs: [usize; WORKERS]) {
    let process = Arc::new(Process {
        workers: [(); WORKERS].map(|()| Worker {
            inbox: Inbox::new(),
            kicked: Signal::new(),
            runs: AtomicUsize::new(0),
        }),
        standstill: Standstill::new(),
        lists: Mutex::new([0; WORKERS]),
        others: AtomicUsize::new(0),
        is_reported: AtomicBool::new(false),
    });
    for &(worker, does) in mail {
        process.send(worker, does);
    }
    let others: Vec<_> = others
        .iter()
        .map(|&(worker, does)| start(&process, worker, does))
        .collect();
    let other_worker = thread::spawn({
        let process = process.clone();
        move || work(&process, 1, runs[1])
    });
    work(&process, 0, runs[0]);
    other_worker.join().unwrap();
    for other in others {
        other.join().unwrap();
    }
    // A thread that a coroutine has started may be about to end.
    while process.others.load(Ordering::SeqCst) > 0 {
        thread::yield_now();
    }
    process.report();
    assert!(process.is_reported.load(Ordering::SeqCst), "no report");
}
