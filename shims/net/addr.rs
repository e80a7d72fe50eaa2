//! Resolving names to addresses.
#![forbid(unsafe_code)]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Instant;
use std::{iter, option, slice, vec};

use crate::pool::resolver;

/// Like [`std::net::ToSocketAddrs`], for the same types.
///
/// Names are resolved on the blocking pool, by the system's resolver or by the resolver that
/// [`set_resolver`](crate::set_resolver) has set. Literal addresses are parsed without the pool.
pub trait ToSocketAddrs {
    /// The iterator over the addresses.
    type Iter: Iterator<Item = SocketAddr>;

    /// Resolves `self` to addresses.
    ///
    /// # Errors
    ///
    /// The resolver's. `InvalidInput` for a string that is not of the form `host:port`.
    fn to_socket_addrs(&self) -> io::Result<Self::Iter>;

    /// Like `to_socket_addrs`, but types that wait for a resolver fail with `TimedOut` at `deadline`.
    #[doc(hidden)]
    fn to_socket_addrs_until(&self, deadline: Option<Instant>) -> io::Result<Self::Iter> {
        let _ = deadline;
        self.to_socket_addrs()
    }
}

/// Implements the trait for types that are addresses, which need no resolver.
macro_rules! is_an_address {
    ($($type:ty),*) => {$(
        impl ToSocketAddrs for $type {
            type Iter = option::IntoIter<SocketAddr>;

            fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
                ::std::net::ToSocketAddrs::to_socket_addrs(self)
            }
        }
    )*};
}

is_an_address!(
    SocketAddr,
    SocketAddrV4,
    SocketAddrV6,
    (IpAddr, u16),
    (Ipv4Addr, u16),
    (Ipv6Addr, u16)
);

/// Implements the trait for types that may be names, by [`LookUp`].
macro_rules! is_a_name {
    ($($type:ty),*) => {$(
        impl ToSocketAddrs for $type {
            type Iter = vec::IntoIter<SocketAddr>;

            fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
                self.to_socket_addrs_until(None)
            }

            fn to_socket_addrs_until(&self, deadline: Option<Instant>) -> io::Result<Self::Iter> {
                Ok(self.look_up(deadline)?.into_iter())
            }
        }
    )*};
}

is_a_name!((&str, u16), (String, u16), str, String);

/// A type that may be a name.
trait LookUp {
    /// Parses an address or resolves a name. Fails with `TimedOut` if that takes until `deadline`.
    fn look_up(&self, deadline: Option<Instant>) -> io::Result<Vec<SocketAddr>>;
}

impl LookUp for (&str, u16) {
    fn look_up(&self, deadline: Option<Instant>) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = *self;
        match host.parse::<IpAddr>() {
            Ok(ip) => Ok(vec![SocketAddr::new(ip, port)]),
            Err(_) => resolver::resolve(host, port, deadline),
        }
    }
}

impl LookUp for (String, u16) {
    fn look_up(&self, deadline: Option<Instant>) -> io::Result<Vec<SocketAddr>> {
        (&*self.0, self.1).look_up(deadline)
    }
}

impl LookUp for str {
    fn look_up(&self, deadline: Option<Instant>) -> io::Result<Vec<SocketAddr>> {
        if let Ok(addr) = self.parse() {
            return Ok(vec![addr]);
        }
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let (host, port) = self
            .rsplit_once(':')
            .ok_or_else(|| invalid("invalid socket address"))?;
        let port: u16 = port.parse().map_err(|_| invalid("invalid port value"))?;
        // `host` may still be a literal address: an IPv6 address without brackets.
        (host, port).look_up(deadline)
    }
}

impl LookUp for String {
    fn look_up(&self, deadline: Option<Instant>) -> io::Result<Vec<SocketAddr>> {
        self.as_str().look_up(deadline)
    }
}

impl<'a> ToSocketAddrs for &'a [SocketAddr] {
    type Iter = iter::Cloned<slice::Iter<'a, SocketAddr>>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        Ok(self.iter().cloned())
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    type Iter = T::Iter;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        (**self).to_socket_addrs()
    }

    fn to_socket_addrs_until(&self, deadline: Option<Instant>) -> io::Result<Self::Iter> {
        (**self).to_socket_addrs_until(deadline)
    }
}
