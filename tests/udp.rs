//! What UDP sockets promise: the same, whether std's or the shims', on IPv4 and on IPv6.

mod util;

/// The real thing: shows that what is demanded below is what std does.
#[allow(clippy::useless_conversion, reason = "it is one for the shims")]
mod of_std {
    use ::std;

    use crate::util::of_std as util;

    const LOOPBACK: std::net::IpAddr = crate::V4;

    include!("behaviour/udp.rs");
}

mod of_shims {
    use greenroom::shims as std;

    use crate::util;

    const LOOPBACK: std::net::IpAddr = crate::V4;

    include!("behaviour/udp.rs");
}

mod of_shims_on_v6 {
    use greenroom::shims as std;

    use crate::on_v6 as util;

    const LOOPBACK: std::net::IpAddr = crate::V6;

    include!("behaviour/udp.rs");
}

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Where the address is all that matters, one place is enough.
mod on_v6 {
    pub(crate) use crate::util::{assert_same_bytes, noise};

    pub(crate) fn everywhere(test: impl Fn()) {
        match std::net::UdpSocket::bind((crate::V6, 0)) {
            Ok(_) => crate::util::on_workers(1, test),
            Err(error) => eprintln!("skipped, no IPv6 on the loopback: {error}"),
        }
    }
}
