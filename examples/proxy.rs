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

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use greenroom::shims::io;
use greenroom::shims::net::{Shutdown, TcpListener, TcpStream};
use greenroom::{scope, spawn};

fn serve(listener: TcpListener, server: SocketAddr) -> io::Result<()> {
    for client in listener.incoming() {
        let client = client?;
        spawn(move || {
            if let Err(error) = proxy(&client, server) {
                eprintln!("a connection has failed: {error}");
            }
        });
    }
    Ok(())
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
fn shout(listener: TcpListener) -> io::Result<()> {
    for stream in listener.incoming() {
        let mut stream = stream?;
        spawn(move || {
            let mut text = Vec::new();
            stream.read_to_end(&mut text)?;
            stream.write_all(&text.to_ascii_uppercase())
        });
    }
    Ok(())
}

fn ask(server: SocketAddr, text: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(text)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn main() -> io::Result<()> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let mut addresses = std::env::args().skip(1);
    if let (Some(listen), Some(server)) = (addresses.next(), addresses.next()) {
        let server = server.parse().map_err(invalid)?;
        return serve(TcpListener::bind(listen)?, server);
    }
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
