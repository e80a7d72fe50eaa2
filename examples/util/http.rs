//! HTTP/1.1 for the servers among the examples: heads, bodies, `100 Continue`, keep-alive.
//!
//! One coroutine serves a connection, in the order of the protocol: it reads a head, calls the handler, which
//! reads the body and writes the answer, and begins again.

#![allow(dead_code, reason = "each example uses its part")]

mod chunked;

use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use greenroom::server::{Connection, Server};
use greenroom::shims::net::{Shutdown, TcpListener, TcpStream};
use greenroom::timeout;

use chunked::Chunked;

/// The longest head of a request, and how many fields it may have.
const MAX_HEAD: usize = 16 * 1024;
const MAX_FIELDS: usize = 64;

/// How long a client may leave a connection idle.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client may take for a head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may leave a read or a write without progress.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client that was refused may go on sending, so that it sees the answer rather than a reset.
const LINGER: Duration = Duration::from_secs(2);

const BUFFER: usize = 16 * 1024;

/// Answers the requests of all connections with `handler`.
///
/// If `handler` fails before its answer has begun, the client gets the error: 400 for `InvalidData` and
/// `UnexpectedEof`, 408 for a timeout, 413 for `FileTooLarge`, otherwise 500. If it fails later, the connection
/// is cut, which tells the client that the answer is not complete.
pub(crate) fn serve<H>(listener: TcpListener, handler: H) -> io::Result<Server>
where
    H: Fn(&Request, &mut Body<'_>, &mut Reply<'_>) -> io::Result<()> + Send + Sync + 'static,
{
    Server::serve(listener, move |connection| converse(connection, &handler))
}

/// Serves one connection until it ends.
fn converse<H>(connection: &Connection, handler: H) -> io::Result<()>
where
    H: Fn(&Request, &mut Body<'_>, &mut Reply<'_>) -> io::Result<()>,
{
    let stream: &TcpStream = connection;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL_TIMEOUT))?;
    stream.set_write_timeout(Some(STALL_TIMEOUT))?;
    let mut reader = BufReader::with_capacity(BUFFER, stream);
    let mut out = BufWriter::with_capacity(BUFFER, stream);
    loop {
        // Answers to pipelined requests leave together.
        if reader.buffer().is_empty() {
            out.flush()?;
            let next = timeout(IDLE_TIMEOUT, || connection.wait_for_request());
            if !next.unwrap_or(Ok(false))? {
                return Ok(());
            }
        }
        let head = timeout(HEAD_TIMEOUT, || read_head(&mut reader));
        let request = match head.unwrap_or(Err(Bad::Refused("408 Request Timeout", "too slow"))) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(Bad::Connection(error)) => return Err(error),
            Err(Bad::Refused(status, why)) => {
                Reply::new(&mut out, None, &AtomicBool::new(false)).text(status, why)?;
                return linger(out);
            }
        };
        let ended = AtomicBool::new(request.length == Length::Known(0));
        if !ended.load(Ordering::Relaxed) {
            out.flush()?; // Otherwise `100 Continue` could overtake it.
        }
        let mut body = Body::new(stream, &mut reader, &request, &ended);
        let mut reply = Reply::new(&mut out, Some(&request), &ended);
        reply.closes |= connection.is_stopping();
        match handler(&request, &mut body, &mut reply) {
            Ok(()) => reply.finish()?,
            Err(error) if reply.begun => return Err(error),
            Err(error) => {
                let status = match error.kind() {
                    ErrorKind::InvalidData | ErrorKind::UnexpectedEof => "400 Bad Request",
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => "408 Request Timeout",
                    ErrorKind::FileTooLarge => "413 Content Too Large",
                    _ => "500 Internal Server Error",
                };
                reply.closes = true;
                reply.text(status, &error.to_string())?;
            }
        }
        if reply.closes {
            return linger(out);
        }
    }
}

/// Ends a connection whose client may still send. A close with unread bytes would be a reset, which can
/// overtake the answer.
fn linger(out: BufWriter<&TcpStream>) -> io::Result<()> {
    let mut stream = out.into_inner()?;
    stream.shutdown(Shutdown::Write)?;
    let _ = timeout(LINGER, || io::copy(&mut stream, &mut io::sink()));
    Ok(())
}

/// The head of a request.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    fields: Vec<(String, String)>,
    is_1_0: bool,
    length: Length,
    keeps_alive: bool,
    awaits_continue: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    Known(u64),
    Chunked,
}

impl Request {
    /// The first field of this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let (_, value) = fields.find(|(own, _)| own.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// The target up to its `?`, and the part behind it.
    pub(crate) fn path_and_query(&self) -> (&str, &str) {
        self.target.split_once('?').unwrap_or((&self.target, ""))
    }

    /// The length of the body, unless it comes in chunks.
    pub(crate) fn content_length(&self) -> Option<u64> {
        match self.length {
            Length::Known(length) => Some(length),
            Length::Chunked => None,
        }
    }
}

enum Bad {
    /// A status and a reason for the client.
    Refused(&'static str, &'static str),
    Connection(io::Error),
}

/// Returns `None` if the connection ends before another request.
fn read_head(reader: &mut impl BufRead) -> Result<Option<Request>, Bad> {
    let mut head = Vec::new();
    loop {
        let present = match reader.fill_buf() {
            Ok([]) if head.is_empty() => return Ok(None),
            Ok([]) => return Err(Bad::Refused("400 Bad Request", "the head is cut off")),
            Ok(present) => present,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Bad::Connection(error)),
        };
        let before = head.len();
        head.extend_from_slice(present);
        let line_ends = present.contains(&b'\n');
        let mut used = present.len();
        let parsed = match line_ends {
            true => parse(&head),
            false => Ok(None),
        };
        if let Ok(Some((_, length))) = parsed {
            used = length - before;
        }
        reader.consume(used);
        match parsed.map_err(|(status, why)| Bad::Refused(status, why))? {
            Some((request, _)) => return Ok(Some(request)),
            None if head.len() >= MAX_HEAD => {
                let status = "431 Request Header Fields Too Large";
                return Err(Bad::Refused(status, "the head is too long"));
            }
            None => {}
        }
    }
}

/// Returns the request and the length of its head, or `None` if the head is not complete.
fn parse(head: &[u8]) -> Result<Option<(Request, usize)>, (&'static str, &'static str)> {
    let bad = |why| ("400 Bad Request", why);
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let end = match parsed.parse(head) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(("431 Request Header Fields Too Large", "too many fields"));
        }
        Err(httparse::Error::Version) => {
            return Err(("505 HTTP Version Not Supported", "not HTTP/1.1"));
        }
        Err(_) => return Err(bad("malformed head")),
    };
    let owned = |field: &httparse::Header<'_>| {
        let value = String::from_utf8_lossy(field.value);
        (field.name.to_owned(), value.into_owned())
    };
    let fields: Vec<_> = parsed.headers.iter().map(owned).collect();
    let all = |name: &str| -> Vec<&str> {
        let of_name = fields
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name));
        of_name.map(|(_, value)| value.as_str()).collect()
    };
    let has = |name: &str, wanted: &str| {
        let values = all(name).into_iter().flat_map(|value| value.split(','));
        values
            .map(str::trim)
            .any(|value| value.eq_ignore_ascii_case(wanted))
    };
    let is_1_0 = parsed.version == Some(0);

    if all("host").len() > 1 || (all("host").is_empty() && !is_1_0) {
        return Err(bad("there must be one field Host"));
    }
    // A length that could be understood in two ways lets a request hide in another, behind a proxy.
    let length = match (&all("transfer-encoding")[..], &all("content-length")[..]) {
        ([], []) => Length::Known(0),
        ([], [text]) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            let length = text.parse();
            Length::Known(length.map_err(|_| bad("malformed Content-Length"))?)
        }
        ([], _) => return Err(bad("malformed Content-Length")),
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") && !is_1_0 => Length::Chunked,
        ([_], []) if !is_1_0 => return Err(("501 Not Implemented", "unknown Transfer-Encoding")),
        _ => return Err(bad("contradictory lengths")),
    };
    let awaits_continue = match &all("expect")[..] {
        [] => false,
        [value] if value.eq_ignore_ascii_case("100-continue") => !is_1_0,
        _ => return Err(("417 Expectation Failed", "unknown Expect")),
    };
    let keeps_alive = match is_1_0 {
        true => has("connection", "keep-alive"),
        false => !has("connection", "close"),
    };
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        is_1_0,
        length,
        keeps_alive,
        awaits_continue,
        fields,
    };
    Ok(Some((request, end)))
}

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
    fn new(
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

/// The answer to a request: either `text`, or `start` and then what is written.
pub(crate) struct Reply<'c> {
    out: &'c mut (dyn Write + Send),
    frame: Frame,
    is_head: bool,
    is_1_0: bool,
    begun: bool,
    closes: bool,
    body_ended: &'c AtomicBool,
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

impl<'c> Reply<'c> {
    /// To a request that could not be read, if there is no `request`.
    fn new(
        out: &'c mut (dyn Write + Send),
        request: Option<&Request>,
        body_ended: &'c AtomicBool,
    ) -> Reply<'c> {
        Reply {
            out,
            frame: Frame::Nothing,
            is_head: request.is_some_and(|request| request.method == "HEAD"),
            is_1_0: request.is_some_and(|request| request.is_1_0),
            begun: false,
            closes: request.is_none_or(|request| !request.keeps_alive),
            body_ended,
        }
    }

    /// Answers with a line of text.
    pub(crate) fn text(&mut self, status: &str, text: &str) -> io::Result<()> {
        let fields = [("Content-Type", "text/plain; charset=utf-8")];
        self.start(status, &fields, Some(text.len() as u64 + 1))?;
        writeln!(self, "{text}")?;
        self.finish()
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
        write!(self.out, "HTTP/1.1 {status}\r\n")?;
        for (name, value) in fields {
            write!(self.out, "{name}: {value}\r\n")?;
        }
        self.frame = match length {
            Some(length) => {
                write!(self.out, "Content-Length: {length}\r\n")?;
                Frame::Length(length)
            }
            None if self.is_1_0 => Frame::Close,
            None => {
                self.out.write_all(b"Transfer-Encoding: chunked\r\n")?;
                Frame::Chunked
            }
        };
        self.closes |= matches!(self.frame, Frame::Close);
        if self.is_head {
            self.frame = Frame::Nothing;
        }
        let connection: &[u8] = match (self.closes, self.is_1_0) {
            (true, _) => b"Connection: close\r\n\r\n",
            (false, true) => b"Connection: keep-alive\r\n\r\n",
            (false, false) => b"\r\n",
        };
        self.out.write_all(connection)
    }

    fn finish(&mut self) -> io::Result<()> {
        assert!(self.begun, "a request has an answer");
        match std::mem::replace(&mut self.frame, Frame::Nothing) {
            Frame::Chunked => self.out.write_all(b"0\r\n\r\n"),
            Frame::Length(left) if left > 0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl Write for Reply<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.frame {
            Frame::Nothing => {}
            Frame::Close => self.out.write_all(bytes)?,
            Frame::Length(left) => {
                let length = bytes.len() as u64;
                *left = left.checked_sub(length).ok_or(ErrorKind::InvalidInput)?;
                self.out.write_all(bytes)?;
            }
            Frame::Chunked if bytes.is_empty() => {}
            Frame::Chunked => {
                write!(self.out, "{:x}\r\n", bytes.len())?;
                self.out.write_all(bytes)?;
                self.out.write_all(b"\r\n")?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
