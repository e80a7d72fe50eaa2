//! One bucket of the parking lot: who waits at which address.
//!
//! ```text
//!   Bucket (a lock)          those who wait at one address, by their owners
//!     root ──▶ a ─────────▶ a     the leaders: the first of each owner
//!             / \   ╲       ╲
//!            b   c   a ▶ a   a    those behind it, first come first
//! ```
//!
//! All of it lies on the waiters' stacks. One leader at each address is a node of a tree by address.
//! The tree is a digital search tree: the bits of the key, an address well mixed, say where to turn.
//! So it needs no balancing, is never deeper than a key has bits, and what is taken out of it is
//! replaced by any leaf below.
//!
//! The owner of a waiter is the worker that runs it; OS threads count as of one owner. An owner that
//! computes runs none of its waiters, so a waker must find one of another owner quickly. Waiters are
//! numbered as they come, and the leader with the lowest number is the first of all. However many
//! wait at an address, and at how many others, the first is found in as many steps as it has owners.
//!
//! # No wake-up is lost
//!
//! ```text
//! waiter: lock ; look at the word ; begin a wait, queue ; unlock ; suspend
//! waker:  change the word ; lock ; take the first, end its wait ; unlock ; schedule it
//! ```
//!
//! Either the waiter has the lock first: then the waker finds it queued. Or the waker has: then the
//! waiter, who looks under the lock, sees the word changed, and does not wait.
//!
//! A wait may end otherwise, by a deadline or an interrupt; of that and the waker one wins
//! (`task/word.rs`). A waker that loses goes on to the next in the queue, so that a wake-up is only
//! ever spent on one whom it wakes. Who has been woken from here is out of the queue; who has come
//! back otherwise takes the lock and unlinks itself.
//!
//! A node may be used while it is linked, under the lock; and by the waker who has ended its wait,
//! until it schedules the waiter, who before that does not run.

use std::cell::{Cell, UnsafeCell};
use std::mem;
use std::ops::Range;
use std::ptr;

use crate::atomic::{Mutex, MutexGuard, own_lock};

use super::list::{self, List};

/// A wait that has begun, and can be ended.
pub(super) trait Waiter: Copy {
    /// Ends it, unless it has ended otherwise. Returns whether it did, so that the caller must
    /// schedule the waiter.
    ///
    /// # Safety
    ///
    /// The waiter has not left the place that it queued in.
    unsafe fn end(self) -> bool;

    /// Whether the waiter runs as soon as it is scheduled, as far as can be seen: its owner has
    /// nothing else to run.
    ///
    /// # Safety
    ///
    /// The caller has ended its wait, and not scheduled it yet.
    unsafe fn runs_at_once(self) -> bool;

    /// Makes the waiter run again.
    ///
    /// # Safety
    ///
    /// The caller has ended its wait, and calls this once.
    unsafe fn schedule(self);
}

/// Where someone waits, on its stack.
pub(super) type Node<W> = list::Node<Place<W>>;

type Link<W> = Cell<*const Node<W>>;

pub(super) struct Place<W> {
    key: Key,
    /// What the waiter wants its waker to know.
    pub(super) note: u32,
    /// Who runs the waiter.
    owner: u32,
    /// Its number among those at its address.
    order: Cell<i64>,
    /// What the waker wants the waiter to know.
    token: Cell<u32>,
    waiter: Cell<Option<W>>,
    /// It is the first of its owner at its address.
    leads: Cell<bool>,
    /// Of a leader: the others of its owner.
    behind: UnsafeCell<List<Place<W>>>,
    /// Of the one in the tree: the subtrees below it.
    children: [Link<W>; 2],
    /// Of the one in the tree: all at its address.
    line: UnsafeCell<Line<W>>,
}

/// Those who wait at one address.
struct Line<W> {
    leaders: List<Place<W>>,
    /// The numbers that were given out.
    numbers: Range<i64>,
}

impl<W> Line<W> {
    const fn new() -> Line<W> {
        Line {
            leaders: List::new(),
            numbers: 0..0,
        }
    }

    /// The number of one who comes now.
    fn number(&mut self, in_front: bool) -> i64 {
        match in_front {
            true => {
                self.numbers.start -= 1;
                self.numbers.start
            }
            false => {
                self.numbers.end += 1;
                self.numbers.end - 1
            }
        }
    }

    fn leader_of(&self, owner: u32) -> Option<&Node<W>> {
        let mut leaders = self.leaders.iter();
        leaders.find(|leader| leader.value.owner == owner)
    }

    /// The first of those whose owner is `wanted`.
    fn first_of(&self, wanted: impl Fn(u32) -> bool) -> Option<&Node<W>> {
        let leaders = self.leaders.iter();
        leaders
            .filter(|leader| wanted(leader.value.owner))
            .min_by_key(|leader| leader.value.order.get())
    }
}

impl<W> Place<W> {
    pub(super) fn node(key: Key, note: u32, owner: u32) -> Node<W> {
        list::Node::new(Place {
            key,
            note,
            owner,
            order: Cell::new(0),
            token: Cell::new(0),
            waiter: Cell::new(None),
            leads: Cell::new(false),
            behind: UnsafeCell::new(List::new()),
            children: [const { Cell::new(ptr::null()) }; 2],
            line: UnsafeCell::new(Line::new()),
        })
    }

    /// What the waker has said. For the waiter, when it has been woken.
    pub(super) fn token(&self) -> u32 {
        self.token.get()
    }
}

/// An address, mixed, so that its upper bits depend on all of it; no two addresses have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u64);

impl Key {
    pub(super) fn of<T>(address: *const T) -> Key {
        // The factor is odd, so it can be undone: 2^64 by the golden ratio.
        Key((address.addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// One of `2^BUCKET_BITS`.
    pub(super) fn bucket(self) -> usize {
        (self.0 >> (u64::BITS - BUCKET_BITS)) as usize
    }

    /// Where to turn in the tree of a bucket: first at the highest bit.
    fn turns(self) -> u64 {
        self.0 << BUCKET_BITS
    }
}

pub(super) const BUCKET_BITS: u32 = 8;

pub(super) struct Bucket<W>(Mutex<Root<W>>);

pub(super) struct Root<W>(Link<W>);

// SAFETY: what it leads to is used under the lock that it is in, alone.
unsafe impl<W: Send> Send for Root<W> {}

impl<W> Root<W> {
    pub(super) const fn new() -> Root<W> {
        Root(Cell::new(ptr::null()))
    }
}

impl<W: Waiter> Bucket<W> {
    pub(super) const fn new(root: Mutex<Root<W>>) -> Bucket<W> {
        Bucket(root)
    }

    pub(super) fn lock(&self) -> Locked<'_, W> {
        Locked(own_lock(&self.0))
    }

    /// Queues `node` with the wait that `begin` begins, under the lock; unless that says that there
    /// is nothing to wait for.
    ///
    /// # Safety
    ///
    /// The node is new. It lives until it was woken, or `leave` has returned; and so does what the
    /// wait points to.
    pub(super) unsafe fn enter(
        &self,
        node: &Node<W>,
        first: bool,
        begin: impl FnOnce() -> Option<W>,
    ) -> bool {
        let mut locked = self.lock();
        let Some(waiter) = begin() else {
            return false;
        };
        node.value.waiter.set(Some(waiter));
        // SAFETY: the caller's promise, and it is in no list yet.
        unsafe { locked.push(node, first) };
        true
    }

    /// Takes out a node that has been queued here, and whose wait has ended otherwise than from
    /// here.
    pub(super) fn leave(&self, node: &Node<W>) {
        let locked = self.lock();
        // A waker may have found that the wait had ended.
        if node.is_linked() {
            // SAFETY: it is linked, and only ever in here.
            unsafe { remove(locked.find(node.value.key), node) };
        }
    }

    /// Calls `f` with those who wait at `key`; afterwards makes those run again whom it woke.
    pub(super) fn wake<R>(&self, key: Key, f: impl FnOnce(&mut Queue<'_, '_, W>) -> R) -> R {
        let mut locked = self.lock();
        let mut woken = Woken(List::new());
        let result = f(&mut Queue {
            locked: &mut locked,
            key,
            woken: &mut woken,
        });
        drop(locked);
        // Not under the lock: they may come straight back to it.
        woken.schedule();
        result
    }

    /// Wakes all who wait, at whatever address.
    pub(super) fn wake_all(&self) {
        let locked = self.lock();
        let root = &locked.0.0;
        let mut woken = Woken(List::new());
        // SAFETY: what is linked lives, and is used under the lock.
        while let Some(first) = unsafe { root.get().as_ref() } {
            // SAFETY: it is linked there.
            unsafe { remove(root, first) };
            let waiter = first.value.waiter.get();
            // SAFETY: as in `Queue::wake_first_if`.
            if waiter.is_some_and(|waiter| unsafe { waiter.end() }) {
                // SAFETY: as there.
                unsafe { woken.0.push_back(first) };
            }
        }
        drop(locked);
        woken.schedule();
    }
}

/// Those whose waits were ended, and who do not run before they are scheduled.
struct Woken<W>(List<Place<W>>);

impl<W: Waiter> Woken<W> {
    fn schedule(mut self) {
        while let Some(first) = self.0.pop_front() {
            // SAFETY: the waiter was woken from here, and stays until it is scheduled; it is in
            // this list once.
            unsafe {
                if let Some(waiter) = (*first).value.waiter.get() {
                    waiter.schedule();
                }
            }
        }
    }
}

/// Those who wait at one address, under the lock.
pub(super) struct Queue<'a, 'b, W> {
    locked: &'a mut Locked<'b, W>,
    key: Key,
    woken: &'a mut Woken<W>,
}

impl<W: Waiter> Queue<'_, '_, W> {
    /// Whether nobody waits; a wait that has just ended otherwise may still count.
    pub(super) fn is_empty(&self) -> bool {
        self.locked.find(self.key).get().is_null()
    }

    /// Wakes the first one that can still be woken; returns its note.
    pub(super) fn wake_first(&mut self) -> Option<u32> {
        self.wake_first_if(|_| true)
    }

    /// Wakes the first one that can still be woken, if those before it and it have notes of which
    /// `wanted` is true; returns its note.
    pub(super) fn wake_first_if(&mut self, wanted: impl Fn(u32) -> bool) -> Option<u32> {
        self.wake_first_of(|_| true, wanted).map(|place| place.note)
    }

    /// Wakes the first of each owner that was not woken from, until one is woken that runs at once.
    /// An owner that has other things to do may let what was woken wait for its turn, and so must
    /// not let others wait with it.
    pub(super) fn wake_of_other_owners(&mut self) {
        let mut owners = Owners::default();
        for node in self.woken.0.iter() {
            if !owners.add(&node.value) {
                return;
            }
        }
        while let Some(place) = self.wake_first_of(|owner| !owners.have(owner), |_| true)
            && owners.add(place)
        {}
    }

    /// Wakes the first one of an owner that is `of` which can still be woken, if it, and those before
    /// it, have notes that are `wanted`.
    fn wake_first_of(
        &mut self,
        of: impl Fn(u32) -> bool,
        wanted: impl Fn(u32) -> bool,
    ) -> Option<&Place<W>> {
        loop {
            let link = self.locked.find(self.key);
            // SAFETY: what is linked lives, and is used under the lock; also below. The line is
            // borrowed until it is changed by `remove`.
            let node = unsafe {
                let line = &*link.get().as_ref()?.value.line.get();
                &*ptr::from_ref(line.first_of(&of)?)
            };
            if !wanted(node.value.note) {
                return None;
            }
            // SAFETY: it is linked there.
            unsafe { remove(link, node) };
            // SAFETY: the waiter needs the lock to leave, unless its wait is ended here.
            if unsafe { node.value.waiter.get()?.end() } {
                // SAFETY: it is in no list now, and lives until it is scheduled from this one.
                unsafe { self.woken.0.push_back(node) };
                return Some(&node.value);
            }
        }
    }

    /// Tells those who have been woken, besides what they were told before.
    pub(super) fn tell(&mut self, token: u32) {
        for node in self.woken.0.iter() {
            node.value.token.set(node.value.token.get() | token);
        }
    }
}

/// A few owners from whom somebody was woken, none of whom runs at once.
#[derive(Default)]
struct Owners {
    /// The first `len` of these.
    owners: [u32; Owners::MOST],
    len: usize,
}

impl Owners {
    /// From so many, one is enough.
    const MOST: usize = 8;

    fn have(&self, owner: u32) -> bool {
        self.owners[..self.len].contains(&owner)
    }

    /// Adds the owner of one that was woken, and is not scheduled yet; returns whether others should
    /// be woken, too.
    fn add<W: Waiter>(&mut self, woken: &Place<W>) -> bool {
        // SAFETY: the caller has ended its wait.
        let runs_at_once = |waiter: W| unsafe { waiter.runs_at_once() };
        if woken.waiter.get().is_some_and(runs_at_once) {
            return false;
        }
        if !self.have(woken.owner) {
            self.owners[self.len] = woken.owner;
            self.len += 1;
        }
        self.len < Owners::MOST
    }
}

/// A bucket whose lock is held.
pub(super) struct Locked<'a, W>(MutexGuard<'a, Root<W>>);

impl<W> Locked<'_, W> {
    /// Forgets all who wait: they do so in a process that this one was forked from.
    pub(super) fn forget_all(&self) {
        self.0.0.set(ptr::null());
    }

    /// The link to the first at `key`, or the one, null, to put it into.
    fn find(&self, key: Key) -> &Link<W> {
        let mut link = &self.0.0;
        let mut turns = key.turns();
        // SAFETY: what the tree links is queued, so it lives, and is used under the lock.
        while let Some(node) = unsafe { link.get().as_ref() } {
            if node.value.key == key {
                break;
            }
            link = &node.value.children[(turns >> (u64::BITS - 1)) as usize];
            turns <<= 1;
        }
        link
    }

    /// # Safety
    ///
    /// `node` is in no list, and lives until it is taken out of this.
    unsafe fn push(&mut self, node: &Node<W>, in_front: bool) {
        let link = self.find(node.value.key);
        // SAFETY: as in `find`. Of the lines and lists that nodes hold each is borrowed here and in
        // `remove`, briefly. The node is in no list, says the caller.
        unsafe {
            if link.get().is_null() {
                *node.value.line.get() = Line::new();
                link.set(node);
            }
            let root = &*link.get();
            let line = &mut *root.value.line.get();
            node.value.order.set(line.number(in_front));
            let leader = line.leader_of(node.value.owner).map(ptr::from_ref);
            let Some(leader) = leader.map(|leader| &*leader) else {
                line.lead(node);
                return;
            };
            if !in_front {
                (*leader.value.behind.get()).push_back(node);
                return;
            }
            line.leaders.remove(leader);
            leader.value.leads.set(false);
            node.value.take_those_behind(&leader.value);
            (*node.value.behind.get()).push_front(leader);
            line.lead(node);
            if ptr::eq(root, leader) {
                node.value.take_place_of(&leader.value);
                link.set(node);
            }
        }
    }
}

/// Takes `node` out of the line that `link` leads to.
///
/// # Safety
///
/// It is linked there, and the caller has the lock.
unsafe fn remove<W>(link: &Link<W>, node: &Node<W>) {
    // SAFETY: as in `Locked::push`; and since `node` is linked, its owner has a leader.
    unsafe {
        let root = &*link.get();
        let line = &mut *root.value.line.get();
        if !node.value.leads.get() {
            let leader = line.leader_of(node.value.owner);
            let leader = leader.expect("somebody is before it");
            (*leader.value.behind.get()).remove(node);
            return;
        }
        line.leaders.remove(node);
        node.value.leads.set(false);
        let next = (*node.value.behind.get()).pop_front();
        if let Some(next) = next.map(|next| &*next) {
            next.value.take_those_behind(&node.value);
            line.lead(next);
        }
        if !ptr::eq(root, node) {
            return;
        }
        match line.leaders.first().map(ptr::from_ref) {
            Some(next) => {
                (*next).value.take_place_of(&root.value);
                link.set(next);
            }
            None => root.value.take_out(link),
        }
    }
}

impl<W> Line<W> {
    /// Has `node` be the leader of its owner, which has none.
    ///
    /// # Safety
    ///
    /// As [`List::push_back`].
    unsafe fn lead(&mut self, node: &Node<W>) {
        node.value.leads.set(true);
        // SAFETY: the caller's promise.
        unsafe { self.leaders.push_back(node) };
    }
}

impl<W> Place<W> {
    /// # Safety
    ///
    /// The caller has the lock, and borrows neither list.
    unsafe fn take_those_behind(&self, other: &Place<W>) {
        // SAFETY: nobody else uses them, says the caller.
        unsafe { *self.behind.get() = mem::take(&mut *other.behind.get()) };
    }

    /// Becomes the one in the tree at its address, instead of `root`.
    ///
    /// # Safety
    ///
    /// The caller has the lock, and borrows neither line.
    unsafe fn take_place_of(&self, root: &Place<W>) {
        for (own, others) in self.children.iter().zip(&root.children) {
            own.set(others.replace(ptr::null()));
        }
        // SAFETY: nobody else uses them, says the caller.
        unsafe { *self.line.get() = mem::replace(&mut *root.line.get(), Line::new()) };
    }

    /// Goes out of the tree, where `link` leads here, and has a leaf from below take its place: that
    /// one may stand there, for all below here agree with it in the turns that lead here.
    ///
    /// # Safety
    ///
    /// The caller has the lock.
    unsafe fn take_out(&self, link: &Link<W>) {
        // SAFETY: as in `Locked::find`.
        unsafe {
            let mut leaf_link = link;
            while let Some(child) = (*leaf_link.get())
                .value
                .children
                .iter()
                .find(|child| !child.get().is_null())
            {
                leaf_link = child;
            }
            let leaf = leaf_link.replace(ptr::null());
            if ptr::eq(leaf_link, link) {
                return;
            }
            for (leafs, own) in (*leaf).value.children.iter().zip(&self.children) {
                leafs.set(own.replace(ptr::null()));
            }
            link.set(leaf);
        }
    }
}
