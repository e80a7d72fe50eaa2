//! What std promises of its locks, channels, threads and child processes, of std itself, on coroutines of one worker:
//! under the patch of the C library, their waits park. The tests are those of `tests/behaviour`, which the shims pass,
//! too.

#![allow(clippy::duplicate_mod, reason = "with OS threads and with coroutines")]

greenroom::patch!(unsafe);

#[path = "../util/mod.rs"]
mod util;

mod stress;

/// What the tests share, with one place to run in.
mod util_on_one_worker {
    pub(crate) use crate::util::*;

    pub(crate) fn everywhere(test: impl Fn()) {
        on_workers(1, test);
    }
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
