//! TLS over coroutines' connections: what works, and a server.
//!
//! TLS libraries that read from and write to any stream need nothing of greenroom: give them a
//! [`TcpStream`] of the shims. A read that waits amid a handshake or a record parks the coroutine. These were tried,
//! as clients and as servers, with certificates made by the test, and stacks of the default size had room:
//!
//! | library | over the shims' streams |
//! |---|---|
//! | rustls 0.23, TLS 1.2 and 1.3 | works |
//! | native-tls 0.2 over OpenSSL 3 | works; a connection that was cut looks closed, as it does over std's streams |
//!
//! Under the patch, libraries that call `recv` themselves park, too: see [code you do not compile](super::foreign),
//! also for libcurl with OpenSSL.
//!
//! # A server
//!
//! With rustls. `tests/porting/tls` runs this code with a client that talks, and with one that never speaks.
//!
//! ```ignore
#![doc = include_str!("tls/server.rs")]
//! ```
//!
//! `examples/fetch` is a client, with the roots of the system.
//!
//! # Timeouts
//!
//! - **The handshake** waits for the peer several times. The socket's [`set_read_timeout`] limits each wait, so a
//!   client that sends a byte now and then holds the connection for ever. [`timeout`] around the handshake limits
//!   all of it. When the limit has passed, the unwind closes the connection.
//! - **Between messages**, use the socket's timeout. A read that has timed out fails with `WouldBlock`, as with std.
//!   The library keeps the part of a record that has arrived, and the next read goes on with it.
//! - **Amid a message**, [`timeout`] is for giving up: rustls and OpenSSL keep what has arrived, but
//!   [`write_all`] does not tell how much of the message it has handed over. Close the connection.
//!
//! # Ends
//!
//! - **`close_notify`** says that one side has no more to send. That side can still read. The reader of the other
//!   side gets 0 bytes, and can still write. Send it before you drop a stream: `conn.send_close_notify()` and a
//!   `flush` in rustls, `shutdown` in native-tls.
//! - **A cut**: if the TCP connection ends without `close_notify`, rustls reports `UnexpectedEof`. The last message may
//!   have been cut by anyone on the way, so do not take it for complete. native-tls over OpenSSL reports an end;
//!   a protocol on it has to know the lengths of its messages.
//! - **`shutdown(Shutdown::Write)`** of the TCP stream without `close_notify` is a cut.
//!
//! # Two directions at once
//!
//! A TLS stream is one value with one state, for both directions: it cannot be cloned as a `TcpStream` can. A
//! coroutine that waits in a read has it borrowed. Where each side sends when it likes, one coroutine can read with a
//! short timeout, and write in between.
//!
//! [`TcpStream`]: crate::shims::net::TcpStream
//! [`set_read_timeout`]: crate::shims::net::TcpStream::set_read_timeout
//! [`timeout`]: crate::timeout
//! [`write_all`]: std::io::Write::write_all
#![forbid(unsafe_code)]
