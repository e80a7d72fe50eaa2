//! Deadlines and cancellation: how to stop waiting, and what that does to the code that waited.
//!
//! # The two interrupts
//!
//! A *timeout* is set around code, by that code's caller. A *cancellation* comes from another coroutine
//! or thread, by a handle. Both end a wait of the coroutine, at an interruption point and nowhere else:
//!
//! | Interruption points | Not interrupted |
//! |---|---|
//! | sockets, pipes, terminals, children, names that are resolved | reads and writes of regular files, operations on paths |
//! | opening, copying, locking and watching files | the end of a scope (but see below) |
//! | [`sleep`], [`interval`], joins, [`wait_idle`] | locks, condition variables, barriers, `Once`, [`park()`] |
//! | channels, `select!`, [`select`], [`wait_fd`], [`unblock`] | computations |
//! | [`interruption_point`], for code that computes | |
//!
//! The right column has what std never unwinds. Code with `unsafe` relies on that: it may hold a pointer
//! into a frame while it waits for a lock. An interrupt that comes in such a wait is delivered at the next
//! interruption point.
//!
//! # What a timeout looks like
//!
//! ```
//! use greenroom::shims as std;
//! use std::io::{self, BufRead, BufReader, Write};
//! use std::net::{TcpListener, TcpStream};
//! use std::time::Duration;
//!
//! fn ask(addr: std::net::SocketAddr) -> io::Result<String> {
//!     let mut stream = TcpStream::connect(addr)?;
//!     stream.write_all(b"time?\n")?;
//!     let mut answer = String::new();
//!     BufReader::new(stream).read_line(&mut answer)?;
//!     Ok(answer)
//! }
//!
//! # fn main() -> io::Result<()> {
//! # greenroom::run(|| {
//! let silent = TcpListener::bind("127.0.0.1:0")?;
//! let addr = silent.local_addr()?;
//! // One limit for all of it: the lookup, the connection, the request and the answer.
//! let answer = greenroom::timeout(Duration::from_millis(20), || ask(addr));
//! assert!(answer.is_err());
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! [`timeout`] and [`timeout_at`] say which of several nested timeouts returns the error, and what a limit
//! of zero does. A [`Deadline`] is shared by operations that must end together.
//!
//! # What unwinding means
//!
//! The wait unwinds like a panic, but without a message: destructors run, files and sockets are closed,
//! values come back to their pools. The code that was interrupted has done a part of its work:
//!
//! - **Locks that were held are poisoned**, as after a panic, because what they guard may be half done.
//! - **What was read or written stays so.** [`read_exact`] and [`write_all`] do not tell how far they came. A
//!   [`copy`] from a [`Take`] tells by its limit how much it has read.
//!   Use [`read`] and [`write`] and count, keep a [`makefile`] outside of the timeout (an interrupted
//!   line is read on by the next call), or have the interrupt delivered as an error.
//! - **Messages are not lost.** A message that was not received stays in its channel. A message that was
//!   not sent is dropped by the unwind of `send`; a send with a timeout gives it back.
//! - **A future in [`block_on`]** is dropped, which is how async code is cancelled. See
//!   [async code](super::porting#async-code) for coroutines that are awaited.
//! - **Code with `unsafe`** that calls back into waits must be as safe against an unwind as against a
//!   panic of the callee. Code that is not, because with std these calls never panic, needs
//!   [`Interrupts::Errors`].
//! - **`catch_unwind`** catches interrupts as well. Code that catches everything and goes on is
//!   interrupted again at its next interruption point, after others had their turn;
//!   [`Stats::swallowed_interrupts`] counts that.
//! - **A wait in a destructor** during the unwind is not interrupted again, and keeps the worker. A
//!   destructor that *joins* a coroutine of the same worker aborts the process, as it does after a panic: see
//!   the [hazards](super::hazards#waiting-during-an-unwind). So keep a value like a pool of threads, which
//!   joins them when it is dropped, outside of the timeout.
//! - **At the end of a coroutine**, a cancellation has nothing left to end. So the destructors of its
//!   coroutine locals, of a result that nobody takes, and of a closure that never ran, wait as usual.
//! - **A `BufWriter` that is interrupted amid a write** does not flush when it is dropped, as after a panic. The same
//!   is true of the files of [`makefile`]. A later `flush` still writes what is left.
//! - Under `panic = "abort"` nothing can unwind, so all interrupts are delivered as errors.
//!
//! # Errors instead of unwinding
//!
//! [`Builder::interrupts`] with [`Interrupts::Errors`] sets a whole coroutine, and [`with_interrupts`] a part
//! of the code, to errors. An I/O operation that would have to wait then fails: with `TimedOut` as long as
//! it is inside the timeout that has passed, and once with [`Cancelled`] after a cancellation. All other
//! waits go on. This is for C-like code, and for code that was ported with a crate whose own `unsafe` was
//! not written with unwinding waits in mind.
//!
//! [`shield`] keeps both interrupts away from code that must come to its end.
//!
//! # Scopes
//!
//! The end of a [`scope`] does not unwind before its coroutines have ended, because they borrow from it.
//! So a scope takes its coroutines along: if it is interrupted, or unwinds from an interrupt inside it, it
//! cancels them, waits, and only then unwinds.
//!
//! # Idioms of others
//!
//! | gevent | here |
//! |---|---|
//! | `with Timeout(5, False): …` | `let _ = timeout(five, …);` |
//! | `with Timeout(5): …` | `timeout(five, …)?` |
//! | `greenlet.kill(timeout=5)` | `handle.cancel_wait(five)` |
//! | `greenlet.kill(block=False)` | `handle.cancel()` |
//! | `GreenletExit` | [`Cancelled`], as the payload of the unwind |
//! | `gevent.joinall(greenlets)`, `joinall(greenlets, raise_error=True)` | [`join_all`], [`try_join_all`] |
//! | `greenlet.link_exception(callback)` | [`with_unjoined_hook`] around the spawn |
//! | `gevent.joinall(greenlets, timeout=5, count=2)` | [`wait_count`] with a [`Deadline`] |
//! | `Pool(10)`, `pool.map`, `pool.imap_unordered`, `pool.kill(timeout=5)` | [`Group`]: `bounded(10)`, `map`, `imap_unordered`, `cancel_wait(five)` |
//!
//! | Go | here |
//! |---|---|
//! | `ctx, cancel := context.WithTimeout(ctx, d)`, and `ctx` in every call | [`timeout`] around the calls, and no argument |
//! | `conn.SetDeadline(t)` | [`timeout_at`], with [`with_interrupts`] for errors |
//! | `<-ctx.Done()` in a loop that computes | [`interruption_point`] |
//! | `cancel()` for a goroutine that watches its context | [`JoinHandle::cancel`]; [`CancelOnDrop`] for `defer cancel()` |
//! | `errgroup.WithContext` | [`try_join_all_by`], which cancels the others at the first error; [`Group`] for `SetLimit` |
//! | `context.WithValue` | [`ContextKey::scope`] |
//! | `defer func() { err := recover(); … }()` at the top of each goroutine | [`with_unjoined_hook`] once, around the code that spawns them |
//! | `time.Ticker` | [`every`], [`interval`] |
//!
//! [`block_on`]: crate::block_on()
//! [`Builder::interrupts`]: crate::Builder::interrupts
//! [`CancelOnDrop`]: crate::CancelOnDrop
//! [`Cancelled`]: crate::Cancelled
//! [`ContextKey::scope`]: crate::context::ContextKey::scope
//! [`Deadline`]: crate::Deadline
//! [`Group`]: crate::Group
//! [`Group`]: crate::Group
//! [`Interrupts::Errors`]: crate::Interrupts::Errors
//! [`JoinHandle::cancel`]: crate::JoinHandle::cancel
//! [`Stats::swallowed_interrupts`]: crate::Stats::swallowed_interrupts
//! [`every`]: crate::every()
//! [`after`]: crate::after()
//! [`interruption_point`]: crate::interruption_point()
//! [`interval`]: crate::interval()
//! [`join_all`]: crate::join_all()
//! [`copy`]: crate::shims::io::copy()
//! [`join_any`]: crate::join_any
//! [`makefile`]: crate::shims::io::makefile
//! [`park()`]: crate::park()
//! [`read_exact`]: std::io::Read::read_exact
//! [`read`]: std::io::Read::read
//! [`Take`]: std::io::Take
//! [`scope`]: crate::scope()
//! [`select`]: crate::shims::select
//! [`shield`]: crate::shield()
//! [`sleep`]: crate::shims::thread::sleep
//! [`sync::Event`]: crate::sync::Event
//! [`sync::Queue`]: crate::sync::Queue
//! [`sync::ValueEvent`]: crate::sync::ValueEvent
//! [`sync::WaitGroup`]: crate::sync::WaitGroup
//! [`timeout_at`]: crate::timeout_at()
//! [`timeout`]: crate::timeout()
//! [`try_join_all_by`]: crate::try_join_all_by()
//! [`try_join_all`]: crate::try_join_all()
//! [`try_join_all`]: crate::try_join_all
//! [`unblock`]: crate::unblock()
//! [`wait_all`]: crate::wait_all
//! [`wait_any`]: crate::wait_any
//! [`wait_count`]: crate::wait_count()
//! [`wait_fd`]: crate::wait_fd()
//! [`wait_idle`]: crate::wait_idle()
//! [`with_interrupts`]: crate::with_interrupts()
//! [`with_unjoined_hook`]: crate::with_unjoined_hook()
//! [`write_all`]: std::io::Write::write_all
//! [`write`]: std::io::Write::write
#![forbid(unsafe_code)]
