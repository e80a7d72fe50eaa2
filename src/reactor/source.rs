//! One open file description: its registration, its readiness, and who waits for that.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mio::event::Event;

use super::Handle;
use super::ready_word::{CLOSED, ReadyWord, URGENT};
use super::registration::{self, RegisteredBy, Registration, Source as _};
use crate::park::Waiters;
use crate::task::Deadline;
use crate::task::word::{Kind, Outcome};

/// Shared by all descriptors of one open file description.
///
/// What a read, its wait and its event use lies in two cache lines.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Source {
    pub(super) read: Readiness,
    registered_by: RegisteredBy,
    pub(super) mode: KnownMode,
    /// The user has, or has had, the descriptor itself: others may have a duplicate, and options may
    /// be set of which nothing is known here.
    pub(super) shown: AtomicBool,
    pub(super) write: Readiness,
    registration: Mutex<Option<Registration<Handle>>>,
}

impl Source {
    /// One whose timeouts are not known yet.
    pub(super) fn new(nonblocking: bool) -> Source {
        Source {
            read: Readiness::new(),
            write: Readiness::new(),
            mode: KnownMode::new(nonblocking),
            shown: AtomicBool::new(false),
            registered_by: RegisteredBy::new(),
            registration: Mutex::new(None),
        }
    }

    /// Makes sure that events of this source arrive somewhere.
    #[inline]
    pub(super) fn ensure_registered(self: &Arc<Self>, fd: BorrowedFd<'_>) -> io::Result<()> {
        match self.registered_by.is_this_process() {
            true => Ok(()),
            false => self.register_here(fd),
        }
    }

    #[cold]
    fn register_here(self: &Arc<Self>, fd: BorrowedFd<'_>) -> io::Result<()> {
        debug_assert!(
            !self.is_left_in_parent(),
            "no coroutine runs in a fork of a process with a runtime"
        );
        self.register(&super::local()?, fd.as_raw_fd())
    }

    /// Whether it was registered by a process that this one is a fork of.
    pub(super) fn is_left_in_parent(&self) -> bool {
        self.registered_by.is_a_parent()
    }

    /// Takes note of what the kernel tells.
    pub(super) fn event(&self, event: &Event) {
        // An error shows in whatever is tried next.
        let error = event.is_error();
        if error || event.is_readable() || event.is_read_closed() || event.is_priority() {
            let closed = if event.is_read_closed() { CLOSED } else { 0 };
            let urgent = if event.is_priority() { URGENT } else { 0 };
            self.read.set(closed | urgent);
        }
        if error || event.is_writable() || event.is_write_closed() {
            self.write
                .set(if event.is_write_closed() { CLOSED } else { 0 });
        }
    }
}

impl registration::Source for Source {
    type Poll = Handle;

    fn registered_by(&self) -> &RegisteredBy {
        &self.registered_by
    }

    fn registration(&self) -> &Mutex<Option<Registration<Handle>>> {
        &self.registration
    }

    fn is_awaited(&self) -> bool {
        !(self.read.waiters.is_empty() && self.write.waiters.is_empty())
    }

    fn retry_all(&self) {
        self.read.set(0);
        self.write.set(0);
        self.read.waiters.wake_all();
        self.write.waiters.wake_all();
    }
}

/// Whether the user has asked for non-blocking mode, so that nothing waits; as far as that is known.
#[derive(Debug)]
pub(super) struct KnownMode(AtomicU8);

/// Zero is the blocking one.
const NONBLOCKING: u8 = 1;
const UNKNOWN_MODE: u8 = 2;

impl KnownMode {
    fn new(nonblocking: bool) -> KnownMode {
        KnownMode(AtomicU8::new(nonblocking.into()))
    }

    pub(super) fn set(&self, nonblocking: bool) {
        self.0.store(nonblocking.into(), Ordering::Relaxed);
    }

    pub(super) fn forget(&self) {
        self.0.store(UNKNOWN_MODE, Ordering::Relaxed);
    }

    /// Whether it is known that nothing waits.
    pub(super) fn is_known_to_be_nonblocking(&self) -> bool {
        self.0.load(Ordering::Relaxed) == NONBLOCKING
    }

    /// For which `ask` asks the kernel, if it is not known.
    pub(super) fn is_nonblocking(&self, ask: impl FnOnce() -> bool) -> bool {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN_MODE => self.learn(ask),
            known => known == NONBLOCKING,
        }
    }

    #[cold]
    fn learn(&self, ask: impl FnOnce() -> bool) -> bool {
        let nonblocking = ask();
        let order = Ordering::Relaxed;
        let learnt = self
            .0
            .compare_exchange(UNKNOWN_MODE, nonblocking.into(), order, order);
        // What was set meanwhile is newer.
        learnt.map_or_else(|set| set == NONBLOCKING, |_| nonblocking)
    }
}

/// One direction of a source. See `ready_word` for the protocol.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Readiness {
    word: ReadyWord,
    waiters: Waiters,
    /// The user's timeout in nanoseconds, or one of the values below.
    timeout: AtomicU64,
}

const NO_TIMEOUT: u64 = u64::MAX;
const UNKNOWN_TIMEOUT: u64 = u64::MAX - 1;

impl Readiness {
    fn new() -> Readiness {
        Readiness {
            word: ReadyWord::new(),
            waiters: Waiters::new(),
            timeout: AtomicU64::new(UNKNOWN_TIMEOUT),
        }
    }

    pub(super) fn word(&self) -> &ReadyWord {
        &self.word
    }

    /// An event: ready, with the sticky `bits`. Wakes one waiter.
    fn set(&self, bits: u32) {
        if self.word.set(bits) {
            self.wake_one();
        }
    }

    fn wake_one(&self) {
        self.waiters.wake_one(|| self.word.no_waiters());
    }

    /// After an operation: passes readiness that is left on to the next waiter.
    pub(super) fn pass_on(&self) {
        if self.word.is_left_for_a_waiter() {
            self.wake_one();
        }
    }

    /// Waits until ready, or `deadline`; returns whether ready.
    #[inline(always)]
    pub(super) fn wait(&self, deadline: Option<Deadline>) -> bool {
        let ready = || self.word.is_ready_or_awaited();
        self.waiters.wait(Kind::Event, deadline, ready) != Outcome::TimedOut
    }

    pub(super) fn set_timeout(&self, timeout: Option<Duration>) {
        self.timeout.store(in_nanos(timeout), Ordering::Relaxed);
    }

    /// Whether it is known that there is no timeout.
    pub(super) fn has_no_timeout(&self) -> bool {
        self.timeout.load(Ordering::Relaxed) == NO_TIMEOUT
    }

    pub(super) fn forget_timeout(&self) {
        self.timeout.store(UNKNOWN_TIMEOUT, Ordering::Relaxed);
    }

    /// The timeout, for which `ask` asks the kernel, if it is not known: the descriptor may have
    /// come from elsewhere with one, or others may have set it.
    pub(super) fn timeout(
        &self,
        ask: impl FnOnce() -> io::Result<Option<Duration>>,
    ) -> io::Result<Option<Duration>> {
        let mut nanos = self.timeout.load(Ordering::Relaxed);
        if nanos == UNKNOWN_TIMEOUT {
            nanos = in_nanos(ask()?);
            let order = Ordering::Relaxed;
            // What was set meanwhile is newer.
            let _ = self
                .timeout
                .compare_exchange(UNKNOWN_TIMEOUT, nanos, order, order);
        }
        Ok((nanos != NO_TIMEOUT).then(|| Duration::from_nanos(nanos)))
    }
}

fn in_nanos(timeout: Option<Duration>) -> u64 {
    timeout.map_or(NO_TIMEOUT, |timeout| {
        let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        nanos.min(UNKNOWN_TIMEOUT - 1)
    })
}
