//! Tasks that other threads have woken, on their way to their owner.
//!
//! A lock-free list of links, the latest first. Each link lies in its task:
//!
//! ```text
//! waker:  link.next = head ; head: next -> link (a swap that releases)
//! owner:  head: all -> none (a swap that acquires) ; reverse the list ; run the tasks in that order
//! ```
//!
//! Nothing is allocated, and nothing waits.
//!
//! *A link is in at most one list.* Only a thread that has ended the wait of a task sends its link, and
//! does so once. The task waits again only after it has run, hence after its link was taken out.
//!
//! *The owner sees complete links.* Its swap acquires what the last waker's swap released. Each waker's
//! swap has acquired what the one before it released.
//!
//! *A link lives while it is in a list.* Its task was woken, so it does not end before it has run, which
//! it does only after the owner has taken the link out. A waker does not touch the link after its swap.

use std::ptr;

use crate::atomic::{AtomicPtr, AtomicU32, Ordering};

/// A task as an element of its owner's inbox.
pub(crate) struct Link {
    /// The link that was sent before this one. Only meaningful while this link is in a list.
    next: AtomicPtr<Link>,
    /// The number by which the owner knows the task.
    slot: AtomicU32,
}

impl Link {
    pub(crate) fn new() -> Link {
        Link {
            next: AtomicPtr::new(ptr::null_mut()),
            slot: AtomicU32::new(0),
        }
    }

    #[inline]
    pub(crate) fn slot(&self) -> u32 {
        self.slot.load(Ordering::Relaxed)
    }

    /// To be called before the task runs.
    pub(crate) fn set_slot(&self, slot: u32) {
        self.slot.store(slot, Ordering::Relaxed);
    }
}

/// The list that wakers add to and the owner empties.
pub(crate) struct Inbox(AtomicPtr<Link>);

impl Inbox {
    pub(crate) fn new() -> Inbox {
        Inbox(AtomicPtr::new(ptr::null_mut()))
    }

    /// Whether there is a link in it.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        !self.0.load(Ordering::Acquire).is_null()
    }

    /// Adds `link`. From any thread.
    ///
    /// # Safety
    ///
    /// The link is in no inbox, and lives until the owner has taken it out of this one.
    pub(crate) unsafe fn put(&self, link: &Link) {
        let mut head = self.0.load(Ordering::Relaxed);
        loop {
            link.next.store(head, Ordering::Relaxed);
            let link = ptr::from_ref(link).cast_mut();
            match self
                .0
                .compare_exchange_weak(head, link, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Takes all links out, in the order in which they came. To be called by the owner.
    pub(crate) fn take(&self) -> Mail {
        let mut latest = self.0.swap(ptr::null_mut(), Ordering::AcqRel);
        let mut first = ptr::null_mut();
        // SAFETY: the caller of `put` has promised that a link lives until it was taken out, and its
        // task does not run before the owner does that. Nothing else touches a link in the list.
        while let Some(link) = unsafe { latest.as_ref() } {
            let before = link.next.load(Ordering::Relaxed);
            link.next.store(first, Ordering::Relaxed);
            first = latest;
            latest = before;
        }
        Mail(first)
    }
}

/// Iterates over the slots of the tasks taken from an inbox. No task may run before its slot was
/// returned from here.
pub(crate) struct Mail(*mut Link);

impl Iterator for Mail {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        // SAFETY: the pointer is null, or points to a link in a task that was woken and has not run since.
        // Such a task has not ended, so the task and its link are still allocated.
        let link = unsafe { self.0.as_ref() }?;
        self.0 = link.next.load(Ordering::Relaxed);
        Some(link.slot())
    }
}
