//! One attempt at a socket operation that never blocks.
//!
//! Descriptors stay in blocking mode (`O_NONBLOCK` belongs to the open file description, which
//! clones, children and whoever holds the raw descriptor share), so every attempt says
//! `MSG_DONTWAIT` for itself.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags,
    SocketAddrAny, SocketFlags, SocketType,
};

pub(crate) fn recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    Ok(net::recv(fd, buf, RecvFlags::DONTWAIT)?.0)
}

pub(crate) fn peek(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    Ok(net::recv(fd, buf, RecvFlags::DONTWAIT | RecvFlags::PEEK)?.0)
}

pub(crate) fn recv_vectored(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let mut no_control = RecvAncillaryBuffer::default();
    let bufs = at_most_iov_max_mut(bufs);
    Ok(net::recvmsg(fd, bufs, &mut no_control, RecvFlags::DONTWAIT)?.bytes)
}

pub(crate) fn send(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    Ok(net::send(
        fd,
        buf,
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
    )?)
}

pub(crate) fn send_vectored(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut no_control = SendAncillaryBuffer::default();
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(net::sendmsg(
        fd,
        &bufs[..bufs.len().min(IOV_MAX)],
        &mut no_control,
        flags,
    )?)
}

pub(crate) fn recv_from(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    recv_from_with(fd, buf, RecvFlags::DONTWAIT)
}

pub(crate) fn peek_from(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    recv_from_with(fd, buf, RecvFlags::DONTWAIT | RecvFlags::PEEK)
}

fn recv_from_with(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
    flags: RecvFlags,
) -> io::Result<(usize, SocketAddr)> {
    let (received, _, from) = net::recvfrom(fd, buf, flags)?;
    Ok((received, internet_address(from)?))
}

fn internet_address(from: Option<SocketAddrAny>) -> io::Result<SocketAddr> {
    from.and_then(|from| SocketAddr::try_from(from).ok())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the peer has no internet address",
            )
        })
}

pub(crate) fn send_to(fd: BorrowedFd<'_>, buf: &[u8], to: SocketAddr) -> io::Result<usize> {
    Ok(net::sendto(
        fd,
        buf,
        SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        &to,
    )?)
}

/// Makes a TCP socket in non-blocking mode and starts to connect it to `addr`; the second value
/// says whether that is done already.
pub(crate) fn start_connecting(addr: SocketAddr) -> io::Result<(OwnedFd, bool)> {
    let family = if addr.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    match net::connect(&socket, &addr) {
        Err(Errno::INPROGRESS) => Ok((socket, false)),
        done => Ok((socket, done.map(|()| true)?)),
    }
}

/// Accepts a connection, on which the close-on-exec flag is set. The listener decides whether
/// this blocks: `accept4` knows no `MSG_DONTWAIT`.
pub(crate) fn accept(fd: BorrowedFd<'_>) -> io::Result<(OwnedFd, SocketAddr)> {
    let (connection, from) = net::acceptfrom_with(fd, SocketFlags::CLOEXEC)?;
    Ok((connection, internet_address(from)?))
}

/// Blocks the calling OS thread until `fd` has something to accept or to read.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], None) {
            Err(Errno::INTR) => {}
            done => return Ok(done.map(drop)?),
        }
    }
}

/// Whether the open file description of `fd` is in non-blocking mode.
pub(crate) fn is_nonblocking(fd: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fcntl_getfl(fd)?.contains(rustix::fs::OFlags::NONBLOCK))
}

/// The most buffers one vectored call takes; like std, more than these are left for the next.
pub(super) const IOV_MAX: usize = 1024;

fn at_most_iov_max_mut<'a, 'b>(bufs: &'a mut [IoSliceMut<'b>]) -> &'a mut [IoSliceMut<'b>] {
    let len = bufs.len().min(IOV_MAX);
    &mut bufs[..len]
}
