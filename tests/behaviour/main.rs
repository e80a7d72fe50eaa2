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
