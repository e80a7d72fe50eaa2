//! Waits and their wakers: `task/word.rs`.

use loom::sync::Arc;
use loom::thread;

use crate::word::{Kind, Outcome, Seq, WaitWord};
use crate::{Model, Signal};

pub(crate) const MODELS: &[Model] = &[
    (
        "parking: a wake against the suspend",
        4,
        wake_against_suspend,
    ),
    (
        "parking: an event against a deadline",
        4,
        event_against_deadline,
    ),
    (
        "parking: an event against an interrupt",
        4,
        event_against_interrupt,
    ),
    (
        "parking: a late waker against the next wait",
        3,
        late_waker_against_next_wait,
    ),
    ("parking: unpark against park", 4, unpark_against_park),
    (
        "parking: the token survives a wait",
        3,
        token_survives_a_wait,
    ),
];

/// A task: its word, and its owner's queue, in which it may stand once.
struct Task {
    word: WaitWord,
    queue: Signal,
}

impl Task {
    fn new() -> Arc<Task> {
        Arc::new(Task {
            word: WaitWord::new(),
            queue: Signal::new(),
        })
    }

    /// What a waker does; returns whether it has ended a wait.
    fn follow_up(&self, ended: bool) -> bool {
        if ended {
            self.queue.raise();
        }
        ended
    }

    fn wake(&self, seq: Seq, outcome: Outcome) -> bool {
        self.follow_up(self.word.wake(seq, outcome))
    }

    /// The switch to the owner, and back when the owner takes the task from its queue.
    fn switch(&self) {
        assert_eq!(
            self.queue.wait(),
            1,
            "a task is queued once for each switch"
        );
    }

    /// The rest of a wait that has begun.
    fn suspend(&self) -> Outcome {
        self.switch();
        self.word.outcome()
    }

    fn park(&self) {
        if self.word.begin_for_token().is_some() {
            self.switch();
            assert_eq!(self.word.outcome(), Outcome::Woken);
        }
    }
}

fn wake_against_suspend() {
    let task = Task::new();
    let seq = task.word.begin(Kind::Plain).unwrap();
    let waker = thread::spawn({
        let task = task.clone();
        move || assert!(task.wake(seq, Outcome::Woken))
    });
    assert_eq!(task.suspend(), Outcome::Woken);
    waker.join().unwrap();
}

fn event_against_deadline() {
    let task = Task::new();
    let seq = task.word.begin(Kind::Plain).unwrap();
    let wakers = [Outcome::Woken, Outcome::TimedOut].map(|outcome| {
        let task = task.clone();
        (outcome, thread::spawn(move || task.wake(seq, outcome)))
    });
    let outcome = task.suspend();
    for (of, waker) in wakers {
        assert_eq!(
            waker.join().unwrap(),
            of == outcome,
            "the one that counted knows it did"
        );
    }
}

fn event_against_interrupt() {
    let task = Task::new();
    let seq = task.word.begin(Kind::Interruptible).unwrap();
    let event = thread::spawn({
        let task = task.clone();
        move || task.wake(seq, Outcome::Woken)
    });
    let interrupt = thread::spawn({
        let task = task.clone();
        move || task.follow_up(task.word.interrupt())
    });
    let outcome = task.suspend();
    let by_event = event.join().unwrap();
    let by_interrupt = interrupt.join().unwrap();
    assert_eq!(by_event, outcome == Outcome::Woken);
    assert_eq!(by_interrupt, outcome == Outcome::Interrupted);
    assert!(
        task.word.begin(Kind::Interruptible).is_err(),
        "an interrupt lasts"
    );
}

fn late_waker_against_next_wait() {
    let task = Task::new();
    let first = task.word.begin(Kind::Plain).unwrap();
    let late = thread::spawn({
        let task = task.clone();
        move || task.wake(first, Outcome::Woken)
    });
    // A deadline may end the first wait; then another begins.
    task.wake(first, Outcome::TimedOut);
    task.suspend();
    let second = task.word.begin(Kind::Plain).unwrap();
    let waker = thread::spawn({
        let task = task.clone();
        move || assert!(task.wake(second, Outcome::TimedOut))
    });
    assert_eq!(
        task.suspend(),
        Outcome::TimedOut,
        "the late waker does not end it"
    );
    waker.join().unwrap();
    late.join().unwrap();
}

fn unpark_against_park() {
    let task = Task::new();
    let wakers = [(); 2].map(|()| {
        let task = task.clone();
        thread::spawn(move || task.follow_up(task.word.unpark()))
    });
    task.park();
    let ended = wakers.map(|waker| usize::from(waker.join().unwrap()));
    assert!(ended.iter().sum::<usize>() <= 1, "one park is ended once");
    // The other unpark came before the park was over, or has left the token.
    let left = task.word.begin_for_token().is_none();
    let none = left && task.word.begin_for_token().is_some();
    assert!(none || !left, "there is one token at most");
}

fn token_survives_a_wait() {
    let task = Task::new();
    let seq = task.word.begin(Kind::Plain).unwrap();
    let unparker = thread::spawn({
        let task = task.clone();
        move || task.follow_up(task.word.unpark())
    });
    let waker = thread::spawn({
        let task = task.clone();
        move || assert!(task.wake(seq, Outcome::Woken))
    });
    assert_eq!(task.suspend(), Outcome::Woken);
    waker.join().unwrap();
    task.park();
    unparker.join().unwrap();
}
