//! Waiting on the operating system: one poll per worker.
//!
//! A worker with nothing to run blocks in its poll, until an event, a deadline or a *kick* from another
//! thread.
//!
//! - A descriptor of the shims is registered once, for both directions, with the poll of the worker on
//!   which a coroutine first waits for it (`registration`). Its readiness is remembered between
//!   operations (`ready_word`, `source`). All operations wait in the same loop (`descriptor`).
//! - A descriptor that belongs to somebody else is registered anew for each wait (`watch`, `wait_fd`).
//! - The polls of other crates are such descriptors (`foreign_poll`).
//! - A dump asks what a descriptor is (`object`).
//! - Code that calls the C library owns its descriptors, and may close them at any time (`unowned`).

mod descriptor;
mod foreign_poll;
mod interest;
mod object;
mod ready_word;
mod registration;
mod source;
mod unowned;
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
use crate::task::{self, Deadline};

pub(crate) use descriptor::{Descriptor, Direction, Operation};
pub use foreign_poll::wait_for_poll;
pub use interest::{Interest, Readiness};
use registration::{Kernel, Registrar, RegistrationTable, Token, Watcher};
use source::Source;
pub(crate) use unowned::{about_to_close, has_closed, may_be_awaited, wait_for_unowned};
pub use wait_fd::wait_fd;
use watch::{Afterwards, DescriptorWatch};
pub(crate) use watch::{ReadyArm, wait_for};

/// The token of the eventfd that kicks write to.
const KICK: mio::Token = mio::Token(usize::MAX);
/// The token of the timerfd.
const ALARM: mio::Token = mio::Token(usize::MAX - 1);

/// The kernel may end a poll late by a thousandth of its timeout: by up to `LATE` for timeouts up to
/// `NEAR`.
const LATE: Duration = Duration::from_micros(100);
const NEAR: Duration = Duration::from_millis(100);

/// The most events that one call takes from the kernel.
///
/// The source and the task of an event are used when the event is dispatched, and again when the
/// coroutine runs. For so few events, they are then still in the processor's caches. The remaining
/// events wait in the kernel, in their order. See also [`take_rest`](Reactor::take_rest).
const EVENTS: usize = 64;

/// A worker's poll. Only that worker uses it.
pub(crate) struct Reactor {
    poll: Poll,
    events: Events,
    /// Ends a wait at a deadline for which the poll's own timeout is too coarse.
    alarm: TimerFd,
    /// When `alarm` expires, if it is set. The deadline may not matter any more.
    alarm_at: Option<Instant>,
    /// The last wait took no events, or only an alarm.
    was_quiet: bool,
    handle: Arc<Handle>,
}

/// The part of a worker's reactor that any thread may use.
///
/// In a fork of the process that made it, nothing may be done with it, since the kernel shares the poll
/// with the parent.
pub(crate) struct Handle {
    made_by: Process,
    /// `None` when the worker has gone. Tasks keep handles for longer, perhaps for ever.
    kick: Mutex<Option<mio::Waker>>,
    table: RegistrationTable<Handle>,
}

/// A wait for some events of a descriptor.
struct WatchFor {
    watch: Arc<DescriptorWatch>,
    interest: Interest,
}

impl Watcher for WatchFor {
    /// Wakes the waiting coroutine to look at the descriptor.
    fn fire(&self) {
        self.watch.fire();
    }
}

impl Registrar for Handle {
    type Kernel = Registry;
    type Source = Source;
    type Watcher = WatchFor;

    fn table(&self) -> &RegistrationTable<Handle> {
        &self.table
    }
}

/// mio registers edge-triggered. That is what the other traits and types here rely on.
impl Kernel for Registry {
    type Interest = mio::Interest;

    const ALL: mio::Interest = mio::Interest::READABLE
        .add(mio::Interest::WRITABLE)
        .add(mio::Interest::PRIORITY);

    fn add(&self, fd: RawFd, token: Token, interest: mio::Interest) -> io::Result<()> {
        match self.register(&mut SourceFd(&fd), mio::Token(token.0), interest) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                self.reregister(&mut SourceFd(&fd), mio::Token(token.0), interest)
            }
            added => added,
        }
    }

    fn renew(&self, fd: RawFd, token: Token, interest: mio::Interest) -> io::Result<bool> {
        match self.reregister(&mut SourceFd(&fd), mio::Token(token.0), interest) {
            // The file that was registered is no longer open under this number.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            renewed => renewed.map(|()| true),
        }
    }

    fn remove(&self, fd: RawFd) {
        // Fails if the kernel has dropped the registration already.
        let _ = self.deregister(&mut SourceFd(&fd));
    }
}

thread_local! {
    /// The reactor of the worker that this thread drives, from `Arc::into_raw`, or null.
    ///
    /// It has no destructor, so it can be used in the destructors of other thread-locals, which may end
    /// a runtime.
    static LOCAL: Cell<*const Handle> = const { Cell::new(ptr::null()) };
}

/// Sets the reactor that coroutines of this thread register with. `None` when the thread no longer
/// drives a worker.
pub(crate) fn set_local(handle: Option<Arc<Handle>>) {
    let before = LOCAL.replace(handle.map_or(ptr::null(), Arc::into_raw));
    if !before.is_null() {
        // SAFETY: every pointer in `LOCAL` comes from `into_raw`, in this function, and stands for one
        // reference. It was just taken out of `LOCAL`, so this is the only time that it is taken back.
        drop(unsafe { Arc::from_raw(before) });
    }
}

/// The reactor of the calling worker.
///
/// # Errors
///
/// If the calling thread drives no worker.
fn local() -> io::Result<Arc<Handle>> {
    let local = LOCAL.get();
    if local.is_null() {
        let why = "only a coroutine can wait on its worker's reactor";
        return Err(io::Error::other(why));
    }
    // SAFETY: every pointer in `LOCAL` comes from `into_raw` and stands for one reference. So the value
    // is alive, and its count may be incremented for the reference that is made here.
    Ok(unsafe {
        Arc::increment_strong_count(local);
        Arc::from_raw(local)
    })
}

/// The error of an operation that would have to wait in a coroutine that unwinds from a panic. Such a
/// coroutine keeps its worker to itself, so nobody would poll while it waits.
fn error_amid_unwind() -> io::Error {
    io::Error::other("cannot wait for I/O while unwinding from a panic")
}

impl Reactor {
    /// A reactor with nothing registered but its own eventfd and timerfd.
    ///
    /// # Errors
    ///
    /// The operating system's, if it is out of descriptors.
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
            table: RegistrationTable::new(poll.registry().try_clone()?),
        });
        unowned::add_reactor(&handle);
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

    /// Dispatches the events that are there, without waiting.
    pub(crate) fn turn(&mut self) -> io::Result<()> {
        self.poll(Some(Duration::ZERO))
    }

    /// Dispatches the events that the previous call has left in the kernel, if it took the most it
    /// could.
    pub(crate) fn take_rest(&mut self) -> io::Result<()> {
        /// After this many calls, the remaining events are newer than the first call.
        const CALLS: usize = 64;
        for _ in 0..CALLS {
            if self.events.iter().count() < EVENTS {
                break;
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Waits for events, a kick, or `deadline`, and dispatches the events. May return early.
    ///
    /// Of the ways to wait until the deadline, this uses the cheapest that is exact enough.
    pub(crate) fn wait(&mut self, deadline: Option<Deadline>) -> io::Result<()> {
        let Some(deadline) = deadline else {
            self.unset_alarm()?;
            return self.block(None);
        };
        // The same deadline as the last time, which the alarm is set for.
        if self.alarm_at == Some(deadline.at) {
            return self.block(None);
        }
        let now = Instant::now();
        let left = deadline.at.saturating_duration_since(now);
        if left.is_zero() {
            return self.turn();
        }
        if left <= NEAR {
            // The poll's own timeout costs no further system call. It counts whole milliseconds, so the
            // deadline must have enough slack.
            let millis = left.as_nanos().div_ceil(1_000_000);
            let timeout = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
            if timeout + LATE <= left + deadline.slack() {
                return self.block(Some(timeout));
            }
            // `ppoll` on the poll counts nanoseconds and costs no further system call either, unless an
            // event comes, which must then be taken. None came the last time.
            if self.was_quiet && LATE <= deadline.slack() {
                return match sleep_on(self.poll.registry().as_fd(), left)? {
                    Slept::Long => Ok(()),
                    Slept::UntilEvent => self.block(Some(Duration::ZERO)),
                };
            }
        } else if self.alarm_at.is_some_and(|at| now < at && at < deadline.at) {
            // The alarm expires before the deadline, and is set again then. Far deadlines are often put
            // off before they pass, so this saves calls.
            return self.block(None);
        }
        self.set_alarm(deadline, left)?;
        self.block(None)
    }

    /// Sets the alarm, which is exact to the nanosecond, for the price of one system call.
    fn set_alarm(&mut self, deadline: Deadline, left: Duration) -> io::Result<()> {
        self.alarm.set(left)?;
        self.alarm_at = Some(deadline.at);
        Ok(())
    }

    /// Unsets the alarm, which would wake the worker for nothing.
    fn unset_alarm(&mut self) -> io::Result<()> {
        match self.alarm_at.take() {
            Some(_) => self.alarm.unset(),
            None => Ok(()),
        }
    }

    /// For when the alarm is set.
    pub(crate) fn alarm_at(&self) -> Option<Instant> {
        self.alarm_at
    }

    /// The descriptor of the poll, which is readable while an event has not been taken.
    pub(crate) fn poll_fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    /// Leaves it to other code to wait for the descriptor of the poll. That becomes readable at an event, at
    /// `deadline`, and at once if `at_once` or if the previous call has left events in the kernel. (Such events do
    /// not make it readable for code that waits for its edges.)
    pub(crate) fn leave_to_others(
        &mut self,
        at_once: bool,
        deadline: Option<Deadline>,
    ) -> io::Result<()> {
        if at_once || self.events.iter().count() == EVENTS {
            self.handle.kick();
            return Ok(());
        }
        match deadline {
            None => self.unset_alarm(),
            Some(deadline) if self.alarm_at == Some(deadline.at) => Ok(()),
            Some(deadline) => {
                let left = deadline.at.saturating_duration_since(Instant::now());
                self.set_alarm(deadline, left)
            }
        }
    }

    /// Polls, and notes whether any event came.
    fn block(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.poll(timeout)?;
        self.was_quiet = self.events.iter().all(|event| event.token() == ALARM);
        Ok(())
    }

    /// Takes events from the kernel, waiting for `timeout` at most, and dispatches them.
    fn poll(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            // A signal counts as an early return. `events` is empty then.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            done => done?,
        }
        if self.events.is_empty() {
            return Ok(());
        }
        // Locked once for all events. Waking a waiter does not run it, so nothing takes long.
        let rows = self.handle.table.lock();
        for event in &self.events {
            match event.token() {
                // The wait has ended, which is all that a kick is for.
                KICK => {}
                ALARM => self.alarm_at = None,
                mio::Token(token) => {
                    // The registration may have been undone since the kernel has reported the event.
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

/// How [`sleep_on`] has ended.
enum Slept {
    /// The time has passed, or a signal came.
    Long,
    /// An event is there, and not taken.
    UntilEvent,
}

/// Sleeps until `poll` has an event, or for `timeout`, and up to [`LATE`] longer.
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
        // No descriptor is removed one by one: the kernel drops all registrations when the poll is
        // closed.
        self.handle.table.close();
        self.handle.release();
        let kick = self.handle.lock_kick().take();
        // After the lock is released.
        drop(kick);
    }
}

impl Handle {
    /// Ends the worker's wait; the next one if it does not wait now. From any thread.
    pub(crate) fn kick(&self) {
        if self.is_left_in_parent() {
            return;
        }
        // Under the libc patch, `write` would take a coroutine's wake-up for a write that may have to wait.
        let _aside = task::Aside::begin();
        if let Some(kick) = &*self.lock_kick() {
            // The eventfd cannot be full, since mio resets it. So this can only fail by a bug.
            kick.wake().expect("a worker's eventfd takes its wake-up");
        }
    }

    /// Locked for the moment of a kick, so that the eventfd is not closed meanwhile.
    fn lock_kick(&self) -> MutexGuard<'_, Option<mio::Waker>> {
        own_lock(&self.kick)
    }

    /// Releases all sources, because this worker does not poll any more. Their waiters look again, and
    /// register with other workers. Watches stay: their coroutines run on this worker or not at all.
    pub(crate) fn release(&self) {
        if self.is_left_in_parent() {
            return;
        }
        registration::release_sources(self);
    }

    /// Whether this process is a fork of the process that made the reactor. Its worker is not here
    /// then.
    pub(crate) fn is_left_in_parent(&self) -> bool {
        !self.made_by.is_current()
    }

    /// Fires `watch` at the events of `fd` that may be in `interest`, from now on. The present state
    /// counts as the first event.
    fn watch(
        &self,
        fd: RawFd,
        watch: Arc<DescriptorWatch>,
        interest: Interest,
    ) -> io::Result<Token> {
        let to_register = interest.to_register();
        self.table
            .watch(fd, WatchFor { watch, interest }, to_register)
    }

    /// Ends one call of [`watch`](Handle::watch).
    fn unwatch(&self, token: Token, watch: &Arc<DescriptorWatch>, afterwards: Afterwards) {
        if self.is_left_in_parent() {
            return;
        }
        let is_own = |watcher: &WatchFor| Arc::ptr_eq(&watcher.watch, watch);
        match afterwards {
            Afterwards::Undo => self.table.unwatch(token, is_own),
            Afterwards::Keep => self.table.end_watch(token, is_own),
        }
    }

    /// Ends the waits for `fd`, which is about to be closed, and undoes its registration, unless a source
    /// has it.
    fn close_watched(&self, fd: RawFd) {
        if !self.is_left_in_parent() {
            self.table
                .close_watched(fd, |watcher| watcher.watch.close());
        }
    }

    /// Has the waits for `fd` look at it.
    fn fire_watched(&self, fd: RawFd) {
        if !self.is_left_in_parent() {
            self.table.fire_watched(fd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::registration::Registrable as _;
    use super::*;

    /// A deadline with some slack, but too little for whole milliseconds.
    fn deadline() -> Deadline {
        let at = Instant::now() + Duration::from_micros(90_500);
        Deadline::with_slack(at, Duration::from_micros(150))
    }

    #[test]
    fn a_wait_after_one_without_events_sets_no_alarm() {
        let waits = || {
            let mut reactor = Reactor::new().unwrap();
            while !reactor.was_quiet {
                reactor.wait(Some(deadline())).unwrap();
            }
            let rang = !reactor.events.is_empty();
            reactor.turn().unwrap();
            let deadline = deadline();
            reactor.wait(Some(deadline)).unwrap();
            rang && reactor.events.is_empty() && Instant::now() >= deadline.at
        };
        // The system ends a wait early if it stops the process meanwhile.
        assert!((0..10).any(|_| waits()), "first an alarm rings, then none");
    }

    #[test]
    fn a_kick_ends_a_wait_that_sets_no_alarm_and_is_taken() {
        let mut reactor = Reactor::new().unwrap();
        reactor.was_quiet = true;
        // Several times, because on a busy machine a deadline may pass before the wait begins.
        for _ in 0..10 {
            reactor.handle().kick();
            reactor.wait(Some(deadline())).unwrap();
        }
        assert!(!reactor.was_quiet, "there was a kick");
        reactor.turn().unwrap();
        assert!(reactor.events.is_empty());
    }

    /// Some programs wrap a borrowed descriptor anew for each call.
    #[test]
    fn a_new_source_for_a_descriptor_replaces_sources_without_waiters() {
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
