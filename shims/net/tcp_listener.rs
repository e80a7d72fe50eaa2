//! TCP listeners.

use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::net::{self, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{TcpStream, ToSocketAddrs, each_addr};
use crate::reactor::{Descriptor, Direction};
use crate::sys::fork::Process;
use crate::sys::socket;
use crate::task;

/// Like [`std::net::TcpListener`], but waits park the coroutine.
///
/// The kernel knows no way to try to accept but on a descriptor in non-blocking mode, so the
/// first coroutine that accepts puts the descriptor into it. This shows only to who holds the
/// raw descriptor, until it is given away; who changes the mode by it may make `accept` block the
/// coroutine's thread.
///
/// Clones share the mode, also with one that was given away (converted to std's type, or to a
/// descriptor). That one is in the mode that the user has set, but while a coroutine accepts from
/// another clone there are moments when it is not: then, to accept from it may be `WouldBlock`.
pub struct TcpListener {
    io: Descriptor<net::TcpListener>,
    /// The mode is one for all clones, so this is, too.
    mode: Arc<SharedMode>,
}

/// The mode of the open file description. Locked to change it; and to rely on it, which never
/// takes long, as nothing blocks in that mode.
struct SharedMode {
    made_by: Process,
    mode: RwLock<Mode>,
}

impl SharedMode {
    fn new() -> SharedMode {
        SharedMode {
            made_by: Process::current(),
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

#[derive(Clone, Copy, Debug)]
enum Mode {
    /// The one that the user has set.
    Users,
    /// Non-blocking.
    Prepared,
    /// A clone has left, whose new owner may rely on the user's mode, or set another.
    GivenAway,
}

impl TcpListener {
    /// Wraps a listener that was just made, in blocking mode.
    pub(super) fn fresh(listener: net::TcpListener) -> TcpListener {
        TcpListener::new(Descriptor::fresh(listener))
    }

    fn new(io: Descriptor<net::TcpListener>) -> TcpListener {
        TcpListener {
            io,
            mode: Arc::new(SharedMode::new()),
        }
    }

    /// Like [`std::net::TcpListener::bind`].
    ///
    /// # Errors
    ///
    /// As std: of several addresses, the last one's.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        each_addr(addr, net::TcpListener::bind).map(TcpListener::fresh)
    }

    /// Like [`std::net::TcpListener::local_addr`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get().local_addr()
    }

    /// Like [`std::net::TcpListener::try_clone`]: another descriptor of the same listener.
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        let duplicate = self.io.get().try_clone()?;
        Ok(TcpListener {
            io: self.io.share(duplicate),
            mode: Arc::clone(&self.mode),
        })
    }

    /// Like [`std::net::TcpListener::accept`].
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (fd, peer) = self.accept_fd()?;
        Ok((TcpStream::fresh(net::TcpStream::from(fd)), peer))
    }

    fn accept_fd(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        if task::on_coroutine() {
            return self
                .io
                .operation(Direction::Read)
                .run(|listener| self.try_accept(listener));
        }
        loop {
            match socket::accept(self.io.get().as_fd()) {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && !self.io.is_nonblocking() =>
                {
                    socket::wait_readable(self.io.get().as_fd())?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    /// Accepts if that does not block.
    fn try_accept(&self, listener: &net::TcpListener) -> io::Result<(OwnedFd, SocketAddr)> {
        let mode = self.mode.read();
        if let Some(Mode::Prepared) = mode.as_deref() {
            return socket::accept(listener.as_fd());
        }
        drop(mode);
        self.prepare_and_accept(listener)
    }

    #[cold]
    fn prepare_and_accept(&self, listener: &net::TcpListener) -> io::Result<(OwnedFd, SocketAddr)> {
        let mut mode = self.mode.write();
        match mode.as_deref_mut() {
            Some(Mode::Prepared) => {}
            Some(mode @ Mode::Users) => {
                listener.set_nonblocking(true)?;
                *mode = Mode::Prepared;
            }
            Some(Mode::GivenAway) | None => {
                if !socket::is_nonblocking(listener)? {
                    listener.set_nonblocking(true)?;
                    let accepted = socket::accept(listener.as_fd());
                    // What could be set can be reset.
                    let _ = listener.set_nonblocking(false);
                    return accepted;
                }
            }
        }
        socket::accept(listener.as_fd())
    }

    /// Like [`std::net::TcpListener::incoming`].
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Gives the listener up, in the mode that the user has set.
    fn into_std(self) -> net::TcpListener {
        let mut mode = self.mode.write();
        if let Some(Mode::Prepared) | None = mode.as_deref()
            && !self.io.is_nonblocking()
        {
            // Fails on a descriptor that is not open, and so will whatever is done with it.
            let _ = self.io.get().set_nonblocking(false);
        }
        if let Some(mode) = mode.as_deref_mut() {
            *mode = Mode::GivenAway;
        }
        drop(mode);
        self.io.into_inner()
    }

    /// Like [`std::net::TcpListener::set_ttl`].
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.io.get().set_ttl(ttl)
    }

    /// Like [`std::net::TcpListener::ttl`].
    pub fn ttl(&self) -> io::Result<u32> {
        self.io.get().ttl()
    }

    /// Like [`std::net::TcpListener::set_only_v6`].
    #[deprecated(
        since = "1.16.0",
        note = "this option can only be set before the socket is bound"
    )]
    #[expect(deprecated, reason = "mirrors std")]
    pub fn set_only_v6(&self, only_v6: bool) -> io::Result<()> {
        self.io.get().set_only_v6(only_v6)
    }

    /// Like [`std::net::TcpListener::only_v6`].
    #[deprecated(
        since = "1.16.0",
        note = "this option can only be set before the socket is bound"
    )]
    #[expect(deprecated, reason = "mirrors std")]
    pub fn only_v6(&self) -> io::Result<bool> {
        self.io.get().only_v6()
    }

    /// Like [`std::net::TcpListener::take_error`].
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.io.get().take_error()
    }

    /// Like [`std::net::TcpListener::set_nonblocking`]: in non-blocking mode, `accept` returns
    /// `WouldBlock` instead of parking.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        let mode = self.mode.write();
        let prepared = matches!(mode.as_deref(), Some(Mode::Prepared) | None);
        self.io.get().set_nonblocking(nonblocking || prepared)?;
        self.io.set_nonblocking(nonblocking);
        Ok(())
    }
}

/// The connections of a listener, for ever. Like [`std::net::Incoming`].
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.io.get().fmt(f)
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.get().as_fd()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.io.get().as_raw_fd()
    }
}

impl IntoRawFd for TcpListener {
    fn into_raw_fd(self) -> RawFd {
        net::TcpListener::from(self).into_raw_fd()
    }
}

impl FromRawFd for TcpListener {
    unsafe fn from_raw_fd(fd: RawFd) -> TcpListener {
        // SAFETY: the caller's promise is the same.
        unsafe { net::TcpListener::from_raw_fd(fd) }.into()
    }
}

impl From<OwnedFd> for TcpListener {
    fn from(fd: OwnedFd) -> TcpListener {
        net::TcpListener::from(fd).into()
    }
}

impl From<TcpListener> for OwnedFd {
    fn from(listener: TcpListener) -> OwnedFd {
        net::TcpListener::from(listener).into()
    }
}

/// Takes over a listener of std's, with its mode.
impl From<net::TcpListener> for TcpListener {
    fn from(listener: net::TcpListener) -> TcpListener {
        TcpListener::new(Descriptor::foreign(listener))
    }
}

/// Gives the listener up to std, in the mode that the user has set.
impl From<TcpListener> for net::TcpListener {
    fn from(listener: TcpListener) -> net::TcpListener {
        listener.into_std()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_does_not_wait_for_who_has_the_lock_in_the_parent() {
        crate::fork::set_up_process().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // As of a thread that accepts.
        let accepting = listener.mode.read();
        // SAFETY: the child makes system calls only, on what it has a copy of, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: they have no preconditions.
            unsafe { libc::alarm(60) };
            let kept = listener.try_clone();
            let done = listener.set_nonblocking(true).is_ok()
                && kept.is_ok_and(|kept| kept.into_raw_fd() >= 0);
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
