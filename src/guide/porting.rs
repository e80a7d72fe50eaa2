//! Programs that were written for std's blocking API and its threads, on coroutines.
//!
//! # Three ways
//!
//! **A file**: one line at its top.
//!
//! ```
//! use greenroom::shims as std;
//!
//! use std::net::TcpListener; // and everything else in this file
//! # let _ = TcpListener::bind("127.0.0.1:0");
//! ```
//!
//! It holds for the module that it stands in: a nested module needs its own. Edition 2018 or later.
//!
//! **A crate**: a dependency that is renamed, and no change to any source.
//!
//! ```toml
//! [dependencies]
//! std = { package = "greenroom-std", version = "0.1" }
//! ```
//!
//! The compiler then finds greenroom's shims where it looks for a crate named `std`. That holds for
//! all of the package in all editions: nested modules, unit tests, integration tests, documentation
//! tests, examples, binaries; and for `#![no_std]` crates that say `extern crate std`. It does not
//! matter if the package has a feature of that name. If it is a library whose signatures have types
//! such as `TcpStream`, those are the shims' to its users.
//!
//! Someone else's crate is ported like that, too, in a copy (`cargo vendor` makes one) whose
//! `Cargo.toml` gets this line; `[patch.crates-io]` puts it in place of the published one. See
//! [below](#crates-that-were-tried) for some that were.
//!
//! **A process**, with the C libraries in it, by interposing the functions of libc: *not there yet*.
//! Until it is, what neither line reaches blocks its worker, unless it is wrapped in [`unblock`].
//!
//! They mix: the types are the same whichever line brought them, and files of a renamed crate may
//! have the other one, too. The untouched std is in [`shims::real`], and types convert both ways:
//!
//! ```
//! use greenroom::shims as std;
//! use std::net::TcpListener;
//!
//! let inherited = std::real::net::TcpListener::bind("127.0.0.1:0")?;
//! let listener = TcpListener::from(inherited);
//! let given_away = std::real::net::TcpListener::from(listener);
//! # drop(given_away);
//! # std::io::Result::Ok(())
//! ```
//!
//! # What then happens
//!
//! `thread::spawn`, `scope` and `Builder` make coroutines, in the runtime of the caller or else in
//! the default one, whose number of workers is `GREENROOM_WORKERS`, or as many as there are cores.
//! `main` stays an OS thread, which blocks as ever, and whose return ends the process. To have it as
//! a coroutine among the others, on the thread that it has, call [`run`](crate::run):
//!
//! ```
//! greenroom::run(|| {
//!     // what main did
//! });
//! ```
//!
//! Coroutines of different workers run in parallel, so nothing that was a race is less of one.
//! Those of one worker take turns where they wait.
//!
//! # What stays std's
//!
//! - The prelude, and macros without a path: `println!`, `thread_local!`, `vec!`. What they print goes to
//!   std's own [`stdout`](std::io::stdout) and [`stderr`](std::io::stderr): where a pipe or a terminal does
//!   not take more, they block the worker, and std's lock is the worker's, so a `Display` that waits lets
//!   others of the worker print amid its line. `std::println!` and `use std::println` are the shims'.
//! - What goes by `core::` or `alloc::`, and what [`shims`] does not mirror: collections, formatting,
//!   the traits of `io`, `Arc`, atomics. They are the same items as ever, so that other crates take
//!   and give them.
//! - Other crates: what they do in their functions, and what their macros reach by `$crate`. A macro
//!   that writes `std::` or `::std::` into your crate, as many derives do, means what your crate does.
//! - Build scripts, which have dependencies of their own.
//! - What is asked of the operating system about the calling thread.
//!
//! # Crates that were tried
//!
//! Blocking crates, in copies that have the line in their `Cargo.toml`, with no change to any source. All
//! of them build; the last column says what else there is to know.
//!
//! | crate | what it is | what it needs |
//! |---|---|---|
//! | ureq 2.12 | an HTTP client | nothing |
//! | attohttpc 0.31 | an HTTP client | nothing |
//! | minreq 2.14 | an HTTP client | nothing |
//! | tungstenite 0.30 | websockets | nothing |
//! | tiny_http 0.12 | an HTTP server | nothing |
//! | rouille 3.6 | an HTTP server | tiny_http, of which it takes types, ported as well |
//! | suppaftp 12.2 | an FTP client | nothing |
//! | imap 2.4 | an IMAP client | nothing |
//! | memcache 0.21 | a memcached client | nothing |
//! | beanstalkc 1.0 | a beanstalkd client | nothing |
//! | threadpool 1.8 | a pool of threads | nothing |
//! | crossbeam-channel 0.5.17 | channels | nothing |
//! | redis 1.8 | a redis client | the feature `socket2` |
//! | mysql 28.0 | a MySQL client | the feature `socket2`; it connects by socket2, which blocks the worker until the server has answered |
//! | lettre 0.11 | an SMTP client | as mysql |
//! | r2d2 0.8 | a pool of connections | to be left as it is published: it waits by the locks of parking_lot, which block the worker. With as many connections as there are threads at once, none waits; else [`unblock`] around `get` |
//! | scheduled-thread-pool 0.2 | a pool of threads | the same: ported, its idle threads keep their workers |
//!
//! They were tried with the features that need no C library. Tests of the repository run redis, mysql,
//! lettre, ureq, tungstenite, minreq and tiny_http, with many threads on one worker. The feature `socket2` of `greenroom-std` (and
//! of `greenroom`) makes sockets of [socket2](https://docs.rs/socket2/0.6) 0.6 and the shims' convert into
//! each other, as std's do:
//!
//! ```toml
//! [dependencies]
//! std = { package = "greenroom-std", version = "0.1", features = ["socket2"] }
//! ```
//!
//! # When something is wrong
//!
//! | symptom | cause | what to write |
//! |---|---|---|
//! | a worker stops for good, or for a while, with connections that have data | a lock or a channel of the real std is waited for, whose other side needs that worker; mostly a guard that was held across a wait | [`shims::sync`] |
//! | ..., while one thread computes | nothing waits | [`yield_now`] now and then, or [`unblock`] around it |
//! | ..., while one is in a C library, or in a crate that is not ported | it blocks the OS thread | [`unblock`] around the call; [`wait_fd`] before it, if the library tells its descriptor |
//! | a `thread_local!` has what another request left there | without a path it is std's, and coroutines of a worker share its values | `std::thread_local! { … }`, or `use std::thread_local;` above; [`coroutine_local!`] |
//! | the value of a `thread_local!` changes or goes while it is in use: undefined behaviour | its initialiser waits, and another coroutine of the worker has initialised it meanwhile | the same; [`deny_blocking`](crate::deny_blocking()) names the wait |
//! | mismatched types: `LocalKey`, and a different `LocalKey` | without a path it is std's | the same |
//! | mismatched types: `TcpStream`, and a different `TcpStream` | another crate means std's | `.into()`; or port that crate, too |
//! | another crate misses `ToSocketAddrs` of a type of yours | the shims' trait is one of its own | implement [`real::net::ToSocketAddrs`](std::net::ToSocketAddrs) as well |
//! | parts of lines of output are out of order | the shims' `stdout` and std's, which the macros without a path print to, each keep the beginning of a line | `std::print!`, or [`flush`](std::io::Write::flush) of the shims' `stdout`, which flushes both |
//! | a worker stops while nobody reads standard output | a macro without a path | `std::println!`, or `use std::println;` above |
//! | a test's output is not captured | a harness captures what std's own macros print | `println!` without a path, where `std` is the shims |
//! | lines of standard input are missing | the shims' `stdin` and std's each read ahead | use one of the two throughout |
//! | `has overflowed its stack` | 256 KiB, where threads have 2 MiB | [`Builder::stack_size`]; `GREENROOM_STACK_SIZE` or `RUST_MIN_STACK` for all |
//! | no `as_pthread_t`, or a thread that must be the system's (signals, affinity, a GUI) | a coroutine is not one | `std::real::thread::spawn` |
//! | the program ends too early | `main` returns, as with std's threads | join them; [`wait_idle`] |
//! | threads that are left end with [`Cancelled`] | [`run`](crate::run) unwinds what is left | join them before it ends |
//! | a thread's destructors do not run at the end of [`run`](crate::run) | it waited for a lock, a condition variable or an `unpark`, and was left behind | have it end before, by a flag or a channel |
//! | a forked child cannot start threads | the process had a runtime | fork before the first one, or call `exec` |
//!
//! The ones that need more than another name:
//!
//! ```
//! # use greenroom::shims as std;
//! # fn call_into_c() -> i32 { 0 }
//! use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
//!
//! // A call that can only block.
//! let result = greenroom::unblock(|| call_into_c());
//! # assert_eq!(result, 0);
//!
//! // A value for each coroutine: by its path.
//! std::thread_local! { static REQUEST: std::cell::Cell<u64> = const { std::cell::Cell::new(0) } }
//!
//! // An address that other crates can connect to, too.
//! struct Service(u16);
//! impl ToSocketAddrs for Service {
//!     type Iter = std::option::IntoIter<SocketAddr>;
//!     fn to_socket_addrs(&self) -> std::io::Result<Self::Iter> {
//!         ("127.0.0.1", self.0).to_socket_addrs().map(|mut all| all.next().into_iter())
//!     }
//! }
//! impl std::real::net::ToSocketAddrs for Service {
//!     type Iter = std::option::IntoIter<SocketAddr>;
//!     fn to_socket_addrs(&self) -> std::io::Result<Self::Iter> {
//!         ToSocketAddrs::to_socket_addrs(self)
//!     }
//! }
//!
//! // A function of another crate that wants std's type.
//! fn foreign(stream: ::std::net::TcpStream) {}
//! fn give_away(stream: TcpStream) {
//!     foreign(stream.into());
//! }
//!
//! // A thread of the system's.
//! std::real::thread::spawn(|| {}).join().unwrap();
//! # REQUEST.set(1);
//! # let there = std::real::net::ToSocketAddrs::to_socket_addrs(&Service(80)).unwrap().next();
//! # assert_eq!(there, Some(([127, 0, 0, 1], 80).into()));
//! ```
//!
//! [`shims`]: crate::shims
//! [`shims::real`]: crate::shims::real
//! [`shims::sync`]: crate::shims::sync
//! [`coroutine_local!`]: crate::coroutine_local
//! [`unblock`]: crate::unblock
//! [`wait_fd`]: crate::wait_fd
//! [`wait_idle`]: crate::wait_idle
//! [`yield_now`]: crate::yield_now
//! [`Builder::stack_size`]: crate::Builder::stack_size
//! [`Cancelled`]: crate::Cancelled
