//! Callbacks, the event loops of other code, and other threads.
//!
//! # Callbacks
//!
//! [`from_callback`] waits for an API that reports by a callback, so that code around it is sequential:
//!
//! ```
//! use greenroom::from_callback;
//! # use std::thread;
//! # fn get(key: &str, callback: impl FnOnce(u32) + Send + 'static) {
//! #     let length = key.len() as u32;
//! #     thread::spawn(move || callback(length));
//! # }
//!
//! # fn main() -> Result<(), greenroom::NeverCalled> {
//! # greenroom::run(|| {
//! let first = from_callback(|done| get("a", move |value| _ = done.call(value)))?;
//! let second = from_callback(|done| get("bc", move |value| _ = done.call(value)))?;
//! assert_eq!(first + second, 3);
//! # Ok(())
//! # })
//! # }
//! ```
//!
//! | the callback | what happens |
//! |---|---|
//! | is called before the API returns | there is no wait |
//! | is called later, by a coroutine or an OS thread | the caller goes on with the value |
//! | is called twice, or a clone of `done` is | [`Done::call`] gives the second value back |
//! | is dropped, or panics before it calls `done` | the caller gets [`NeverCalled`] |
//! | is called after the caller was timed out or cancelled | `call` gives the value back, or hands it to the hook of [`from_callback_or`] |
//!
//! A value that comes in time, to a caller that is cancelled before it goes on, is returned, or goes to that hook.
//! So with the hook no value is lost. What the API returns is dropped when the wait ends, however it ends: let it
//! be a guard that withdraws the request, if there is one.
//!
//! # A loop of other code
//!
//! A program may have an event loop already, which must run on its main thread: of a user interface, a game, a
//! library. Make a runtime on that thread, with one worker, and give it [turns](crate::Runtime::turn).
//!
//! The simplest way is one turn a frame. A loop that is called 60 times a second, and draws, calls
//! `runtime.turn(Some(Duration::ZERO))`, or gives the turn the rest of the frame to wait in.
//!
//! A loop that waits for descriptors waits for [the runtime's](crate::Runtime#impl-AsFd-for-Runtime), too. It becomes
//! readable when there is something to do, deadlines included. So the loop needs no timeout for greenroom's
//! sake, and an idle program stays idle:
//!
//! ```
//! use greenroom::shims::thread::sleep;
//! use greenroom::{RuntimeBuilder, Turn};
//! use std::os::fd::AsRawFd;
//! use std::time::Duration;
//!
//! # fn main() -> std::io::Result<()> {
//! let runtime = RuntimeBuilder::new().workers(1).build()?;
//! let sleeper = runtime.spawn_local(|| sleep(Duration::from_millis(5)));
//! let mut polled = libc::pollfd { fd: runtime.as_raw_fd(), events: libc::POLLIN, revents: 0 };
//! while !sleeper.is_finished() {
//!     // The loop's own descriptors would be here, too.
//!     assert_eq!(unsafe { libc::poll(&raw mut polled, 1, -1) }, 1);
//!     let _ = runtime.turn(Some(Duration::ZERO));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`Runtime::spawn_local`] spawns a coroutine from the loop's own code. The coroutine may use what belongs to the
//!   thread (`Rc`, widgets), since it runs there, in turns. [`Runtime::spawn`] and [`Handle::spawn`] are for what is
//!   `Send`. Outside of a turn, the free [`spawn`](crate::spawn()) goes to the default runtime, on other threads.
//! - The loop talks to coroutines by channels that do not wait: `send` of an
//!   [unbounded](crate::channel::unbounded) one, `try_recv`. A blocking call of the loop's own code blocks the
//!   loop, and with it all coroutines.
//! - A turn lasts for as long as its coroutines run without waiting. Up to 256 run in one turn, or half a
//!   millisecond's worth; [`Turn::More`] says that there are more. Slice computations by
//!   [`yield_now`](crate::yield_now), or have them use the time that is left: [`yield_until_idle`].
//! - The end of the loop is a drop of the runtime, which unwinds the coroutines. They, and other threads, ask for
//!   it by [`Handle::stop`]: `turn` then returns [`Turn::Stopped`].
//!
//! `examples/game_loop.rs` is a complete program.
//!
//! ## A loop of async code
//!
//! The loop may be an executor: a task on its own thread awaits the descriptor, and gives the turns. With tokio's
//! current-thread runtime:
//!
//! ```ignore
//! async fn drive(runtime: &greenroom::Runtime) -> io::Result<()> {
//!     // SAFETY: the descriptor is borrowed from the runtime, and stays the same.
//!     let polled = unsafe { AsyncFd::register_with_interest(runtime.as_fd(), Interest::READABLE) }?;
//!     loop {
//!         polled.readable().await?.clear_ready(); // before the turn
//!         if runtime.turn(Some(Duration::ZERO)) == Turn::Done {
//!             return Ok(());
//!         }
//!         tokio::task::yield_now().await;
//!     }
//! }
//! ```
//!
//! Coroutines and tasks then share one OS thread. Tasks await coroutines by their handles, coroutines run futures by
//! [`block_on`], and [either side cancels the other](super::porting#async-code). Dropping the task that gives the
//! turns stops the coroutines where they are; dropping the runtime unwinds them.
//! `tests/porting/futures.rs` has this with tokio.
//!
//! # Idle work, and hooks of the loop
//!
//! [`on_idle`] calls a closure whenever its worker has nothing else to run, and [`yield_until_idle`] is that for a
//! coroutine's own code. While such work is left, the worker looks for events, but does not block.
//! [`RuntimeBuilder::before_poll`] and [`after_poll`](crate::RuntimeBuilder::after_poll) are called around each look at
//! events, to do once what many coroutines need: flush a common buffer, take a time stamp.
//!
//! # Other threads
//!
//! [`Handle::spawn`] runs code on a runtime from any thread, and wakes its worker if it sleeps. An
//! [`Unparker`](crate::Unparker), a channel and a lock of the shims work between coroutines and OS threads as
//! among coroutines. In the other direction, [`unblock`](crate::unblock), [`ThreadPool`](crate::ThreadPool) and
//! [`PinnedThread`](crate::PinnedThread) run code on OS threads, for which the calling coroutine parks.
//!
//! # The end
//!
//! The end of a runtime has three phases:
//!
//! 1. *Before*: the hooks of [`Handle::before_shutdown`] run on a coroutine, one after the other, while all other
//!    coroutines still run. They stop listeners, and wait for requests to finish. They have the
//!    [grace](crate::RuntimeBuilder::grace) of the runtime.
//! 2. *During*: the remaining coroutines [unwind](super::hazards#shutdown), and their destructors run.
//! 3. *After*: the hooks of [`Handle::after_shutdown`] run on the thread that drops the runtime.
//!
//! [`Handle::stop`] asks for the end from anywhere: the main coroutine of [`Runtime::run`] is cancelled, and
//! `turn` says `Stopped`. [`run`](crate::run()) and the drop of a [`Runtime`] are the end itself.
//!
//! [`Done::call`]: crate::Done::call
//! [`Handle::after_shutdown`]: crate::Handle::after_shutdown
//! [`Handle::before_shutdown`]: crate::Handle::before_shutdown
//! [`Handle::spawn`]: crate::Handle::spawn
//! [`Handle::stop`]: crate::Handle::stop
//! [`NeverCalled`]: crate::NeverCalled
//! [`RuntimeBuilder::before_poll`]: crate::RuntimeBuilder::before_poll
//! [`Runtime::run`]: crate::Runtime::run
//! [`Runtime::spawn_local`]: crate::Runtime::spawn_local
//! [`Runtime::spawn`]: crate::Runtime::spawn
//! [`Runtime`]: crate::Runtime
//! [`Turn::More`]: crate::Turn::More
//! [`Turn::Stopped`]: crate::Turn::Stopped
//! [`block_on`]: crate::block_on
//! [`from_callback_or`]: crate::from_callback_or
//! [`from_callback`]: crate::from_callback
//! [`on_idle`]: crate::on_idle()
//! [`yield_until_idle`]: crate::yield_until_idle
