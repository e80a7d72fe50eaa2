//! UDP with a timeout: two servers are asked at the same time, and one of them does not answer.
//!
//! ```text
//! $ cargo run --example udp_timeout
//! the first server answers: PING
//! the second server does not answer in time
//! ```

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use greenroom::shims::net::UdpSocket;
use greenroom::spawn;

fn ask(server: SocketAddr, timeout: Duration) -> io::Result<Option<String>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(timeout))?;
    socket.send_to(b"ping", server)?;
    let mut answer = [0; 100];
    match socket.recv(&mut answer) {
        Ok(length) => Ok(Some(String::from_utf8_lossy(&answer[..length]).into())),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn main() -> io::Result<()> {
    let server = UdpSocket::bind("127.0.0.1:0")?;
    let silent = UdpSocket::bind("127.0.0.1:0")?;
    let (first, second) = (server.local_addr()?, silent.local_addr()?);
    spawn(move || {
        let mut question = [0; 100];
        let (length, client) = server.recv_from(&mut question)?;
        server.send_to(&question[..length].to_ascii_uppercase(), client)
    });

    let first = spawn(move || ask(first, Duration::from_secs(10)));
    let second = spawn(move || ask(second, Duration::from_millis(100)));
    for (name, asked) in [("first", first), ("second", second)] {
        match asked.join().unwrap()? {
            Some(answer) => println!("the {name} server answers: {answer}"),
            None => println!("the {name} server does not answer in time"),
        }
    }
    Ok(())
}
