//! A TCP proxy: two coroutines for each connection, one for each direction. When one side has sent all it has, the
//! other side learns that, and can still answer.
//!
//! ```text
//! $ cargo run --example proxy
//! through the proxy: HELLO
//! through the proxy: 1048576 bytes there and back
//! ```
//!
//! Given two addresses, it listens on the first and connects to the second:
//! `cargo run --example proxy -- 127.0.0.1:7000 127.0.0.1:22`.

#[path = "util/accept.rs"]
mod accept;
#[path = "util/outcome.rs"]
mod outcome;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use greenroom::shims::io;
use greenroom::shims::net::{Shutdown, TcpListener, TcpStream};
use greenroom::{scope, spawn};

fn serve(listener: TcpListener, server: SocketAddr) {
    accept::each(&listener, move |client, _| {
        if let Err(error) = proxy(&client, server) {
            eprintln!("a connection has failed: {error}");
        }
    })
}

fn proxy(client: &TcpStream, server: SocketAddr) -> io::Result<()> {
    let server = &TcpStream::connect_timeout(&server, Duration::from_secs(10))?;
    scope(|s| {
        let there = s.spawn(|| pass(client, server));
        pass(server, client)?;
        there.join().expect("a copy does not panic")
    })
}

/// Copies all that `from` sends, and then tells `to` that there is no more.
fn pass(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    match io::copy(&mut from, &mut to) {
        Ok(_) => to.shutdown(Shutdown::Write),
        Err(error) => {
            // Ends the other direction, too.
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            Err(error)
        }
    }
}

/// Answers with what it was sent, in capital letters, when the client has sent all.
fn shout(listener: TcpListener) {
    accept::each(&listener, |mut stream, _| {
        let mut text = Vec::new();
        stream.read_to_end(&mut text)?;
        stream.write_all(&text.to_ascii_uppercase())
    })
}

fn ask(server: SocketAddr, text: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(text)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let done = match &arguments[..] {
        [] => demonstrate(),
        [listen, server] => serve_at(listen, server),
        _ => Err(io::Error::other("not two addresses")),
    };
    outcome::status(done, "Usage: proxy [IP:PORT IP:PORT OF THE SERVER]")
}

fn serve_at(listen: &str, server: &str) -> io::Result<()> {
    let invalid = |error| outcome::about(server, io::Error::other(error));
    let server = server.parse().map_err(invalid)?;
    let listener = TcpListener::bind(listen).map_err(|error| outcome::about(listen, error))?;
    println!("serving on {}", listener.local_addr()?);
    serve(listener, server);
    Ok(())
}

fn demonstrate() -> io::Result<()> {
    let server = TcpListener::bind("127.0.0.1:0")?;
    let shouting = server.local_addr()?;
    spawn(move || shout(server));
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    spawn(move || serve(listener, shouting));

    let answer = ask(address, b"hello")?;
    println!("through the proxy: {}", String::from_utf8_lossy(&answer));
    let much = vec![b'm'; 1 << 20];
    let answer = ask(address, &much)?;
    assert!(answer == much.to_ascii_uppercase());
    println!("through the proxy: {} bytes there and back", answer.len());
    Ok(())
}
