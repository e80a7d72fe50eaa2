//! std, with what blocks replaced by what parks.
//!
//! `use greenroom::shims as std;` at the top of a file is all it takes: this module re-exports
//! all of std, and overrides the modules that block with mirrors of the same names and signatures.
//! In a coroutine they park it; anywhere else they block the calling OS thread, exactly like std.
//!
//! # What is mirrored
//!
//! | std | here | what differs |
//! |---|---|---|
//! | `net::TcpStream` | [`net::TcpStream`] | waits park; `makefile` |
//! | `net::TcpListener`, `Incoming` | [`net::TcpListener`], [`net::Incoming`] | waits park |
//! | `net::UdpSocket` | [`net::UdpSocket`] | waits park |
//! | `net::ToSocketAddrs` | [`net::ToSocketAddrs`] | a trait of its own, for the same types; names are resolved on the blocking pool, by [`set_resolver`](crate::set_resolver)'s |
//! | `os::unix::net::{UnixStream, UnixListener, Incoming, UnixDatagram}` | [`os::unix::net`] | waits park; `makefile`; [`descriptor::PassDescriptors`] |
//! | `os::linux::net::TcpStreamExt` | [`os::linux::net::TcpStreamExt`] | a trait of its own: std's is sealed |
//! | `thread::{spawn, scope, Builder, JoinHandle, Scope, ScopedJoinHandle}` | [`thread`] | threads are coroutines |
//! | `thread::{current, Thread, ThreadId}` | [`thread`] | types of their own: std's cannot be made |
//! | `thread::panicking` | [`thread`] | tells apart the coroutines of one OS thread |
//! | `thread::{sleep, sleep_ms, park, park_timeout, park_timeout_ms, yield_now}` | [`thread`] | waits park |
//! | `fs` | [`fs`] | what is not in memory is done on the blocking pool; `Read`, `Write` and `Seek` for `Arc<File>` are not there: only std could implement them |
//! | `io::{pipe, PipeReader, PipeWriter}` | [`io`] | waits park |
//! | `io::{stdin, Stdin, StdinLock}` | [`io`] | waits park; a buffer of its own |
//! | `io::{stdout, Stdout, StdoutLock, stderr, Stderr, StderrLock}` | [`io`] | waits park; locks and a buffer of their own |
//! | `print!`, `println!`, `eprint!`, `eprintln!`, `dbg!` | [`println!`](macro@println) | write to those; to be named by a path: `std::println!`, or `use std::println` |
//! | `io::IsTerminal` | [`io::IsTerminal`] | a trait of its own, for all that has a descriptor: std's is sealed |
//! | `os` | [`os`] | std's own, but for what is named here; `os::unix::thread::JoinHandleExt` is not there for coroutines |
//! | `process::{Command, Child, ChildStdin, ChildStdout, ChildStderr}` | [`process`] | waits park |
//! | `os::unix::process::CommandExt` | [`process::CommandExt`] | a trait of its own: std's is sealed |
//! | `sync::{Mutex, RwLock, Condvar, Once, OnceLock, LazyLock, Barrier}` and their guards | [`sync`] | waits park |
//! | `sync::WaitTimeoutResult` | [`sync::WaitTimeoutResult`] | a type of its own: std's cannot be made |
//! | `thread_local!`, `thread::{LocalKey, AccessError}` | [`thread_local!`] | values are the coroutine's; to be named by a path: `std::thread_local!`, or `use std::thread_local` |
//! | `sync::mpsc` | [`sync::mpsc`] | waits park; the errors are std's own |
//! | `time` | [`time`] | std's own: nothing in it blocks |
//!
//! What std has no name for: [`io::makefile`], files over streams as Python's; [`select`];
//! [`io::TerminalExt`]; and extension traits, so that std may add their names:
//! [`process::ChildExt`], [`descriptor::IntoStd`], [`descriptor::PassDescriptors`].
//!
//! `shims/SURFACE.md` of the repository has every public item, compared with std's documentation.
//!
//! # What is still std's own, and blocks the worker
//!
//! The methods of `Path` that ask for metadata, and the macros of the prelude, without a path: `println!`
//! and its like, and `thread_local!` (whose values are the OS thread's, shared by its coroutines).
//! Where one of these must wait, wrap it: [`unblock`](crate::unblock).

pub use ::std::*;

/// The untouched std, where a file or a crate has the shims under its name.
///
/// ```
/// use greenroom::shims as std;
///
/// let listener = std::real::net::TcpListener::bind("127.0.0.1:0")?; // blocks its OS thread
/// # std::io::Result::Ok(())
/// ```
#[doc(no_inline)]
pub use ::std as real;

pub use crate::coroutine_local as thread_local;
#[doc(inline)]
pub use crate::{
    __dbg as dbg, __eprint as eprint, __eprintln as eprintln, __print as print,
    __println as println,
};

mod back_off;
mod datagram;
pub mod descriptor;
pub mod fs;
pub mod io;
mod listener;
pub mod net;
pub mod os;
mod park_or_block;
pub mod process;
pub mod select;
mod socket;
pub mod sync;
pub mod thread;
pub mod time;
