//! A linked list of nodes that lie elsewhere: on the stacks of the waiters that are in the list.

use std::cell::Cell;
use std::ptr;

/// A doubly linked list that does not own its nodes.
///
/// While a node is linked, it is used only through the list, by the thread that has the list to itself.
pub(crate) struct List<T> {
    head: *const Node<T>,
    tail: *const Node<T>,
    len: usize,
}

// SAFETY: linked nodes live until they are unlinked, and are used only by the thread that has the
// list to itself. Their values are used by that thread too, and `T` is `Send`.
unsafe impl<T: Send> Send for List<T> {}

/// A value that can be in one list at a time.
///
/// While it is linked, the links are used only by the list.
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

    /// Whether the node is in a list. The caller has that list to itself.
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
        // SAFETY: a linked node lives, and while the list is borrowed none is unlinked.
        unsafe { self.head.as_ref() }
    }

    /// Whether `is` returns true for the value of a node.
    pub(crate) fn any(&self, is: impl Fn(&T) -> bool) -> bool {
        let mut node = self.head;
        // SAFETY: a linked node lives, and while the list is borrowed none is unlinked.
        while let Some(linked) = unsafe { node.as_ref() } {
            if is(&linked.value) {
                return true;
            }
            node = linked.next.get();
        }
        false
    }

    /// # Safety
    ///
    /// `node` is in no list. It lives and does not move until it is unlinked from this list.
    pub(crate) unsafe fn push_back(&mut self, node: &Node<T>) {
        node.prev.set(self.tail);
        node.next.set(ptr::null());
        node.linked.set(true);
        self.join(self.tail, node);
        self.tail = node;
        self.len += 1;
    }

    /// Unlinks and returns the first node. The contract of `push_back` does not say how long it lives
    /// after that: the user of the list must know.
    pub(crate) fn pop_front(&mut self) -> Option<*const Node<T>> {
        let first = self.head;
        // SAFETY: the first node is linked into this list, so it lives.
        unsafe { self.remove(first.as_ref()?) };
        Some(first)
    }

    /// # Safety
    ///
    /// `node` is linked into this list.
    pub(crate) unsafe fn remove(&mut self, node: &Node<T>) {
        let (prev, next) = (node.prev.get(), node.next.get());
        self.join(prev, next);
        if next.is_null() {
            self.tail = prev;
        } else {
            // SAFETY: the neighbour of a linked node is linked, so it lives.
            unsafe { (*next).prev.set(prev) };
        }
        node.linked.set(false);
        self.len -= 1;
    }

    /// Makes `next` the node after `prev`, or the first one if `prev` is null. The caller sets the link
    /// back.
    fn join(&mut self, prev: *const Node<T>, next: *const Node<T>) {
        if prev.is_null() {
            self.head = next;
        } else {
            // SAFETY: `prev` is a linked node or the neighbour of one, so it is linked and lives.
            unsafe { (*prev).next.set(next) };
        }
    }
}
