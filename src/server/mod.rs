//! Servers: a coroutine for each connection, limits, and an end that loses nothing.
//!
//! [`Server`] accepts connections and calls a handler for each. It knows what a loop over
//! [`incoming`](crate::shims::net::TcpListener::incoming) does not: how many connections there are, when
//! to stop accepting, what to do when descriptors run out, and how to end.
//!
//! ```
//! use greenroom::server::Server;
//! use greenroom::shims::net::{TcpListener, TcpStream};
//! use std::io::{self, Read, Write};
//! use std::net::Shutdown;
//! use std::time::Duration;
//!
//! # fn main() -> io::Result<()> {
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let server = Server::builder()
//!     .limit(1000)
//!     .deadline(Duration::from_secs(30))
//!     .serve(listener, |mut connection| {
//!         let mut text = String::new();
//!         connection.read_to_string(&mut text)?;
//!         connection.write_all(text.to_uppercase().as_bytes())
//!     })?;
//!
//! let mut client = TcpStream::connect(server.local_addr())?;
//! client.write_all(b"hello")?;
//! client.shutdown(Shutdown::Write)?;
//! let mut answer = String::new();
//! client.read_to_string(&mut answer)?;
//! assert_eq!(answer, "HELLO");
//!
//! server.stop(Duration::from_secs(10));
//! # Ok(())
//! # }
//! ```
//!
//! [The guide to servers](crate::guide::servers) has a complete program.

mod accept;
mod connection;
mod event;
mod hand_over;
mod listener;
mod stopping;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::diagnose::unjoined::call_uninterrupted;
use crate::group::Group;
use crate::interrupt::deadline::Deadline;
use crate::runtime::join::Canceller;
use crate::runtime::spawn::Builder;
use crate::shims::net::TcpListener;
use crate::sync::{Event as Flag, ValueEvent};
use crate::task;
use crate::worker::Scheduler;
use accept::Acceptor;
use stopping::Stopping;

pub use connection::Connection;
pub use event::{End, Event};
pub use hand_over::{ListenFd, hand_over, listen_fds};
pub use listener::{Listener, Stream};

/// How long a cancelled handler has to unwind before [`Server::stop`] returns without waiting for it any
/// longer.
const UNWIND: Duration = Duration::from_secs(1);

/// A listener and the coroutines that serve its connections.
///
/// [`Server::serve`] starts one with the default settings, [`Server::builder`] with others.
///
/// # Connections
///
/// The handler is called for each connection in a coroutine of its own. It borrows the connection, which the
/// server closes when the handler returns. What was written is then still sent. If the handler returns an error
/// or panics, that ends this connection and no other. A panic is printed, goes to the
/// [hook for panics that nobody joins](crate::set_unjoined_hook), and is counted.
///
/// With a [limit](ServerBuilder::limit), the server does not accept more connections than it serves. Further
/// connections wait in the backlog of the listener, where the kernel keeps them, and are served in
/// order.
///
/// A [deadline](ServerBuilder::deadline) ends a handler that waits, as [`timeout`](crate::timeout) does.
///
/// # Failures to accept
///
/// The errors of one connection (such as `ECONNABORTED`) do not end a server. If descriptors or memory run
/// out (`EMFILE`, `ENFILE`, `ENOMEM`, `ENOBUFS`), connections stay in the backlog. The server pauses for
/// 10 ms, each next time twice as long, up to a second. It goes on earlier if one of its own connections
/// ends. It also pauses if no stack can be reserved for the coroutine of a next connection. Only an error that says that the
/// listener does not listen (`EBADF`, `EINVAL`, `ENOTSOCK`, or `EOPNOTSUPP` of a socket that does not listen)
/// stops the server. [`wait`](Server::wait) returns that error.
///
/// # Workers
///
/// One coroutine accepts, whatever the number of workers. The workers take the connections from it like other
/// coroutines that have not started.
///
/// # The end of a server
///
/// [`stop`](Server::stop) stops accepting, waits for the handlers, and cancels those that need longer than the
/// grace period.
///
/// The listening socket is closed when the server stops. The kernel then resets the connections in its backlog,
/// which no program has seen. They are not lost if another process has the socket, too, and accepts from it:
/// see [`hand_over`].
///
/// Dropping a server stops it without a grace period: the handlers are cancelled, and the drop does not wait
/// for them. [`detach`](Server::detach) leaves the server running for as long as its runtime.
///
/// The path of a Unix listener is not removed, because a successor may be listening there.
#[must_use = "dropping a server stops it"]
pub struct Server<L: Listener = TcpListener> {
    shared: Arc<Shared<L>>,
    local_addr: L::Addr,
    acceptor: Canceller,
    /// The server was detached, so that its drop does not stop it.
    detached: bool,
}

impl Server {
    /// Settings for a server, which begin with the defaults.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }
}

impl<L: Listener> Server<L> {
    /// Accepts the connections of `listener`, and calls `handler` with each in a coroutine of its own. There
    /// are no limits.
    ///
    /// # Errors
    ///
    /// Those of [`ServerBuilder::serve`].
    pub fn serve<F>(listener: L, handler: F) -> io::Result<Server<L>>
    where
        F: Fn(&Connection<L::Stream>) -> io::Result<()> + Send + Sync + 'static,
    {
        Server::builder().serve(listener, handler)
    }

    /// The address that the server listens on.
    pub fn local_addr(&self) -> &L::Addr {
        &self.local_addr
    }

    /// Another descriptor of the listening socket, to be passed on to another process.
    ///
    /// The kernel keeps the socket and its backlog until all of its descriptors are closed.
    ///
    /// # Errors
    ///
    /// `NotConnected`, if the server has stopped accepting. Otherwise the operating system's, such as that
    /// no descriptor can be had.
    pub fn listener(&self) -> io::Result<L> {
        let listener = task::lock_aside(&self.shared.listener).clone();
        match listener {
            Some(listener) => listener.duplicate(),
            None => Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the server has stopped accepting",
            )),
        }
    }

    /// Stops the server. Returns how many handlers were cancelled.
    ///
    /// 1. The server stops accepting, and closes its descriptor of the listening socket.
    /// 2. Handlers that wait in [`Connection::wait_for_request`] are told to end.
    /// 3. Handlers that run have `grace` to end. What they write is not cut short: this includes what the
    ///    kernel has yet to send after the handler has returned.
    /// 4. The handlers that are left are cancelled. They have a second to unwind. A handler that waits
    ///    for a lock or computes may run on after that. Connections that are left, of handlers that have
    ///    returned, are closed.
    ///
    /// Stopping a server that has stopped returns at once, with zero. If several callers stop it at the
    /// same time, each waits, and the shortest grace period counts.
    ///
    /// # Panics
    ///
    /// If the caller is a handler of this server, which would wait for itself.
    ///
    /// # Unwinding
    ///
    /// An interruption point. The server then still stops accepting, and the handlers run on.
    pub fn stop(&self, grace: Duration) -> usize {
        let shared = &self.shared;
        assert!(
            !shared.group.includes_caller(),
            "a handler cannot wait for the end of its own server"
        );
        let deadline = Deadline::after(grace);
        self.begin_to_stop();
        // A connection that was just accepted is served, too.
        shared.ended.wait_timeout(grace.max(UNWIND));
        if shared.group.join_timeout(deadline.remaining()).is_some() {
            return 0;
        }
        let cancelled = shared.counts.handlers();
        shared.cancelled.store(true, Ordering::SeqCst);
        shared.group.cancel_wait(UNWIND);
        cancelled
    }

    /// Waits until the server has stopped: it does not accept any more, and all handlers have ended.
    ///
    /// # Errors
    ///
    /// The error of the listener, if that has ended the accepting. `OutOfMemory`, if no stack could be had for the
    /// coroutine that was to accept.
    ///
    /// # Panics
    ///
    /// If the caller is a handler of this server.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn wait(&self) -> io::Result<()> {
        let ended = self.shared.ended.wait();
        // The panics of handlers are reported one by one, so there is none to return.
        let _ = self.shared.group.join();
        match ended {
            Some(code) => Err(io::Error::from_raw_os_error(*code)),
            None => Ok(()),
        }
    }

    /// What the server has done so far.
    pub fn stats(&self) -> ServerStats {
        self.shared.stats()
    }

    /// Leaves the server running without this handle, until its runtime ends.
    pub fn detach(mut self) {
        self.detached = true;
    }

    /// Stops accepting, and has waiting handlers end.
    fn begin_to_stop(&self) {
        self.shared.begin_to_stop();
        self.acceptor.cancel();
    }
}

impl<L: Listener> Drop for Server<L> {
    fn drop(&mut self) {
        if !self.detached {
            self.begin_to_stop();
            self.shared.cancelled.store(true, Ordering::SeqCst);
            self.shared.group.cancel();
        }
    }
}

impl<L: Listener> fmt::Debug for Server<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("local_addr", &self.local_addr)
            .field("stopping", &self.shared.stopping.has_begun())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// What a server has done so far. See [`Server::stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Connections that were accepted.
    pub accepted: u64,
    /// Connections that are being served.
    pub active: usize,
    /// How often the server has stopped accepting because it had as many connections as its limit.
    pub limit_waits: u64,
    /// How often an accept has failed, or no stack could be had for the coroutine of a next connection.
    pub accept_failures: u64,
    /// Handlers that have returned an error.
    pub failed: u64,
    /// Handlers that have panicked.
    pub panicked: u64,
    /// Handlers that were interrupted by their deadline.
    pub timed_out: u64,
    /// Handlers that were cancelled by the end of the server or of the runtime, or were not called at all. See
    /// [`End::Cancelled`].
    pub cancelled: u64,
}

/// The settings of a [`Server`].
#[derive(Default)]
#[must_use = "settings do nothing until `serve`"]
pub struct ServerBuilder {
    name: Option<String>,
    limit: Option<usize>,
    deadline: Option<Duration>,
    stack_size: Option<usize>,
    log: Option<Box<Log>>,
}

type Log = dyn Fn(&Event<'_>) + Send + Sync;

impl ServerBuilder {
    /// Names the coroutines of the server, for messages about panics and the like.
    pub fn name(mut self, name: &str) -> ServerBuilder {
        self.name = Some(name.into());
        self
    }

    /// Sets how many connections are served at the same time. Without this, any number is.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    pub fn limit(mut self, limit: usize) -> ServerBuilder {
        assert!(limit > 0, "a server without connections");
        self.limit = Some(limit);
        self
    }

    /// Sets how long a connection may last. Without this, it may last for ever.
    ///
    /// When the time has passed, a handler that waits is interrupted in the way of
    /// [`timeout`](crate::timeout), and the connection is closed.
    pub fn deadline(mut self, deadline: Duration) -> ServerBuilder {
        self.deadline = Some(deadline);
        self
    }

    /// Sets the usable stack size of the handlers in bytes. See
    /// [`Builder::stack_size`](crate::Builder::stack_size).
    pub fn stack_size(mut self, size: usize) -> ServerBuilder {
        self.stack_size = Some(size);
        self
    }

    /// Has `log` called at the end of each connection and at each failure to accept.
    ///
    /// The end of a connection is told by its coroutine, after the connection was closed. While `log` waits for
    /// something, the connection still counts for the limit. Neither a cancellation nor a timeout
    /// interrupts `log`. A panic of `log` itself ends there.
    ///
    /// If there is no stack for a connection's coroutine, the worker calls `log` itself, and a wait in `log` blocks
    /// that worker.
    pub fn log(mut self, log: impl Fn(&Event<'_>) + Send + Sync + 'static) -> ServerBuilder {
        self.log = Some(Box::new(log));
        self
    }

    /// Starts a server: accepts the connections of `listener`, and calls `handler` with each in a coroutine of
    /// its own.
    ///
    /// The coroutines belong to the runtime of the caller, or to the default runtime.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::spawn`](crate::Builder::spawn), and the operating system's if the listener's address
    /// cannot be had.
    pub fn serve<L, F>(self, listener: L, handler: F) -> io::Result<Server<L>>
    where
        L: Listener,
        F: Fn(&Connection<L::Stream>) -> io::Result<()> + Send + Sync + 'static,
    {
        let local_addr = listener.address()?;
        let listener = Arc::new(listener);
        let acceptor = self.name.as_deref().unwrap_or("server");
        let acceptor = Builder::new().name(format!("{acceptor} accept"));
        let shared = Arc::new(Shared {
            listener: Mutex::new(Some(Arc::clone(&listener))),
            group: self.limit.map_or_else(Group::new, Group::bounded),
            handler: Box::new(handler),
            settings: self,
            stopping: Arc::default(),
            cancelled: AtomicBool::new(false),
            ended: ValueEvent::new(),
            freed: Flag::new(),
            counts: Counts::default(),
        });
        let accepting = Acceptor::new(Arc::clone(&shared), listener);
        let acceptor = acceptor.spawn(move || accepting.run())?.canceller();
        Ok(Server {
            shared,
            local_addr,
            acceptor,
            detached: false,
        })
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("name", &self.name)
            .field("limit", &self.limit)
            .field("deadline", &self.deadline)
            .field("stack_size", &self.stack_size)
            .finish_non_exhaustive()
    }
}

/// What a server shares with its coroutines.
struct Shared<L: Listener> {
    /// `None` once the server has stopped accepting.
    listener: Mutex<Option<Arc<L>>>,
    group: Group,
    handler: Box<Handler<L::Stream>>,
    settings: ServerBuilder,
    stopping: Arc<Stopping<L::Stream>>,
    /// Handlers are cancelled, also those that have yet to start.
    cancelled: AtomicBool,
    /// Set when the acceptor has ended, with the error code, if an error was the reason.
    ended: ValueEvent<Option<i32>>,
    /// Set when a connection was closed. Cleared by the acceptor before it accepts.
    freed: Flag,
    counts: Counts,
}

type Handler<S> = dyn Fn(&Connection<S>) -> io::Result<()> + Send + Sync;

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    /// Handlers that have ended or will never be called.
    ended: AtomicU64,
    limit_waits: AtomicU64,
    accept_failures: AtomicU64,
    failed: AtomicU64,
    panicked: AtomicU64,
    timed_out: AtomicU64,
    cancelled: AtomicU64,
}

impl Counts {
    /// How many handlers have not ended, those that have yet to be called included.
    fn handlers(&self) -> usize {
        let ended = self.ended.load(Ordering::SeqCst);
        let handlers = self.accepted.load(Ordering::SeqCst).saturating_sub(ended);
        usize::try_from(handlers).unwrap_or(usize::MAX)
    }
}

/// Adds one to a count.
fn count(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

impl<L: Listener> Shared<L> {
    /// Closes the listener, and has handlers end that wait for a request.
    fn begin_to_stop(&self) {
        let listener = task::lock_aside(&self.listener).take();
        drop(listener);
        self.stopping.begin();
    }

    /// Calls the user's log. Neither interrupts nor panics of the log reach the caller.
    ///
    /// Not if the caller is left behind by its runtime: the log may wait for what no coroutine does any more.
    fn tell(&self, event: Event<'_>) {
        if let Some(log) = &self.settings.log
            && (task::on_coroutine() || Scheduler::of_lacking_stack().is_some())
        {
            call_uninterrupted(|| log(&event));
        }
    }

    fn stats(&self) -> ServerStats {
        let Counts {
            accepted,
            ended: _,
            limit_waits,
            accept_failures,
            failed,
            panicked,
            timed_out,
            cancelled,
        } = &self.counts;
        let now = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ServerStats {
            accepted: now(accepted),
            active: self.group.len(),
            limit_waits: now(limit_waits),
            accept_failures: now(accept_failures),
            failed: now(failed),
            panicked: now(panicked),
            timed_out: now(timed_out),
            cancelled: now(cancelled),
        }
    }
}
