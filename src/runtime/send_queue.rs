//! Writing without waiting: a queue of bytes in front of a writer.
//!
//! # How it works
//!
//! A *send* takes a permit for each byte from a semaphore, so that it waits while too many bytes are queued,
//! in the order in which sends came. Then it puts the bytes into a channel. A *flush* puts a request there,
//! which the writing coroutine answers when everything before it has been written.
//!
//! The writing coroutine exists only while there is something to write. WRITING says so (`writing.rs`):
//!
//! ```text
//! sender:  put ; if WRITING was not set, set it and spawn the writing coroutine
//! writing: take all, write ; nothing left: clear WRITING ; look again, and set it again if there is
//!          something and nobody else has
//! ```
//!
//! If the sender finds WRITING set, then its item was put before WRITING was cleared, and the last look
//! comes after that. So no item stays in the channel.
//!
//! Whoever has set WRITING owns a [`Turn`], which the coroutine's closure takes along. A turn that does not
//! come to its end is dropped: the coroutine unwinds, was not spawned, or its runtime ends before it runs.
//! Such a turn fails the queue, and goes on as above, with another way to take all:
//!
//! ```text
//! dropped: note the failure ; give back the room of what was being written
//!          drop all, which gives back its room and answers flushes ; clear WRITING ; look again, as above
//! ```
//!
//! So nobody waits in vain. Senders that wait for room find it, and the failure, which was noted before.
//! A flush is either answered by the turn or finds WRITING clear; then it starts a turn of its own, which
//! finds no writer and drops all.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Mutex};

use super::spawn::Builder;
use super::writing::Writing;
use crate::channel::{Receiver, Sender, oneshot, unbounded};
use crate::context;
use crate::interrupt::shield::shield;
use crate::park::Cancelled;
use crate::sync::Semaphore;
use crate::sys::switches::own_lock;

/// A piece of work for the writing coroutine.
enum Item {
    Bytes(Vec<u8>),
    Flush(oneshot::Sender<io::Result<()>>),
}

/// A queue of bytes in front of a socket, or of anything else that is written to.
///
/// [`send`](SendQueue::send) queues the bytes and returns. A coroutine writes them, and merges what was
/// queued meanwhile into one write. So small sends cost few system calls, and a slow peer does not hold the
/// sender up, until the limit of queued bytes is reached: then senders wait.
///
/// Any number of tasks can send: clone the handle. The bytes of each send stay together, and are written in
/// the order of the sends.
///
/// ```
/// use greenroom::SendQueue;
/// use greenroom::shims::net::{TcpListener, TcpStream};
/// use std::io::Read;
///
/// # fn main() -> std::io::Result<()> {
/// greenroom::run(|| {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let queue = SendQueue::new(TcpStream::connect(listener.local_addr()?)?, 64 * 1024);
///     let (mut peer, _) = listener.accept()?;
///
///     for line in ["one\n", "two\n", "three\n"] {
///         queue.send(line.as_bytes())?; // does not wait for the peer
///     }
///     queue.close()?; // waits until all is written
///
///     let mut text = String::new();
///     peer.read_to_string(&mut text)?;
///     assert_eq!(text, "one\ntwo\nthree\n");
///     Ok(())
/// })
/// # }
/// ```
///
/// # Errors
///
/// If a write fails, what is queued is dropped, and so is the writer. The next send, and all later ones, fail
/// with that error, and so do flushes. It is the same if the writer panics, or if there is no memory for the
/// writing coroutine.
///
/// # The end
///
/// When the last handle is dropped, what is queued is still written, and then the writer is dropped. But like
/// other coroutines, the writing one ends when the runtime does, and the queue fails then. To be sure,
/// [`flush`](SendQueue::flush) or [`close`](SendQueue::close).
///
/// # Unwinding
///
/// All waits are interruption points. A send that unwinds has queued nothing.
#[derive(Clone)]
pub struct SendQueue {
    shared: Arc<Shared>,
    items: Sender<Item>,
}

struct Shared {
    /// One permit for each byte that may still be queued.
    room: Semaphore,
    limit: usize,
    writing: Writing,
    items: Receiver<Item>,
    /// `None` while a coroutine writes, and after a failure.
    writer: Mutex<Option<Box<dyn Write + Send>>>,
    failed: Mutex<Option<Failure>>,
}

/// What is kept of an error, to report it several times.
#[derive(Clone)]
struct Failure {
    code: Option<i32>,
    kind: io::ErrorKind,
    text: Arc<str>,
    is_cancellation: bool,
}

impl Failure {
    fn of(error: &io::Error) -> Failure {
        Failure {
            code: error.raw_os_error(),
            kind: error.kind(),
            text: error.to_string().into(),
            is_cancellation: error.get_ref().is_some_and(|error| error.is::<Cancelled>()),
        }
    }

    fn error(&self) -> io::Error {
        match self.code {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(self.kind, &*self.text),
        }
    }
}

impl SendQueue {
    /// Makes a queue in front of `writer`, for at most `limit` bytes.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    pub fn new(writer: impl Write + Send + 'static, limit: usize) -> SendQueue {
        assert!(limit > 0, "a send queue needs room for a byte");
        let (sender, receiver) = unbounded();
        let shared = Shared {
            room: Semaphore::new(limit),
            limit,
            writing: Writing::new(),
            items: receiver,
            writer: Mutex::new(Some(Box::new(writer))),
            failed: Mutex::new(None),
        };
        SendQueue {
            shared: Arc::new(shared),
            items: sender,
        }
    }

    /// Queues `bytes`. Waits while there is no room for them; if they are more than the limit, until the
    /// queue is empty.
    ///
    /// # Errors
    ///
    /// That of an earlier write. If there is no memory for the writing coroutine, that of its spawn.
    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.shared.check()?;
        let room = self.shared.room.acquire_many(self.shared.permits(bytes));
        // A failure may have made the room.
        self.shared.check()?;
        let put = self.put(Item::Bytes(bytes.to_vec()));
        room.forget();
        put
    }

    /// Queues `bytes`, if that is possible without waiting.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) if there is no room. Otherwise as [`send`](SendQueue::send).
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<()> {
        self.shared.check()?;
        let permits = self.shared.permits(bytes);
        let Some(room) = self.shared.room.try_acquire_many(permits) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let put = self.put(Item::Bytes(bytes.to_vec()));
        room.forget();
        put
    }

    /// Waits until everything that was sent before has been written, and the writer was flushed.
    ///
    /// # Errors
    ///
    /// That of an earlier write, or of the flush.
    pub fn flush(&self) -> io::Result<()> {
        self.shared.check()?;
        let (reply, flushed) = oneshot();
        self.put(Item::Flush(reply))?;
        match flushed.recv() {
            Ok(flushed) => flushed,
            Err(_) => self.shared.check().and(Err(Cancelled.into())),
        }
    }

    /// Flushes, and drops this handle. If it is the last one, that drops the writer, too.
    ///
    /// # Errors
    ///
    /// See [`flush`](SendQueue::flush).
    pub fn close(self) -> io::Result<()> {
        self.flush()
    }

    /// How many bytes are queued. A send of more bytes than the limit counts as the limit.
    pub fn queued(&self) -> usize {
        self.shared.limit - self.shared.room.available_permits().min(self.shared.limit)
    }

    fn put(&self, item: Item) -> io::Result<()> {
        // The receiver is in `shared`, so it is there.
        let _ = self.items.send(item);
        if !self.shared.writing.begin() {
            return Ok(());
        }
        let turn = Turn {
            shared: Arc::clone(&self.shared),
            taken: 0,
            is_over: false,
        };
        let builder = Builder::new().name("send queue".to_owned());
        // The writer serves all senders, not only this one's request.
        let writing = context::without(|| builder.spawn(move || turn.write()));
        if let Err(error) = &writing {
            // The turn was dropped with the closure, and could not tell why.
            self.shared.note(error);
        }
        writing.map(drop)
    }
}

impl Shared {
    /// The error of an earlier write.
    fn check(&self) -> io::Result<()> {
        let failure = own_lock(&self.failed).clone();
        failure.map_or(Ok(()), |failure| Err(failure.error()))
    }

    /// How many permits a send of `bytes` takes.
    fn permits(&self, bytes: &[u8]) -> usize {
        bytes.len().min(self.limit)
    }

    /// Runs the caller's turn: calls `empty`, which empties the queue, until nothing is queued.
    fn run_turn(&self, empty: impl FnMut()) {
        self.writing.run(|| self.items.is_empty(), empty);
    }

    /// Notes the failure, unless there was one before. A cancellation gives way to a failure that says more.
    fn note(&self, error: &io::Error) {
        // Made and dropped outside the lock, since that allocates and frees memory.
        let mut failure = Some(Failure::of(error));
        let mut failed = own_lock(&self.failed);
        if failed.as_ref().is_none_or(|before| before.is_cancellation) {
            mem::swap(&mut *failed, &mut failure);
        }
        drop(failed);
    }

    fn drop_queued(&self) {
        while let Ok(item) = self.items.try_recv() {
            match item {
                Item::Bytes(bytes) => self.room.add_permits(self.permits(&bytes)),
                Item::Flush(reply) => drop(reply.send(self.check())),
            }
        }
    }
}

/// WRITING as a value: the right, and the duty, to empty the queue. Fails the queue if it is dropped before
/// that is done.
struct Turn {
    shared: Arc<Shared>,
    /// The permits of the bytes that were taken out of the queue and are not written yet.
    taken: usize,
    is_over: bool,
}

impl Turn {
    /// Writes until nothing is queued.
    fn write(mut self) {
        let shared = Arc::clone(&self.shared);
        shared.run_turn(|| self.write_queued());
        self.is_over = true;
    }

    fn write_queued(&mut self) {
        let writer = own_lock(&self.shared.writer).take();
        let Some(mut writer) = writer else {
            // There was a failure.
            return self.shared.drop_queued();
        };
        match self.write_all(&mut *writer) {
            Ok(()) => *own_lock(&self.shared.writer) = Some(writer),
            Err(error) => {
                self.shared.note(&error);
                self.shared.drop_queued();
            }
        }
    }

    fn write_all(&mut self, writer: &mut dyn Write) -> io::Result<()> {
        let mut merged = Vec::new();
        while let Ok(item) = self.shared.items.try_recv() {
            let mut next = Some(item);
            let mut flush = None;
            // What is queued by now goes into one write, up to a flush.
            while let Some(item) = next.take() {
                match item {
                    Item::Bytes(bytes) => {
                        self.taken += self.shared.permits(&bytes);
                        match merged.is_empty() {
                            true => merged = bytes,
                            false => merged.extend_from_slice(&bytes),
                        }
                    }
                    Item::Flush(reply) => {
                        flush = Some(reply);
                        break;
                    }
                }
                next = self.shared.items.try_recv().ok();
            }
            let written = writer.write_all(&merged);
            merged.clear();
            if let Err(error) = &written {
                // Before there is room, so that those that wait for room see it.
                self.shared.note(error);
            }
            self.give_back_taken();
            written?;
            if let Some(reply) = flush {
                let flushed = writer.flush();
                let result = flushed
                    .as_ref()
                    .map_or_else(|error| Err(Failure::of(error).error()), |()| Ok(()));
                // Nobody may wait for it any more.
                let _ = reply.send(result);
                flushed?;
            }
        }
        Ok(())
    }

    fn give_back_taken(&mut self) {
        self.shared.room.add_permits(mem::take(&mut self.taken));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        self.shared.note(&Cancelled.into());
        // `None` if the coroutine unwinds, which has dropped it.
        let writer = own_lock(&self.shared.writer).take();
        self.give_back_taken();
        // Receiving counts as an operation, and may yield. No interrupt must keep WRITING set then.
        shield(|| self.shared.run_turn(|| self.shared.drop_queued()));
        // Last, since it is the user's: its destructor may wait, or panic.
        drop(writer);
    }
}

impl fmt::Debug for SendQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendQueue")
            .field("limit", &self.shared.limit)
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::SendQueue;
    use crate::channel::{oneshot, unbounded};
    use crate::coroutine::lacks;
    use crate::interrupt::timeout::timeout;
    use crate::runtime::RuntimeBuilder;
    use crate::runtime::join::JoinHandle;
    use crate::runtime::spawn::spawn;

    #[test]
    fn a_cancelled_send_that_finds_no_stack_answers_flushes() {
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        runtime.run(|| {
            let (_sender, empty) = unbounded::<u8>();
            let spend = |operations| {
                let empty = empty.clone();
                move || {
                    for _ in 0..operations {
                        let _ = empty.try_recv();
                    }
                }
            };
            // With two of these numbers, the flush yields when it has found no failure, and the sender when it drops
            // what is queued.
            for (of_flush, of_send) in (0..40).flat_map(|n| (0..40).map(move |m| (n, m))) {
                let queue = SendQueue::new(io::sink(), 10);
                let flush = spawn({
                    let (queue, spend) = (queue.clone(), spend(of_flush));
                    move || {
                        spend();
                        let _ = queue.flush();
                    }
                });
                let (own, handle) = oneshot::<JoinHandle<()>>();
                let (end, ends) = oneshot::<()>();
                let send = spawn({
                    let spend = spend(of_send);
                    move || {
                        let _end = end;
                        handle.recv().unwrap().cancel();
                        spend();
                        lacks::RESERVATIONS.set(1);
                        let _ = queue.send(b"x");
                    }
                });
                assert!(own.send(send).is_ok());
                let flushed = timeout(Duration::from_secs(10), || flush.join().unwrap());
                assert!(flushed.is_ok(), "after {of_flush} and {of_send} operations");
                assert!(ends.recv().is_err());
                lacks::RESERVATIONS.set(0);
            }
        });
    }
}
