//! std, but with waits that park the coroutine.
//!
//! Write `use greenroom::shims as std;` at the top of a file. This module re-exports all of std, and
//! replaces the items that wait by items of the same names and signatures. In a coroutine, a wait parks
//! the coroutine. On an OS thread, a wait blocks the thread, exactly like std.
//!
//! # What is mirrored
//!
//! | std | here | what differs |
//! |---|---|---|
//! | `net::TcpStream` | [`net::TcpStream`] | waits park; `makefile` |
//! | `net::TcpListener`, `Incoming` | [`net::TcpListener`], [`net::Incoming`] | waits park |
//! | `net::UdpSocket` | [`net::UdpSocket`] | waits park |
//! | `net::ToSocketAddrs` | [`net::ToSocketAddrs`] | a separate trait, for the same types; names are resolved on the blocking pool, by the resolver of [`set_resolver`](crate::set_resolver) |
//! | `os::unix::net::{UnixStream, UnixListener, Incoming, UnixDatagram}` | [`os::unix::net`] | waits park; `makefile`; [`descriptor::PassDescriptors`] |
//! | `os::linux::net::TcpStreamExt` | [`os::linux::net::TcpStreamExt`] | a separate trait: std's is sealed |
//! | `thread::{spawn, scope, Builder, JoinHandle, Scope, ScopedJoinHandle}` | [`thread`] | threads are coroutines |
//! | `thread::{current, Thread, ThreadId}` | [`thread`] | separate types: std's cannot be constructed |
//! | `thread::panicking` | [`thread`] | answers for the coroutine, not for the OS thread |
//! | `thread::{sleep, sleep_ms, park, park_timeout, park_timeout_ms, yield_now}` | [`thread`] | waits park |
//! | `fs` | [`fs`] | waits for a disk are jobs of the blocking pool; `Arc<File>` has no `Read`, `Write` and `Seek`: only std could implement them |
//! | `io::{pipe, PipeReader, PipeWriter}` | [`io`] | waits park |
//! | `io::{stdin, Stdin, StdinLock}` | [`io`] | waits park; a separate buffer |
//! | `io::{stdout, Stdout, StdoutLock, stderr, Stderr, StderrLock}` | [`io`] | waits park; separate locks and a separate buffer |
//! | `print!`, `println!`, `eprint!`, `eprintln!`, `dbg!` | [`println!`](macro@println) | write to the streams above; must be named by a path (`std::println!`) or imported (`use std::println`) |
//! | `io::IsTerminal` | [`io::IsTerminal`] | a separate trait, for all types with a descriptor: std's is sealed |
//! | `os` | [`os`] | std's own, except for the items named here |
//! | `os::unix::thread::JoinHandleExt` | [`os::unix::thread::JoinHandleExt`] | a separate trait, whose methods panic for a coroutine: it has no `pthread_t` |
//! | `process::{Command, Child, ChildStdin, ChildStdout, ChildStderr}` | [`process`] | waits park |
//! | `os::unix::process::CommandExt` | [`process::CommandExt`] | a separate trait: std's is sealed |
//! | `sync::{Mutex, RwLock, Condvar, Once, OnceLock, LazyLock, Barrier}` and their guards | [`sync`] | waits park |
//! | `sync::WaitTimeoutResult` | [`sync::WaitTimeoutResult`] | a separate type: std's cannot be constructed |
//! | `thread_local!`, `thread::{LocalKey, AccessError}` | [`thread_local!`] | each coroutine has its own value; must be named by a path (`std::thread_local!`) or imported (`use std::thread_local`) |
//! | `sync::mpsc` | [`sync::mpsc`] | waits park; the errors are std's own |
//! | `time` | [`time`] | std's own: nothing in it blocks |
//!
//! Additions to std are [`io::makefile`] (files over streams, like Python's) and [`select`]. Further
//! methods are in extension traits, so that std may add methods of the same names: [`io::TerminalExt`],
//! [`process::ChildExt`], [`descriptor::IntoStd`] and [`descriptor::PassDescriptors`].
//!
//! `shims/SURFACE.md` in the repository compares every public item with std's documentation.
//!
//! # What still blocks the worker
//!
//! - The methods of `Path` that ask for metadata. They are inherent methods of std's own type.
//! - Under the `use` line for a single file, macros without a path, such as `println!`. There, a
//!   `thread_local!` without a path is std's own, too: the coroutines of one OS thread share its values. A
//!   crate or a program that is ported as a whole has the shims' macros (see
//!   [the guide](crate::guide::porting)).
//!
//! If such a call may wait for long, wrap it in [`unblock`](crate::unblock).

pub use ::std::*;

/// std itself, for code in which the name `std` stands for the shims.
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
