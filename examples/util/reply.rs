//! The answer to a request.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use greenroom::server::Connection;
use greenroom::shims::net::TcpStream;

use super::date;
use super::request::Request;

/// How much is kept before it is sent.
const BUFFER: usize = 16 * 1024;

type Upgraded = Box<dyn FnOnce(&Connection, &[u8]) -> io::Result<()> + Send>;

/// The answer to a request: `text`, or `upgrade`, or `start` and then what is written.
pub(crate) struct Reply<'c> {
    stream: &'c TcpStream,
    /// What was not sent so far, also of the answers before this one.
    out: &'c mut Vec<u8>,
    frame: Frame,
    is_head: bool,
    is_1_0: bool,
    pub(super) begun: bool,
    /// The connection ends with this answer.
    pub(super) closes: bool,
    body_ended: &'c AtomicBool,
    pub(super) upgraded: Option<Upgraded>,
}

/// How the client finds the end of the answer.
enum Frame {
    /// It has so many bytes left.
    Length(u64),
    Chunked,
    /// The connection ends.
    Close,
    /// There is none: it is the answer to a HEAD.
    Nothing,
}

/// Sends what `out` has.
pub(super) fn send(mut stream: &TcpStream, out: &mut Vec<u8>) -> io::Result<()> {
    let sent = stream.write_all(out);
    out.clear();
    sent
}

/// Like `write!(out, "{number}")`, in a fraction of the time.
fn put_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

impl<'c> Reply<'c> {
    /// To a request that could not be read, if there is no `request`.
    pub(super) fn new(
        stream: &'c TcpStream,
        out: &'c mut Vec<u8>,
        request: Option<&Request>,
        body_ended: &'c AtomicBool,
    ) -> Reply<'c> {
        Reply {
            stream,
            out,
            frame: Frame::Nothing,
            is_head: request.is_some_and(|request| request.method == "HEAD"),
            is_1_0: request.is_some_and(|request| request.is_1_0),
            begun: false,
            closes: request.is_none_or(|request| !request.keeps_alive),
            body_ended,
            upgraded: None,
        }
    }

    /// Changes to another protocol, in which `converse` then has the connection, and what the client has sent after
    /// the head, as far as that was read. The request must not have a body.
    pub(crate) fn upgrade(
        &mut self,
        fields: &[(&str, &str)],
        converse: impl FnOnce(&Connection, &[u8]) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        assert!(!self.begun, "a request has one answer");
        if !self.body_ended.load(Ordering::Relaxed) {
            let why = "a body before another protocol";
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        self.begun = true;
        self.upgraded = Some(Box::new(converse));
        self.put_head("101 Switching Protocols", fields);
        self.put(b"\r\n\r\n")
    }

    /// Answers with a line of text.
    pub(crate) fn text(&mut self, status: &str, text: &str) -> io::Result<()> {
        let fields = [("Content-Type", "text/plain; charset=utf-8")];
        self.start(status, &fields, Some(text.len() as u64 + 1))?;
        self.write_all(text.as_bytes())?;
        self.write_all(b"\n")
    }

    /// Writes the head. What is written then is the content, which has `length` bytes, if that is known.
    ///
    /// If the request's body has not been read to its end by now, the connection ends with this answer.
    pub(crate) fn start(
        &mut self,
        status: &str,
        fields: &[(&str, &str)],
        length: Option<u64>,
    ) -> io::Result<()> {
        assert!(!self.begun, "a request has one answer");
        self.begun = true;
        self.closes |= !self.body_ended.load(Ordering::Relaxed);
        self.frame = match length {
            Some(length) => Frame::Length(length),
            None if self.is_1_0 => Frame::Close,
            None => Frame::Chunked,
        };
        self.closes |= matches!(self.frame, Frame::Close);
        self.put_head(status, fields);
        match self.frame {
            Frame::Chunked => self.put(b"\r\nTransfer-Encoding: chunked")?,
            // This status says it.
            Frame::Length(0) if status.starts_with("204 ") => {}
            Frame::Length(length) => {
                self.put(b"\r\nContent-Length: ")?;
                put_decimal(self.out, length);
            }
            Frame::Close | Frame::Nothing => {}
        }
        if self.is_head {
            self.frame = Frame::Nothing;
        }
        let end: &[u8] = match (self.closes, self.is_1_0) {
            (true, _) => b"\r\nConnection: close\r\n\r\n",
            (false, true) => b"\r\nConnection: keep-alive\r\n\r\n",
            (false, false) => b"\r\n\r\n",
        };
        self.put(end)
    }

    fn put_head(&mut self, status: &str, fields: &[(&str, &str)]) {
        let out = &mut *self.out;
        let mut put =
            |pieces: &[&[u8]]| pieces.iter().for_each(|piece| out.extend_from_slice(piece));
        put(&[b"HTTP/1.1 ", status.as_bytes(), b"\r\nDate: ", &date::now()]);
        for (name, value) in fields {
            put(&[b"\r\n", name.as_bytes(), b": ", value.as_bytes()]);
        }
    }

    /// Ends the answer.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        assert!(self.begun, "a request has an answer");
        match std::mem::replace(&mut self.frame, Frame::Nothing) {
            Frame::Chunked => self.put(b"0\r\n\r\n"),
            Frame::Length(left) if left > 0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The connection: for those that wait for something else, and for the client's leaving.
    pub(crate) fn stream(&self) -> &'c TcpStream {
        self.stream
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.out.len() + bytes.len() > BUFFER {
            send(self.stream, self.out)?;
            if bytes.len() >= BUFFER {
                return self.stream.write_all(bytes);
            }
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

impl Write for Reply<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.frame {
            Frame::Nothing => {}
            Frame::Close => self.put(bytes)?,
            Frame::Length(left) => {
                let length = bytes.len() as u64;
                *left = left.checked_sub(length).ok_or(ErrorKind::InvalidInput)?;
                self.put(bytes)?;
            }
            Frame::Chunked if bytes.is_empty() => {}
            Frame::Chunked => {
                write!(self.out, "{:x}\r\n", bytes.len())?;
                self.put(bytes)?;
                self.put(b"\r\n")?;
            }
        }
        Ok(bytes.len())
    }

    /// Sends what was written so far.
    fn flush(&mut self) -> io::Result<()> {
        send(self.stream, self.out)
    }
}
