//! A worker as other threads see it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_deque::{Injector, Steal, Stealer};

use super::Worker;
use super::attention::Attention;
use crate::reactor;
use crate::task::word::Seq;
use crate::task::{Owner, Task, TaskRef};

/// The face of a worker.
pub(super) struct Remote {
    attention: Attention,
    /// Whether the inbox has anything.
    mail: AtomicBool,
    /// Slots of started coroutines that have been woken by other threads.
    inbox: Mutex<Vec<u32>>,
    /// Fresh coroutines that another worker has given to this one.
    given: Injector<TaskRef>,
    /// Started coroutines that have not finished.
    live: AtomicUsize,
    fresh: Stealer<TaskRef>,
    reactor: Arc<reactor::Handle>,
}

impl Remote {
    pub(super) fn new(fresh: Stealer<TaskRef>, reactor: Arc<reactor::Handle>) -> Remote {
        Remote {
            attention: Attention::new(),
            mail: AtomicBool::new(false),
            inbox: Mutex::new(Vec::new()),
            given: Injector::new(),
            live: AtomicUsize::new(0),
            fresh,
            reactor,
        }
    }

    /// Hands a fresh coroutine over, and wakes the worker if it sleeps.
    pub(super) fn give(&self, task: TaskRef) {
        self.given.push(task);
        self.kick();
    }

    pub(super) fn has_given(&self) -> bool {
        !self.given.is_empty()
    }

    pub(super) fn take_given(&self) -> Option<TaskRef> {
        while self.has_given() {
            if let Steal::Success(task) = self.given.steal() {
                return Some(task);
            }
        }
        None
    }

    /// Takes what was given to this worker, for another: unless this one was just kicked, and
    /// will come for it.
    pub(super) fn steal_given(&self) -> Steal<TaskRef> {
        if !self.has_given() || self.attention.is_kicked() {
            return Steal::Empty;
        }
        self.given.steal()
    }

    /// Puts the slot of a woken coroutine into the inbox, and wakes the worker if it sleeps.
    pub(super) fn send(&self, mail: u32) {
        {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            inbox.push(mail);
            self.mail.store(true, Ordering::Release);
        }
        self.kick();
    }

    /// Wakes the worker if it sleeps, to look at what was just changed.
    pub(super) fn kick(&self) {
        if self.attention.demand() {
            self.reactor.kick();
        }
    }

    /// Wakes the worker to search for work, if it sleeps; returns whether it did.
    pub(super) fn kick_to_search(&self) -> bool {
        let woken = self.attention.demand_search();
        if woken {
            self.reactor.kick();
        }
        woken
    }

    pub(super) fn attention(&self) -> &Attention {
        &self.attention
    }

    pub(super) fn has_mail(&self) -> bool {
        self.mail.load(Ordering::Acquire)
    }

    pub(super) fn take_mail(&self) -> Vec<u32> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        self.mail.store(false, Ordering::Relaxed);
        std::mem::take(&mut *inbox)
    }

    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty() || (self.has_given() && !self.attention.is_kicked())
    }

    pub(super) fn stealer(&self) -> &Stealer<TaskRef> {
        &self.fresh
    }

    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Said by the worker itself.
    pub(super) fn set_live(&self, live: usize) {
        self.live.store(live, Ordering::Relaxed);
    }
}

impl Owner for Remote {
    fn schedule(&self, slot: u32) {
        let here = Worker::with_current(|worker| match worker {
            Some(worker) if worker.is(self) => {
                worker.push_ready(slot);
                true
            }
            _ => false,
        });
        if !here {
            self.send(slot);
        }
    }

    fn suspend(&self, task: &Task, seq: Seq, deadline: Option<Instant>) {
        Worker::with_current(|worker| {
            let worker = worker.expect("a coroutine runs on its worker");
            worker.suspend(task, seq, deadline);
        });
    }

    fn waits_alone(&self) -> bool {
        Worker::with_current(|worker| worker.is_some_and(Worker::waits_alone))
    }
}
