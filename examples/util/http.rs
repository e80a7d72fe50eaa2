//! HTTP/1.1 for the servers among the examples: heads, bodies, `100 Continue`, keep-alive, pipelining.
//!
//! One coroutine serves a connection, in the order of the protocol: it reads a head, calls the handler, which
//! reads the body and writes the answer, and begins again. The head stays in the buffer that it was read into,
//! and the answers to requests that have come together leave together.

#![allow(dead_code, reason = "each example uses its part")]

mod body;
mod chunked;
mod date;
mod input;
mod reply;
mod request;

use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use greenroom::server::{Connection, Server};
use greenroom::shims::net::{Shutdown, TcpListener, TcpStream};
use greenroom::timeout;

pub(crate) use body::Body;
use input::Input;
pub(crate) use reply::Reply;
pub(crate) use request::Request;
use request::{Length, MAX_FIELDS, MAX_HEAD};

/// How long a client that was refused may go on sending, so that it sees the answer rather than a reset.
const LINGER: Duration = Duration::from_secs(2);

/// How slow a client may be.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// How long it may take from the first byte of a head to the last.
    pub(crate) head: Duration,
    /// How long it may send nothing, and take nothing, at other times.
    pub(crate) idle: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head: Duration::from_secs(30),
            idle: Duration::from_secs(60),
        }
    }
}

/// Answers the requests of all connections with `handler`, as [`converse`] does for one.
pub(crate) fn serve<H>(listener: TcpListener, handler: H) -> io::Result<Server>
where
    H: Fn(&Request, &mut Body<'_>, &mut Reply<'_>) -> io::Result<()> + Send + Sync + 'static,
{
    Server::serve(listener, move |connection| {
        converse(connection, Limits::default(), &handler)
    })
}

/// Answers the requests of a connection with `handler`, until the client or the server ends it.
///
/// If `handler` fails before its answer has begun, the client gets the error: 400 for `InvalidData` and
/// `UnexpectedEof`, 408 for a timeout, 413 for `FileTooLarge`, otherwise 500. If it fails later, the connection
/// is cut, which tells the client that the answer is not complete. There is no answer to a client that has left,
/// which is `ConnectionAborted`.
pub(crate) fn converse<H>(connection: &Connection, limits: Limits, handler: H) -> io::Result<()>
where
    H: Fn(&Request, &mut Body<'_>, &mut Reply<'_>) -> io::Result<()>,
{
    let stream: &TcpStream = connection;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limits.idle))?;
    stream.set_write_timeout(Some(limits.idle))?;
    let mut input = Input::new();
    let mut out = Vec::new();
    loop {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let read = read_head(connection, limits, &mut input, &mut out);
        let parsed = match read {
            Ok(Some(length)) => {
                let (head, rest) = input.split(length, stream);
                Request::parse(head, &mut fields).map(|request| (request, rest))
            }
            Ok(None) => return Ok(()),
            Err(Bad::Connection(error)) => return Err(error),
            Err(Bad::Refused(status, why)) => Err((status, why)),
        };
        let (request, mut rest) = match parsed {
            Ok(parsed) => parsed,
            Err((status, why)) => {
                Reply::new(stream, &mut out, None, &AtomicBool::new(true)).text(status, why)?;
                return linger(stream, &out);
            }
        };
        let ended = AtomicBool::new(request.length == Length::Known(0));
        if !ended.load(Ordering::Relaxed) {
            reply::send(stream, &mut out)?; // Otherwise `100 Continue` could overtake it.
        }
        let mut body = Body::new(stream, &mut rest, &request, &ended);
        let mut reply = Reply::new(stream, &mut out, Some(&request), &ended);
        reply.closes |= connection.is_stopping();
        let answered = handler(&request, &mut body, &mut reply);
        if let Some(upgraded) = reply.upgraded.take() {
            reply.flush()?;
            return answered.and_then(|()| upgraded(connection, rest.present()));
        }
        match answered {
            Ok(()) => reply.finish()?,
            Err(error) if reply.begun || error.kind() == ErrorKind::ConnectionAborted => {
                let _ = reply::send(stream, &mut out);
                return Err(error);
            }
            Err(error) => {
                reply.closes = true;
                reply.text(status_of(&error), &error.to_string())?;
            }
        }
        if reply.closes {
            return linger(stream, &out);
        }
        let left = rest.left();
        input.keep(left);
    }
}

/// The status that tells a client of this error of a handler.
pub(crate) fn status_of(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => "400 Bad Request",
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "408 Request Timeout",
        ErrorKind::FileTooLarge => "413 Content Too Large",
        _ => "500 Internal Server Error",
    }
}

enum Bad {
    /// A status and a reason for the client.
    Refused(&'static str, &'static str),
    Connection(io::Error),
}

/// Has the next head in `input`, and returns its length. `None`, if the connection ends instead.
fn read_head(
    connection: &Connection,
    limits: Limits,
    input: &mut Input,
    out: &mut Vec<u8>,
) -> Result<Option<usize>, Bad> {
    if let Some(length) = input.find_head() {
        return Ok(Some(length));
    }
    // All that has come is answered.
    reply::send(connection, out).map_err(Bad::Connection)?;
    if input.is_empty() {
        match input.fill(|buf| connection.read_request(buf)) {
            Ok(Some(1..)) => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(Bad::Connection(error)),
        }
        if let Some(length) = input.find_head() {
            return Ok(Some(length));
        }
    }
    let rest = timeout(limits.head, || read_rest_of_head(connection, input));
    let rest = rest.unwrap_or(Err(Bad::Refused("408 Request Timeout", "too slow")));
    rest.map(Some)
}

fn read_rest_of_head(mut connection: &Connection, input: &mut Input) -> Result<usize, Bad> {
    loop {
        if input.len() >= MAX_HEAD {
            let status = "431 Request Header Fields Too Large";
            return Err(Bad::Refused(status, "the head is too long"));
        }
        match input.fill(|buf| connection.read(buf).map(Some)) {
            Ok(Some(1..)) => {}
            Ok(_) => return Err(Bad::Refused("400 Bad Request", "the head is cut off")),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(Bad::Refused("408 Request Timeout", "too slow"));
            }
            Err(error) => return Err(Bad::Connection(error)),
        }
        if let Some(length) = input.find_head() {
            return Ok(length);
        }
    }
}

/// Ends a connection whose client may still send, after `out`. A close with unread bytes would be a reset, which
/// can overtake the answer.
fn linger(mut stream: &TcpStream, out: &[u8]) -> io::Result<()> {
    stream.write_all(out)?;
    stream.shutdown(Shutdown::Write)?;
    let _ = timeout(LINGER, || io::copy(&mut stream, &mut io::sink()));
    Ok(())
}
