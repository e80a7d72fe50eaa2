//! Woken tasks, on their way to their owner.
//!
//! A list of links, each of which lies in a task, latest first:
//!
//! ```text
//! waker:  link.next = head ; head: next -> link (a swap that releases)
//! owner:  head: all -> none (a swap that acquires) ; turn the list round ; run the tasks in that order
//! ```
//!
//! Nothing is allocated and nobody waits. *A link is in one list at most*, for whoever has ended a wait
//! of a task sends it, once, and it does not wait again before it has run. *What the owner finds is
//! whole*: its swap reads the last of the wakers' swaps, which come one from the other. *A link lives
//! while it is in a list*: its task was woken, and its owner runs it after it has taken it out. The waker
//! does not touch it after its swap.

use std::ptr;

use crate::atomic::{AtomicPtr, AtomicU32, Ordering};

/// A task's place in its owner's inbox.
pub(crate) struct Link {
    next: AtomicPtr<Link>,
    /// The name the owner knows the task by.
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

    /// Called before the task runs.
    pub(crate) fn set_slot(&self, slot: u32) {
        self.slot.store(slot, Ordering::Relaxed);
    }
}

pub(crate) struct Inbox(AtomicPtr<Link>);

impl Inbox {
    pub(crate) fn new() -> Inbox {
        Inbox(AtomicPtr::new(ptr::null_mut()))
    }

    /// Whether it has anything.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        !self.0.load(Ordering::Acquire).is_null()
    }

    /// Puts `link` into it.
    ///
    /// # Safety
    ///
    /// It is in no inbox, and lives until it was taken out of this one.
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

    /// Takes all that is there out, in the order in which it came. Called by the owner.
    pub(crate) fn take(&self) -> Mail {
        let mut latest = self.0.swap(ptr::null_mut(), Ordering::AcqRel);
        let mut first = ptr::null_mut();
        // SAFETY: what is in the list lives, and is ours since we have taken it.
        while let Some(link) = unsafe { latest.as_ref() } {
            let before = link.next.load(Ordering::Relaxed);
            link.next.store(first, Ordering::Relaxed);
            first = latest;
            latest = before;
        }
        Mail(first)
    }
}

/// The slots of tasks that were woken. None of them runs before its slot was taken from here.
pub(crate) struct Mail(*mut Link);

impl Iterator for Mail {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        // SAFETY: its task has not run since it was woken.
        let link = unsafe { self.0.as_ref() }?;
        self.0 = link.next.load(Ordering::Relaxed);
        Some(link.slot())
    }
}
