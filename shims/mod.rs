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
//! | `io` | [`io`] | std's own, and [`io::makefile`] |
//! | `os` | [`os`] | std's own, but for the above; `os::unix::thread::JoinHandleExt` is not there for coroutines |
//! | `time` | [`time`] | std's own: nothing in it blocks |
//!
//! # What is still std's own, and blocks the worker
//!
//! `sync` (its locks, channels and barriers), `process`, `fs`, `io::{stdin, stdout, stderr,
//! pipe, copy}`, the print macros, `thread_local!` (whose values are the OS thread's, shared by
//! its coroutines). Where one of these must wait, wrap it: [`unblock`](crate::unblock).

pub use ::std::*;

pub mod descriptor;
pub mod fs;
pub mod io;
mod listener;
pub mod net;
pub mod os;
pub mod process;
pub mod select;
pub mod thread;
pub mod time;
