//! A descriptor that coroutines wait on: the one I/O loop.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::registration::Source as _;
use super::source::{Readiness, Source};
use crate::park;
use crate::sys::mode_turn::ModeTurn;
use crate::sys::socket::{self, would_block};
use crate::task::{self, Deadline};

/// Which half of a descriptor an operation uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// One of std's descriptor types, and what it takes to wait on it.
///
/// Dropped or taken out, the descriptor is deregistered before it is closed or given away:
/// closing one of several duplicates would leave a registration that nobody can remove.
#[derive(Debug)]
pub(crate) struct Descriptor<T: AsFd> {
    inner: ManuallyDrop<T>,
    source: Arc<Source>,
    /// Closes it, if not as any other.
    close: Option<fn(T)>,
}

impl<T: AsFd> Descriptor<T> {
    /// Wraps a descriptor that was just made, in blocking mode and without timeouts.
    pub(crate) fn fresh(inner: T) -> Descriptor<T> {
        let descriptor = Descriptor::with_mode(inner, false);
        descriptor.set_timeout(Direction::Read, None);
        descriptor.set_timeout(Direction::Write, None);
        descriptor
    }

    /// Wraps a connection that was just accepted from `listener`, in blocking mode, with the timeouts
    /// and options that TCP has handed on.
    pub(crate) fn accepted<L: AsFd>(inner: T, listener: &Descriptor<L>) -> Descriptor<T> {
        let Source { read, write, .. } = &*listener.source;
        let accepted = match read.has_no_timeout() && write.has_no_timeout() {
            true => Descriptor::fresh(inner),
            false => Descriptor::with_mode(inner, false),
        };
        match listener.is_shown() {
            true => accepted.shown(),
            false => accepted,
        }
    }

    /// Wraps a descriptor that came from elsewhere, with the mode and timeouts that it has.
    pub(crate) fn foreign(inner: T) -> Descriptor<T> {
        let nonblocking = mode_of(&inner);
        Descriptor::with_mode(inner, nonblocking).shown()
    }

    fn shown(self) -> Descriptor<T> {
        self.source.shown.store(true, Ordering::Relaxed);
        self
    }

    fn with_mode(inner: T, nonblocking: bool) -> Descriptor<T> {
        let source = Arc::new(Source::new(nonblocking));
        Descriptor {
            inner: ManuallyDrop::new(inner),
            source,
            close: None,
        }
    }

    /// Has `close` close the descriptor if the user may have set options of it.
    pub(crate) fn closed_by(mut self, close: fn(T)) -> Descriptor<T> {
        self.close = Some(close);
        self
    }

    /// Wraps a duplicate of this descriptor, which shares all state with it; unless that is of
    /// before a fork.
    pub(crate) fn share(&self, duplicate: T) -> Descriptor<T> {
        if self.source.is_left_in_parent() {
            return Descriptor::with_mode(duplicate, self.is_nonblocking()).shown();
        }
        let source = Arc::clone(&self.source);
        Descriptor {
            inner: ManuallyDrop::new(duplicate),
            source,
            close: None,
        }
    }

    /// Whether the user has, or has had, the descriptor itself.
    pub(crate) fn is_shown(&self) -> bool {
        self.source.shown.load(Ordering::Relaxed)
    }

    /// Whether a duplicate of it may be there.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.source) > 1
    }

    /// Takes the descriptor back out.
    pub(crate) fn into_inner(self) -> T {
        let mut this = ManuallyDrop::new(self);
        this.source.deregister(this.inner.as_fd().as_raw_fd());
        // SAFETY: `this` is not dropped, so the two fields are each moved out once.
        unsafe {
            std::ptr::drop_in_place(&raw mut this.source);
            ManuallyDrop::take(&mut this.inner)
        }
    }

    pub(crate) fn get(&self) -> &T {
        &self.inner
    }

    /// Whether operations never wait, because the user said so.
    pub(crate) fn is_nonblocking(&self) -> bool {
        self.source.mode.is_nonblocking(|| mode_of(&*self.inner))
    }

    /// As `is_nonblocking`, as far as that is known without asking.
    pub(crate) fn is_known_to_be_nonblocking(&self) -> bool {
        self.source.mode.is_known_to_be_nonblocking()
    }

    /// Takes note of the mode that the user has set on the descriptor.
    pub(crate) fn set_nonblocking(&self, nonblocking: bool) {
        self.source.mode.set(nonblocking);
    }

    /// Takes note of the timeout that the user has set on the descriptor.
    pub(crate) fn set_timeout(&self, direction: Direction, timeout: Option<Duration>) {
        self.readiness(direction).set_timeout(timeout);
    }

    /// The descriptor itself is shown to the user, who may take urgent data from it, and set its
    /// mode and its timeouts.
    pub(crate) fn expose(&self) -> &T {
        self.source.read.word().expect_urgent();
        self.source.shown.store(true, Ordering::Relaxed);
        self.forget_mode();
        self.forget_timeouts();
        &self.inner
    }

    /// Has the next operation that would block ask for the mode.
    pub(crate) fn forget_mode(&self) {
        self.source.mode.forget();
    }

    /// Has the next operation that would block ask for its timeout.
    pub(crate) fn forget_timeouts(&self) {
        self.source.read.forget_timeout();
        self.source.write.forget_timeout();
    }

    /// The timeout in `direction`, which `ask` can ask for.
    pub(crate) fn timeout(
        &self,
        direction: Direction,
        ask: fn(&T) -> io::Result<Option<Duration>>,
    ) -> io::Result<Option<Duration>> {
        self.readiness(direction).timeout(|| ask(&self.inner))
    }

    /// Whether the kernel has told that nothing more comes.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.source.read.word().is_closed()
    }

    /// Has whoever waits try again: after what the kernel tells nobody who polls.
    pub(crate) fn retry(&self) {
        if !self.source.is_left_in_parent() {
            self.source.retry_all();
        }
    }

    fn readiness(&self, direction: Direction) -> &Readiness {
        match direction {
            Direction::Read => &self.source.read,
            Direction::Write => &self.source.write,
        }
    }

    /// An operation in `direction` by the calling coroutine.
    pub(crate) fn operation(&self, direction: Direction) -> Operation<'_, T> {
        Operation {
            descriptor: self,
            direction,
            timeout: Timeout::Own(None),
        }
    }
}

/// Whether the user has set `fd` to non-blocking mode. Of a listener, that may be the mode of an
/// accept that is under way: so it is asked again between those.
fn mode_of(fd: impl AsFd) -> bool {
    let fd = fd.as_fd();
    // Fails on a descriptor that is not open, and so will every other call.
    let ask = || socket::is_nonblocking(fd).unwrap_or(false);
    if !ask() {
        return false;
    }
    let _turn = socket::is_listening(fd).then(|| ModeTurn::take_among_processes(fd));
    ask()
}

impl<T: AsFd> Drop for Descriptor<T> {
    fn drop(&mut self) {
        self.source.deregister(self.inner.as_fd().as_raw_fd());
        // SAFETY: taken out here and nowhere else.
        let inner = unsafe { ManuallyDrop::take(&mut self.inner) };
        match self.close {
            Some(close) if self.is_shown() => close(inner),
            _ => drop(inner),
        }
    }
}

/// How one operation on a descriptor waits.
pub(crate) struct Operation<'a, T: AsFd> {
    descriptor: &'a Descriptor<T>,
    direction: Direction,
    timeout: Timeout<T>,
}

enum Timeout<T> {
    /// The descriptor's own, which the function asks the kernel for.
    Socket(fn(&T) -> io::Result<Option<Duration>>),
    /// One for this operation, or none.
    Own(Option<Duration>),
}

impl<T: AsFd> Operation<'_, T> {
    /// Waits no longer than the descriptor's timeout, which `ask` can ask for.
    pub(crate) fn socket_timeout(mut self, ask: fn(&T) -> io::Result<Option<Duration>>) -> Self {
        self.timeout = Timeout::Socket(ask);
        self
    }

    /// Waits no longer than `timeout`, if there is one.
    pub(crate) fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = Timeout::Own(timeout);
        self
    }

    /// Tries `op` until it does anything but block, and parks in between; once more when the
    /// timeout has passed. So the kernel decides whether it has timed out, not what the poll has
    /// told so far.
    ///
    /// # Errors
    ///
    /// What `op` returns; `WouldBlock` (as std's sockets) when the timeout has passed or the
    /// descriptor is in non-blocking mode.
    pub(crate) fn run<R>(self, op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.run_stream(op, |_| false)
    }

    /// As [`run`](Operation::run), on a byte stream of which `drained` can tell, by what `op`
    /// returned, that it has no more to take: the next operation then parks without a wasted
    /// system call.
    ///
    /// A write is tried in any case. The kernel tells of room only when there is much of it, but
    /// takes what fits into less.
    ///
    /// Inlined into the call that a program makes: there is one such function for each kind of
    /// operation in any case, and each frame less on a stack that waits is a cache line or two less
    /// to fetch when it goes on.
    #[inline(always)]
    pub(crate) fn run_stream<R>(
        self,
        mut op: impl FnMut(&T) -> io::Result<R>,
        drained: impl Fn(&R) -> bool,
    ) -> io::Result<R> {
        let descriptor = self.descriptor;
        let readiness = descriptor.readiness(self.direction);
        let mut deadline = None;
        let mut is_too_late = false;
        let mut try_anyway = self.direction == Direction::Write;
        park::spend_operation();
        loop {
            let seen = readiness.word().observe();
            if seen.is_ready() || try_anyway || descriptor.is_nonblocking() {
                let result = op(&descriptor.inner);
                if !result.as_ref().is_err_and(would_block) {
                    if result.as_ref().is_ok_and(&drained) {
                        readiness.word().clear_drained(seen);
                    }
                    readiness.pass_on();
                    return result;
                }
                readiness.word().clear(seen);
                if is_too_late || descriptor.is_nonblocking() {
                    return result;
                }
                try_anyway = false;
                if readiness.word().observe().is_ready() {
                    continue;
                }
            }
            if task::is_unwinding() {
                return Err(super::error_amid_unwind());
            }
            descriptor
                .source
                .ensure_registered(descriptor.inner.as_fd())?;
            let deadline = match deadline {
                Some(deadline) => deadline,
                None => *deadline.insert(match self.patience()? {
                    Some(timeout) => Deadline::after(timeout),
                    None => None,
                }),
            };
            if !readiness.wait(deadline) {
                (is_too_late, try_anyway) = (true, true);
            }
        }
    }

    fn patience(&self) -> io::Result<Option<Duration>> {
        match self.timeout {
            Timeout::Own(timeout) => Ok(timeout),
            Timeout::Socket(ask) => self.descriptor.timeout(self.direction, ask),
        }
    }
}
