//! An open file description of the shims: its registration, its readiness and its waiters.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mio::event::Event;

use super::Handle;
use super::ready_word::{CLOSED, ReadyWord, URGENT};
use super::registration::{RegisteredBy, Registrable, Registration};
use crate::park::{Waited, Waiters};
use crate::task::{Awaiting, Deadline, Reason};

/// An open file description. All [`Descriptor`](super::Descriptor)s that are duplicates of each other
/// share one.
///
/// The fields that a read, its wait and its event use come first, and lie in two cache lines.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Source {
    pub(super) read: SourceHalf,
    /// Read before each wait. The rest of the registration is in `registration`.
    registered_by: RegisteredBy,
    pub(super) mode: KnownMode,
    /// The user has, or has had, the descriptor itself. So there may be duplicates and options that
    /// this crate does not know of.
    pub(super) shown: AtomicBool,
    pub(super) write: SourceHalf,
    /// Where the source is registered. Locked while it is registered or deregistered.
    registration: Mutex<Option<Registration<Handle>>>,
}

impl Source {
    /// A source that is not registered. Its timeouts are not known yet.
    pub(super) fn new(nonblocking: bool) -> Source {
        Source {
            read: SourceHalf::new(),
            write: SourceHalf::new(),
            mode: KnownMode::new(nonblocking),
            shown: AtomicBool::new(false),
            registered_by: RegisteredBy::new(),
            registration: Mutex::new(None),
        }
    }

    /// Makes sure that the source is registered with some worker's poll.
    #[inline]
    pub(super) fn ensure_registered(self: &Arc<Self>, fd: BorrowedFd<'_>) -> io::Result<()> {
        match self.registered_by.is_this_process() {
            true => Ok(()),
            false => self.register_here(fd),
        }
    }

    /// Registers the source with the poll of the calling worker.
    #[cold]
    fn register_here(self: &Arc<Self>, fd: BorrowedFd<'_>) -> io::Result<()> {
        debug_assert!(
            !self.is_left_in_parent(),
            "no coroutine runs in a fork of a process with a runtime"
        );
        self.register(&super::local()?, fd.as_raw_fd())
    }

    /// Whether it was registered by a process that this process is a fork of.
    pub(super) fn is_left_in_parent(&self) -> bool {
        self.registered_by.is_a_parent()
    }

    /// Notes an event that the kernel has reported. The event may concern either half, or both.
    ///
    /// Hang-ups and urgent data are noted for good, since the kernel may not report them again.
    pub(super) fn event(&self, event: &Event) {
        // The next operation returns an error, whatever its direction.
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

impl Registrable for Source {
    type Registrar = Handle;

    fn registered_by(&self) -> &RegisteredBy {
        &self.registered_by
    }

    fn registration(&self) -> &Mutex<Option<Registration<Handle>>> {
        &self.registration
    }

    fn is_awaited(&self) -> bool {
        !(self.read.waiters.is_empty() && self.write.waiters.is_empty())
    }

    /// Wakes all waiters. An event would wake one of each half, but this is not an event: each waiter
    /// has to find out for itself.
    fn retry_all(&self) {
        // Ready first: a waiter that is about to queue must not do so.
        self.read.set(0);
        self.write.set(0);
        self.read.waiters.wake_all();
        self.write.waiters.wake_all();
    }
}

/// Whether the user has set non-blocking mode, as far as is known. Operations then never wait.
///
/// The mode belongs to the open file description, so all duplicates share it. This crate never leaves a
/// descriptor in another mode than the user has set. So the mode only has to be asked for again after
/// the user has had the descriptor.
///
/// Nothing else is published through this value, so all accesses are relaxed.
#[derive(Debug)]
pub(super) struct KnownMode(AtomicU8);

const BLOCKING: u8 = 0;
const NONBLOCKING: u8 = 1;
const UNKNOWN_MODE: u8 = 2; // the kernel must be asked

/// `nonblocking` as it is stored.
fn mode(nonblocking: bool) -> u8 {
    match nonblocking {
        true => NONBLOCKING,
        false => BLOCKING,
    }
}

impl KnownMode {
    fn new(nonblocking: bool) -> KnownMode {
        KnownMode(AtomicU8::new(mode(nonblocking)))
    }

    /// Notes the mode that the user has set.
    pub(super) fn set(&self, nonblocking: bool) {
        self.0.store(mode(nonblocking), Ordering::Relaxed);
    }

    /// Forgets the mode, because the user may change it without this crate's knowledge.
    pub(super) fn forget(&self) {
        self.0.store(UNKNOWN_MODE, Ordering::Relaxed);
    }

    /// Whether the mode is known to be non-blocking.
    pub(super) fn is_known_to_be_nonblocking(&self) -> bool {
        self.0.load(Ordering::Relaxed) == NONBLOCKING
    }

    /// Whether the mode is non-blocking. If it is not known, `ask` asks the kernel.
    pub(super) fn is_nonblocking(&self, ask: impl FnOnce() -> bool) -> bool {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN_MODE => self.learn(ask),
            known => known == NONBLOCKING,
        }
    }

    /// Asks the kernel for the mode, and remembers it.
    #[cold]
    fn learn(&self, ask: impl FnOnce() -> bool) -> bool {
        let nonblocking = ask();
        let order = Ordering::Relaxed;
        let learnt = self
            .0
            .compare_exchange(UNKNOWN_MODE, mode(nonblocking), order, order);
        // A mode that was set meanwhile is newer.
        learnt.map_or_else(|set| set == NONBLOCKING, |_| nonblocking)
    }
}

/// The reading or the writing half of a source. The protocol is described in `ready_word`.
#[derive(Debug)]
#[repr(C)]
pub(super) struct SourceHalf {
    word: ReadyWord,
    /// Several coroutines may use one half at the same time, as std allows.
    waiters: Waiters,
    /// The user's timeout in nanoseconds, or `NO_TIMEOUT`, or `UNKNOWN_TIMEOUT`.
    timeout: AtomicU64,
}

const NO_TIMEOUT: u64 = u64::MAX;
const UNKNOWN_TIMEOUT: u64 = u64::MAX - 1; // the kernel must be asked

impl SourceHalf {
    /// A half that is ready, as far as is known, and whose timeout is not known.
    fn new() -> SourceHalf {
        SourceHalf {
            word: ReadyWord::new(),
            waiters: Waiters::new(Reason::Descriptors),
            timeout: AtomicU64::new(UNKNOWN_TIMEOUT),
        }
    }

    pub(super) fn word(&self) -> &ReadyWord {
        &self.word
    }

    /// Notes an event, with the bits CLOSED or URGENT. Wakes one waiter.
    fn set(&self, bits: u32) {
        if self.word.set(bits) {
            self.wake_one();
        }
    }

    /// Wakes the first waiter. If there is none, notes that under the lock of the queue.
    fn wake_one(&self) {
        self.waiters.wake_one(|| self.word.no_waiters());
    }

    /// Called after an operation. Wakes the next waiter, if readiness is left.
    pub(super) fn pass_on(&self) {
        if self.word.is_left_for_a_waiter() {
            self.wake_one();
        }
    }

    /// Parks the caller, as one that waits for `awaiting`, until there is readiness, or until `deadline`.
    #[inline(always)]
    pub(super) fn wait(&self, awaiting: Awaiting<'_>, deadline: Option<Deadline>) -> Waited {
        // Called under the lock of the queue, before the caller queues.
        let ready = || self.word.is_ready_or_awaited();
        self.waiters.try_wait(awaiting, deadline, ready)
    }

    /// Notes the timeout that the user has set.
    pub(super) fn set_timeout(&self, timeout: Option<Duration>) {
        self.timeout.store(in_nanos(timeout), Ordering::Relaxed);
    }

    /// Whether there is known to be no timeout.
    pub(super) fn has_no_timeout(&self) -> bool {
        self.timeout.load(Ordering::Relaxed) == NO_TIMEOUT
    }

    /// Forgets the timeout, because the user may change it without this crate's knowledge.
    pub(super) fn forget_timeout(&self) {
        self.timeout.store(UNKNOWN_TIMEOUT, Ordering::Relaxed);
    }

    /// The timeout. If it is not known, `ask` asks the kernel: the descriptor may have come from
    /// elsewhere with a timeout, or others may have set one.
    pub(super) fn timeout(
        &self,
        ask: impl FnOnce() -> io::Result<Option<Duration>>,
    ) -> io::Result<Option<Duration>> {
        let mut nanos = self.timeout.load(Ordering::Relaxed);
        if nanos == UNKNOWN_TIMEOUT {
            nanos = in_nanos(ask()?);
            let order = Ordering::Relaxed;
            // A timeout that was set meanwhile is newer.
            let _ = self
                .timeout
                .compare_exchange(UNKNOWN_TIMEOUT, nanos, order, order);
        }
        Ok((nanos != NO_TIMEOUT).then(|| Duration::from_nanos(nanos)))
    }
}

/// `timeout` as it is stored. A timeout that is too long is the longest.
fn in_nanos(timeout: Option<Duration>) -> u64 {
    timeout.map_or(NO_TIMEOUT, |timeout| {
        let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        nanos.min(UNKNOWN_TIMEOUT - 1)
    })
}
