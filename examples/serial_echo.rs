//! The book's echo server and client, as they are written for std. By the first line, the thread for each
//! client is a coroutine, and a client that is silent holds up no other.
//!
//! ```text
//! $ cargo run --example serial_echo
//! Connected to server
//! Sent: A few lines of data
//! Received: A few lines of data
//! Sent: to test the operation
//! Received: to test the operation
//! Sent: of both server and client.
//! Received: of both server and client.
//! ```
//!
//! `serial_echo server IP:PORT` is the server alone, and `serial_echo client IP:PORT` the client.

use greenroom::shims as std; // The program as it was begins below.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

fn converse(mut stream: TcpStream, address: SocketAddr) -> io::Result<()> {
    eprintln!("Connected from {address}");
    let mut data = [0; 8192];
    loop {
        let length = stream.read(&mut data)?;
        if length == 0 {
            break;
        }
        stream.write_all(&data[..length])?;
    }
    eprintln!("Disconnected from {address}");
    Ok(())
}

fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, address) = listener.accept()?;
        thread::spawn(move || converse(stream, address));
    }
}

fn ask(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    println!("Connected to server");
    let text = "A few lines of data\nto test the operation\nof both server and client.";
    for line in text.lines() {
        stream.write_all(line.as_bytes())?;
        println!("Sent: {line}");
        let mut reply = [0; 8192];
        let length = stream.read(&mut reply)?;
        println!("Received: {}", String::from_utf8_lossy(&reply[..length]));
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let given = arguments.get(1).map_or("127.0.0.1:0", String::as_str);
    let address: SocketAddr = given.parse().map_err(io::Error::other)?;
    match arguments.first().map(String::as_str) {
        Some("client") => ask(address),
        Some("server") => {
            let listener = TcpListener::bind(address)?;
            println!("serving on {}", listener.local_addr()?);
            serve(listener)
        }
        Some(_) => Err(io::Error::other("neither 'server' nor 'client'")),
        None => {
            let listener = TcpListener::bind(address)?;
            let address = listener.local_addr()?;
            thread::spawn(move || serve(listener));
            let _silent = TcpStream::connect(address)?;
            ask(address)
        }
    }
}
