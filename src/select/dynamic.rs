//! A select over any number of operations.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{RecvError, SendError};
use std::time::Duration;

use super::parts::{self, Part, Receives, Role, RolesOfArms, Sends};
use crate::interrupt::deadline::Deadline;
use crate::reactor::{Interest, Readiness};
use crate::runtime::join::Joinable;
use crate::sync::futex::Waited;

/// Waits for the first of several operations, as [`select!`](crate::select!) does, where their number is only
/// known at run time.
///
/// Each arm has a function that turns its result into an `R`. A wait returns the `R` of the arm that was
/// chosen. The same arms can be waited for again.
///
/// ```
/// use greenroom::{Select, channel, spawn};
///
/// greenroom::run(|| {
///     let receivers: Vec<_> = (0..10)
///         .map(|n| {
///             let (sender, receiver) = channel::bounded(1);
///             spawn(move || sender.send(n * n));
///             receiver
///         })
///         .collect();
///     let mut select = Select::new();
///     for (index, receiver) in receivers.iter().enumerate() {
///         select.recv(receiver, move |message| (index, message));
///     }
///     let mut sum = 0;
///     let mut open = receivers.len();
///     while open > 0 {
///         match select.wait() {
///             (_, Ok(square)) => sum += square,
///             (index, Err(_)) => {
///                 // Its sender is gone. It would be chosen again and again.
///                 select.set_enabled(index, false);
///                 open -= 1;
///             }
///         }
///     }
///     assert_eq!(sum, 285);
/// });
/// ```
///
/// What is not chosen stays: see [`select!`](crate::select!). While a `Select` is there, the messages to be
/// sent and the handles to be joined are in it. It puts those that are left back when it is dropped.
///
/// # Unwinding
///
/// All waits are interruption points. Then no arm is chosen.
pub struct Select<'a, R> {
    cases: Vec<Case<'a, R>>,
    /// The index of each case, in the order in which the last wait has tried them.
    order: Vec<usize>,
}

/// An arm and its function.
struct Case<'a, R> {
    arm: Box<dyn Arm<R> + 'a>,
    is_enabled: bool,
}

trait Arm<R> {
    fn role(&self) -> Role<'_>;

    /// The result of the arm, which was chosen.
    fn finish(&mut self) -> R;
}

struct Handled<P, F> {
    part: P,
    then: F,
}

impl<P: Part, R, F: FnMut(P::Output) -> R> Arm<R> for Handled<P, F> {
    fn role(&self) -> Role<'_> {
        self.part.role()
    }

    fn finish(&mut self) -> R {
        let output = self.part.take().expect("the arm was chosen");
        (self.then)(output)
    }
}

impl<'a, R> Select<'a, R> {
    /// Makes a select without arms.
    #[must_use]
    pub fn new() -> Select<'a, R> {
        Select {
            cases: Vec::new(),
            order: Vec::new(),
        }
    }

    /// Adds an arm that receives from `receiver`. Returns the index of the arm.
    ///
    /// The arm is chosen when there is a message, and again and again when there will be none any more:
    /// [disable](Select::set_enabled) it then.
    pub fn recv<C: Receives>(
        &mut self,
        receiver: &'a C,
        then: impl FnMut(Result<C::Message, RecvError>) -> R + 'a,
    ) -> usize {
        self.add(parts::recv(receiver), then)
    }

    /// Adds an arm that sends `message` to `sender`. Returns the index of the arm.
    ///
    /// Without a message, or once it was sent, the arm is disabled. A message that was not sent is in
    /// `message` again when this `Select` is dropped.
    pub fn send<C: Sends>(
        &mut self,
        sender: &'a C,
        message: &'a mut Option<C::Message>,
        then: impl FnMut(Result<(), SendError<C::Message>>) -> R + 'a,
    ) -> usize {
        self.add(parts::send(sender, message), then)
    }

    /// Adds an arm that joins a coroutine. Returns the index of the arm.
    ///
    /// Without a handle, or once the coroutine was joined, the arm is disabled. A handle that was not joined
    /// is in `handle` again when this `Select` is dropped.
    pub fn join<H: Joinable>(
        &mut self,
        handle: &'a mut Option<H>,
        then: impl FnMut(std::thread::Result<H::Output>) -> R + 'a,
    ) -> usize {
        self.add(parts::join(handle), then)
    }

    /// Adds an arm that waits until `fd` is ready for something in `interest`. Returns the index of the arm.
    pub fn ready<F: AsFd + ?Sized>(
        &mut self,
        fd: &'a F,
        interest: Interest,
        then: impl FnMut(io::Result<Readiness>) -> R + 'a,
    ) -> usize {
        self.add(parts::ready(fd, interest), then)
    }

    /// Adds an arm that waits until `word` has another value than `expected`, or for a wake-up. Returns the
    /// index of the arm.
    pub fn futex(
        &mut self,
        word: &'a AtomicU32,
        expected: u32,
        then: impl FnMut(Waited) -> R + 'a,
    ) -> usize {
        self.add(parts::futex(word, expected), then)
    }

    /// Adds an arm that is chosen if no other could be until `at`. Returns the index of the arm.
    ///
    /// It is chosen again and again after that: [disable](Select::set_enabled) it then. For a limit to one
    /// wait, use [`wait_timeout`](Select::wait_timeout).
    pub fn deadline(&mut self, at: impl Into<Deadline>, mut then: impl FnMut() -> R + 'a) -> usize {
        self.add(parts::deadline(at), move |()| then())
    }

    fn add<P: Part + 'a>(&mut self, part: P, then: impl FnMut(P::Output) -> R + 'a) -> usize {
        let index = self.cases.len();
        self.cases.push(Case {
            arm: Box::new(Handled { part, then }),
            is_enabled: true,
        });
        self.order.push(index);
        index
    }

    /// Enables or disables an arm.
    ///
    /// # Panics
    ///
    /// If there is no arm of that index.
    pub fn set_enabled(&mut self, index: usize, is_enabled: bool) {
        self.cases[index].is_enabled = is_enabled;
    }

    /// The number of arms, enabled or not.
    pub fn len(&self) -> usize {
        self.cases.len()
    }

    /// Whether there are no arms.
    pub fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    /// Waits until an arm is chosen, and returns its result.
    ///
    /// # Panics
    ///
    /// If all arms are disabled. If a coroutine would wait for its own end.
    pub fn wait(&mut self) -> R {
        let cases = Cases {
            cases: &self.cases,
            other: None,
        };
        let chosen = parts::choose_one(&cases, &mut self.order);
        self.cases[chosen].arm.finish()
    }

    /// Like [`wait`](Select::wait), for at most `timeout`. Returns `None` if no arm could be chosen in time.
    ///
    /// # Panics
    ///
    /// If a coroutine would wait for its own end.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Option<R> {
        self.wait_or(&parts::timeout(timeout))
    }

    /// Like [`wait`](Select::wait), until `deadline` at the latest. Returns `None` if no arm could be chosen
    /// in time.
    ///
    /// # Panics
    ///
    /// If a coroutine would wait for its own end.
    pub fn wait_deadline(&mut self, deadline: impl Into<Deadline>) -> Option<R> {
        self.wait_or(&parts::deadline(deadline))
    }

    /// Returns the result of an arm that can be chosen at once, if there is one.
    pub fn try_wait(&mut self) -> Option<R> {
        self.wait_or(&parts::at_once())
    }

    /// Waits for the arms, or for `other`.
    fn wait_or(&mut self, other: &dyn Part<Output = ()>) -> Option<R> {
        let cases = Cases {
            cases: &self.cases,
            other: Some(other),
        };
        let chosen = parts::choose_one(&cases, &mut self.order);
        let case = self.cases.get_mut(chosen);
        case.map(|case| case.arm.finish())
    }
}

/// The arms of a [`Select`], and perhaps one more, which comes last.
struct Cases<'b, 'a, R> {
    cases: &'b [Case<'a, R>],
    other: Option<&'b dyn Part<Output = ()>>,
}

impl<R> RolesOfArms for Cases<'_, '_, R> {
    fn len(&self) -> usize {
        self.cases.len() + usize::from(self.other.is_some())
    }

    fn role(&self, index: usize) -> Role<'_> {
        match self.cases.get(index) {
            Some(case) if case.is_enabled => case.arm.role(),
            Some(_) => Role::DISABLED,
            None => self.other.map_or(Role::DISABLED, Part::role),
        }
    }
}

impl<R> Default for Select<'_, R> {
    fn default() -> Self {
        Select::new()
    }
}

impl<R> fmt::Debug for Select<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Select")
            .field("arms", &self.cases.len())
            .finish_non_exhaustive()
    }
}
