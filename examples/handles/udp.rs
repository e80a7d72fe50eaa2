//! UDP: a datagram, its answer, and one that is not answered.

use std::io::{self, ErrorKind};
use std::time::Duration;

use greenroom::shims::net::UdpSocket;
use greenroom::spawn;

pub(crate) fn show() -> io::Result<String> {
    let server = UdpSocket::bind("127.0.0.1:0")?;
    let client = UdpSocket::bind("127.0.0.1:0")?;
    client.connect(server.local_addr()?)?;
    let answers_once = spawn(move || {
        let mut buf = [0; 1500];
        let (length, peer) = server.recv_from(&mut buf)?;
        server.send_to(&buf[..length], peer)?;
        io::Result::Ok(server)
    });
    let mut buf = [0; 1500];
    client.send(b"ping")?;
    let length = client.recv(&mut buf)?;
    let answer = String::from_utf8_lossy(&buf[..length]);

    let _silent = answers_once.join().expect("no panic")?;
    client.send(b"ping")?;
    client.set_read_timeout(Some(Duration::from_millis(20)))?;
    match client.recv(&mut [0; 1500]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Ok(format!("{answer:?}, and then no answer within 20 ms"))
        }
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("an answer from nowhere")),
    }
}
