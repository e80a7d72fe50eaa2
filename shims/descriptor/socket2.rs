//! To and from the sockets of the crate socket2, as std's types have it.

use std::os::fd::OwnedFd;

use socket2::Socket;

use crate::shims::net::{TcpListener, TcpStream, UdpSocket};
use crate::shims::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

macro_rules! socket2_conversions {
    ($($shim:ident),*) => {$(
        /// Takes the socket over, in the mode and with the timeouts that it has. With the feature
        /// `socket2`.
        impl From<Socket> for $shim {
            fn from(socket: Socket) -> $shim {
                OwnedFd::from(socket).into()
            }
        }

        /// Gives it up, as to std. With the feature `socket2`.
        impl From<$shim> for Socket {
            fn from(shim: $shim) -> Socket {
                OwnedFd::from(shim).into()
            }
        }
    )*};
}

socket2_conversions!(
    TcpStream,
    TcpListener,
    UdpSocket,
    UnixStream,
    UnixListener,
    UnixDatagram
);
