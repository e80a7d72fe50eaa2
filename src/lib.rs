//! Green threads whose blocking-looking API *is* std's.
//!
//! A greenroom program is written as any blocking program is: a thread for each conversation,
//! which reads, writes, sleeps and joins. But the threads are coroutines with stacks of their own,
//! ten thousand of which share a few OS threads: what would block parks the coroutine instead, and
//! its OS thread goes on with others.
//!
//! ```
//! use greenroom::shims as std; // the one line that makes threads coroutines
//!
//! use std::io::{self, Read, Write};
//! use std::net::{TcpListener, TcpStream};
//! use std::thread;
//!
//! fn serve(listener: TcpListener) -> io::Result<()> {
//!     for stream in listener.incoming() {
//!         let mut stream = stream?;
//!         thread::spawn(move || io::copy(&mut stream.try_clone()?, &mut stream));
//!     }
//!     Ok(())
//! }
//!
//! fn main() -> io::Result<()> {
//!     let listener = TcpListener::bind("127.0.0.1:0")?;
//!     let addr = listener.local_addr()?;
//!     thread::spawn(|| serve(listener));
//!
//!     let mut client = TcpStream::connect(addr)?;
//!     client.write_all(b"hello")?;
//!     let mut echo = [0; 5];
//!     client.read_exact(&mut echo)?;
//!     assert_eq!(&echo, b"hello");
//!     Ok(())
//! }
//! ```
//!
//! # The model
//!
//! - **Coroutines** are made by [`spawn`], [`spawn_local`], [`scope`], [`Builder`], and by their
//!   namesakes in [`shims::thread`], which are the same items. Each has a stack of 256 KiB of
//!   *address space* (see [`Builder::stack_size`]), of which it occupies what it touches: a parked
//!   one about a page.
//! - **Workers** are OS threads that run coroutines. [`run`] makes the calling thread one for the
//!   time of a main function; a [`spawn`] from an ordinary thread starts a default runtime in the
//!   background. [`RuntimeBuilder`] has the settings.
//! - **Waiting**, by anything in [`shims`] or by [`park()`], parks the coroutine. Off-coroutine
//!   the same calls block the OS thread, as std's do; [`Unparker`] reaches both. [`wait_fd`] waits
//!   for a descriptor that somebody else uses, a C library say, and [`shims::select`] for many.
//! - **Timers**: [`after`] runs a closure later in a coroutine of its own, and can be cancelled or
//!   put off; [`interval`] ticks without drift.
//! - **What can only block** goes to a pool of threads: [`unblock`]. Name resolution does by
//!   itself, and so do regular files, unless the system has what is asked for in memory
//!   ([`shims::fs`]).
//! - **Locks and channels** of [`shims::sync`] serve coroutines and OS threads in any mix; beneath
//!   them is a futex that waits for both: [`sync::futex`].
//! - **Coroutine locals** are what thread-locals are to threads: [`coroutine_local!`], which is
//!   [`shims::thread_local!`], too.
//! - **Looking in**: [`stats`] tells how deep the stacks have been used.
//!
//! # What is guaranteed
//!
//! - A coroutine never changes its OS thread once it has run. So `Rc`, `RefCell` borrows, mutex
//!   guards and addresses of thread-locals stay valid across a wait, and nothing that lives on a
//!   stack need be [`Send`]; only what [`spawn`] moves into a coroutine that may start elsewhere.
//!
//!   ```
//!   use greenroom::shims as std;
//!   use std::{cell::RefCell, rc::Rc, thread, time::Duration};
//!
//!   thread::spawn(|| {
//!       let notes = Rc::new(RefCell::new(vec![1]));
//!       let mut borrowed = notes.borrow_mut();
//!       thread::sleep(Duration::from_millis(1)); // other coroutines run meanwhile
//!       borrowed.push(2);
//!   })
//!   .join()
//!   .unwrap();
//!   ```
//! - Names, signatures and errors are std's; [`shims`] lists what is mirrored, what differs and
//!   what is still std's own.
//! - Descriptors stay in blocking mode, as whoever shares them expects (but for listeners, while a
//!   connection is accepted: see [`shims::net::TcpListener`]).
//! - A panic ends its coroutine alone, and goes to whoever joins it. The panic hook is wrapped once, when
//!   the first runtime starts: the default hook then names the coroutine, and a hook of yours is called as
//!   ever.
//! - When the main function of [`run`] returns, or a [`Runtime`] is dropped, the coroutines that are left
//!   unwind where they wait for I/O, time, a join or a channel: their destructors run, and joining one gives
//!   an error with [`Cancelled`]. The default runtime ends with the process, as std's threads do.
//! - Where nothing happens, nothing runs: an idle program makes no wake-ups.
//! - Running out of stack faults on a guard below it, and ends the process with a message that
//!   names the coroutine, its stack size and the place that spawned it.
//!
//! # Hazards
//!
//! **A worker that is blocked runs nobody.** A long computation, a std mutex that is contended, a
//! call of a C library that waits: while one coroutine keeps its OS thread, the others of that
//! worker wait, and so do those elsewhere whose sockets it was the first to wait for. Compute in
//! slices with [`yield_now`], and wrap what blocks in [`unblock`]; [`deny_blocking`] finds who does. A
//! *std* lock that is held across a
//! wait can stop its worker for good; those of [`shims::sync`] do not:
//!
//! ```no_run
//! use std::sync::Mutex;
//! static LOCK: Mutex<()> = Mutex::new(());
//!
//! # greenroom::run(|| {
//! let guard = LOCK.lock().unwrap();
//! greenroom::spawn(|| drop(LOCK.lock().unwrap())); // may block the worker that ...
//! greenroom::yield_now(); // ... this coroutine needs to give the lock back
//! # drop(guard);
//! # });
//! ```
//!
//! **Coroutines of one worker share the thread-locals of its thread.** Code that relies on the calls of a
//! thread being *nested* can be broken by that: guards, for instance, that restore a previous value of a
//! thread-local when dropped.
//!
//! ```no_run
//! # use std::cell::Cell;
//! thread_local! { static DEPTH: Cell<u32> = const { Cell::new(0) } }
//!
//! fn nested(f: impl FnOnce()) {
//!     let before = DEPTH.replace(DEPTH.get() + 1);
//!     f(); // if this parks, another coroutine may enter here, ...
//!     DEPTH.set(before); // ... and this is not what it found
//! }
//! ```
//!
//! In two cases it is *undefined behaviour*, in code without `unsafe`:
//!
//! - An initialiser of std's `thread_local!` parks. Another coroutine of the thread may initialise the value
//!   meanwhile and hold a reference to it, which the first initialiser's value then replaces. In debug
//!   builds, [`deny_blocking`] names such a wait.
//! - A coroutine lends a thread-local's value to an OS thread ([`std::thread::scope`] within
//!   [`LocalKey::with`](std::thread::LocalKey::with)), its runtime leaves it behind (see below), and the
//!   thread that called [`run`] ends before that OS thread.
//!
//! The cure for both is [`coroutine_local!`], where the thread-local is one's own: its values belong to their
//! coroutines.
//!
//! **The modes of the floating-point units are the thread's.** A switch saves and restores neither
//! the control bits of MXCSR nor the x87 control word: to look at them alone takes as long as the rest
//! of a switch (about 7 ns). Code in C that changes the rounding, say, or has denormals flushed to
//! zero, and waits before it has changed that back, has changed it for the other coroutines of its
//! worker. In Rust to change them is undefined behaviour in any case.
//!
//! **Waiting while a panic unwinds.** std counts panics per OS thread, so while a coroutine unwinds, or runs
//! the panic hook, no other of its worker runs. A destructor that waits keeps the worker waiting with it: for
//! time, for a thread, for a lock that is held elsewhere. A socket operation that would have to wait fails.
//! A join, the end of a scope, [`wait_idle`], or a lock that a coroutine of the same worker holds, abort the
//! process with the names of both.
//!
//! **Shutting down unwinds, or leaves behind.** Where a runtime shuts down, waits for I/O, time, a join or a
//! channel unwind with [`Cancelled`], and what the coroutine has locked is poisoned. Waits that std never
//! unwinds do not: locks, condition variables, [`park()`], barriers, the end of a scope, and whatever a
//! destructor waits for. Coroutines that are still in one when nothing has happened for a tenth of a second,
//! and all that are left after [`RuntimeBuilder::grace`], are *left behind*, as std's detached threads are
//! when their process ends: they never run again, drop nothing, and joining one waits for ever. Under
//! `panic = "abort"` this happens to all at once. [`std::thread::panicking`] speaks of all coroutines of a
//! thread while they unwind together, and stays true if one was left behind amid its unwind.
//!
//! **A forked child has no runtime.** A child of a process that has had a runtime is to call `exec` or
//! `_exit`. Until then its calls block as std's do, its sockets close without a trace in the parent, and to
//! spawn, join or run fails with an error. Processes that fork before their first runtime have all of this
//! crate.
//!
//! # Implementation
//!
//! In the order in which things happen to a coroutine:
//!
//! 1. *Spawn.* One allocation holds the task (name, spawn site, the word that governs its waits)
//!    and its closure, later its result. Capacity for a stack is reserved; where it cannot be had,
//!    [`Builder::spawn`] returns the error. The task goes to the spawning worker's deque of fresh
//!    coroutines (or, from elsewhere, to the runtime's injector), and if nobody is searching for
//!    work, one sleeping worker is woken to.
//! 2. *First turn.* The worker that takes it pins it: from now on it is known by its slot there. It
//!    gets a stack, most likely one that is hot from the coroutine before. Stacks are slots of a
//!    few large mappings; the guards below them are made by `MADV_GUARD_INSTALL`, which splits no
//!    mapping (on kernels before 6.13 by `mprotect`, of which a process has room for about 32,000).
//!    Tops are staggered, lest all hot frames compete for the same cache sets.
//! 3. *An operation* that need not wait is one system call with `MSG_DONTWAIT`. A read that would
//!    have to is preceded by a park, if it is known to be futile: readiness is remembered from the
//!    edges that the poll reports, and cleared when an operation finds it gone or takes less than it
//!    could. A write is tried first, because the kernel tells of room only when there is much of it.
//!    When a timeout has passed, the operation is tried once more, and the kernel decides. The
//!    protocol is drawn in `reactor/ready_word.rs`.
//! 4. *Park.* A wait begins with a new sequence number in the task's word; whoever is to end it
//!    holds that number. One compare-and-swap on the word decides between event, deadline and
//!    interrupt; the loser has no effect (`task/word.rs`). A wait that has begun is suspended in any
//!    case, and whoever ends it, be it before that, schedules the coroutine. The switch is inlined
//!    into what waits, because a processor mispredicts the return from each function that has called
//!    before a switch and returns after it. Waiters queue by nodes on their own stacks. A deadline goes to the worker's timers, where arming and cancelling are
//!    mostly a few stores. One that is a duration away may be late by 1/64 of that, at most 1 ms,
//!    to share a wake-up of the worker with its neighbours; the instants of `*_until` are kept as well
//!    as the system can. Descriptors that others use are registered for each wait
//!    (`reactor/watch.rs`).
//! 5. *Wake.* The winner puts the slot into the owner's queue; from another thread, into its inbox,
//!    and kicks the owner's eventfd if that sleeps. Since a coroutine only runs on its owner, no
//!    waker has to wait for it to be switched out.
//! 6. *A worker's turn*: a bounded batch, alternately from started and fresh coroutines; then a poll
//!    without waiting; then the timers that are due. With nothing to run it looks for fresh
//!    coroutines elsewhere, and where there are none blocks in its poll until an event, a kick or the
//!    next deadline (`worker/sleep.rs` has the protocol). One that has many more coroutines than
//!    another leaves fresh ones to that (`worker/placement.rs`). A coroutine whose operations
//!    never wait is made to yield after 32 of them.
//! 7. *The end.* The result is published and the joiner woken (`task/completion.rs`) on the
//!    coroutine's own stack, which then goes back to the worker. A worker that is idle a second
//!    later takes note of how deep such stacks were used, and returns the memory of their deep parts
//!    to the system.
//!
//! The protocols of 3, 4, 6 and 7, the pool's, those of the futex and the locks over it (`sync/`), and the
//! channels (`channel/`) are model-checked: the package in `tests/models` of the repository compiles
//! their files over loom and shuttle.
//!
//! The layers, each of which knows only those below it: `shims`; `after`, `fs`; `runtime`, `fork`,
//! `spawn`, `scope`, `stats`; `scheduler`; `wait_fd`, `deny_blocking`;
//! `reactor`, `timer`, `resolver`, `blocking`,
//! `sync`, `channel`, `join`, `local`; `park`, `task`; `coroutine`, `sys`.

mod atomic;
mod channel;
mod coroutine;
mod diagnose;
mod fatal;
pub mod fs;
mod local;
mod park;
mod pool;
mod reactor;
mod runtime;
pub mod sync;
mod sys;
mod task;
mod time;
mod worker;

pub mod guide;

#[path = "../shims/mod.rs"]
pub mod shims;

pub use diagnose::deny_blocking::{BlockingReport, deny_blocking, deny_blocking_with};
pub use diagnose::stats::{StackStats, Stats, stats};
#[doc(hidden)]
pub use local::parts as __local;
pub use local::{AccessError, LocalKey};
pub use park::{Cancelled, Unparker, park, park_timeout, park_until, yield_now};
pub use pool::resolver::{Resolve, SystemResolver, set_resolver};
pub use pool::unblock;
pub use reactor::{Interest, Readiness, wait_fd};
pub use runtime::after::{TimerHandle, after};
pub use runtime::join::{JoinHandle, LocalJoinHandle};
pub use runtime::scope::{Scope, ScopedJoinHandle, scope};
pub use runtime::spawn::{Builder, spawn, spawn_local};
pub use runtime::thread::{Thread, ThreadId, current};
pub use runtime::{Runtime, RuntimeBuilder, run, wait_idle};
pub use shims::net::connect_within::ConnectWithin;
pub use shims::net::listen_options::ListenOptions;
pub use time::{Interval, interval};
