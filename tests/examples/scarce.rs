//! Servers among the examples that have run out of descriptors.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::thread;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::program::Server;
use crate::util::until;

/// Has `server` refuse a client for lack of descriptors, and then have them again.
fn starve(server: &Server) {
    let process = Pid::from_child(&server.child);
    let limit = |current| {
        let limit = getrlimit(Resource::Nofile);
        let limit = Rlimit { current, ..limit };
        prlimit(Some(process), Resource::Nofile, limit).unwrap();
    };
    // The descriptors that are open stay.
    limit(Some(3));
    let _refused = server.connect();
    until("there was no descriptor", || {
        server.log().contains("cannot accept: ")
    });
    limit(getrlimit(Resource::Nofile).current);
}

/// What comes back of `text`.
fn answer(server: &Server, text: &str) -> String {
    let mut client = server.connect();
    client.write_all(text.as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

/// Echoes one line of each client, on an OS thread.
fn echo() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            thread::spawn(move || io::copy(&mut &client, &mut &client));
        }
    });
    Ok(address)
}

#[test]
fn a_server_without_descriptors_serves_again_when_there_are_some() {
    let behind = echo().unwrap().to_string();
    let any = "127.0.0.1:0";
    for (name, arguments) in [
        ("echo_server", &[any][..]),
        ("proxy", &[any, &behind]),
        ("eof", &["close", any]),
        ("echo_four_ways", &["select", any]),
        ("echo_four_ways", &["dispatcher", any]),
        ("echo_four_ways", &["terminator", any]),
        ("echo_four_ways", &["protocol", any]),
    ] {
        let arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
        let mut server = Server::start(name, &arguments);
        // A server that closes at once would reset a connection with unread bytes.
        let text = if name == "eof" { "" } else { "hello\n" };
        let before = answer(&server, text);
        starve(&server);
        assert_eq!(answer(&server, text), before, "{name} {arguments:?}");
        server.assert_alive();
    }
}
