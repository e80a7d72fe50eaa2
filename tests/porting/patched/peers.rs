//! Servers on OS threads of their own, one for each client.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use greenroom::ListenOptions;

use crate::Outcome;
use crate::gate::Gate;
use crate::threads::named;

/// The name of the threads.
pub(crate) const NAME: &str = "peer";

/// Serves one client, which it keeps waiting at the gate.
pub(crate) type Serve = fn(TcpStream, &Gate) -> Outcome<()>;

/// Starts a server on 127.0.0.1, which lives as long as the process.
pub(crate) fn start(serve: Serve, gate: &Arc<Gate>) -> io::Result<SocketAddr> {
    // As many as there are clients may be waiting to be accepted.
    let listener = ListenOptions::new()
        .backlog(1024)
        .listen(("127.0.0.1", 0))?;
    let listener = TcpListener::from(listener);
    let address = listener.local_addr()?;
    let gate = Arc::clone(gate);
    named(NAME).spawn(move || {
        for stream in listener.incoming() {
            let gate = Arc::clone(&gate);
            let serve = move || {
                if let Err(error) = serve(stream.unwrap(), &gate) {
                    eprintln!("a peer: {error}");
                }
            };
            named(NAME).spawn(serve).unwrap();
        }
    })?;
    Ok(address)
}
