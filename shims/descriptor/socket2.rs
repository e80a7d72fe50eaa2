//! Conversion to and from the sockets of the crate socket2, which std's types have, too.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use socket2::Socket;

use crate::shims::net::{TcpListener, TcpStream, UdpSocket};
use crate::shims::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

macro_rules! socket2_conversions {
    ($($shim:ident),*) => {$(
        /// Takes over the socket, with its mode and its timeouts. Needs the feature `socket2`.
        impl From<Socket> for $shim {
            fn from(socket: Socket) -> $shim {
                OwnedFd::from(socket).into()
            }
        }

        /// Gives the socket up, with the mode and the timeouts that the user has set. Needs the
        /// feature `socket2`.
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
