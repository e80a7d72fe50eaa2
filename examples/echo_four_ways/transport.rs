//! A connection as event-driven code sees it: writes and closes return at once, or as soon as there is room.

#![allow(
    dead_code,
    reason = "an echo needs a part; tests/examples/transports.rs uses the rest"
)]

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use greenroom::shims::net::{Shutdown, TcpStream};
use greenroom::sync::futex;
use greenroom::{Interest, SendQueue, select, timeout};

/// How many bytes a connection has waiting. Then it waits for its peer, like other code that writes.
const MOST_PENDING: usize = 64 * 1024;

/// How long the peer may go on sending after this side has ended, so that it gets everything rather than a reset.
const LINGER: Duration = Duration::from_secs(2);

pub(crate) struct Transport {
    stream: Shared,
    queue: SendQueue,
    /// 1 after `lose_connection`. Readers wait for that, too.
    closes: AtomicU32,
    aborted: AtomicBool,
}

impl Transport {
    pub(crate) fn new(stream: TcpStream) -> Transport {
        let stream = Shared(Arc::new(stream));
        Transport {
            queue: SendQueue::new(stream.clone(), MOST_PENDING),
            stream,
            closes: AtomicU32::new(0),
            aborted: AtomicBool::new(false),
        }
    }

    fn stream(&self) -> &TcpStream {
        &self.stream.0
    }

    fn closes(&self) -> bool {
        self.closes.load(Ordering::Relaxed) != 0
    }

    /// Sends the bytes, in order, after this returns. If that fails, reads fail, too.
    pub(crate) fn write(&self, bytes: &[u8]) {
        if !self.closes() {
            let _ = self.queue.send(bytes);
        }
    }

    /// Waits for bytes. Returns none when the peer has ended, or this side closes.
    pub(crate) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.wait_readable()?;
        match self.closes() {
            true => Ok(0),
            false => self.stream().read(buf),
        }
    }

    /// Waits until there is something to read, or until this side closes.
    pub(crate) fn wait_readable(&self) -> io::Result<()> {
        select! {
            futex(&self.closes, 0) -> _ => Ok(()),
            ready(self.stream(), Interest::READABLE) -> ready => ready.map(drop),
        }
    }

    /// Ends the connection as soon as everything has been sent.
    pub(crate) fn lose_connection(&self) {
        self.closes.store(1, Ordering::Relaxed);
        futex::wake(&self.closes, usize::MAX);
    }

    /// Sends everything, and then the end of the data. Goes on receiving.
    pub(crate) fn lose_write_connection(&self) {
        if self.queue.flush().is_ok() {
            let _ = self.stream().shutdown(Shutdown::Write);
        }
    }

    /// Resets the connection. What has not been sent is dropped.
    pub(crate) fn abort_connection(&self) {
        self.aborted.store(true, Ordering::Relaxed);
        let _ = rustix::net::connect_unspec(self.stream());
    }

    pub(crate) fn was_aborted(&self) -> bool {
        self.aborted.load(Ordering::Relaxed)
    }

    /// Sends everything, and then the end of the data. To be called before the transport is dropped: a close with
    /// unread bytes would be a reset, which drops what the peer has not received.
    pub(crate) fn end(&self) -> io::Result<()> {
        self.queue.flush()?;
        let _ = self.stream().shutdown(Shutdown::Write);
        let mut unread = self.stream();
        let _ = timeout(LINGER, || io::copy(&mut unread, &mut io::sink()));
        Ok(())
    }
}

/// A handle of the stream for the queue. It costs no second descriptor.
#[derive(Clone)]
struct Shared(Arc<TcpStream>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.as_ref().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
