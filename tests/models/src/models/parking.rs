//! Waits and their wakers: `task/word.rs`.

use super::word::{Kind, Outcome, Seq, WaitWord};
use super::{Model, large, small};
use crate::check::atomic::{AtomicUsize, Ordering};
use crate::check::{Arc, Signal, thread};

pub(super) const MODELS: &[Model] = &[
    small(
        "parking: a wake against the suspend",
        4,
        wake_against_suspend,
    ),
    small(
        "parking: an event against a deadline",
        4,
        event_against_deadline,
    ),
    small(
        "parking: an event against an interrupt",
        3,
        event_against_interrupt,
    ),
    small(
        "parking: a cancellation against an event against a deadline",
        3,
        cancellation_against_event_against_deadline,
    ),
    small(
        "parking: a cancellation against a shielded wait and the next one",
        3,
        cancellation_against_shield,
    ),
    small(
        "parking: a late waker against the next wait",
        3,
        late_waker_against_next_wait,
    ),
    small("parking: unpark against park", 3, unpark_against_park),
    small(
        "parking: the token survives a wait",
        3,
        token_survives_a_wait,
    ),
    large(
        "parking: wakers of many waits, an interrupt and a token",
        wakers_of_many_waits,
    ),
    large("parking: two tasks that unpark each other", ping_pong),
];

/// A task: its word, and the queue of its owner, in which it may be once.
pub(crate) struct Task {
    pub(crate) word: WaitWord,
    /// In an `Arc` of its own: the task may be gone before the waker has returned from `raise`.
    queue: std::sync::Arc<Signal>,
}

impl Task {
    pub(super) fn new() -> Arc<Task> {
        Arc::new(Task {
            word: WaitWord::new(),
            queue: std::sync::Arc::new(Signal::new()),
        })
    }

    /// Schedules the task if the caller has `ended` its wait. Returns `ended`.
    pub(super) fn follow_up(&self, ended: bool) -> bool {
        if ended {
            self.schedule();
        }
        ended
    }

    pub(crate) fn runs_at_once(&self) -> bool {
        true
    }

    pub(crate) fn schedule(&self) {
        let queue = std::sync::Arc::clone(&self.queue);
        queue.raise();
    }

    pub(super) fn wake(&self, seq: Seq, outcome: Outcome) -> bool {
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

    /// Suspends a wait that has begun, to its end.
    pub(super) fn suspend(&self) -> Outcome {
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

/// A waker comes before, during or after the switch. The task is queued once.
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

/// An event and a deadline end the same wait. One of them does.
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
            "the waker that ended the wait knows it"
        );
    }
}

/// An event and an interrupt end the same wait. One of them does, and the interrupt stays pending.
fn event_against_interrupt() {
    let task = Task::new();
    let seq = task.word.begin(Kind::Peer).unwrap();
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
    assert!(task.word.begin(Kind::Peer).is_err(), "an interrupt lasts");
}

/// An event, a deadline and two cancellations end the same wait. One of them does, the task is queued
/// once, and it cannot wait again.
fn cancellation_against_event_against_deadline() {
    let task = Task::new();
    let seq = task.word.begin(Kind::Event).unwrap();
    let wakers = [Outcome::Woken, Outcome::TimedOut].map(|outcome| {
        let task = task.clone();
        (outcome, thread::spawn(move || task.wake(seq, outcome)))
    });
    let by_cancel = task.follow_up(task.word.interrupt());
    let outcome = task.suspend();
    assert_eq!(by_cancel, outcome == Outcome::Interrupted);
    for (of, waker) in wakers {
        assert_eq!(waker.join().unwrap(), of == outcome);
    }
    assert!(
        !task.word.interrupt(),
        "cancelling twice is the same as once"
    );
    assert!(task.word.begin(Kind::Event).is_err());
}

/// A cancellation comes while the task waits in a shield, or before, or after. It never ends that wait,
/// and it ends or prevents the next one.
fn cancellation_against_shield() {
    let task = Task::new();
    let seq = task.word.begin_uninterruptible(Kind::Event);
    let canceller = thread::spawn({
        let task = task.clone();
        move || task.follow_up(task.word.interrupt())
    });
    let event = thread::spawn({
        let task = task.clone();
        move || assert!(task.wake(seq, Outcome::Woken))
    });
    assert_eq!(task.suspend(), Outcome::Woken);
    let ended = match task.word.begin(Kind::Event) {
        Ok(_) => {
            assert_eq!(task.suspend(), Outcome::Interrupted);
            true
        }
        Err(_) => false,
    };
    assert_eq!(canceller.join().unwrap(), ended);
    event.join().unwrap();
}

/// A waker that comes too late for its wait does not end the next one.
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

/// Two unparks against one park. One of them ends it, and at most one token is left.
fn unpark_against_park() {
    let task = Task::new();
    let wakers = [(); 2].map(|()| {
        let task = task.clone();
        thread::spawn(move || task.follow_up(task.word.unpark()))
    });
    task.park();
    let ended = wakers.map(|waker| usize::from(waker.join().unwrap()));
    assert!(ended.iter().sum::<usize>() <= 1, "one park is ended once");
    // The other unpark came before the end of the park, or has left the token.
    let left = task.word.begin_for_token().is_none();
    let none = left && task.word.begin_for_token().is_some();
    assert!(none || !left, "there is at most one token");
}

/// An unpark during a wait of another kind does not end that, and leaves the token.
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

/// Three wakers for each wait. The task does not wait for them to return, so most of them come during a
/// later wait, of any kind.
fn wakers_of_many_waits() {
    let task = Task::new();
    let interrupter = thread::spawn({
        let task = task.clone();
        move || task.follow_up(task.word.interrupt())
    });
    let unparker = thread::spawn({
        let task = task.clone();
        move || task.follow_up(task.word.unpark())
    });
    let mut waits = Vec::new();
    let mut interrupted = false;
    for round in 0..5 {
        let kind = match round % 3 {
            0 if !interrupted => Kind::Peer,
            1 => Kind::Borrowed,
            _ => Kind::Plain,
        };
        let Ok(seq) = task.word.begin(kind) else {
            assert_eq!(kind, Kind::Peer, "waits of other kinds are not interrupted");
            interrupted = true;
            continue;
        };
        let wakers = [Outcome::Woken, Outcome::Woken, Outcome::TimedOut].map(|outcome| {
            let task = task.clone();
            (outcome, thread::spawn(move || task.wake(seq, outcome)))
        });
        waits.push((task.suspend(), kind, wakers));
    }
    let mut interrupts = 0;
    for (outcome, kind, wakers) in waits {
        let ended = wakers.map(|(of, waker)| waker.join().unwrap().then_some(of));
        let ended: Vec<_> = ended.into_iter().flatten().collect();
        if outcome == Outcome::Interrupted {
            assert_eq!(ended, [], "the interrupt has ended the wait");
            assert_eq!(kind, Kind::Peer);
            interrupts += 1;
        } else {
            assert_eq!(ended, [outcome], "the waker that ended the wait knows it");
        }
    }
    let by_interrupt = usize::from(interrupter.join().unwrap());
    assert_eq!(by_interrupt, interrupts, "one interrupt ends one wait");
    assert!(task.word.is_interrupted());
    assert!(!unparker.join().unwrap(), "no wait was for the token");
    assert_eq!(
        task.word.begin_for_token(),
        None,
        "the token is still there"
    );
    assert!(task.word.begin_for_token().is_some(), "there is one token");
}

/// Two tasks take turns, each woken by the other, while a third unparks both for no reason.
fn ping_pong() {
    const TURNS: usize = 6;
    let tasks = [Task::new(), Task::new()];
    let turn = Arc::new(AtomicUsize::new(0));
    let players = [0, 1].map(|me| {
        let (tasks, turn) = (tasks.clone(), turn.clone());
        thread::spawn(move || {
            for mine in (me..TURNS).step_by(2) {
                while turn.load(Ordering::Acquire) != mine {
                    tasks[me].park();
                }
                turn.store(mine + 1, Ordering::Release);
                let other = &tasks[1 - me];
                other.follow_up(other.word.unpark());
            }
        })
    });
    let strangers = [0, 1].map(|player| {
        let task = tasks[player].clone();
        thread::spawn(move || {
            for _ in 0..3 {
                task.follow_up(task.word.unpark());
            }
        })
    });
    for thread in players.into_iter().chain(strangers) {
        thread.join().unwrap();
    }
    assert_eq!(turn.load(Ordering::Acquire), TURNS);
}
