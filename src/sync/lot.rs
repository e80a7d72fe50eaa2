//! One bucket of the parking lot: the waiters of each address, in the order in which to wake them.
//!
//! ```text
//!   Bucket (a mutex)         the waiters of one address, grouped by owner
//!     root ──▶ a ──▶ a ──▶ a        the first row: leaders, linked by `next_leader`
//!             / \     ╲     ╲
//!            b   c     a     a      below each leader: its followers, linked by `next`, oldest first
//! ```
//!
//! All nodes lie on the waiters' stacks, so waiting allocates nothing.
//!
//! The *owner* of a waiter is the worker that runs it; all OS threads count as one owner. The
//! *leader* is the waiter of its owner that is to be woken first; the others of the same owner are
//! its *followers*. An owner that computes runs none of its waiters, so a waker sometimes needs a
//! waiter of another owner. Each waiter has an arrival number, and the leader with the lowest number
//! is the first in line. Finding that one takes as many steps as the address has owners, however
//! many waiters there are. Usually all waiters have one owner: then the leader is the head of a plain
//! list, and nothing is compared.
//!
//! The *root* of an address is one of its leaders, and a node of a tree keyed by address. The tree is
//! a digital search tree: at each level one bit of the key chooses the child. The key is the address,
//! well mixed. So the tree needs no balancing, it is never deeper than a key has bits, and any leaf
//! below a node can take that node's place.
//!
//! # No wake-up is lost
//!
//! ```text
//! waiter: lock ; look at the word ; begin a wait, queue ; unlock ; suspend
//! waker:  change the word ; lock ; take the first node, end its wait ; unlock ; schedule it
//! ```
//!
//! If the waiter has the lock first, the waker finds it queued. If the waker has the lock first, the
//! waiter looks at the word after the change, and does not wait.
//!
//! A wait can also end by a deadline. One compare-and-swap decides between the deadline and the waker
//! (`task/word.rs`). A waker that loses takes the next node, so each wake-up goes to a waiter that it
//! really wakes. A waiter that was woken from here is out of the queue already. A waiter that timed
//! out takes the lock and unlinks its own node.
//!
//! # How long a node may be used
//!
//! While a node is linked, the holder of the lock may use it: the waiter cannot return before it has
//! taken the lock to unlink the node. After a waker has ended the wait, that waker may use the node
//! until it schedules the waiter: the waiter does not run before that.

use std::cell::Cell;
use std::ptr;

use crate::atomic::{Mutex, MutexGuard, own_lock};

/// A wait that has begun, and that others can end.
pub(super) trait LotWaiter: Copy {
    /// Ends the wait, unless it has ended otherwise. Returns whether this call ended it; then the
    /// caller must schedule the waiter.
    ///
    /// # Safety
    ///
    /// The waiter has not left the frame in which it waits, and does not before this returns.
    unsafe fn end(self) -> bool;

    /// Whether the waiter would run as soon as it is scheduled, as far as can be seen: its owner has
    /// nothing else to run.
    ///
    /// # Safety
    ///
    /// The caller has ended the wait, and has not scheduled the waiter yet.
    unsafe fn runs_at_once(self) -> bool;

    /// Makes the waiter run again.
    ///
    /// # Safety
    ///
    /// The caller has ended the wait, and calls this once.
    unsafe fn schedule(self);
}

type LotLink<W> = Cell<*const LotNode<W>>;

/// One waiter at an address. It lies on the waiter's stack.
///
/// Only the holder of the bucket's lock uses it, except for the fields that never change. The module
/// docs say for how long.
pub(super) struct LotNode<W> {
    key: LotKey,
    waiter: Cell<Option<W>>,
    /// The position in the line of the address: lower numbers are woken first.
    arrival: Cell<i64>,
    /// The follower after this node; null for the last one. While the node is in a [`WokenNodes`] list:
    /// the next node there.
    next: LotLink<W>,
    /// In a follower: the node before it. In a leader: the last follower, or the leader itself if it
    /// has none. Null while the node is not queued.
    prev: LotLink<W>,
    /// A number that the waiter chose, for its waker to read.
    note: u32,
    /// The worker that runs the waiter; zero for OS threads.
    owner: u32,
    /// In a leader: another leader at the same address. Null in a follower.
    next_leader: LotLink<W>,
    /// In a root: the subtrees below it. Null in all others.
    children: [LotLink<W>; 2],
    /// What the waker tells the waiter.
    token: Cell<u32>,
    /// A waker has ended the wait by this node.
    is_woken: Cell<bool>,
}

impl<W> LotNode<W> {
    pub(super) fn new(key: LotKey, note: u32, owner: u32) -> LotNode<W> {
        LotNode {
            key,
            waiter: Cell::new(None),
            arrival: Cell::new(0),
            next: Cell::new(ptr::null()),
            prev: Cell::new(ptr::null()),
            note,
            owner,
            next_leader: Cell::new(ptr::null()),
            children: [const { Cell::new(ptr::null()) }; 2],
            token: Cell::new(0),
            is_woken: Cell::new(false),
        }
    }

    /// Whether a waker has ended the wait by this node. For the waiter, after the wait has ended.
    pub(super) fn is_woken(&self) -> bool {
        self.is_woken.get()
    }

    /// What the waker told the waiter. For the waiter, after it was woken.
    pub(super) fn token(&self) -> u32 {
        self.token.get()
    }

    fn is_queued(&self) -> bool {
        !self.prev.get().is_null()
    }

    /// Takes over from `leader` its place among the leaders, and in the tree if it is the root.
    fn replace_leader(&self, leader: &LotNode<W>) {
        self.next_leader
            .set(leader.next_leader.replace(ptr::null()));
        self.take_children_of(leader);
    }

    /// Takes over the subtrees below `root`. If that is not a root, there are none.
    fn take_children_of(&self, root: &LotNode<W>) {
        for (own, others) in self.children.iter().zip(&root.children) {
            own.set(others.replace(ptr::null()));
        }
    }
}

/// An address, mixed so that its upper bits depend on all of its bits. Different addresses have
/// different keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LotKey(u64);

impl LotKey {
    pub(super) fn of<T>(address: *const T) -> LotKey {
        // 2^64 divided by the golden ratio. It is odd, so multiplying by it loses nothing.
        LotKey((address.addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The index of the bucket, out of `2^BUCKET_BITS`.
    pub(super) fn bucket(self) -> usize {
        (self.0 >> (u64::BITS - BUCKET_BITS)) as usize
    }

    /// The bits that choose the children in the tree of a bucket, the highest bit first.
    fn turns(self) -> u64 {
        self.0 << BUCKET_BITS
    }
}

/// How many bits of a key choose the bucket.
pub(super) const BUCKET_BITS: u32 = 8;

pub(super) struct Bucket<W>(Mutex<BucketState<W>>);

/// What the lock of a bucket guards.
pub(super) struct BucketState<W> {
    /// The top of the tree of addresses.
    root: LotLink<W>,
    /// The arrival numbers that were given out: `front` and above, below `back`. All addresses of the
    /// bucket share them, since only the order within an address matters. They are too many to overflow.
    front: Cell<i64>,
    back: Cell<i64>,
}

// SAFETY: the nodes that `root` leads to are used only through this value, which is in a mutex. The
// waiters in them may be used on any thread, since `W` is `Send`.
unsafe impl<W: Send> Send for BucketState<W> {}

impl<W> BucketState<W> {
    pub(super) const fn new() -> BucketState<W> {
        BucketState {
            root: Cell::new(ptr::null()),
            front: Cell::new(0),
            back: Cell::new(0),
        }
    }

    /// The arrival number of a waiter that queues now.
    fn next_arrival(&self, in_front: bool) -> i64 {
        if in_front {
            self.front.set(self.front.get() - 1);
            self.front.get()
        } else {
            self.back.replace(self.back.get() + 1)
        }
    }

    /// The link to the root of `key`. If nobody waits there: the null link to put a root into.
    fn find(&self, key: LotKey) -> &LotLink<W> {
        let mut link = &self.root;
        let mut turns = key.turns();
        // SAFETY: a node that the tree links is queued, so it lives. The caller has the lock of the
        // bucket, since it has this value.
        while let Some(node) = unsafe { link.get().as_ref() } {
            if node.key == key {
                break;
            }
            link = &node.children[(turns >> (u64::BITS - 1)) as usize];
            turns <<= 1;
        }
        link
    }

    /// The link to the leader of `owner` at `key`. If there is none: the null link to put one into.
    fn find_leader(&self, key: LotKey, owner: u32) -> &LotLink<W> {
        let mut link = self.find(key);
        // SAFETY: a linked leader is queued, so it lives, and the caller has the lock.
        while let Some(leader) = unsafe { link.get().as_ref() } {
            if leader.owner == owner {
                break;
            }
            link = &leader.next_leader;
        }
        link
    }

    /// Queues `node`, as the first or the last of its address.
    ///
    /// # Safety
    ///
    /// `node` is new, and lives until it is taken out of the queue.
    #[inline]
    unsafe fn push(&self, node: &LotNode<W>, in_front: bool) {
        node.arrival.set(self.next_arrival(in_front));
        let link = self.find_leader(node.key, node.owner);
        // SAFETY: a linked leader is queued, so it lives, and the caller has the lock.
        let Some(leader) = (unsafe { link.get().as_ref() }) else {
            node.prev.set(node);
            link.set(node);
            return;
        };
        let last = leader.prev.get();
        node.prev.set(last);
        leader.prev.set(node);
        if in_front {
            node.next.set(leader);
            node.replace_leader(leader);
            link.set(node);
        } else {
            // SAFETY: `last` is the leader or its last follower, so it is queued and lives.
            unsafe { (*last).next.set(node) };
        }
    }

    /// Takes `node` out of the queue.
    ///
    /// # Safety
    ///
    /// `node` is queued in this bucket.
    unsafe fn remove(&self, node: &LotNode<W>) {
        let link = self.find_leader(node.key, node.owner);
        if ptr::eq(link.get(), node) {
            // SAFETY: `link` leads to `node`, which is queued.
            unsafe { remove_leader(link) };
            return;
        }
        // SAFETY: `node` is a queued follower. So its owner has a leader, and the nodes before and
        // after it are queued and live.
        unsafe {
            let prev = node.prev.replace(ptr::null());
            let next = node.next.get();
            (*prev).next.set(next);
            let after = if next.is_null() { link.get() } else { next };
            (*after).prev.set(prev);
        }
    }
}

/// Takes the leader that `link` leads to out of the queue. If it has a follower, that one becomes the
/// leader. If it was the root and its owner has no other waiter, another leader of its address
/// becomes the root.
///
/// # Safety
///
/// `link` leads to a queued leader, and is the link that `find_leader` would return for it. The
/// caller has the lock of the bucket, and the node may be used for `'a`.
unsafe fn remove_leader<'a, W>(link: &LotLink<W>) -> &'a LotNode<W> {
    // SAFETY: the leader is queued. So it lives, and so do its followers, the other leaders, and the
    // nodes of the tree below it; the lock keeps others from using them.
    unsafe {
        let leader = &*link.get();
        let last = leader.prev.replace(ptr::null());
        if let Some(follower) = leader.next.get().as_ref() {
            // If the follower is the last one, this makes its `prev` lead to itself.
            follower.prev.set(last);
            follower.replace_leader(leader);
            link.set(follower);
        } else if let Some(other) = leader.next_leader.get().as_ref() {
            other.take_children_of(leader);
            link.set(other);
        } else {
            replace_by_leaf(link, leader);
        }
        leader
    }
}

/// Takes `node`, to which `link` leads, out of the tree, and puts a leaf from below in its place. All
/// nodes below agree with it in the turns that lead here, so any of them may stand here. A node that
/// is not a root has no children: then `link` becomes null.
///
/// # Safety
///
/// The caller has the lock of the bucket that `node` is in.
unsafe fn replace_by_leaf<W>(link: &LotLink<W>, node: &LotNode<W>) {
    let mut leaf_link = link;
    let mut below = node;
    while let Some(child) = below.children.iter().find(|child| !child.get().is_null()) {
        leaf_link = child;
        // SAFETY: a node that the tree links is queued, so it lives, and the caller has the lock.
        below = unsafe { &*child.get() };
    }
    let leaf = leaf_link.replace(ptr::null());
    if !ptr::eq(leaf, node) {
        // SAFETY: the leaf is queued, so it lives, and the caller has the lock.
        unsafe { (*leaf).take_children_of(node) };
        link.set(leaf);
    }
}

/// A bucket whose lock is held.
pub(super) struct LockedBucket<'a, W>(MutexGuard<'a, BucketState<W>>);

impl<W> LockedBucket<'_, W> {
    /// Forgets all waiters. For a forked child: they wait in the parent.
    pub(super) fn forget_all(&self) {
        self.0.root.set(ptr::null());
    }
}

impl<W: LotWaiter> Bucket<W> {
    pub(super) const fn new(state: Mutex<BucketState<W>>) -> Bucket<W> {
        Bucket(state)
    }

    pub(super) fn lock(&self) -> LockedBucket<'_, W> {
        LockedBucket(own_lock(&self.0))
    }

    /// Calls `begin` under the lock, and queues `node` with the wait that it returns; before all
    /// others at its address if `in_front`. Does not queue it if `begin` returns `None`, because there
    /// is nothing to wait for. Returns whether it queued the node.
    ///
    /// # Safety
    ///
    /// `node` is new. It lives until its waiter was woken from this bucket, or `leave` has returned;
    /// and so does what the wait points to.
    #[inline(always)]
    pub(super) unsafe fn enter(
        &self,
        node: &LotNode<W>,
        in_front: bool,
        begin: impl FnOnce() -> Option<W>,
    ) -> bool {
        let locked = self.lock();
        let Some(waiter) = begin() else {
            return false;
        };
        node.waiter.set(Some(waiter));
        // SAFETY: the caller says that `node` is new and lives long enough. It leaves the queue when a
        // waker takes it, or in `leave`.
        unsafe { locked.0.push(node, in_front) };
        true
    }

    /// Takes out a node that was queued here and was not woken from here.
    pub(super) fn leave(&self, node: &LotNode<W>) {
        let locked = self.lock();
        // A waker may have taken the node out, and then found that the wait had ended.
        if node.is_queued() {
            // SAFETY: it is queued, and the caller says that it was queued here.
            unsafe { locked.0.remove(node) };
        }
    }

    /// Calls `f` with the waiters of `key`, under the lock. Afterwards schedules those that `f` woke:
    /// not under the lock, for which they may come back at once.
    pub(super) fn wake<R>(&self, key: LotKey, f: impl FnOnce(&mut LotQueue<'_, W>) -> R) -> R {
        let locked = self.lock();
        let mut queue = LotQueue {
            root: locked.0.find(key),
            key,
            woken: WokenNodes::new(),
        };
        let result = f(&mut queue);
        let woken = queue.woken;
        drop(locked);
        woken.schedule();
        result
    }

    /// Wakes the waiters of all addresses.
    pub(super) fn wake_all(&self) {
        let locked = self.lock();
        let mut woken = WokenNodes::new();
        let root = &locked.0.root;
        while !root.get().is_null() {
            // SAFETY: the top of the tree is a queued leader, and `root` is the link that leads to it.
            let node = unsafe { remove_leader(root) };
            // SAFETY: the node was queued until now, and its waiter needs the lock to leave.
            unsafe { woken.add_if_ended_now(node) };
        }
        drop(locked);
        woken.schedule();
    }
}

/// Nodes that were taken out of the queue by a waker that has ended their waits. They are in the order
/// in which to schedule their waiters, and live until then.
struct WokenNodes<W> {
    first: *const LotNode<W>,
    last: *const LotNode<W>,
}

impl<W: LotWaiter> WokenNodes<W> {
    const fn new() -> WokenNodes<W> {
        WokenNodes {
            first: ptr::null(),
            last: ptr::null(),
        }
    }

    /// Ends the wait of `node` and adds the node, unless the wait has ended otherwise. Returns whether
    /// it did.
    ///
    /// # Safety
    ///
    /// `node` has just been taken out of the queue, by a caller that still has the lock.
    unsafe fn add_if_ended_now(&mut self, node: &LotNode<W>) -> bool {
        let waiter = node.waiter.get();
        // SAFETY: the waiter needs the lock, which the caller has, to return from its wait, unless
        // that is ended by a waker; only this call does so.
        if !waiter.is_some_and(|waiter| unsafe { waiter.end() }) {
            return false;
        }
        node.is_woken.set(true);
        node.next.set(ptr::null());
        // SAFETY: a node in this list lives, since its waiter was not scheduled.
        match unsafe { self.last.as_ref() } {
            None => self.first = node,
            Some(last) => last.next.set(node),
        }
        self.last = node;
        true
    }

    fn iter(&self) -> impl Iterator<Item = &LotNode<W>> {
        // SAFETY: a node in this list lives, since its waiter was not scheduled.
        let first = unsafe { self.first.as_ref() };
        std::iter::successors(first, |node| {
            // SAFETY: `next` leads to a node in this list, or is null.
            unsafe { node.next.get().as_ref() }
        })
    }

    fn schedule(self) {
        let mut next = self.first;
        // SAFETY: a node in this list lives until its waiter is scheduled, here.
        while let Some(node) = unsafe { next.as_ref() } {
            // Read first: the node is gone once its waiter runs.
            next = node.next.get();
            if let Some(waiter) = node.waiter.get() {
                // SAFETY: the wait was ended when the node was added, and the node is in the list
                // once.
                unsafe { waiter.schedule() };
            }
        }
    }
}

/// The waiters of one address, under the lock of the bucket.
pub(super) struct LotQueue<'a, W> {
    /// The link to the root of the address. When the last waiter is gone it is null, or leads to the
    /// root of another address.
    root: &'a LotLink<W>,
    key: LotKey,
    woken: WokenNodes<W>,
}

impl<'a, W: LotWaiter> LotQueue<'a, W> {
    /// Whether nobody waits. A waiter that has just timed out may still count.
    pub(super) fn is_empty(&self) -> bool {
        self.root().is_none()
    }

    /// Wakes the first waiter that can still be woken, and returns its note.
    pub(super) fn wake_first(&mut self) -> Option<u32> {
        self.wake_first_if(|_| true)
    }

    /// Wakes the first waiter that can still be woken, and returns its note. Wakes nobody if `wanted`
    /// is false for its note, or for that of a waiter before it.
    pub(super) fn wake_first_if(&mut self, wanted: impl Fn(u32) -> bool) -> Option<u32> {
        self.wake_first_of(|_| true, wanted).map(|node| node.note)
    }

    /// Wakes the first waiter of each owner from which none was woken yet, until one was woken that
    /// runs at once. An owner that has other things to do may let the waiter that was woken wait for
    /// its turn, and must not let the waiters of other owners wait with it.
    pub(super) fn wake_of_other_owners(&mut self) {
        // SAFETY: a node in this list lives, since its waiter was not scheduled.
        let woken = unsafe { self.woken.first.as_ref() };
        let is_of_other_owner = |root: &LotNode<W>| {
            !root.next_leader.get().is_null() || woken.is_none_or(|woken| woken.owner != root.owner)
        };
        // Most often all waiters are of one owner.
        if self.root().is_some_and(is_of_other_owner) {
            self.wake_of_owners_not_woken();
        }
    }

    #[cold]
    fn wake_of_owners_not_woken(&mut self) {
        let mut owners = BusyOwners::default();
        for node in self.woken.iter() {
            // SAFETY: the wait of a node in this list was ended here, and its waiter was not scheduled.
            if !unsafe { owners.add_owner_of(node) } {
                return;
            }
        }
        while let Some(node) = self.wake_first_of(|owner| !owners.contain(owner), |_| true)
            // SAFETY: the wait was ended here, and the waiter was not scheduled.
            && unsafe { owners.add_owner_of(node) }
        {}
    }

    /// Wakes the first waiter that can still be woken, out of those with an owner for which `of` is true.
    /// Wakes nobody if `wanted` is false for its note, or for that of such a waiter before it.
    fn wake_first_of(
        &mut self,
        of: impl Fn(u32) -> bool,
        wanted: impl Fn(u32) -> bool,
    ) -> Option<&LotNode<W>> {
        loop {
            let link = self.first_leader(&of)?;
            // SAFETY: `first_leader` returns the link to a leader, which is queued, and the lock is
            // held for as long as `self` is there.
            let node = unsafe { &*link.get() };
            if !wanted(node.note) {
                return None;
            }
            // SAFETY: `link` leads to a leader of this bucket, through the root of its address and the
            // leaders before it. The node lives while the lock is held, or if its wait is ended here,
            // until its waiter is scheduled.
            unsafe { remove_leader(link) };
            // SAFETY: the node has just been taken out, and the lock is held.
            if unsafe { self.woken.add_if_ended_now(node) } {
                return Some(node);
            }
        }
    }

    /// The link to the first leader in line, out of those with an owner for which `of` is true.
    fn first_leader(&self, of: impl Fn(u32) -> bool) -> Option<&'a LotLink<W>> {
        self.root()?;
        let mut link = self.root;
        let mut first = None;
        let mut first_arrival = i64::MAX;
        // SAFETY: a linked leader is queued, so it lives, and the lock is held.
        while let Some(leader) = unsafe { link.get().as_ref() } {
            if of(leader.owner) && leader.arrival.get() < first_arrival {
                first = Some(link);
                first_arrival = leader.arrival.get();
            }
            link = &leader.next_leader;
        }
        first
    }

    fn root(&self) -> Option<&'a LotNode<W>> {
        // SAFETY: a node that the tree links is queued, so it lives, and the lock is held.
        let root = unsafe { self.root.get().as_ref() };
        root.filter(|root| root.key == self.key)
    }

    /// Adds `token` to what each waiter woken so far has been told.
    pub(super) fn tell(&mut self, token: u32) {
        for node in self.woken.iter() {
            node.token.set(node.token.get() | token);
        }
    }
}

/// Owners that have other tasks to run before the waiter of theirs that was woken.
#[derive(Default)]
struct BusyOwners {
    /// The first `len` entries are in use.
    owners: [u32; BusyOwners::MOST],
    len: usize,
}

impl BusyOwners {
    /// Among this many owners, it is likely that one soon gets to run its waiter.
    const MOST: usize = 8;

    fn contain(&self, owner: u32) -> bool {
        self.owners[..self.len].contains(&owner)
    }

    /// Adds the owner of `node`. Returns false if no waiters of other owners should be woken: because
    /// this one runs at once, or because enough were woken.
    ///
    /// # Safety
    ///
    /// The caller has ended the wait of `node`, and not scheduled its waiter yet.
    unsafe fn add_owner_of<W: LotWaiter>(&mut self, node: &LotNode<W>) -> bool {
        // SAFETY: the caller has ended the wait and not scheduled the waiter.
        let runs_at_once = |waiter: W| unsafe { waiter.runs_at_once() };
        if node.waiter.get().is_some_and(runs_at_once) {
            return false;
        }
        if !self.contain(node.owner) {
            self.owners[self.len] = node.owner;
            self.len += 1;
        }
        self.len < BusyOwners::MOST
    }
}

#[cfg(test)]
#[path = "lot/tests.rs"]
mod tests;
