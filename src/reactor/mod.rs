//! Waiting on the operating system: one poll per worker.
//!
//! A worker with nothing to run blocks in its poll. Descriptors are registered with the poll of
//! the worker that first waits for them: edge-triggered, once, for both directions. Those that
//! others own are registered for each wait anew: see `watch`.

mod descriptor;
mod interest;
mod ready_word;
mod registration;
mod source;
mod wait_fd;
mod watch;

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Poll, Registry};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::sys::fork::Process;
use crate::sys::switches::own_lock;
use crate::sys::timerfd::TimerFd;
use crate::task::Deadline;

pub(crate) use descriptor::{Descriptor, Direction, Operation};
pub use interest::{Interest, Readiness};
use registration::{Kernel, Table, Token, Watcher};
use source::Source;
pub use wait_fd::wait_fd;
use watch::Watch;
pub(crate) use watch::wait_for;

const KICK: mio::Token = mio::Token(usize::MAX);
const ALARM: mio::Token = mio::Token(usize::MAX - 1);

/// How late the kernel is with a poll's own timeout, unless that is more than [`NEAR`] away: then it
/// is by more than a thousandth.
const LATE: Duration = Duration::from_micros(100);
const NEAR: Duration = Duration::from_millis(100);

/// The most events taken from the kernel in one call.
///
/// About as many as a worker runs coroutines for before it looks again. What an event is for is used
/// when it is told, and once more when its coroutine runs: of so few, it is still in the processor's
/// caches then. What is left waits in the kernel, first come, first told: but see
/// [`take_rest`](Reactor::take_rest).
const EVENTS: usize = 64;

/// A worker's poll: used by that worker alone.
pub(crate) struct Reactor {
    poll: Poll,
    events: Events,
    /// For deadlines that the poll's own timeout is too coarse for.
    alarm: TimerFd,
    /// When it rings, though that may not be wanted any more.
    alarm_at: Option<Instant>,
    /// The last wait took no event but an alarm.
    was_quiet: bool,
    handle: Arc<Handle>,
}

/// What others may do with a worker's reactor, from any thread.
///
/// In a fork of the process that made it they may do nothing: the kernel's side of it is shared
/// with the parent.
pub(crate) struct Handle {
    made_by: Process,
    /// Until the worker has gone; tasks that refer to its handle may stay for longer, or for ever.
    kick: Mutex<Option<mio::Waker>>,
    table: Table<Handle>,
}

/// A wait under way, and the events that it is for.
struct WatchFor {
    watch: Arc<Watch>,
    interest: Interest,
}

impl Watcher for WatchFor {
    fn fire(&self) {
        self.watch.fire();
    }
}

impl registration::Poll for Handle {
    type Kernel = Registry;
    type Source = Source;
    type Watcher = WatchFor;

    fn table(&self) -> &Table<Handle> {
        &self.table
    }
}

impl Kernel for Registry {
    type Interest = mio::Interest;

    const ALL: mio::Interest = mio::Interest::READABLE
        .add(mio::Interest::WRITABLE)
        .add(mio::Interest::PRIORITY);

    fn add(&self, fd: RawFd, token: Token, interest: mio::Interest) -> io::Result<()> {
        self.register(&mut SourceFd(&fd), mio::Token(token.0), interest)
    }

    fn renew(&self, fd: RawFd, token: Token, interest: mio::Interest) -> io::Result<bool> {
        match self.reregister(&mut SourceFd(&fd), mio::Token(token.0), interest) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            renewed => renewed.map(|()| true),
        }
    }

    fn remove(&self, fd: RawFd) {
        // Fails where the kernel has dropped the registration itself.
        let _ = self.deregister(&mut SourceFd(&fd));
    }
}

thread_local! {
    /// The reactor of the worker that this thread is, from `Arc::into_raw`, or null. Without a
    /// destructor: those of others' thread-locals may end a runtime.
    static LOCAL: Cell<*const Handle> = const { Cell::new(ptr::null()) };
}

/// Lets coroutines of this thread register with `handle` (with none, when a worker has gone).
pub(crate) fn set_local(handle: Option<Arc<Handle>>) {
    let before = LOCAL.replace(handle.map_or(ptr::null(), Arc::into_raw));
    if !before.is_null() {
        // SAFETY: it came from `into_raw`, and is taken back once.
        drop(unsafe { Arc::from_raw(before) });
    }
}

/// The reactor of the calling worker.
fn local() -> io::Result<Arc<Handle>> {
    let local = LOCAL.get();
    if local.is_null() {
        let why = "only a coroutine can wait on its worker's reactor";
        return Err(io::Error::other(why));
    }
    // SAFETY: it came from `into_raw`, and `LOCAL` stands for one reference; so the count is at
    // least one, and may be raised for the reference made here.
    Ok(unsafe {
        Arc::increment_strong_count(local);
        Arc::from_raw(local)
    })
}

/// Why an operation does not wait in a coroutine that unwinds from a panic.
fn error_amid_unwind() -> io::Error {
    io::Error::other("cannot wait for I/O while unwinding from a panic")
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Reactor> {
        let poll = Poll::new()?;
        let alarm = TimerFd::new()?;
        poll.registry().register(
            &mut SourceFd(&alarm.as_raw_fd()),
            ALARM,
            mio::Interest::READABLE,
        )?;
        let handle = Arc::new(Handle {
            made_by: Process::current(),
            kick: Mutex::new(Some(mio::Waker::new(poll.registry(), KICK)?)),
            table: Table::new(poll.registry().try_clone()?),
        });
        let events = Events::with_capacity(EVENTS);
        Ok(Reactor {
            poll,
            events,
            alarm,
            alarm_at: None,
            was_quiet: false,
            handle,
        })
    }

    pub(crate) fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// Takes what events there are, without waiting.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        self.poll(Some(Duration::ZERO))
    }

    /// Takes what events the call before has left in the kernel, if it came upon more than it takes.
    pub(crate) fn take_rest(&mut self) -> io::Result<()> {
        /// After so many calls, what is left has come since.
        const CALLS: usize = 64;
        for _ in 0..CALLS {
            if self.events.iter().count() < EVENTS {
                break;
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Waits for events, a kick, or `deadline`; at times for nothing.
    pub(crate) fn wait(&mut self, deadline: Option<Deadline>) -> io::Result<()> {
        let Some(deadline) = deadline else {
            if self.alarm_at.take().is_some() {
                self.alarm.unset()?;
            }
            return self.block(None);
        };
        if self.alarm_at == Some(deadline.at) {
            return self.block(None);
        }
        let now = Instant::now();
        let left = deadline.at.saturating_duration_since(now);
        if left.is_zero() {
            return self.turn();
        }
        if left <= NEAR {
            // The poll's own timeout costs no system call, and will do if there is slack enough for
            // whole milliseconds.
            let millis = left.as_nanos().div_ceil(1_000_000);
            let timeout = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
            if timeout + LATE <= left + deadline.slack() {
                return self.block(Some(timeout));
            }
            // A finer one costs none either, but the events are still to be taken then, if any come:
            // none did the last time.
            if self.was_quiet && LATE <= deadline.slack() {
                return match sleep_on(self.poll.registry().as_fd(), left)? {
                    Slept::Long => Ok(()),
                    Slept::UntilEvent => self.block(Some(Duration::ZERO)),
                };
            }
        } else if self.alarm_at.is_some_and(|at| now < at && at < deadline.at) {
            // Many far deadlines are put off again and again: it is set anew when it has rung.
            return self.block(None);
        }
        self.alarm.set(left)?;
        self.alarm_at = Some(deadline.at);
        self.block(None)
    }

    /// Polls, and notes whether there was anything.
    fn block(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.poll(timeout)?;
        self.was_quiet = self.events.iter().all(|event| event.token() == ALARM);
        Ok(())
    }

    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            done => done?,
        }
        if self.events.is_empty() {
            return Ok(());
        }
        let rows = self.handle.table.lock();
        for event in &self.events {
            match event.token() {
                KICK => {}
                ALARM => self.alarm_at = None,
                mio::Token(token) => {
                    let Some(registered) = rows.find(Token(token)) else {
                        continue;
                    };
                    for source in &registered.sources {
                        source.event(event);
                    }
                    for watcher in &registered.watchers {
                        if watcher.interest.may_be(event) {
                            watcher.fire();
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// How [`sleep_on`] ended.
enum Slept {
    /// The time is over, or a signal came.
    Long,
    UntilEvent,
}

/// Sleeps for `timeout`, exact but for [`LATE`], or until `poll` has an event.
fn sleep_on(poll: BorrowedFd<'_>, timeout: Duration) -> io::Result<Slept> {
    let mut polls = [PollFd::from_borrowed_fd(poll, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    match rustix::event::poll(&mut polls, Some(&timeout)) {
        Ok(0) | Err(Errno::INTR) => Ok(Slept::Long),
        Ok(_) => Ok(Slept::UntilEvent),
        Err(error) => Err(error.into()),
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        // The kernel forgets what is registered when this closes the poll.
        self.handle.table.close();
        self.handle.release();
        *self.handle.lock_kick() = None;
    }
}

impl Handle {
    /// Makes the worker's wait return, now or the next time. From any thread.
    pub(crate) fn kick(&self) {
        if self.is_left_in_parent() {
            return;
        }
        if let Some(kick) = &*self.lock_kick() {
            // The eventfd cannot be full (mio resets it), so this fails on a broken invariant only.
            kick.wake().expect("a worker's eventfd takes its wake-up");
        }
    }

    fn lock_kick(&self) -> MutexGuard<'_, Option<mio::Waker>> {
        own_lock(&self.kick)
    }

    /// Lets go of all sources, which may wait with another worker when this one does not poll. What
    /// waits is told to look again. Watches stay: their coroutines run here or nowhere.
    pub(crate) fn release(&self) {
        if self.is_left_in_parent() {
            return;
        }
        registration::release_sources(self);
    }

    /// Whether it was made before a fork, and the worker is not there in this process.
    pub(crate) fn is_left_in_parent(&self) -> bool {
        !self.made_by.is_current()
    }

    /// Starts to fire `watch` at the events of `fd` that may be of `interest`, beginning with its
    /// present state.
    fn watch(
        &self,
        fd: BorrowedFd<'_>,
        watch: Arc<Watch>,
        interest: Interest,
    ) -> io::Result<Token> {
        let to_register = interest.to_register();
        self.table
            .watch(fd.as_raw_fd(), WatchFor { watch, interest }, to_register)
    }

    /// Undoes one call of `watch`.
    fn unwatch(&self, token: Token, watch: &Arc<Watch>) {
        if self.is_left_in_parent() {
            return;
        }
        self.table
            .unwatch(token, |watcher| Arc::ptr_eq(&watcher.watch, watch));
    }
}

#[cfg(test)]
mod tests {
    use super::registration::Source as _;
    use super::*;

    /// A deadline that whole milliseconds are too coarse for, though not by much.
    fn deadline() -> Deadline {
        let at = Instant::now() + Duration::from_micros(90_500);
        Deadline::with_slack(at, Duration::from_micros(150))
    }

    #[test]
    fn after_a_quiet_wait_the_next_one_sets_no_alarm() {
        let mut reactor = Reactor::new().unwrap();
        while !reactor.was_quiet {
            reactor.wait(Some(deadline())).unwrap();
        }
        assert!(!reactor.events.is_empty(), "the alarm has rung");
        reactor.turn().unwrap();
        let deadline = deadline();
        reactor.wait(Some(deadline)).unwrap();
        assert!(reactor.events.is_empty(), "none has");
        assert!(Instant::now() >= deadline.at);
    }

    #[test]
    fn a_kick_ends_a_wait_that_sets_no_alarm_and_is_taken_by_it() {
        let mut reactor = Reactor::new().unwrap();
        reactor.was_quiet = true;
        // More than once, because a deadline may pass before it is waited for.
        for _ in 0..10 {
            reactor.handle().kick();
            reactor.wait(Some(deadline())).unwrap();
        }
        assert!(!reactor.was_quiet, "there was a kick");
        reactor.turn().unwrap();
        assert!(reactor.events.is_empty());
    }

    /// As of who wraps a number for each call, and does not own it.
    #[test]
    fn of_sources_for_one_number_those_that_nobody_waits_for_make_room() {
        let reactor = Reactor::new().unwrap();
        set_local(Some(Arc::clone(reactor.handle())));
        let (reader, _writer) = io::pipe().unwrap();
        let sources = [(); 3].map(|()| Arc::new(Source::new(false)));
        for source in &sources {
            source.ensure_registered(reader.as_fd()).unwrap();
        }
        let registered = |handle: &Handle| {
            let rows = handle.table.lock();
            rows.sources().map(Arc::as_ptr).collect::<Vec<_>>()
        };
        assert_eq!(registered(reactor.handle()), [Arc::as_ptr(&sources[2])]);
        sources[0].ensure_registered(reader.as_fd()).unwrap();
        assert_eq!(registered(reactor.handle()), [Arc::as_ptr(&sources[0])]);
        sources[0].deregister(reader.as_raw_fd());
        assert!(registered(reactor.handle()).is_empty());
        assert!(reactor.handle().table.lock().is_empty());
        set_local(None);
    }
}
