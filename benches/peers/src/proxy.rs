//! The servers of the proxy works: for each peer, a proxy on one worker, in front of an echo server in a process of
//! its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::child::{Process, own};
use crate::peers::{ANY_PORT, Blocking, Greenroom, May, Peer, Threads, run_tokio};
use crate::server::announce;

/// Serves until the process ends.
pub(crate) fn serve(peer: Peer) -> io::Result<()> {
    let mut echo = Process::start(&mut own(&["--serve", "echo-64-64", "mio"])?)?;
    let server = echo.line()?.parse().map_err(io::Error::other)?;
    match peer {
        Peer::Greenroom => blocking::<Greenroom>(server),
        Peer::May => blocking::<May>(server),
        Peer::Threads => blocking::<Threads>(server),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, asynchronous(server)),
        Peer::Mio => Err(io::Error::other("there is no proxy by hand")),
    }
}

/// Two tasks for each connection.
fn blocking<P: Blocking>(server: SocketAddr) -> io::Result<()> {
    P::run(1, move || {
        let (listener, addr) = P::listen()?;
        announce(addr)?;
        loop {
            let client = P::accept(&listener)?;
            P::set_nodelay(&client)?;
            P::spawn(move || -> io::Result<()> {
                let (client, server) = (Arc::new(client), Arc::new(P::connect(server)?));
                P::set_nodelay(&server)?;
                let (from, to) = (Arc::clone(&client), Arc::clone(&server));
                P::spawn(move || P::copy(&from, &to).and_then(|_| P::end(&to)));
                P::copy(&server, &client)?;
                P::end(&client)
            });
        }
    })
}

/// One task for each connection, with tokio's own function for both directions.
async fn asynchronous(server: SocketAddr) -> io::Result<()> {
    let listener = tokio::net::TcpListener::bind(ANY_PORT).await?;
    announce(listener.local_addr()?)?;
    loop {
        let (mut client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        tokio::spawn(async move {
            let mut server = tokio::net::TcpStream::connect(server).await?;
            server.set_nodelay(true)?;
            tokio::io::copy_bidirectional(&mut client, &mut server).await
        });
    }
}
