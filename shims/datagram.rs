//! Receiving datagrams.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::reactor::{Descriptor, Operation};
use crate::sys::socket::{self, would_block};

/// Waits for a datagram that `op` takes; None if the socket was shut down for reading.
pub(super) fn receive<T: AsFd, R>(
    io: &Descriptor<T>,
    reading: Operation<'_, T>,
    mut op: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
) -> io::Result<Option<R>> {
    reading.run(|socket| {
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
