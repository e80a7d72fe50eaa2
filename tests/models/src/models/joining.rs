//! The end of a task and its joiner: `task/completion.rs`.

use super::completion::{Arrival, Completion, Joiner as Joining};
use super::word::{Kind, Outcome, Seq, WaitWord};
use super::{Model, large, small};
use crate::check::atomic::{AtomicUsize, Ordering};
use crate::check::{Arc, Signal, UnsafeCell, thread};

pub(super) const MODELS: &[Model] = &[
    small("joining: the end against a join", 4, end_against_join),
    small(
        "joining: the end against a join that times out",
        3,
        end_against_timeout,
    ),
    small(
        "joining: the end against a handle that is dropped twice",
        4,
        end_against_detach,
    ),
    small(
        "joining: two ends against a join of any of them that times out",
        3,
        ends_against_any,
    ),
    small(
        "joining: two ends against a join of both",
        3,
        ends_against_all,
    ),
    large(
        "joining: many ends against joins of some of them that time out or are interrupted",
        many_ends_against_some,
    ),
    large(
        "joining: the end against joins that time out or are interrupted, and a detach",
        end_against_many_joins,
    ),
];

/// A wait, with a task of its own.
struct Wait {
    word: WaitWord,
    seq: Seq,
    queue: Signal,
    /// Whether the joiner has gone on. The wait would then lie in a frame that no longer exists.
    gone: UnsafeCell<bool>,
    /// Whether this stands for the waker of a future, which the finisher may still call when the joiner has gone
    /// on.
    is_waker: bool,
}

impl Wait {
    fn begin() -> Arc<Wait> {
        Wait::of(false)
    }

    fn of(is_waker: bool) -> Arc<Wait> {
        let word = WaitWord::new();
        let seq = word.begin(Kind::Plain).unwrap();
        let (queue, gone) = (Signal::new(), UnsafeCell::new(false));
        Arc::new(Wait {
            word,
            seq,
            queue,
            gone,
            is_waker,
        })
    }

    fn is_gone(&self) -> bool {
        // SAFETY: the cell has checked that nobody writes.
        self.gone.with(|gone| unsafe { *gone })
    }

    /// Ends the wait, if it has not ended. Returns whether it did.
    fn end(&self, outcome: Outcome) -> bool {
        let ended = self.word.wake(self.seq, outcome);
        if ended {
            self.queue.raise();
        }
        ended
    }
}

/// What a joiner registers. The waits are kept alive, so that a late use of one is found.
type Registered = Joining<Arc<Wait>>;

/// A task that is joined. Its result is in a cell that checks for simultaneous uses.
struct Finished {
    completion: Completion<Arc<Wait>>,
    /// 7 from the end of the task until the result is taken, otherwise 0.
    result: UnsafeCell<u32>,
    dropped: AtomicUsize,
}

impl Finished {
    fn new() -> Arc<Finished> {
        Arc::new(Finished {
            completion: Completion::new(),
            result: UnsafeCell::new(0),
            dropped: AtomicUsize::new(0),
        })
    }

    /// Ends the task.
    fn finish(&self) {
        // SAFETY: the cell has checked that no other access is under way.
        self.result.with_mut(|result| unsafe { *result = 7 });
        let arrive = |joiner: *const Registered| {
            // SAFETY: joiners keep all that they have registered, even after they have gone on.
            let joiner = unsafe { &*joiner };
            let arrival = joiner.arrive(|wait| {
                assert!(!wait.is_gone(), "the joiner waits for the finisher");
                let ended = wait.word.wake(wait.seq, Outcome::Woken);
                ended.then(|| wait.clone())
            });
            assert!(
                matches!(arrival, Arrival::Alone(_)) || !joiner.wait.is_gone(),
                "the joiner stays until the finisher lets go of it"
            );
            arrival
        };
        let unwanted = self.completion.finish(arrive, |wait| {
            let is_there = wait.is_waker || !wait.is_gone();
            assert!(is_there, "the joiner waits to be woken");
            wait.queue.raise();
        });
        if unwanted {
            self.drop_result();
        }
    }

    fn drop_result(&self) {
        // SAFETY: the cell has checked that no other access is under way.
        let result = self.result.with_mut(|result| unsafe { result.replace(0) });
        self.dropped
            .fetch_add(usize::from(result == 7), Ordering::Relaxed);
    }

    fn take(&self) -> u32 {
        assert!(self.completion.is_done());
        // SAFETY: the cell has checked that no other access is under way.
        self.result.with_mut(|result| unsafe { result.replace(0) })
    }
}

struct Joiner {
    task: Arc<Finished>,
    waits: Vec<Arc<Registered>>,
}

impl Joiner {
    fn new(task: &Arc<Finished>) -> Joiner {
        Joiner {
            task: task.clone(),
            waits: Vec::new(),
        }
    }

    /// Waits once. `deadline` may end the wait. Returns whether the task is done.
    fn wait(&mut self, deadline: impl FnOnce(&Arc<Wait>)) -> bool {
        let completion = &self.task.completion;
        if completion.is_done() {
            return true;
        }
        let wait = Wait::begin();
        let joiner = Arc::new(Registered::of_one(wait.clone()));
        self.waits.push(joiner.clone());
        let leaves = completion.await_by(Arc::as_ptr(&joiner));
        if !leaves {
            wait.end(Outcome::Woken);
        }
        deadline(&wait);
        assert_eq!(wait.queue.wait(), 1, "a task is queued once");
        let woken = wait.word.outcome() == Outcome::Woken;
        if leaves && !woken {
            completion.leave();
        }
        // SAFETY: the cell has checked that nobody else uses the value.
        wait.gone.with_mut(|gone| unsafe { *gone = true });
        woken
    }
}

/// Waits for `count` of the tasks, which nobody else joins. `deadline` may end the wait. Returns how many are
/// done. What it has registered is kept in `kept`.
fn wait_for_some(
    tasks: &[Arc<Finished>],
    count: usize,
    kept: &mut Vec<Arc<Registered>>,
    deadline: impl FnOnce(&Arc<Wait>),
) -> usize {
    let is_done = |task: &&Arc<Finished>| task.completion.is_done();
    let mut pending: Vec<_> = tasks.iter().filter(|task| !is_done(task)).collect();
    let done = tasks.len() - pending.len();
    if done >= count {
        return done;
    }
    let wait = Wait::begin();
    let joiner = Arc::new(Registered::of_several(wait.clone(), count - done));
    kept.push(joiner.clone());
    pending.retain(|task| {
        let is_registered = task.completion.await_by(Arc::as_ptr(&joiner));
        if !is_registered {
            let _ = joiner.arrive(|wait| wait.end(Outcome::Woken).then_some(()));
        }
        is_registered
    });
    deadline(&wait);
    assert_eq!(wait.queue.wait(), 1, "a task is queued once");
    pending.iter().for_each(|task| task.completion.leave());
    // SAFETY: the cell has checked that nobody else uses the value.
    wait.gone.with_mut(|gone| unsafe { *gone = true });
    let done = tasks.iter().filter(is_done).count();
    assert!(
        done >= count || wait.word.outcome() != Outcome::Woken,
        "the wait is ended when enough tasks are done"
    );
    done
}

/// Starts a thread that ends the task.
fn finish(task: &Arc<Finished>) -> thread::JoinHandle<()> {
    let task = task.clone();
    thread::spawn(move || task.finish())
}

/// The joiner takes the result, whenever the task ends.
fn end_against_join() {
    let task = Finished::new();
    let end = finish(&task);
    let mut joiner = Joiner::new(&task);
    while !joiner.wait(|_| ()) {}
    assert_eq!(task.take(), 7);
    end.join().unwrap();
}

/// The joiner's deadline passes at once. The end must not touch the wait after the joiner has gone on.
fn end_against_timeout() {
    let task = Finished::new();
    let end = finish(&task);
    let mut joiner = Joiner::new(&task);
    let done = joiner.wait(|wait| {
        wait.end(Outcome::TimedOut);
    });
    if done || task.completion.is_done() {
        assert_eq!(task.take(), 7);
    }
    end.join().unwrap();
}

/// The result is dropped once, by the end of the task or by the handle.
fn end_against_detach() {
    let task = Finished::new();
    let end = finish(&task);
    for _ in 0..2 {
        if task.completion.detach() {
            task.drop_result();
        }
    }
    end.join().unwrap();
    assert_eq!(task.dropped.load(Ordering::Relaxed), 1);
}

/// Several tasks end, each while a joiner waits several times. The waits end by the joiner's own
/// deadline, or by another thread, which may be late.
fn end_against_many_joins() {
    let joins = [(); 3].map(|()| {
        let task = Finished::new();
        let end = finish(&task);
        thread::spawn(move || {
            let mut joiner = Joiner::new(&task);
            let mut interrupters = Vec::new();
            let done = (0..4).any(|round| {
                joiner.wait(|wait| {
                    if round % 2 == 0 {
                        wait.end(Outcome::TimedOut);
                    } else {
                        let wait = wait.clone();
                        let interrupt = move || wait.end(Outcome::Interrupted);
                        interrupters.push(thread::spawn(interrupt));
                    }
                })
            });
            if done {
                assert_eq!(task.take(), 7);
            }
            if task.completion.detach() {
                task.drop_result();
            }
            end.join().unwrap();
            let dropped = task.dropped.load(Ordering::Relaxed);
            assert_eq!(
                dropped,
                usize::from(!done),
                "the result is taken or dropped, once"
            );
            for interrupter in interrupters {
                interrupter.join().unwrap();
            }
        })
    });
    for join in joins {
        join.join().unwrap();
    }
}

/// The joiner waits for any of two tasks. Its deadline passes at once.
fn ends_against_any() {
    let tasks = [Finished::new(), Finished::new()];
    let ends = [finish(&tasks[0]), finish(&tasks[1])];
    let mut kept = Vec::new();
    let done = wait_for_some(&tasks, 1, &mut kept, |wait| {
        wait.end(Outcome::TimedOut);
    });
    let finished = tasks.iter().filter(|task| task.completion.is_done());
    assert!(finished.map(|task| assert_eq!(task.take(), 7)).count() >= done);
    for end in ends {
        end.join().unwrap();
    }
}

/// The joiner waits for two tasks, and is woken once.
fn ends_against_all() {
    let tasks = [Finished::new(), Finished::new()];
    let ends = [finish(&tasks[0]), finish(&tasks[1])];
    let mut kept = Vec::new();
    assert_eq!(wait_for_some(&tasks, 2, &mut kept, |_| ()), 2);
    assert!(tasks.iter().all(|task| task.take() == 7));
    for end in ends {
        end.join().unwrap();
    }
}

/// Several tasks end, while a joiner waits for one, two and more of them. The waits end by the joiner's own
/// deadline, or by another thread, which may be late.
fn many_ends_against_some() {
    let tasks = [(); 4].map(|()| Finished::new());
    let ends: Vec<_> = tasks.iter().map(finish).collect();
    let (mut kept, mut interrupters) = (Vec::new(), Vec::new());
    for round in 0..8 {
        wait_for_some(&tasks, 1 + round / 2, &mut kept, |wait| {
            if round % 2 == 0 {
                wait.end(Outcome::TimedOut);
            } else if round < 6 {
                let wait = wait.clone();
                let interrupt = move || wait.end(Outcome::Interrupted);
                interrupters.push(thread::spawn(interrupt));
            }
        });
    }
    assert!(tasks.iter().all(|task| task.take() == 7));
    for thread in ends {
        thread.join().unwrap();
    }
    for interrupter in interrupters {
        interrupter.join().unwrap();
    }
}
