//! A barrier that can be aborted, and at which one can wait for a limited time.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::line::{Ended, Line, prepare_to_wait, wait_in_line};
use crate::atomic::own_lock;
use crate::park;
use crate::task::word::Outcome;
use crate::task::{Awaiting, Deadline, Reason};

/// A place where a fixed number of tasks wait for each other, again and again.
///
/// Unlike std's barrier (which is [`shims::sync::Barrier`](crate::shims::sync::Barrier) here), this one can
/// *break*: when [`abort`](Barrier::abort) is called, or when a task that waits times out or unwinds.
/// Then the others get an error instead of waiting for ever. It stays broken until
/// [`reset`](Barrier::reset).
///
/// ```
/// use greenroom::sync::{Barrier, BarrierError};
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// greenroom::run(|| {
///     let barrier = Arc::new(Barrier::new(2));
///     let other = greenroom::spawn({
///         let barrier = Arc::clone(&barrier);
///         move || barrier.wait().is_ok()
///     });
///     assert!(barrier.wait().is_ok());
///     assert!(other.join().unwrap());
///
///     // Nobody else comes.
///     let waited = barrier.wait_timeout(Duration::from_millis(1));
///     assert_eq!(waited, Err(BarrierError::TimedOut));
///     assert_eq!(barrier.wait(), Err(BarrierError::Broken));
///     barrier.reset();
///     assert!(!barrier.is_broken());
/// });
/// ```
///
/// # Unwinding
///
/// All waits are interruption points.
pub struct Barrier {
    size: usize,
    state: Mutex<State>,
}

/// What the lock guards.
struct State {
    /// How many of the current round have arrived.
    arrived: usize,
    broken: bool,
    line: Line<Note>,
}

/// Whether the round has passed the barrier. `None` until it has passed or was broken.
type Note = Cell<Option<bool>>;

impl State {
    fn line(&mut self) -> &mut Line<Note> {
        &mut self.line
    }

    /// Ends the current round.
    fn end_round(&mut self, passed: bool) -> Ended<Note> {
        self.arrived = 0;
        let mut ended = Ended::none();
        // Also tells those that are about to leave by themselves.
        let tell = |note: &Note| {
            note.set(Some(passed));
            true
        };
        while self.line.end_first_if(&mut ended, tell).is_some() {}
        ended
    }

    fn break_round(&mut self) -> Ended<Note> {
        self.broken = true;
        self.end_round(false)
    }
}

/// Why a wait at a [`Barrier`] has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierError {
    /// The others did not arrive in time. The barrier is broken now.
    TimedOut,
    /// The barrier is broken.
    Broken,
}

impl fmt::Display for BarrierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BarrierError::TimedOut => "the others did not arrive at the barrier in time",
            BarrierError::Broken => "the barrier is broken",
        })
    }
}

impl Error for BarrierError {}

impl Barrier {
    /// Makes a barrier for `size` tasks. A size of zero is as good as one: nobody waits.
    pub const fn new(size: usize) -> Barrier {
        let state = State {
            arrived: 0,
            broken: false,
            line: Line::new(),
        };
        Barrier {
            size,
            state: Mutex::new(state),
        }
    }

    /// Waits until as many tasks wait as the barrier is for. Returns how many had arrived before the caller:
    /// 0 for the first one, the size less one for the last one.
    ///
    /// # Errors
    ///
    /// [`Broken`](BarrierError::Broken) if the barrier is broken, or breaks meanwhile.
    pub fn wait(&self) -> Result<usize, BarrierError> {
        self.wait_until(|| None)
    }

    /// Like [`wait`](Barrier::wait), for at most `timeout`. If the others have not arrived by then, the
    /// barrier breaks.
    ///
    /// # Errors
    ///
    /// - [`TimedOut`](BarrierError::TimedOut) if the others have not arrived in time;
    /// - [`Broken`](BarrierError::Broken) if the barrier is broken, or breaks meanwhile.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<usize, BarrierError> {
        self.wait_until(|| Deadline::after(timeout))
    }

    /// Like [`wait_timeout`](Barrier::wait_timeout), until `deadline` at the latest.
    ///
    /// # Errors
    ///
    /// See [`wait_timeout`](Barrier::wait_timeout).
    pub fn wait_deadline(&self, deadline: Instant) -> Result<usize, BarrierError> {
        self.wait_until(|| Some(Deadline::at(deadline)))
    }

    /// Breaks the barrier. All that wait, and all that come later, get an error.
    pub fn abort(&self) {
        let ended = own_lock(&self.state).break_round();
        ended.schedule();
    }

    /// Makes the barrier as new. All that wait get an error.
    pub fn reset(&self) {
        let ended = {
            let mut state = own_lock(&self.state);
            let ended = state.end_round(false);
            state.broken = false;
            ended
        };
        ended.schedule();
    }

    /// Whether the barrier is broken.
    pub fn is_broken(&self) -> bool {
        own_lock(&self.state).broken
    }

    /// How many tasks wait.
    pub fn waiting(&self) -> usize {
        own_lock(&self.state).arrived
    }

    /// For how many tasks the barrier is.
    pub fn size(&self) -> usize {
        self.size
    }

    fn wait_until(
        &self,
        deadline: impl FnOnce() -> Option<Deadline>,
    ) -> Result<usize, BarrierError> {
        park::spend_operation();
        prepare_to_wait();
        let deadline = deadline();
        let mut state = own_lock(&self.state);
        if state.broken {
            return Err(BarrierError::Broken);
        }
        let before = state.arrived;
        if before + 1 >= self.size {
            let ended = state.end_round(true);
            drop(state);
            ended.schedule();
            return Ok(before);
        }
        state.arrived += 1;
        // If the caller has left before the round has ended, the round cannot succeed any more.
        let left = |state: &mut State, note: &Note| match note.get() {
            None => state.break_round(),
            Some(_) => Ended::none(),
        };
        let note = Cell::new(None);
        let awaiting = Awaiting::object(Reason::Barrier, self);
        let (note, outcome) = wait_in_line(
            &self.state,
            state,
            State::line,
            note,
            awaiting,
            deadline,
            left,
        );
        match (note.into_inner(), outcome) {
            (Some(true), _) => Ok(before),
            (None, Outcome::TimedOut) => Err(BarrierError::TimedOut),
            (None | Some(false), _) => Err(BarrierError::Broken),
        }
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (waiting, is_broken) = (self.waiting(), self.is_broken());
        f.debug_struct("Barrier")
            .field("size", &self.size)
            .field("waiting", &waiting)
            .field("is_broken", &is_broken)
            .finish()
    }
}
