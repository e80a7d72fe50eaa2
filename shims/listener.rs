//! What listeners have in common: to accept without blocking, in the mode that the user has set.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::sockopt;

use crate::reactor::{Descriptor, Direction};
use crate::sys::fork::Process;
use crate::sys::poll;
use crate::sys::socket::{self, would_block};
use crate::task::{self, Deadline};

/// One of std's listeners.
pub(super) trait Accept: AsFd {
    /// A connection, and whose it is.
    type Accepted;

    /// Accepts a connection; blocks in blocking mode only.
    fn accept(&self) -> io::Result<Self::Accepted>;

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()>;

    /// The error of a blocking `accept` for which a non-blocking one is only `WouldBlock`.
    fn hidden_error(&self) -> Option<io::Error> {
        None
    }
}

/// A listener that coroutines accept from.
///
/// The kernel knows no way to try to accept but on a descriptor in non-blocking mode, so the
/// first coroutine that accepts puts the descriptor into it, until it is given away, or dropped with
/// all its clones.
#[derive(Debug)]
pub(super) struct Listener<L: Accept> {
    io: Descriptor<L>,
    /// The mode is one for all clones, so this is, too.
    mode: Arc<SharedMode>,
}

/// The mode of the open file description. Locked to change it; and to rely on it, which never
/// takes long, as nothing blocks in that mode.
#[derive(Debug)]
struct SharedMode {
    made_by: Process,
    clones: AtomicUsize,
    mode: RwLock<Mode>,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    /// The one that the user has set.
    Users,
    /// Non-blocking.
    Prepared,
    /// A clone has left, whose new owner may rely on the user's mode, or set another.
    GivenAway,
}

impl SharedMode {
    fn new() -> SharedMode {
        SharedMode {
            made_by: Process::current(),
            clones: AtomicUsize::new(1),
            mode: RwLock::new(Mode::Users),
        }
    }

    /// None in a forked child, if another thread had the lock, which is not there to give it back.
    fn read(&self) -> Option<RwLockReadGuard<'_, Mode>> {
        match self.made_by.is_current() {
            true => Some(self.mode.read().unwrap_or_else(PoisonError::into_inner)),
            false => self.mode.try_read().ok(),
        }
    }

    /// As `read`.
    fn write(&self) -> Option<RwLockWriteGuard<'_, Mode>> {
        match self.made_by.is_current() {
            true => Some(self.mode.write().unwrap_or_else(PoisonError::into_inner)),
            false => self.mode.try_write().ok(),
        }
    }
}

impl<L: Accept> Listener<L> {
    pub(super) fn new(io: Descriptor<L>) -> Listener<L> {
        Listener {
            io,
            mode: Arc::new(SharedMode::new()),
        }
    }

    pub(super) fn get(&self) -> &L {
        self.io.get()
    }

    /// As [`Descriptor::expose`].
    pub(super) fn expose(&self) -> &L {
        // Of one that is prepared, the user's mode cannot be asked for.
        if let Some(Mode::Users) = self.mode.read().as_deref() {
            self.io.forget_mode();
        }
        self.io.forget_timeouts();
        self.get()
    }

    /// Wraps a TCP connection that was accepted.
    pub(super) fn accepted<T: AsFd>(&self, connection: T) -> Descriptor<T> {
        Descriptor::accepted(connection, &self.io)
    }

    /// Wraps a duplicate of this listener.
    pub(super) fn share(&self, duplicate: L) -> Listener<L> {
        let mode = Arc::clone(&self.mode);
        mode.clones.fetch_add(1, Ordering::Relaxed);
        Listener {
            io: self.io.share(duplicate),
            mode,
        }
    }

    /// Waits for a connection, unless in the user's non-blocking mode; no longer than the timeout of
    /// the socket.
    pub(super) fn accept(&self) -> io::Result<L::Accepted> {
        if task::on_coroutine() {
            return self
                .io
                .operation(Direction::Read)
                .socket_timeout(timeout)
                .run(|listener| self.or_hidden_error(|| self.try_accept(listener)));
        }
        let timeout = self.io.timeout(Direction::Read, timeout)?;
        let deadline = timeout.and_then(Deadline::after);
        loop {
            match self.or_hidden_error(|| self.get().accept()) {
                Err(error) if would_block(&error) && !self.io.is_nonblocking() => {
                    let now = Instant::now();
                    let left = deadline.map(|deadline| deadline.at.saturating_duration_since(now));
                    if left.is_some_and(|left| left.is_zero()) {
                        return Err(error);
                    }
                    let listener = PollFd::new(self.get(), PollFlags::IN);
                    poll::block(&mut [listener], left)?;
                }
                done => return done,
            }
        }
    }

    /// Attempts to accept, and fails with what a blocking listener would fail with.
    fn or_hidden_error(
        &self,
        attempt: impl Fn() -> io::Result<L::Accepted>,
    ) -> io::Result<L::Accepted> {
        let done = attempt();
        if !done.as_ref().is_err_and(would_block) || self.io.is_nonblocking() {
            return done;
        }
        match self.get().hidden_error() {
            // What has come just before goes first.
            Some(hidden) => attempt().map_err(|error| match would_block(&error) {
                true => hidden,
                false => error,
            }),
            None => done,
        }
    }

    /// Accepts if that does not block.
    fn try_accept(&self, listener: &L) -> io::Result<L::Accepted> {
        if self.mode.made_by.is_current()
            && let Some(mode) = self.mode.read()
            && let Mode::Prepared = *mode
        {
            return listener.accept();
        }
        self.prepare_and_accept(listener)
    }

    #[cold]
    fn prepare_and_accept(&self, listener: &L) -> io::Result<L::Accepted> {
        let mut mode = self.mode.write();
        match mode.as_deref_mut() {
            // In a fork, whose parent may have reset it at its end.
            Some(Mode::Prepared) if !self.mode.made_by.is_current() => {
                listener.set_nonblocking(true)?;
            }
            Some(Mode::Prepared) => {}
            Some(mode @ Mode::Users) => {
                // Known from now on; after this it cannot be asked for.
                self.io.is_nonblocking();
                listener.set_nonblocking(true)?;
                *mode = Mode::Prepared;
            }
            Some(Mode::GivenAway) | None => {
                if !socket::is_nonblocking(listener)? {
                    listener.set_nonblocking(true)?;
                    let accepted = listener.accept();
                    // What could be set can be reset.
                    let _ = listener.set_nonblocking(false);
                    return accepted;
                }
            }
        }
        listener.accept()
    }

    /// Sets the mode that the user wants.
    pub(super) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        let mode = self.mode.write();
        let prepared = matches!(mode.as_deref(), Some(Mode::Prepared) | None);
        self.get().set_nonblocking(nonblocking || prepared)?;
        self.io.set_nonblocking(nonblocking);
        Ok(())
    }

    /// Gives the listener up, in the mode that the user has set.
    pub(super) fn into_inner(self) -> L {
        let this = ManuallyDrop::new(self);
        let mut mode = this.mode.write();
        this.reset(mode.as_deref());
        if let Some(mode) = mode.as_deref_mut() {
            *mode = Mode::GivenAway;
        }
        drop(mode);
        // SAFETY: `this` is not dropped, so the two fields are each moved out once.
        let (io, _mode) = unsafe { (ptr::read(&this.io), ptr::read(&this.mode)) };
        io.into_inner()
    }

    /// Puts the descriptor back into the user's mode, if it may be in another.
    fn reset(&self, mode: Option<&Mode>) {
        if let Some(Mode::Prepared) | None = mode
            && !self.io.is_nonblocking()
        {
            // Fails on a descriptor that is not open, and so will whatever is done with it.
            let _ = self.get().set_nonblocking(false);
        }
    }
}

impl<L: Accept> Drop for Listener<L> {
    fn drop(&mut self) {
        // Others may have a duplicate. Not in a fork, where that may be the parent, who accepts.
        let is_last = self.mode.clones.fetch_sub(1, Ordering::AcqRel) == 1;
        if is_last && self.mode.made_by.is_current() {
            self.reset(self.mode.read().as_deref());
        }
    }
}

/// How long `accept` may wait.
fn timeout(listener: &impl AsFd) -> io::Result<Option<Duration>> {
    Ok(sockopt::socket_timeout(listener, sockopt::Timeout::Recv)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{SocketAddr, UnixListener};

    use super::*;

    #[test]
    fn a_forked_child_does_not_wait_for_who_has_the_mode_in_the_parent() {
        crate::fork::set_up_process().unwrap();
        let any_name = SocketAddr::from_pathname("").unwrap();
        let listener = UnixListener::bind_addr(&any_name).unwrap();
        let listener = Listener::new(Descriptor::fresh(listener));
        // As of a thread that accepts.
        let accepting = listener.mode.read();
        // SAFETY: the child makes system calls only, on what it has a copy of, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: they have no preconditions.
            unsafe { libc::alarm(60) };
            let kept = listener.get().try_clone().map(|kept| listener.share(kept));
            let done = listener.set_nonblocking(true).is_ok()
                && kept.is_ok_and(|kept| kept.into_inner().as_raw_fd() >= 0);
            // SAFETY: as above.
            unsafe { libc::_exit(if done { 7 } else { 1 }) };
        }
        drop(accepting);
        let mut status = 0;
        // SAFETY: the child is this test's, and `status` is valid.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status), "{status}");
        assert_eq!(libc::WEXITSTATUS(status), 7);
    }
}
