//! The end of a task and its joiner: `task/completion.rs`.

use super::completion::Completion;
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
}

impl Wait {
    fn begin() -> Arc<Wait> {
        let word = WaitWord::new();
        let seq = word.begin(Kind::Plain).unwrap();
        let (queue, gone) = (Signal::new(), UnsafeCell::new(false));
        Arc::new(Wait {
            word,
            seq,
            queue,
            gone,
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

/// A task that is joined. Its result is in a cell that checks for simultaneous uses.
struct Finished {
    completion: Completion<Wait>,
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
        let unwanted = self.completion.finish(|wait| {
            // SAFETY: a `Joiner` keeps all its waits alive, even after it has gone on.
            let wait = unsafe { &*wait };
            assert!(!wait.is_gone(), "the joiner waits for the finisher");
            let ended = wait.end(Outcome::Woken);
            assert!(
                ended || !wait.is_gone(),
                "the joiner stays until its wait is ended"
            );
            ended
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
    waits: Vec<Arc<Wait>>,
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
        self.waits.push(wait.clone());
        let leaves = completion.await_by(Arc::as_ptr(&wait));
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
