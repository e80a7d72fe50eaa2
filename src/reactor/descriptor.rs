//! A descriptor of the shims, and the one loop in which all its operations wait.

use std::io;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::object;
use super::registration::Registrable as _;
use super::source::{Source, SourceHalf};
use crate::park::{self, Waited};
use crate::sys::mode_turn::ModeTurn;
use crate::sys::socket::{self, would_block};
use crate::task::{self, Awaited, Awaiting, Awaits, Deadline, Reason};

/// The half of a descriptor that an operation uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// A descriptor of one of std's types, and the source that coroutines wait on.
///
/// When this is dropped or unwrapped, the descriptor is deregistered before it is closed or given away.
/// If it were closed first, and a duplicate existed, a registration would be left that nobody could
/// remove.
#[derive(Debug)]
pub(crate) struct Descriptor<T: AsFd> {
    inner: ManuallyDrop<T>,
    source: Arc<Source>,
    /// Closes the descriptor instead of its drop, if the user may have set options.
    close: Option<fn(T)>,
}

impl<T: AsFd> Descriptor<T> {
    /// Wraps a descriptor that was just made. It is in blocking mode and has no timeouts.
    pub(crate) fn fresh(inner: T) -> Descriptor<T> {
        let descriptor = Descriptor::with_mode(inner, false);
        descriptor.set_timeout(Direction::Read, None);
        descriptor.set_timeout(Direction::Write, None);
        descriptor
    }

    /// Wraps a connection that was just accepted from `listener`. It is in blocking mode. It inherits
    /// the timeouts and options of the listener, as TCP sockets do.
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

    /// Wraps a descriptor that came from elsewhere. Its mode and timeouts are those that it has.
    pub(crate) fn foreign(inner: T) -> Descriptor<T> {
        let nonblocking = mode_of(&inner);
        let foreign = Descriptor::with_mode(inner, nonblocking).shown();
        foreign.expect_urgent();
        foreign
    }

    /// Notes that the user has, or has had, the descriptor itself.
    fn shown(self) -> Descriptor<T> {
        self.source.shown.store(true, Ordering::Relaxed);
        self
    }

    /// Wraps a descriptor with a source of its own.
    fn with_mode(inner: T, nonblocking: bool) -> Descriptor<T> {
        let source = Arc::new(Source::new(nonblocking));
        Descriptor {
            inner: ManuallyDrop::new(inner),
            source,
            close: None,
        }
    }

    /// Sets the function that closes the descriptor, if the user may have set options.
    pub(crate) fn closed_by(mut self, close: fn(T)) -> Descriptor<T> {
        self.close = Some(close);
        self
    }

    /// Wraps a duplicate of this descriptor. They share all state, except in a fork of the process that
    /// has registered it.
    pub(crate) fn share(&self, duplicate: T) -> Descriptor<T> {
        // The shared source is registered in the parent, and cannot be used here.
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

    /// Whether there may be a duplicate in this process.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.source) > 1
    }

    /// Deregisters and unwraps the descriptor.
    pub(crate) fn into_inner(self) -> T {
        let mut this = ManuallyDrop::new(self);
        this.source.deregister(this.inner.as_fd().as_raw_fd());
        // SAFETY: `this` is in a `ManuallyDrop`, so its own drop does not run. This function is the
        // only code that touches the fields from now on: it drops `source` in place once, and moves
        // `inner` out once. `close` needs no drop.
        unsafe {
            std::ptr::drop_in_place(&raw mut this.source);
            ManuallyDrop::take(&mut this.inner)
        }
    }

    /// Like `into_inner`, for the user. Duplicates that stay here know from now on that the user has one, too.
    pub(crate) fn give_away(self) -> T {
        if self.is_shared() {
            self.expose();
        }
        self.into_inner()
    }

    pub(crate) fn get(&self) -> &T {
        &self.inner
    }

    /// Whether the user has set non-blocking mode: operations never wait. Asks the kernel if that is
    /// not known.
    pub(crate) fn is_nonblocking(&self) -> bool {
        self.source.mode.is_nonblocking(|| mode_of(&*self.inner))
    }

    /// Like `is_nonblocking`, but false if the mode is not known.
    pub(crate) fn is_known_to_be_nonblocking(&self) -> bool {
        self.source.mode.is_known_to_be_nonblocking()
    }

    /// Notes the mode that the user has set.
    pub(crate) fn set_nonblocking(&self, nonblocking: bool) {
        self.source.mode.set(nonblocking);
    }

    /// Notes the timeout that the user has set.
    pub(crate) fn set_timeout(&self, direction: Direction, timeout: Option<Duration>) {
        self.half(direction).set_timeout(timeout);
    }

    /// The descriptor, to be shown to the user. The user may then take urgent data from it, and set its
    /// mode and timeouts, without this crate's knowledge.
    pub(crate) fn expose(&self) -> &T {
        self.expect_urgent();
        self.source.shown.store(true, Ordering::Relaxed);
        self.forget_mode();
        self.forget_timeouts();
        &self.inner
    }

    /// A read that is short because of urgent data does not count as drained from now on: a duplicate may take that data.
    fn expect_urgent(&self) {
        self.source.read.word().expect_urgent();
    }

    /// Forgets the mode. The next operation that would block asks the kernel.
    pub(crate) fn forget_mode(&self) {
        self.source.mode.forget();
    }

    /// Forgets the timeouts. The next operation that would block asks the kernel.
    pub(crate) fn forget_timeouts(&self) {
        self.source.read.forget_timeout();
        self.source.write.forget_timeout();
    }

    /// The timeout in `direction`. If it is not known, `ask` asks the kernel.
    pub(crate) fn timeout(
        &self,
        direction: Direction,
        ask: fn(&T) -> io::Result<Option<Duration>>,
    ) -> io::Result<Option<Duration>> {
        self.half(direction).timeout(|| ask(&self.inner))
    }

    /// Whether the kernel has reported a hang-up.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.source.read.word().is_closed()
    }

    /// Wakes all waiters to try again, after a change that epoll does not report.
    pub(crate) fn retry(&self) {
        if !self.source.is_left_in_parent() {
            self.source.retry_all();
        }
    }

    /// The half of the source that operations in `direction` wait on.
    fn half(&self, direction: Direction) -> &SourceHalf {
        match direction {
            Direction::Read => &self.source.read,
            Direction::Write => &self.source.write,
        }
    }

    /// An operation of the calling coroutine, without a timeout so far.
    pub(crate) fn operation(&self, direction: Direction) -> Operation<'_, T> {
        Operation {
            descriptor: self,
            direction,
            timeout: Timeout::Own(None),
        }
    }
}

/// Whether the user has set `fd` to non-blocking mode.
///
/// An accept sets the mode of a listener for the time of the call. So if a listener is in non-blocking
/// mode, this asks again while no accept is under way.
fn mode_of(fd: impl AsFd) -> bool {
    let fd = fd.as_fd();
    // Fails if the descriptor is not open. Any other call on it will fail too, and report that.
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
        // SAFETY: this is `drop`, so the field is not used after it. `into_inner`, the only other code
        // that moves the field out, does not run `drop`.
        let inner = unsafe { ManuallyDrop::take(&mut self.inner) };
        match self.close {
            Some(close) if self.is_shown() => close(inner),
            _ => drop(inner),
        }
    }
}

/// One operation on a descriptor, and how it waits.
pub(crate) struct Operation<'a, T: AsFd> {
    descriptor: &'a Descriptor<T>,
    direction: Direction,
    timeout: Timeout<T>,
}

/// What an operation waits for.
struct HalfOf<'a, T: AsFd> {
    descriptor: &'a Descriptor<T>,
    direction: Direction,
}

impl<T: AsFd> Awaited for HalfOf<'_, T> {
    fn describe(&self) -> Awaits {
        let (reason, interest) = match self.direction {
            Direction::Read => (Reason::Read, "read"),
            Direction::Write => (Reason::Write, "write"),
        };
        let number = self.descriptor.inner.as_fd().as_raw_fd();
        object::awaits(reason, std::iter::once((number, interest)))
    }
}

/// Leaves what an operation was woken for to the next waiter, if its attempt unwinds: on some descriptors, an attempt
/// waits for the pool.
struct PassOn<'a>(&'a SourceHalf);

impl Drop for PassOn<'_> {
    #[cold]
    fn drop(&mut self) {
        self.0.pass_on();
    }
}

enum Timeout<T> {
    /// That of the descriptor. The function asks the kernel for it.
    Socket(fn(&T) -> io::Result<Option<Duration>>),
    /// A timeout for this operation only, or none.
    Own(Option<Duration>),
}

impl<T: AsFd> Operation<'_, T> {
    /// Waits at most for the descriptor's timeout. If it is not known, `ask` asks the kernel.
    pub(crate) fn socket_timeout(mut self, ask: fn(&T) -> io::Result<Option<Duration>>) -> Self {
        self.timeout = Timeout::Socket(ask);
        self
    }

    /// Waits at most for `timeout`, if there is one.
    pub(crate) fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = Timeout::Own(timeout);
        self
    }

    /// Tries `op` until it does not report that it would block, and parks in between. When the timeout
    /// has passed, or the deadline of an interrupt scope, it tries once more. So the kernel decides whether
    /// the operation has timed out, not the events that have been dispatched so far.
    ///
    /// # Errors
    ///
    /// Those of `op`. `WouldBlock`, as std's sockets, when the timeout has passed or the descriptor is
    /// in non-blocking mode. That of an interrupt, if interrupts are delivered as errors.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    ///
    /// Inlined for the reasons that [`run_stream`](Operation::run_stream) gives.
    #[inline(always)]
    pub(crate) fn run<R>(self, op: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        self.run_stream(op, |_| false)
    }

    /// Like [`run`](Operation::run), on a byte stream. `drained` tells from a result of `op` that the
    /// stream has no more to take. The next operation then parks without a wasted system call.
    ///
    /// A write is always tried first. The kernel reports room only when there is much of it, but
    /// accepts what fits into less.
    ///
    /// Inlined into the function that the program calls. There is one instance per kind of operation
    /// anyway. And each frame less on a parked stack is a cache line or two less to fetch when the
    /// coroutine goes on.
    #[inline(always)]
    pub(crate) fn run_stream<R>(
        self,
        mut op: impl FnMut(&T) -> io::Result<R>,
        drained: impl Fn(&R) -> bool,
    ) -> io::Result<R> {
        let descriptor = self.descriptor;
        let half = descriptor.half(self.direction);
        let mut deadline = None;
        // Another value once the operation is too late, and may only be tried once more.
        let mut waited = Waited::Woken;
        let mut try_anyway = self.direction == Direction::Write;
        let mut has_tried = false;
        // An operation that never has to wait must let other coroutines run now and then.
        park::spend_operation();
        loop {
            // Read before the attempt: an event that comes meanwhile changes the word, and is not
            // cleared.
            let seen = half.word().observe();
            if seen.is_ready() || try_anyway || descriptor.is_nonblocking() {
                let unwinds = PassOn(half);
                let result = op(&descriptor.inner);
                mem::forget(unwinds);
                has_tried = true;
                if !result.as_ref().is_err_and(would_block) {
                    // Nothing is left, so the next operation need not try.
                    if result.as_ref().is_ok_and(&drained) {
                        half.word().clear_drained(seen);
                    }
                    // There may be more, for another waiter.
                    half.pass_on();
                    return result;
                }
                half.word().clear(seen);
                if !waited.is_woken() || descriptor.is_nonblocking() {
                    return match waited {
                        Waited::Interrupted(interrupt) => Err(interrupt.deliver()),
                        Waited::Woken | Waited::TimedOut => result,
                    };
                }
                try_anyway = false;
                // An event came during the attempt.
                if half.word().observe().is_ready() {
                    continue;
                }
            }
            // A coroutine that unwinds would keep its worker to itself while it waits.
            if task::is_unwinding() {
                if has_tried {
                    return Err(super::error_amid_unwind());
                }
                // Something may have come since the stream was drained.
                try_anyway = true;
                continue;
            }
            descriptor
                .source
                .ensure_registered(descriptor.inner.as_fd())?;
            // The timeout starts at the first wait, and holds for all waits of the operation.
            let deadline = match deadline {
                Some(deadline) => deadline,
                None => *deadline.insert(match self.effective_timeout()? {
                    Some(timeout) => Deadline::after(timeout),
                    None => None,
                }),
            };
            let half_of = HalfOf {
                descriptor,
                direction: self.direction,
            };
            waited = half.wait(Awaiting::Described(&half_of), deadline);
            if !waited.is_woken() {
                waited.deliver_cancellation()?;
                // One last attempt.
                try_anyway = true;
            }
        }
    }

    /// How long the operation may wait.
    fn effective_timeout(&self) -> io::Result<Option<Duration>> {
        match self.timeout {
            Timeout::Own(timeout) => Ok(timeout),
            Timeout::Socket(ask) => self.descriptor.timeout(self.direction, ask),
        }
    }
}
