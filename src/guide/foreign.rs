//! Code you do not compile: how crates and C libraries that you leave as they are run on coroutines.
//!
//! # Which way for which code
//!
//! | the code | what to use | why |
//! |---|---|---|
//! | a file of yours | [the line for a file](super::porting#a-file) | the types in it are greenroom's, and it has all of greenroom's promises |
//! | a crate of yours | [the line for a crate](super::porting#a-crate) | the same for the whole crate |
//! | a program with all its Rust crates | [`cargo greenroom`](super::porting#a-program) | threads become coroutines, thread-locals belong to them, and safe code stays safe |
//! | the same, and the C libraries that it uses | [`cargo greenroom --libc`](super::porting#c-libraries) | both at once |
//! | a C library, such as libcurl or libpq, in a program of yours | the patch | nothing else reaches it |
//! | a crate as it is published, in a program that cargo builds | the patch, if the [table](#crates-that-were-tried) has no objection | no copy of the crate, and no other build |
//! | a single call that blocks | [`unblock`](crate::unblock()) | the call runs on an OS thread, whatever it does |
//! | a handle that has to stay on one OS thread | [`PinnedThread`](crate::PinnedThread) | its calls run there |
//! | code that computes | [`unblock`](crate::unblock()), or [`yield_now`](crate::yield_now) inside it | it never waits, so it never parks |
//!
//! All of them mix. A program may have files and crates on the shims, and the patch for the C libraries below
//! them. Their sockets convert into each other.
//!
//! Where there is a choice, prefer the shims to the patch. The patch sees only the calls of C, which know
//! descriptors and OS threads. So `std::thread::spawn` still starts an OS thread, and the coroutines of a worker
//! share what belongs to its OS thread.
//!
//! # The patch
//!
//! One line in the root of the program replaces the functions of the C library that block, for all code in the
//! process: std, crates, C libraries. [`patch`](mod@crate::patch) has the list of the functions. The
//! [hazards](super::hazards#code-under-the-patch) say what the word `unsafe` stands for.
//!
//! ```standalone_crate
//! greenroom::patch!(unsafe);
//!
//! use std::io::{Read, Write};
//! use std::net::{TcpListener, TcpStream}; // std's own
//! use std::time::{Duration, Instant};
//!
//! /// From a crate that knows nothing of greenroom.
//! fn ask(server: std::net::SocketAddr) -> std::io::Result<String> {
//!     let mut stream = TcpStream::connect(server)?;
//!     let mut answer = String::new();
//!     stream.read_to_string(&mut answer)?;
//!     Ok(answer)
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let server = listener.local_addr()?;
//! # let waits = Duration::from_millis(500);
//! std::thread::spawn(move || { // an OS thread, as always in std
//!     for stream in listener.incoming() {
//!         std::thread::spawn(move || {
//!             std::thread::sleep(waits);
//!             stream?.write_all(b"late")
//!         });
//!     }
//! });
//!
//! let runtime = greenroom::RuntimeBuilder::new().workers(1).build()?;
//! let start = Instant::now();
//! runtime.run(|| {
//!     let clients: Vec<_> = (0..20).map(|_| greenroom::spawn(move || ask(server))).collect();
//!     for client in clients {
//!         assert_eq!(client.join().unwrap().unwrap(), "late");
//!     }
//! });
//! assert!(start.elapsed() < 10 * waits); // on one OS thread, all twenty have waited at once
//! # Ok(())
//! # }
//! ```
//!
//! [`patch::status`](crate::patch::status()) tells whether the patch is in force. In a program that has the macro,
//! no runtime starts if it is not.
//!
//! A program that forbids `unsafe` code names the crate `greenroom-patch` instead of the macro: `use greenroom_patch
//! as _;`. With `cargo greenroom`, an unmodified program gets the patch by the option
//! [`--libc`](super::porting#c-libraries).
//!
//! # What it does not do
//!
//! **Threads stay OS threads.** A crate that starts a thread gets an OS thread. Coroutines can share std's locks,
//! sockets and pipes with it, and join it.
//!
//! **Some waits identify the waiter by its OS thread.** They take the coroutines of a worker for one thread. Each of these
//! was tried on one worker:
//!
//! | | one coroutine waits | several coroutines of a worker wait |
//! |---|---|---|
//! | `Mutex`, `RwLock`, `Condvar`, `Once`, `OnceLock`, `Barrier` of std | works | works |
//! | `JoinHandle::join` of std | works | works |
//! | `thread::park` | works, if an OS thread or another coroutine unparks it | waits for ever |
//! | `thread::scope` | works | waits for ever |
//! | `recv` of `mpsc` and of crossbeam-channel | works, if an OS thread sends. A sender on the same worker does not wake it | waits for ever |
//! | `recv` of flume | works | waits for ever |
//! | a contended lock of parking_lot | blocks the worker until another OS thread releases the lock. If a coroutine of the same worker holds it, for ever | as for one |
//! | a call into rayon's pool | blocks the worker until the result is there | one after the other |
//! | `block_on` of tokio | works | tokio panics: "Cannot start a runtime from within a runtime" |
//! | `println!` | works | works, but the lock does not keep the others out: if a `Display` implementation waits, lines mix |
//!
//! The first such wait is reported on standard error, with the name of the coroutine. (That of tokio is not: it
//! panics by itself.) The ways out, in this order:
//!
//! - `cargo greenroom`, with or without `--libc`: each coroutine is then a thread of its own for all of this code;
//! - greenroom's own items, if the code is yours: [`park`](crate::park()), [`scope`](crate::scope()),
//!   [`channel`](crate::channel), [`shims::sync`](crate::shims::sync), and [`block_on`](crate::block_on()) instead
//!   of tokio's: see [async code](super::porting#async-code);
//! - [`unblock`](crate::unblock()) around the call, which then runs on an OS thread.
//!
//! **System calls that bypass the C library block the worker.** Such are those of rustix, and so of polling,
//! async-io and smol, and those of Go. `cargo greenroom` makes the polls of polling park.
//!
//! **Locks of C**: mutexes, condition variables, read-write locks and semaphores park a coroutine that waits for
//! another one of its worker. A mutex that another thread or process holds blocks the worker: see
//! [`patch`](mod@crate::patch).
//!
//! ## What never parks
//!
//! These block the worker, under the patch as without it. [`unblock`](crate::unblock()) around the call helps, where the
//! call may run on another thread.
//!
//! - Regular files, and `open` of a named pipe. Reads and writes of a named pipe park, unless another thread takes the
//!   bytes or the room at the last moment.
//! - The descriptors 0, 1 and 2.
//! - `ppoll`, `pselect`, `epoll_pwait` and `epoll_pwait2` with a signal mask that differs from the thread's. They want to
//!   handle signals on this thread while they wait.
//! - Waits for signals: `sigwait`, `sigwaitinfo`, `sigtimedwait`, `sigsuspend`, `pause`.
//! - `tee`, `vmsplice`, `tcdrain`, and an `ioctl` that waits. Reads from a terminal whose mode sets a time for them
//!   (`VTIME`).
//! - The close of a socket with `SO_LINGER`, if no descriptor is left.
//! - Message queues and semaphores of the system: `mq_receive`, `mq_send`, `msgrcv`, `msgsnd`, `semop`.
//! - `pthread_once`, and with it `std::call_once` of C++, `pthread_barrier_wait`, the joins of threads other than
//!   `pthread_join`, and what `threads.h` declares (`mtx_lock`, `cnd_wait`, `thrd_join`). If the function of a
//!   `pthread_once` waits, and another coroutine of the worker comes to it meanwhile, both wait for ever.
//! - System calls by number, through `syscall`, except futexes: so `io_uring_enter` and `io_getevents`. Futexes with a
//!   set of bits. And `aio_suspend`, `getaddrinfo_a` with `GAI_WAIT`, `gai_suspend`.
//! - What the C library calls internally: the reads and writes of `fgets` and the like, `eventfd_read` and
//!   `eventfd_write`, `lockf`, `system`, `pclose`, the queries of `res_query`, the lookups of users by `getpwnam`.
//! - Calls of libraries that were loaded by `dlopen` with `RTLD_DEEPBIND`, and those of very old binaries by names such as
//!   `__pthread_mutex_lock`.
//!
//! `flockfile` neither parks nor keeps another coroutine of the worker out: the C library takes them for one thread. So
//! a coroutine that waits while it has the lock of a `FILE` is not alone with it.
//!
//! A loop that waits for another coroutine of its worker without blocking never ends if it only calls these:
//!
//! - `sched_yield`, which is std's `thread::yield_now`. It lets OS threads run, but no coroutine.
//! - Sends and writes in non-blocking mode. Reads in that mode let others run now and then if they find nothing, and so
//!   do polls.
//!
//! # Interrupts in C code
//!
//! A [`timeout`](crate::timeout()) or a [cancellation](crate::JoinHandle::cancel) cannot unwind through C code,
//! or through Rust code that is not written for that. So a function of the patch that waits *fails* instead:
//! with `ETIMEDOUT` while the code is inside a timeout that has passed, and once with `ECANCELED` after a
//! cancellation. A sleep cannot fail. It ends early, and the next call that can fail does. Waits for mutexes and other
//! locks of threads, for threads, and for any child or for one that stops are not interrupted. A wait for the end of one
//! child by its number is, where the kernel has `pidfd_open`, and the child then still has to be waited for.
//!
//! - The library sees an error of the system, and treats it like any other: it closes the connection, say.
//! - [`timeout`](crate::timeout()) then returns `Ok` with what the closure returns, which is an error of the
//!   library. For a timeout, ureq 3 returns `Error::Timeout`; for a cancellation, an I/O error with
//!   `ECANCELED`. libcurl 7.88 returns the error 43 for both, "A libcurl function was given a bad argument",
//!   because its `poll` has failed.
//! - A library that tries again after any error is not ended by a cancellation, and spins inside a timeout that
//!   has passed. Use the library's own timeouts for it.
//! - The library's own timeouts work as without the patch.
//! - The end of a runtime cancels what is left. Code that goes on after an error, as the loop
//!   `for stream in listener.incoming()` may, is told once and then waits again. It is left behind when the
//!   [grace](crate::RuntimeBuilder::grace) is over, 30 s unless set. So is `loop { sleep(second); … }`.
//!   Tokio takes the error of its poll for a fault, and panics.
//!
//! # Crates that were tried
//!
//! By the patch, they were tried unmodified, with up to 200 coroutines of one worker that wait at the same time.
//! "One at a time" means that only one coroutine of each worker may use the crate.
//!
//! | crate | by the rename, or by `cargo greenroom` | by the patch alone |
//! |---|---|---|
//! | ureq 2.12 | works | works |
//! | ureq 3.5, also over rustls | works with `cargo greenroom` | works |
//! | minreq 2.14 | works | works without `with_timeout`. With it, one at a time: it starts a thread and waits by `mpsc` |
//! | attohttpc 0.31 | works | works. It has an OS thread for each request with a `timeout`. To a name with several addresses, one at a time (by its source, not tried): it waits by `mpsc` |
//! | curl 0.4 (libcurl), also over OpenSSL | blocks | works. It has an OS thread for each name that it resolves |
//! | isahc 1.8 (libcurl) | not tried | works. libcurl runs on an OS thread of its own |
//! | reqwest 0.12, `blocking` | works with `cargo greenroom` | one at a time: it waits by `thread::park` |
//! | tungstenite 0.30 | works | works |
//! | suppaftp 12.2 | works | works |
//! | lettre 0.11 | works | works |
//! | imap 2.4 | works | works |
//! | zmq 0.10 (libzmq) | blocks | works. It has two OS threads |
//! | tiny_http 0.12 | works; its threads are coroutines | works. It has an OS thread for each connection; `recv` and `respond` park |
//! | rouille 3.6 | works; its threads are coroutines | works as without the patch: handlers run on OS threads of its own |
//! | mio 1.2 | works with `cargo greenroom` | works: an event loop in a coroutine parks |
//! | tokio 1.54 | works with `cargo greenroom` | works on threads of its own, beside coroutines. `block_on` in coroutines: one at a time |
//! | nix 0.30: `poll`, `epoll`, `timerfd`, `eventfd`; socket2 0.6; inotify 0.11; signal-hook 0.3 | not tried | works |
//! | polling 3, async-io 2 | works with `cargo greenroom` | blocks: its system calls are those of rustix |
//! | mysqlclient-sys 0.5 (libmariadb) | blocks | works |
//! | mysql 28.0 | works | works, and so does its pool |
//! | pq-sys 0.7, diesel 2.3 (libpq) | blocks | works |
//! | postgres 0.19 | works with `cargo greenroom` | one at a time: it calls tokio's `block_on` |
//! | redis 1.8 | works | works |
//! | memcache 0.21, r2d2 0.8 | works with `cargo greenroom` | works if the pool has a connection for each coroutine. To wait for one blocks the worker: it waits by parking_lot |
//! | libldap | blocks | works |
//! | rusqlite 0.37 (SQLite) | blocks | the wait for another connection's lock parks. Computing, and waits for the disk, block |
//! | threadpool 1.8 | works; its threads are coroutines | works as without the patch, and `join` parks |
//! | crossbeam-channel 0.5, flume 0.11 | works; flume with `cargo greenroom` | one at a time, and an OS thread has to send |
//! | parking_lot 0.12 | works with `cargo greenroom` | works without contention |
//! | rayon 1.12 | works with `cargo greenroom` | works, and blocks the worker meanwhile |
//! | scoped-tls 1.0 | works with `cargo greenroom` | [unsound](super::hazards#code-under-the-patch) if several coroutines of a worker use it |
//!
//! The folders `patched` and `servers` of `tests/porting` in the repository have tests of most of these.
#![forbid(unsafe_code)]
