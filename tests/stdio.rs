//! What standard input, output and error promise: the same, whether std's or the shims'.

#![allow(
    clippy::explicit_write,
    clippy::print_stdout,
    clippy::print_literal,
    clippy::println_empty_string,
    clippy::write_literal,
    reason = "each way of printing is under test"
)]

mod util;

/// The real thing: shows that what is demanded below is what std does.
mod of_std {
    use ::std;
    use serial_test::serial;

    use crate::util::of_std as util;

    include!("behaviour/stdio.rs");
}

mod of_shims {
    use greenroom::shims as std;
    use serial_test::serial;

    use crate::util;

    include!("behaviour/stdio.rs");
}
