//! A list whose nodes lie on the stacks of those who are in it.

use std::cell::Cell;
use std::ptr;

/// A doubly linked list. Its nodes are used through it alone, by whoever has it to itself.
pub(crate) struct List<T> {
    head: *const Node<T>,
    tail: *const Node<T>,
    len: usize,
}

// SAFETY: the nodes that a list points to are used by whoever may use the list, and live until
// they are unlinked. What they hold is used from there as well, so it must be able to cross threads.
unsafe impl<T: Send> Send for List<T> {}

/// A place in a list. The links belong to the list, from the linking to the unlinking.
pub(crate) struct Node<T> {
    pub(crate) value: T,
    prev: Cell<*const Node<T>>,
    next: Cell<*const Node<T>>,
    linked: Cell<bool>,
}

impl<T> Node<T> {
    pub(crate) const fn new(value: T) -> Node<T> {
        Node {
            value,
            prev: Cell::new(ptr::null()),
            next: Cell::new(ptr::null()),
            linked: Cell::new(false),
        }
    }

    /// Whether it is in a list. To be asked by whoever has that list to itself.
    pub(crate) fn is_linked(&self) -> bool {
        self.linked.get()
    }
}

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List::new()
    }
}

impl<T> List<T> {
    pub(crate) const fn new() -> List<T> {
        List {
            head: ptr::null(),
            tail: ptr::null(),
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn first(&self) -> Option<&Node<T>> {
        // SAFETY: linked nodes live; and this list is borrowed, so none is unlinked.
        unsafe { self.head.as_ref() }
    }

    /// # Safety
    ///
    /// `node` is in no list, and lives until it is unlinked from this one.
    pub(crate) unsafe fn push_back(&mut self, node: &Node<T>) {
        self.link(node, self.tail, ptr::null());
    }

    /// Takes the first one out, which from now on is its owner's again: see there how long it is
    /// still alive.
    pub(crate) fn pop_front(&mut self) -> Option<*const Node<T>> {
        let first = self.head;
        // SAFETY: what is linked lives, and is linked here.
        unsafe { self.remove(first.as_ref()?) };
        Some(first)
    }

    fn link(&mut self, node: &Node<T>, prev: *const Node<T>, next: *const Node<T>) {
        node.prev.set(prev);
        node.next.set(next);
        node.linked.set(true);
        self.point(prev, next, node, node);
        self.len += 1;
    }

    /// # Safety
    ///
    /// `node` is linked into this list.
    pub(crate) unsafe fn remove(&mut self, node: &Node<T>) {
        let (prev, next) = (node.prev.get(), node.next.get());
        self.point(prev, next, next, prev);
        node.linked.set(false);
        self.len -= 1;
    }

    /// Has `after` come after `prev`, and `before` before `next`. Where these are null they stand
    /// for the ends.
    fn point(
        &mut self,
        prev: *const Node<T>,
        next: *const Node<T>,
        after: *const Node<T>,
        before: *const Node<T>,
    ) {
        // SAFETY: a linked node's neighbours are linked, so they live.
        match unsafe { prev.as_ref() } {
            None => self.head = after,
            Some(prev) => prev.next.set(after),
        }
        // SAFETY: as above.
        match unsafe { next.as_ref() } {
            None => self.tail = before,
            Some(next) => next.prev.set(before),
        }
    }
}
