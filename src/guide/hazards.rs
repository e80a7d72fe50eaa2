//! What coroutines do differently from threads, and what can go wrong.
//!
//! # A blocked worker
//!
//! A worker runs one coroutine at a time. While a coroutine computes for long, waits for a contended
//! std mutex, or is inside a C library that blocks, the other coroutines of its worker wait. A coroutine
//! of another worker waits, too, if the blocked worker watches its socket: the events of a socket go to
//! the worker that was the first to wait for it.
//!
//! Slice computations with [`yield_now`]. Wrap blocking calls in [`unblock`]. [`deny_blocking`] names
//! the coroutines that block.
//!
//! A *std* lock that is held across a wait can stop its worker for good. The locks of
//! [`shims::sync`] cannot:
//!
//! ```no_run
//! use std::sync::Mutex;
//! static LOCK: Mutex<()> = Mutex::new(());
//!
//! # greenroom::run(|| {
//! let guard = LOCK.lock().unwrap();
//! greenroom::spawn(|| drop(LOCK.lock().unwrap())); // may block the worker ...
//! greenroom::yield_now(); // ... that this coroutine needs to release the lock
//! # drop(guard);
//! # });
//! ```
//!
//! # Shared thread-locals
//!
//! The coroutines of a worker share the thread-locals of its OS thread. This breaks code that relies
//! on calls of one thread being *nested*, such as a guard that restores the previous value of a
//! thread-local when it is dropped:
//!
//! ```no_run
//! # use std::cell::Cell;
//! thread_local! { static DEPTH: Cell<u32> = const { Cell::new(0) } }
//!
//! fn nested(f: impl FnOnce()) {
//!     let before = DEPTH.replace(DEPTH.get() + 1);
//!     f(); // if this parks, another coroutine may enter `nested` ...
//!     DEPTH.set(before); // ... and see its own value overwritten here
//! }
//! ```
//!
//! In two cases it is *undefined behaviour*, in code without `unsafe`:
//!
//! - The initialiser of a std `thread_local!` parks. Meanwhile another coroutine of the thread can
//!   initialise the value and hold a reference to it. The first initialiser then replaces the value
//!   under that reference. In debug builds, [`deny_blocking`] names such a wait.
//! - A coroutine lends the value of a thread-local to an OS thread, by [`std::thread::scope`] inside
//!   [`LocalKey::with`](std::thread::LocalKey::with). Its runtime leaves the coroutine behind (see
//!   [Shutdown](#shutdown)), and the thread that called [`run`] ends before the borrowing OS thread
//!   does.
//!
//! [`coroutine_local!`] is the cure for both, if the thread-local is yours: its values belong to the
//! coroutines. For the spans of [tracing](https://docs.rs/tracing), which its subscribers keep in a thread-local,
//! the cure is the package `greenroom-tracing`.
//!
//! # A global allocator that locks
//!
//! A global allocator may wait for a lock of [`shims::sync`], but not while it holds another. A worker allocates outside
//! of its coroutines, too: if one of them has parked with the lock that the worker then needs, the process aborts with a
//! message.
//!
//! # Code under the patch
//!
//! Under [the patch](mod@crate::patch), each call of the C library that blocks is a point at which other coroutines of
//! the same OS thread run. Such calls are in code whose author could rely on the opposite: that nothing else runs
//! on this thread before the call returns. With the word `unsafe` in `greenroom::patch!(unsafe)` you vouch for
//! all code that runs on coroutines: if it keeps something per OS thread across a call that blocks, it does
//! not need to be alone with it.
//!
//! Safe code of this kind panics, or has the value of another coroutine:
//!
//! ```no_run
//! # use std::{cell::RefCell, io::Read, net::TcpStream};
//! thread_local! { static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) } }
//!
//! fn read(mut stream: TcpStream) -> std::io::Result<usize> {
//!     BUFFER.with_borrow_mut(|buffer| {
//!         buffer.clear();
//!         stream.read_to_end(buffer) // the next coroutine to call `read` panics: "already borrowed"
//!     })
//! }
//! ```
//!
//! Unsafe code of this kind is *undefined behaviour*:
//!
//! ```no_run
//! # use std::cell::Cell;
//! # struct Request;
//! thread_local! { static CURRENT: Cell<*const Request> = const { Cell::new(std::ptr::null()) } }
//!
//! fn serve(request: Request, f: impl FnOnce()) {
//!     let before = CURRENT.replace(&request);
//!     f(); // if this parks, the coroutine of `before` may end meanwhile ...
//!     CURRENT.set(before); // ... and this is a pointer to a request that is gone
//! }
//!
//! fn current() -> Option<&'static Request> {
//!     // SAFETY: `serve` resets the pointer before the request is dropped. (Not under the patch!)
//!     unsafe { CURRENT.get().as_ref() }
//! }
//! ```
//!
//! - The crate scoped-tls is like this example. So may be any crate that keeps a "current" something in a
//!   thread-local. On the shims, the waits of your own closure have the same effect, unless `cargo greenroom`
//!   compiles that crate, too: thread-locals then belong to the coroutines.
//! - A wait for a lock of parking_lot is a node in a list, and the node lies in a thread-local. The second
//!   coroutine of a thread to wait would link the same node again. rayon waits in a thread-local, too. The
//!   patch recognizes these two, and blocks the worker instead of parking. The program may then hang, but its
//!   memory stays intact.
//! - The first of the [two cases](#shared-thread-locals) above, an initialiser that parks, needs no shims
//!   under the patch: it is enough that the initialiser reads a socket or resolves a name.
//!
//! A crate is safe to run under the patch if it keeps nothing in thread-locals, or never blocks while it does.
//! [The table of crates](super::foreign#crates-that-were-tried) has those that were tried.
//!
//! # Floating-point modes
//!
//! A switch saves neither the control bits of MXCSR nor the x87 control word, because reading both
//! takes as long as the rest of the switch (about 7 ns). So the modes belong to the OS thread. If C
//! code changes, for example, the rounding mode and waits before it restores the mode, it has changed
//! the mode for the other coroutines of its worker. In Rust, changing these modes is undefined
//! behaviour in any case.
//!
//! # Waiting during an unwind
//!
//! std counts panics per OS thread. So while a coroutine unwinds, or runs the panic hook, no other
//! coroutine of its worker runs (except during the [shutdown](#shutdown) of a runtime):
//!
//! - A destructor that waits for time, for an OS thread, or for a lock that is held on another worker
//!   keeps its worker waiting.
//! - A socket operation that would have to wait fails.
//! - [`block_on`](crate::block_on) and [`from_callback`](crate::from_callback) keep the worker waiting until the waker
//!   or the callback is called. They do not know by what: if that needs a coroutine of the same worker, it never
//!   happens.
//! - A wait for other coroutines of its runtime aborts the process with a message, because they may need this
//!   worker to go on: a join, the end of a scope, [`wait_idle`], and a lock held by a coroutine of the same worker.
//!   A join of another runtime's coroutine keeps the worker waiting.
//! - Under [the patch](mod@crate::patch), a mutex of C is such a lock. std's locks do not tell their holders, nor do
//!   the read-write locks, semaphores and condition variables of C. They keep the worker waiting: for ever, if that
//!   needs a coroutine of the same worker.
//!
//! # Shutdown
//!
//! When a runtime shuts down, each remaining coroutine unwinds with [`Cancelled`] at its next wait
//! for I/O, for time, for a join or for a channel. The locks that it holds are poisoned.
//!
//! Waits that std never unwinds are not unwound here either, because `unsafe` code relies on that:
//! locks, condition variables, [`park()`], barriers, the end of a scope, and all waits inside a
//! destructor. A coroutine is *left behind* in such a wait once nothing has happened in the runtime for
//! 100 ms. After [`RuntimeBuilder::grace`], all remaining coroutines are left behind.
//!
//! A coroutine that is left behind never runs again and drops nothing, like a detached std thread when
//! its process ends. A join of such a coroutine waits for ever. Under `panic = "abort"`, where nothing can
//! unwind, all remaining coroutines are left behind at once.
//!
//! While several coroutines of one OS thread unwind in a shutdown, [`std::thread::panicking`] is true for
//! all of them. If one is left behind during its unwind, it stays true on that thread.
//!
//! # Signals
//!
//! A signal such as SIGTERM or SIGINT (Ctrl-C) ends the process at once, and no destructor runs, unless the program
//! asks for another end: [`signal::wait`] has it end by itself, and [`signal::unwind_on`] has all coroutines unwind
//! first. Both take the default action away from that signal alone.
//!
//! A signal handler runs on the stack of the coroutine that happens to run on the thread, unless it was installed
//! with SA_ONSTACK. The kernel saves the registers there, too, which takes 1 KiB to 4 KiB (more with AMX). So
//! coroutines with the smallest stacks, 16 KiB, should leave that much room.
//!
//! Under [the patch](mod@crate::patch), a signal handler may call `write`, `send`, `sendto` and `sendmsg` where they do
//! not have to wait, for a few bytes: on a descriptor in non-blocking mode, or with `MSG_DONTWAIT`. It may call no other
//! function that the patch replaces. Such a function may let other coroutines run before the handler has returned.
//! `close`, `dup2` and `accept` may wait for ever for a lock that the interrupted code holds.
//!
//! # Fork
//!
//! A forked child has no runtime. After a process has had a runtime, its forked children should call
//! `exec` or `_exit`. Until they do, their calls block as std's do, and spawning, joining and running
//! fail with an error. Closing a socket in the child does not disturb the parent. Locks, channels and semaphores work
//! in the child, but what another thread or coroutine held at the fork, be it a lock or a permit, is not given back
//! there. A [`Barrier`] still counts those that had come before the fork. A [`ThreadPool`] makes its calls on the calling
//! thread, and calls of a [`PinnedThread`] panic. A process that forks before its first runtime can use all of greenroom in
//! both processes.
//!
//! [`Barrier`]: crate::sync::Barrier
//! [`Cancelled`]: crate::Cancelled
//! [`PinnedThread`]: crate::PinnedThread
//! [`RuntimeBuilder::grace`]: crate::RuntimeBuilder::grace
//! [`ThreadPool`]: crate::ThreadPool
//! [`coroutine_local!`]: crate::coroutine_local
//! [`deny_blocking`]: crate::deny_blocking()
//! [`park()`]: crate::park()
//! [`run`]: crate::run
//! [`shims::sync`]: crate::shims::sync
//! [`signal::unwind_on`]: crate::signal::unwind_on
//! [`signal::wait`]: crate::signal::wait
//! [`unblock`]: crate::unblock()
//! [`wait_idle`]: crate::wait_idle
//! [`yield_now`]: crate::yield_now
