//! How to run programs that were written for std's blocking API and threads.
//!
//! # Four ways
//!
//! | | what you write | what then parks |
//! |---|---|---|
//! | [a file](#a-file) | one line at its top | that file |
//! | [a crate](#a-crate) | one line in its `Cargo.toml` | that crate |
//! | [a program](#a-program) | `cargo greenroom run` | the program and all its dependencies |
//! | [a process](super::foreign) | `greenroom::patch!(unsafe);` in the program, or `cargo greenroom run --libc` | C libraries, and crates that are left as they are |
//!
//! The ways mix. The types are the same in all of them, and they convert from and to std's own types.
//! Code that none of these ways reaches blocks its worker, unless it is wrapped in [`unblock`].
//!
//! ## A file
//!
//! ```
//! use greenroom::shims as std;
//!
//! use std::net::TcpListener; // and everything else in this file
//! # let _ = TcpListener::bind("127.0.0.1:0");
//! ```
//!
//! The line holds for the module that it stands in. A nested module needs its own. It works from
//! edition 2018 on. Macros without a path, such as `println!`, stay std's.
//!
//! ## A crate
//!
//! ```toml
//! [dependencies]
//! std = { package = "greenroom-std", version = "0.1" }
//! ```
//!
//! The compiler then finds greenroom's shims where it looks for a crate named `std`. That holds for
//! the whole package in all editions: nested modules, macros without a path, unit tests, integration
//! tests, documentation tests, examples and binaries. It also holds for `#![no_std]` crates that say
//! `extern crate std`. A library whose signatures have types such as `TcpStream` then has the shims'
//! types in them.
//!
//! To port someone else's crate, add the line to a copy of it (`cargo vendor` makes one), and put the
//! copy in place of the published crate by `[patch.crates-io]`. See
//! [below](#crates-that-were-tried) for crates that were tried.
//!
//! ## A program
//!
//! ```console
//! $ cargo install cargo-greenroom
//! $ cargo greenroom run
//! ```
//!
//! This compiles an unmodified program and everything that it depends on against the shims. Build
//! scripts and proc macros are left alone. `build`, `test`, `check`, `clippy`, `bench` and `doc` work
//! like `run`, with cargo's options and its configuration, for one target at a time, and in a target
//! directory of their own.
//!
//! - `--explain` tells which crates are on greenroom's std, and which can still block a worker.
//! - `--except CRATE` leaves a crate on the real std. Types such as `TcpStream` then do not fit
//!   between it and the others.
//! - The threads that tokio and async-io start for themselves stay OS threads, because they run many
//!   tasks each. Everything else in these crates uses the shims.
//! - A coroutine that waits in a poll of mio or of polling (3.8 or later) parks. So threads may call tokio's
//!   or smol's `block_on`, as the blocking client of reqwest and the crate postgres do: all of them wait at
//!   the same time.
//! - `--main` (with `run` and `build`) runs the main function as a coroutine, too; see
//!   [below](#the-main-function).
//! - parking_lot's locks park coroutines, too: `cargo greenroom` replaces parking_lot_core, which waits
//!   by a system call of its own.
//! - The threads on which ctrlc and jobserver wait for signals and pipes stay OS threads, too.
//!
//! In all Rust code that is compiled against the shims, thread-locals belong to the coroutines. So the
//! hazard of [shared thread-locals](crate::guide::hazards#shared-thread-locals) is gone. C code, and
//! crates that make system calls themselves, can still block a worker, unless there is
//! [`--libc`](#c-libraries).
//!
//! Coroutines then have std's default stack size, 2 MiB of address space, unless
//! `GREENROOM_STACK_SIZE` or `RUST_MIN_STACK` says otherwise.
//!
//! ### The main function
//!
//! `cargo greenroom run --main` runs the program's main function as a coroutine of the default runtime, on
//! the main thread. With `GREENROOM_WORKERS=1` the whole program then has one OS thread, unless it needs
//! the [pool](crate::unblock).
//!
//! - The stack has the size that `ulimit -s` sets, as the main thread's has, but 1 GiB at most.
//! - The process ends when the main function returns, panics or calls `exit`, with the same code and the
//!   same messages as on std. Threads that are left end with the process and do not unwind.
//! - What blocks the main thread in C code, such as the loop of a GUI, then blocks a worker. Such programs
//!   are better off without the option.
//! - A destructor that joins a thread while the main function panics aborts the program, as in
//!   [any coroutine](crate::guide::hazards#waiting-during-an-unwind).
//! - An OS thread that overflows its stack ends the program without std's message, because std is set up
//!   after greenroom. A coroutine that does, `main` included, is still reported.
//! - It is an error to call [`run`](crate::run) in the main function, which is a coroutine already.
//! - It works for executables of crates that are on greenroom's std, and for linkers that know `--wrap`,
//!   as all common ones do.
//!
//! ### C libraries
//!
//! `cargo greenroom run --libc` gives the program's executables [the patch of the C library](super::foreign), too.
//! Then calls like `recv`, `poll`, `connect` and `usleep` park: those of C libraries, such as libpq and libcurl,
//! and those of crates that call libc themselves, such as socket2 and nix. The option works with all commands,
//! and together with `--main`.
//!
//! - Binaries, examples, tests of all kinds and benchmarks have the patch. Libraries for other languages,
//!   build scripts and proc macros do not. Nor do executables of a crate that `--except` names, or of one whose
//!   threads stay OS threads.
//! - `--explain` tells which crates the patch reaches, and what in them still blocks.
//! - Each thread has the thread-locals of Rust to itself, so code that [takes the OS thread for the
//!   waiter](mod@crate::patch#what-is-identified-by-its-os-thread) works.
//! - C code may keep something per OS thread across such a call, which the coroutines of a worker then share: see
//!   [the hazards](super::hazards#code-under-the-patch).
//! - Crates that make system calls by themselves, as rustix does, can still block a worker.
//! - A program that has the macro `patch!` itself does not need the option, and does not link with it: the
//!   linker reports duplicate symbols. A program that names the crate `greenroom-patch` may have both.
//!
//! # What then happens
//!
//! `thread::spawn`, `scope` and `Builder` make coroutines, in the caller's runtime, or else in the
//! default runtime. `GREENROOM_WORKERS` is the number of the default runtime's workers. By default it has
//! as many as there are cores.
//!
//! `main` stays an OS thread. It blocks as usual, and the process ends when it returns. To run its code
//! as a coroutine like the others, on the same OS thread, call [`run`](crate::run):
//!
//! ```
//! greenroom::run(|| {
//!     // what main did
//! });
//! ```
//!
//! For an unmodified program, `cargo greenroom run --main` does it; see [below](#the-main-function).
//!
//! Coroutines of different workers run in parallel, so a data race stays a data race. Coroutines of one
//! worker take turns where they wait.
//!
//! # What stays std's
//!
//! - Under the line for a file: the prelude, and macros without a path, such as `println!` and
//!   `thread_local!`. Such a `println!` writes to std's own [`stdout`](std::io::stdout). It blocks the worker
//!   while the pipe or terminal behind it is full. std's lock belongs to the worker's thread, so if a
//!   `Display` implementation waits, another coroutine of the worker can print in the middle of its line.
//!   `std::println!` and `use std::println` are the shims'.
//! - Items named by `core::` or `alloc::`, and items that [`shims`] does not mirror: collections, formatting,
//!   the traits of `io`, `Arc`, atomics. Crates can exchange these.
//! - Other crates, unless the whole program is compiled by `cargo greenroom`. That includes paths
//!   through `$crate` in their macros. But a path `std::` or `::std::` that a macro writes into your crate,
//!   as many derives do, means what it means in your own code.
//! - Build scripts, which have dependencies of their own.
//! - What the operating system says about the calling thread.
//!
//! The real std is always in [`shims::real`], and types convert both ways:
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
//! # Async code
//!
//! Coroutines and async code use each other:
//!
//! - [`block_on`] runs a future on the calling coroutine, which parks until the future's waker is called. It
//!   works for futures that need no certain executor, and needs no runtime of another crate.
//! - Async code awaits a coroutine by its handle. The output is that of [`JoinHandle::join`]: see
//!   [`JoinFuture`]. On a thread of another executor, [`spawn`](crate::spawn) makes coroutines of the default
//!   runtime. A blocking call then occupies a coroutine, and no thread of that executor.
//!
//! ```
//! use std::time::Duration;
//!
//! use greenroom::shims::thread::sleep;
//! use greenroom::{block_on, spawn};
//!
//! async fn lookup(key: u32) -> u32 {
//!     let blocking = spawn(move || {
//!         sleep(Duration::from_millis(1)); // or a blocking driver of a database
//!         key * 2
//!     });
//!     blocking.await.unwrap()
//! }
//!
//! // A coroutine that calls async code, which awaits another coroutine:
//! let caller = spawn(|| block_on(lookup(21)));
//! assert_eq!(caller.join().unwrap(), 42);
//! ```
//!
//! Either side cancels the other:
//!
//! | what ends early | what becomes of the other side |
//! |---|---|
//! | a coroutine in [`block_on`] is cancelled, or its [`timeout`](crate::timeout) passes | the future is dropped |
//! | a task of tokio is aborted while a coroutine waits for its handle | `block_on` returns tokio's error |
//! | a future that awaits a handle is dropped | the coroutine runs on, as if the handle were dropped |
//! | a future that awaits [`cancel_on_drop`](crate::JoinHandle::cancel_on_drop) is dropped | the coroutine is cancelled |
//! | a coroutine that is awaited is cancelled or panics | the output is an `Err` with the payload |
//!
//! Dropping the handle of a task of tokio detaches the task. To have it end with the coroutine, wait for the
//! `AbortOnDropHandle` of the crate tokio-util.
//!
//! A runtime can also run on the executor's own thread, so that coroutines and tasks share it: see [the guide to
//! loops](super::loops#a-loop-of-async-code).
//!
//! ## tokio
//!
//! The sockets and timers of tokio, and crates that use them, such as reqwest, must be polled inside a runtime of
//! tokio. Start one beside the coroutines, and wrap the future in `TokioContext` of the crate tokio-util, with its
//! feature `rt`. That enters the runtime for each poll, and leaves it before the coroutine parks:
//!
//! ```ignore
//! let beside = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
//! let fetch = async { reqwest::get("http://example.com/").await?.text().await };
//! let text = greenroom::block_on(TokioContext::new(fetch, beside.handle().clone()))?;
//! ```
//!
//! Do not hold the guard of tokio's `Handle::enter` while a coroutine may park. It belongs to the OS thread, so
//! the other coroutines of the worker would find that runtime, and tokio panics if the guards are not
//! dropped in the reverse order. Nor call tokio's own `block_on` in a coroutine: it blocks the worker.
//! `tests/porting/futures.rs` has all of this with tokio and reqwest: 50 coroutines of one worker whose requests
//! are under way at the same time.
//!
//! # Crates that were tried
//!
//! These blocking crates were tried in copies that have the line in their `Cargo.toml`, with no change to
//! any source, and with the features that need no C library. All of them build.
//!
//! | crate | what it is | what it needs |
//! |---|---|---|
//! | ureq 2.12 | an HTTP client | nothing |
//! | attohttpc 0.31 | an HTTP client | nothing |
//! | minreq 2.14 | an HTTP client | nothing |
//! | tungstenite 0.30 | websockets | nothing |
//! | tiny_http 0.12 | an HTTP server | nothing |
//! | rouille 3.6 | an HTTP server | tiny_http, whose types it takes, must be ported as well |
//! | suppaftp 12.2 | an FTP client | nothing |
//! | imap 2.4 | an IMAP client | nothing |
//! | memcache 0.21 | a memcached client | nothing |
//! | beanstalkc 1.0 | a beanstalkd client | nothing |
//! | threadpool 1.8 | a pool of threads | nothing |
//! | crossbeam-channel 0.5.17 | channels | nothing |
//! | redis 1.8 | a redis client | the feature `socket2` |
//! | mysql 28.0 | a MySQL client | the feature `socket2`. It connects by socket2, which blocks the worker until the server has answered |
//! | lettre 0.11 | an SMTP client | as mysql |
//! | r2d2 0.8 | a pool of connections | `cargo greenroom`. By the line alone, the locks of parking_lot block the worker: keep the published crate, and have as many connections as threads, or wrap `get` in [`unblock`] |
//! | scheduled-thread-pool 0.2 | a pool of threads | as r2d2 |
//!
//! Tests of the repository run redis, mysql, lettre, ureq, tungstenite, minreq and tiny_http with many
//! threads on one worker. `tests/survey` takes more than 130 published crates, unmodified, and builds them by
//! `cargo greenroom`, or runs their own test suites; its `SURVEY.md` has the results.
//!
//! The feature `socket2` of `greenroom-std` (and of `greenroom`) converts between the sockets of
//! [socket2](https://docs.rs/socket2/0.6) 0.6 and the shims', as socket2 itself does for std's:
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
//! | a worker stops for good, or for a while, although its connections have data | a lock or a channel of the real std is waited for, and the other side needs that worker. Most often a guard is held across a wait | [`shims::sync`] |
//! | the same, while one thread computes, or spins until another has done something | nothing waits, and greenroom does not preempt | [`yield_now`] now and then, or [`unblock`] around the computation |
//! | the same, while one thread is in a C library or in a crate that is not ported | the library blocks the OS thread | [`cargo greenroom --libc`](#c-libraries), or [the patch](super::foreign) alone; [`unblock`] around the call; [`wait_fd`] before it, if the library exposes its descriptor |
//! | spans of tracing are inside those of other requests | its subscribers keep the spans of an OS thread | `greenroom_tracing::PerCoroutine` around the subscriber: the package `greenroom-tracing` |
//! | a `thread_local!` has the value of another request | a `thread_local!` without a path is std's, and the coroutines of a worker share its values | `std::thread_local! { … }`, or `use std::thread_local;` above; [`coroutine_local!`] |
//! | the value of a `thread_local!` changes or goes while it is in use, which is undefined behaviour | its initialiser waits, and another coroutine of the worker has initialised the value meanwhile | the same; [`deny_blocking`](crate::deny_blocking()) names the wait |
//! | mismatched types: `LocalKey`, and a different `LocalKey` | a `thread_local!` without a path is std's | the same |
//! | mismatched types: `TcpStream`, and a different `TcpStream` | another crate means std's | `.into()`; or port that crate, too |
//! | another crate misses `ToSocketAddrs` of a type of yours | the shims' trait is one of its own | implement [`real::net::ToSocketAddrs`](std::net::ToSocketAddrs) as well |
//! | parts of lines of output are out of order | the shims' `stdout` and std's, which macros without a path print to, each buffer the beginning of a line | `std::print!`, or [`flush`](std::io::Write::flush) of the shims' `stdout`, which flushes both |
//! | a worker stops while nobody reads standard output | a macro without a path | `std::println!`, or `use std::println;` above |
//! | a test's output is not captured | a harness captures only what std's own macros print, on its own threads | `std::real::println!` off-coroutine; for an unmodified program, nothing |
//! | lines of standard input are missing | the shims' `stdin` and std's each read ahead | use one of the two throughout |
//! | `has overflowed its stack` | a stack has 256 KiB by default, where std's threads have 2 MiB | [`Builder::stack_size`]; `GREENROOM_STACK_SIZE` or `RUST_MIN_STACK` for all |
//! | `a coroutine has no pthread_t`, or a thread must be the system's (signals, affinity, a GUI) | a coroutine is not an OS thread | `std::real::thread::spawn`, and [`join_thread`] |
//! | the program ends too early | `main` returns, as with std's threads | join the threads; [`wait_idle`] |
//! | threads that are left end with [`Cancelled`] | [`run`](crate::run) unwinds the remaining coroutines | join them before it ends |
//! | a thread's destructors do not run at the end of [`run`](crate::run) | it waited for a lock, a condition variable or an `unpark`, and was left behind | end it before, by a flag or a channel |
//! | Ctrl-C runs no destructors | a signal ends the process, as with std's threads | [`signal::unwind_on`], or [`signal::wait`] |
//! | a forked child cannot start threads | the process had a runtime | fork before the first one, or call `exec` |
//!
//! The remedies that need more than another name:
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
//! // An OS thread, joined without blocking a worker.
//! greenroom::join_thread(std::real::thread::spawn(|| {})).unwrap();
//! # REQUEST.set(1);
//! # let there = std::real::net::ToSocketAddrs::to_socket_addrs(&Service(80)).unwrap().next();
//! # assert_eq!(there, Some(([127, 0, 0, 1], 80).into()));
//! ```
//!
//! [`join_thread`]: crate::join_thread()
//! [`shims`]: crate::shims
//! [`shims::real`]: crate::shims::real
//! [`shims::sync`]: crate::shims::sync
//! [`signal::unwind_on`]: crate::signal::unwind_on
//! [`signal::wait`]: crate::signal::wait
//! [`coroutine_local!`]: crate::coroutine_local
//! [`unblock`]: crate::unblock
//! [`wait_fd`]: crate::wait_fd
//! [`wait_idle`]: crate::wait_idle
//! [`yield_now`]: crate::yield_now
//! [`block_on`]: crate::block_on
//! [`Builder::stack_size`]: crate::Builder::stack_size
//! [`Cancelled`]: crate::Cancelled
//! [`JoinFuture`]: crate::JoinFuture
//! [`JoinHandle::join`]: crate::JoinHandle::join
