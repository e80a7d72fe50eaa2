//! Waiting on descriptors that belong to other code. They are registered for one wait.
//!
//! The kernel is asked for the state of the descriptors before the wait, and again after each event:
//!
//! ```text
//! waiter: look, ready -> return
//!         register each descriptor
//!         loop: suspend until FIRED; clear FIRED; look, ready -> return
//! event:  if it is in the interest: set FIRED, wake the waiter
//! ```
//!
//! *No change is lost.* A registration, new or renewed, reports the present state as an event. So a
//! change between the first look and the registration sets FIRED, and so does any later change. FIRED
//! is cleared before each look. A change before the look shows in the look. A change after the look
//! sets FIRED again. The waiter checks FIRED under the lock of its queue before it parks, and an event
//! takes that lock after it has set FIRED. So the waiter sees FIRED, or the event finds it in the
//! queue.
//!
//! *There is no busy loop.* Events are edges. An event may come to nothing: another reader was faster,
//! or the waiter does not count that state. This costs one look, and the next look needs another edge.
//!
//! *No registration is left.* The registrations are a value on the waiter's stack. Its drop undoes
//! them, when the wait returns or unwinds. The descriptors are borrowed until then, so no descriptor is
//! closed while it is registered. An event that the poll has already taken for a registration that was
//! undone finds no row of its token.
//!
//! Code below the libc patch borrows nothing: see `unowned.rs`.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::registration::Token;
use super::wait_fd;
use super::{Handle, Interest, Readiness, object};
use crate::park::several::Arm;
use crate::park::{self, Interrupt, WaitPlace, Waited, Waiters};
use crate::task::{self, Awaited, Awaiting, Awaits, Deadline, PolledDescriptor, Reason, Waiting};

/// Waits until `look` returns something, or until `deadline`.
///
/// A coroutine waits for events of `fds`, each with the interest beside it, and calls `look` after each
/// event. An OS thread calls `block`, with the time that is left, and then `look`. (Its time is limited by
/// `deadline` and by the timeouts around the call.)
///
/// If the deadline has passed already, a coroutine yields once before it looks for the last time.
///
/// # Errors
///
/// Those of `look` and `block`, and the kernel's if it does not register a descriptor. That of an
/// interrupt, if interrupts are delivered as errors.
///
/// # Unwinding
///
/// An interruption point.
pub(crate) fn wait_for<'fd, R>(
    fds: impl IntoIterator<Item = (BorrowedFd<'fd>, Interest)>,
    deadline: Option<Deadline>,
    mut look: impl FnMut() -> io::Result<Option<R>>,
    mut block: impl FnMut(Option<Duration>) -> io::Result<()>,
) -> io::Result<Option<R>> {
    if !task::on_coroutine() {
        loop {
            let found = look()?;
            let left = deadline.map(time_left);
            if found.is_some() || left.is_some_and(|left| left.is_zero()) {
                return Ok(found);
            }
            let limit = park::limit_of_thread().map(time_left);
            if limit.is_some_and(|limit| limit.is_zero()) {
                return Err(Interrupt::Elapsed.deliver());
            }
            block([left, limit].into_iter().flatten().min())?;
        }
    }
    park::spend_operation();
    if let Some(found) = look()? {
        return Ok(Some(found));
    }
    if deadline.is_some_and(|deadline| time_left(deadline).is_zero()) {
        park::let_others_go_on();
        return look();
    }
    if task::is_unwinding() {
        return Err(super::error_amid_unwind());
    }
    let mut watched = WatchedDescriptors::new(Afterwards::Undo)?;
    for (fd, interest) in fds {
        watched.add(fd.as_raw_fd(), interest)?;
    }
    watched.wait_until(deadline, look)
}

pub(super) fn time_left(deadline: Deadline) -> Duration {
    deadline.at.saturating_duration_since(Instant::now())
}

/// One wait: the events of all its descriptors set `fired`.
pub(super) struct DescriptorWatch {
    fired: AtomicBool,
    /// Whether one of the descriptors is being closed.
    closed: AtomicBool,
    /// The waiting coroutine.
    waiter: Waiters,
}

impl DescriptorWatch {
    /// Has the waiter look at its descriptors.
    pub(super) fn fire(&self) {
        self.fired.store(true, Ordering::Release);
        self.waiter.wake_all();
    }

    /// Ends the wait, since one of its descriptors is being closed.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.fire();
    }

    /// Parks the caller, which waits for `awaiting`, until the watch has fired since the last call, or until `deadline`.
    fn wait(&self, awaiting: Awaiting<'_>, deadline: Option<Deadline>) -> Waited {
        let fired = || self.fired.load(Ordering::Acquire);
        let waited = self.waiter.try_wait(awaiting, deadline, fired);
        self.fired.swap(false, Ordering::AcqRel);
        waited
    }
}

/// The registrations of one wait, which are over when this is dropped.
pub(super) struct WatchedDescriptors {
    reactor: Arc<Handle>,
    watch: Arc<DescriptorWatch>,
    registrations: Vec<Token>,
    /// The descriptors, for a dump.
    watched: Vec<(RawFd, Interest)>,
    afterwards: Afterwards,
}

/// What becomes of a registration after the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Afterwards {
    Undo,
    /// The next wait for the descriptor renews it.
    Keep,
}

impl WatchedDescriptors {
    pub(super) fn new(afterwards: Afterwards) -> io::Result<WatchedDescriptors> {
        let watch = DescriptorWatch {
            fired: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            waiter: Waiters::new(Reason::Descriptors),
        };
        Ok(WatchedDescriptors {
            reactor: super::local()?,
            watch: Arc::new(watch),
            registrations: Vec::new(),
            watched: Vec::new(),
            afterwards,
        })
    }

    /// Parks the caller until `look` returns something, or until `deadline`. Calls `look` after each event
    /// and after the deadline.
    ///
    /// # Errors
    ///
    /// Those of `look`. That of an interrupt, if interrupts are delivered as errors. `EBADF`, if one of the
    /// descriptors is closed meanwhile.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub(super) fn wait_until<R>(
        &self,
        deadline: Option<Deadline>,
        mut look: impl FnMut() -> io::Result<Option<R>>,
    ) -> io::Result<Option<R>> {
        loop {
            let waited = self.watch.wait(Awaiting::Described(self), deadline);
            waited.deliver_cancellation()?;
            if self.watch.closed.load(Ordering::Acquire) {
                return Err(io::Error::from_raw_os_error(libc::EBADF));
            }
            match (look()?, waited) {
                (None, Waited::Woken) => {}
                (None, Waited::Interrupted(interrupt)) => return Err(interrupt.deliver()),
                (found, _) => return Ok(found),
            }
        }
    }

    /// Has the next `wait_until` look before it parks.
    pub(super) fn fire(&self) {
        self.watch.fire();
    }

    pub(super) fn add(&mut self, fd: RawFd, interest: Interest) -> io::Result<()> {
        match self.reactor.watch(fd, Arc::clone(&self.watch), interest) {
            // `fd` is a regular file. The caller has looked at its state, which never changes.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
            token => {
                self.registrations.push(token?);
                self.watched.push((fd, interest));
                Ok(())
            }
        }
    }
}

impl Awaited for WatchedDescriptors {
    fn describe(&self) -> Awaits {
        awaits(self.watched.iter().copied())
    }
}

/// The description of a wait for descriptors, with the interest in each.
fn awaits(watched: impl Iterator<Item = (RawFd, Interest)>) -> Awaits {
    let watched = watched.map(|(fd, interest)| (fd, interest.name()));
    object::awaits(Reason::Descriptors, watched)
}

impl Drop for WatchedDescriptors {
    fn drop(&mut self) {
        for &token in &self.registrations {
            self.reactor.unwatch(token, &self.watch, self.afterwards);
        }
    }
}

/// The readiness of a descriptor, as one of several things that a task waits for. See `park/several.rs`.
///
/// A coroutine registers the descriptor for as long as the arm lives. An OS thread polls the descriptor while it
/// waits.
pub(crate) struct ReadyArm<'fd> {
    fd: BorrowedFd<'fd>,
    interest: Interest,
    watched: OnceCell<Watched>,
    place: WaitPlace,
    /// An error that has kept the descriptor from being watched.
    failed: RefCell<Option<io::Error>>,
    ready: Cell<Option<io::Result<Readiness>>>,
}

/// How a descriptor is watched.
enum Watched {
    ByReactor(WatchedDescriptors),
    ByThread(PolledDescriptor),
}

impl<'fd> ReadyArm<'fd> {
    pub(crate) fn new(fd: BorrowedFd<'fd>, interest: Interest) -> ReadyArm<'fd> {
        ReadyArm {
            fd,
            interest,
            watched: OnceCell::new(),
            place: WaitPlace::new(),
            failed: RefCell::new(None),
            ready: Cell::new(None),
        }
    }

    /// What the descriptor is ready for, if the arm was completed.
    pub(crate) fn take(&self) -> Option<io::Result<Readiness>> {
        self.ready.take()
    }

    fn watch(&self) -> io::Result<Watched> {
        if !task::on_coroutine() {
            let polled = PolledDescriptor::new(self.fd, self.interest.flags())?;
            return Ok(Watched::ByThread(polled));
        }
        if task::is_unwinding() {
            return Err(super::error_amid_unwind());
        }
        let mut watched = WatchedDescriptors::new(Afterwards::Undo)?;
        watched.add(self.fd.as_raw_fd(), self.interest)?;
        Ok(Watched::ByReactor(watched))
    }
}

impl Arm for ReadyArm<'_> {
    fn try_complete(&self) -> bool {
        if let Some(Watched::ByReactor(watched)) = self.watched.get() {
            watched.watch.fired.swap(false, Ordering::AcqRel);
        }
        let ready = match self.failed.take() {
            Some(error) => Err(error),
            None => match wait_fd::look(self.fd, self.interest) {
                Ok(None) => return false,
                Ok(Some(ready)) => Ok(ready),
                Err(error) => Err(error),
            },
        };
        self.ready.set(Some(ready));
        true
    }

    fn prepare(&self) {
        let prepared = match self.watched.get() {
            // It is unset, and only this call sets it.
            None => self.watch().map(|watched| drop(self.watched.set(watched))),
            Some(Watched::ByThread(polled)) => polled.prepare(),
            Some(Watched::ByReactor(_)) => Ok(()),
        };
        self.failed.replace(prepared.err());
    }

    unsafe fn enqueue(&self, waiting: Waiting) -> bool {
        let watched = self.watched.get();
        let Some(watched) = watched.filter(|_| self.failed.borrow().is_none()) else {
            // The next try returns the error.
            return false;
        };
        match watched {
            Watched::ByThread(polled) => {
                polled.poll_in(waiting);
                true
            }
            Watched::ByReactor(WatchedDescriptors { watch, .. }) => {
                let fired = || watch.fired.load(Ordering::Acquire);
                // SAFETY: the caller promises that this arm, and so its place, does not move before `leave`
                // has been called, which leaves the queue.
                unsafe { watch.waiter.enqueue(&self.place, waiting, fired) }
            }
        }
    }

    fn leave(&self) -> bool {
        if let Some(Watched::ByReactor(watched)) = self.watched.get() {
            watched.watch.waiter.leave(&self.place);
        }
        // Readiness is found by the next try.
        false
    }

    fn describe(&self) -> Awaits {
        awaits(std::iter::once((self.fd.as_raw_fd(), self.interest)))
    }
}
