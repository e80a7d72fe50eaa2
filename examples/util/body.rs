//! The body of a request.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use greenroom::shims::net::TcpStream;

use super::chunked::Chunked;
use super::request::{Length, Request};

/// The body of a request. The first read asks the client to send it, if the client waits for that.
pub(crate) struct Body<'c> {
    stream: &'c TcpStream,
    content: Content<'c>,
    awaited: bool,
    ended: &'c AtomicBool,
}

enum Content<'c> {
    Plain(io::Take<Input<'c>>),
    Chunked(Chunked<Input<'c>>),
}

type Input<'c> = &'c mut (dyn BufRead + Send);

impl<'c> Body<'c> {
    pub(super) fn new(
        stream: &'c TcpStream,
        input: Input<'c>,
        request: &Request,
        ended: &'c AtomicBool,
    ) -> Body<'c> {
        let content = match request.length {
            Length::Known(length) => Content::Plain(input.take(length)),
            Length::Chunked => Content::Chunked(Chunked::new(input)),
        };
        Body {
            stream,
            content,
            awaited: request.awaits_continue,
            ended,
        }
    }

    /// Asks the client to send the body, if it waits for that.
    pub(crate) fn demand(&mut self) -> io::Result<()> {
        if self.awaited && !self.ended.load(Ordering::Relaxed) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        self.awaited = false;
        Ok(())
    }

    /// The fields after the last chunk, once `read` has returned 0.
    pub(crate) fn trailers(&self) -> &[(String, String)] {
        match &self.content {
            Content::Plain(_) => &[],
            Content::Chunked(chunked) => chunked.trailers(),
        }
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.demand()?;
        let (read, left) = match &mut self.content {
            Content::Plain(plain) => (plain.read(buf)?, plain.limit()),
            Content::Chunked(chunked) => (chunked.read(buf)?, 0),
        };
        if read == 0 && !buf.is_empty() {
            if left > 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.ended.store(true, Ordering::Relaxed);
        }
        Ok(read)
    }
}
