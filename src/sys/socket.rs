//! One attempt at a socket operation, which does not block.
//!
//! Descriptors stay in blocking mode. `O_NONBLOCK` belongs to the open file description, which clones,
//! child processes and other users of the raw descriptor share, so setting it would change their calls,
//! too. Instead, every attempt passes `MSG_DONTWAIT`.
//!
//! Unless a function says otherwise, its errors are the kernel's, and [`would_block`] tells whether the
//! operation has to wait. An attempt that a signal interrupts returns `Interrupted`, as std's calls do.

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
use rustix::fs::Mode;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrAny, SocketAddrUnix,
    SocketFlags, SocketType,
};

use super::poll;

/// Whether an attempt has failed because the operation would block.
pub(crate) fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Like [`UdpSocket::recv`](std::net::UdpSocket::recv).
pub(crate) fn recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    Ok(net::recv(fd, buf, RecvFlags::DONTWAIT)?.0)
}

/// Like [`UdpSocket::peek`](std::net::UdpSocket::peek).
pub(crate) fn peek(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    Ok(net::recv(fd, buf, RecvFlags::DONTWAIT | RecvFlags::PEEK)?.0)
}

/// Like `recv`, into several buffers: at most [`IOV_MAX`] of them.
pub(crate) fn recv_vectored(fd: BorrowedFd<'_>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
    let mut no_control = RecvAncillaryBuffer::default();
    let bufs = at_most_iov_max_mut(bufs);
    Ok(net::recvmsg(fd, bufs, &mut no_control, RecvFlags::DONTWAIT)?.bytes)
}

/// A peer that is gone gives an error, as with std, and no SIGPIPE.
const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// Like [`UdpSocket::send`](std::net::UdpSocket::send).
pub(crate) fn send(fd: BorrowedFd<'_>, buf: &[u8]) -> io::Result<usize> {
    Ok(net::send(fd, buf, SEND_FLAGS)?)
}

/// Like `send`, from several buffers: at most [`IOV_MAX`] of them.
pub(crate) fn send_vectored(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut no_control = SendAncillaryBuffer::default();
    let bufs = at_most_iov_max(bufs);
    Ok(net::sendmsg(fd, bufs, &mut no_control, SEND_FLAGS)?)
}

/// The number of bytes that a vectored attempt with `bufs` asks for. Buffers beyond [`IOV_MAX`] do not
/// count.
pub(crate) fn asked(bufs: &[impl Deref<Target = [u8]>]) -> usize {
    at_most_iov_max(bufs).iter().map(|buf| buf.len()).sum()
}

/// Like [`UdpSocket::recv_from`](std::net::UdpSocket::recv_from).
///
/// # Errors
///
/// `InvalidInput`, if the sender has no internet address. Otherwise the kernel's.
pub(crate) fn recv_from(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    recv_from_with(fd, buf, RecvFlags::DONTWAIT)
}

/// Like [`UdpSocket::peek_from`](std::net::UdpSocket::peek_from).
///
/// # Errors
///
/// `InvalidInput`, if the sender has no internet address. Otherwise the kernel's.
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

/// The error for a socket that turns out not to be an internet socket.
pub(crate) fn no_internet_address() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the peer has no internet address",
    )
}

/// Like [`UdpSocket::send_to`](std::net::UdpSocket::send_to), to one address.
pub(crate) fn send_to(fd: BorrowedFd<'_>, buf: &[u8], to: SocketAddr) -> io::Result<usize> {
    Ok(net::sendto(fd, buf, SEND_FLAGS, &to)?)
}

/// Creates a TCP socket and starts to connect it to `addr`. Returns the socket, which is in non-blocking
/// mode, and whether it is connected already. If not, it becomes writable when it is, or when the
/// attempt has failed (`SO_ERROR` then has the error).
pub(crate) fn start_connecting(addr: SocketAddr) -> io::Result<(OwnedFd, bool)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family(addr), SocketType::STREAM, flags, None)?;
    match net::connect(&socket, &addr) {
        Err(Errno::INPROGRESS) => Ok((socket, false)),
        done => Ok((socket, done.map(|()| true)?)),
    }
}

/// The address family of an internet address.
pub(crate) fn family(addr: SocketAddr) -> AddressFamily {
    match addr {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

/// Receives a datagram. A sender with a path that std's address type cannot hold counts as unnamed.
///
/// # Errors
///
/// `InvalidInput`, if `fd` is not a Unix socket. Otherwise the kernel's.
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
    // SAFETY: `from` owns an address of `addr_len` initialized bytes, and outlives the slice.
    let bytes = unsafe { slice::from_raw_parts(from.as_ptr().cast::<u8>(), len) };
    match bytes.get(offset_of!(libc::sockaddr_un, sun_path)..) {
        None | Some([]) => unnamed(),
        Some([0, name @ ..]) => unix::SocketAddr::from_abstract_name(name),
        Some(path) => {
            // The kernel may count the terminating zero in, or leave it out: see unix(7).
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
///
/// # Errors
///
/// The kernel's for a path that is too long. std's type rules that out.
pub(crate) fn unix_name(addr: &unix::SocketAddr) -> io::Result<SocketAddrUnix> {
    Ok(match (addr.as_pathname(), addr.as_abstract_name()) {
        (Some(path), _) => SocketAddrUnix::new(path)?,
        (None, Some(name)) => SocketAddrUnix::new_abstract_name(name)?,
        (None, None) => SocketAddrUnix::new_unnamed(),
    })
}

/// Like [`UnixDatagram::send_to_addr`](std::os::unix::net::UnixDatagram::send_to_addr).
pub(crate) fn send_to_unix(
    fd: BorrowedFd<'_>,
    buf: &[u8],
    to: &SocketAddrUnix,
) -> io::Result<usize> {
    Ok(net::sendto(fd, buf, SEND_FLAGS, to)?)
}

/// Creates a Unix stream socket in blocking mode, and tries to connect it. The inner `Err` holds the
/// socket, not connected, if the queue of the listener is full: connecting it would block.
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

/// Connects `socket`. Blocks the OS thread while the queue of the listener is full.
pub(crate) fn finish_connecting_unix(socket: &OwnedFd, to: &SocketAddrUnix) -> io::Result<()> {
    Ok(retry_on_intr(|| net::connect(socket, to))?)
}

/// Creates a Unix stream socket in blocking mode that listens at `name`, whose file has the mode 0600, less the bits
/// of the process's umask.
pub(crate) fn bind_privately(name: &SocketAddrUnix) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux makes the file with the mode of the socket's own inode.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    net::bind(&socket, name)?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// How many connections to a private listener may wait to be accepted.
const BACKLOG: i32 = 16;

/// The effective user id of the process at the other end of the Unix socket `fd`, at the time when it connected.
pub(crate) fn peer_uid(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // Not by rustix: the process id is zero for a process of another namespace, and its type has no zero.
    let mut peer = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut len = size_of_val(&peer) as libc::socklen_t;
    // SAFETY: the option gives a `ucred`, and the length is that of `ucred`.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    match done {
        0 => Ok(peer.uid),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the Unix socket `fd` has sent as many bytes that are not received yet as its send buffer
/// may hold.
pub(crate) fn is_send_buffer_full(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut unreceived: libc::c_int = 0;
    // SAFETY: the descriptor is open, and TIOCOUTQ writes an int to the pointer, which is to one.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut unreceived) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    let limit = net::sockopt::socket_send_buffer_size(fd)?;
    Ok(usize::try_from(unreceived).is_ok_and(|unreceived| unreceived >= limit))
}

/// Whether a poll reports that a datagram can be sent on `fd`, or that sending it gives an error at
/// once.
pub(crate) fn is_writable(fd: BorrowedFd<'_>) -> bool {
    poll_now(fd, PollFlags::OUT).intersects(PollFlags::OUT | PollFlags::ERR | PollFlags::HUP)
}

/// Whether `fd` was shut down for reading, or its peer has closed the connection.
pub(crate) fn is_shut_for_reading(fd: BorrowedFd<'_>) -> bool {
    poll_now(fd, PollFlags::RDHUP).intersects(PollFlags::RDHUP | PollFlags::HUP)
}

/// The events of `fd` at present: of those in `wanted`, and of those that poll(2) always reports
/// (`ERR`, `HUP`, `NVAL`). None, if the poll fails.
fn poll_now(fd: BorrowedFd<'_>, wanted: PollFlags) -> PollFlags {
    let mut fds = [PollFd::from_borrowed_fd(fd, wanted)];
    match poll::look(&mut fds) {
        Ok(_) => fds[0].revents(),
        Err(_) => PollFlags::empty(),
    }
}

/// Whether a call may block the OS thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocking {
    /// The mode of the descriptor decides.
    Allowed,
    /// The call never blocks: it passes `MSG_DONTWAIT`.
    Never,
}

/// The most descriptors that the kernel takes in one message: see unix(7).
const SCM_MAX_FD: usize = 253;

/// Sends `buf`, with the descriptors `fds` along (`SCM_RIGHTS`). Returns the number of bytes sent.
/// Retries if a signal interrupts.
///
/// # Errors
///
/// `InvalidInput`, for more than 253 descriptors. Otherwise the kernel's.
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
        debug_assert!(pushed, "there is space for SCM_MAX_FD descriptors");
    }
    let mut flags = SendFlags::NOSIGNAL;
    flags.set(SendFlags::DONTWAIT, blocking == Blocking::Never);
    let bufs = [IoSlice::new(buf)];
    Ok(retry_on_intr(|| {
        net::sendmsg(fd, &bufs, &mut control, flags)
    })?)
}

/// Receives bytes, and at most `max` descriptors that were sent along. The descriptors are closed on
/// exec. Retries if a signal interrupts.
///
/// # Errors
///
/// `InvalidData`, if more descriptors came than `max`, or than this process may open: then all of them
/// are closed, and the bytes are lost. Otherwise the kernel's.
pub(crate) fn recv_fds(
    fd: BorrowedFd<'_>,
    max: usize,
    buf: &mut [u8],
    blocking: Blocking,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    // A socket with SO_PASSCRED receives the credentials of the sender, too. Without room for those
    // the kernel would report a truncated message.
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

/// Whether closing `fd` waits until the peer has acknowledged what was written, or for a time
/// (`SO_LINGER`). False, if the option cannot be read.
pub(crate) fn lingers(fd: BorrowedFd<'_>) -> bool {
    let linger = net::sockopt::socket_linger(fd);
    linger.is_ok_and(|time| time.is_some_and(|time| !time.is_zero()))
}

/// Whether a socket has bytes that were not read. False, if that cannot be told.
pub(crate) fn has_input(fd: BorrowedFd<'_>) -> bool {
    rustix::io::ioctl_fionread(fd).is_ok_and(|bytes| bytes > 0)
}

/// Whether `fd` is a listening socket. False, if it is not a socket.
pub(crate) fn is_listening(fd: BorrowedFd<'_>) -> bool {
    net::sockopt::socket_acceptconn(fd).unwrap_or(false)
}

/// Checks that an `accept` on the listener `fd` has something to return: a connection, or an error.
/// Another caller may still be faster.
///
/// # Errors
///
/// `WouldBlock`, if it has nothing.
pub(crate) fn check_acceptable(fd: BorrowedFd<'_>) -> io::Result<()> {
    match poll_now(fd, PollFlags::IN).is_empty() {
        true => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
        false => Ok(()),
    }
}

/// Whether the open file description of `fd` is in non-blocking mode.
///
/// # Errors
///
/// The kernel's: `fd` is not open.
pub(crate) fn is_nonblocking(fd: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fcntl_getfl(fd)?.contains(rustix::fs::OFlags::NONBLOCK))
}

/// The most buffers that the kernel takes in one vectored call. As in std, a call passes the first ones
/// and leaves the others to the caller's next call.
const IOV_MAX: usize = 1024;

/// The first [`IOV_MAX`] buffers.
pub(crate) fn at_most_iov_max<T>(bufs: &[T]) -> &[T] {
    &bufs[..bufs.len().min(IOV_MAX)]
}

/// The first [`IOV_MAX`] buffers.
pub(super) fn at_most_iov_max_mut<T>(bufs: &mut [T]) -> &mut [T] {
    let len = bufs.len().min(IOV_MAX);
    &mut bufs[..len]
}
