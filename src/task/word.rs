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
//! Each wait has a sequence number. A waker knows the number of the wait that it is for, and its one
//! compare-and-swap succeeds only while that wait lasts. So a late waker has no effect. If there are
//! several wakers (an event, a deadline, an interrupt), exactly one decides the outcome, and that one
//! must schedule the task.
//!
//! Every wait that has begun is suspended, and every suspension ends because the task is scheduled. So a
//! task is never in a queue twice, and never forgotten:
//!
//! - *The wake comes before the task is switched away from, or during that.* The waker puts the task into
//!   a queue of its owner. Only the owner takes the task from there, and does so after the switch.
//! - *There are two wakers.* The swap of the second one fails.
//! - *The task runs.* The waker finds no wait with its number, or no wait at all.
//!
//! The word also carries the *token* of `thread::park`. That token is public: internal wakes never touch
//! it, and it outlasts reads, sleeps and locks in between, as std's does. A PUBLIC wait is also ended by
//! `unpark`.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicU64, Ordering};

/// The bits of the state, which has one of the values below.
const STATE: u64 = 0b111;
/// No wait has begun yet.
const ENDED: u64 = 0;
/// The current wait lasts.
const WAITING: u64 = 1;
/// The current wait has ended, since its event has come.
const WOKEN: u64 = 2;
/// The current wait has ended, since its deadline has passed.
const TIMED_OUT: u64 = 3;
/// The current wait has ended, since the task was interrupted.
const INTERRUPTED: u64 = 4;

/// The public token of `thread::park` is there.
const TOKEN: u64 = 1 << 3;
/// The task is interrupted: interruptible waits do not begin any more.
const INTERRUPT: u64 = 1 << 4;
/// The current wait may be interrupted.
const INTERRUPTIBLE: u64 = 1 << 5;
/// The current wait is that of `thread::park`.
const PUBLIC: u64 = 1 << 6;
/// The current wait is for an event that comes by itself.
const EVENT: u64 = 1 << 7;
/// The current wait may be interrupted by the end of the runtime, once it is known that the task does not
/// unwind.
const LATER: u64 = 1 << 8;

/// The task may be in an interrupt scope, which then says what interrupts it.
const SCOPED: u64 = 1 << 9;

/// The owner resumes the task for a look at its stack, whatever the state of the wait.
const LOOK: u64 = 1 << 10;

/// The unit of the sequence number, which fills the remaining bits.
const SEQ: u64 = 1 << 11;
/// The bits that belong to the task, not to its current wait.
const LASTING: u64 = TOKEN | INTERRUPT | SCOPED;

/// The sequence number of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seq(u64);

/// How a wait has ended.
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
    /// For such an event, while something uses memory of the waiter's stack. Not interruptible.
    Borrowed,
    /// For another task: a join, a channel. Interruptible.
    Peer,
    /// For another task, by a wait that never unwinds in std: a lock, `park`, a scope. Not
    /// interruptible.
    Plain,
}

impl Kind {
    pub(crate) fn is_interruptible(self) -> bool {
        matches!(self, Kind::Event | Kind::Peer)
    }

    fn event_bit(self) -> u64 {
        match self {
            Kind::Event | Kind::Borrowed => EVENT,
            Kind::Peer | Kind::Plain => 0,
        }
    }
}

/// The state of a task's current wait, and the task's token. See the module documentation.
#[derive(Debug)]
pub(crate) struct WaitWord(AtomicU64);

impl WaitWord {
    /// The word of a task that has not waited. `scoped` is whether it begins in an interrupt scope.
    pub(crate) fn of_scoped(scoped: bool) -> WaitWord {
        WaitWord(AtomicU64::new(if scoped { ENDED | SCOPED } else { ENDED }))
    }

    /// The word of a task that has not waited, and is in no interrupt scope.
    #[allow(dead_code, reason = "for tests and models")]
    pub(crate) fn new() -> WaitWord {
        WaitWord::of_scoped(false)
    }

    /// Notes that the task is in an interrupt scope. Only the task itself asks for that.
    #[inline]
    pub(crate) fn enter_scope(&self) {
        if self.0.load(Ordering::Relaxed) & SCOPED == 0 {
            self.0.fetch_or(SCOPED, Ordering::Relaxed);
        }
    }

    /// Notes that the task is in no interrupt scope.
    pub(crate) fn leave_scopes(&self) {
        self.0.fetch_and(!SCOPED, Ordering::Relaxed);
    }

    /// Begins a wait. If waits of this kind are interruptible, fails if an interrupt is pending or the task
    /// may be in an interrupt scope.
    #[inline]
    pub(crate) fn begin(&self, kind: Kind) -> Result<Seq, NotBegun> {
        self.begin_unless_set(INTERRUPT | SCOPED, kind)
    }

    /// Begins a wait that can be interrupted, whatever the scopes of the task. Fails if an interrupt is
    /// pending and waits of this kind are interruptible.
    pub(crate) fn begin_in_scope(&self, kind: Kind) -> Result<Seq, NotBegun> {
        self.begin_unless_set(INTERRUPT, kind)
    }

    #[inline(always)]
    fn begin_unless_set(&self, bits: u64, kind: Kind) -> Result<Seq, NotBegun> {
        match kind.is_interruptible() {
            true => self.begin_unless(bits, INTERRUPTIBLE | kind.event_bit()),
            false => self.begin_unless(0, kind.event_bit()),
        }
    }

    /// Begins a wait of a task that unwinds, or, if that is not `certain`, may unwind. A pending
    /// interrupt does not prevent it.
    pub(crate) fn begin_amid_unwind(&self, kind: Kind, certain: bool) -> Seq {
        let later = match kind.is_interruptible() && !certain {
            true => LATER,
            false => 0,
        };
        self.begin_anyway(later | kind.event_bit())
    }

    /// Begins a wait that only the end of the task's runtime interrupts, by
    /// [`interrupt_later`](WaitWord::interrupt_later), if waits of this kind are interruptible. A pending
    /// interrupt does not prevent it.
    pub(crate) fn begin_for_runtime(&self, kind: Kind) -> Seq {
        self.begin_amid_unwind(kind, false)
    }

    /// Begins a wait that nothing interrupts. A pending interrupt does not prevent it.
    pub(crate) fn begin_uninterruptible(&self, kind: Kind) -> Seq {
        self.begin_anyway(kind.event_bit())
    }

    fn begin_anyway(&self, bits: u64) -> Seq {
        let begun = self.begin_unless(0, bits);
        begun.unwrap_or_else(|NotBegun| unreachable!("nothing keeps it from beginning"))
    }

    /// Begins a wait with `bits`, unless one of the bits `pending` is set.
    #[inline(always)]
    fn begin_unless(&self, pending: u64, bits: u64) -> Result<Seq, NotBegun> {
        let next = |word: u64| {
            let begun = (seq(word) + SEQ) | (word & LASTING) | bits | WAITING;
            (word & pending == 0).then_some(begun)
        };
        match self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
        {
            Ok(before) => Ok(Seq(seq(before) + SEQ)),
            Err(_) => Err(NotBegun),
        }
    }

    /// Begins a public wait. If the token is there, consumes it instead, and returns `None`.
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

    /// How the last wait has ended. To be asked by the task, after it was suspended in that wait.
    #[inline]
    pub(crate) fn outcome(&self) -> Outcome {
        match self.outcome_unless_looked_at() {
            Some(outcome) => outcome,
            None => unreachable!("a task came back from a wait that has not ended"),
        }
    }

    /// Like `outcome`. `None` if the owner has only resumed the task for a look at its stack.
    ///
    /// Costs no more than `outcome`, since both have a branch for a word that should not be there.
    #[inline(always)]
    pub(crate) fn outcome_unless_looked_at(&self) -> Option<Outcome> {
        match self.0.load(Ordering::Acquire) & (STATE | LOOK) {
            WOKEN => Some(Outcome::Woken),
            TIMED_OUT => Some(Outcome::TimedOut),
            INTERRUPTED => Some(Outcome::Interrupted),
            _ => None,
        }
    }

    /// Notes that the owner is about to resume the task for a look, in a wait that lasts or has ended. Wakers
    /// go on as before, so what they do is not lost: they do not change this note, and it does not matter to
    /// them.
    pub(crate) fn begin_look(&self) {
        self.0.fetch_or(LOOK, Ordering::Relaxed);
    }

    /// Notes that the task is suspended again, in the same wait.
    pub(crate) fn end_look(&self) {
        self.0.fetch_and(!LOOK, Ordering::Relaxed);
    }

    /// Whether the owner has resumed the task for a look only.
    pub(crate) fn is_looked_at(&self) -> bool {
        self.0.load(Ordering::Relaxed) & LOOK != 0
    }

    /// Whether the current wait lasts.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.load(Ordering::Relaxed) & STATE == WAITING
    }

    /// The number of the current or last wait.
    pub(crate) fn seq(&self) -> u64 {
        seq(self.0.load(Ordering::Relaxed))
    }

    /// Whether the task is interrupted.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.0.load(Ordering::Relaxed) & INTERRUPT != 0
    }

    /// Whether the task waits for an event that comes by itself. If so, returns whether the wait might
    /// be interrupted later instead.
    pub(crate) fn awaits_event(&self) -> Option<bool> {
        let word = self.0.load(Ordering::Relaxed);
        (word & STATE == WAITING && word & EVENT != 0).then_some(word & LATER != 0)
    }

    // Each of the following functions returns whether it has ended a wait. If so, the caller must
    // schedule the task.

    /// Ends wait `of`, unless it has ended.
    #[must_use]
    pub(crate) fn wake(&self, of: Seq, outcome: Outcome) -> bool {
        self.end(outcome, |word| seq(word) == of.0)
    }

    /// Makes the public token available: ends a public wait, or leaves the token for the next one.
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

    /// Interrupts the task: ends its current wait, if that is interruptible, and prevents such waits from
    /// beginning.
    #[must_use]
    pub(crate) fn interrupt(&self) -> bool {
        self.0.fetch_or(INTERRUPT, Ordering::AcqRel);
        self.end(Outcome::Interrupted, |word| word & INTERRUPTIBLE != 0)
    }

    /// Interrupts the current wait if only the end of the runtime interrupts it, or if it began while some
    /// task of the thread unwound. By now it is known that this task does not unwind.
    #[must_use]
    pub(crate) fn interrupt_later(&self) -> bool {
        self.end(Outcome::Interrupted, |word| word & LATER != 0)
    }

    /// Ends the current wait, whatever its kind, of a task that will never run again. The task must not
    /// be scheduled, and from now on no waker finds a wait that it could end.
    pub(crate) fn retire(&self) {
        // The task may be in no wait, or already woken.
        let _ = self.end(Outcome::Interrupted, |_| true);
    }

    /// Ends the current wait with `outcome`, if it lasts and `applies` returns true for the word.
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

/// The wait has not begun: see the function that returns this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotBegun;

/// The sequence number in a word.
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
    fn a_look_is_no_outcome_and_does_not_keep_a_waker_from_ending_the_wait() {
        let word = WaitWord::new();
        let seq = word.begin(Kind::Plain).unwrap();
        word.begin_look();
        assert_eq!(word.outcome_unless_looked_at(), None);
        assert!(word.wake(seq, Outcome::Woken));
        assert_eq!(word.outcome_unless_looked_at(), None, "it is not its turn");
        word.end_look();
        assert_eq!(word.outcome(), Outcome::Woken);
        // A look at a task that was woken already.
        word.begin_look();
        assert_eq!(word.outcome_unless_looked_at(), None);
        word.end_look();
        assert_eq!(word.outcome(), Outcome::Woken);
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
            assert_eq!(word.begin(kind), Err(NotBegun));
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
    fn in_a_scope_an_interruptible_wait_begins_only_with_care() {
        let word = WaitWord::new();
        word.enter_scope();
        assert_eq!(word.begin(Kind::Event), Err(NotBegun));
        let seq = word.begin(Kind::Plain).unwrap();
        assert!(word.wake(seq, Outcome::Woken));
        let seq = word.begin_in_scope(Kind::Event).unwrap();
        assert!(word.wake(seq, Outcome::Woken));
        word.leave_scopes();
        assert!(word.begin(Kind::Event).is_ok());
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
