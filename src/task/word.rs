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
/// The current wait is for an event that comes by itself.
const EVENT: u64 = 1 << 7;
/// The current wait may be interrupted once it is known that the task does not unwind.
const LATER: u64 = 1 << 8;

const SEQ: u64 = 1 << 9;
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

/// What a wait is for, and whether an interrupt ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// For an event that comes by itself: I/O, a deadline, the end of a pool job. Interruptible.
    Event,
    /// For such an event, which uses memory of the waiter's stack. Not interruptible.
    Borrowed,
    /// For another task: a join, a channel. Interruptible.
    Peer,
    /// For another task, by a wait that std never unwinds: a lock, `park`, a scope. Not interruptible.
    Plain,
}

impl Kind {
    fn is_interruptible(self) -> bool {
        matches!(self, Kind::Event | Kind::Peer)
    }

    fn event_bit(self) -> u64 {
        match self {
            Kind::Event | Kind::Borrowed => EVENT,
            Kind::Peer | Kind::Plain => 0,
        }
    }
}

#[derive(Debug)]
pub(crate) struct WaitWord(AtomicU64);

impl WaitWord {
    pub(crate) fn new() -> WaitWord {
        WaitWord(AtomicU64::new(ENDED))
    }

    /// Begins a wait, or says that an interrupt is pending for waits of this kind.
    #[inline]
    pub(crate) fn begin(&self, kind: Kind) -> Result<Seq, Pending> {
        let interruptible = kind.is_interruptible();
        let bits = if interruptible { INTERRUPTIBLE } else { 0 } | kind.event_bit();
        self.begin_unless(if interruptible { INTERRUPT } else { 0 }, bits)
    }

    /// Begins a wait of a task that unwinds, or may, if that is not `certain`. No pending interrupt keeps it
    /// from waiting.
    pub(crate) fn begin_amid_unwind(&self, kind: Kind, certain: bool) -> Seq {
        let later = match kind.is_interruptible() && !certain {
            true => LATER,
            false => 0,
        };
        let begun = self.begin_unless(0, later | kind.event_bit());
        begun.unwrap_or_else(|Pending| unreachable!("nothing keeps it from beginning"))
    }

    #[inline(always)]
    fn begin_unless(&self, pending: u64, bits: u64) -> Result<Seq, Pending> {
        let next = |word: u64| {
            let begun = (seq(word) + SEQ) | (word & LASTING) | bits | WAITING;
            (word & pending == 0).then_some(begun)
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
    #[inline]
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

    /// Whether the task waits for an event that comes by itself; and if so, whether it might unwind instead.
    pub(crate) fn awaits_event(&self) -> Option<bool> {
        let word = self.0.load(Ordering::Relaxed);
        (word & STATE == WAITING && word & EVENT != 0).then_some(word & LATER != 0)
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

    /// Interrupts the current wait if it began amid an unwind that turns out to be another task's.
    #[must_use]
    pub(crate) fn interrupt_later(&self) -> bool {
        self.end(Outcome::Interrupted, |word| word & LATER != 0)
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
        let seq = word.begin(Kind::Peer).unwrap();
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
        for kind in [Kind::Event, Kind::Borrowed, Kind::Peer, Kind::Plain] {
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
        for kind in [Kind::Event, Kind::Peer] {
            let word = WaitWord::new();
            word.begin(kind).unwrap();
            assert!(word.interrupt());
            assert_eq!(word.begin(kind), Err(Pending));
            word.begin_amid_unwind(kind, false);
            assert!(!word.interrupt());
            assert!(word.interrupt_later());
            word.begin_amid_unwind(kind, true);
            assert!(!word.interrupt() && !word.interrupt_later());
        }
        for kind in [Kind::Borrowed, Kind::Plain] {
            let word = WaitWord::new();
            word.begin(kind).unwrap();
            assert!(!word.interrupt());
            let second = word
                .wake(Seq(SEQ), Outcome::Woken)
                .then(|| word.begin(kind));
            assert_eq!(second, Some(Ok(Seq(2 * SEQ))), "and so are those after it");
        }
    }

    #[test]
    fn waits_for_events_that_come_by_themselves_are_told_from_others() {
        let awaits = |kind| {
            let word = WaitWord::new();
            word.begin(kind).unwrap();
            word.awaits_event().is_some()
        };
        assert!(awaits(Kind::Event) && awaits(Kind::Borrowed));
        assert!(!awaits(Kind::Peer) && !awaits(Kind::Plain));
        assert_eq!(WaitWord::new().awaits_event(), None);
    }
}
