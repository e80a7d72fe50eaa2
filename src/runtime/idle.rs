//! Work for when there is nothing else to do.
#![forbid(unsafe_code)]

use std::ops::ControlFlow;

use super::join::LocalJoinHandle;
use super::spawn::Builder;
use crate::worker::yield_until_idle;

/// Calls `f` whenever the calling coroutine's worker has nothing else to run, until `f` returns
/// [`ControlFlow::Break`].
///
/// This spawns a coroutine on the same worker, which calls [`yield_until_idle`](crate::yield_until_idle) before each
/// call of `f`. `wait_idle` does not wait for it. Cancelling its handle ends it; dropping the handle does not.
///
/// While `f` returns [`ControlFlow::Continue`], the worker does not block for events, but looks at them before each
/// call. So `f` should do a little at a time, and break when there is nothing left to do.
///
/// ```
/// use std::ops::ControlFlow;
///
/// greenroom::run(|| {
///     let mut garbage = vec![1, 2, 3];
///     let collector = greenroom::on_idle(move || match garbage.pop() {
///         Some(_) => ControlFlow::Continue(()),
///         None => ControlFlow::Break(()),
///     });
///     collector.join().unwrap();
/// });
/// ```
///
/// # Panics
///
/// If the caller is no coroutine, or if there is no stack for the new one.
#[track_caller]
pub fn on_idle(mut f: impl FnMut() -> ControlFlow<()> + 'static) -> LocalJoinHandle<()> {
    let idler = Builder::new().daemon(true);
    let spawned = idler.spawn_local(move || {
        loop {
            yield_until_idle();
            if f().is_break() {
                return;
            }
        }
    });
    spawned.expect("failed to spawn a coroutine")
}
