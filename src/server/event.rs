//! What a server tells its log.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Something that has happened to a [`Server`](super::Server). See [`ServerBuilder::log`](super::ServerBuilder::log).
///
/// Its `Display` is a line for a log.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A connection has ended, and is closed.
    #[non_exhaustive]
    Ended {
        /// The address of the client. `None` on a Unix socket.
        peer: Option<SocketAddr>,
        /// How it has ended.
        end: End<'a>,
        /// How long the connection was there.
        lasted: Duration,
    },
    /// An accept has failed, or no stack can be had for the coroutine of a next connection.
    #[non_exhaustive]
    AcceptFailed {
        /// Why.
        error: &'a io::Error,
        /// How long the server pauses at most. Zero, if it tries the next connection. `None`, if it does not accept any
        /// more.
        pause: Option<Duration>,
    },
}

/// How a connection has ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum End<'a> {
    /// The handler has returned `Ok`.
    Done,
    /// The handler has returned this error.
    Failed(&'a io::Error),
    /// The deadline of the connection has passed.
    TimedOut,
    /// The handler has panicked.
    Panicked,
    /// The handler was cancelled, by the end of the server or of the runtime. Or it was not called at all: it was
    /// cancelled before its first turn, or no stack could be had then.
    Cancelled,
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Ended { peer, end, lasted } => {
                match peer {
                    Some(peer) => write!(f, "{peer}: ")?,
                    None => write!(f, "a client: ")?,
                }
                write!(f, "{end} after {lasted:.1?}")
            }
            Event::AcceptFailed { error, pause } => {
                write!(f, "accept: {error}")?;
                match pause {
                    Some(Duration::ZERO) => Ok(()),
                    Some(pause) => write!(f, "; waiting for {pause:?}"),
                    None => write!(f, "; accepting ends"),
                }
            }
        }
    }
}

impl fmt::Display for End<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Done => f.write_str("done"),
            End::Failed(error) => write!(f, "failed ({error})"),
            End::TimedOut => f.write_str("timed out"),
            End::Panicked => f.write_str("panicked"),
            End::Cancelled => f.write_str("cancelled"),
        }
    }
}
