//! The threads of the pool: `pool/crew.rs`, used in the way of `pool/mod.rs`.

use super::crew::{Crew, Needs, Purpose};
use super::{Model, large, small};
use crate::check::atomic::{AtomicUsize, Mutex, Ordering};
use crate::check::{Arc, Condvar, thread};

pub(super) const MODELS: &[Model] = &[
    small("pool: two jobs, two threads", 2, || jobs(2, &[2])),
    small("pool: two jobs, one thread", 2, || jobs(1, &[2])),
    small(
        "pool: a job against a thread that leaves",
        3,
        against_leaving,
    ),
    small("pool: a job that waits for another, one thread", 2, waiting),
    small("pool: a job that waits overtakes others", 2, overtaking),
    large("pool: many submitters, two threads", || jobs(2, &[4, 3, 3])),
];

/// A pool whose jobs are numbers.
struct Pool {
    most: usize,
    crew: Mutex<Crew<usize>>,
    job_added: Condvar,
    job_done: Condvar,
    /// Not zero when idle threads are to leave.
    over: AtomicUsize,
    done: AtomicUsize,
    working: AtomicUsize,
}

/// The job that waits until job 2 is done.
const WAITS: usize = 1;

/// A job that is held until [`RELEASES`] is done.
const HELD: usize = 16;
const RELEASES: usize = 8;

impl Pool {
    fn new(most: usize) -> Arc<Pool> {
        Arc::new(Pool {
            most,
            crew: Mutex::new(Crew::new()),
            job_added: Condvar::new(),
            job_done: Condvar::new(),
            over: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
        })
    }

    fn submit(pool: &Arc<Pool>, job: usize, purpose: Purpose) -> Option<thread::JoinHandle<()>> {
        let mut crew = pool.crew.lock().unwrap();
        let mut made = None;
        match crew.needs(purpose, pool.most) {
            Needs::Wake => pool.job_added.notify_one(),
            Needs::Thread => {
                let pool = pool.clone();
                made = Some(thread::spawn(move || pool.work()));
                crew.count_in();
            }
            Needs::Nothing => assert!(crew.has_threads()),
        }
        crew.add(job, purpose);
        made
    }

    fn work(&self) {
        let mut crew = self.crew.lock().unwrap();
        loop {
            while let Some((job, purpose)) = crew.next() {
                drop(crew);
                self.run(job, purpose);
                crew = self.crew.lock().unwrap();
                if crew.done(purpose, self.most) {
                    return;
                }
            }
            crew.begin_idle(0);
            // A thread whose time is over may still be woken for a job.
            let mut is_over = false;
            while !crew.has_jobs() && !is_over {
                is_over = self.over.load(Ordering::SeqCst) > 0;
                if !is_over {
                    crew = self.job_added.wait(crew).unwrap();
                }
            }
            if crew.end_idle(is_over) {
                return;
            }
        }
    }

    fn run(&self, job: usize, purpose: Purpose) {
        if purpose == Purpose::Limited {
            let others = self.working.fetch_add(1, Ordering::SeqCst);
            assert!(others < self.most, "more threads than there may be");
        }
        let needed = match job {
            WAITS if purpose == Purpose::Waiting => 2,
            HELD => RELEASES,
            _ => 0,
        };
        if needed > 0 {
            let mut crew = self.crew.lock().unwrap();
            while self.done.load(Ordering::SeqCst) & needed == 0 {
                crew = self.job_done.wait(crew).unwrap();
            }
        }
        self.done.fetch_add(job, Ordering::SeqCst);
        if purpose == Purpose::Limited {
            self.working.fetch_sub(1, Ordering::SeqCst);
        }
        // Wakes the waiting job.
        let _crew = self.crew.lock().unwrap();
        self.job_done.notify_all();
    }

    /// Has idle threads leave, now and from now on.
    fn end_time(&self) {
        let _crew = self.crew.lock().unwrap();
        self.over.store(1, Ordering::SeqCst);
        self.job_added.notify_all();
    }
}

/// Several threads submit `each` so many jobs. All jobs are done when the pool's threads have left.
fn jobs(most: usize, each: &'static [usize]) {
    let pool = Pool::new(most);
    let submit = |pool: Arc<Pool>, count: usize| {
        let submitted = (0..count).map(move |_| Pool::submit(&pool, 1, Purpose::Limited));
        submitted.flatten().collect::<Vec<_>>()
    };
    let others: Vec<_> = each[1..]
        .iter()
        .map(|&count| {
            let pool = pool.clone();
            thread::spawn(move || submit(pool, count))
        })
        .collect();
    let mut threads = submit(pool.clone(), each[0]);
    for other in others {
        threads.extend(other.join().unwrap());
    }
    pool.end_time();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(pool.done.load(Ordering::SeqCst), each.iter().sum());
}

/// A thread is leaving when another job comes. It does that job, or a new thread does.
fn against_leaving() {
    let pool = Pool::new(1);
    let first = Pool::submit(&pool, 1, Purpose::Limited).expect("the first thread");
    let ends = thread::spawn({
        let pool = pool.clone();
        move || pool.end_time()
    });
    let second = Pool::submit(&pool, 1, Purpose::Limited);
    ends.join().unwrap();
    first.join().unwrap();
    if let Some(second) = second {
        second.join().unwrap();
    }
    assert_eq!(pool.done.load(Ordering::SeqCst), 2);
}

/// Only one thread is allowed, but a job that waits does not count. So the second job gets a thread.
fn waiting() {
    let pool = Pool::new(1);
    let threads = [
        Pool::submit(&pool, WAITS, Purpose::Waiting),
        Pool::submit(&pool, 2, Purpose::Limited),
    ];
    pool.end_time();
    for thread in threads.into_iter().flatten() {
        thread.join().unwrap();
    }
    assert_eq!(pool.done.load(Ordering::SeqCst), 3);
}

/// The pool's only thread, and the next job for it, take as long as the job that waits, which is submitted last. So
/// that one gets a thread, and takes it before the other job does.
fn overtaking() {
    let pool = Pool::new(1);
    let threads = [
        Pool::submit(&pool, HELD, Purpose::Limited),
        Pool::submit(&pool, HELD, Purpose::Limited),
        Pool::submit(&pool, RELEASES, Purpose::Waiting),
    ];
    pool.end_time();
    for thread in threads.into_iter().flatten() {
        thread.join().unwrap();
    }
    assert_eq!(pool.done.load(Ordering::SeqCst), 2 * HELD + RELEASES);
}
