//! [`std::os::unix::net`], but waits park the coroutine.
#![forbid(unsafe_code)]

mod datagram;
mod listener;
mod stream;
mod turn;

pub use ::std::os::unix::net::*;

pub use datagram::UnixDatagram;
pub use listener::{Incoming, UnixListener};
pub use stream::UnixStream;
