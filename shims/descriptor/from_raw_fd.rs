//! Making a shim of a raw descriptor.

use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net as unix;
use std::{fs, io, net};

use crate::shims::fs::File;
use crate::shims::io::{PipeReader, PipeWriter};
use crate::shims::net::{TcpListener, TcpStream, UdpSocket};
use crate::shims::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

/// Implements `FromRawFd` for shims, where the std type implements it.
macro_rules! from_raw_fd {
    ($($shim:ident: $std:ty),* $(,)?) => {$(
        impl FromRawFd for $shim {
            unsafe fn from_raw_fd(fd: RawFd) -> $shim {
                // SAFETY: the contract of this function is that of std's: `fd` is open, and nothing
                // else owns `fd`.
                unsafe { <$std>::from_raw_fd(fd) }.into()
            }
        }
    )*};
}

from_raw_fd!(
    File: fs::File,
    PipeReader: io::PipeReader,
    PipeWriter: io::PipeWriter,
    TcpListener: net::TcpListener,
    TcpStream: net::TcpStream,
    UdpSocket: net::UdpSocket,
    UnixDatagram: unix::UnixDatagram,
    UnixListener: unix::UnixListener,
    UnixStream: unix::UnixStream,
);
