//! One bucket of the parking lot: who waits at which address.
//!
//! ```text
//!   Bucket (a lock)          those who wait at one address, first come first
//!     root ──▶ a ────────▶ a ──▶ a
//!             / \
//!            b   c ──▶ c          the first of each is a node of a tree by address
//! ```
//!
//! All of it lies on the waiters' stacks. The tree is a digital search tree: the bits of the key, an
//! address well mixed, say where to turn. So it needs no balancing, is never deeper than a key has
//! bits, and what is taken out of it is replaced by any leaf below. However many wait at an address,
//! and at how many others, the first is found in a few steps.
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
    /// What the waker wants the waiter to know.
    token: Cell<u32>,
    waiter: Cell<Option<W>>,
    /// Of the first at its address: the subtrees below it.
    children: [Link<W>; 2],
    /// Of the first at its address: all of them.
    queue: UnsafeCell<List<Place<W>>>,
}

impl<W> Place<W> {
    pub(super) fn node(key: Key, note: u32) -> Node<W> {
        list::Node::new(Place {
            key,
            note,
            token: Cell::new(0),
            waiter: Cell::new(None),
            children: [const { Cell::new(ptr::null()) }; 2],
            queue: UnsafeCell::new(List::new()),
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
        loop {
            let link = self.locked.find(self.key);
            // SAFETY: what is linked lives, and is used under the lock; also below.
            let node = unsafe { link.get().as_ref() }?;
            if !wanted(node.value.note) {
                return None;
            }
            // SAFETY: it is linked there.
            unsafe { remove(link, node) };
            // SAFETY: the waiter needs the lock to leave, unless its wait is ended here.
            if unsafe { node.value.waiter.get()?.end() } {
                // SAFETY: it is in no list now, and lives until it is scheduled from this one.
                unsafe { self.woken.0.push_back(node) };
                return Some(node.value.note);
            }
        }
    }

    /// Tells those who have been woken.
    pub(super) fn tell(&mut self, token: u32) {
        for node in self.woken.0.iter() {
            node.value.token.set(token);
        }
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
        // SAFETY: as in `find`. Of the queues that nodes hold the one in use is borrowed here and in
        // `remove`, each time briefly. The node is in no list, says the caller.
        unsafe {
            match link.get().as_ref() {
                Some(first) if in_front => {
                    node.value.take_place_of(&first.value);
                    (*node.value.queue.get()).push_front(node);
                    link.set(node);
                }
                Some(first) => (*first.value.queue.get()).push_back(node),
                None => {
                    *node.value.queue.get() = List::new();
                    (*node.value.queue.get()).push_back(node);
                    link.set(node);
                }
            }
        }
    }
}

/// Takes `node` out of the queue that `link` leads to the first of.
///
/// # Safety
///
/// It is linked there, and the caller has the lock.
unsafe fn remove<W>(link: &Link<W>, node: &Node<W>) {
    // SAFETY: as in `Locked::push`; and since `node` is linked, somebody is first.
    unsafe {
        let first = &(*link.get()).value;
        let queue = &mut *first.queue.get();
        queue.remove(node);
        if !ptr::eq(first, &node.value) {
            return;
        }
        match queue.first().map(ptr::from_ref) {
            Some(next) => {
                (*next).value.take_place_of(first);
                link.set(next);
            }
            None => first.take_out(link),
        }
    }
}

impl<W> Place<W> {
    /// Becomes the first at its address, instead of `first`.
    ///
    /// # Safety
    ///
    /// The caller has the lock, and borrows neither queue.
    unsafe fn take_place_of(&self, first: &Place<W>) {
        for (own, others) in self.children.iter().zip(&first.children) {
            own.set(others.replace(ptr::null()));
        }
        // SAFETY: nobody else uses them, says the caller.
        unsafe { *self.queue.get() = mem::take(&mut *first.queue.get()) };
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
