//! Waiting on descriptors that others own: registered for one wait.
//!
//! What they are ready for, the kernel is asked, before the wait and after each event:
//!
//! ```text
//! waiter: look, ready -> return
//!         register each descriptor
//!         loop: suspend until FIRED; clear FIRED; look, ready -> return
//! event:  of interest -> set FIRED, wake the waiter
//! ```
//!
//! *No change is lost.* A registration, made or renewed, tells the present state as an event; so
//! what changed between the first look and the registering sets FIRED, as does whatever changes
//! later. FIRED is cleared before a look: what changed earlier shows in that, and what changes
//! later sets it again. The waiter asks for it under the lock of its queue, and an event takes
//! that lock after it has set it: one of the two sees the other.
//!
//! *No busy loop.* Events are edges. One that comes to nothing (another reader was faster, or it is
//! a state that the waiter does not count) costs a look, and the next look needs another edge.
//!
//! *Nothing is left.* The registrations are a value on the waiter's stack, which undoes them when
//! the wait returns or unwinds. The descriptors are borrowed until then, so none is closed, and
//! its number used anew, while it is registered; what the poll has already taken in for one that
//! is undone finds its token gone.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::registration::Token;
use super::{Handle, Interest};
use crate::park::{self, Waiters};
use crate::task::word::{Kind, Outcome};
use crate::task::{self, Deadline};

/// Waits until `look` finds something, or `deadline`: a coroutine by the events of `fds` that are
/// of interest, an OS thread by `block`, which is given the time that is left.
///
/// A coroutine that comes too late to wait lets others go on, before the last look.
///
/// # Errors
///
/// What `look` and `block` return; and the kernel's, where it does not register a descriptor.
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
            block(left)?;
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
    let mut watched = Watched::new()?;
    for (fd, interest) in fds {
        watched.add(fd, interest)?;
    }
    loop {
        let outcome = watched.watch.wait(deadline);
        let found = look()?;
        if found.is_some() || outcome != Outcome::Woken {
            return Ok(found);
        }
    }
}

fn time_left(deadline: Deadline) -> Duration {
    deadline.at.saturating_duration_since(Instant::now())
}

/// Where the events of all descriptors of one wait come together.
pub(super) struct Watch {
    fired: AtomicBool,
    /// The one who waits.
    waiter: Waiters,
}

impl Watch {
    pub(super) fn fire(&self) {
        self.fired.store(true, Ordering::Release);
        self.waiter.wake_all();
    }

    fn wait(&self, deadline: Option<Deadline>) -> Outcome {
        let fired = || self.fired.load(Ordering::Acquire);
        let outcome = self.waiter.wait(Kind::Event, deadline, fired);
        self.fired.swap(false, Ordering::AcqRel);
        outcome
    }
}

/// The registrations of one wait, undone on drop.
struct Watched {
    reactor: Arc<Handle>,
    watch: Arc<Watch>,
    registrations: Vec<Token>,
}

impl Watched {
    fn new() -> io::Result<Watched> {
        let watch = Watch {
            fired: AtomicBool::new(false),
            waiter: Waiters::new(),
        };
        Ok(Watched {
            reactor: super::local()?,
            watch: Arc::new(watch),
            registrations: Vec::new(),
        })
    }

    fn add(&mut self, fd: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        match self.reactor.watch(fd, Arc::clone(&self.watch), interest) {
            // A regular file: its state, which the caller has looked at, never changes.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
            token => {
                self.registrations.push(token?);
                Ok(())
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        for &token in &self.registrations {
            self.reactor.unwatch(token, &self.watch);
        }
    }
}
