//! Waiting on the operating system: one poll per worker.
//!
//! A worker with nothing to run blocks in its poll. Descriptors are registered with the poll of
//! the worker that first waits for them: edge-triggered, once, for both directions. Those that
//! others own are registered for each wait anew: see `watch`.

mod descriptor;
mod interest;
mod ready_word;
mod source;
mod wait_fd;
mod watch;

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Poll, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use slab::Slab;

use crate::sys::fork::Process;
use crate::sys::switches::own_lock;
use crate::sys::timerfd::TimerFd;
use crate::task::{self, AsideGuard, Deadline};

pub(crate) use descriptor::{Descriptor, Direction, Operation};
pub use interest::{Interest, Readiness};
use source::Source;
pub use wait_fd::wait_fd;
use watch::Watch;
pub(crate) use watch::wait_for;

const KICK: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);

/// How late the kernel is with a poll's own timeout, unless that is more than [`NEAR`] away: then it
/// is by more than a thousandth.
const LATE: Duration = Duration::from_micros(100);
const NEAR: Duration = Duration::from_millis(100);

/// The room that the tables keep.
const KEPT: usize = 64;

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
    /// Locked to insert, remove and dispatch; never while waiting on the operating system.
    sources: Mutex<Sources>,
}

/// What is registered, by key.
struct Sources {
    table: Slab<Registered>,
    /// The keys by descriptor: the kernel takes each once.
    keys: HashMap<RawFd, usize>,
    /// Distinguishes the successive users of a key: an event that was under way when its source
    /// went must not reach the next one.
    generation: u32,
    /// How many were removed since the tables were last looked at for what they keep.
    removed: usize,
    /// None when the worker has gone, and nobody polls any more.
    registry: Option<Registry>,
}

/// A descriptor, and who is told of its events: one or more.
struct Registered {
    token: Token,
    fd: RawFd,
    /// What is told.
    interest: mio::Interest,
    /// Of those who own the descriptor, or say so, for good: one, unless the number was wrapped more
    /// than once.
    sources: Vec<Arc<Source>>,
    /// Of waits under way.
    watchers: Vec<Watcher>,
}

struct Watcher {
    watch: Arc<Watch>,
    interest: Interest,
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
            sources: Mutex::new(Sources {
                table: Slab::new(),
                keys: HashMap::new(),
                generation: 0,
                removed: 0,
                registry: Some(poll.registry().try_clone()?),
            }),
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
        let sources = self.handle.lock();
        for event in &self.events {
            match event.token() {
                KICK => {}
                ALARM => self.alarm_at = None,
                token => {
                    if let Some(registered) = sources.find(token) {
                        registered.event(event);
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
        let registry = self.handle.lock().registry.take();
        // The kernel forgets what is registered when this closes the poll.
        drop(registry);
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
        let released = self.lock().take_sources();
        for (token, source) in released {
            source.release(self, token);
        }
    }

    /// Whether it was made before a fork, and the worker is not there in this process.
    pub(crate) fn is_left_in_parent(&self) -> bool {
        !self.made_by.is_current()
    }

    fn lock(&self) -> AsideGuard<'_, Sources> {
        task::lock_aside(&self.sources)
    }

    /// Starts to deliver the events of `fd` to `source`, beginning with its present state. Of other
    /// sources for the same number, those for which nobody waits are let go, and returned to be
    /// released: nobody may ever wait for them again.
    fn register(
        &self,
        fd: BorrowedFd<'_>,
        source: Arc<Source>,
    ) -> io::Result<(Token, Vec<Arc<Source>>)> {
        let all = mio::Interest::READABLE | mio::Interest::WRITABLE | mio::Interest::PRIORITY;
        let mut sources = self.lock();
        let registered = sources.registered(fd.as_raw_fd(), all)?;
        let idle = registered.take_sources(|other| !other.is_awaited());
        registered.sources.reserve_exact(1);
        registered.sources.push(source);
        Ok((registered.token, idle))
    }

    /// Stops the delivery of events to `source`. `fd` must be the one that was registered, and still
    /// open; it may be closed after this, so those who watch it are told to look. What is let go is
    /// returned as by `register`.
    fn deregister(&self, fd: BorrowedFd<'_>, token: Token, source: &Source) -> Vec<Arc<Source>> {
        let mut sources = self.lock();
        let Some(registered) = sources.find_mut(token) else {
            // The table may have let it go, and the kernel not yet.
            sources.unregister(fd.as_raw_fd());
            return Vec::new();
        };
        let removed =
            registered.take_sources(|other| ptr::eq(other, source) || !other.is_awaited());
        registered.fire_watchers();
        sources.remove_unused(token);
        removed
    }

    /// As `deregister`, for a source that the table has let go.
    fn unregister(&self, fd: RawFd) {
        self.lock().unregister(fd);
    }

    /// Starts to fire `watch` at the events of `fd` that may be of `interest`, beginning with its
    /// present state.
    fn watch(
        &self,
        fd: BorrowedFd<'_>,
        watch: Arc<Watch>,
        interest: Interest,
    ) -> io::Result<Token> {
        let mut sources = self.lock();
        let registered = sources.registered(fd.as_raw_fd(), interest.to_register())?;
        registered.watchers.push(Watcher { watch, interest });
        Ok(registered.token)
    }

    /// Undoes one call of `watch`.
    fn unwatch(&self, token: Token, watch: &Arc<Watch>) {
        if self.is_left_in_parent() {
            return;
        }
        let mut sources = self.lock();
        let Some(registered) = sources.find_mut(token) else {
            return;
        };
        registered.remove_watcher(watch);
        sources.remove_unused(token);
    }
}

impl Sources {
    /// The registration of `fd` for at least `interest`, made or renewed, so that its present state
    /// will be told.
    fn registered(&mut self, fd: RawFd, interest: mio::Interest) -> io::Result<&mut Registered> {
        let registry = self
            .registry
            .as_ref()
            .ok_or_else(|| io::Error::other("the runtime of this coroutine has shut down"))?;
        if let Some(&key) = self.keys.get(&fd) {
            let (token, interest) = (self.table[key].token, self.table[key].interest | interest);
            match registry.reregister(&mut SourceFd(&fd), token, interest) {
                // Somebody has closed it who was not to, and the number is another file's now.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    self.remove(token);
                    return self.registered(fd, interest);
                }
                renewed => renewed?,
            }
            let registered = &mut self.table[key];
            registered.interest = interest;
            return Ok(registered);
        }
        self.generation = self.generation.wrapping_add(1) & 0x7fff_ffff;
        let entry = self.table.vacant_entry();
        let token = Token((self.generation as usize) << 32 | entry.key());
        registry.register(&mut SourceFd(&fd), token, interest)?;
        self.keys.insert(fd, entry.key());
        Ok(entry.insert(Registered {
            token,
            fd,
            interest,
            sources: Vec::new(),
            watchers: Vec::new(),
        }))
    }

    /// Has the kernel forget `fd`, if it is registered for nobody here.
    fn unregister(&self, fd: RawFd) {
        if let Some(registry) = &self.registry
            && !self.keys.contains_key(&fd)
        {
            // Fails where the kernel has dropped the registration itself.
            let _ = registry.deregister(&mut SourceFd(&fd));
        }
    }

    fn find(&self, token: Token) -> Option<&Registered> {
        let registered = self.table.get(token.0 & 0xffff_ffff)?;
        (registered.token == token).then_some(registered)
    }

    fn find_mut(&mut self, token: Token) -> Option<&mut Registered> {
        let registered = self.table.get_mut(token.0 & 0xffff_ffff)?;
        (registered.token == token).then_some(registered)
    }

    /// Takes a registration out, and has those who watch look for themselves.
    fn remove(&mut self, token: Token) {
        if self.find(token).is_some() {
            let removed = self.table.remove(token.0 & 0xffff_ffff);
            self.keys.remove(&removed.fd);
            removed.fire_watchers();
            self.removed += 1;
            let room = self.table.capacity();
            if self.removed > room / 2 && room > 4 * self.table.len() + KEPT {
                self.shrink();
            }
        }
    }

    /// Gives the memory of a burst back: when so much was removed that each removal has cost little.
    #[cold]
    fn shrink(&mut self) {
        self.removed = 0;
        self.table.shrink_to_fit();
        self.keys.shrink_to(2 * self.table.len());
    }

    /// Undoes a registration that is for nobody any more.
    fn remove_unused(&mut self, token: Token) {
        if let Some(registered) = self.find(token)
            && registered.is_unused()
        {
            let fd = registered.fd;
            self.remove(token);
            self.unregister(fd);
        }
    }

    /// Takes all sources out.
    fn take_sources(&mut self) -> Vec<(Token, Arc<Source>)> {
        let mut taken = Vec::new();
        self.table.retain(|_, registered| {
            let token = registered.token;
            taken.extend(registered.sources.drain(..).map(|source| (token, source)));
            let watched = !registered.is_unused();
            if !watched {
                self.keys.remove(&registered.fd);
            }
            watched
        });
        self.table.shrink_to_fit();
        self.keys.shrink_to_fit();
        taken
    }
}

impl Registered {
    fn event(&self, event: &Event) {
        for source in &self.sources {
            source.event(event);
        }
        for watcher in &self.watchers {
            if watcher.interest.may_be(event) {
                watcher.watch.fire();
            }
        }
    }

    fn fire_watchers(&self) {
        for watcher in &self.watchers {
            watcher.watch.fire();
        }
    }

    fn take_sources(&mut self, which: impl Fn(&Source) -> bool) -> Vec<Arc<Source>> {
        self.sources
            .extract_if(.., |source| which(source))
            .collect()
    }

    fn remove_watcher(&mut self, watch: &Arc<Watch>) {
        let mut watchers = self.watchers.iter();
        if let Some(at) = watchers.position(|watcher| Arc::ptr_eq(&watcher.watch, watch)) {
            self.watchers.swap_remove(at);
        }
        if self.watchers.is_empty() {
            self.watchers = Vec::new();
        }
    }

    fn is_unused(&self) -> bool {
        self.sources.is_empty() && self.watchers.is_empty()
    }
}

#[cfg(test)]
mod tests {
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
            let sources = handle.lock();
            let all = sources.table.iter().flat_map(|(_, it)| &it.sources);
            all.map(Arc::as_ptr).collect::<Vec<_>>()
        };
        assert_eq!(registered(reactor.handle()), [Arc::as_ptr(&sources[2])]);
        sources[0].ensure_registered(reader.as_fd()).unwrap();
        assert_eq!(registered(reactor.handle()), [Arc::as_ptr(&sources[0])]);
        sources[0].deregister(reader.as_fd());
        assert!(registered(reactor.handle()).is_empty());
        assert!(reactor.handle().lock().keys.is_empty());
        set_local(None);
    }
}
