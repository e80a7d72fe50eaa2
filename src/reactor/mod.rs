//! Waiting on the operating system: one poll per worker.
//!
//! A worker with nothing to run blocks in its poll. Descriptors are registered with the poll of
//! the worker that first waits for them: edge-triggered, once, for both directions.

mod descriptor;
mod ready_word;
mod source;

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

use crate::sys::fork::Process;
use crate::sys::timerfd::TimerFd;
use crate::task::Deadline;

pub(crate) use descriptor::{Descriptor, Direction, Operation};
use source::Source;

const KICK: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);

/// How late the kernel is with a poll's own timeout, unless that is more than [`NEAR`] away: then it
/// is by more than a thousandth.
const LATE: Duration = Duration::from_micros(100);
const NEAR: Duration = Duration::from_millis(100);

/// The most events taken from the kernel in one call.
const EVENTS: usize = 1024;

/// A worker's poll: used by that worker alone.
pub(crate) struct Reactor {
    poll: Poll,
    events: Events,
    /// For deadlines that the poll's own timeout is too coarse for.
    alarm: TimerFd,
    /// When it rings, though that may not be wanted any more.
    alarm_at: Option<Instant>,
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

/// The registered sources by key.
struct Sources {
    table: Slab<Registered>,
    /// Distinguishes the successive users of a key: an event that was under way when its source
    /// went must not reach the next one.
    generation: u32,
    /// None when the worker has gone, and nobody polls any more.
    registry: Option<Registry>,
}

struct Registered {
    source: Arc<Source>,
    token: Token,
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

impl Reactor {
    pub(crate) fn new() -> io::Result<Reactor> {
        let poll = Poll::new()?;
        let alarm = TimerFd::new()?;
        poll.registry()
            .register(&mut SourceFd(&alarm.as_raw_fd()), ALARM, Interest::READABLE)?;
        let handle = Arc::new(Handle {
            made_by: Process::current(),
            kick: Mutex::new(Some(mio::Waker::new(poll.registry(), KICK)?)),
            sources: Mutex::new(Sources {
                table: Slab::new(),
                generation: 0,
                registry: Some(poll.registry().try_clone()?),
            }),
        });
        let events = Events::with_capacity(EVENTS);
        Ok(Reactor {
            poll,
            events,
            alarm,
            alarm_at: None,
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

    /// Waits for events, a kick, or `deadline`; at times for nothing.
    pub(crate) fn wait(&mut self, deadline: Option<Deadline>) -> io::Result<()> {
        let Some(deadline) = deadline else {
            if self.alarm_at.take().is_some() {
                self.alarm.unset()?;
            }
            return self.poll(None);
        };
        if self.alarm_at == Some(deadline.at) {
            return self.poll(None);
        }
        let now = Instant::now();
        let left = deadline.at.saturating_duration_since(now);
        if left.is_zero() {
            return self.turn();
        }
        if left <= NEAR {
            // A poll's own timeout costs no system call, and will do if there is slack enough for
            // whole milliseconds.
            let millis = left.as_nanos().div_ceil(1_000_000);
            let timeout = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
            if timeout + LATE <= left + deadline.slack() {
                return self.poll(Some(timeout));
            }
        } else if self.alarm_at.is_some_and(|at| now < at && at < deadline.at) {
            // Many far deadlines are put off again and again: it is set anew when it has rung.
            return self.poll(None);
        }
        self.alarm.set(left)?;
        self.alarm_at = Some(deadline.at);
        self.poll(None)
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
                    if let Some(source) = sources.find(token) {
                        source.event(event);
                    }
                }
            }
        }
        Ok(())
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
        crate::sys::switches::own_lock(&self.kick).unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of all sources, which may wait with another worker when this one does not poll. What
    /// waits is told to look again.
    pub(crate) fn release(&self) {
        if self.is_left_in_parent() {
            return;
        }
        let released = std::mem::take(&mut self.lock().table);
        for (_, registered) in released {
            registered.source.release(self);
        }
    }

    /// Whether it was made before a fork, and the worker is not there in this process.
    pub(crate) fn is_left_in_parent(&self) -> bool {
        !self.made_by.is_current()
    }

    fn lock(&self) -> MutexGuard<'_, Sources> {
        crate::sys::switches::own_lock(&self.sources).unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts to deliver the events of `fd` to `source`, beginning with its present state.
    fn register(&self, fd: BorrowedFd<'_>, source: Arc<Source>) -> io::Result<Token> {
        let sources = &mut *self.lock();
        let registry = sources
            .registry
            .as_ref()
            .ok_or_else(|| io::Error::other("the runtime of this coroutine has shut down"))?;
        sources.generation = sources.generation.wrapping_add(1) & 0x7fff_ffff;
        let generation = sources.generation as usize;
        let entry = sources.table.vacant_entry();
        let token = Token(generation << 32 | entry.key());
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, interest)?;
        entry.insert(Registered { source, token });
        Ok(token)
    }

    /// Stops the delivery of events. `fd` must be the one that was registered, and still open.
    fn deregister(&self, fd: BorrowedFd<'_>, token: Token) {
        let mut sources = self.lock();
        let removed = sources.remove(token);
        sources.unregister(fd.as_raw_fd());
        drop(sources);
        drop(removed);
    }

    /// As `deregister`, for a source that the table has let go.
    fn unregister(&self, fd: RawFd) {
        self.lock().unregister(fd);
    }
}

impl Sources {
    fn unregister(&self, fd: RawFd) {
        if let Some(registry) = &self.registry {
            // Fails where the kernel has dropped the registration itself.
            let _ = registry.deregister(&mut SourceFd(&fd));
        }
    }

    fn find(&self, token: Token) -> Option<&Source> {
        let registered = self.table.get(token.0 & 0xffff_ffff)?;
        (registered.token == token).then_some(&*registered.source)
    }

    fn remove(&mut self, token: Token) -> Option<Registered> {
        self.find(token)?;
        self.table.try_remove(token.0 & 0xffff_ffff)
    }
}
