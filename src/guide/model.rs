//! What coroutines and workers are, and what greenroom guarantees.
//!
//! # The model
//!
//! - A **coroutine** is a thread that greenroom schedules. [`spawn`], [`spawn_local`], [`scope`] and
//!   [`Builder`] make coroutines, and so do their namesakes in [`shims::thread`], which are the same
//!   items. A coroutine reserves a stack of 256 KiB of *address space* (see
//!   [`Builder::stack_size`]). It occupies only the memory that it has touched: about one page while
//!   it is parked.
//! - A **worker** is an OS thread that runs coroutines. [`run`] makes the calling thread a worker
//!   until the main function that it was given returns. A [`spawn`] from an ordinary thread starts a
//!   default runtime with workers of its own. [`RuntimeBuilder`] has the settings.
//! - **Waiting** parks the coroutine, whether in [`shims`] or by [`park()`]. The same calls block
//!   the OS thread if the caller is no coroutine, as std's do. [`Unparker`] wakes both.
//!   [`wait_fd`] waits for a descriptor that other code uses, such as a C library, and
//!   [`shims::select`] waits for many.
//! - **Timers**: [`after`] runs a closure later, in a coroutine of its own, and the timer can be
//!   cancelled or reset. [`interval`] ticks without drift.
//! - **Blocking calls** run on a pool of threads, if they are wrapped in [`unblock`]. Name resolution
//!   in [`shims`] uses the pool by itself. So do operations on regular files that the system cannot
//!   serve from memory ([`shims::fs`]).
//! - **Locks and channels** of [`shims::sync`] serve coroutines and OS threads in any mix. They are
//!   built on a futex for both, [`sync::futex`].
//! - **Coroutine locals** are the thread-locals of coroutines: [`coroutine_local!`], which is also
//!   [`shims::thread_local!`].
//!
//! # What is guaranteed
//!
//! **A coroutine never leaves its OS thread once it has run.** Only coroutines that have not run yet
//! are stolen. So `Rc`, `RefCell` borrows, mutex guards and the addresses of thread-locals stay valid
//! across a wait. What lives on a coroutine's stack need not be [`Send`]; only what [`spawn`] moves
//! into the coroutine must be. Spawning is safe, with [one exception](crate::guide::hazards#shared-thread-locals):
//! a std `thread_local!` whose initialiser waits. [The patch of the C library](crate::guide::hazards#code-under-the-patch)
//! makes more exceptions, for which a program that has it vouches by the word `unsafe`.
//!
//! ```
//! use greenroom::shims as std;
//! use std::{cell::RefCell, rc::Rc, thread, time::Duration};
//!
//! thread::spawn(|| {
//!     let notes = Rc::new(RefCell::new(vec![1]));
//!     let mut borrowed = notes.borrow_mut();
//!     thread::sleep(Duration::from_millis(1)); // other coroutines run meanwhile
//!     borrowed.push(2);
//! })
//! .join()
//! .unwrap();
//! ```
//!
//! **Names, signatures and errors are std's.** [`shims`] lists what is mirrored, what differs, and
//! what is still std's own.
//!
//! **Descriptors stay in blocking mode**, as other users of the same descriptor expect. A listener that
//! has other users is the one exception, for the moment in which it accepts a connection: see
//! [`shims::net::TcpListener`].
//!
//! **A panic ends only its own coroutine** and goes to the joiner. If nobody joins, it goes to the hook that was
//! set around the code which has spawned the coroutine, or one of its ancestors ([`with_unjoined_hook`]), or
//! else to the hook of the process ([`set_unjoined_hook`]). greenroom wraps the panic hook
//! once, when the first runtime starts. The default hook then names the coroutine; a hook of yours is
//! called as before.
//!
//! **A coroutine can be stopped while it waits**, by a [`timeout`] around its code or by
//! [`JoinHandle::cancel`], and its destructors run. Only waits that std's callers expect to fail or to last
//! are interrupted: see [Deadlines and cancellation](crate::guide::deadlines).
//!
//! **The end of a runtime runs destructors.** When the main function of [`run`] returns, or a
//! [`Runtime`] is dropped, the remaining coroutines unwind if they wait for I/O, for time, for a join
//! or for a channel. Joining one of them gives an error with [`Cancelled`]. See
//! [Shutdown](crate::guide::hazards#shutdown) for the coroutines that cannot unwind. The default
//! runtime ends with the process, as std's threads do.
//!
//! **An idle program makes no wake-ups.** There is no tick and no polling interval.
//!
//! **A stack overflow hits a guard below the stack** and ends the process. The message names the
//! coroutine, the size of its stack, and the place that spawned it.
//!
//! [`Builder`]: crate::Builder
//! [`Builder::stack_size`]: crate::Builder::stack_size
//! [`Cancelled`]: crate::Cancelled
//! [`JoinHandle::cancel`]: crate::JoinHandle::cancel
//! [`Runtime`]: crate::Runtime
//! [`RuntimeBuilder`]: crate::RuntimeBuilder
//! [`Unparker`]: crate::Unparker
//! [`after`]: crate::after()
//! [`coroutine_local!`]: crate::coroutine_local
//! [`interval`]: crate::interval()
//! [`park()`]: crate::park()
//! [`run`]: crate::run
//! [`scope`]: crate::scope()
//! [`set_unjoined_hook`]: crate::set_unjoined_hook()
//! [`shims`]: crate::shims
//! [`shims::fs`]: crate::shims::fs
//! [`shims::net::TcpListener`]: crate::shims::net::TcpListener
//! [`shims::select`]: crate::shims::select
//! [`shims::sync`]: crate::shims::sync
//! [`shims::thread`]: crate::shims::thread
//! [`shims::thread_local!`]: crate::shims::thread_local
//! [`spawn`]: crate::spawn()
//! [`spawn_local`]: crate::spawn_local()
//! [`sync::futex`]: crate::sync::futex
//! [`timeout`]: crate::timeout()
//! [`unblock`]: crate::unblock()
//! [`wait_fd`]: crate::wait_fd()
//! [`with_unjoined_hook`]: crate::with_unjoined_hook()
