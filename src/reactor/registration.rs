//! The registration of open file descriptions with the polls of workers.
//!
//! A *source* stands for an open file description that the shims own, with all its duplicates. It is
//! registered with one poll at most: that of the worker on which a coroutine first waits for it. Waiters
//! of any worker may then wait for it, since the worker that polls wakes them all. A *watcher* is told of
//! the events of a descriptor that somebody else owns, for the time of one wait.
//!
//! # Two notes of one registration
//!
//! ```text
//! the source: registered_by + registration       the table of a poll: descriptor -> sources, watchers
//!             (poll, token, descriptor)                                (and the kernel's own list)
//!
//! register:    lock source { lock table { tell the kernel; note } note }
//! deregister:  lock source { forget }  lock table { forget; tell the kernel }  retry all waiters
//! release:     lock table { forget all }  for each: lock source { tell the kernel; forget }  retry all
//! ```
//!
//! *The locks cannot deadlock*: a thread takes the lock of a table while it holds that of a source, and
//! never the other way round.
//!
//! # No waiter is left without a registration
//!
//! A waiter checks that the source is registered, and then queues unless the source is ready. Whoever
//! undoes a registration first stores that the source is not registered. Then, as `retry_all`, it makes
//! the source ready and wakes the whole queue. If a waiter checked before that store, it finds the source
//! ready, or it is in the queue in time to be woken. It then tries its operation again, and if that would
//! block, finds the source unregistered and registers it. A registration, made or renewed, tells the
//! present state of the descriptor as an event: whatever changed in between is told then.
//!
//! # No registration outlives its descriptor
//!
//! The kernel drops a registration when the last duplicate of the descriptor is closed, and it can be
//! removed through the very number only that it was made with. So the owner of that number deregisters
//! before it closes. If the table has released the source meanwhile, but the kernel has not been told,
//! `deregister` waits for the lock of the source: the releaser tells the kernel under that lock.
//!
//! # No event reaches the wrong source
//!
//! A descriptor may be closed behind the back of its source while a duplicate exists elsewhere. Nobody
//! can remove the kernel's registration then, and its events keep coming, when the number and the row of
//! the table are already another source's. So a token holds the generation of its row, and an event of
//! an old generation is dropped.

use std::collections::HashMap;
use std::io;
use std::ops::BitOr;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::Arc;

use slab::Slab;

use crate::atomic::{AtomicU32, Mutex, Ordering, process};
use crate::task::{self, AsideGuard};

/// The rows that a table keeps room for.
const KEPT_ROWS: usize = 64;

/// What the kernel is told about the descriptors of one poll.
pub(super) trait Kernel {
    /// What to tell of.
    type Interest: Copy + BitOr<Output = Self::Interest>;

    /// All that a source wants to be told.
    const ALL: Self::Interest;

    /// Registers `fd`, edge-triggered. Its present state is told as an event.
    fn add(&self, fd: RawFd, token: Token, interest: Self::Interest) -> io::Result<()>;

    /// Changes the registration of `fd`. Its present state is told as an event, again. Returns false if
    /// what is open under that number is not registered.
    fn renew(&self, fd: RawFd, token: Token, interest: Self::Interest) -> io::Result<bool>;

    /// Removes the registration of `fd`, if there is one.
    fn remove(&self, fd: RawFd);
}

/// The poll of a worker.
pub(super) trait Poll: Sized {
    type Kernel: Kernel;
    type Source: Source<Poll = Self>;
    type Watcher: Watcher;

    fn table(&self) -> &Table<Self>;
}

/// Somebody who is told of a descriptor's events during one wait.
pub(super) trait Watcher {
    /// Has the watcher look at the descriptor.
    fn fire(&self);
}

/// Names a row of a table, in one generation of its use: the generation above, the row below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(pub(super) usize);

impl Token {
    const ROW_BITS: u32 = 32;

    fn new(generation: u32, row: usize) -> Token {
        Token((generation as usize) << Token::ROW_BITS | row)
    }

    fn row(self) -> usize {
        self.0 & ((1 << Token::ROW_BITS) - 1)
    }
}

/// What is registered with one poll.
pub(super) struct Table<P: Poll> {
    /// Locked to insert, remove and dispatch; never while waiting on the operating system.
    rows: Mutex<Rows<P>>,
}

/// The content of a [`Table`].
pub(super) struct Rows<P: Poll> {
    rows: Slab<Registered<P>>,
    /// The row of each descriptor. The kernel takes a descriptor once.
    by_fd: HashMap<RawFd, usize>,
    /// Distinguishes the successive users of a row.
    generation: u32,
    /// How many rows were removed since the last time that the table gave memory back.
    removed: usize,
    /// `None` when the worker has gone, and nobody polls any more.
    kernel: Option<P::Kernel>,
}

/// A registered descriptor, and who is told of its events.
pub(super) struct Registered<P: Poll> {
    token: Token,
    fd: RawFd,
    /// What the kernel tells.
    interest: <P::Kernel as Kernel>::Interest,
    /// Normally one; more if the same descriptor was wrapped twice.
    pub(super) sources: Vec<Arc<P::Source>>,
    pub(super) watchers: Vec<P::Watcher>,
}

impl<P: Poll> Table<P> {
    pub(super) fn new(kernel: P::Kernel) -> Table<P> {
        Table {
            rows: Mutex::new(Rows {
                rows: Slab::new(),
                by_fd: HashMap::new(),
                generation: 0,
                removed: 0,
                kernel: Some(kernel),
            }),
        }
    }

    pub(super) fn lock(&self) -> AsideGuard<'_, Rows<P>> {
        task::lock_aside(&self.rows)
    }

    /// Nobody polls any more: nothing can be registered from now on.
    pub(super) fn close(&self) {
        let kernel = self.lock().kernel.take();
        // Not under the lock: this may close a descriptor.
        drop(kernel);
    }

    /// Starts to deliver the events of `fd` to `source`, beginning with its present state. Of other
    /// sources for the same number, those without waiters are let go and returned, to be released:
    /// nobody may ever wait for them again.
    fn register(
        &self,
        fd: RawFd,
        source: Arc<P::Source>,
    ) -> io::Result<(Token, Vec<Arc<P::Source>>)> {
        let mut rows = self.lock();
        let registered = rows.registered(fd, P::Kernel::ALL)?;
        let idle = registered.take_sources(|other| !other.is_awaited());
        registered.sources.reserve_exact(1);
        registered.sources.push(source);
        Ok((registered.token, idle))
    }

    /// Stops the delivery of events to `source`. `fd` must be the descriptor that was registered, and
    /// still open. It may be closed after this, so its watchers are told to look. Sources without waiters
    /// are let go, too; all of them are returned, to be released.
    fn deregister(&self, fd: RawFd, token: Token, source: &P::Source) -> Vec<Arc<P::Source>> {
        let mut rows = self.lock();
        let Some(registered) = rows.find_mut(token) else {
            // A release may have removed the row, and not told the kernel yet.
            rows.unregister(fd);
            return Vec::new();
        };
        let removed =
            registered.take_sources(|other| ptr::eq(other, source) || !other.is_awaited());
        registered.fire_watchers();
        rows.remove_unused(token);
        removed
    }

    /// Has the kernel forget `fd`, if the table does not know it any more.
    fn unregister(&self, fd: RawFd) {
        self.lock().unregister(fd);
    }

    /// Starts to fire `watcher` at the events of `fd`, beginning with its present state.
    pub(super) fn watch(
        &self,
        fd: RawFd,
        watcher: P::Watcher,
        interest: <P::Kernel as Kernel>::Interest,
    ) -> io::Result<Token> {
        let mut rows = self.lock();
        let registered = rows.registered(fd, interest)?;
        registered.watchers.push(watcher);
        Ok(registered.token)
    }

    /// Undoes one call of `watch`, by the watcher of which `is_own` says so.
    pub(super) fn unwatch(&self, token: Token, is_own: impl Fn(&P::Watcher) -> bool) {
        let mut rows = self.lock();
        if let Some(registered) = rows.find_mut(token) {
            registered.remove_watcher(is_own);
            rows.remove_unused(token);
        }
    }

    /// Takes all sources out.
    fn take_sources(&self) -> Vec<(Token, Arc<P::Source>)> {
        self.lock().take_sources()
    }
}

impl<P: Poll> Rows<P> {
    /// The row of `token`, unless that is another generation's by now.
    pub(super) fn find(&self, token: Token) -> Option<&Registered<P>> {
        let registered = self.rows.get(token.row())?;
        (registered.token == token).then_some(registered)
    }

    fn find_mut(&mut self, token: Token) -> Option<&mut Registered<P>> {
        let registered = self.rows.get_mut(token.row())?;
        (registered.token == token).then_some(registered)
    }

    /// The registration of `fd` for at least `interest`, made or renewed, so that its present state
    /// will be told.
    fn registered(
        &mut self,
        fd: RawFd,
        interest: <P::Kernel as Kernel>::Interest,
    ) -> io::Result<&mut Registered<P>> {
        let kernel = self
            .kernel
            .as_ref()
            .ok_or_else(|| io::Error::other("the runtime of this coroutine has shut down"))?;
        if let Some(&row) = self.by_fd.get(&fd) {
            let (token, interest) = (self.rows[row].token, self.rows[row].interest | interest);
            if !kernel.renew(fd, token, interest)? {
                // The descriptor was closed behind our back and its number reused.
                self.remove(token);
                return self.registered(fd, interest);
            }
            let registered = &mut self.rows[row];
            registered.interest = interest;
            return Ok(registered);
        }
        self.generation = self.generation.wrapping_add(1) & 0x7fff_ffff;
        let vacant = self.rows.vacant_entry();
        let token = Token::new(self.generation, vacant.key());
        kernel.add(fd, token, interest)?;
        self.by_fd.insert(fd, vacant.key());
        Ok(vacant.insert(Registered {
            token,
            fd,
            interest,
            sources: Vec::new(),
            watchers: Vec::new(),
        }))
    }

    fn unregister(&self, fd: RawFd) {
        if let Some(kernel) = &self.kernel
            && !self.by_fd.contains_key(&fd)
        {
            kernel.remove(fd);
        }
    }

    /// Takes a row out, and has its watchers look for themselves.
    fn remove(&mut self, token: Token) {
        if self.find(token).is_some() {
            let removed = self.rows.remove(token.row());
            self.by_fd.remove(&removed.fd);
            removed.fire_watchers();
            self.removed += 1;
            let room = self.rows.capacity();
            if self.removed > room / 2 && room > 4 * self.rows.len() + KEPT_ROWS {
                self.shrink();
            }
        }
    }

    /// Gives the memory of a burst back. Called once for so many removals that each has cost little.
    #[cold]
    fn shrink(&mut self) {
        self.removed = 0;
        self.rows.shrink_to_fit();
        self.by_fd.shrink_to(2 * self.rows.len());
    }

    /// Undoes a registration of which nobody is told any more.
    fn remove_unused(&mut self, token: Token) {
        if let Some(registered) = self.find(token)
            && registered.is_unused()
        {
            let fd = registered.fd;
            self.remove(token);
            self.unregister(fd);
        }
    }

    fn take_sources(&mut self) -> Vec<(Token, Arc<P::Source>)> {
        let mut taken = Vec::new();
        self.rows.retain(|_, registered| {
            let token = registered.token;
            taken.extend(registered.sources.drain(..).map(|source| (token, source)));
            let watched = !registered.is_unused();
            if !watched {
                self.by_fd.remove(&registered.fd);
            }
            watched
        });
        self.rows.shrink_to_fit();
        self.by_fd.shrink_to_fit();
        taken
    }

    /// The sources of all rows.
    #[cfg(test)]
    pub(super) fn sources(&self) -> impl Iterator<Item = &Arc<P::Source>> {
        self.rows
            .iter()
            .flat_map(|(_, registered)| &registered.sources)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.by_fd.is_empty()
    }
}

impl<P: Poll> Registered<P> {
    fn fire_watchers(&self) {
        self.watchers.iter().for_each(Watcher::fire);
    }

    fn take_sources(&mut self, which: impl Fn(&P::Source) -> bool) -> Vec<Arc<P::Source>> {
        self.sources
            .extract_if(.., |source| which(source))
            .collect()
    }

    fn remove_watcher(&mut self, is_own: impl Fn(&P::Watcher) -> bool) {
        if let Some(at) = self.watchers.iter().position(is_own) {
            self.watchers.swap_remove(at);
        }
        if self.watchers.is_empty() {
            // Rows are many, and few of them are watched ever again.
            self.watchers = Vec::new();
        }
    }

    fn is_unused(&self) -> bool {
        self.sources.is_empty() && self.watchers.is_empty()
    }
}

/// The process that has registered a source, or none. Written under the lock of the source's
/// registration, read without.
///
/// In a fork of that process the registration is the parent's, and its waiters are not there: neither
/// is touched.
#[derive(Debug)]
pub(super) struct RegisteredBy(AtomicU32);

impl RegisteredBy {
    pub(super) fn new() -> RegisteredBy {
        RegisteredBy(AtomicU32::new(NO_PROCESS))
    }

    /// Whether this process has registered the source.
    #[inline]
    pub(super) fn is_this_process(&self) -> bool {
        self.0.load(Ordering::Acquire) == process::number()
    }

    /// Whether a process has registered the source that this one is a fork of.
    pub(super) fn is_a_parent(&self) -> bool {
        let by = self.0.load(Ordering::Acquire);
        by != NO_PROCESS && by != process::number()
    }

    fn set(&self, by: u32) {
        self.0.store(by, Ordering::Release);
    }
}

/// No process has this number.
const NO_PROCESS: u32 = 0;

/// Where a source is registered.
pub(super) struct Registration<P> {
    poll: Arc<P>,
    token: Token,
    /// The descriptor that it was registered with: the one that must be open to undo it.
    fd: RawFd,
}

impl<P> std::fmt::Debug for Registration<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration")
            .field("fd", &self.fd)
            .finish_non_exhaustive()
    }
}

/// An open file description that events are delivered to.
pub(super) trait Source: Sized {
    type Poll: Poll<Source = Self>;

    fn registered_by(&self) -> &RegisteredBy;

    /// Where it is registered now, if anywhere.
    fn registration(&self) -> &Mutex<Option<Registration<Self::Poll>>>;

    /// Whether anybody waits.
    fn is_awaited(&self) -> bool;

    /// Makes it ready, and wakes all waiters to try again.
    fn retry_all(&self);

    /// Registers the source with `poll` through `fd`, unless it is registered.
    ///
    /// # Errors
    ///
    /// The kernel's; or if the worker of `poll` has gone.
    fn register(self: &Arc<Self>, poll: &Arc<Self::Poll>, fd: RawFd) -> io::Result<()> {
        let mut registration = task::lock_aside(self.registration());
        if registration.is_some() {
            return Ok(());
        }
        let (token, idle) = poll.table().register(fd, Arc::clone(self))?;
        *registration = Some(Registration {
            poll: Arc::clone(poll),
            token,
            fd,
        });
        self.registered_by().set(process::number());
        drop(registration);
        for other in idle {
            other.release(poll, token);
        }
        Ok(())
    }

    /// Undoes the registration if it was made with `fd`, which is about to be closed or given away.
    /// Waiters that use another descriptor register anew with theirs.
    fn deregister(&self, fd: RawFd) {
        if !self.registered_by().is_this_process() {
            return;
        }
        let undone = {
            let mut registration = task::lock_aside(self.registration());
            let own = registration.take_if(|registration| registration.fd == fd);
            if own.is_some() {
                self.registered_by().set(NO_PROCESS);
            }
            own
        };
        if let Some(Registration { poll, token, .. }) = undone {
            // This source is among them, and has nothing left to release.
            for source in poll.table().deregister(fd, token, self) {
                source.release(&poll, token);
            }
            self.retry_all();
        }
    }

    /// Undoes the registration with `poll` under `token`, which has dropped its side of it.
    fn release(&self, poll: &Self::Poll, token: Token) {
        {
            let mut registration = task::lock_aside(self.registration());
            // By now it may be undone, and another made.
            let is_the_same = |registration: &mut Registration<Self::Poll>| {
                ptr::eq(&*registration.poll, poll) && registration.token == token
            };
            let Some(Registration { fd, .. }) = registration.take_if(is_the_same) else {
                return;
            };
            // The descriptor is still open: its owner deregisters before closing it. Either that has
            // been done already, and then there was nothing to take here; or it waits for this lock, as
            // long as the source counts as registered.
            poll.table().unregister(fd);
            self.registered_by().set(NO_PROCESS);
        }
        self.retry_all();
    }
}

/// Lets go of all sources of `poll`, which is not polled any more. Their waiters register anew, with
/// other workers. Watchers stay: their coroutines run on the worker of this poll or not at all.
pub(super) fn release_sources<P: Poll>(poll: &P) {
    for (token, source) in poll.table().take_sources() {
        source.release(poll, token);
    }
}
