//! Resolution of names, on a pool of threads: by the system, and by the program's own rules.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use greenroom::shims::net::ToSocketAddrs;
use greenroom::{Resolve, SystemResolver, set_resolver};

pub(crate) fn show() -> io::Result<String> {
    let mut addresses = ("localhost", 80).to_socket_addrs()?;
    let is_local = addresses.all(|address| address.ip().is_loopback());

    let systems = set_resolver(Arc::new(|host: &str, port: u16| match host {
        "database" => Ok(vec![(Ipv4Addr::new(192, 0, 2, 1), port).into()]),
        _ => SystemResolver.resolve(host, port),
    }));
    let found: Vec<SocketAddr> = "database:5432".to_socket_addrs()?.collect();
    set_resolver(systems);
    Ok(format!(
        "localhost is this machine: {is_local}; database:5432 is {found:?}"
    ))
}
