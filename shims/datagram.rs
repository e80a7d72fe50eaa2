//! Receiving datagrams.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::reactor::{Descriptor, Direction};
use crate::sys::socket::{self, would_block};

/// Waits for a datagram that `op` takes; None if the socket was shut down for reading.
pub(super) fn receive<T: AsFd, R>(
    io: &Descriptor<T>,
    timeout: fn(&T) -> io::Result<Option<Duration>>,
    mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
) -> io::Result<Option<R>> {
    io.operation(Direction::Read)
        .socket_timeout(timeout)
        .run(|socket| {
            let socket = socket.as_fd();
            match op(socket) {
                // Only a receiver that blocks is told that nothing comes any more.
                Err(error)
                    if would_block(&error)
                        && io.is_hung_up()
                        && !io.is_nonblocking()
                        && socket::is_shut_for_reading(socket) =>
                {
                    match op(socket) {
                        Err(error) if would_block(&error) => Ok(None),
                        done => done.map(Some),
                    }
                }
                done => done.map(Some),
            }
        })
}
