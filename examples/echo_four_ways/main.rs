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
//! ```
//!
//! `echo_server.rs` is the fifth way, without a style. Given one of these names and an address, this program
//! serves until it is killed, and logs on stderr:
//!
//! ```text
//! $ cargo run --release --example echo_four_ways -- select 127.0.0.1:8881
//! serving on 127.0.0.1:8881
//! ```

mod dispatcher;
mod protocol;
mod select;
mod terminator;
mod transport;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::{ListenOptions, spawn};

type Style = (&'static str, fn(TcpListener));

const STYLES: [Style; 4] = [
    ("select", select::serve),
    ("dispatcher", dispatcher::serve),
    ("terminator", terminator::serve),
    ("protocol", protocol::serve),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let done = match &arguments[..] {
        [] => STYLES
            .iter()
            .try_for_each(|&(name, serve)| demonstrate(name, serve)),
        [style, address] => serve(style, address),
        _ => Err(io::Error::other("no style and address")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            eprintln!("Usage: echo_four_ways [select|dispatcher|terminator|protocol IP:PORT]");
            ExitCode::FAILURE
        }
    }
}

fn serve(style: &str, address: &str) -> io::Result<()> {
    let found = STYLES.iter().find(|(name, _)| *name == style);
    let (_, serve) = found.ok_or_else(|| io::Error::other(format!("no style '{style}'")))?;
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
