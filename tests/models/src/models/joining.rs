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

/// A wait, and its task.
struct Wait {
    word: WaitWord,
    seq: Seq,
    queue: Signal,
    /// Whether the joiner has gone on, and what lay in its frame is no more.
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
        // SAFETY: it is checked that no writing is under way.
        self.gone.with(|gone| unsafe { *gone })
    }

    /// Ends the wait; returns whether it lasted.
    fn end(&self, outcome: Outcome) -> bool {
        let ended = self.word.wake(self.seq, outcome);
        if ended {
            self.queue.raise();
        }
        ended
    }
}

/// What a task leaves. Two that use it at a time are seen.
struct Finished {
    completion: Completion<Wait>,
    /// Of a task that has run: 7, until it is taken.
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

    /// What the end of the task does.
    fn finish(&self) {
        // SAFETY: it is checked that no other access is under way.
        self.result.with_mut(|result| unsafe { *result = 7 });
        let unwanted = self.completion.finish(|wait| {
            // SAFETY: a `Joiner` keeps all its waits, even if it has gone on too early.
            let wait = unsafe { &*wait };
            assert!(!wait.is_gone(), "the joiner stays for the finisher");
            let ended = wait.end(Outcome::Woken);
            assert!(ended || !wait.is_gone(), "until it is let go");
            ended
        });
        if unwanted {
            self.drop_result();
        }
    }

    fn drop_result(&self) {
        // SAFETY: as above.
        let result = self.result.with_mut(|result| unsafe { result.replace(0) });
        self.dropped
            .fetch_add(usize::from(result == 7), Ordering::Relaxed);
    }

    fn take(&self) -> u32 {
        assert!(self.completion.is_done());
        // SAFETY: as above.
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

    /// Waits once, for at most as long as `deadline` takes; returns whether the task is done.
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
        // SAFETY: it is checked that nobody else uses it.
        wait.gone.with_mut(|gone| unsafe { *gone = true });
        woken
    }
}

fn finish(task: &Arc<Finished>) -> thread::JoinHandle<()> {
    let task = task.clone();
    thread::spawn(move || task.finish())
}

fn end_against_join() {
    let task = Finished::new();
    let end = finish(&task);
    let mut joiner = Joiner::new(&task);
    while !joiner.wait(|_| ()) {}
    assert_eq!(task.take(), 7);
    end.join().unwrap();
}

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

/// Several ends at a time, each against a joiner that tries in vain for a while: its waits end by
/// its own deadline, or by another thread, which may come late.
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
            assert_eq!(dropped, usize::from(!done), "it is taken or dropped, once");
            for interrupter in interrupters {
                interrupter.join().unwrap();
            }
        })
    });
    for join in joins {
        join.join().unwrap();
    }
}
