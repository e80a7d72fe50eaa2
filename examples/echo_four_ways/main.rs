//! The echo server four ways: the styles that a program without coroutines has to choose from, each as a
//! few lines over code that waits. The terminator style sends a line back without its end, as its original
//! does.
//!
//! ```text
//! $ cargo run --example echo_four_ways
//! select      "A few lines of data\n" "to test the operation\n" "of both server and client.\n"
//! dispatcher  "A few lines of data\n" "to test the operation\n" "of both server and client.\n"
//! terminator  "A few lines of data" "to test the operation" "of both server and client."
//! protocol    "A few lines of data\n" "to test the operation\n" "of both server and client.\n"
//! dispatcher  has served 3 clients, and ended by itself
//! ```
//!
//! `echo_server.rs` is the fifth way, without a style. Given one of these names and an address, this program
//! serves until it is killed, and logs on stderr:
//!
//! ```text
//! $ cargo run --release --example echo_four_ways -- select 127.0.0.1:8881
//! serving on 127.0.0.1:8881
//! ```
//!
//! Given a number of clients as well, the dispatchers end after the last of them, and the program with them.

#[path = "../util/accept.rs"]
mod accept;
mod dispatcher;
#[path = "../util/outcome.rs"]
mod outcome;
mod protocol;
mod select;
mod terminator;
mod transport;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::{ListenOptions, spawn};

const USAGE: &str = "\
Usage: echo_four_ways [select|dispatcher|terminator|protocol IP:PORT]
       echo_four_ways dispatcher IP:PORT CLIENTS";

type Style = (&'static str, fn(TcpListener));

const STYLES: [Style; 4] = [
    ("select", select::serve),
    ("dispatcher", dispatcher::serve),
    ("terminator", terminator::serve),
    ("protocol", protocol::serve),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    outcome::status(run(&arguments), USAGE)
}

fn run(arguments: &[String]) -> io::Result<()> {
    match arguments {
        [] => {
            for (name, serve) in STYLES {
                demonstrate(name, serve)?;
            }
            demonstrate_end()
        }
        [style, address] => start(address, find(style)?),
        [style, address, clients] if style == "dispatcher" => {
            let clients = count(clients)?;
            start(address, |listener| {
                dispatcher::serve_only(listener, clients)
            })
        }
        _ => Err(io::Error::other("no style and address")),
    }
}

fn find(style: &str) -> io::Result<fn(TcpListener)> {
    let found = STYLES.iter().find(|(name, _)| *name == style);
    let found = found.map(|&(_, serve)| serve);
    found.ok_or_else(|| io::Error::other(format!("no style '{style}'")))
}

fn count(clients: &str) -> io::Result<usize> {
    let error = |error| io::Error::other(format!("'{clients}' clients: {error}"));
    clients.parse().map_err(error)
}

fn start(address: &str, serve: impl FnOnce(TcpListener)) -> io::Result<()> {
    // Room for a crowd that comes all at once.
    let listener = ListenOptions::new().backlog(1024).listen(address)?;
    println!("serving on {}", listener.local_addr()?);
    serve(listener);
    Ok(())
}

fn demonstrate(name: &str, serve: fn(TcpListener)) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    spawn(move || serve(listener));
    print!("{name:<11}");
    for line in [
        "A few lines of data\n",
        "to test the operation\n",
        "of both server and client.\n",
    ] {
        stream.write_all(line.as_bytes())?;
        let mut reply = [0; 8192];
        let length = stream.read(&mut reply)?;
        print!(" {:?}", String::from_utf8_lossy(&reply[..length]));
    }
    println!();
    Ok(())
}

fn demonstrate_end() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let served = spawn(|| dispatcher::serve_only(listener, 3));
    for _ in 0..3 {
        // It closes at once.
        TcpStream::connect(address)?;
    }
    served.join().expect("no panic");
    println!("dispatcher  has served 3 clients, and ended by itself");
    Ok(())
}
