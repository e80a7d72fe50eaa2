//! A small client of HTTP and HTTPS: bounded in connections, time and redirects, with bodies that are read as they
//! come.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::time::Duration;

use greenroom::shims::net::{TcpStream, ToSocketAddrs};
use greenroom::sync::Semaphore;
use greenroom::timeout;

use crate::chunked::Chunked;
use crate::tls::{TlsStream, Trust};
use crate::url::{Scheme, Url};

/// The longest head of an answer, and how many fields it may have.
const MAX_HEAD: usize = 16 * 1024;
const MAX_FIELDS: usize = 64;

/// How many answers of one fetch may lead to another page.
const MAX_REDIRECTS: usize = 5;

/// What many coroutines share.
pub(crate) struct Client {
    /// A connection each. Further fetches queue, in order.
    permits: Semaphore,
    limits: Limits,
    trust: Trust,
}

/// How long a fetch may take, from its connection on: not in the queue.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// To resolve the name, to connect, and for the TLS handshake.
    pub(crate) connect: Duration,
    /// In all, with redirects and the body.
    pub(crate) total: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connect: Duration::from_secs(20),
            total: Duration::from_secs(20),
        }
    }
}

/// The answer to a request.
pub(crate) struct Answer<'c> {
    /// Where it comes from, behind all redirects.
    pub(crate) url: Url,
    pub(crate) status: u16,
    fields: Fields,
    pub(crate) body: Body<'c>,
}

impl Answer<'_> {
    /// The first field of this name.
    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        let (_, value) = fields.find(|(own, _)| own.eq_ignore_ascii_case(name))?;
        Some(value)
    }
}

impl Client {
    /// A client with so many connections at the same time.
    pub(crate) fn new(connections: usize, limits: Limits, trust: Trust) -> Client {
        Client {
            permits: Semaphore::new(connections),
            limits,
            trust,
        }
    }

    /// Gets a page, and has `read` read it while it comes. Redirects are followed, also from `https` to `http`, as
    /// curl does: a request has nothing that would have to be kept secret.
    ///
    /// # Errors
    ///
    /// That of the step that failed, with its name. `TimedOut` tells in which step the time was over.
    pub(crate) fn get<T>(
        &self,
        url: &str,
        read: impl FnOnce(&mut Answer) -> io::Result<T>,
    ) -> io::Result<T> {
        let url = Url::parse(url)?;
        let _permit = self.permits.acquire();
        let step = Step(Cell::new(""));
        let fetched = timeout(self.limits.total, || self.follow(url, &step, read));
        fetched
            .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
            .map_err(|error| step.explain(error))
    }

    fn follow<T>(
        &self,
        mut url: Url,
        step: &Step,
        read: impl FnOnce(&mut Answer) -> io::Result<T>,
    ) -> io::Result<T> {
        for _ in 0..=MAX_REDIRECTS {
            let mut connection = self.connect(&url, step)?;
            step.begin("asking");
            let (authority, target) = (url.authority(), &url.target);
            let head = format!("GET {target} HTTP/1.1\r\nHost: {authority}\r\n");
            let head = format!("{head}User-Agent: greenroom\r\nConnection: close\r\n\r\n");
            connection.write_all(head.as_bytes())?;
            connection.flush()?;
            step.begin("waiting for the answer");
            let mut reader = BufReader::with_capacity(MAX_HEAD, &mut connection);
            let (status, fields) = read_head(&mut reader)?;
            step.begin("reading the body");
            let body = Body::new(&mut reader, status, &fields)?;
            let mut answer = Answer {
                url,
                status,
                fields,
                body,
            };
            match (status, answer.field("Location")) {
                (301 | 302 | 303 | 307 | 308, Some(location)) => {
                    step.begin("redirected");
                    url = answer.url.join(location)?;
                    connection.close();
                }
                _ => {
                    let read = read(&mut answer)?;
                    connection.close();
                    return Ok(read);
                }
            }
        }
        Err(io::Error::other(format!("more than {MAX_REDIRECTS} times")))
    }

    fn connect(&self, url: &Url, step: &Step) -> io::Result<Box<dyn Connection>> {
        timeout(self.limits.connect, || self.reach(url, step))?
    }

    fn reach(&self, url: &Url, step: &Step) -> io::Result<Box<dyn Connection>> {
        step.begin("resolving the name");
        let addresses: Vec<_> = (&*url.host, url.port).to_socket_addrs()?.collect();
        step.begin("connecting");
        let tcp = TcpStream::connect(&*addresses)?;
        if url.scheme == Scheme::Http {
            return Ok(Box::new(tcp));
        }
        step.begin("TLS handshake");
        Ok(Box::new(self.trust.connect(&url.host, tcp)?))
    }
}

/// A connection to a server, with TLS or without.
trait Connection: Read + Write {
    /// Says that nothing more will be asked.
    fn close(&mut self);
}

impl Connection for TcpStream {
    /// Its end says so.
    fn close(&mut self) {}
}

impl Connection for TlsStream {
    /// The answer is complete, so it does not matter whether the server hears this.
    fn close(&mut self) {
        self.conn.send_close_notify();
        let _ = self.flush();
    }
}

/// What a fetch does, for its error.
struct Step(Cell<&'static str>);

impl Step {
    fn begin(&self, name: &'static str) {
        self.0.set(name);
    }

    fn explain(&self, error: io::Error) -> io::Error {
        let step = self.0.get();
        match error.kind() {
            ErrorKind::TimedOut => {
                io::Error::new(ErrorKind::TimedOut, format!("{step}: timed out"))
            }
            kind => io::Error::new(kind, format!("{step}: {error}")),
        }
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

type Fields = Vec<(String, String)>;

/// Reads the head of the answer, behind preliminary ones.
fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, Fields)> {
    let mut left = MAX_HEAD as u64;
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\n\r\n") && !head.ends_with(b"\n\n") {
            match reader.take(left).read_until(b'\n', &mut head)? {
                0 if left == 0 => return Err(invalid("the head is too long")),
                0 => return Err(invalid("the head is cut off")),
                read => left -= read as u64,
            }
        }
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut answer = httparse::Response::new(&mut fields);
        match answer.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {}
            _ => return Err(invalid("malformed head")),
        }
        let owned = |field: &httparse::Header<'_>| {
            let value = String::from_utf8_lossy(field.value);
            (field.name.to_owned(), value.into_owned())
        };
        match answer.code.unwrap_or(0) {
            // Nobody has asked for another protocol.
            100 | 102..=199 => {}
            status => return Ok((status, answer.headers.iter().map(owned).collect())),
        }
    }
}

/// The body of an answer.
pub(crate) enum Body<'c> {
    Known(io::Take<Input<'c>>),
    Chunked(Chunked<Input<'c>>),
    /// Up to the end of the connection.
    Open(Input<'c>),
}

type Input<'c> = &'c mut dyn BufRead;

impl<'c> Body<'c> {
    fn new(input: Input<'c>, status: u16, fields: &Fields) -> io::Result<Body<'c>> {
        let all = |name: &str| -> Vec<&str> {
            let named = fields
                .iter()
                .filter(|(own, _)| own.eq_ignore_ascii_case(name));
            named.map(|(_, value)| value.as_str()).collect()
        };
        match (&all("transfer-encoding")[..], &all("content-length")[..]) {
            _ if matches!(status, 204 | 304) => Ok(Body::Known(input.take(0))),
            ([], []) => Ok(Body::Open(input)),
            ([], [digits, same @ ..]) if same.iter().all(|other| other == digits) => {
                let length = digits.parse().map_err(|_| invalid("malformed length"))?;
                Ok(Body::Known(input.take(length)))
            }
            ([coding], _) if coding.eq_ignore_ascii_case("chunked") => {
                Ok(Body::Chunked(Chunked::new(input)))
            }
            _ => Err(invalid("unknown length")),
        }
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let cut_off = |left| {
            io::Error::new(
                ErrorKind::UnexpectedEof,
                format!("{left} bytes are missing"),
            )
        };
        match self {
            Body::Known(known) => match known.read(buf)? {
                0 if known.limit() > 0 && !buf.is_empty() => Err(cut_off(known.limit())),
                read => Ok(read),
            },
            Body::Chunked(chunked) => chunked.read(buf),
            Body::Open(input) => input.read(buf),
        }
    }
}
