//! Mail, and a worker that waits for it: `worker/attention.rs` and `task/inbox.rs`, used in the way of
//! `worker/remote.rs`.

use super::attention::Attention;
use super::inbox::{Inbox, Link};
use super::{Model, large, small};
use crate::check::{Arc, Signal, thread};

pub(super) const MODELS: &[Model] = &[
    small(
        "mail: a sender against falling asleep",
        4,
        sender_against_sleep,
    ),
    small("mail: two senders, one sleeper", 2, two_senders),
    small(
        "mail: a sender against falling asleep alone",
        4,
        sender_against_sleep_alone,
    ),
    small(
        "mail: a sender against a worker that is announced",
        4,
        sender_against_announced,
    ),
    small(
        "mail: a sender against the end of a turn in a loop of other code",
        4,
        || sender_against_other_loop(false),
    ),
    small(
        "mail: a sender against the end of a turn, with other workers",
        4,
        || sender_against_other_loop(true),
    ),
    large(
        "mail: many senders, a worker that sleeps and waits alone in between",
        many_senders,
    ),
];

/// A worker as other threads see it: the part of `Remote` that belongs to mail.
pub(super) struct Face {
    pub(super) attention: Attention,
    /// Stands for the eventfd.
    pub(super) kicked: Signal,
    inbox: Inbox,
}

impl Face {
    /// The face of a worker that no thread drives yet.
    pub(super) fn new() -> Face {
        Face {
            attention: Attention::new(),
            kicked: Signal::new(),
            inbox: Inbox::new(),
        }
    }

    pub(super) fn send(&self, mail: usize) {
        // The link of a task of its own.
        let link = Box::leak(Box::new(Link::new()));
        link.set_slot(u32::try_from(mail).unwrap());
        // SAFETY: the link is new, so it is in no inbox, and it is never freed.
        unsafe { self.inbox.put(link) };
        self.kick();
    }

    pub(super) fn kick(&self) {
        if self.attention.demand() {
            self.kicked.raise();
        }
    }

    pub(super) fn has_mail(&self) -> bool {
        self.inbox.has_mail()
    }

    pub(super) fn take_mail(&self) -> Vec<usize> {
        if !self.has_mail() {
            return Vec::new();
        }
        self.inbox.take().map(|mail| mail as usize).collect()
    }

    /// Like `Worker::leave_alone`, the wait of a loop of other code for the descriptor, and the next turn.
    fn leave_to_other_loop(&self, has_others: bool) {
        match has_others {
            true => self.attention.fall_asleep_alone(),
            false => self.attention.fall_asleep(),
        }
        if self.has_mail() {
            self.kicked.raise();
        }
        self.kicked.wait();
        let to_search = self.attention.wake_up();
        assert!(!to_search, "there are no fresh coroutines");
    }

    /// Waits until there may be mail: one turn of `Worker::wait_with` if the worker waits `alone`,
    /// otherwise of `find_work_or_sleep`.
    fn wait(&self, alone: bool) {
        match alone {
            true => self.attention.fall_asleep_alone(),
            false => self.attention.fall_asleep(),
        }
        if !self.has_mail() {
            self.kicked.wait();
        }
        let to_search = self.attention.wake_up();
        assert!(!to_search, "there are no fresh coroutines");
    }

    /// Takes `count` mails. `alone` tells, from the number of mails so far, how to wait.
    fn read(&self, count: usize, alone: impl Fn(usize) -> bool) {
        let mut mails = self.take_mail();
        while mails.len() < count {
            self.wait(alone(mails.len()));
            mails.extend(self.take_mail());
        }
        mails.sort_unstable();
        assert!(mails.into_iter().eq(0..count), "each mail comes once");
    }
}

/// A worker that a thread drives.
fn driven() -> Arc<Face> {
    let worker = Arc::new(Face::new());
    worker.attention.wake_up();
    worker
}

/// The mail comes while the worker falls asleep.
fn sender_against_sleep() {
    read(driven(), 1, 1, |_| false);
}

fn two_senders() {
    read(driven(), 2, 1, |_| false);
}

/// The mail comes while the worker falls asleep in a wait of its only coroutine.
fn sender_against_sleep_alone() {
    read(driven(), 1, 1, |_| true);
}

/// Mail that is sent before a thread drives the worker is there when one does.
fn sender_against_announced() {
    let worker = Arc::new(Face::new());
    worker.attention.announce();
    let thread = thread::spawn({
        let worker = worker.clone();
        move || {
            worker.attention.wake_up();
            worker.read(1, |_| false);
        }
    });
    worker.send(0);
    thread.join().unwrap();
}

/// The mail comes while the worker leaves its turn, or between the turns. The loop of other code gives two turns that
/// it was not asked for.
fn sender_against_other_loop(has_others: bool) {
    let worker = driven();
    let sender = thread::spawn({
        let worker = worker.clone();
        move || worker.send(0)
    });
    let mut mails = Vec::new();
    for _ in 0..2 {
        worker.attention.fall_asleep();
        worker.attention.wake_up();
        mails.extend(worker.take_mail());
    }
    while mails.is_empty() {
        worker.leave_to_other_loop(has_others);
        mails.extend(worker.take_mail());
    }
    assert_eq!(mails, [0]);
    sender.join().unwrap();
}

fn many_senders() {
    read(driven(), 5, 3, |read| read % 4 > 1);
}

/// A worker waits for mail and nothing else. Each of `senders` sends `each` mails.
fn read(worker: Arc<Face>, senders: usize, each: usize, alone: fn(usize) -> bool) {
    let threads: Vec<_> = (0..senders)
        .map(|sender| {
            let worker = worker.clone();
            thread::spawn(move || {
                for mail in 0..each {
                    worker.send(sender * each + mail);
                }
            })
        })
        .collect();
    worker.read(senders * each, alone);
    for thread in threads {
        thread.join().unwrap();
    }
}
