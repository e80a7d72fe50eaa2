//! How a replaced function waits.

use std::convert::Infallible;
use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::descriptor;
use super::errno::{self, Errno};
use crate::park::{self, Caller, Elapsed, Wait};
use crate::pool;
use crate::reactor::{self, Interest};
use crate::sys::fork;
use crate::sys::switches::is_excused;
use crate::task::word::Kind;
use crate::task::{
    self, Awaiting, Change, Current, Deadline, InterruptScope, Interrupts, Reason, budget,
};

/// Whether the caller, which is a coroutine, can park. If not, it has to block its thread.
///
/// It cannot while it unwinds from a panic, or waits for a lock of this crate's own. Nor can the child of a
/// vfork(2), which shares the memory of this process, and so seems to be the coroutine that its parent was.
pub(super) fn may_park() -> bool {
    !task::is_unwinding() && !is_excused() && !fork::shares_memory_with_parent()
}

/// Whether the caller, which is a coroutine, can wait in the lot, while others of its thread run. If not, it has to
/// block its thread.
///
/// Nothing interrupts such a wait. So a coroutine that unwinds can wait there while its runtime stops, unlike in
/// [`may_park`]: what it waits for may be another one's to release, which unwinds, too.
pub(super) fn may_wait_in_lot() -> bool {
    let is_alone = std::thread::panicking() && Current::get().waits_alone();
    !is_alone && !is_excused() && !fork::shares_memory_with_parent()
}

/// Counts one operation of the calling coroutine, which yields after a number of them.
///
/// Not for a call that signal handlers make: the signal may have come in the midst of this crate's code.
#[inline(always)]
pub(super) fn spend_operation() {
    if budget::spend() && may_park() {
        yield_now();
    }
}

/// Like `spend_operation`, but the caller does not yield if the descriptor is in non-blocking mode: signal handlers
/// make calls that do not wait.
#[inline(always)]
pub(super) fn spend_operation_on(fd: RawFd) {
    if budget::spend() && may_park() && descriptor::is_nonblocking(fd) == Ok(false) {
        yield_now();
    }
}

/// What a read, an accept or a connect returns that does not wait. One that has found nothing counts, so that a loop of
/// them does not keep its worker.
pub(super) fn read_at_once<R>(tried: Result<R, Errno>) -> Result<R, Errno> {
    if let Err(Errno::AGAIN) = tried {
        spend_operation();
    }
    tried
}

/// Lets others run, which may leave another number of an error behind.
#[cold]
fn yield_now() {
    let before = errno::get();
    park::yield_now();
    errno::set(before);
}

/// Waits until `attempt` does not fail with `EAGAIN`, or until `deadline`. The caller has made one attempt
/// already. `fd` becomes ready for something in `interest` when an attempt may succeed.
///
/// # Errors
///
/// Those of `attempt`: `EAGAIN` if the deadline has passed. `ECANCELED` or `ETIMEDOUT`, if the caller was
/// interrupted. `EBADF`, if `fd` is closed meanwhile.
pub(super) fn until<R>(
    fd: RawFd,
    interest: Interest,
    deadline: Option<Deadline>,
    attempt: impl FnMut() -> Result<R, Errno>,
) -> Result<R, Errno> {
    until_any(&[(fd, interest)], deadline, attempt)
}

/// Like [`until`], for any of several descriptors.
#[cold]
pub(super) fn until_any<R>(
    fds: &[(RawFd, Interest)],
    deadline: Option<Deadline>,
    mut attempt: impl FnMut() -> Result<R, Errno>,
) -> Result<R, Errno> {
    if !may_park() {
        return block_until_any(fds, deadline, attempt);
    }
    let look = || match attempt() {
        Err(Errno::AGAIN) => Ok(None),
        done => Ok(Some(done?)),
    };
    let fds = fds.iter().copied();
    let waited = with_errors(|| reactor::wait_for_unowned(fds, deadline, look));
    waited.map_err(|error| errno(&error))?.ok_or(Errno::AGAIN)
}

/// The first pause between two attempts.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// The longest.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Like [`until`], where no event tells when an attempt may succeed: makes attempts after pauses.
pub(super) fn until_by_pauses<R>(
    fd: RawFd,
    deadline: Option<Deadline>,
    mut attempt: impl FnMut() -> Result<R, Errno>,
) -> Result<R, Errno> {
    let mut next = SHORTEST_PAUSE;
    loop {
        let left = deadline.map(|deadline| deadline.at.saturating_duration_since(Instant::now()));
        pause(fd, left.map_or(next, |left| left.min(next)))?;
        match attempt() {
            Err(Errno::AGAIN) if left.is_none_or(|left| left > next) => {}
            done => return done,
        }
        next = (2 * next).min(LONGEST_PAUSE);
    }
}

/// Like `until_any`, but blocks the thread.
#[cold]
fn block_until_any<R>(
    fds: &[(RawFd, Interest)],
    deadline: Option<Deadline>,
    mut attempt: impl FnMut() -> Result<R, Errno>,
) -> Result<R, Errno> {
    let polled = |&(fd, interest): &(RawFd, Interest)| (fd, interest.flags().bits() as _);
    let fds: Vec<_> = fds.iter().map(polled).collect();
    loop {
        let left = deadline.map(|deadline| deadline.at.saturating_duration_since(Instant::now()));
        descriptor::block(&fds, left)?;
        match attempt() {
            // What was reported may stay: a message in the error queue of a socket.
            Err(Errno::AGAIN) if left.is_none_or(|left| !left.is_zero()) => {
                task::aside(|| std::thread::sleep(SHORTEST_PAUSE));
            }
            done => return done,
        }
    }
}

/// Runs `f` on a thread of the pool. It may borrow, and is not interrupted.
pub(super) fn on_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    match may_park() {
        true => pool::unblock_borrowed(f),
        false => f(),
    }
}

/// Like `on_pool`, for a call that waits for other threads or processes.
pub(super) fn on_pool_waiting<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    match may_park() {
        true => pool::unblock_borrowed_waiting(f),
        false => f(),
    }
}

/// Pointers of the caller's, for a job of the pool. The caller waits until the job is done.
#[derive(Clone, Copy)]
pub(super) struct Borrowed<T>(pub(super) T);

// SAFETY: the pointers are the arguments of a call into the C library, which may be made on any thread while the
// caller waits for it.
unsafe impl<T> Sync for Borrowed<T> {}
// SAFETY: as above.
unsafe impl<T> Send for Borrowed<T> {}

/// Calls `f`, which is interrupted by errors: the frames above may be those of C code, which cannot be
/// unwound.
pub(super) fn with_errors<R>(f: impl FnOnce() -> R) -> R {
    InterruptScope::enter(Change::Interrupts(Interrupts::Errors), |_| f())
}

/// The number of an error: of the kernel's, or of an interrupt's.
pub(super) fn errno(error: &io::Error) -> Errno {
    match (error.raw_os_error(), error.get_ref()) {
        (Some(errno), _) => Errno::from_raw_os_error(errno),
        (None, Some(inner)) if inner.is::<Elapsed>() => Errno::TIMEDOUT,
        _ => Errno::CANCELED,
    }
}

/// Waits for `duration` between two attempts of an operation.
///
/// # Errors
///
/// `ECANCELED` or `ETIMEDOUT`, if the caller is interrupted. `EBADF`, if `fd` is closed meanwhile and is no regular
/// file.
fn pause(fd: RawFd, duration: Duration) -> Result<(), Errno> {
    // A thread that blocks would be woken by any hang-up at once.
    let fds: &[_] = if may_park() {
        &[(fd, Interest::NONE)]
    } else {
        &[]
    };
    match until_any(fds, Deadline::after(duration), || {
        Err::<Infallible, _>(Errno::AGAIN)
    }) {
        Ok(never) => match never {},
        Err(Errno::AGAIN) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Parks the caller for `duration`. An interrupt that comes meanwhile ends the sleep, and the next call that can
/// fail is told of it. One that has come before does not: code that only sleeps would not wait any more.
pub(super) fn sleep(duration: Duration) {
    if !may_park() {
        return task::aside(|| std::thread::sleep(duration));
    }
    let deadline = Deadline::after(duration);
    let has_slept = with_errors(|| {
        let earliest = Current::get().reach().earliest;
        if earliest.is_some_and(|earliest| earliest.at <= Instant::now()) {
            return false;
        }
        // As if it could fail: that is what an interrupt may end.
        match Wait::begin_for(Caller::Fails, Kind::Event) {
            Ok(wait) => {
                let _ = wait.try_suspend(Awaiting::only(Reason::Sleep), deadline);
                true
            }
            Err(_) => false,
        }
    });
    if !has_slept {
        InterruptScope::enter(Change::Shield, |_| park::sleep(duration));
    }
}
