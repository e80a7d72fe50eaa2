//! TCP listeners.

use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::net::{self, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{TcpStream, ToSocketAddrs, each_addr};
use crate::reactor::{Descriptor, Direction};
use crate::sys::socket;
use crate::task;

/// Like [`std::net::TcpListener`], but waits park the coroutine.
///
/// The kernel knows no way to try to accept but on a descriptor in non-blocking mode, so the
/// first coroutine that accepts puts the descriptor into it. This shows only to who holds the
/// raw descriptor, until it is given away.
pub struct TcpListener {
    io: Descriptor<net::TcpListener>,
    /// The descriptor is in non-blocking mode, if not by the user's wish. The mode is one for all
    /// clones, so this is, too.
    prepared: Arc<AtomicBool>,
}

impl TcpListener {
    fn new(io: Descriptor<net::TcpListener>) -> TcpListener {
        TcpListener {
            io,
            prepared: Arc::default(),
        }
    }

    /// Like [`std::net::TcpListener::bind`].
    ///
    /// # Errors
    ///
    /// As std: of several addresses, the last one's.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        let listener = each_addr(addr, net::TcpListener::bind)?;
        Ok(TcpListener::new(Descriptor::fresh(listener)))
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
            prepared: Arc::clone(&self.prepared),
        })
    }

    /// Like [`std::net::TcpListener::accept`].
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (fd, peer) = self.accept_fd()?;
        Ok((TcpStream::fresh(net::TcpStream::from(fd)), peer))
    }

    fn accept_fd(&self) -> io::Result<(OwnedFd, SocketAddr)> {
        if task::on_coroutine() {
            self.prepare()?;
            return self
                .io
                .operation(Direction::Read)
                .run(|listener| socket::accept(listener.as_fd()));
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

    fn prepare(&self) -> io::Result<()> {
        if !self.prepared.load(Ordering::Relaxed) {
            self.io.get().set_nonblocking(true)?;
            self.prepared.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Like [`std::net::TcpListener::incoming`].
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Gives the listener up, in the mode that the user has set.
    fn into_std(self) -> net::TcpListener {
        let restore = self.prepared.load(Ordering::Relaxed) && !self.io.is_nonblocking();
        let listener = self.io.into_inner();
        if restore {
            // Fails on a descriptor that is not open, and so will whatever is done with it.
            let _ = listener.set_nonblocking(false);
        }
        listener
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
        let prepared = self.prepared.load(Ordering::Relaxed);
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
