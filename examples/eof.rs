//! A client whose server goes away while the client reads: it reads all data first, and then the end of file, for
//! ever. If the server resets the connection, it gets one error in between.
//!
//! ```text
//! $ cargo run --example eof
//! close   b"DATA", the end, the end, the end
//! reset   b"DATA", connection reset, the end, the end
//! unread  b"DATA", connection reset, the end, the end
//! ```
//!
//! A close resets the connection, too, if the server has not read all that the client has sent. Given one of
//! these words and an address, this program serves until it is killed:
//!
//! ```text
//! $ cargo run --example eof -- close 127.0.0.1:3000
//! serving on 127.0.0.1:3000
//! ```

#[path = "util/accept.rs"]
mod accept;
#[path = "util/outcome.rs"]
mod outcome;

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::spawn;
use rustix::net::sockopt::set_socket_linger;

/// How a server ends a connection, and what its client sends before.
type End = (&'static str, fn(TcpStream) -> io::Result<()>, &'static str);

const ENDS: [End; 3] = [
    ("close", close, ""),
    ("reset", reset, ""),
    ("unread", unread, "hello"),
];

fn close(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"DATA")
}

fn reset(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(b"DATA")?;
    Ok(set_socket_linger(&stream, Some(Duration::ZERO))?)
}

/// Reads only the first byte of what the client has sent.
fn unread(mut stream: TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0])?;
    stream.write_all(b"DATA")
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let done = match &arguments[..] {
        [] => ENDS.into_iter().try_for_each(demonstrate),
        [name, address] => serve(name, address),
        _ => Err(io::Error::other("no end and address")),
    };
    outcome::status(done, "Usage: eof [close|reset|unread IP:PORT]")
}

fn serve(name: &str, address: &str) -> io::Result<()> {
    let found = ENDS.iter().find(|(known, ..)| *known == name);
    let &(_, end, _) = found.ok_or_else(|| io::Error::other(format!("no end '{name}'")))?;
    let listener = TcpListener::bind(address)?;
    println!("serving on {}", listener.local_addr()?);
    accept::each(&listener, move |stream, _| end(stream))
}

fn demonstrate((name, end, sends): End) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    spawn(move || end(listener.accept()?.0));
    stream.write_all(sends.as_bytes())?;
    let reads: Vec<_> = (0..4).map(|_| read(&mut stream)).collect();
    println!("{name:<7} {}", reads.join(", "));
    Ok(())
}

/// One read, in words.
fn read(stream: &mut TcpStream) -> String {
    let mut buf = [0; 100];
    match stream.read(&mut buf) {
        Ok(0) => "the end".into(),
        Ok(length) => format!("b{:?}", String::from_utf8_lossy(&buf[..length])),
        Err(error) => error.kind().to_string(),
    }
}
