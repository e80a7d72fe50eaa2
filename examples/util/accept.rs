//! A coroutine for each client that connects. What goes wrong with a client ends its own connection only.

#![allow(dead_code, reason = "each example uses its part")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use greenroom::Builder;
use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::thread;

/// Calls `converse` with each client, on a coroutine of its own.
pub(crate) fn each<T: Send + 'static>(
    listener: &TcpListener,
    converse: impl Fn(TcpStream, SocketAddr) -> T + Send + Sync + 'static,
) -> ! {
    let converse = Arc::new(converse);
    loop {
        let accepted = listener.accept().and_then(|(stream, address)| {
            let converse = Arc::clone(&converse);
            Builder::new().spawn(move || converse(stream, address))
        });
        if let Err(error) = accepted {
            pause_after(&error);
        }
    }
}

/// After an accept that has failed. Mostly there are no descriptors left, until connections close.
pub(crate) fn pause_after(error: &io::Error) {
    eprintln!("cannot accept: {error}");
    thread::sleep(Duration::from_millis(20));
}
