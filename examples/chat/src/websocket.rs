//! A WebSocket that one coroutine reads and one writes.
//!
//! ```text
//!  client ──▶ reader ───▶ handler ──▶ the handlers of others
//!                │           │                 │
//!                │ pong      │ message         │ message
//!                ▼           ▼                 ▼
//!  client ◀── writer ◀───────── queue ──────────
//! ```
//!
//! Only the writer writes to the connection, so that frames do not mix. tungstenite reads; what it writes while it
//! does so, such as the answer to a ping, goes into the queue as well. The frame that closes the conversation is
//! the last one that is written.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use greenroom::channel::{self, Receiver, Sender};
use greenroom::server::Connection;
use greenroom::shims::net::Shutdown;
use greenroom::sync::Event;
use greenroom::{scope, timeout};
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Bytes, Error, Message, WebSocket};

/// How long a client may take to receive a frame.
const STALL: Duration = Duration::from_secs(10);

/// How long a client may take to close its end, after the server has closed the conversation.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

const READ_BUFFER: usize = 4 << 10;

pub(crate) struct Limits {
    /// The longest message that a client may send, in bytes.
    pub(crate) message: usize,
    /// How many frames may wait for a client.
    pub(crate) queue: usize,
    /// How long a client may be silent before it gets a ping, and then how long the answer may take.
    pub(crate) ping: Duration,
}

/// Calls `talk` with what the client sends and the queue of what it gets. Returns when the connection has ended.
pub(crate) fn converse(
    connection: &Connection,
    received: &[u8],
    limits: &Limits,
    talk: impl FnOnce(&mut Messages, &Outbox),
) -> io::Result<()> {
    connection.set_read_timeout(Some(limits.ping))?;
    let (frames, queue) = channel::bounded(limits.queue);
    let is_slow = Arc::new(AtomicBool::new(false));
    let outbox = Outbox {
        frames,
        is_slow: Arc::clone(&is_slow),
    };
    let client_has_closed = Event::new();
    scope(|scope| {
        scope.spawn(|| {
            let written = write(connection, &queue, &is_slow);
            // Nobody need wait for room in it any longer.
            queue.close();
            if written.is_err() || !client_has_closed.wait_timeout(CLOSE_GRACE) {
                let _ = connection.shutdown(Shutdown::Both);
            }
        });
        let mut messages = Messages::new(connection, received, limits, outbox.clone());
        talk(&mut messages, &outbox);
        messages.close(CloseCode::Normal, "");
        let _ = io::copy(&mut &*connection, &mut io::sink());
        client_has_closed.set();
        drop(outbox);
    });
    Ok(())
}

/// Writes the frames of the queue, and then one that closes the conversation, unless there was one.
fn write(
    mut connection: &Connection,
    queue: &Receiver<Bytes>,
    is_slow: &AtomicBool,
) -> io::Result<()> {
    let mut write = |frame: &[u8]| timeout(STALL, || connection.write_all(frame))?;
    for frame in queue {
        write(&frame)?;
        if frame[0] & 0x0f == u8::from(OpCode::Control(Control::Close)) {
            return connection.shutdown(Shutdown::Write);
        }
    }
    let (code, reason) = match is_slow.load(Ordering::Relaxed) {
        true => (CloseCode::Policy, "too slow"),
        // The handler has panicked.
        false => (CloseCode::Error, ""),
    };
    let reason = reason.into();
    write(&bytes(Frame::close(Some(CloseFrame { code, reason }))))?;
    connection.shutdown(Shutdown::Write)
}

/// The queue of what a client gets.
#[derive(Clone)]
pub(crate) struct Outbox {
    frames: Sender<Bytes>,
    is_slow: Arc<AtomicBool>,
}

/// The conversation has ended.
pub(crate) struct Ended;

impl Outbox {
    /// Whether both are the queue of one client.
    pub(crate) fn is(&self, other: &Outbox) -> bool {
        self.frames.same_channel(&other.frames)
    }

    /// Queues a message. Waits while the queue is full.
    pub(crate) fn send(&self, message: Message) -> Result<(), Ended> {
        let (kind, data) = match message {
            Message::Binary(data) => (Data::Binary, data),
            other => (Data::Text, other.into_data()),
        };
        let frame = bytes(Frame::message(data, OpCode::Data(kind), true));
        self.frames.send(frame).map_err(|_| Ended)
    }

    /// Queues a frame that was made by [`text`]. If the queue is full, the client is too slow, and its
    /// conversation ends.
    pub(crate) fn offer(&self, frame: Bytes) -> Result<(), Ended> {
        let offered = self.frames.try_send(frame);
        offered.map_err(|error| {
            if matches!(error, channel::TrySendError::Full(_)) {
                self.is_slow.store(true, Ordering::Relaxed);
                self.frames.close();
            }
            Ended
        })
    }
}

/// A message as a frame, which any number of clients can get.
pub(crate) fn text(text: String) -> Bytes {
    bytes(Frame::message(text, OpCode::Data(Data::Text), true))
}

fn bytes(frame: Frame) -> Bytes {
    let mut bytes = Vec::with_capacity(frame.len());
    frame.format(&mut bytes).expect("a vector takes all");
    bytes.into()
}

/// What a client sends: its texts and binary messages, until the conversation ends.
pub(crate) struct Messages<'c> {
    socket: WebSocket<Duplex<'c>>,
    was_pinged: bool,
}

impl<'c> Messages<'c> {
    fn new(
        connection: &'c Connection,
        received: &[u8],
        limits: &Limits,
        outbox: Outbox,
    ) -> Messages<'c> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_frame_size(Some(limits.message))
            .max_message_size(Some(limits.message));
        let stream = Duplex { connection, outbox };
        let received = received.to_vec();
        Messages {
            socket: WebSocket::from_partially_read(stream, received, Role::Server, Some(config)),
            was_pinged: false,
        }
    }

    /// Ends the conversation, unless the client has ended it, which is then answered.
    pub(crate) fn close(&mut self, code: CloseCode, reason: &str) {
        let reason = reason.into();
        let _ = self.socket.close(Some(CloseFrame { code, reason }));
    }
}

impl Iterator for Messages<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        loop {
            if self.socket.get_ref().connection.is_stopping() {
                self.close(CloseCode::Away, "the server stops");
                return None;
            }
            let (code, reason) = match self.socket.read() {
                // The answer follows with `close`.
                Ok(Message::Close(_)) => return None,
                Ok(message) => {
                    self.was_pinged = false;
                    match message {
                        Message::Text(_) | Message::Binary(_) => return Some(message),
                        _ => continue,
                    }
                }
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    if self.was_pinged {
                        (CloseCode::Policy, "no answer to a ping".to_owned())
                    } else {
                        self.was_pinged = true;
                        let _ = self.socket.send(Message::Ping(Bytes::new()));
                        continue;
                    }
                }
                Err(Error::Io(error)) if error.kind() == ErrorKind::Interrupted => continue,
                Err(Error::Capacity(error)) => (CloseCode::Size, error.to_string()),
                Err(Error::Utf8(error)) => (CloseCode::Invalid, error),
                Err(Error::Protocol(error)) => (CloseCode::Protocol, error.to_string()),
                // The connection is gone.
                Err(_) => return None,
            };
            self.close(code, &reason);
            return None;
        }
    }
}

/// What tungstenite reads from and writes to.
struct Duplex<'c> {
    connection: &'c Connection,
    outbox: Outbox,
}

impl Read for Duplex<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.connection.read_request(buf)?;
        // Otherwise, the server stops.
        read.ok_or(ErrorKind::Interrupted.into())
    }
}

impl Write for Duplex<'_> {
    /// Queues a frame: without a buffer, tungstenite writes one at a time.
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        let queued = self.outbox.frames.send(Bytes::copy_from_slice(frame));
        queued.map_err(|_| ErrorKind::BrokenPipe)?;
        Ok(frame.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
