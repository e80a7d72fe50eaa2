//! What UDP sockets promise: the same, whether std's or the shims', on IPv4 and on IPv6.

mod util;

/// The real thing: shows that what is demanded below is what std does.
#[allow(clippy::useless_conversion, reason = "it is one for the shims")]
mod of_std {
    use ::std;

    use crate::util::of_std as util;

    include!("behaviour/udp.rs");
}

mod of_shims {
    use greenroom::shims as std;

    use crate::util;

    include!("behaviour/udp.rs");
}

mod of_shims_on_v6 {
    use greenroom::shims as std;

    use crate::util::on_v6 as util;

    include!("behaviour/udp.rs");
}
