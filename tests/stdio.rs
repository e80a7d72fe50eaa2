//! Standard input, output and error: the shims do as std does.

#![allow(clippy::duplicate_mod, reason = "once for std, once for the shims")]
#![allow(
    clippy::explicit_write,
    clippy::print_literal,
    clippy::println_empty_string,
    clippy::write_literal,
    reason = "each way of printing is under test"
)]

mod util;

/// The real std: shows that the tests ask for nothing that std does not do.
#[path = "behaviour"]
mod of_std {
    use ::std;

    use crate::util::of_std as util;

    mod stdio;
}

#[path = "behaviour"]
mod of_shims {
    use greenroom::shims as std;

    use crate::util;

    mod stdio;
}
