//! A semaphore: a number of permits.
#![forbid(unsafe_code)]

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::line::{Ended, Line, prepare_to_wait, wait_in_line};
use crate::atomic::{Mutex, own_lock};
use crate::park;
use crate::task::word::Outcome;
use crate::task::{Awaiting, Deadline, Reason};

/// A number of permits. A task that needs one waits until one is free.
///
/// Waiters get permits in the order in which they came, also those that need many: as long as the first one
/// waits, those behind it wait, too. Nothing overtakes the line.
///
/// ```
/// use greenroom::sync::Semaphore;
///
/// static SEATS: Semaphore = Semaphore::new(2);
///
/// greenroom::run(|| {
///     let guests: Vec<_> = (0..5)
///         .map(|_| {
///             greenroom::spawn(|| {
///                 let _seat = SEATS.acquire(); // at most two coroutines at a time
///                 greenroom::yield_now();
///             })
///         })
///         .collect();
///     guests.into_iter().for_each(|guest| guest.join().unwrap());
///     assert_eq!(SEATS.available_permits(), 2);
/// });
/// ```
///
/// # Unwinding
///
/// All waits are interruption points. A caller that times out or unwinds has taken no permit.
pub struct Semaphore {
    state: Mutex<State>,
}

/// What the lock guards.
pub(super) struct State {
    /// The free permits. Fewer than the first of the line wants.
    permits: usize,
    /// The waiters, with the number of permits that each wants.
    line: Line<usize>,
}

impl State {
    pub(super) const fn new(permits: usize) -> State {
        State {
            permits,
            line: Line::new(),
        }
    }

    fn line(&mut self) -> &mut Line<usize> {
        &mut self.line
    }

    fn take(&mut self, wanted: usize) -> bool {
        let has_enough = wanted <= self.permits;
        if has_enough {
            self.permits -= wanted;
        }
        has_enough
    }

    /// Hands free permits to the first waiters.
    fn hand_over(&mut self) -> Ended<usize> {
        let mut ended = Ended::none();
        let permits = &mut self.permits;
        while let Some(&wanted) = self
            .line
            .end_first_if(&mut ended, |wanted| *wanted <= *permits)
        {
            *permits -= wanted;
        }
        ended
    }
}

impl Semaphore {
    /// Makes one of its state. Not `new`: the models' locks cannot be made in a constant.
    pub(super) const fn of(state: Mutex<State>) -> Semaphore {
        Semaphore { state }
    }

    /// Takes a permit. Waits until one is free, and those that came before have theirs.
    pub fn acquire(&self) -> Permit<'_> {
        self.acquire_many(1)
    }

    /// Takes `n` permits at once. Waits until that many are free, and those that came before have theirs.
    ///
    /// Waits for ever if there are never that many.
    pub fn acquire_many(&self, n: usize) -> Permit<'_> {
        let taken = self.take(n, || None);
        debug_assert!(taken, "without a deadline the wait ends with a permit");
        self.permit(n)
    }

    /// Takes a permit, if one is free and nobody waits for it.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.try_acquire_many(1)
    }

    /// Takes `n` permits, if that many are free and nobody waits for them.
    pub fn try_acquire_many(&self, n: usize) -> Option<Permit<'_>> {
        self.try_take(n).then(|| self.permit(n))
    }

    /// Takes a permit. Returns `None` if none was free within `timeout`.
    pub fn acquire_timeout(&self, timeout: Duration) -> Option<Permit<'_>> {
        self.acquire_many_timeout(1, timeout)
    }

    /// Takes `n` permits. Returns `None` if that many were not free within `timeout`.
    pub fn acquire_many_timeout(&self, n: usize, timeout: Duration) -> Option<Permit<'_>> {
        self.take(n, || Deadline::after(timeout))
            .then(|| self.permit(n))
    }

    /// Takes a permit. Returns `None` if none was free before `deadline`.
    pub fn acquire_deadline(&self, deadline: Instant) -> Option<Permit<'_>> {
        self.take(1, || Some(Deadline::at(deadline)))
            .then(|| self.permit(1))
    }

    /// Takes a permit that owns a reference to the semaphore, so that it can go to another coroutine.
    ///
    /// ```
    /// use greenroom::sync::Semaphore;
    /// use std::sync::Arc;
    ///
    /// greenroom::run(|| {
    ///     let slots = Arc::new(Semaphore::new(3));
    ///     for n in 0..10 {
    ///         let slot = slots.acquire_owned(); // waits here, so that at most three run
    ///         greenroom::spawn(move || {
    ///             let _slot = slot;
    ///             greenroom::yield_now();
    ///         });
    ///     }
    ///     let _all = slots.acquire_many(3); // the last ones have ended
    /// });
    /// ```
    pub fn acquire_owned(self: &Arc<Self>) -> OwnedPermit {
        mem::forget(self.acquire());
        OwnedPermit {
            semaphore: Some(Arc::clone(self)),
        }
    }

    /// Adds permits, and hands them to those that wait.
    ///
    /// # Panics
    ///
    /// If there are more than `usize::MAX` free permits then.
    pub fn add_permits(&self, n: usize) {
        assert!(self.add(n), "a semaphore has too many permits");
    }

    /// How many permits are free. By the time the caller looks at the number, it may have changed.
    pub fn available_permits(&self) -> usize {
        own_lock(&self.state).permits
    }

    /// Takes `n` permits, or returns false if they were not free before the deadline.
    #[inline]
    fn take(&self, n: usize, deadline: impl FnOnce() -> Option<Deadline>) -> bool {
        park::spend_operation();
        self.try_take(n) || self.wait(n, deadline())
    }

    fn try_take(&self, n: usize) -> bool {
        let mut state = own_lock(&self.state);
        state.line.is_empty() && state.take(n)
    }

    #[cold]
    #[inline(never)]
    fn wait(&self, n: usize, deadline: Option<Deadline>) -> bool {
        prepare_to_wait();
        let mut state = own_lock(&self.state);
        if state.line.is_empty() && state.take(n) {
            return true;
        }
        // A waiter that leaves may have been the only reason why those behind it had to wait.
        let left = |state: &mut State, _: &usize| state.hand_over();
        let awaiting = Awaiting::object(Reason::Semaphore, self);
        let (_, outcome) =
            wait_in_line(&self.state, state, State::line, n, awaiting, deadline, left);
        outcome == Outcome::Woken
    }

    /// Returns false, and changes nothing, if there would be too many.
    fn add(&self, n: usize) -> bool {
        let ended = {
            let mut state = own_lock(&self.state);
            let Some(permits) = state.permits.checked_add(n) else {
                return false;
            };
            state.permits = permits;
            state.hand_over()
        };
        ended.schedule();
        true
    }

    fn permit(&self, count: usize) -> Permit<'_> {
        Permit {
            semaphore: self,
            count,
        }
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("available_permits", &self.available_permits())
            .finish()
    }
}

/// Permits of a [`Semaphore`]. Dropping this gives them back.
#[must_use = "if unused the permit is given back at once"]
#[derive(Debug)]
pub struct Permit<'a> {
    semaphore: &'a Semaphore,
    count: usize,
}

impl Permit<'_> {
    /// How many permits these are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Does not give the permits back. [`add_permits`](Semaphore::add_permits) can replace them.
    pub fn forget(self) {
        mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // If others have added so many permits meanwhile that there is no room, these are lost.
        self.semaphore.add(self.count);
    }
}

/// A permit that owns a reference to its [`Semaphore`]. Dropping this gives the permit back.
#[must_use = "if unused the permit is given back at once"]
#[derive(Debug)]
pub struct OwnedPermit {
    /// `None` once the permit is forgotten.
    semaphore: Option<Arc<Semaphore>>,
}

impl OwnedPermit {
    /// Does not give the permit back. [`add_permits`](Semaphore::add_permits) can replace it.
    pub fn forget(mut self) {
        self.semaphore = None;
    }
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        if let Some(semaphore) = &self.semaphore {
            semaphore.add(1);
        }
    }
}
