//! A server that is far away.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// The name of the proxy's threads.
pub(crate) const THREADS: &str = "proxy";

/// Starts to pass on connections to the server: at once what the client says, and with a delay each piece of
/// what the server says. Returns the address to connect to. The threads end with the process.
pub(crate) fn delayed(server: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    on_a_thread(move || {
        for client in listener.incoming() {
            let client = client?;
            let server = TcpStream::connect(server)?;
            let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
            on_a_thread(move || pass_on(&from_client, &to_server, Duration::ZERO));
            on_a_thread(move || pass_on(&server, &client, delay));
        }
        Ok(())
    });
    address
}

fn on_a_thread(f: impl FnOnce() -> io::Result<()> + Send + 'static) {
    let builder = thread::Builder::new().name(THREADS.into());
    // A connection that breaks is the client's to notice.
    builder.spawn(|| f().unwrap_or_default()).unwrap();
}

fn pass_on(mut from: &TcpStream, mut to: &TcpStream, delay: Duration) -> io::Result<()> {
    let mut piece = [0; 4096];
    loop {
        match from.read(&mut piece)? {
            0 => return to.shutdown(Shutdown::Write),
            length => {
                thread::sleep(delay);
                to.write_all(&piece[..length])?;
            }
        }
    }
}
