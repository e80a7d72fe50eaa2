//! PostgreSQL's protocol, version 3, as sequential code: a query is written, then its reply is read. The streams
//! park the coroutine.
//!
//! It has what simple queries need: logins without a password, with one in clear text, and with SCRAM; statements and
//! rows as text; errors, notices. It does not have TLS, `COPY`, or prepared statements.
//!
//! A message has a byte for its kind, a length in four bytes, which counts itself, and its content. See "Message
//! Formats" in PostgreSQL's manual.

use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use greenroom::shims::net::TcpStream;
use greenroom::shims::os::unix::net::UnixStream;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};

use crate::{Error, Login, Row, is_quiet, text};

/// The longest message that is accepted, in bytes.
const MAX_MESSAGE: usize = 16 << 20;

/// How much memory the rows of one reply may take, in bytes.
const MAX_REPLY: usize = 64 << 20;

const PROTOCOL_3_0: i32 = 3 << 16;

/// A connection that has logged in.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<Stream>,
    /// Whether a query has been sent whose reply has not been read to its end. It stays so if the reply makes no
    /// sense, and if an interrupt unwinds the caller.
    in_query: bool,
}

impl crate::Connection for Connection {
    fn rows(&mut self, query: &str) -> Result<Vec<Row>, Error> {
        if query.contains('\0') {
            return Err(crate::zero_byte());
        }
        if self.in_query {
            return Err(Error::Lost(
                "a query before this one was not finished".into(),
            ));
        }
        self.in_query = true;
        let outcome = self.exchange(query).map_err(Error::Lost)?;
        self.in_query = false;
        outcome.map_err(|Refusal { code, message, .. }| Error::Query { code, message })
    }

    fn is_usable(&self) -> bool {
        !self.in_query && self.stream.buffer().is_empty() && is_quiet(self.stream.get_ref())
    }
}

impl Connection {
    /// Connects, and logs in.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`].
    pub fn open(login: &Login) -> Result<Connection, Error> {
        let open = || {
            let stream = Stream::connect(login).map_err(|error| error.to_string())?;
            let mut connection = Connection {
                stream: BufReader::new(stream),
                in_query: false,
            };
            connection.log_in(login)?;
            Ok(connection)
        };
        open().map_err(|why: String| Error::Connect(format!("{login}: {why}")))
    }
}

// In these, an error is a reason to give the connection up.
impl Connection {
    fn log_in(&mut self, login: &Login) -> Result<(), String> {
        let Login { user, database, .. } = login;
        let settings = [
            ("user", user),
            ("database", database),
            ("client_encoding", &"UTF8".to_owned()),
        ];
        let mut startup = Content::default().int(PROTOCOL_3_0);
        for (name, value) in settings {
            startup = startup.text(name)?.text(value)?;
        }
        self.send(None, startup.byte(0))?;
        loop {
            let Message { kind, content } = self.receive()?;
            match kind {
                b'R' => self.authenticate(Fields(&content), login)?,
                // The key for cancellations.
                b'K' => {}
                b'E' => return Err(Refusal::parse(&content)?.to_string()),
                b'Z' => return Ok(()),
                kind => return Err(unexpected(kind)),
            }
        }
    }

    /// Does what the server asks for.
    fn authenticate(&mut self, mut asked: Fields<'_>, login: &Login) -> Result<(), String> {
        let password = || {
            login
                .password
                .as_deref()
                .ok_or("the server asks for a password")
        };
        match asked.int()? {
            0 => Ok(()),
            3 => self.send(Some(b'p'), Content::default().text(password()?)?),
            10 => self.authenticate_by_scram(asked, password()?),
            method => Err(format!(
                "the server asks for login method {method}, which is not supported"
            )),
        }
    }

    fn authenticate_by_scram(
        &mut self,
        mut offered: Fields<'_>,
        password: &str,
    ) -> Result<(), String> {
        let not_offered = |_| "the server does not offer SCRAM";
        while offered.string().map_err(not_offered)? != SCRAM_SHA_256 {}
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let first = Content::default()
            .text(SCRAM_SHA_256)?
            .counted(scram.message());
        self.send(Some(b'p'), first)?;
        let challenge = self.receive_step(11)?;
        scram
            .update(&challenge)
            .map_err(|error| error.to_string())?;
        self.send(Some(b'p'), Content(scram.message().to_owned()))?;
        let proof = self.receive_step(12)?;
        scram.finish(&proof).map_err(|error| error.to_string())
    }

    /// The content of the server's next message in a login.
    fn receive_step(&mut self, wanted: i32) -> Result<Vec<u8>, String> {
        let Message { kind, content } = self.receive()?;
        let mut fields = Fields(&content);
        match kind {
            b'R' if fields.int()? == wanted => Ok(fields.0.to_owned()),
            b'E' => Err(Refusal::parse(&content)?.to_string()),
            kind => Err(unexpected(kind)),
        }
    }

    /// Sends a query, and reads its whole reply.
    fn exchange(&mut self, query: &str) -> Result<Result<Vec<Row>, Refusal>, String> {
        self.send(Some(b'Q'), Content::default().text(query)?)?;
        let (mut rows, mut size) = (Vec::new(), 0);
        let mut outcome = Ok(Vec::new());
        loop {
            let Message { kind, content } = self.receive()?;
            match kind {
                // The names of the columns.
                b'T' => {}
                b'D' => {
                    let row = row(&content)?;
                    size += content.len() + size_of_val(&row) + size_of_val(&row[..]);
                    if size > MAX_REPLY {
                        return Err(format!("the reply has more than {MAX_REPLY} bytes"));
                    }
                    rows.push(row);
                }
                // The end of a statement, or of no statement at all.
                b'C' | b'I' => (outcome, size) = (Ok(std::mem::take(&mut rows)), 0),
                b'E' => {
                    let error = Refusal::parse(&content)?;
                    if error.ends_connection {
                        return Err(error.to_string());
                    }
                    outcome = Err(error);
                }
                b'Z' => return Ok(outcome),
                b'G' | b'H' => return Err(crate::NO_COPY.into()),
                kind => return Err(unexpected(kind)),
            }
        }
    }

    /// Sends a message. The first one has no kind.
    fn send(&mut self, kind: Option<u8>, Content(content): Content) -> Result<(), String> {
        let length = u32::try_from(content.len() + 4).map_err(|_| "the message is too long")?;
        let message = [kind.as_slice(), &length.to_be_bytes(), &content].concat();
        self.stream.get_mut().write_all(&message).map_err(broken)
    }

    /// Receives the next message, past those that may come at any time: notices, notifications, settings.
    fn receive(&mut self) -> Result<Message, String> {
        loop {
            let mut head = [0; 5];
            self.stream.read_exact(&mut head).map_err(broken)?;
            let [kind, length @ ..] = head;
            let length = u32::from_be_bytes(length) as usize;
            let length = length
                .checked_sub(4)
                .filter(|length| *length <= MAX_MESSAGE);
            let length =
                length.ok_or_else(|| format!("a message {head:?} without a sensible length"))?;
            // It grows with what comes, not by what was announced.
            let mut content = Vec::new();
            let mut announced = (&mut self.stream).take(length as u64);
            announced.read_to_end(&mut content).map_err(broken)?;
            if content.len() < length {
                return Err(broken(io::ErrorKind::UnexpectedEof.into()));
            }
            if !matches!(kind, b'N' | b'A' | b'S') {
                return Ok(Message { kind, content });
            }
        }
    }
}

struct Message {
    kind: u8,
    content: Vec<u8>,
}

/// What the server has against a login or a query.
struct Refusal {
    code: String,
    message: String,
    ends_connection: bool,
}

impl Refusal {
    fn parse(content: &[u8]) -> Result<Refusal, String> {
        let mut fields = Fields(content);
        let (mut severity, mut code, mut message) = <(String, String, String)>::default();
        loop {
            let text = match fields.byte()? {
                0 => break,
                b'V' => &mut severity,
                b'C' => &mut code,
                b'M' => &mut message,
                _ => &mut String::new(),
            };
            *text = fields.string()?;
        }
        Ok(Refusal {
            code,
            message,
            ends_connection: severity != "ERROR",
        })
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

fn row(content: &[u8]) -> Result<Row, String> {
    let mut fields = Fields(content);
    let columns = fields.short()?;
    let row = (0..columns).map(|_| match fields.int()? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| MALFORMED)?;
            text(fields.bytes(length)?).map(Some)
        }
    });
    row.collect()
}

fn broken(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the server has closed the connection".into(),
        _ => error.to_string(),
    }
}

fn unexpected(kind: u8) -> String {
    let kind = kind.escape_ascii();
    format!("an unexpected message of kind '{kind}'")
}

const MALFORMED: &str = "a malformed message";

/// The content of a message that was received, from the front.
struct Fields<'m>(&'m [u8]);

impl<'m> Fields<'m> {
    fn bytes(&mut self, length: usize) -> Result<&'m [u8], String> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(MALFORMED)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.array().map(u8::from_be_bytes)
    }

    fn short(&mut self) -> Result<u16, String> {
        self.array().map(u16::from_be_bytes)
    }

    fn int(&mut self) -> Result<i32, String> {
        self.array().map(i32::from_be_bytes)
    }

    /// Up to a zero.
    fn string(&mut self) -> Result<String, String> {
        let length = self.0.iter().position(|byte| *byte == 0).ok_or(MALFORMED)?;
        let string = text(self.bytes(length)?)?;
        self.byte()?;
        Ok(string)
    }
}

/// The content of a message that will be sent.
#[derive(Default)]
struct Content(Vec<u8>);

impl Content {
    fn byte(mut self, byte: u8) -> Content {
        self.0.push(byte);
        self
    }

    fn int(mut self, int: i32) -> Content {
        self.0.extend(int.to_be_bytes());
        self
    }

    /// A text with a zero at its end.
    fn text(mut self, text: &str) -> Result<Content, String> {
        if text.contains('\0') {
            return Err("a text contains a zero byte".into());
        }
        self.0.extend(text.as_bytes());
        Ok(self.byte(0))
    }

    /// Bytes after their number.
    fn counted(mut self, bytes: &[u8]) -> Content {
        self = self.int(i32::try_from(bytes.len()).expect("a few bytes"));
        self.0.extend(bytes);
        self
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn connect(login: &Login) -> io::Result<Stream> {
        if login.host.starts_with('/') {
            let path = Path::new(&login.host).join(format!(".s.PGSQL.{}", login.port));
            return UnixStream::connect(path).map(Stream::Unix);
        }
        let stream = TcpStream::connect((login.host.as_str(), login.port))?;
        stream.set_nodelay(true)?;
        Ok(Stream::Tcp(stream))
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buf),
            Stream::Unix(stream) => stream.read(buf),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(buf),
            Stream::Unix(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}
