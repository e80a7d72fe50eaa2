//! The word that decides how a wait ends.
//!
//! ```text
//!            begin(seq+1)
//!   ENDED ───────────────▶ WAITING
//!     ▲                      │ wake(seq, outcome): the waker schedules the task
//!     │                      ▼
//!     └───────── WOKEN | TIMED_OUT | INTERRUPTED
//!        next begin
//! ```
//!
//! Each wait has a sequence number. A waker holds the number of the wait it is for, and its one
//! compare-and-swap succeeds only while that wait lasts: a late waker is dropped, and of several
//! (an event, a deadline, an interrupt) exactly one decides the outcome and has, alone, the duty to
//! schedule the task. Every wait that has begun is suspended, and every suspension ends by being
//! scheduled. So a task is never in a queue twice and never forgotten:
//!
//! - *wake before the switch-out, or during it*: the waker queues the task with its owner, and only
//!   the owner, once the switch is over, takes it from there.
//! - *two wakers*: the second one's swap fails.
//! - *a waker that finds the task running* finds no wait of its number, or none at all.
//!
//! The word also carries the *token* of `thread::park`, which is public: internal wakes never
//! touch it, and it survives reads, sleeps and locks in between, as std's does. A wait that is
//! PUBLIC ends by `unpark`, too.

use crate::atomic::{AtomicU64, Ordering};

const STATE: u64 = 0b111;
const ENDED: u64 = 0;
const WAITING: u64 = 1;
const WOKEN: u64 = 2;
const TIMED_OUT: u64 = 3;
const INTERRUPTED: u64 = 4;

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
            (!pending).then(|| (seq(word) + SEQ) | (word & LASTING) | kind_bit | WAITING)
        };
        match self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
        {
            Ok(before) => Ok(Seq(seq(before) + SEQ)),
            Err(_) => Err(Pending),
        }
    }

    /// Begins a public wait, unless the token is there, which it consumes.
    pub(crate) fn begin_for_token(&self) -> Option<Seq> {
        let next = |word: u64| {
            Some(match word & TOKEN {
                0 => (seq(word) + SEQ) | (word & LASTING) | PUBLIC | WAITING,
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

    /// Whether waits that may be interrupted are.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.0.load(Ordering::Relaxed) & INTERRUPT != 0
    }

    // Each of these returns whether it has ended a wait, so that the caller must schedule the task.

    /// Ends the wait numbered `of`, if it has not ended.
    #[must_use]
    pub(crate) fn wake(&self, of: Seq, outcome: Outcome) -> bool {
        self.end(outcome, |word| seq(word) == of.0)
    }

    /// Hands over the public token: ends a public wait, or leaves the token for the next one.
    #[must_use]
    pub(crate) fn unpark(&self) -> bool {
        let waits = |word: u64| word & (STATE | PUBLIC) == WAITING | PUBLIC;
        let next = |word: u64| {
            Some(match waits(word) {
                true => word & !STATE | WOKEN,
                false => word | TOKEN,
            })
        };
        let before = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        waits(before.unwrap_or_else(|word| word))
    }

    /// Interrupts the current wait if it is interruptible, and all such waits to come.
    #[must_use]
    pub(crate) fn interrupt(&self) -> bool {
        self.0.fetch_or(INTERRUPT, Ordering::AcqRel);
        self.end(Outcome::Interrupted, |word| word & INTERRUPTIBLE != 0)
    }

    /// Interrupts the current wait unless others rely on it.
    #[must_use]
    pub(crate) fn interrupt_plain(&self) -> bool {
        self.end(Outcome::Interrupted, |word| word & COMMITTED == 0)
    }

    /// Ends the current wait, whatever its kind, of a task that will never run again: nobody is to
    /// schedule it, and no waker is to take it for one that can be woken.
    pub(crate) fn retire(&self) {
        // It may be in no wait, or woken.
        let _ = self.end(Outcome::Interrupted, |_| true);
    }

    fn end(&self, outcome: Outcome, applies: impl Fn(u64) -> bool) -> bool {
        let state = match outcome {
            Outcome::Woken => WOKEN,
            Outcome::TimedOut => TIMED_OUT,
            Outcome::Interrupted => INTERRUPTED,
        };
        let next =
            |word: u64| (word & STATE == WAITING && applies(word)).then_some(word & !STATE | state);
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
            .is_ok()
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
    fn of_an_event_and_a_deadline_the_first_decides() {
        let word = WaitWord::new();
        let seq = word.begin(Kind::Plain).unwrap();
        assert!(word.wake(seq, Outcome::TimedOut));
        assert!(!word.wake(seq, Outcome::Woken));
        assert_eq!(word.outcome(), Outcome::TimedOut);
    }

    #[test]
    fn a_waker_of_an_earlier_wait_is_stale() {
        let word = WaitWord::new();
        let first = word.begin(Kind::Plain).unwrap();
        assert!(word.wake(first, Outcome::Woken));
        let second = word.begin(Kind::Plain).unwrap();
        assert!(!word.wake(first, Outcome::Woken));
        assert!(word.wake(second, Outcome::Woken));
    }

    #[test]
    fn the_public_token_survives_internal_waits() {
        let word = WaitWord::new();
        assert!(!word.unpark());
        let seq = word.begin(Kind::Interruptible).unwrap();
        assert!(!word.unpark(), "an internal wait is not ended by unpark");
        assert!(word.wake(seq, Outcome::Woken));
        assert_eq!(word.begin_for_token(), None, "two unparks are one token");
        assert!(word.begin_for_token().is_some());
        assert!(word.unpark());
        assert!(
            word.begin_for_token().is_some(),
            "that unpark left no token"
        );
    }

    #[test]
    fn a_retired_task_cannot_be_woken_from_any_wait() {
        for kind in [Kind::Interruptible, Kind::Plain, Kind::Committed] {
            let word = WaitWord::new();
            let seq = word.begin(kind).unwrap();
            word.retire();
            assert!(!word.wake(seq, Outcome::Woken));
            assert!(!word.unpark());
        }
        let word = WaitWord::new();
        word.begin_for_token().unwrap();
        word.retire();
        assert!(!word.unpark());
    }

    #[test]
    fn an_interrupt_ends_interruptible_waits_now_and_later() {
        let word = WaitWord::new();
        word.begin(Kind::Plain).unwrap();
        assert!(!word.interrupt());
        assert!(word.interrupt_plain());
        assert_eq!(word.begin(Kind::Interruptible), Err(Pending));
        word.begin(Kind::Committed).unwrap();
        assert!(!word.interrupt_plain());
    }
}
