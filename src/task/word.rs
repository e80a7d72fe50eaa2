//! The word that decides how a wait ends.
//!
//! ```text
//!            begin(seq+1)             suspend
//!   ENDED ───────────────▶ ARMED ───────────────▶ PARKED
//!     ▲                      │                      │
//!     │                      │ wake(seq, outcome)   │ wake(seq, outcome)
//!     │                      ▼                      ▼
//!     └─────────────── WOKEN | TIMED_OUT | INTERRUPTED   (the waker schedules iff it saw PARKED)
//!        next begin
//! ```
//!
//! Each wait has a sequence number. A waker holds the number of the wait it is for, and its one
//! compare-and-swap succeeds only while that wait is armed or parked: a late waker is dropped, and
//! of several (an event, a deadline, an interrupt) exactly one decides the outcome. A waker that
//! finds the wait merely armed leaves it to the waiter to notice; one that finds it parked has,
//! alone, the duty to schedule the task. So a task is never in a queue twice and never forgotten:
//!
//! - *wake before suspend*: ARMED becomes WOKEN; `suspend`'s swap fails, and the task goes on.
//! - *wake during the switch-out*: PARKED is set before the switch. The waker queues the task with
//!   its owner, and only the owner, once the switch is over, takes it from there.
//! - *two wakers*: the second one's swap fails.
//!
//! The word also carries the *token* of `thread::park`, which is public: internal wakes never
//! touch it, and it survives reads, sleeps and locks in between, as std's does. A wait that is
//! PUBLIC ends by `unpark`, too.

use crate::atomic::{AtomicU64, Ordering};

const STATE: u64 = 0b111;
const ENDED: u64 = 0;
const ARMED: u64 = 1;
const PARKED: u64 = 2;
const WOKEN: u64 = 3;
const TIMED_OUT: u64 = 4;
const INTERRUPTED: u64 = 5;

/// The public token of `thread::park`.
const TOKEN: u64 = 1 << 3;
/// Waits that may be interrupted are, from now on.
const INTERRUPT: u64 = 1 << 4;
/// The current wait may be interrupted.
const INTERRUPTIBLE: u64 = 1 << 5;
/// The current wait is `thread::park`'s.
const PUBLIC: u64 = 1 << 6;
/// The current wait ends by its own event alone.
const COMMITTED: u64 = 1 << 7;

const SEQ: u64 = 1 << 8;
/// What belongs to the task, not to its current wait.
const LASTING: u64 = TOKEN | INTERRUPT;

/// The number of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seq(u64);

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Woken,
    TimedOut,
    Interrupted,
}

/// Who may end a wait besides its event and its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Cancellation and shutdown: the wait unwinds.
    Interruptible,
    /// Nobody, except that a shutdown unwinds it as a last resort, when nothing else runs.
    Plain,
    /// Nobody at all: others rely on memory of this stack until the event comes.
    Committed,
}

/// What a waker has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// Nothing: the wait it was for is over, and this wake had no effect.
    Stale,
    /// Nothing: the task runs, and will notice.
    Noticed,
    /// Schedule the task.
    Schedule,
}

#[derive(Debug)]
pub(crate) struct WaitWord(AtomicU64);

impl WaitWord {
    pub(crate) fn new() -> WaitWord {
        WaitWord(AtomicU64::new(ENDED))
    }

    /// Begins a wait, or says that an interrupt is pending for waits of this kind.
    pub(crate) fn begin(&self, kind: Kind) -> Result<Seq, Pending> {
        let kind_bit = match kind {
            Kind::Interruptible => INTERRUPTIBLE,
            Kind::Plain => 0,
            Kind::Committed => COMMITTED,
        };
        let next = |word: u64| {
            let pending = word & INTERRUPT != 0 && kind == Kind::Interruptible;
            (!pending).then(|| (seq(word) + SEQ) | (word & LASTING) | kind_bit | ARMED)
        };
        match self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
        {
            Ok(before) => Ok(Seq(seq(before) + SEQ)),
            Err(_) => Err(Pending),
        }
    }

    /// Declares the armed wait parked. Returns whether the task must suspend: not if it was woken
    /// already.
    pub(crate) fn suspend(&self) -> bool {
        let parked = |word| (word & STATE == ARMED).then_some(word & !STATE | PARKED);
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, parked)
            .is_ok()
    }

    /// Begins a public wait and declares it parked, unless the token is there, which it consumes.
    pub(crate) fn suspend_for_token(&self) -> Option<Seq> {
        let next = |word: u64| {
            Some(match word & TOKEN {
                0 => (seq(word) + SEQ) | (word & LASTING) | PUBLIC | PARKED,
                _ => word & !TOKEN,
            })
        };
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        let before = before.unwrap_or_else(|word| word);
        (before & TOKEN == 0).then(|| Seq(seq(before) + SEQ))
    }

    /// How the wait ended that the task has just come back from.
    pub(crate) fn outcome(&self) -> Outcome {
        match self.0.load(Ordering::Acquire) & STATE {
            WOKEN => Outcome::Woken,
            TIMED_OUT => Outcome::TimedOut,
            INTERRUPTED => Outcome::Interrupted,
            state => unreachable!("a task came back from a wait in state {state}"),
        }
    }

    /// Ends the wait numbered `of`, if it has not ended.
    pub(crate) fn wake(&self, of: Seq, outcome: Outcome) -> Wake {
        self.end(outcome, |word| seq(word) == of.0)
    }

    /// Hands over the public token: ends a public wait, or leaves the token for the next one.
    pub(crate) fn unpark(&self) -> Wake {
        let next = |word: u64| {
            Some(match word & STATE {
                PARKED if word & PUBLIC != 0 => word & !STATE | WOKEN,
                _ => word | TOKEN,
            })
        };
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        let before = before.unwrap_or_else(|word| word);
        if before & STATE == PARKED && before & PUBLIC != 0 {
            Wake::Schedule
        } else {
            Wake::Noticed
        }
    }

    /// Interrupts the current wait if it is interruptible, and all such waits to come.
    pub(crate) fn interrupt(&self) -> Wake {
        self.0.fetch_or(INTERRUPT, Ordering::AcqRel);
        self.end(Outcome::Interrupted, |word| word & INTERRUPTIBLE != 0)
    }

    /// Interrupts the current wait unless others rely on it.
    pub(crate) fn interrupt_plain(&self) -> Wake {
        self.end(Outcome::Interrupted, |word| word & COMMITTED == 0)
    }

    fn end(&self, outcome: Outcome, applies: impl Fn(u64) -> bool) -> Wake {
        let state = match outcome {
            Outcome::Woken => WOKEN,
            Outcome::TimedOut => TIMED_OUT,
            Outcome::Interrupted => INTERRUPTED,
        };
        let next = |word: u64| {
            let waits = matches!(word & STATE, ARMED | PARKED);
            (waits && applies(word)).then_some(word & !STATE | state)
        };
        match self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
        {
            Ok(before) if before & STATE == PARKED => Wake::Schedule,
            Ok(_) => Wake::Noticed,
            Err(_) => Wake::Stale,
        }
    }
}

/// An interrupt is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending;

fn seq(word: u64) -> u64 {
    word & !(SEQ - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_before_the_suspend_keeps_the_task_running() {
        let word = WaitWord::new();
        let seq = word.begin(Kind::Plain).unwrap();
        assert_eq!(word.wake(seq, Outcome::Woken), Wake::Noticed);
        assert!(!word.suspend());
        assert_eq!(word.outcome(), Outcome::Woken);
    }

    #[test]
    fn of_an_event_and_a_deadline_the_first_decides() {
        let word = WaitWord::new();
        let seq = word.begin(Kind::Plain).unwrap();
        assert!(word.suspend());
        assert_eq!(word.wake(seq, Outcome::TimedOut), Wake::Schedule);
        assert_eq!(word.wake(seq, Outcome::Woken), Wake::Stale);
        assert_eq!(word.outcome(), Outcome::TimedOut);
    }

    #[test]
    fn a_waker_of_an_earlier_wait_is_stale() {
        let word = WaitWord::new();
        let first = word.begin(Kind::Plain).unwrap();
        let second = word.begin(Kind::Plain).unwrap();
        assert!(word.suspend());
        assert_eq!(word.wake(first, Outcome::Woken), Wake::Stale);
        assert_eq!(word.wake(second, Outcome::Woken), Wake::Schedule);
    }

    #[test]
    fn the_public_token_survives_internal_waits() {
        let word = WaitWord::new();
        assert_eq!(word.unpark(), Wake::Noticed);
        let seq = word.begin(Kind::Interruptible).unwrap();
        assert!(word.suspend());
        assert_eq!(
            word.unpark(),
            Wake::Noticed,
            "an internal wait is not ended by unpark"
        );
        assert_eq!(word.wake(seq, Outcome::Woken), Wake::Schedule);
        assert_eq!(word.suspend_for_token(), None, "two unparks are one token");
        assert!(word.suspend_for_token().is_some());
        assert_eq!(word.unpark(), Wake::Schedule);
        assert!(
            word.suspend_for_token().is_some(),
            "that unpark left no token"
        );
    }

    #[test]
    fn an_interrupt_ends_interruptible_waits_now_and_later() {
        let word = WaitWord::new();
        word.begin(Kind::Plain).unwrap();
        assert!(word.suspend());
        assert_eq!(word.interrupt(), Wake::Stale);
        assert_eq!(word.interrupt_plain(), Wake::Schedule);
        assert_eq!(word.begin(Kind::Interruptible), Err(Pending));
        word.begin(Kind::Committed).unwrap();
        assert!(word.suspend());
        assert_eq!(word.interrupt_plain(), Wake::Stale);
    }
}
