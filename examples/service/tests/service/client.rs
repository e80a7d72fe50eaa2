//! A running service, and a client of it.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use crate::program::{Server, command};
use crate::util::own_loopback;

/// The command that starts the service, on an address of its own: nothing else listens there when it has ended.
pub(crate) fn service(journal: &Path, flags: &[&str]) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_service"));
    let address = format!("{}:0", own_loopback());
    let listen: [&OsStr; 4] = [
        "--listen".as_ref(),
        address.as_ref(),
        "--journal".as_ref(),
        journal.as_os_str(),
    ];
    command.args(listen).args(flags);
    command
}

pub(crate) fn start(journal: &Path, flags: &[&str]) -> Server {
    Server::start_command(&mut service(journal, flags))
}

/// A client that keeps its connection.
pub(crate) struct Client(BufReader<TcpStream>);

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) content: String,
}

impl Client {
    pub(crate) fn new(server: &Server) -> Client {
        Client::over(server.connect())
    }

    pub(crate) fn over(stream: TcpStream) -> Client {
        Client(BufReader::new(stream))
    }

    /// The address that the service sees.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.get_ref().local_addr().unwrap()
    }

    pub(crate) fn send(&mut self, text: &str) -> io::Result<()> {
        self.0.get_mut().write_all(text.as_bytes())
    }

    /// Reads an answer of known length. `None`, if the connection ends instead.
    pub(crate) fn answer(&mut self) -> io::Result<Option<Answer>> {
        let Some((status, head)) = self.head()? else {
            return Ok(None);
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length
            .and_then(|length| length.parse().ok())
            .expect("a length");
        let mut content = vec![0; length];
        self.0.read_exact(&mut content)?;
        let content = String::from_utf8(content).unwrap();
        Ok(Some(Answer {
            status,
            head,
            content,
        }))
    }

    /// Reads the status and the rest of the head.
    pub(crate) fn head(&mut self) -> io::Result<Option<(u16, String)>> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head)? == 0 {
                return match head.is_empty() {
                    true => Ok(None),
                    false => Err(ErrorKind::UnexpectedEof.into()),
                };
            }
        }
        let status = head
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        let status = status
            .and_then(|status| status.parse().ok())
            .expect("a status");
        Ok(Some((status, head)))
    }

    pub(crate) fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line)
    }

    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
            .unwrap();
        self.answer().unwrap().expect("an answer")
    }

    #[track_caller]
    pub(crate) fn shorten(&mut self, address: &str) -> Answer {
        self.send(&post(address)).unwrap();
        self.answer().unwrap().expect("an answer")
    }
}

/// The request that makes a link.
pub(crate) fn post(address: &str) -> String {
    let length = address.len();
    format!("POST /links HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{address}")
}
