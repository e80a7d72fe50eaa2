//! Sending descriptors to other processes.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Sends and receives descriptors over Unix sockets.
///
/// The receiver, which may be another process, gets new descriptors of the same files and sockets.
/// [`UnixStream`](crate::shims::os::unix::net::UnixStream) and
/// [`UnixDatagram`](crate::shims::os::unix::net::UnixDatagram) implement this trait. Waits park the
/// coroutine. Timeouts and non-blocking mode count as in reads and writes.
///
/// ```
/// use greenroom::shims as std;
/// use std::descriptor::PassDescriptors;
/// use std::io::{Read, Write};
/// use std::net::{TcpListener, TcpStream};
/// use std::os::fd::AsFd;
/// use std::os::unix::net::UnixStream;
///
/// # fn main() -> std::io::Result<()> {
/// # let listener = TcpListener::bind("127.0.0.1:0")?;
/// # let mut client = TcpStream::connect(listener.local_addr()?)?;
/// # let (connection, _) = listener.accept()?;
/// let (near, far) = UnixStream::pair()?;
/// near.send_fds(&[connection.as_fd()], b"please answer")?;
/// drop(connection);
///
/// let (len, mut fds) = far.recv_fds(1, &mut [0; 64])?;
/// assert_eq!(len, b"please answer".len());
/// let mut connection = TcpStream::from(fds.remove(0));
/// connection.write_all(b"hello")?;
/// # drop(connection);
/// # let mut answer = String::new();
/// # client.read_to_string(&mut answer)?;
/// # assert_eq!(answer, "hello");
/// # Ok(())
/// # }
/// ```
pub trait PassDescriptors {
    /// Sends all of `fds`, together with as many bytes of `buf` as fit. Returns the number of bytes.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for more than 253 descriptors, the most that Linux sends at once.
    /// `InvalidInput` for descriptors without bytes on a stream, which carries descriptors only with
    /// bytes. Otherwise the errors of a write.
    fn send_fds(&self, fds: &[BorrowedFd<'_>], buf: &[u8]) -> io::Result<usize>;

    /// Receives bytes into `buf`, and at most `max` descriptors that were sent with the bytes. Returns
    /// the number of bytes, and the descriptors. The close-on-exec flag of each is set.
    ///
    /// One call receives what one call has sent. On a stream, the bytes may come from several calls,
    /// of which only the last has sent descriptors.
    ///
    /// # Errors
    ///
    /// `InvalidData` if more descriptors come than `max`, or more than this process may open. All of
    /// the descriptors are then closed, and the bytes are lost. Otherwise the errors of a read.
    fn recv_fds(&self, max: usize, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)>;
}
