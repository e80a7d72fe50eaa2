//! Many lookups at the same time, ten at most: a slow name holds up nobody but itself, and is given up.
//!
//! ```text
//! $ cargo run --example mass_resolve
//! host13: not found
//! host27: no answer in time
//! 48 of 50 names have an address
//! ```

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use greenroom::shims::net::ToSocketAddrs;
use greenroom::{Group, set_resolver, timeout};

/// Stands for a name server: `hostN` has the address 10.0.0.N. It may block, since lookups run on the pool.
fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let number = host.trim_start_matches("host").parse().unwrap_or(0);
    std::thread::sleep(Duration::from_millis(match number {
        27 => 60_000,
        _ => 2,
    }));
    match number {
        13 => Err(io::Error::new(ErrorKind::NotFound, "not found")),
        _ => Ok(vec![(Ipv4Addr::new(10, 0, 0, number), port).into()]),
    }
}

fn look_up(name: &str) -> io::Result<IpAddr> {
    let limit = Duration::from_secs(2);
    let mut addrs = timeout(limit, || (name, 80).to_socket_addrs())??;
    let first = addrs.next().ok_or(ErrorKind::NotFound)?;
    Ok(first.ip())
}

fn main() {
    set_resolver(Arc::new(resolve));
    let names: Vec<_> = (1..=50).map(|number| format!("host{number}")).collect();

    let group = Group::bounded(10);
    let addresses = greenroom::run(|| group.map(&names, |name| look_up(name)));

    let mut found = 0;
    for (name, address) in names.iter().zip(addresses) {
        match address.expect("a lookup does not panic") {
            Ok(_) => found += 1,
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                println!("{name}: no answer in time");
            }
            Err(error) => println!("{name}: {error}"),
        }
    }
    println!("{found} of {} names have an address", names.len());
}
