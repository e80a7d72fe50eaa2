//! What Unix sockets promise: the same, whether std's or the shims'. And that descriptors can be
//! passed over them.

mod util;

/// The real thing: shows that what is demanded below is what std does.
#[allow(clippy::useless_conversion, reason = "it is one for the shims")]
mod of_std {
    use ::std;

    use crate::util::of_std as util;

    include!("behaviour/unix.rs");
}

mod of_shims {
    use greenroom::shims as std;

    use crate::util;

    include!("behaviour/unix.rs");
}
