//! A connection, from its handler's first turn to its close.
#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::SocketAddr;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::stopping::{Enlisted, Stopping};
use super::{End, Event, Listener, Shared, Stream, count};
use crate::interrupt::deadline::Deadline;
use crate::interrupt::timeout::{timeout, timeout_at};
use crate::park::{self, Cancelled, Elapsed};
use crate::runtime::join::unjoined;
use crate::shims::net::TcpStream;

/// How long a connection waits for its client to close, where a close would lose what is on its way.
const LINGER: Duration = Duration::from_secs(1);

/// How long after a client has connected its first request is waited for, although the server stops. Go's
/// `http.Server` waits for as long.
const FRESH: Duration = Duration::from_secs(5);

/// A connection of a [`Server`](super::Server), as its handler sees it.
///
/// It dereferences to the stream, and can be read and written like a reference to the stream. The server
/// closes it when the handler returns.
///
/// # The close
///
/// A kernel that closes a TCP connection with unread input resets it, and drops what it has yet to send. So if
/// the client has sent something that the handler has not read, or if the server stops, the server first ends
/// the output, and drops what the client still sends until the client closes, for a second at most. It
/// does not do so after an interrupt or a panic.
pub struct Connection<S: Stream = TcpStream> {
    stream: Arc<S>,
    peer: Option<SocketAddr>,
    accepted: Instant,
    stopping: Arc<Stopping<S>>,
    /// Whether the first request was waited for.
    has_waited: AtomicBool,
    /// Set by the first wait that a stop ends.
    enlisted: OnceLock<Enlisted<S>>,
}

impl<S: Stream> Connection<S> {
    /// The address of the client. `None` on a Unix socket.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Whether the server stops. A handler should then end soon: no further request should be awaited.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.has_begun()
    }

    /// Waits until the client has sent something, or has closed. Returns false if the server stops, and the
    /// client has sent nothing.
    ///
    /// For a handler that serves one request after the other. Without this, a handler that waits for a next
    /// request would keep [`stop`](super::Server::stop) waiting for its grace period. A client that has just
    /// connected is about to send its first request, so a stop does not end the first wait until the connection
    /// is five seconds old.
    ///
    /// ```
    /// use greenroom::server::Connection;
    /// use std::io::{self, BufRead, BufReader, Write};
    ///
    /// fn handle(mut connection: &Connection) -> io::Result<()> {
    ///     let mut reader = BufReader::new(connection);
    ///     let mut line = String::new();
    ///     while !reader.buffer().is_empty() || connection.wait_for_request()? {
    ///         line.clear();
    ///         if reader.read_line(&mut line)? == 0 {
    ///             break;
    ///         }
    ///         connection.write_all(line.to_uppercase().as_bytes())?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// Off a coroutine, this does not hear of a stop.
    ///
    /// # Errors
    ///
    /// Those of a read. `WouldBlock`, if the stream's read timeout has passed.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn wait_for_request(&self) -> io::Result<bool> {
        self.unless_stopped(|give_up| self.stream.wait_for_input(give_up))
    }

    /// Reads what the client sends next into `buf`. Returns how many bytes that are, 0 if the client has
    /// closed, or `None` if the server stops, and the client has sent nothing.
    ///
    /// This is [`wait_for_request`](Connection::wait_for_request) and a read, in one system call instead of two.
    ///
    /// Off a coroutine, this does not hear of a stop.
    ///
    /// # Errors
    ///
    /// Those of a read. `WouldBlock`, if the stream's read timeout has passed.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    #[inline]
    pub fn read_request(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        self.unless_stopped(|give_up| self.stream.read_unless(buf, give_up))
    }

    /// Waits for a request by `wait`, which gives up as soon as its argument returns true.
    #[inline]
    fn unless_stopped<R>(
        &self,
        mut wait: impl FnMut(&dyn Fn() -> bool) -> io::Result<R>,
    ) -> io::Result<R> {
        if !self.has_waited.load(Ordering::Relaxed)
            && let Some(waited) = self.wait_first(&mut wait)
        {
            return waited;
        }
        self.enlisted
            .get_or_init(|| self.stopping.enlist(&self.stream));
        wait(&|| self.is_stopping())
    }

    /// Waits for the first request, which is under way. `None`, if it takes too long.
    #[cold]
    fn wait_first<R>(
        &self,
        wait: &mut dyn FnMut(&dyn Fn() -> bool) -> io::Result<R>,
    ) -> Option<io::Result<R>> {
        if self.has_waited.swap(true, Ordering::Relaxed) {
            return None;
        }
        let fresh = self.accepted.checked_add(FRESH);
        let fresh = fresh.map_or(Deadline::NEVER, Deadline::at);
        match timeout_at(fresh, || wait(&|| false)) {
            Err(Elapsed) => None,
            Ok(Err(error)) if is_elapsed(&error) => None,
            Ok(waited) => Some(waited),
        }
    }

    /// Keeps a close from cutting off what is on its way to the client.
    fn linger(&self) {
        if !self.is_stopping() && !self.stream.has_input() {
            return;
        }
        if self.stream.end_output().is_err() {
            // The connection is gone.
            return;
        }
        let mut dropped = [0; 4096];
        let _ = timeout(LINGER, || {
            while matches!(self.stream.io().read(&mut dropped), Ok(1..)) {}
        });
    }
}

impl<S: Stream> Deref for Connection<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.stream
    }
}

impl<S: Stream> Read for &Connection<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.io().read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.stream.io().read_vectored(bufs)
    }
}

impl<S: Stream> Write for &Connection<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.io().write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.stream.io().write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.io().flush()
    }
}

impl<S: Stream> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("stream", &self.stream)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// How a handler has ended.
enum Outcome {
    Returned(io::Result<()>),
    TimedOut,
    Unwound(Box<dyn Any + Send>),
}

/// A connection whose handler was not called yet. If this is dropped instead, because the connection's coroutine was
/// cancelled or finds no stack on its first turn, the log is told.
pub(super) struct Accepted<L: Listener> {
    shared: Arc<Shared<L>>,
    /// `None` once the connection is served.
    stream: Option<Arc<L::Stream>>,
    peer: Option<SocketAddr>,
    at: Instant,
}

impl<L: Listener> Accepted<L> {
    /// A connection that was just accepted.
    pub(super) fn new(
        shared: &Arc<Shared<L>>,
        stream: L::Stream,
        peer: Option<SocketAddr>,
    ) -> Accepted<L> {
        Accepted {
            shared: Arc::clone(shared),
            stream: Some(Arc::new(stream)),
            peer,
            at: Instant::now(),
        }
    }

    /// Serves the connection: the body of its coroutine.
    pub(super) fn serve(mut self) {
        if let Some(stream) = self.stream.take() {
            self.shared.serve(stream, self.peer, self.at);
        }
    }
}

impl<L: Listener> Drop for Accepted<L> {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            let shared = &self.shared;
            count(&shared.counts.ended);
            shared.close(stream);
            shared.tell_end(self.peer, self.at, &Outcome::Unwound(Box::new(Cancelled)));
        }
    }
}

impl<L: Listener> Shared<L> {
    /// Serves one connection.
    fn serve(&self, stream: Arc<L::Stream>, peer: Option<SocketAddr>, accepted: Instant) {
        let connection = Connection {
            stream,
            peer,
            accepted,
            stopping: Arc::clone(&self.stopping),
            has_waited: AtomicBool::new(false),
            enlisted: OnceLock::new(),
        };
        let outcome = self.handle(&connection, accepted);
        count(&self.counts.ended);
        // An interrupt of this does not change how the handler has ended.
        let lingered = match outcome {
            Outcome::Returned(_) => catch_unwind(AssertUnwindSafe(|| connection.linger())),
            _ => Ok(()),
        };
        self.close(connection);
        self.tell_end(peer, accepted, &outcome);
        let unwound = match outcome {
            Outcome::Unwound(payload) => Some(payload),
            _ => lingered.err(),
        };
        match unwound {
            Some(payload) if park::is_interrupt(&*payload) => resume_unwind(payload),
            Some(payload) => unjoined::report_caught(payload),
            None => {}
        }
    }

    /// Closes a connection.
    fn close<C>(&self, connection: C) {
        drop(connection);
        if !self.freed.is_set() {
            self.freed.set();
        }
    }

    /// Calls the handler.
    fn handle(&self, connection: &Connection<L::Stream>, accepted: Instant) -> Outcome {
        let deadline = self.settings.deadline;
        let deadline = deadline.and_then(|deadline| accepted.checked_add(deadline));
        let deadline = deadline.map_or(Deadline::NEVER, Deadline::at);
        // What the handler leaves behind is the handler's: the server has only counts.
        let handled = catch_unwind(AssertUnwindSafe(|| {
            match timeout_at(deadline, || (self.handler)(connection)) {
                Ok(Err(error)) if is_elapsed(&error) && deadline.has_passed() => Outcome::TimedOut,
                Ok(returned) => Outcome::Returned(returned),
                Err(Elapsed) => Outcome::TimedOut,
            }
        }));
        handled.unwrap_or_else(Outcome::Unwound)
    }

    /// Counts how a connection has ended, and tells the log.
    fn tell_end(&self, peer: Option<SocketAddr>, accepted: Instant, outcome: &Outcome) {
        let tell = |end| {
            self.tell(Event::Ended {
                peer,
                end,
                lasted: accepted.elapsed(),
            });
        };
        match outcome {
            Outcome::Returned(Ok(())) => tell(End::Done),
            Outcome::Returned(Err(error)) => {
                count(&self.counts.failed);
                tell(End::Failed(error));
            }
            Outcome::TimedOut => {
                count(&self.counts.timed_out);
                tell(End::TimedOut);
            }
            Outcome::Unwound(payload) if park::is_interrupt(&**payload) => {
                count(&self.counts.cancelled);
                tell(End::Cancelled);
            }
            Outcome::Unwound(_) => {
                count(&self.counts.panicked);
                tell(End::Panicked);
            }
        }
    }
}

/// Whether this is the error of a timeout that is delivered as an error.
fn is_elapsed(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Elapsed>())
}
