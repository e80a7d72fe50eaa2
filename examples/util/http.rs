//! HTTP/1.1 for the servers among the examples: heads, bodies, `100 Continue`, keep-alive, pipelining.
//!
//! One coroutine serves a connection, in the order of the protocol: it reads a head, calls the handler, which
//! reads the body and writes the answer, and begins again. The head stays in the buffer that it was read into,
//! and the answers to requests that have come together leave together.

#![allow(dead_code, reason = "each example uses its part")]

mod body;
mod chunked;
pub(crate) mod date;
mod input;
mod reply;
mod request;

use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use greenroom::server::{Connection, Server};
use greenroom::shims::net::{Shutdown, TcpListener, TcpStream};
use greenroom::{timeout, timeout_at};

pub(crate) use body::Body;
use input::{Input, Rest};
pub(crate) use reply::Reply;
pub(crate) use request::Request;
use request::{Length, MAX_FIELDS, Refusal};

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
    let (mut input, mut spare, mut out) = (Input::default(), Input::default(), Vec::new());
    let mut head_deadline = None;
    loop {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let (request, head) = match Request::parse(input.present(), &mut fields) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => {
                // All that has come is answered.
                reply::send(stream, &mut out)?;
                match read_more(connection, limits, &mut input, &mut head_deadline) {
                    Ok(true) => continue,
                    Ok(false) => return Ok(()),
                    Err(Bad::Connection(error)) => return Err(error),
                    Err(Bad::Refused(refusal)) => return refuse(stream, &mut out, refusal),
                }
            }
            Err(refusal) => return refuse(stream, &mut out, refusal),
        };
        head_deadline = None;
        let mut rest = Rest::new(stream, &input.present()[head..], &mut spare);
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
            return linger(stream, &mut out);
        }
        let left = rest.left();
        input.go_on(left, &mut spare);
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
    Refused(Refusal),
    Connection(io::Error),
}

/// Waits for a request, or for the next line of a head. Returns false if the connection ends instead.
fn read_more(
    mut connection: &Connection,
    limits: Limits,
    input: &mut Input,
    head_deadline: &mut Option<Instant>,
) -> Result<bool, Bad> {
    if input.is_empty() {
        return match input.fill(|buf| Ok(connection.read_request(buf)?.unwrap_or(0))) {
            Ok(read) => Ok(read > 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(Bad::Connection(error)),
        };
    }
    let too_slow = || Bad::Refused(("408 Request Timeout", "too slow"));
    let deadline = *head_deadline.get_or_insert_with(|| Instant::now() + limits.head);
    let read_line = || loop {
        if input.is_full() {
            let status = "431 Request Header Fields Too Large";
            return Err(Bad::Refused((status, "the head is too long")));
        }
        match input.fill(|buf| connection.read(buf)) {
            Ok(0) => return Err(Bad::Refused(("400 Bad Request", "the head is cut off"))),
            Ok(read)
                if input
                    .present()
                    .iter()
                    .rev()
                    .take(read)
                    .any(|&byte| byte == b'\n') =>
            {
                return Ok(true);
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(too_slow()),
            Err(error) => return Err(Bad::Connection(error)),
        }
    };
    timeout_at(deadline, read_line).unwrap_or_else(|_| Err(too_slow()))
}

fn refuse(stream: &TcpStream, out: &mut Vec<u8>, (status, why): Refusal) -> io::Result<()> {
    Reply::new(stream, out, None, &AtomicBool::new(true)).text(status, why)?;
    linger(stream, out)
}

/// Ends a connection whose client may still send, after `out`. A close with unread bytes would be a reset, which
/// can overtake the answer.
fn linger(mut stream: &TcpStream, out: &mut Vec<u8>) -> io::Result<()> {
    reply::send(stream, out)?;
    stream.shutdown(Shutdown::Write)?;
    let _ = timeout(LINGER, || io::copy(&mut stream, &mut io::sink()));
    Ok(())
}
