use greenroom::shims as std; // in a crate with the rename, std is enough

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

type Tls = StreamOwned<ServerConnection, TcpStream>;

/// How long a client may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(1);

/// How long a client may say nothing.
const IDLE: Duration = Duration::from_secs(60);

/// Echoes to each client, in a coroutine of its own.
pub fn serve(listener: TcpListener, config: Arc<ServerConfig>) -> io::Result<()> {
    for client in listener.incoming() {
        let (client, config) = (client?, Arc::clone(&config));
        thread::spawn(move || {
            if let Err(error) = greet(client, config).and_then(echo) {
                eprintln!("a connection has failed: {error}");
            }
        });
    }
    Ok(())
}

/// Shakes hands. One limit holds for the whole handshake, however the client's bytes dribble in.
fn greet(mut client: TcpStream, config: Arc<ServerConfig>) -> io::Result<Tls> {
    let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
    greenroom::timeout(HANDSHAKE, || {
        while connection.is_handshaking() {
            connection.complete_io(&mut client)?;
        }
        io::Result::Ok(())
    })??;
    Ok(StreamOwned::new(connection, client))
}

fn echo(mut tls: Tls) -> io::Result<()> {
    tls.sock.set_read_timeout(Some(IDLE))?;
    let mut buf = vec![0; 16 << 10];
    loop {
        match tls.read(&mut buf) {
            // The client has said that there is no more.
            Ok(0) => break,
            Ok(read) => tls.write_all(&buf[..read])?,
            // It has been idle for too long, which is no failure.
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // `UnexpectedEof`: the connection was cut, and the last message may be, too.
            Err(error) => return Err(error),
        }
    }
    // Without this, the client could not tell the end from a cut.
    tls.conn.send_close_notify();
    tls.flush()
}
