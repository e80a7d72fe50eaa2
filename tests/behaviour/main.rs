//! What std promises. Each file here is compiled once against std and once against the shims.
//!
//! The parent module of a file provides the std under test and the shared helpers: a file says
//! `use super::{std, util};`. Then `std::…` is the std under test, and `::std::…` is always the real one.
//! Tests that start child processes or touch the whole process are in `tests/process`, `tests/stdio.rs` and
//! `tests/local.rs`.
//!
//! `stream.rs` and `datagram.rs` are the suites for all streams and for all datagram sockets. `tcp.rs`,
//! `udp.rs` and `unix.rs` include them as submodules.

#![allow(clippy::duplicate_mod, reason = "once for std, once for the shims")]

use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};

#[path = "../util/mod.rs"]
mod util;

/// Against the real std, to show that std passes all of the tests.
#[path = "."]
mod of_std {
    use ::std;

    use crate::util::of_std as util;

    #[allow(
        clippy::needless_borrows_for_generic_args,
        reason = "whether borrows are accepted is under test"
    )]
    mod addr;
    mod barrier;
    mod condvar;
    mod edges;
    mod fs;
    mod lazy_lock;
    mod lines;
    mod mpsc;
    mod mpsc_sync;
    mod mutex;
    mod once;
    mod once_lock;
    mod pipe;
    mod rwlock;
    #[allow(clippy::useless_conversion, reason = "the shims need it")]
    mod tcp;
    mod thread;
    mod time;
    #[allow(clippy::useless_conversion, reason = "the shims need it")]
    mod udp;
    #[allow(clippy::useless_conversion, reason = "the shims need it")]
    mod unix;
}

#[path = "."]
mod of_shims {
    use greenroom::shims as std;

    use crate::util;

    #[allow(
        clippy::needless_borrows_for_generic_args,
        reason = "whether borrows are accepted is under test"
    )]
    mod addr;
    mod barrier;
    mod condvar;
    mod edges;
    mod fs;
    mod lazy_lock;
    mod lines;
    mod mpsc;
    mod mpsc_sync;
    mod mutex;
    mod once;
    mod once_lock;
    mod pipe;
    mod rwlock;
    mod tcp;
    mod thread;
    mod time;
    mod udp;
    mod unix;
}

#[path = "."]
mod of_shims_on_v6 {
    use greenroom::shims as std;

    use crate::util::on_v6 as util;

    mod tcp;
    mod udp;
}

/// An IPv6 address of this machine that is valid only together with its interface, and that interface.
fn link_local() -> Option<(Ipv6Addr, u32)> {
    let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let found = table.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let ip = u128::from_str_radix(fields.next()?, 16).ok()?;
        let interface = u32::from_str_radix(fields.next()?, 16).ok()?;
        let ip = Ipv6Addr::from(ip);
        let usable = UdpSocket::bind(SocketAddrV6::new(ip, 0, 0, interface)).is_ok();
        (ip.is_unicast_link_local() && usable).then_some((ip, interface))
    });
    if found.is_none() {
        eprintln!("skipped, no link-local address");
    }
    found
}
