//! memcached, through the crate `memcache`, whose connections are in a pool of the crate `r2d2`.
//!
//! That pool must have as many connections as callers. A caller for whom there is none waits at a lock of
//! parking_lot, which takes the coroutines of a worker for one thread. So it blocks the worker, and with it the
//! coroutines that have the connections. The pool of the crate `mysql` waits at locks of std, and does not have
//! this limit: see `mariadb.rs`.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use memcache::Client;

use crate::at_once::{Operations, alone};
use crate::proxy;
use crate::server::{Directory, Server, program};

fn start() -> Option<Server> {
    let memcached = program("memcached")?;
    let command = |directory: &Directory, port: u16| -> Command {
        let mut command = directory.command(&memcached);
        command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-U", "0"]);
        command
    };
    let answers = |_: &Directory, port| {
        let client = memcache::connect(url(([127, 0, 0, 1], port).into()));
        client.is_ok_and(|client| client.version().is_ok())
    };
    let directory = Directory::new("memcached");
    Some(Server::start(directory, libc::SIGTERM, command, answers))
}

fn url(address: SocketAddr) -> String {
    format!("memcache://{address}?timeout=30")
}

#[test]
fn values_from_far_away_come_at_once() {
    const CLIENTS: usize = 40;
    const DELAY: Duration = Duration::from_millis(300);
    let _alone = alone();
    let Some(server) = start() else { return };
    let far = proxy::delayed(([127, 0, 0, 1], server.port()).into(), DELAY);
    let client = Client::with_pool_size(url(far), CLIENTS as u32).unwrap();
    let operations = Operations {
        what: "memcache",
        count: CLIENTS,
        // The pool asks first whether the connection is alive.
        each: 4 * DELAY,
        threads: &[proxy::THREADS, "r2d2-worker"],
    };
    let values = operations.run(|number| {
        let key = format!("key {number}").replace(' ', "-");
        client.set(&key, format!("value {number}"), 60).unwrap();
        client.get::<String>(&key).unwrap()
    });
    for (number, value) in values.into_iter().enumerate() {
        assert_eq!(value, Some(format!("value {number}")));
    }
}
