//! Groups of coroutines, and pools of what coroutines share.
//!
//! A group is a list of members, as a scope has one, and a `room` of limited places.

mod imap;
pub(crate) mod resource_pool;
mod room;

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::runtime::default_runtime::with_current_or_default;
use crate::runtime::join::{Failure, PacketGuard, join_all};
use crate::runtime::members::{Member, Members, Panics};
use crate::runtime::scope::{Scope, ScopedJoinHandle, scope};
use crate::runtime::spawn::Builder;
use crate::task::word::Kind;
use crate::task::{Deadline, Task, TaskRef};
use crate::worker::Worker;
use room::{Place, Room};

pub use imap::{Imap, ImapUnordered};

/// Coroutines that are limited in number, waited for, and cancelled together.
///
/// Like gevent's `Pool` and `Group`. [`bounded`](Group::bounded) limits how many run at the same time:
/// [`spawn`](Group::spawn) waits for room. A group has no coroutines or threads of its own.
///
/// ```
/// use greenroom::Group;
///
/// let group = Group::bounded(10); // at most 10 at the same time
/// let lengths = group.map(["one", "three"], |word| word.len());
/// let lengths: Vec<_> = lengths.into_iter().map(Result::unwrap).collect();
/// assert_eq!(lengths, [3, 5]);
///
/// for _ in 0..100 {
///     group.spawn(|| "serve one connection");
/// }
/// group.join().unwrap();
/// ```
///
/// A group can be used from coroutines and OS threads. To share it, put it into an [`Arc`]. A member that waits
/// for room in its own group waits until another member ends. If all members do that, none ever will.
///
/// # Results and failures
///
/// [`spawn`](Group::spawn) returns a handle, which joins like any other. A member whose handle was dropped is
/// only waited for by the group. If such a member panics, the next [`join`](Group::join) of the group
/// returns the first such panic as an error.
///
/// # The end of a group
///
/// Dropping a group cancels its members, and does not wait for them. A group owns its members: if the code
/// that has made the group fails or unwinds, they should not run on unnoticed. (The drop does not wait,
/// because it may happen in an unwind.) Call [`join`](Group::join) before, or
/// [`detach`](Group::detach) to leave the members running.
pub struct Group {
    members: Arc<Members>,
    room: Arc<Room>,
    /// The group was detached, so that its drop does not cancel the members.
    detached: bool,
}

impl Group {
    /// A group without a limit.
    #[must_use]
    pub fn new() -> Group {
        Group::of(usize::MAX)
    }

    /// A group of which at most `limit` members run at the same time.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    #[must_use]
    #[track_caller]
    pub fn bounded(limit: usize) -> Group {
        assert!(limit > 0, "a group of no coroutines at all");
        Group::of(limit)
    }

    fn of(limit: usize) -> Group {
        Group {
            members: Arc::new(Members::new(Panics::Kept)),
            room: Room::new(limit),
            detached: false,
        }
    }

    /// Spawns a member. Waits until there is room for it. Those that wait are served in the order in which
    /// they came.
    ///
    /// ```
    /// let group = greenroom::Group::bounded(2);
    /// let answer = group.spawn(|| 42);
    /// assert_eq!(answer.join().unwrap(), 42);
    /// ```
    ///
    /// # Panics
    ///
    /// If there is no stack for the coroutine, or if the default runtime cannot be started. Use
    /// [`Builder::spawn_in_group`] to get an error instead.
    ///
    /// # Unwinding
    ///
    /// An interruption point, if there is no room.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> ScopedJoinHandle<'static, T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.reserve().spawn(f)
    }

    /// Spawns a member, if there is room for it.
    ///
    /// # Errors
    ///
    /// [`Full`], which gives `f` back, if there is no room.
    ///
    /// # Panics
    ///
    /// As [`spawn`](Group::spawn).
    #[track_caller]
    pub fn try_spawn<F, T>(&self, f: F) -> Result<ScopedJoinHandle<'static, T>, Full<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match self.try_reserve() {
            Some(room) => Ok(room.spawn(f)),
            None => Err(Full(f)),
        }
    }

    /// Spawns a member that is a coroutine of `scope`, too, and may borrow as such. Waits until there is room
    /// for it.
    ///
    /// The scope waits for the member, and is told if it panics.
    ///
    /// ```
    /// let words = ["one", "three"];
    /// let group = greenroom::Group::bounded(1); // one after the other
    /// greenroom::scope(|s| {
    ///     let lengths = words.each_ref().map(|word| group.spawn_scoped(s, || word.len()));
    ///     assert_eq!(lengths.map(|length| length.join().unwrap()), [3, 5]);
    /// });
    /// ```
    ///
    /// # Panics
    ///
    /// As [`spawn`](Group::spawn).
    ///
    /// # Unwinding
    ///
    /// An interruption point, if there is no room.
    #[track_caller]
    pub fn spawn_scoped<'scope, F, T>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        f: F,
    ) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        self.reserve().spawn_scoped(scope, f)
    }

    /// Waits until there is room, and keeps it for a member that is spawned later. Dropping it gives the room
    /// back.
    ///
    /// For a server that accepts a connection only if it can serve it:
    ///
    /// ```
    /// use greenroom::Group;
    /// use greenroom::shims::net::TcpListener;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let listener = TcpListener::bind("127.0.0.1:0")?;
    /// # let client = greenroom::shims::net::TcpStream::connect(listener.local_addr()?)?;
    /// let group = Group::bounded(100);
    /// # for _ in 0..1 {
    /// let room = group.reserve();
    /// let (stream, _) = listener.accept()?;
    /// room.spawn(move || drop(stream));
    /// # }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Unwinding
    ///
    /// An interruption point, if there is no room.
    pub fn reserve(&self) -> Reserved<'_> {
        let place = self.room.enter();
        Reserved { group: self, place }
    }

    /// Like [`reserve`](Group::reserve), without waiting. `None` if the group is full.
    pub fn try_reserve(&self) -> Option<Reserved<'_>> {
        let place = self.room.try_enter()?;
        Some(Reserved { group: self, place })
    }

    /// Calls `f` with each item, in a member of its own, and returns the results in the order of the items.
    /// Waits for room, and until all have ended.
    ///
    /// `f` may borrow from the caller. A panic of one call is its result, and does not end the others.
    ///
    /// # Unwinding
    ///
    /// An interruption point. The members that this call has spawned are then cancelled, and have ended when
    /// the caller unwinds.
    #[track_caller]
    pub fn map<I, F, T>(&self, items: I, f: F) -> Vec<std::thread::Result<T>>
    where
        I: IntoIterator,
        I::Item: Send,
        F: Fn(I::Item) -> T + Sync,
        T: Send,
    {
        let f = &f;
        scope(|s| {
            let spawn = |item| self.spawn_scoped(s, move || f(item));
            join_all(items.into_iter().map(spawn))
        })
    }

    /// Like [`map`](Group::map), as an iterator: it takes items while it is asked for results.
    ///
    /// At most as many items as the group has room for are under way or wait to be asked for. (All of them,
    /// if the group has no limit.) A result is an error if its call has panicked or was cancelled. Dropping
    /// the iterator cancels the calls that are under way.
    ///
    /// ```
    /// let group = greenroom::Group::bounded(4);
    /// let squares = group.imap(1.., |n: u32| n * n);
    /// let first: Vec<_> = squares.take(3).map(Result::unwrap).collect();
    /// assert_eq!(first, [1, 4, 9]);
    /// ```
    ///
    /// # Panics
    ///
    /// `next` panics as [`spawn`](Group::spawn) does. The item is then left for the next call of `next`.
    ///
    /// # Unwinding
    ///
    /// `next` is an interruption point.
    pub fn imap<I, F, T>(&self, items: I, f: F) -> Imap<'_, I::IntoIter, F, T>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        Imap::new(self, items.into_iter(), f)
    }

    /// Like [`imap`](Group::imap), with the results in the order in which the calls end.
    ///
    /// ```
    /// use greenroom::shims::thread::sleep;
    /// use std::time::Duration;
    ///
    /// let group = greenroom::Group::new();
    /// let slept = group.imap_unordered([60_000, 5], |millis| {
    ///     sleep(Duration::from_millis(millis));
    ///     millis
    /// });
    /// assert_eq!(slept.map(Result::unwrap).next(), Some(5)); // the other one is cancelled
    /// ```
    ///
    /// # Panics
    ///
    /// `next` panics as [`spawn`](Group::spawn) does. The item is then left for the next call of `next`.
    ///
    /// # Unwinding
    ///
    /// `next` is an interruption point.
    pub fn imap_unordered<I, F, T>(&self, items: I, f: F) -> ImapUnordered<'_, I::IntoIter, F, T>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        ImapUnordered::new(self, items.into_iter(), f)
    }

    /// Waits until all members have ended, those that are spawned meanwhile included.
    ///
    /// # Errors
    ///
    /// The payload of the first member that has panicked and was not joined. It is returned once.
    ///
    /// # Panics
    ///
    /// If the caller is a member.
    ///
    /// # Unwinding
    ///
    /// An interruption point. The members run on.
    pub fn join(&self) -> std::thread::Result<()> {
        self.wait(None);
        self.take_failure()
    }

    /// Like [`join`](Group::join), for `timeout` at most. `None` if members are left then.
    ///
    /// # Panics
    ///
    /// If the caller is a member.
    ///
    /// # Unwinding
    ///
    /// An interruption point. The members run on.
    pub fn join_timeout(&self, timeout: Duration) -> Option<std::thread::Result<()>> {
        self.wait(Deadline::after(timeout))
            .then(|| self.take_failure())
    }

    /// Cancels all members. See [`JoinHandle::cancel`](crate::JoinHandle::cancel). The group can be used
    /// further.
    pub fn cancel(&self) {
        self.members.cancel_current();
    }

    /// Cancels all members, and waits until they have ended, for `timeout` at most. Returns whether they
    /// have.
    ///
    /// Members that are spawned during the call are cancelled, too. The group can be used further.
    ///
    /// # Panics
    ///
    /// If the caller is a member.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn cancel_wait(&self, timeout: Duration) -> bool {
        self.refuse_member();
        let _cancelling = self.members.cancel_for_a_time();
        self.wait(Deadline::after(timeout))
    }

    /// Leaves the members running without their group.
    pub fn detach(mut self) {
        self.detached = true;
    }

    /// The number of members that have not ended. One that has just been joined may still count.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.running()
    }

    /// Whether all members have ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is no room, so that [`spawn`](Group::spawn) would wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room.is_full()
    }

    /// How many members may run at the same time. `None` for any number.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        Some(self.room.limit()).filter(|limit| *limit < usize::MAX)
    }

    /// Waits until all members have ended, or until `deadline`. Returns whether they have.
    fn wait(&self, deadline: Option<Deadline>) -> bool {
        if !self.members.is_idle() {
            self.refuse_member();
            Worker::refuse_to_wait_alone_for("the end of a group's coroutines");
        }
        self.members.wait(Kind::Peer, deadline)
    }

    /// Whether the caller is a member.
    pub(crate) fn includes_caller(&self) -> bool {
        self.members.include_caller()
    }

    fn refuse_member(&self) {
        assert!(
            !self.includes_caller(),
            "a member that waits for the end of its group waits for ever"
        );
    }

    fn take_failure(&self) -> Result<(), Box<dyn Any + Send>> {
        self.members.take_panic().map_or(Ok(()), Err)
    }
}

impl Default for Group {
    fn default() -> Group {
        Group::new()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.detached {
            self.members.cancel_current();
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("len", &self.len())
            .field("limit", &self.limit())
            .finish_non_exhaustive()
    }
}

/// A [`Group`] has no room for one more member. Contains what was to be run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Full<F>(pub F);

impl<F> fmt::Debug for Full<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Full").finish_non_exhaustive()
    }
}

impl<F> fmt::Display for Full<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the group is full")
    }
}

impl<F> std::error::Error for Full<F> {}

/// Room for one member of a [`Group`]. See [`Group::reserve`].
#[derive(Debug)]
#[must_use = "dropping it gives the room back"]
pub struct Reserved<'a> {
    group: &'a Group,
    place: Place,
}

impl Reserved<'_> {
    /// Spawns the member.
    ///
    /// # Panics
    ///
    /// As [`Group::spawn`].
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> ScopedJoinHandle<'static, T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.spawn_with(Builder::new(), f)
            .expect("failed to spawn a coroutine")
    }

    /// Spawns the member as a coroutine of `scope`. See [`Group::spawn_scoped`].
    ///
    /// # Panics
    ///
    /// As [`Group::spawn`].
    #[track_caller]
    pub fn spawn_scoped<'scope, F, T>(
        self,
        scope: &'scope Scope<'scope, '_>,
        f: F,
    ) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let site = Location::caller();
        let handle = with_current_or_default(|scheduler| {
            let member = self.into_member();
            let both = ScopedMember {
                group: member,
                scope: Member::of(scope.members()),
            };
            let (group_entry, scope_entry) = (both.group.member.entry(), both.scope.entry());
            let group = Arc::clone(both.group.member.members());
            let enlist = |task: &TaskRef| {
                group.enlist(group_entry, task);
                scope.members().enlist(scope_entry, task);
            };
            // SAFETY: `f` and `T` live for `'scope`. The guard contains a member of the scope, and the scope
            // does not end before the guard was dropped. The handle cannot outlive `'scope` either, by its
            // type.
            unsafe { Builder::new().spawn_enlisted(scheduler, site, f, both, enlist) }
        });
        let handle = handle.expect("failed to spawn a coroutine");
        ScopedJoinHandle::new(handle, scope.members())
    }

    /// Spawns the member with the settings of `builder`.
    ///
    /// # Errors
    ///
    /// Those of [`Builder::spawn`].
    #[track_caller]
    pub(crate) fn spawn_with<F, T>(
        self,
        builder: Builder,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'static, T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let site = Location::caller();
        let members = Arc::clone(&self.group.members);
        let handle = with_current_or_default(|scheduler| {
            let member = self.into_member();
            let entry = member.member.entry();
            let enlist = |task: &TaskRef| members.enlist(entry, task);
            // SAFETY: `f` and `T` are `'static`, so what they borrow stays.
            unsafe { builder.spawn_enlisted(scheduler, site, f, member, enlist) }
        })?;
        Ok(ScopedJoinHandle::new(handle, &members))
    }

    fn into_member(self) -> GroupMember {
        GroupMember {
            member: Member::of(&self.group.members),
            place: self.place,
        }
    }
}

impl Builder {
    /// Spawns a member of `group` with these settings. Waits until there is room for it. See
    /// [`Group::spawn`].
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Builder::spawn).
    ///
    /// # Unwinding
    ///
    /// An interruption point, if there is no room.
    #[track_caller]
    pub fn spawn_in_group<F, T>(
        self,
        group: &Group,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'static, T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        group.reserve().spawn_with(self, f)
    }
}

/// Held by each member until it has ended. The place is given back last.
struct GroupMember {
    member: Member,
    #[expect(dead_code, reason = "its drop gives the place back")]
    place: Place,
}

impl PacketGuard for GroupMember {
    fn unjoined(&self, failure: Failure, task: &Task) {
        self.member.unjoined(failure, task);
    }
}

/// Held by a member that is a coroutine of a scope, too. The scope is told last, so that none of its coroutines
/// counts as a member when it has ended.
struct ScopedMember {
    group: GroupMember,
    scope: Member,
}

impl PacketGuard for ScopedMember {
    fn unjoined(&self, failure: Failure, task: &Task) {
        self.scope.unjoined(failure, task);
    }
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Group>();
    send_and_sync::<Reserved<'_>>();
};
