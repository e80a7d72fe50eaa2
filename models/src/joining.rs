//! The end of a task and its joiner: `join/completion.rs`.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::completion::Completion;
use crate::word::{Kind, Outcome, Seq, WaitWord};
use crate::{Model, Signal};

pub(crate) const MODELS: &[Model] = &[
    ("joining: the end against a join", 4, end_against_join),
    (
        "joining: the end against a join that times out",
        3,
        end_against_timeout,
    ),
    (
        "joining: the end against a handle that is dropped twice",
        4,
        end_against_detach,
    ),
];

/// A wait, and its task.
struct Wait {
    word: WaitWord,
    seq: Seq,
    queue: Signal,
    /// Loom sees who uses it when it is gone.
    frame: UnsafeCell<()>,
}

impl Wait {
    fn begin() -> Arc<Wait> {
        let word = WaitWord::new();
        let seq = word.begin(Kind::Plain).unwrap();
        let (queue, frame) = (Signal::new(), UnsafeCell::new(()));
        Arc::new(Wait {
            word,
            seq,
            queue,
            frame,
        })
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

/// What a task leaves. Loom sees two that use it at a time.
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
        // SAFETY: loom checks that no other access is under way.
        self.result.with_mut(|result| unsafe { *result = 7 });
        let unwanted = self.completion.finish(|wait| {
            // SAFETY: what the protocol is for: the joiner has not gone.
            let wait = unsafe { &*wait };
            wait.frame.with(|_| ());
            wait.end(Outcome::Woken)
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

    /// Waits once, for at most as long as `deadline` takes; returns whether the task is done.
    fn wait(&self, deadline: impl FnOnce(&Wait)) -> bool {
        if self.completion.is_done() {
            return true;
        }
        let wait = Wait::begin();
        let leaves = self.completion.await_by(Arc::as_ptr(&wait));
        if !leaves {
            wait.end(Outcome::Woken);
        }
        deadline(&wait);
        assert_eq!(wait.queue.wait(), 1, "a task is queued once");
        let woken = wait.word.outcome() == Outcome::Woken;
        if leaves && !woken {
            self.completion.leave();
        }
        // SAFETY: what the protocol is for: nobody else uses it now or later.
        wait.frame.with_mut(|_| ());
        woken
    }
}

fn end_against_join() {
    let task = Finished::new();
    let end = thread::spawn({
        let task = task.clone();
        move || task.finish()
    });
    while !task.wait(|_| ()) {}
    assert_eq!(task.take(), 7);
    end.join().unwrap();
}

fn end_against_timeout() {
    let task = Finished::new();
    let end = thread::spawn({
        let task = task.clone();
        move || task.finish()
    });
    let done = task.wait(|wait| {
        wait.end(Outcome::TimedOut);
    });
    if done || task.completion.is_done() {
        assert_eq!(task.take(), 7);
    }
    end.join().unwrap();
}

fn end_against_detach() {
    let task = Finished::new();
    let end = thread::spawn({
        let task = task.clone();
        move || task.finish()
    });
    for _ in 0..2 {
        if task.completion.detach() {
            task.drop_result();
        }
    }
    end.join().unwrap();
    assert_eq!(task.dropped.load(Ordering::Relaxed), 1);
}
