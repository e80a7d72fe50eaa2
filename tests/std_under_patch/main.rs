//! What std promises, of std itself, on coroutines of one worker: under the patch of the C library, its sockets,
//! pipes, lookups, sleeps, locks, channels, threads and child processes park. The tests are those of
//! `tests/behaviour`, which the shims pass, too.
//!
//! Not those of files: nothing of them parks, and to open a named pipe blocks the thread. `IS_PATCH` in a test marks
//! what the patch cannot do.

#![allow(
    clippy::duplicate_mod,
    clippy::needless_borrows_for_generic_args,
    clippy::useless_conversion,
    reason = "as in `tests/behaviour`: several sockets have the same tests, and the shims need the rest"
)]

greenroom::patch!(unsafe);

#[path = "../util/mod.rs"]
mod util;

mod stress;

/// std, with coroutines for its threads. Its own locks and channels between threads are those of the shims, since some
/// of std's keep their state by OS thread.
mod std_for_io {
    pub(crate) use ::std::*;
    pub(crate) use greenroom::shims::sync;

    pub(crate) mod thread {
        pub(crate) use ::std::thread::sleep;
        pub(crate) use greenroom::shims::thread::*;
    }
}

/// What the tests share, with one place to run in.
mod util_on_one_worker {
    pub(crate) use crate::util::*;

    pub(crate) const IS_PATCH: bool = true;

    pub(crate) fn everywhere(test: impl Fn()) {
        on_workers(1, test);
    }
}

#[path = "../behaviour"]
mod io {
    use crate::std_for_io as std;
    use crate::util_on_one_worker as util;

    mod addr;
    mod edges;
    mod lines;
    mod pipe;
    mod tcp;
    mod time;
    mod udp;
    mod unix;
}

/// A coroutine, and OS threads as its others. Of each worker, only this one coroutine waits. So `mpsc` and
/// `thread::park`, which take the OS thread for the waiter, work, too.
#[path = "../behaviour"]
mod with_os_threads {
    use ::std;

    use crate::util_on_one_worker as util;

    mod barrier;
    mod condvar;
    mod copy;
    mod lazy_lock;
    mod mpsc;
    mod mpsc_sync;
    mod mutex;
    mod once;
    mod once_lock;
    mod process;
    mod rwlock;
    mod thread;
}

/// std, with coroutines for its threads.
mod std_with_coroutines {
    pub(crate) use ::std::*;

    pub(crate) mod thread {
        pub(crate) use ::std::thread::sleep;
        pub(crate) use greenroom::shims::thread::{scope, spawn, yield_now};
    }
}

/// Coroutines of one worker alone.
///
/// Left out: `mpsc` and `mpsc_sync`, since coroutines of one worker are one waiter for std's channels; and `thread`,
/// which would be the shims' here.
#[path = "../behaviour"]
mod with_coroutines {
    use crate::std_with_coroutines as std;
    use crate::util_on_one_worker as util;

    mod barrier;
    mod condvar;
    mod copy;
    mod lazy_lock;
    mod mutex;
    mod once;
    mod once_lock;
    mod process;
    mod rwlock;
}
