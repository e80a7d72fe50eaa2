//! One attempt at a socket operation that never blocks.
//!
//! Descriptors stay in blocking mode (`O_NONBLOCK` belongs to the open file description, which
//! clones, children and whoever holds the raw descriptor share), so every attempt says
//! `MSG_DONTWAIT` for itself.

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{MaybeUninit, offset_of};
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net as unix;
use std::slice;

use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrAny, SocketAddrUnix,
    SocketFlags, SocketType,
};

use super::poll;

/// Whether an attempt has failed because it would have blocked.
pub(crate) fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

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

const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

pub(crate) fn send(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    Ok(net::send(fd, buf, SEND_FLAGS)?)
}

pub(crate) fn send_vectored(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut no_control = SendAncillaryBuffer::default();
    let bufs = at_most_iov_max(bufs);
    Ok(net::sendmsg(fd, bufs, &mut no_control, SEND_FLAGS)?)
}

/// How many bytes a vectored attempt with `bufs` asks for: not those beyond the limit.
pub(crate) fn asked(bufs: &[impl Deref<Target = [u8]>]) -> usize {
    at_most_iov_max(bufs).iter().map(|buf| buf.len()).sum()
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
        .ok_or_else(no_internet_address)
}

pub(crate) fn no_internet_address() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the peer has no internet address",
    )
}

pub(crate) fn send_to(fd: BorrowedFd<'_>, buf: &[u8], to: SocketAddr) -> io::Result<usize> {
    Ok(net::sendto(fd, buf, SEND_FLAGS, &to)?)
}

/// Makes a TCP socket in non-blocking mode and starts to connect it to `addr`; the second value
/// says whether that is done already.
pub(crate) fn start_connecting(addr: SocketAddr) -> io::Result<(OwnedFd, bool)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family(addr), SocketType::STREAM, flags, None)?;
    match net::connect(&socket, &addr) {
        Err(Errno::INPROGRESS) => Ok((socket, false)),
        done => Ok((socket, done.map(|()| true)?)),
    }
}

pub(crate) fn family(addr: SocketAddr) -> AddressFamily {
    match addr {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

/// Receives a datagram; a sender whose path std has no address for counts as unnamed.
pub(crate) fn recv_from_unix(
    fd: BorrowedFd<'_>,
    buf: &mut [u8],
) -> io::Result<(usize, unix::SocketAddr)> {
    let (received, _, from) = net::recvfrom(fd, buf, RecvFlags::DONTWAIT)?;
    Ok((received, unix_address(from)?))
}

fn unix_address(from: Option<SocketAddrAny>) -> io::Result<unix::SocketAddr> {
    let Some(from) = from else {
        return unnamed();
    };
    if from.address_family() != AddressFamily::UNIX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "file descriptor did not correspond to a Unix socket",
        ));
    }
    let len = usize::try_from(from.addr_len()).unwrap_or(usize::MAX);
    // SAFETY: so many bytes of the address are initialized, and it stays where it is.
    let bytes = unsafe { slice::from_raw_parts(from.as_ptr().cast::<u8>(), len) };
    match bytes.get(offset_of!(libc::sockaddr_un, sun_path)..) {
        None | Some([]) => unnamed(),
        Some([0, name @ ..]) => unix::SocketAddr::from_abstract_name(name),
        Some(path) => {
            let path = path.split(|&byte| byte == 0).next().unwrap_or(path);
            unix::SocketAddr::from_pathname(OsStr::from_bytes(path)).or_else(|_| unnamed())
        }
    }
}

/// The address of a Unix socket that has no name.
pub(crate) fn unnamed() -> io::Result<unix::SocketAddr> {
    unix::SocketAddr::from_pathname("")
}

/// The address as the system calls take it.
pub(crate) fn unix_name(addr: &unix::SocketAddr) -> io::Result<SocketAddrUnix> {
    Ok(match (addr.as_pathname(), addr.as_abstract_name()) {
        (Some(path), _) => SocketAddrUnix::new(path)?,
        (None, Some(name)) => SocketAddrUnix::new_abstract_name(name)?,
        (None, None) => SocketAddrUnix::new_unnamed(),
    })
}

pub(crate) fn send_to_unix(
    fd: BorrowedFd<'_>,
    buf: &[u8],
    to: &SocketAddrUnix,
) -> io::Result<usize> {
    Ok(net::sendto(fd, buf, SEND_FLAGS, to)?)
}

/// Makes a Unix stream socket in blocking mode, and connects it without blocking: but for one that
/// the inner error holds, because the queue of the listener is full.
pub(crate) fn connect_unix(to: &SocketAddrUnix) -> io::Result<Result<OwnedFd, OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let connected = match net::connect(&socket, to) {
        Ok(()) => true,
        Err(Errno::AGAIN) => false,
        Err(error) => return Err(error.into()),
    };
    rustix::io::ioctl_fionbio(&socket, false)?;
    Ok(if connected { Ok(socket) } else { Err(socket) })
}

/// Connects `socket`, which blocks while the queue of the listener is full.
pub(crate) fn finish_connecting_unix(socket: &OwnedFd, to: &SocketAddrUnix) -> io::Result<()> {
    Ok(retry_on_intr(|| net::connect(socket, to))?)
}

/// Whether as much is under way from the Unix socket `fd` as it may have.
pub(crate) fn is_send_buffer_full(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut under_way: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the call writes an int.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut under_way) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    let limit = net::sockopt::socket_send_buffer_size(fd)?;
    Ok(usize::try_from(under_way).is_ok_and(|under_way| under_way >= limit))
}

/// Whether a datagram can be sent to the peer of `fd`, as far as it is known without trying.
pub(crate) fn is_writable(fd: BorrowedFd<'_>) -> bool {
    poll_now(fd, PollFlags::OUT).intersects(PollFlags::OUT | PollFlags::ERR | PollFlags::HUP)
}

/// Whether `fd` was shut down for reading, or was closed by its peer.
pub(crate) fn is_shut_for_reading(fd: BorrowedFd<'_>) -> bool {
    poll_now(fd, PollFlags::RDHUP).intersects(PollFlags::RDHUP | PollFlags::HUP)
}

/// What of `wanted` is there, and what is always told.
fn poll_now(fd: BorrowedFd<'_>, wanted: PollFlags) -> PollFlags {
    let mut fds = [PollFd::from_borrowed_fd(fd, wanted)];
    match poll::look(&mut fds) {
        Ok(_) => fds[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}

/// Whether a call may block the OS thread, as far as the mode of its descriptor lets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocking {
    Allowed,
    Never,
}

/// The most descriptors that the kernel takes in a message.
const SCM_MAX_FD: usize = 253;

/// Sends `fds` along with `buf`.
pub(crate) fn send_fds(
    fd: BorrowedFd<'_>,
    fds: &[BorrowedFd<'_>],
    buf: &[u8],
    blocking: Blocking,
) -> io::Result<usize> {
    if fds.len() > SCM_MAX_FD {
        let why = "too many descriptors for a message";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        let pushed = control.push(SendAncillaryMessage::ScmRights(fds));
        debug_assert!(pushed, "the space is for as many");
    }
    let mut flags = SendFlags::NOSIGNAL;
    flags.set(SendFlags::DONTWAIT, blocking == Blocking::Never);
    let bufs = [IoSlice::new(buf)];
    Ok(retry_on_intr(|| {
        net::sendmsg(fd, &bufs, &mut control, flags)
    })?)
}

/// Receives bytes, and at most `max` descriptors that came along.
pub(crate) fn recv_fds(
    fd: BorrowedFd<'_>,
    max: usize,
    buf: &mut [u8],
    blocking: Blocking,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    // With room for the credentials of a sender, which some sockets are set to receive.
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    flags.set(RecvFlags::DONTWAIT, blocking == Blocking::Never);
    let mut bufs = [IoSliceMut::new(buf)];
    let received = retry_on_intr(|| net::recvmsg(fd, &mut bufs, &mut control, flags))?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if fds.len() > max || received.flags.contains(ReturnFlags::CTRUNC) {
        let why = "more descriptors came than were asked for, or can be had";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok((received.bytes, fds))
}

/// Whether the close of `fd` waits until what was written has arrived (`SO_LINGER`).
pub(crate) fn lingers(fd: BorrowedFd<'_>) -> bool {
    let linger = net::sockopt::socket_linger(fd);
    linger.is_ok_and(|time| time.is_some_and(|time| !time.is_zero()))
}

/// Whether `fd` is a socket that listens.
pub(crate) fn is_listening(fd: BorrowedFd<'_>) -> bool {
    net::sockopt::socket_acceptconn(fd).unwrap_or(false)
}

/// Whether a call that accepts from the listener `fd` may find something to return.
///
/// # Errors
///
/// `WouldBlock`, if not.
pub(crate) fn check_acceptable(fd: BorrowedFd<'_>) -> io::Result<()> {
    match poll_now(fd, PollFlags::IN).is_empty() {
        true => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
        false => Ok(()),
    }
}

/// Whether the open file description of `fd` is in non-blocking mode.
pub(crate) fn is_nonblocking(fd: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fcntl_getfl(fd)?.contains(rustix::fs::OFlags::NONBLOCK))
}

/// The most buffers one vectored call takes; like std, more than these are left for the next.
const IOV_MAX: usize = 1024;

pub(crate) fn at_most_iov_max<T>(bufs: &[T]) -> &[T] {
    &bufs[..bufs.len().min(IOV_MAX)]
}

pub(super) fn at_most_iov_max_mut<T>(bufs: &mut [T]) -> &mut [T] {
    let len = bufs.len().min(IOV_MAX);
    &mut bufs[..len]
}
