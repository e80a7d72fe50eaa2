//! Descriptors as messages.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Sends and receives descriptors over Unix sockets: to the receiver, which may be another
/// process, they become descriptors of its own for the same files and sockets.
///
/// For [`UnixStream`](crate::shims::os::unix::net::UnixStream) and
/// [`UnixDatagram`](crate::shims::os::unix::net::UnixDatagram). Waits park the coroutine, and
/// timeouts and non-blocking mode hold as in reads and writes.
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
    /// Sends `fds` with the bytes of `buf`, or with as many as fit: the number that is returned,
    /// with which all of `fds` have gone.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for more descriptors than the system takes (253), and for descriptors with
    /// no bytes on a stream, which would carry none of them; else as a write.
    fn send_fds(&self, fds: &[BorrowedFd<'_>], buf: &[u8]) -> io::Result<usize>;

    /// Receives bytes, and at most `max` descriptors that were sent with them, on which the
    /// close-on-exec flag is set.
    ///
    /// What is received at once was sent with one call, or, on a stream, with several of which
    /// only the last sent descriptors.
    ///
    /// # Errors
    ///
    /// `InvalidData` if there came more descriptors than `max`, or than this process may open:
    /// they are all closed, and the bytes are lost. Else as a read.
    fn recv_fds(&self, max: usize, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)>;
}
