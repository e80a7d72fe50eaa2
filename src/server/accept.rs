//! The loop that accepts.
//!
//! It waits for room and reserves a stack before it accepts, so that connections for which there is no room, or no
//! memory, stay in the kernel's backlog. Nothing here looks at intervals whether there is something to do: the
//! loop waits for room, for a connection, or, when descriptors or memory have run out, for one of its own
//! connections to end or for a pause to pass.
//!
//! Accepts are operations like any other: after 32 in one turn, the acceptor yields, so that connections
//! which come without end do not keep others from the worker.
//!
//! A stop cancels the loop. Where cancellations cannot unwind (`panic = "abort"`), they fail an accept, and end
//! no other wait; so the loop also asks whether the server stops each time it has waited.
//!
//! # One acceptor for all workers
//!
//! Measured with two workers and 64 clients that connect, exchange 64 bytes and close, in 9 interleaved
//! rounds on two busy cores:
//!
//! | | CPU time per connection | connections per second |
//! |---|---|---|
//! | one acceptor | 28.4 µs | 5,549 |
//! | two listeners with `SO_REUSEPORT`, an acceptor for each | 32.9 µs | 5,065 |
//! | two acceptors of one listener | 28.1 µs | 5,918 |
//!
//! So one acceptor is no bottleneck. Unlike listeners with `SO_REUSEPORT`, it has one backlog, which a
//! successor takes over as a whole.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::connection::Accepted;
use super::{Event, Listener, Shared, count};
use crate::group::Reserved;
use crate::park;
use crate::runtime::spawn::Builder;
use crate::worker::Scheduler;

/// Accepts the connections of a listener.
pub(super) struct Acceptor<L: Listener> {
    shared: Arc<Shared<L>>,
    listener: Option<Arc<L>>,
    /// Whether it has had its first turn.
    has_begun: bool,
    /// The error that has ended the accepting.
    error: Option<i32>,
}

impl<L: Listener> Acceptor<L> {
    pub(super) fn new(shared: Arc<Shared<L>>, listener: Arc<L>) -> Acceptor<L> {
        Acceptor {
            shared,
            listener: Some(listener),
            has_begun: false,
            error: None,
        }
    }

    /// Accepts until the server stops, or until the listener fails.
    pub(super) fn run(mut self) {
        self.has_begun = true;
        if let Some(listener) = &self.listener {
            self.error = self.shared.accept_all(&**listener);
        }
    }
}

impl<L: Listener> Drop for Acceptor<L> {
    fn drop(&mut self) {
        // The socket is closed before `stop` goes on.
        self.listener = None;
        let lacks_stack = || Scheduler::of_lacking_stack().is_some();
        if !self.has_begun && !self.shared.stopping.has_begun() && lacks_stack() {
            let error = io::Error::from_raw_os_error(libc::ENOMEM);
            self.shared.tell_failure(&error, None);
            self.error = error.raw_os_error();
        }
        // Also if the backdoor has cancelled this: nobody accepts any more.
        self.shared.begin_to_stop();
        // The server was dropped while this has spawned a handler.
        if self.shared.cancelled.load(Ordering::SeqCst) {
            self.shared.group.cancel();
        }
        let _ = self.shared.ended.set(self.error);
    }
}

impl<L: Listener> Shared<L> {
    /// Accepts connections, until the server stops or the listener fails for good. Returns the listener's
    /// error.
    fn accept_all(self: &Arc<Self>, listener: &L) -> Option<i32> {
        let mut pause = Pause::new();
        loop {
            let room = self.reserve();
            if self.stopping.has_begun() {
                return None;
            }
            // Before the attempts below, so that a pause ends if a connection has ended since.
            self.freed.clear();
            let builder = match self.builder().with_stack() {
                Ok(builder) => builder,
                Err(error) => {
                    self.pause(&error, &mut pause);
                    continue;
                }
            };
            match listener.accept_from() {
                Ok((stream, peer)) => {
                    pause.reset();
                    count(&self.counts.accepted);
                    let accepted = Accepted::new(self, stream, peer);
                    // A spawn that fails has told the log, by dropping the connection.
                    drop(room.spawn_with(builder, || accepted.serve()));
                }
                Err(error) => match Trouble::of(&error, listener) {
                    Trouble::Cancelled => return None,
                    Trouble::Mode => {
                        if let Err(error) = listener.wait_for_connection() {
                            self.pause(&error, &mut pause);
                        }
                    }
                    Trouble::OneConnection => self.tell_failure(&error, Some(Duration::ZERO)),
                    Trouble::Lack => self.pause(&error, &mut pause),
                    Trouble::Listener => {
                        self.tell_failure(&error, None);
                        return error.raw_os_error();
                    }
                },
            }
        }
    }

    /// Waits until there is room for a connection.
    fn reserve(&self) -> Reserved<'_> {
        self.group.try_reserve().unwrap_or_else(|| {
            count(&self.counts.limit_waits);
            self.group.reserve()
        })
    }

    /// The settings of a connection's coroutine.
    fn builder(&self) -> Builder {
        let mut builder = Builder::new();
        if let Some(name) = &self.settings.name {
            builder = builder.name(name.clone());
        }
        match self.settings.stack_size {
            Some(size) => builder.stack_size(size),
            None => builder,
        }
    }

    /// Waits for a pause, or until a connection has ended since `freed` was cleared.
    fn pause(&self, error: &io::Error, pause: &mut Pause) {
        let pause = pause.next();
        self.tell_failure(error, Some(pause));
        self.freed.wait_timeout(pause);
    }

    fn tell_failure(&self, error: &io::Error, pause: Option<Duration>) {
        count(&self.counts.accept_failures);
        self.tell(Event::AcceptFailed { error, pause });
    }
}

/// What it means that an accept has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// The accept was cancelled.
    Cancelled,
    /// The listener is in non-blocking mode, or has a timeout.
    Mode,
    /// The next connection. Linux reports what has happened to a connection before it was accepted.
    OneConnection,
    /// The system lacks something, or the reason is not known. It may pass.
    Lack,
    /// The listener does not listen.
    Listener,
}

impl Trouble {
    fn of(error: &io::Error, listener: &impl Listener) -> Trouble {
        match error.raw_os_error() {
            _ if park::is_error_of_interrupt(error) => Trouble::Cancelled,
            Some(libc::EAGAIN) => Trouble::Mode,
            // Not only that of a connection: a socket of a type that does not listen has it each time.
            Some(libc::EOPNOTSUPP) if !listener.is_listening() => Trouble::Listener,
            // Those that accept(2) names.
            Some(
                libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::EINTR
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::EPROTO
                | libc::ETIMEDOUT,
            ) => Trouble::OneConnection,
            Some(libc::EBADF | libc::EINVAL | libc::ENOTSOCK) => Trouble::Listener,
            _ => Trouble::Lack,
        }
    }
}

/// How long to wait when something is lacking: each time twice as long, until it is there.
pub(super) struct Pause(Duration);

impl Pause {
    const SHORTEST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(1);

    pub(super) fn new() -> Pause {
        Pause(Pause::SHORTEST)
    }

    pub(super) fn reset(&mut self) {
        *self = Pause::new();
    }

    pub(super) fn next(&mut self) -> Duration {
        let next = self.0;
        self.0 = (2 * next).min(Pause::LONGEST);
        next
    }
}
