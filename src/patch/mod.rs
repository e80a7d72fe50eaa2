//! The patch: functions of the C library that park the coroutine.
//!
//! [`patch!`](crate::patch!) defines functions like `recv`, `poll` and `connect` in a program. The linker then
//! takes these for all code of the program and of the libraries that it loads: for std, for other crates, for
//! C libraries such as libpq or libcurl. On a coroutine, such a function parks where the C library's own would
//! block. On any other thread, it is that function.
//!
//! ```no_run
//! greenroom::patch!(unsafe);
//!
//! fn main() {
//!     greenroom::run(|| {
//!         // std's own, on coroutines: both wait at the same time.
//!         let sleep = || std::thread::sleep(std::time::Duration::from_secs(1));
//!         let other = greenroom::spawn(sleep);
//!         sleep();
//!         other.join().unwrap();
//!     });
//! }
//! ```
//!
//! # Which functions
//!
//! `recv`, `recvfrom`, `recvmsg`, `recvmmsg`, `send`, `sendto`, `sendmsg`, `sendmmsg`, `connect`, `accept`,
//! `accept4`; `read`, `readv`, `preadv2`, `write`, `writev`, `pwritev2`, `sendfile`, `splice`, `close`, `dup2`, `dup3`,
//! `flock`, the locks of `fcntl`; `poll`, `ppoll`, `select`, `pselect`, `epoll_wait`, `epoll_pwait`, `epoll_pwait2`; `nanosleep`,
//! `clock_nanosleep`, `usleep`, `sleep`; `getaddrinfo`, `getnameinfo`, `gethostbyname` and its relatives;
//! `pthread_join`, `waitpid` and its relatives; the futexes of `syscall`, on which std's locks are made;
//! `pthread_mutex_lock`, `pthread_cond_wait`, `pthread_rwlock_rdlock`, `sem_wait` and their relatives; and other
//! names of these.
//!
//! They behave as their manual pages say. Descriptors in non-blocking mode, `MSG_DONTWAIT` and the timeouts of
//! sockets are respected. A read returns what is there. Errors are those of the kernel. What differs:
//!
//! - A signal does not end a wait, except in a call with a signal mask of its own.
//! - A [timeout](crate::timeout()) or a [cancellation](crate::JoinHandle::cancel) makes a function that waits fail
//!   with `ETIMEDOUT` or `ECANCELED`. It never unwinds, because the frames above may be those of C code. A
//!   cancellation is told once. A sleep ends early instead; the next call is told.
//! - `close` ends the waits of coroutines for the descriptor, which fail with `EBADF`; except those for locks of files.
//!   So does `dup2` for the descriptor that it replaces, except for a wait that begins at that moment. `close_range` and
//!   `closefrom` do not.
//! - Locks of files are tried every ten milliseconds, so a deadlock is not found. So are a connect to a Unix listener
//!   whose queue is full; datagrams to a Unix socket that has no room, if the call names it; read-write locks of C
//!   for several processes (`PTHREAD_PROCESS_SHARED`); futexes that are not private; and a wait for the children of one
//!   thread (`__WNOTHREAD`). The last two are not interrupted. A wait for such a condition variable returns after ten
//!   milliseconds, as it may at any time.
//! - `waitpid` and its relatives, for one child by its number, wait for its end alone, unless they ask for stops. The
//!   stops of a child that is traced by `ptrace` are not told.
//! - A `shutdown` for sending does not end the wait of a coroutine that sends to that Unix stream, as no event tells of
//!   it. The end of the peer does.
//! - These keep a thread of the pool and are not interrupted: a wait for a semaphore of C; a write to a terminal or
//!   another device, and to an eventfd that may have no room for it, once there is some room; and the close of a socket
//!   with `SO_LINGER`.
//! - An accept, and a connect of a stream, put the socket into non-blocking mode for a moment, also for other processes
//!   that have it.
//! - `SO_RCVLOWAT` holds for polls only: a receive returns what is there.
//! - A blocking send with `MSG_ZEROCOPY` may send a part, so that the kernel gives it one number.
//! - A coroutine that waits for a read-write lock of C to write keeps no readers out meanwhile, even if the lock prefers
//!   writers.
//! - A mutex of C parks the coroutine if another coroutine of its thread holds the mutex. A mutex that another
//!   thread or another process holds blocks the worker, as it is a matter of moments, mostly. So two workers may block
//!   each other for ever, if each has a coroutine that waits for something else while it holds a mutex.
//!
//! What never parks: regular files; `open` of a named pipe; the descriptors 0, 1 and 2, around which std holds a
//! lock of its own; `pthread_once`, `pthread_barrier_wait`, and what `threads.h` declares (`mtx_lock`); code that
//! makes system calls by itself, as the crate rustix and programs in Go do; and what the C library calls internally,
//! such as the reads of `fgets`. [The guide](crate::guide::foreign#what-never-parks) has the whole list.
//!
//! # What is identified by its OS thread
//!
//! std's `Mutex`, `RwLock`, `Condvar`, `Once`, `OnceLock` and `Barrier` work, between coroutines as well as between
//! coroutines and OS threads. Other code takes the OS thread for the waiter, and so takes two coroutines of a
//! worker for one: std's `thread::park`, and with it `thread::scope` and `mpsc`; the channels of crossbeam and flume;
//! the locks of parking_lot; rayon. There, only one coroutine of each worker may wait at a time; a wait of
//! parking_lot's, or for rayon, blocks the worker even then. So a pool of the crate r2d2 needs as many connections as
//! callers. [The guide](crate::guide::foreign#what-it-does-not-do) has a table.
//!
//! The first such wait that the patch sees is told on standard error, with the name of the coroutine. The ways out are
//! [`cargo greenroom`](crate::guide::porting#a-program), with or without `--libc`, under which all of these are each
//! coroutine's own; greenroom's own items and the [shims](crate::shims); and [`unblock`](crate::unblock()) around the
//! call.
//!
//! A crate that runs tokio on the calling thread, such as `postgres`, panics in the second coroutine of the worker
//! that calls it meanwhile.
//!
//! # What it does not do
//!
//! Only coroutines park, and the patch makes none: a thread that a C library or a program in another language
//! starts stays an OS thread. So there is no library for `LD_PRELOAD`: under it, no thread of a program in another
//! language would be a coroutine, and nothing would park.
//!
//! # Safety
//!
//! The word `unsafe` is yours, because every call that blocks becomes a point at which other coroutines of
//! the same thread run: in libraries whose authors could not know that. Code is unsound under the patch if it
//! keeps something per *thread* across such a call, and relies on being alone with it. See [the
//! hazards](crate::guide::hazards).
//!
//! # Where it is in force
//!
//! In the program whose crate has the macro, once; in a program with several targets, in each that wants it.
//! [`status`] tells. A runtime does not start in a program where the macro has no effect, such as a library
//! that another program loads.

mod attributes;
mod caller;
mod children;
mod closing;
mod connections;
mod counted;
mod descriptor;
mod errno;
mod files;
mod functions;
mod futexes;
mod identity;
#[doc(hidden)]
pub mod interposed;
mod kernel;
mod locks;
mod moves;
mod mutexes;
mod names;
#[doc(hidden)]
pub mod original;
mod owners;
mod polls;
mod processes;
mod replacements;
mod rwlocks;
mod semaphores;
mod sockets;
mod status;
mod threads;
mod time;
mod transfer;
#[doc(hidden)]
pub mod types;
mod wait;

pub(crate) use status::check;
#[doc(hidden)]
pub use status::install;
pub use status::{FunctionStatus, Status, status};

/// Defines, in the crate that calls this, functions of the C library that park the coroutine.
///
/// To be called once in the root of a program, a test or an example. See [the module](mod@crate::patch) for what it
/// does, and for what the word `unsafe` stands for. A program that forbids `unsafe` code names the crate
/// `greenroom-patch` instead: `use greenroom_patch as _;`.
///
/// ```
/// greenroom::patch!(unsafe);
///
/// # fn main() {
/// assert!(greenroom::patch::status().is_in_force());
/// # }
/// ```
#[macro_export]
macro_rules! patch {
    (unsafe) => {
        const _: () = {
            $crate::__patched_functions!([$crate::__define_patched]);
        };
    };
}

/// Defines the functions of the table with the names that the linker sees.
#[doc(hidden)]
#[macro_export]
macro_rules! __define_patched {
    ($($kind:ident fn $name:ident($($arg:ident: $type:ty),*) -> $ret:ty $(= ($($probe:expr),*))?;)*) => {
        #[allow(unused_imports)]
        use $crate::patch::types::*;

        #[cfg(target_feature = "crt-static")]
        ::core::compile_error!(
            "greenroom::patch! needs the C library as a shared library: build without `crt-static`"
        );

        // The dynamic linker calls this before `main`.
        #[used]
        #[unsafe(link_section = ".init_array")]
        static INSTALL: extern "C" fn() = $crate::patch::install;

        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($arg: $type),*) -> $ret {
                // SAFETY: the caller's.
                unsafe { $crate::patch::interposed::$name($($arg),*) }
            }
        )*
    };
}
