//! Servers: limits, timeouts, a log, and an end that loses nothing.
//!
//! A loop over [`incoming`] that spawns a coroutine for each connection is a server, and enough for a test.
//! What it lacks shows under load: it accepts more than it can serve, fails when descriptors run out, keeps
//! clients that send a byte a second, and ends in the middle of a reply. [`Server`] is the loop with these
//! things done.
//!
//! # A complete server
//!
//! This is `examples/server.rs`. CI restarts it a hundred times under load, and checks each byte of each reply.
//!
//! ```no_run
#![doc = include_str!("../../examples/server.rs")]
//! ```
//!
//! `examples/service` is a larger program, which can be deployed: it adds flags, logs with the connection and the
//! request in each line, metrics, and a page with a live plot.
//!
//! # Limits
//!
//! [`limit`] bounds what a server uses: descriptors, stacks, memory. When the limit is reached, the server
//! does not accept. Further clients wait in the *backlog*, in the kernel. Its length is set by
//! [`ListenOptions::backlog`], and capped by `net.core.somaxconn`. When the backlog is full, the kernel does not
//! answer, and clients try again by themselves.
//!
//! Choose a limit that is below the number of descriptors that the process may have (`ulimit -n`). If
//! descriptors run out nevertheless, the server pauses, goes on when connections end, and
//! tells the [log](#the-log).
//!
//! # Timeouts
//!
//! | against | use |
//! |---|---|
//! | clients that send a byte a second | [`timeout`] around the read of one request |
//! | clients that do not take the reply | [`timeout`] around the write, or `set_write_timeout` |
//! | connections that nobody uses | [`timeout`] around [`wait_for_request`] |
//! | all of these | [`deadline`], the longest life of a connection |
//!
//! A read timeout of the socket does not help against a slow client: it begins anew with each byte.
//!
//! # The log
//!
//! [`log`] sets a function that is called at the end of each connection, also if the handler was interrupted
//! or has panicked, and at each failure to accept. Its argument has a `Display` for a line in a log.
//! [`stats`] has the counts.
//!
//! # The end
//!
//! [`stop`] closes the listener, waits for the handlers, and cancels those that need longer than the grace
//! period. A reply that a handler has begun is sent to its end, if that is possible within the grace period.
//!
//! Handlers that serve several requests wait for the next one by [`wait_for_request`] or [`read_request`], which
//! a stop ends. They look at [`is_stopping`] to tell the client that the connection ends. A client of HTTP may
//! send its next request at the very moment when the server closes. It then sees the end of the connection
//! instead of a reply, and sends the request again. It has to be prepared for that with any server.
//!
//! What waits in the backlog when the listener is closed is reset by the kernel. So a restart hands the listener over:
//!
//! 1. The old process starts the new one, which inherits the listening socket: [`hand_over`].
//! 2. The new process takes the socket by [`listen_fds`], and says when it is ready. From now on, both accept.
//! 3. The old process stops. It closes its descriptor; the socket and its backlog are the new process's.
//!
//! Under systemd, a socket unit does this without code: `listen_fds` takes the socket that systemd
//! has made, which stays open while the service restarts.
//!
//! # Several workers
//!
//! One coroutine accepts for all workers. It was measured beside two listeners of the same port
//! (`SO_REUSEPORT`), with two workers and short connections: 28 µs of CPU time for each connection against 33. And
//! what waits in the backlog of one of several listeners is lost when that is closed, although the others
//! live on.
//!
//! [`ListenOptions::backlog`]: crate::ListenOptions::backlog
//! [`Server`]: crate::server::Server
//! [`deadline`]: crate::server::ServerBuilder::deadline
//! [`hand_over`]: crate::server::hand_over
//! [`incoming`]: crate::shims::net::TcpListener::incoming
//! [`is_stopping`]: crate::server::Connection::is_stopping
//! [`limit`]: crate::server::ServerBuilder::limit
//! [`listen_fds`]: crate::server::listen_fds
//! [`log`]: crate::server::ServerBuilder::log
//! [`read_request`]: crate::server::Connection::read_request
//! [`stats`]: crate::server::Server::stats
//! [`stop`]: crate::server::Server::stop
//! [`timeout`]: crate::timeout()
//! [`wait_for_request`]: crate::server::Connection::wait_for_request
#![forbid(unsafe_code)]
