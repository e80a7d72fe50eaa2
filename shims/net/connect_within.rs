//! Connecting within a time limit that covers name resolution and all addresses.
#![forbid(unsafe_code)]

use std::io;
use std::time::{Duration, Instant};

use super::{TcpStream, ToSocketAddrs, no_address, timed_out};
use crate::park::is_error_of_interrupt;

/// The least time that each address gets while time is left: enough for several round trips.
const SHARE_AT_LEAST: Duration = Duration::from_secs(2);

/// [`TcpStream::connect`] with a limit on the time it takes.
///
/// ```no_run
/// use greenroom::ConnectWithin;
/// use greenroom::shims as std;
/// use std::net::TcpStream;
/// use std::time::Duration;
///
/// let stream = TcpStream::connect_within("example.org:80", Duration::from_secs(5))?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait ConnectWithin: Sized + private::Sealed {
    /// Resolves `addr` and connects to the first of its addresses that accepts, within `timeout` in
    /// all.
    ///
    /// An address that does not answer leaves time for the following addresses: each address gets an
    /// even share of the time that is left, but at least two seconds.
    ///
    /// The limit covers name resolution for all types that implement [`ToSocketAddrs`] in this crate. An
    /// implementation of the caller's takes as long as it takes.
    ///
    /// # Errors
    ///
    /// `TimedOut` when the time is over. If a name is being resolved then, the resolver finishes in the
    /// background. `InvalidInput` for a timeout of zero. Otherwise the errors of
    /// [`TcpStream::connect`]: the resolver's, or the error of the last address.
    fn connect_within<A: ToSocketAddrs>(addr: A, timeout: Duration) -> io::Result<Self>;
}

impl ConnectWithin for TcpStream {
    fn connect_within<A: ToSocketAddrs>(addr: A, timeout: Duration) -> io::Result<TcpStream> {
        if timeout.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "cannot set a 0 duration timeout",
            ));
        }
        // A deadline beyond the range of the clock means no deadline.
        let Some(deadline) = Instant::now().checked_add(timeout) else {
            return TcpStream::connect(addr);
        };
        let addrs: Vec<_> = addr.to_socket_addrs_until(Some(deadline))?.collect();
        let mut last = None;
        for (index, addr) in addrs.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(timed_out());
            }
            match TcpStream::connect_timeout(addr, share(left, addrs.len() - index)) {
                Ok(stream) => return Ok(stream),
                Err(error) if is_error_of_interrupt(&error) => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(no_address))
    }
}

/// The share of the time `left` that the first of `addrs` remaining addresses gets.
fn share(left: Duration, addrs: usize) -> Duration {
    let even = left / u32::try_from(addrs).unwrap_or(u32::MAX);
    even.max(SHARE_AT_LEAST).min(left)
}

mod private {
    pub trait Sealed {}

    impl Sealed for super::TcpStream {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_shared_out_evenly_but_not_in_crumbs() {
        let secs = Duration::from_secs;
        assert_eq!(share(secs(30), 3), secs(10));
        assert_eq!(share(secs(20), 2), secs(10));
        assert_eq!(share(secs(10), 1), secs(10));
        assert_eq!(share(secs(5), 5), secs(2));
        assert_eq!(share(secs(1), 5), secs(1));
    }
}
