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
//! | `net::ToSocketAddrs` | [`net::ToSocketAddrs`] | a trait of its own, for the same types; names are resolved on the blocking pool |
//! | `thread::{spawn, scope, Builder, JoinHandle, Scope, ScopedJoinHandle}` | [`thread`] | threads are coroutines; `Builder::spawn_unchecked` is not there |
//! | `thread::{current, Thread, ThreadId}` | [`thread`] | types of their own: std's cannot be made; `Thread::{into_raw, from_raw}` are not there |
//! | `thread::{sleep, sleep_ms, park, park_timeout, park_timeout_ms, yield_now}` | [`thread`] | waits park |
//! | `thread_local!`, `thread::{LocalKey, AccessError}` | [`thread_local!`] | values are the coroutine's; to be named by a path: `std::thread_local!`, or `use std::thread_local` |
//! | `sync::mpsc` | [`sync::mpsc`] | waits park; the errors are std's own |
//! | `io` | [`io`] | std's own, and [`io::makefile`] |
//! | `time` | [`time`] | std's own: nothing in it blocks |
//!
//! # What is still std's own, and blocks the worker
//!
//! `sync` (its locks and barriers), `process`, `fs`, `os`, `io::{stdin, stdout, stderr,
//! pipe, copy}`, the print macros, and the `thread_local!` of the prelude (whose values are the OS
//! thread's, shared by its coroutines). Where one of these must wait, wrap it: [`unblock`](crate::unblock).

pub use ::std::*;

pub use crate::coroutine_local as thread_local;

pub mod io;
pub mod net;
pub mod sync;
pub mod thread;
pub mod time;
