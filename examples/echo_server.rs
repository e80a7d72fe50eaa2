//! An echo server: a coroutine for each connection, in the code one would write with threads.
//!
//! ```text
//! $ cargo run --example echo_server
//! the server echoes: hello
//! the server echoes: hello again
//! ```
//!
//! Given an address, it serves there until it is killed:
//! `cargo run --example echo_server -- 127.0.0.1:7000`, and then `nc 127.0.0.1 7000`. Given a path, too, it serves a
//! backdoor there, for `examples/top`: `cargo run -p top -- PATH`.

#[path = "util/outcome.rs"]
mod outcome;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::thread::sleep;
use greenroom::{Builder, spawn};

fn serve(listener: TcpListener) {
    for stream in listener.incoming() {
        let served = stream
            .and_then(|stream| Builder::new().spawn(move || io::copy(&mut &stream, &mut &stream)));
        // Mostly there are no descriptors left, until connections close.
        if let Err(error) = served {
            eprintln!("cannot accept: {error}");
            sleep(Duration::from_millis(20));
        }
    }
}

fn ask(server: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    for text in ["hello", "hello again"] {
        stream.write_all(text.as_bytes())?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer)?;
        println!("the server echoes: {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let done = match &arguments[..] {
        [] => demonstrate(),
        [address] => serve_at(address),
        [address, door] => greenroom::backdoor::serve(door)
            .map_err(|error| outcome::about(door, error))
            .and_then(|_backdoor| serve_at(address)),
        _ => Err(io::Error::other("more than an address and a path")),
    };
    outcome::status(done, "Usage: echo_server [IP:PORT [PATH OF A BACKDOOR]]")
}

fn serve_at(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address).map_err(|error| outcome::about(address, error))?;
    println!("serving on {}", listener.local_addr()?);
    serve(listener);
    Ok(())
}

fn demonstrate() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    spawn(move || serve(listener));
    ask(address)
}
