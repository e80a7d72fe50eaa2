//! Child processes and standard streams.

#![allow(clippy::duplicate_mod, reason = "once for std, once for the shims")]

#[path = "../util/mod.rs"]
mod util;

mod children;
mod hand_over;
mod output;
mod signals;
mod stdin;

/// The real std: shows that the tests ask for nothing that std does not do.
#[path = "../behaviour"]
mod of_std {
    use ::std;

    use crate::util::of_std as util;

    mod copy;
    mod process;
}

#[path = "../behaviour"]
mod of_shims {
    use greenroom::shims as std;

    use crate::util;

    mod copy;
    mod process;
}
