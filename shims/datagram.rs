//! Receiving datagrams.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::BorrowedFd;

use super::socket::{SocketIo, StdSocket};
use crate::reactor::Descriptor;
use crate::sys::socket::{self, would_block};

/// The operations of a datagram socket that receive.
pub(super) trait DatagramIo<S: StdSocket> {
    /// Receives a datagram into `buf`. A coroutine calls `attempt` until `attempt` succeeds, and
    /// parks in between; an OS thread calls `block`.
    ///
    /// If the socket is shut down for reading and no datagram is left, returns what `end` returns.
    fn receive_with<B, R>(
        &self,
        buf: B,
        attempt: impl FnMut(BorrowedFd<'_>, &mut B) -> io::Result<R>,
        block: impl FnOnce(&S, B) -> io::Result<R>,
        end: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R>;
}

impl<S: StdSocket> DatagramIo<S> for Descriptor<S> {
    #[inline(always)]
    fn receive_with<B, R>(
        &self,
        buf: B,
        mut attempt: impl FnMut(BorrowedFd<'_>, &mut B) -> io::Result<R>,
        block: impl FnOnce(&S, B) -> io::Result<R>,
        end: impl FnOnce() -> io::Result<R>,
    ) -> io::Result<R> {
        self.read_with(
            buf,
            |reading, mut buf| {
                let received = reading.run(|socket| {
                    let fd = socket.as_fd();
                    match attempt(fd, &mut buf) {
                        Err(error) if would_block(&error) && is_at_end(self, fd) => {
                            // A datagram may have come just before the shutdown.
                            match attempt(fd, &mut buf) {
                                Err(error) if would_block(&error) => Ok(None),
                                done => done.map(Some),
                            }
                        }
                        done => done.map(Some),
                    }
                })?;
                received.map_or_else(end, Ok)
            },
            block,
        )
    }
}

/// Whether a blocking receive would report the end: the socket is in blocking mode and shut down for
/// reading. A non-blocking receive fails with `WouldBlock` then.
fn is_at_end<S: StdSocket>(io: &Descriptor<S>, fd: BorrowedFd<'_>) -> bool {
    io.is_hung_up() && !io.is_nonblocking() && socket::is_shut_for_reading(fd)
}
