//! A client that sends any bytes, and knows the frames of RFC 6455.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::program::{Server, command};

/// Bits of a frame's first byte, and its kinds.
pub(crate) const FIN: u8 = 0x80;
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// The codes of a frame that closes.
pub(crate) const AWAY: u16 = 1001;
pub(crate) const PROTOCOL: u16 = 1002;
pub(crate) const UNSUPPORTED: u16 = 1003;
pub(crate) const INVALID: u16 = 1007;
pub(crate) const POLICY: u16 = 1008;
pub(crate) const TOO_LONG: u16 = 1009;

/// The key and its answer that the RFC has as an example.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub(crate) fn start() -> Server {
    Server::start_command(&mut program(&["127.0.0.1:0"]))
}

pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_chat"));
    command.args(arguments);
    command
}

/// Asks the program to end.
pub(crate) fn terminate(server: &Server) {
    kill_process(Pid::from_child(&server.child), Signal::TERM).unwrap();
}

/// The head of a request for a WebSocket.
pub(crate) fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    )
}

/// A frame as a client sends it, masked.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = head(first, payload.len() as u64);
    frame.extend(MASK);
    let masked = payload.iter().zip(MASK.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

/// The first bytes of a frame that is masked, and has a payload of this length.
pub(crate) fn head(first: u8, length: u64) -> Vec<u8> {
    let mut head = vec![first];
    match length {
        0..126 => head.push(0x80 | length as u8),
        126..0x1_0000 => {
            head.push(0x80 | 126);
            head.extend((length as u16).to_be_bytes());
        }
        _ => {
            head.push(0x80 | 127);
            head.extend(length.to_be_bytes());
        }
    }
    head
}

/// The payload of a frame that closes.
pub(crate) fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(server: &Server, path: &str) -> Client {
        Client::on(server.connect(), path)
    }

    pub(crate) fn on(mut stream: TcpStream, path: &str) -> Client {
        write!(stream, "{}\r\n", upgrade(path)).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        let head = head.to_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        let accept = format!("sec-websocket-accept: {ACCEPT}\r\n").to_lowercase();
        assert!(head.contains(&accept), "{head}");
        Client { stream, reader }
    }

    /// Joins the chat. Returns what it welcomes with.
    pub(crate) fn join(server: &Server, name: &str) -> (Client, Value) {
        let mut client = Client::connect(server, "/socket");
        client.text(name);
        let welcome = client.event();
        assert_eq!(welcome["kind"], "welcome", "{welcome}");
        (client, welcome)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.send(&frame(FIN | TEXT, text.as_bytes()));
    }

    /// The first byte and the payload of the next frame, or `None` at the end of the connection.
    pub(crate) fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        self.try_receive().unwrap()
    }

    /// The same. Fails if the connection is cut amid a frame.
    pub(crate) fn try_receive(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        if self.reader.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut head = [0; 2];
        self.reader.read_exact(&mut head)?;
        let [first, length] = head;
        assert!(length < 0x80, "the server has masked a frame");
        let length = match length {
            126 => {
                let mut length = [0; 2];
                self.reader.read_exact(&mut length)?;
                u16::from_be_bytes(length).into()
            }
            127 => {
                let mut length = [0; 8];
                self.reader.read_exact(&mut length)?;
                u64::from_be_bytes(length)
            }
            short => short.into(),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.reader.read_exact(&mut payload)?;
        Ok(Some((first, payload)))
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, first: u8, payload: &[u8]) {
        let (got, bytes) = self.receive().expect("a frame");
        assert_eq!(got, first, "{}", String::from_utf8_lossy(&bytes));
        crate::util::assert_same_bytes(&bytes, payload);
    }

    /// The next event of the chat. Answers pings before it.
    #[track_caller]
    pub(crate) fn event(&mut self) -> Value {
        loop {
            match self.receive().expect("an event") {
                (first, payload) if first == FIN | PING => self.send(&frame(FIN | PONG, &payload)),
                (first, payload) => {
                    assert_eq!(first, FIN | TEXT, "{payload:?}");
                    return serde_json::from_slice(&payload).unwrap();
                }
            }
        }
    }

    /// Reads up to the frame that closes, and the end of the connection. Returns the code.
    #[track_caller]
    pub(crate) fn code_of_close(&mut self) -> u16 {
        loop {
            let (first, payload) = self.receive().expect("a frame that closes");
            if first == FIN | CLOSE {
                let _ = self.stream.write_all(&frame(FIN | CLOSE, &payload));
                assert_eq!(self.receive(), None);
                let _ = self.stream.shutdown(Shutdown::Write);
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }
}
