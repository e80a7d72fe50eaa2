//! Waiting for descriptors: poll(2), select(2), epoll_wait(2).
//!
//! The original is called without time to wait, before the wait and after each event. Where a call has a signal
//! mask that differs from the thread's, it wants to handle signals while it waits. The original has such a call,
//! and blocks the thread. So it has a call whose time is no valid one.

use std::mem;
use std::os::fd::RawFd;
use std::time::Duration;

use super::caller;
use super::errno::{self, Errno, answer, result};
use super::kernel;
use super::original;
use super::time::{duration_of, duration_of_timeval};
use super::types::null;
use super::types::{
    NO_TIME, c_int, epoll_event, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval,
};
use super::wait::{spend_operation, until_any};
use crate::reactor::Interest;
use crate::task::{self, Deadline};

/// Waits for at most `timeout`, `None` for ever, until `look` returns other than zero. Returns zero if the time
/// has passed.
#[inline(always)]
fn wait(
    fds: impl FnOnce() -> Vec<(RawFd, Interest)>,
    timeout: Option<Duration>,
    mut look: impl FnMut() -> c_int,
) -> c_int {
    answer(|| {
        spend_operation();
        let mut look = || match result(look()) {
            Ok(0) | Err(Errno::INTR) => Err(Errno::AGAIN),
            done => done,
        };
        let looked = match look() {
            Err(Errno::AGAIN) if timeout != Some(Duration::ZERO) => {
                until_any(&fds(), timeout.and_then(Deadline::after), look)
            }
            looked => looked,
        };
        match looked {
            Err(Errno::AGAIN) => Ok(0),
            looked => looked,
        }
    })
}

/// The time for a poll, in milliseconds. `None` is for ever.
fn millis(timeout: c_int) -> Option<Duration> {
    u64::try_from(timeout).ok().map(Duration::from_millis)
}

/// The time for a call that takes a pointer to it. The outer `None` is for a time that is not valid.
///
/// # Safety
///
/// The pointer is null, which is for ever; or if memory is there, it has a time.
unsafe fn time(timeout: *const timespec) -> Option<Option<Duration>> {
    // SAFETY: the caller's.
    match unsafe { caller::read(timeout) } {
        Ok(None) => Some(None),
        Ok(Some(timeout)) => duration_of(&timeout).map(Some),
        Err(_) => None,
    }
}

/// The signals that Linux has. The C library's type has room for more.
type Signals = u64;

/// Whether a call with this signal mask handles the same signals as its thread.
///
/// # Safety
///
/// The pointer is null; or if memory is there, it has a mask.
unsafe fn is_mask_of_thread(mask: *const sigset_t) -> bool {
    // SAFETY: the caller's. A mask begins with these.
    let mask = match unsafe { caller::read(mask.cast::<Signals>()) } {
        Ok(None) => return true,
        Ok(Some(mask)) => mask,
        // The original refuses it.
        Err(_) => return false,
    };
    // SAFETY: a C struct of numbers, for which all-zero bytes are valid.
    let mut own: sigset_t = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a set of signals, which the call fills, and which begins with those of Linux.
    let own = unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, null(), &raw mut own);
        *(&raw const own).cast::<Signals>()
    };
    // Those that cannot be blocked are in no mask of a thread.
    let unblockable = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);
    mask & !unblockable == own
}

/// The descriptors of a poll, and what to wait for.
///
/// # Safety
///
/// The pointer is to so many entries.
unsafe fn interests(fds: *const pollfd, count: nfds_t) -> Vec<(RawFd, Interest)> {
    if count == 0 {
        return Vec::new();
    }
    // SAFETY: the caller's.
    let fds = unsafe { std::slice::from_raw_parts(fds, count as usize) };
    let asked = fds.iter().filter(|entry| entry.fd >= 0);
    asked
        .map(|entry| (entry.fd, Interest::of_events(entry.events)))
        .collect()
}

#[inline(always)]
pub(super) unsafe fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the caller's. The entries are read after the kernel has read them.
    unsafe {
        wait(
            || interests(fds, count),
            millis(timeout),
            || kernel::poll(fds, count),
        )
    }
}

pub(super) unsafe fn __poll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: c_int,
    room: size_t,
) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        match count as usize > room / size_of::<pollfd>() {
            // The original reports the overflow.
            true => original::__poll_chk(fds, count, timeout, room),
            false => poll(fds, count, timeout),
        }
    }
}

pub(super) unsafe fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's. The entries are read after the kernel has read them.
    unsafe {
        match time(timeout) {
            Some(timeout) if is_mask_of_thread(mask) => {
                let look = || original::ppoll(fds, count, &raw const NO_TIME, null());
                wait(|| interests(fds, count), timeout, look)
            }
            _ => original::ppoll(fds, count, timeout, mask),
        }
    }
}

pub(super) unsafe fn __ppoll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    room: size_t,
) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        match count as usize > room / size_of::<pollfd>() {
            // The original reports the overflow.
            true => original::__ppoll_chk(fds, count, timeout, mask, room),
            false => ppoll(fds, count, timeout, mask),
        }
    }
}

/// The bits of a word of a set of descriptors.
const WORD_BITS: usize = usize::BITS as usize;

/// The sets of a call of `select`, which it overwrites with its result.
struct Sets {
    sets: [*mut usize; 3],
    asked: [Vec<usize>; 3],
}

impl Sets {
    /// # Errors
    ///
    /// `EFAULT`, if a set is not there.
    ///
    /// # Safety
    ///
    /// Each pointer is null; or if memory is there, it has a set, as long as this lives.
    unsafe fn new(end: usize, sets: [*mut fd_set; 3]) -> Result<Sets, Errno> {
        let words = end.div_ceil(WORD_BITS);
        let sets = sets.map(<*mut fd_set>::cast::<usize>);
        let mut asked = [const { Vec::new() }; 3];
        for (asked, set) in asked.iter_mut().zip(sets) {
            if !set.is_null() && words > 0 {
                // SAFETY: the caller's.
                *asked = unsafe { caller::copy(set, words) }?;
            }
        }
        Ok(Sets { sets, asked })
    }

    /// Makes the sets what they were.
    fn restore(&self) {
        for (&set, asked) in self.sets.iter().zip(&self.asked) {
            // SAFETY: the set had room for these words in `new`, and has not ended.
            unsafe { set.copy_from_nonoverlapping(asked.as_ptr(), asked.len()) };
        }
    }

    /// Takes all descriptors out of the sets.
    fn clear(&self) {
        for (&set, asked) in self.sets.iter().zip(&self.asked) {
            // SAFETY: as in `restore`.
            unsafe { set.write_bytes(0, asked.len()) };
        }
    }

    /// The descriptors, and what to wait for. One that is in several sets comes several times.
    fn interests(&self, end: usize) -> Vec<(RawFd, Interest)> {
        let kinds = [Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY];
        let each = self.asked.iter().zip(kinds).flat_map(|(asked, interest)| {
            let has = move |&fd: &usize| {
                let word = asked.get(fd / WORD_BITS);
                word.is_some_and(|word| word >> (fd % WORD_BITS) & 1 != 0)
            };
            (0..end).filter(has).map(move |fd| (fd as RawFd, interest))
        });
        each.collect()
    }
}

/// How many descriptors of a set the kernel looks at if it is asked for `end`: not more than its table of this process
/// has room for. A program may ask for many more than its sets have.
fn limit_of_sets(end: usize) -> usize {
    if end <= libc::FD_SETSIZE {
        return end;
    }
    let status = task::aside(|| std::fs::read_to_string("/proc/self/status"));
    let status = status.unwrap_or_default();
    let room = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
    room.and_then(|room| room.trim().parse().ok())
        .unwrap_or(libc::FD_SETSIZE)
}

/// Waits by `look`, which calls an original without time to wait.
///
/// # Safety
///
/// As select(2).
unsafe fn wait_for_sets(
    end: c_int,
    sets: [*mut fd_set; 3],
    timeout: Option<Duration>,
    mut look: impl FnMut() -> c_int,
) -> c_int {
    let Ok(end) = usize::try_from(end) else {
        return look();
    };
    let end = end.min(limit_of_sets(end));
    // SAFETY: the caller's.
    let Ok(sets) = (unsafe { Sets::new(end, sets) }) else {
        // The original refuses it.
        return look();
    };
    let ready = wait(
        || sets.interests(end),
        timeout,
        || {
            sets.restore();
            look()
        },
    );
    match ready {
        // The last attempt may have left the sets as they were: a signal has ended it.
        0 => sets.clear(),
        // An attempt may have emptied the sets before the wait has failed.
        ..0 => sets.restore(),
        _ => {}
    }
    errno::untouched(|| drop(sets));
    ready
}

pub(super) unsafe fn select(
    end: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    // SAFETY: the caller's: null or valid.
    let time = match unsafe { timeout.as_ref() } {
        None => None,
        Some(time) => match duration_of_timeval(time) {
            Some(time) => Some(time),
            // SAFETY: the caller's.
            None => return unsafe { original::select(end, read, write, except, timeout) },
        },
    };
    let deadline = time.and_then(Deadline::after);
    let look = || {
        let mut at_once = timeval {
            tv_sec: 0,
            tv_usec: 0,
        };
        // SAFETY: the caller's.
        unsafe { original::select(end, read, write, except, &raw mut at_once) }
    };
    // SAFETY: the caller's.
    let ready = unsafe { wait_for_sets(end, [read, write, except], time, look) };
    if let Some(deadline) = deadline {
        // Linux tells how much of the time is left.
        let left = deadline
            .at
            .saturating_duration_since(std::time::Instant::now());
        // SAFETY: the caller's. The pointer is not null, since there is a deadline.
        unsafe {
            *timeout = timeval {
                tv_sec: left.as_secs() as _,
                tv_usec: left.subsec_micros().into(),
            }
        };
    }
    ready
}

pub(super) unsafe fn pselect(
    end: c_int,
    read: *mut fd_set,
    write: *mut fd_set,
    except: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        match time(timeout) {
            Some(time) if is_mask_of_thread(mask) => {
                let look =
                    || original::pselect(end, read, write, except, &raw const NO_TIME, null());
                wait_for_sets(end, [read, write, except], time, look)
            }
            _ => original::pselect(end, read, write, except, timeout, mask),
        }
    }
}

/// Waits for the events of an epoll instance, which is a descriptor that can be polled itself.
///
/// # Safety
///
/// As epoll_wait(2).
unsafe fn wait_for_events(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    timeout: Option<Duration>,
) -> c_int {
    // SAFETY: the caller's.
    let look = || unsafe { original::epoll_wait(epoll, events, most, 0) };
    wait(|| vec![(epoll, Interest::READABLE)], timeout, look)
}

pub(super) unsafe fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: the caller's.
    unsafe { wait_for_events(epoll, events, most, millis(timeout)) }
}

pub(super) unsafe fn epoll_pwait(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    timeout: c_int,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        match is_mask_of_thread(mask) {
            true => wait_for_events(epoll, events, most, millis(timeout)),
            false => original::epoll_pwait(epoll, events, most, timeout, mask),
        }
    }
}

pub(super) unsafe fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        match time(timeout) {
            Some(timeout) if is_mask_of_thread(mask) => {
                wait_for_events(epoll, events, most, timeout)
            }
            _ => original::epoll_pwait2(epoll, events, most, timeout, mask),
        }
    }
}
