//! [`std::os::linux::net`], for the types of the shims.
#![forbid(unsafe_code)]

use std::io;

use rustix::net::sockopt;

use crate::shims::net::TcpStream;

pub use ::std::os::linux::net::*;

/// Like [`std::os::linux::net::TcpStreamExt`], which only std can implement, but for the
/// [`TcpStream`] of the shims.
pub trait TcpStreamExt: sealed::Sealed {
    /// Like [`std::os::linux::net::TcpStreamExt::set_quickack`].
    fn set_quickack(&self, quickack: bool) -> io::Result<()>;

    /// Like [`std::os::linux::net::TcpStreamExt::quickack`].
    fn quickack(&self) -> io::Result<bool>;
}

impl TcpStreamExt for TcpStream {
    fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        Ok(sockopt::set_tcp_quickack(self.as_std(), quickack)?)
    }

    fn quickack(&self) -> io::Result<bool> {
        Ok(sockopt::tcp_quickack(self.as_std())?)
    }
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for crate::shims::net::TcpStream {}
}
