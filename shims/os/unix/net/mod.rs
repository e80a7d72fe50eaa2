//! [`std::os::unix::net`], where what waits parks the coroutine.

mod datagram;
mod listener;
mod stream;
mod turn;

pub use ::std::os::unix::net::*;

pub use datagram::UnixDatagram;
pub use listener::{Incoming, UnixListener};
pub use stream::UnixStream;
