//! A worker as other threads see it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_deque::Stealer;

use super::Worker;
use crate::reactor;
use crate::task::word::Seq;
use crate::task::{Owner, Task, TaskRef};

/// What a worker may find in its inbox.
pub(super) enum Mail {
    /// The started coroutine in this slot has been woken.
    Woken(u32),
    /// A fresh coroutine, given away by a worker that has more than its share.
    Fresh(TaskRef),
}

/// Whether a worker must be kicked to take notice.
///
/// ```text
///              about to block            kicked
///   AWAKE ──────────────────▶ ASLEEP ──────────────▶ KICKED | KICKED_TO_SEARCH
///     ▲                          │                      │
///     └──────────────────────────┴──────────────────────┘  back from the poll
/// ```
///
/// ALONE is ASLEEP for mail only: the worker waits with a coroutine that unwinds, and cannot run
/// anything else. AWAY: no thread drives the worker at present.
mod state {
    pub(super) const AWAKE: u8 = 0;
    pub(super) const ASLEEP: u8 = 1;
    pub(super) const ALONE: u8 = 2;
    pub(super) const KICKED: u8 = 3;
    pub(super) const KICKED_TO_SEARCH: u8 = 4;
    pub(super) const AWAY: u8 = 5;
}

/// The face of a worker.
pub(super) struct Remote {
    state: AtomicU8,
    /// Whether the inbox has anything.
    mail: AtomicBool,
    inbox: Mutex<Vec<Mail>>,
    /// Started coroutines that have not finished.
    live: AtomicUsize,
    fresh: Stealer<TaskRef>,
    reactor: Arc<reactor::Handle>,
}

impl Remote {
    pub(super) fn new(fresh: Stealer<TaskRef>, reactor: Arc<reactor::Handle>) -> Remote {
        Remote {
            state: AtomicU8::new(state::AWAY),
            mail: AtomicBool::new(false),
            inbox: Mutex::new(Vec::new()),
            live: AtomicUsize::new(0),
            fresh,
            reactor,
        }
    }

    /// Puts mail into the inbox, and wakes the worker if it sleeps.
    ///
    /// Either the fence of the sender or that of the worker (in `fall_asleep`) is first: if the
    /// sender's, the worker sees the mail and does not block; if the worker's, the sender sees it
    /// asleep and kicks.
    pub(super) fn send(&self, mail: Mail) {
        {
            let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            inbox.push(mail);
            self.mail.store(true, Ordering::Release);
        }
        fence(Ordering::SeqCst);
        self.kick();
    }

    /// Wakes the worker if it sleeps.
    pub(super) fn kick(&self) {
        if self.wake_from(state::ASLEEP, state::KICKED)
            || self.wake_from(state::ALONE, state::KICKED)
        {
            self.reactor.kick();
        }
    }

    /// Wakes the worker to search for work, if it sleeps; returns whether it did.
    pub(super) fn kick_to_search(&self) -> bool {
        let woken = self.wake_from(state::ASLEEP, state::KICKED_TO_SEARCH);
        if woken {
            self.reactor.kick();
        }
        woken
    }

    fn wake_from(&self, from: u8, to: u8) -> bool {
        self.state.load(Ordering::Relaxed) == from
            && self
                .state
                .compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok()
    }

    pub(super) fn has_mail(&self) -> bool {
        self.mail.load(Ordering::Acquire)
    }

    pub(super) fn take_mail(&self) -> Vec<Mail> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        self.mail.store(false, Ordering::Relaxed);
        std::mem::take(&mut *inbox)
    }

    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    pub(super) fn stealer(&self) -> &Stealer<TaskRef> {
        &self.fresh
    }

    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Whether a thread drives the worker.
    pub(super) fn is_driven(&self) -> bool {
        self.state.load(Ordering::Relaxed) != state::AWAY
    }

    // What follows is for the worker itself.

    pub(super) fn set_live(&self, live: usize) {
        self.live.store(live, Ordering::Relaxed);
    }

    /// From now on, whoever wants the worker's attention kicks it. What was said before is to be
    /// looked at after this.
    pub(super) fn fall_asleep(&self) {
        self.state.store(state::ASLEEP, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// As `fall_asleep`, for mail only.
    pub(super) fn fall_asleep_alone(&self) {
        self.state.store(state::ALONE, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Back from the poll; returns whether the worker was woken to search.
    pub(super) fn wake_up(&self) -> bool {
        self.state.swap(state::AWAKE, Ordering::SeqCst) == state::KICKED_TO_SEARCH
    }

    pub(super) fn set_driven(&self, driven: bool) {
        self.state.store(
            if driven { state::AWAKE } else { state::AWAY },
            Ordering::SeqCst,
        );
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
            self.send(Mail::Woken(slot));
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
