//! What [`select!`](crate::select!) expands to. Not for direct use.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "hidden from the documentation")]

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{RecvError, SendError};
use std::time::{Duration, Instant};

use crate::channel::{self, disconnected, mpmc, oneshot};
use crate::interrupt::deadline::Deadline;
use crate::park;
use crate::park::several::{Arm, Arms, Patience, wait_for_one};
use crate::reactor::{Interest, Readiness, ReadyArm};
use crate::runtime::join::{JoinArm, Joinable};
use crate::sync::futex::{FutexArm, Waited};
use crate::task;
use crate::task::word::Kind;

/// One arm of a select.
pub trait Part {
    /// What the code of the arm gets.
    type Output;

    /// How the arm takes part in the next wait. Stays the same during a wait.
    fn role(&self) -> Role<'_>;

    /// The result, if the arm was chosen. Taken once.
    fn take(&self) -> Option<Self::Output>;
}

/// How an arm takes part in a wait.
#[derive(Clone, Copy)]
pub struct Role<'a>(Play<'a>);

#[derive(Clone, Copy)]
enum Play<'a> {
    /// It is disabled.
    Disabled,
    /// It waits for another task.
    Peer(&'a dyn Arm),
    /// It waits for an event that comes by itself.
    Event(&'a dyn Arm),
    /// It is chosen if no other arm can be until then; `None` is never. The flag says that it was.
    Until(Option<task::Deadline>, &'a Cell<bool>),
    /// It is chosen if no other arm can be at once. The flag says that it was.
    AtOnce(&'a Cell<bool>),
}

impl Role<'_> {
    pub(super) const DISABLED: Role<'static> = Role(Play::Disabled);
}

impl fmt::Debug for Role<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Role")
    }
}

/// Waits until one arm is chosen, and completes it.
///
/// # Panics
///
/// If all arms are disabled.
pub fn choose<const N: usize>(roles: [Role<'_>; N]) {
    choose_one(&Roles(&roles), &mut std::array::from_fn::<_, N, _>(|n| n));
}

struct Roles<'a>(&'a [Role<'a>]);

impl RolesOfArms for Roles<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn role(&self, index: usize) -> Role<'_> {
        self.0[index]
    }
}

/// The roles of some arms.
pub(super) trait RolesOfArms {
    fn len(&self) -> usize;

    fn role(&self, index: usize) -> Role<'_>;
}

/// Waits until one arm is chosen, and completes it. Returns its index. `order` has the indices of all arms, but not
/// necessarily those that are only chosen if no other is.
///
/// # Panics
///
/// If all arms are disabled.
pub(super) fn choose_one(roles: &impl RolesOfArms, order: &mut [usize]) -> usize {
    park::spend_operation();
    let arms = ArmsOf(roles);
    if let Some(completed) = wait_for_one(&arms, order, random_below) {
        return completed;
    }
    let at_once = arms.at_once();
    // Beside a default, only a deadline that has passed can be chosen.
    let may_be_chosen = |at: Instant| at_once.is_none() || at <= Instant::now();
    let until = arms.earliest().filter(|(until, _)| may_be_chosen(until.at));
    let late = until.map(|(_, late)| late).or(at_once);
    let (index, chosen) = late.expect("without a limit the wait ends with an arm");
    chosen.set(true);
    index
}

struct ArmsOf<'a, R>(&'a R);

impl<R: RolesOfArms> Arms for ArmsOf<'_, R> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn arm(&self, index: usize) -> Option<&dyn Arm> {
        match self.0.role(index).0 {
            Play::Peer(arm) | Play::Event(arm) => Some(arm),
            Play::Disabled | Play::Until(..) | Play::AtOnce(_) => None,
        }
    }

    fn patience(&self) -> Patience {
        if self.at_once().is_some() {
            return Patience::None;
        }
        let (mut kind, mut is_enabled) = (Kind::Peer, false);
        for (_, play) in self.plays() {
            match play {
                Play::Disabled => continue,
                Play::Event(_) => kind = Kind::Event,
                Play::Peer(_) | Play::Until(..) | Play::AtOnce(_) => {}
            }
            is_enabled = true;
        }
        assert!(
            is_enabled,
            "all arms of this select are disabled, so it would wait for ever"
        );
        Patience::Until(kind, self.earliest().map(|(deadline, _)| deadline))
    }
}

/// The index of an arm that is chosen if no other is, and the flag that says that it was.
type Late<'a> = (usize, &'a Cell<bool>);

impl<R: RolesOfArms> ArmsOf<'_, R> {
    fn plays(&self) -> impl Iterator<Item = (usize, Play<'_>)> {
        (0..self.0.len()).map(|index| (index, self.0.role(index).0))
    }

    fn at_once(&self) -> Option<Late<'_>> {
        self.plays().find_map(|(index, play)| match play {
            Play::AtOnce(chosen) => Some((index, chosen)),
            _ => None,
        })
    }

    fn earliest(&self) -> Option<(task::Deadline, Late<'_>)> {
        let deadlines = self.plays().filter_map(|(index, play)| match play {
            Play::Until(deadline, chosen) => Some((deadline?, (index, chosen))),
            _ => None,
        });
        deadlines.min_by_key(|(deadline, _)| deadline.at)
    }
}

/// A pseudo-random number below `end`, for the choice among arms that are ready. (A multiplication by an odd
/// constant, and an addition, of which the upper half is good enough.)
fn random_below(end: usize) -> usize {
    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0) };
    }
    static THREADS: AtomicU64 = AtomicU64::new(1);
    const FACTOR: u64 = 6_364_136_223_846_793_005;
    let before = match STATE.get() {
        0 => THREADS.fetch_add(1, Ordering::Relaxed).wrapping_mul(FACTOR),
        state => state,
    };
    let state = before
        .wrapping_mul(FACTOR)
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    // The product is below `end << 32`, so no bit is lost for less than 2^32 arms.
    ((state >> 32).wrapping_mul(end as u64) >> 32) as usize
}

// ---------------------------------------------------------- the result

/// The result of the first arm, or of one of the others.
#[derive(Debug)]
pub enum Or<A, B> {
    This(A),
    That(B),
}

/// There is no other arm.
#[derive(Debug)]
pub enum Never {}

pub fn none_chosen() -> Never {
    unreachable!("one arm was chosen")
}

impl<P: Part> Part for Option<P> {
    type Output = P::Output;

    fn role(&self) -> Role<'_> {
        self.as_ref().map_or(Role::DISABLED, P::role)
    }

    fn take(&self) -> Option<P::Output> {
        self.as_ref().and_then(P::take)
    }
}

// ---------------------------------------------------------- receiving

/// What a message can be received from.
pub trait Receives {
    type Message;
    type Part<'a>: Part<Output = Result<Self::Message, RecvError>>
    where
        Self: 'a;

    fn __select_part(&self) -> Self::Part<'_>;
}

pub fn recv<R: Receives + ?Sized>(receiver: &R) -> R::Part<'_> {
    receiver.__select_part()
}

impl<R: Receives + ?Sized> Receives for &R {
    type Message = R::Message;
    type Part<'a>
        = R::Part<'a>
    where
        Self: 'a;

    fn __select_part(&self) -> R::Part<'_> {
        R::__select_part(self)
    }
}

/// Receives from a channel.
pub struct RecvPart<'a, T>(mpmc::RecvArm<'a, T>);

impl<'a, T> RecvPart<'a, T> {
    pub(crate) fn new(receiver: &'a mpmc::Receiver<T>) -> RecvPart<'a, T> {
        RecvPart(mpmc::RecvArm::new(receiver))
    }
}

impl<T> Part for RecvPart<'_, T> {
    type Output = Result<T, RecvError>;

    fn role(&self) -> Role<'_> {
        Role(Play::Peer(&self.0))
    }

    fn take(&self) -> Option<Result<T, RecvError>> {
        self.0.take().map(|received| received.map_err(disconnected))
    }
}

impl<T> Receives for channel::Receiver<T> {
    type Message = T;
    type Part<'a>
        = RecvPart<'a, T>
    where
        T: 'a;

    fn __select_part(&self) -> RecvPart<'_, T> {
        RecvPart::new(self.inner())
    }
}

/// Receives from a channel for one message.
pub struct OneshotPart<'a, T>(oneshot::RecvArm<'a, T>);

impl<T> Part for OneshotPart<'_, T> {
    type Output = Result<T, RecvError>;

    fn role(&self) -> Role<'_> {
        Role(Play::Peer(&self.0))
    }

    fn take(&self) -> Option<Result<T, RecvError>> {
        self.0.take().map(|received| received.map_err(disconnected))
    }
}

impl<T> Receives for oneshot::Receiver<T> {
    type Message = T;
    type Part<'a>
        = OneshotPart<'a, T>
    where
        T: 'a;

    fn __select_part(&self) -> OneshotPart<'_, T> {
        OneshotPart(oneshot::RecvArm::new(self))
    }
}

// ---------------------------------------------------------- sending

/// What a message can be sent to.
pub trait Sends {
    type Message;

    fn __select_part<'a>(
        &'a self,
        message: &'a mut Option<Self::Message>,
    ) -> SendPart<'a, Self::Message>;
}

pub fn send<'a, S: Sends + ?Sized>(
    sender: &'a S,
    message: &'a mut Option<S::Message>,
) -> SendPart<'a, S::Message> {
    sender.__select_part(message)
}

impl<S: Sends + ?Sized> Sends for &S {
    type Message = S::Message;

    fn __select_part<'a>(
        &'a self,
        message: &'a mut Option<S::Message>,
    ) -> SendPart<'a, S::Message> {
        S::__select_part(self, message)
    }
}

/// Sends to a channel. Puts the message back into its place when dropped, unless it was sent.
pub struct SendPart<'a, T> {
    arm: Option<mpmc::SendArm<'a, T>>,
    place: &'a mut Option<T>,
}

impl<'a, T> SendPart<'a, T> {
    pub(crate) fn new(sender: &'a mpmc::Sender<T>, place: &'a mut Option<T>) -> SendPart<'a, T> {
        let message = place.take();
        SendPart {
            arm: message.map(|message| mpmc::SendArm::new(sender, message)),
            place,
        }
    }
}

impl<T> Part for SendPart<'_, T> {
    type Output = Result<(), SendError<T>>;

    fn role(&self) -> Role<'_> {
        match &self.arm {
            Some(arm) if !arm.is_complete() => Role(Play::Peer(arm)),
            _ => Role::DISABLED,
        }
    }

    fn take(&self) -> Option<Result<(), SendError<T>>> {
        let sent = self.arm.as_ref()?.take()?;
        Some(sent.map_err(disconnected))
    }
}

impl<T> Drop for SendPart<'_, T> {
    fn drop(&mut self) {
        if let Some(message) = self.arm.as_ref().and_then(mpmc::SendArm::take_unsent) {
            *self.place = Some(message);
        }
    }
}

impl<T> Sends for channel::Sender<T> {
    type Message = T;

    fn __select_part<'a>(&'a self, message: &'a mut Option<T>) -> SendPart<'a, T> {
        SendPart::new(self.inner(), message)
    }
}

// ---------------------------------------------------------- joining

/// Joins a coroutine. Puts the handle back into its place when dropped, unless the coroutine was joined.
pub struct JoinPart<'a, H: Joinable> {
    arm: Option<JoinArm<H>>,
    place: &'a mut Option<H>,
}

pub fn join<H: Joinable>(handle: &mut Option<H>) -> JoinPart<'_, H> {
    JoinPart {
        arm: handle.take().map(JoinArm::new),
        place: handle,
    }
}

impl<H: Joinable> Part for JoinPart<'_, H> {
    type Output = std::thread::Result<H::Output>;

    fn role(&self) -> Role<'_> {
        match &self.arm {
            Some(arm) if arm.has_handle() => Role(Play::Peer(arm)),
            _ => Role::DISABLED,
        }
    }

    fn take(&self) -> Option<std::thread::Result<H::Output>> {
        self.arm.as_ref()?.take()
    }
}

impl<H: Joinable> Drop for JoinPart<'_, H> {
    fn drop(&mut self) {
        if let Some(handle) = self.arm.as_ref().and_then(JoinArm::take_handle) {
            *self.place = Some(handle);
        }
    }
}

// ---------------------------------------------------------- descriptors, words, time

/// Waits for a descriptor.
pub struct ReadyPart<'a>(ReadyArm<'a>);

pub fn ready<F: AsFd + ?Sized>(fd: &F, interest: Interest) -> ReadyPart<'_> {
    ReadyPart(ReadyArm::new(fd.as_fd(), interest))
}

impl Part for ReadyPart<'_> {
    type Output = io::Result<Readiness>;

    fn role(&self) -> Role<'_> {
        Role(Play::Event(&self.0))
    }

    fn take(&self) -> Option<io::Result<Readiness>> {
        self.0.take()
    }
}

/// Waits for a wake-up at an address.
pub struct FutexPart<'a>(FutexArm<'a>);

pub fn futex(word: &AtomicU32, expected: u32) -> FutexPart<'_> {
    FutexPart(FutexArm::new(word, expected))
}

impl Part for FutexPart<'_> {
    type Output = Waited;

    fn role(&self) -> Role<'_> {
        Role(Play::Peer(&self.0))
    }

    fn take(&self) -> Option<Waited> {
        self.0.take()
    }
}

/// Waits for a moment.
#[derive(Debug)]
pub struct DeadlinePart {
    at: Option<task::Deadline>,
    passed: Cell<bool>,
}

pub fn deadline(at: impl Into<Deadline>) -> DeadlinePart {
    DeadlinePart {
        at: at.into().of_wait(),
        passed: Cell::new(false),
    }
}

pub fn timeout(timeout: Duration) -> DeadlinePart {
    deadline(Deadline::after(timeout))
}

impl Part for DeadlinePart {
    type Output = ();

    fn role(&self) -> Role<'_> {
        Role(Play::Until(self.at, &self.passed))
    }

    fn take(&self) -> Option<()> {
        self.passed.take().then_some(())
    }
}

/// Does not wait.
#[derive(Debug, Default)]
pub struct AtOncePart {
    chosen: Cell<bool>,
}

pub fn at_once() -> AtOncePart {
    AtOncePart::default()
}

impl Part for AtOncePart {
    type Output = ();

    fn role(&self) -> Role<'_> {
        Role(Play::AtOnce(&self.chosen))
    }

    fn take(&self) -> Option<()> {
        self.chosen.take().then_some(())
    }
}

/// The types above have nothing to show.
macro_rules! opaque {
    ($([$($parameter:ident)?] $type:ty: $name:literal,)*) => {$(
        impl<$($parameter)?> fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct($name).finish_non_exhaustive()
            }
        }
    )*};
}

opaque! {
    [T] RecvPart<'_, T>: "RecvPart",
    [T] OneshotPart<'_, T>: "OneshotPart",
    [T] SendPart<'_, T>: "SendPart",
    [] ReadyPart<'_>: "ReadyPart",
    [] FutexPart<'_>: "FutexPart",
}

impl<H: Joinable> fmt::Debug for JoinPart<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinPart").finish_non_exhaustive()
    }
}
