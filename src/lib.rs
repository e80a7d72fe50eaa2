//! Green threads whose blocking-looking API *is* std's.
//!
//! Write a blocking program: one thread per conversation, which reads, writes, sleeps and joins.
//! With greenroom these threads are *coroutines*. Each has a stack of its own, and thousands of them
//! share a few OS threads. A call that would block parks its coroutine, and the OS thread goes on
//! with the next one.
//!
//! ```
//! use greenroom::shims as std; // this line turns threads into coroutines
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
//! # Where to find what
//!
//! | To | use |
//! |---|---|
//! | port a program | [`shims`], the mirror of std; [the guide to porting](guide::porting) |
//! | make coroutines | [`spawn`], [`spawn_local`], [`scope`], [`Builder`] |
//! | set up a runtime | [`run`], [`RuntimeBuilder`]; a [`spawn`] from an ordinary thread starts a default one |
//! | send messages to another coroutine or thread | [`channel`]: [`unbounded`](channel::unbounded), [`bounded`](channel::bounded), [`oneshot`](channel::oneshot()), [`watch`](channel::watch()); [`shims::sync::mpsc`] |
//! | wait for the first of several things | [`select!`], [`Select`] |
//! | write without waiting for a slow peer | [`SendQueue`] |
//! | wait for several coroutines | [`join_all`], [`try_join_all`], [`join_any`], [`wait_any`], [`wait_all`], [`wait_count`] |
//! | bound, map over, and cancel many coroutines | [`Group`] |
//! | serve connections, with limits, deadlines and an end that loses nothing | [`server`]; [the guide to servers](guide::servers) |
//! | share connections | [`ResourcePool`] |
//! | wait for another coroutine or thread | [`JoinHandle`], [`park()`] and [`Unparker`], [`wait_idle`], [`sync`]: events, semaphores, barriers, work queues; the locks of [`shims::sync`] |
//! | wait for time | [`shims::thread::sleep`], [`after`], [`every`], [`interval`] |
//! | stop waiting | [`timeout`], [`Deadline`], [`JoinHandle::cancel`], [`shield`]; [the guide to them](guide::deadlines) |
//! | wait for a descriptor | [`shims::net`], [`wait_fd`], [`shims::select`], [`fs::watch`] |
//! | wait for SIGTERM, Ctrl-C and other signals | [`signal`] |
//! | call what can only block | [`unblock`], [`ThreadPool`], [`PinnedThread`], [`join_thread`] |
//! | call async code, and be awaited by it | [`block_on`], [`JoinFuture`]; [the guide to both](guide::porting#async-code) |
//! | speak TLS | [the guide to it](guide::tls) |
//! | wait for a callback | [`from_callback`]; [the guide to callbacks and loops](guide::loops) |
//! | run inside another event loop | [`Runtime::turn`] and its [descriptor](Runtime#impl-AsFd-for-Runtime); [`on_idle`] |
//! | spawn from other threads, and stop | [`Handle`] |
//! | run C libraries, and crates as they are published | [`patch!`](crate::patch!); [the guide to them](guide::foreign) |
//! | keep a value per coroutine | [`coroutine_local!`] |
//! | pass a value on to spawned coroutines | [`context`] |
//! | hear of panics and results that nobody joins | [`with_unjoined_hook`], [`set_unjoined_hook`], [`set_dropped_handle_hook`] |
//! | see what each coroutine does and waits for | [`dump()`], [`Dump`], [`dump_on_signal`]; [the guide](guide::insight) |
//! | ask a running program what it does, and cancel a coroutine there | [`backdoor`] |
//! | find what blocks, hangs or switches, and how deep stacks go | [`monitor`], [`RuntimeBuilder::abort_on_deadlock`], [`deny_blocking`], [`no_switch`], [`stats`] |
//! | find where time goes: on the processor, and in waits | [`perf_map()`], [`WaitProfile`] |
//! | watch a runtime from outside | [`metrics`], [`parked_by_reason`] |
//!
//! Eight chapters say what you can rely on: [the model and its guarantees](guide::model), [deadlines and
//! cancellation](guide::deadlines), [servers](guide::servers), [callbacks and other event loops](guide::loops), [code
//! you do not compile](guide::foreign), [the hazards](guide::hazards), [seeing what coroutines do](guide::insight), and
//! [the architecture](guide::architecture).
//!
//! greenroom runs on Linux.

#![warn(clippy::print_stdout)]
// Commands for gdb, which finds them in the executable.
#![debugger_visualizer(gdb_script_file = "gdb.py")]

mod atomic;
pub mod backdoor;
pub mod channel;
pub mod context;
mod coroutine;
mod diagnose;
mod dump;
mod fatal;
pub mod fs;
mod future;
mod group;
mod interrupt;
mod local;
mod park;
pub mod patch;
mod pool;
mod profile;
mod reactor;
mod runtime;
#[doc(hidden)]
pub mod select;
pub mod server;
pub mod signal;
pub mod sync;
mod sys;
mod task;
mod time;
mod worker;

pub mod guide;

#[path = "../shims/mod.rs"]
pub mod shims;

pub use channel::callback::{Done, NeverCalled, from_callback, from_callback_or};
pub use diagnose::blocking_report::BlockingReport;
pub use diagnose::deny_blocking::{deny_blocking, deny_blocking_with};
pub use diagnose::dropped_handle::{DroppedHandle, set_dropped_handle_hook};
pub use diagnose::monitor::{monitor, monitor_with};
pub use diagnose::no_switch::{assert_switches, no_switch};
pub use diagnose::perf_map::perf_map;
pub use diagnose::stats::{StackStats, Stats, stats};
pub use diagnose::unjoined::{UnjoinedPanic, set_unjoined_hook, with_unjoined_hook};
pub use dump::{Dump, dump, dump_on_signal, parked_by_reason};
pub use future::block_on;
pub use group::resource_pool::{CheckoutError, Pooled, ResourcePool, ResourcePoolBuilder};
pub use group::{Full, Group, Imap, ImapUnordered, Reserved};
pub use interrupt::deadline::Deadline;
pub use interrupt::shield::{catch_cancel, shield, with_interrupts};
pub use interrupt::timeout::{timeout, timeout_at};
#[doc(hidden)]
pub use local::parts as __local;
pub use local::{AccessError, LocalKey};
pub use park::{
    Cancelled, Elapsed, Unparker, interruption_point, park, park_timeout, park_until, yield_now,
};
pub use pool::join_thread::join_thread;
pub use pool::pinned_thread::{PinnedThread, Proxy};
pub use pool::resolver::{Resolve, SystemResolver, set_resolver};
pub use pool::thread_pool::ThreadPool;
pub use pool::unblock;
pub use profile::{WaitProfile, WaitProfiler};
#[doc(hidden)]
pub use reactor::wait_for_poll as __wait_for_poll;
pub use reactor::{Interest, Readiness, wait_fd};
pub use runtime::after::{TimerHandle, after, try_after};
pub use runtime::every::{Every, Tick, every, try_every};
pub use runtime::handle::Handle;
pub use runtime::idle::on_idle;
pub use runtime::join::{
    CancelOnDrop, Canceller, JoinFuture, JoinHandle, Joinable, LocalJoinHandle,
};
pub use runtime::join::{
    join_all, join_any, try_join_all, try_join_all_by, wait_all, wait_any, wait_count,
};
#[doc(hidden)]
pub use runtime::program::run_program as __run_program;
pub use runtime::scope::{Scope, ScopedJoinHandle, scope};
pub use runtime::send_queue::SendQueue;
pub use runtime::spawn::{Builder, spawn, spawn_daemon, spawn_local};
pub use runtime::thread::{Thread, ThreadId, current};
pub use runtime::turn::Turn;
pub use runtime::{Runtime, RuntimeBuilder, run, wait_idle};
pub use select::Select;
pub use shims::net::connect_within::ConnectWithin;
pub use shims::net::listen_options::ListenOptions;
pub use task::{Interrupts, on_coroutine};
pub use time::{Interval, interval};
pub use worker::metrics::{Histogram, Metrics, PoolMetrics, StackMemory, metrics};
pub use worker::yield_until_idle;
pub use worker::{Deadlock, Deadlocked};
