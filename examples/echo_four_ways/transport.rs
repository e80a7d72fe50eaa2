//! A connection as event-driven code sees it: writes and closes return at once, or as soon as there is room.

#![allow(
    dead_code,
    reason = "an echo needs a part; tests/examples/transports.rs uses the rest"
)]

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use greenroom::shims::net::{Shutdown, TcpListener, TcpStream};
use greenroom::shims::thread;
use greenroom::{Builder, SendQueue};

/// How many bytes a connection has waiting. Then it waits for its peer, like other code that writes.
const MOST_PENDING: usize = 64 * 1024;

pub(crate) struct Transport {
    stream: Shared,
    queue: SendQueue,
    closes: AtomicBool,
    aborted: AtomicBool,
}

impl Transport {
    pub(crate) fn new(stream: TcpStream) -> Transport {
        let stream = Shared(Arc::new(stream));
        Transport {
            queue: SendQueue::new(stream.clone(), MOST_PENDING),
            stream,
            closes: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream.0
    }

    /// Sends the bytes, in order, after this returns. If that fails, reads fail, too.
    pub(crate) fn write(&self, bytes: &[u8]) {
        if !self.closes.load(Ordering::Relaxed) {
            let _ = self.queue.send(bytes);
        }
    }

    /// Waits for bytes. Returns none when the peer has ended, or this side closes.
    pub(crate) fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self.closes.load(Ordering::Relaxed) {
            true => Ok(0),
            false => self.stream().read(buf),
        }
    }

    /// Ends the connection as soon as everything has been sent.
    pub(crate) fn lose_connection(&self) {
        self.closes.store(true, Ordering::Relaxed);
        let _ = self.stream().shutdown(Shutdown::Read); // Wakes the reader.
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

    /// Waits until everything has been sent.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.queue.flush()
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

/// Calls `converse` with each client, on a coroutine of its own.
pub(crate) fn accept_each(
    listener: &TcpListener,
    converse: impl Fn(TcpStream, SocketAddr) + Send + Sync + 'static,
) {
    let converse = Arc::new(converse);
    loop {
        let accepted = listener.accept().and_then(|(stream, address)| {
            let converse = Arc::clone(&converse);
            Builder::new().spawn(move || converse(stream, address))
        });
        if let Err(error) = accepted {
            pause_after(&error);
        }
    }
}

/// After an accept that has failed. Mostly there are no descriptors left, until connections close.
pub(crate) fn pause_after(error: &io::Error) {
    eprintln!("cannot accept: {error}");
    thread::sleep(Duration::from_millis(20));
}
