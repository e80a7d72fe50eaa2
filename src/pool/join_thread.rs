//! Joining OS threads of std.
#![forbid(unsafe_code)]

use std::thread;

use super::unblock_waiting;

/// Waits for an OS thread that std has spawned, and returns its result. Parks the calling coroutine; std's own
/// [`join`](std::thread::JoinHandle::join) would block its worker. Off-coroutine, this is std's join.
///
/// Handles of real threads come from code that was not compiled with the shims, and from
/// `shims::real::thread`. A handle of [`shims::thread`](crate::shims::thread) parks by itself.
///
/// ```
/// greenroom::run(|| {
///     let (sender, receiver) = std::sync::mpsc::channel();
///     let thread = std::thread::spawn(move || receiver.recv().unwrap());
///     // Runs while the only other coroutine waits for the thread.
///     greenroom::spawn(move || sender.send(7));
///     assert_eq!(greenroom::join_thread(thread).unwrap(), 7);
/// });
/// ```
///
/// The wait takes a thread of the [pool](crate::unblock) beyond its limit, which joins. For the end of a thread
/// is announced nowhere else: it makes no descriptor readable, and std tells only a caller of `join`. A
/// program that waits for many threads does better to have each of them send its result to a
/// [channel](crate::channel).
///
/// # Errors
///
/// The payload of the thread's panic.
///
/// # Unwinding
///
/// An interruption point. The thread runs on, detached.
pub fn join_thread<T>(handle: thread::JoinHandle<T>) -> thread::Result<T>
where
    T: Send + 'static,
{
    unblock_waiting(move || handle.join())
}
