//! The registration of open file descriptions with the polls of workers.
//!
//! A *source* is an open file description that the shims own. All its duplicates share it. It is
//! registered with at most one poll, that of the worker on which a coroutine first waits for it.
//! Coroutines of any worker may then wait for it: the worker that polls wakes them. A *watcher* is told
//! of the events of a descriptor that somebody else owns, during one wait.
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
//! *The locks cannot deadlock.* A thread may take the lock of a table while it holds the lock of a
//! source, but not the other way round.
//!
//! # No waiter is left without a registration
//!
//! A waiter checks that the source is registered, and then queues unless the source is ready. Whoever
//! undoes a registration first stores that the source is not registered, and then calls `retry_all`,
//! which makes the source ready and wakes the whole queue. A waiter that checked before that store
//! either finds the source ready, or is in the queue in time to be woken. It tries its operation again.
//! If that would block, it finds the source unregistered and registers it. A registration, new or
//! renewed, reports the present state of the descriptor as an event. So a change in the meantime is
//! reported then.
//!
//! # No registration outlives its descriptor
//!
//! The kernel drops a registration by itself only when the last duplicate of the descriptor is closed.
//! Before that, it can be removed only through the number that it was made with. So the owner of that
//! number deregisters before closing it. If another thread is releasing the source at that time, it has
//! emptied the table, but perhaps not told the kernel. It does that under the lock of the source, and
//! only then stores that the source is not registered. So `deregister` waits for it.
//!
//! # No event reaches the wrong source
//!
//! A program may close a descriptor behind the back of its source, while a duplicate exists elsewhere.
//! Nobody can remove the kernel's registration then. Its events keep coming, even when the number, and
//! the row of the table, belong to another source. So a token contains the generation of its row, and
//! events of an old generation are dropped.
#![forbid(unsafe_code)]

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

/// The kernel's side of one poll.
pub(super) trait Kernel {
    /// A set of events to report.
    type Interest: Copy + BitOr<Output = Self::Interest>;

    /// The events that a source needs.
    const ALL: Self::Interest;

    /// Registers `fd`, edge-triggered. Its present state is reported as an event. Replaces a registration that the
    /// table does not know: of a file that was closed under this number behind our back, and is there again.
    fn add(&self, fd: RawFd, token: Token, interest: Self::Interest) -> io::Result<()>;

    /// Changes the registration of `fd`. Its present state is reported as an event, again. Returns
    /// false if the file that is now open under that number is not registered.
    fn renew(&self, fd: RawFd, token: Token, interest: Self::Interest) -> io::Result<bool>;

    /// Removes the registration of `fd`, if there is one.
    fn remove(&self, fd: RawFd);
}

/// The poll of a worker, with which sources are registered.
pub(super) trait Registrar: Sized {
    type Kernel: Kernel;
    type Source: Registrable<Registrar = Self>;
    type Watcher: Watcher;

    fn table(&self) -> &RegistrationTable<Self>;
}

/// A wait that is told of a descriptor's events.
pub(super) trait Watcher {
    /// Wakes the waiter to look at the descriptor.
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
pub(super) struct RegistrationTable<R: Registrar> {
    /// Locked to insert, remove and dispatch; never while waiting on the operating system.
    rows: Mutex<Rows<R>>,
}

/// The content of a [`RegistrationTable`].
pub(super) struct Rows<R: Registrar> {
    rows: Slab<RegisteredDescriptor<R>>,
    /// The row of each descriptor. The kernel takes a descriptor once.
    by_fd: HashMap<RawFd, usize>,
    /// The generation of the row that was made last.
    generation: u32,
    /// How many rows were removed since the last time that the table gave memory back.
    removed: usize,
    /// `None` when the worker has gone, and nobody polls any more.
    kernel: Option<R::Kernel>,
}

/// A registered descriptor, and its sources and watchers.
pub(super) struct RegisteredDescriptor<R: Registrar> {
    token: Token,
    fd: RawFd,
    /// The events that the kernel reports.
    interest: <R::Kernel as Kernel>::Interest,
    /// Normally one; more if the same descriptor was wrapped twice.
    pub(super) sources: Vec<Arc<R::Source>>,
    pub(super) watchers: Vec<R::Watcher>,
}

impl<R: Registrar> RegistrationTable<R> {
    pub(super) fn new(kernel: R::Kernel) -> RegistrationTable<R> {
        RegistrationTable {
            rows: Mutex::new(Rows {
                rows: Slab::new(),
                by_fd: HashMap::new(),
                generation: 0,
                removed: 0,
                kernel: Some(kernel),
            }),
        }
    }

    pub(super) fn lock(&self) -> AsideGuard<'_, Rows<R>> {
        task::lock_aside(&self.rows)
    }

    /// Notes that nobody polls any more. Nothing can be registered from now on.
    pub(super) fn close(&self) {
        let kernel = self.lock().kernel.take();
        // Not under the lock: this may close a descriptor.
        drop(kernel);
    }

    /// Delivers the events of `fd` to `source` from now on. The present state is the first event.
    ///
    /// Other sources of the same descriptor that have no waiters are removed and returned. The caller
    /// must release them. They may never have waiters again: some programs wrap a descriptor anew for
    /// each call.
    fn register(
        &self,
        fd: RawFd,
        source: Arc<R::Source>,
    ) -> io::Result<(Token, Vec<Arc<R::Source>>)> {
        let mut rows = self.lock();
        let registered = rows.registered(fd, R::Kernel::ALL)?;
        let idle = registered.take_sources(|other| !other.is_awaited());
        registered.sources.reserve_exact(1);
        registered.sources.push(source);
        Ok((registered.token, idle))
    }

    /// Stops the delivery of events to `source`. `fd` must be the descriptor that was registered, and
    /// must still be open.
    ///
    /// The caller may close it afterwards, so its watchers are told to look. Sources without waiters
    /// are removed, too. The caller must release all sources that are returned.
    fn deregister(&self, fd: RawFd, token: Token, source: &R::Source) -> Vec<Arc<R::Source>> {
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

    /// Removes the kernel's registration of `fd`, if the table has none.
    fn unregister(&self, fd: RawFd) {
        self.lock().unregister(fd);
    }

    /// Fires `watcher` at the events of `fd` from now on. The present state is the first event.
    pub(super) fn watch(
        &self,
        fd: RawFd,
        watcher: R::Watcher,
        interest: <R::Kernel as Kernel>::Interest,
    ) -> io::Result<Token> {
        let mut rows = self.lock();
        let registered = rows.registered(fd, interest)?;
        registered.watchers.push(watcher);
        Ok(registered.token)
    }

    /// Undoes one call of `watch`: removes the watcher for which `is_own` returns true.
    pub(super) fn unwatch(&self, token: Token, is_own: impl Fn(&R::Watcher) -> bool) {
        let mut rows = self.lock();
        rows.remove_watcher(token, is_own);
        rows.remove_unused(token);
    }

    /// Like `unwatch`, but keeps the registration.
    pub(super) fn end_watch(&self, token: Token, is_own: impl Fn(&R::Watcher) -> bool) {
        self.lock().remove_watcher(token, is_own);
    }

    /// Calls `close` for each watcher of `fd`, which is about to be closed. Undoes the registration, unless
    /// it has sources: they are deregistered by their owners.
    pub(super) fn close_watched(&self, fd: RawFd, close: impl Fn(&R::Watcher)) {
        let mut rows = self.lock();
        let Some(&row) = rows.by_fd.get(&fd) else {
            return;
        };
        let registered = &mut rows.rows[row];
        registered
            .watchers
            .drain(..)
            .for_each(|watcher| close(&watcher));
        let token = registered.token;
        rows.remove_unused(token);
    }

    /// Has the watchers of `fd` look.
    pub(super) fn fire_watched(&self, fd: RawFd) {
        let rows = self.lock();
        if let Some(&row) = rows.by_fd.get(&fd) {
            rows.rows[row].fire_watchers();
        }
    }

    /// Removes all sources, and returns them.
    fn take_sources(&self) -> Vec<(Token, Arc<R::Source>)> {
        self.lock().take_sources()
    }
}

impl<R: Registrar> Rows<R> {
    /// The row of `token`, unless the row belongs to another generation.
    pub(super) fn find(&self, token: Token) -> Option<&RegisteredDescriptor<R>> {
        let registered = self.rows.get(token.row())?;
        (registered.token == token).then_some(registered)
    }

    fn find_mut(&mut self, token: Token) -> Option<&mut RegisteredDescriptor<R>> {
        let registered = self.rows.get_mut(token.row())?;
        (registered.token == token).then_some(registered)
    }

    /// Registers `fd` for at least `interest`, or renews its registration, so that its present state
    /// will be reported.
    fn registered(
        &mut self,
        fd: RawFd,
        interest: <R::Kernel as Kernel>::Interest,
    ) -> io::Result<&mut RegisteredDescriptor<R>> {
        let kernel = self
            .kernel
            .as_ref()
            .ok_or_else(|| io::Error::other("the runtime of this coroutine has shut down"))?;
        if let Some(&row) = self.by_fd.get(&fd) {
            let registered = &self.rows[row];
            let token = registered.token;
            // Nothing else waits for the events of a registration that was only kept.
            let interest = match registered.is_unused() {
                true => interest,
                false => registered.interest | interest,
            };
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
        Ok(vacant.insert(RegisteredDescriptor {
            token,
            fd,
            interest,
            sources: Vec::new(),
            watchers: Vec::new(),
        }))
    }

    fn remove_watcher(&mut self, token: Token, is_own: impl Fn(&R::Watcher) -> bool) {
        if let Some(registered) = self.find_mut(token) {
            registered.remove_watcher(is_own);
        }
    }

    fn unregister(&self, fd: RawFd) {
        if let Some(kernel) = &self.kernel
            && !self.by_fd.contains_key(&fd)
        {
            kernel.remove(fd);
        }
    }

    /// Removes a row. Its watchers are told to look.
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

    /// Gives back the memory of a burst. Called once per many removals, so that it costs each of them
    /// little.
    #[cold]
    fn shrink(&mut self) {
        self.removed = 0;
        self.rows.shrink_to_fit();
        self.by_fd.shrink_to(2 * self.rows.len());
    }

    /// Undoes a registration that has no sources and no watchers.
    fn remove_unused(&mut self, token: Token) {
        if let Some(registered) = self.find(token)
            && registered.is_unused()
        {
            let fd = registered.fd;
            self.remove(token);
            self.unregister(fd);
        }
    }

    fn take_sources(&mut self) -> Vec<(Token, Arc<R::Source>)> {
        let mut taken = Vec::new();
        self.rows.retain(|_, registered| {
            let token = registered.token;
            let was_kept = registered.is_unused();
            taken.extend(registered.sources.drain(..).map(|source| (token, source)));
            let watched = !registered.is_unused();
            if !watched {
                self.by_fd.remove(&registered.fd);
            }
            if was_kept && let Some(kernel) = &self.kernel {
                kernel.remove(registered.fd);
            }
            watched
        });
        self.rows.shrink_to_fit();
        self.by_fd.shrink_to_fit();
        taken
    }

    /// The sources of all rows.
    #[cfg(test)]
    pub(super) fn sources(&self) -> impl Iterator<Item = &Arc<R::Source>> {
        self.rows
            .iter()
            .flat_map(|(_, registered)| &registered.sources)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.by_fd.is_empty()
    }
}

impl<R: Registrar> RegisteredDescriptor<R> {
    fn fire_watchers(&self) {
        self.watchers.iter().for_each(Watcher::fire);
    }

    fn take_sources(&mut self, which: impl Fn(&R::Source) -> bool) -> Vec<Arc<R::Source>> {
        self.sources
            .extract_if(.., |source| which(source))
            .collect()
    }

    fn remove_watcher(&mut self, is_own: impl Fn(&R::Watcher) -> bool) {
        if let Some(at) = self.watchers.iter().position(is_own) {
            self.watchers.swap_remove(at);
        }
        if self.watchers.is_empty() {
            // Rows are many, and few of them will be watched again.
            self.watchers = Vec::new();
        }
    }

    fn is_unused(&self) -> bool {
        self.sources.is_empty() && self.watchers.is_empty()
    }
}

/// The process that has registered a source, or none. Written under the lock of the source's
/// registration, and read without.
///
/// In a fork of that process, the registration belongs to the parent, and the waiters do not exist.
/// Neither may be touched.
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

    /// Whether the source was registered by a process that this process is a fork of.
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
pub(super) struct Registration<R> {
    registrar: Arc<R>,
    token: Token,
    /// The descriptor that it was registered with. Only through this one can the registration be
    /// undone.
    fd: RawFd,
}

impl<R> std::fmt::Debug for Registration<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration")
            .field("fd", &self.fd)
            .finish_non_exhaustive()
    }
}

/// An open file description that receives events.
pub(super) trait Registrable: Sized {
    type Registrar: Registrar<Source = Self>;

    fn registered_by(&self) -> &RegisteredBy;

    /// Where the source is registered, if anywhere.
    fn registration(&self) -> &Mutex<Option<Registration<Self::Registrar>>>;

    /// Whether the source has waiters.
    fn is_awaited(&self) -> bool;

    /// Makes the source ready, and wakes all its waiters to try again.
    fn retry_all(&self);

    /// Registers the source with `registrar` through `fd`, unless it is registered.
    ///
    /// # Errors
    ///
    /// The kernel's, or one that says that the worker of `registrar` has gone.
    fn register(self: &Arc<Self>, registrar: &Arc<Self::Registrar>, fd: RawFd) -> io::Result<()> {
        let mut registration = task::lock_aside(self.registration());
        if registration.is_some() {
            return Ok(());
        }
        let (token, idle) = registrar.table().register(fd, Arc::clone(self))?;
        *registration = Some(Registration {
            registrar: Arc::clone(registrar),
            token,
            fd,
        });
        self.registered_by().set(process::number());
        drop(registration);
        for other in idle {
            other.release(registrar, token);
        }
        Ok(())
    }

    /// Undoes the registration if it was made with `fd`, which is about to be closed or given away.
    /// Waiters that use a duplicate register again, with that.
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
        if let Some(Registration {
            registrar, token, ..
        }) = undone
        {
            // One of them is this source, whose registration is undone already.
            for source in registrar.table().deregister(fd, token, self) {
                source.release(&registrar, token);
            }
            self.retry_all();
        }
    }

    /// Undoes the registration with `registrar` under `token`, after it was removed from the table.
    fn release(&self, registrar: &Self::Registrar, token: Token) {
        {
            let mut registration = task::lock_aside(self.registration());
            // It may have been undone in the meantime, and another one made.
            let is_the_same = |registration: &mut Registration<Self::Registrar>| {
                ptr::eq(&*registration.registrar, registrar) && registration.token == token
            };
            let Some(Registration { fd, .. }) = registration.take_if(is_the_same) else {
                return;
            };
            // The descriptor is still open. Its owner deregisters before closing it. If that had
            // happened already, there would have been nothing to take here. If it happens now, it waits
            // for the lock that we hold, since the source still counts as registered.
            registrar.table().unregister(fd);
            self.registered_by().set(NO_PROCESS);
        }
        self.retry_all();
    }
}

/// Releases all sources of `registrar`, which is not polled any more. Their waiters register again,
/// with other workers. Watchers stay: their coroutines run on the worker of this poll or not at all.
pub(super) fn release_sources<R: Registrar>(registrar: &R) {
    for (token, source) in registrar.table().take_sources() {
        source.release(registrar, token);
    }
}
