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

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::spawn;

fn serve(listener: TcpListener) -> io::Result<()> {
    for stream in listener.incoming() {
        let mut stream = stream?;
        spawn(move || io::copy(&mut stream.try_clone()?, &mut stream));
    }
    Ok(())
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

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    if let Some(address) = arguments.next() {
        let door = arguments.next().map(greenroom::backdoor::serve);
        let _backdoor = door.transpose()?;
        return serve(TcpListener::bind(address)?);
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    spawn(move || serve(listener));
    ask(address)
}
