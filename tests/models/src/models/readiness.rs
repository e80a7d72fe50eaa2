//! Readiness and its waiters: `reactor/ready_word.rs`.

use super::ready_word::ReadyWord;
use super::word::{Kind, Outcome, Seq, WaitWord};
use super::{Model, large, small};
use crate::check::atomic::{AtomicUsize, Ordering};
use crate::check::{Arc, Mutex, Signal, thread};

pub(super) const MODELS: &[Model] = &[
    small(
        "readiness: an event against a failed attempt",
        4,
        one_reader_one_event,
    ),
    small(
        "readiness: an event against a short read",
        4,
        short_read_against_event,
    ),
    small(
        "readiness: two readers, two messages",
        2,
        two_readers_two_messages,
    ),
    small(
        "readiness: a waiter that leaves passes readiness on",
        2,
        a_leaver_passes_on,
    ),
    small(
        "readiness: an event against two readers, one with a deadline",
        2,
        event_against_timeout,
    ),
    large("readiness: many readers, some with deadlines", many_readers),
];

/// A socket that holds messages, its readiness, and the queue of its readers.
struct Source {
    messages: AtomicUsize,
    word: ReadyWord,
    waiters: Mutex<Vec<Arc<Waiter>>>,
}

/// A reader's wait.
struct Waiter {
    word: WaitWord,
    seq: Seq,
    queue: Signal,
}

impl Waiter {
    fn begin() -> Arc<Waiter> {
        let word = WaitWord::new();
        let seq = word.begin(Kind::Plain).unwrap();
        let queue = Signal::new();
        Arc::new(Waiter { word, seq, queue })
    }

    /// Ends the wait, because its deadline has passed.
    fn time_out(&self) {
        if self.word.wake(self.seq, Outcome::TimedOut) {
            self.queue.raise();
        }
    }
}

impl Source {
    fn new() -> Arc<Source> {
        Arc::new(Source {
            messages: AtomicUsize::new(0),
            word: ReadyWord::new(),
            waiters: Mutex::new(Vec::new()),
        })
    }

    /// A message arrives, and the poll of some worker reports it.
    fn arrive(&self) {
        self.messages.fetch_add(1, Ordering::AcqRel);
        if self.word.set(0) {
            self.wake_one();
        }
    }

    /// Like `Waiters::wake_one`: wakes the first waiter whose wait has not ended otherwise.
    fn wake_one(&self) {
        let mut waiters = self.waiters.lock().unwrap();
        let woken = loop {
            if waiters.is_empty() {
                self.word.no_waiters();
                break None;
            }
            let first = waiters.remove(0);
            if first.word.wake(first.seq, Outcome::Woken) {
                break Some(first);
            }
        };
        drop(waiters);
        if let Some(woken) = woken {
            woken.queue.raise();
        }
    }

    /// Tries to take a message.
    fn try_read(&self) -> bool {
        let take = |messages: usize| messages.checked_sub(1);
        self.messages
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
            .is_ok()
    }

    fn read(&self) {
        assert!(self.read_until(|_| ()), "it has no deadline");
    }

    /// The loop of `Operation::run_stream`. `deadline` may end each wait. Returns whether there was a
    /// message.
    fn read_until(&self, deadline: impl Fn(&Arc<Waiter>)) -> bool {
        let mut is_too_late = false;
        loop {
            let seen = self.word.observe();
            if seen.is_ready() || is_too_late {
                if self.try_read() {
                    self.pass_on();
                    return true;
                }
                self.word.clear(seen);
                if is_too_late {
                    return false;
                }
                if self.word.observe().is_ready() {
                    continue;
                }
            }
            is_too_late = !self.wait(&deadline);
        }
    }

    fn pass_on(&self) {
        if self.word.is_left_for_a_waiter() {
            self.wake_one();
        }
    }

    /// Like `Waiters::wait`. Returns false if the deadline has passed.
    fn wait(&self, deadline: impl Fn(&Arc<Waiter>)) -> bool {
        let waiter = Waiter::begin();
        {
            let mut waiters = self.waiters.lock().unwrap();
            if self.word.is_ready_or_awaited() {
                return true;
            }
            waiters.push(waiter.clone());
        }
        deadline(&waiter);
        assert_eq!(waiter.queue.wait(), 1, "a task is queued once");
        let woken = waiter.word.outcome() == Outcome::Woken;
        let mut waiters = match woken {
            // The waker has taken the waiter out of the queue.
            true => return true,
            false => self.waiters.lock().unwrap(),
        };
        waiters.retain(|other| !Arc::ptr_eq(other, &waiter));
        false
    }
}

/// The event comes at any time of the reader's attempt and wait. The reader must not sleep through it.
fn one_reader_one_event() {
    let source = Source::new();
    let peer = thread::spawn({
        let source = source.clone();
        move || source.arrive()
    });
    source.read();
    peer.join().unwrap();
}

/// A reader that has taken all messages clears READY, without a failed attempt.
fn short_read_against_event() {
    let source = Source::new();
    source.arrive();
    let peer = thread::spawn({
        let source = source.clone();
        move || source.arrive()
    });
    let seen = source.word.observe();
    let all = source.messages.swap(0, Ordering::AcqRel);
    source.word.clear_drained(seen);
    if all == 1 {
        source.read();
    }
    peer.join().unwrap();
}

/// Two events wake two readers, or one event and the reader that it has woken do.
fn two_readers_two_messages() {
    let source = Source::new();
    let readers = [(); 2].map(|()| {
        let source = source.clone();
        thread::spawn(move || source.read())
    });
    source.arrive();
    source.arrive();
    for reader in readers {
        reader.join().unwrap();
    }
}

/// One event for two messages. The first reader wakes the second when it is done.
fn a_leaver_passes_on() {
    let source = Source::new();
    let reader = thread::spawn({
        let source = source.clone();
        move || source.read()
    });
    let peer = thread::spawn({
        let source = source.clone();
        move || {
            source.messages.fetch_add(1, Ordering::AcqRel);
            source.arrive();
        }
    });
    source.read();
    reader.join().unwrap();
    peer.join().unwrap();
}

/// The deadline of one reader passes at once. Another reader waits before or after it in the queue.
fn event_against_timeout() {
    let source = Source::new();
    let reader = thread::spawn({
        let source = source.clone();
        move || source.read()
    });
    let peer = thread::spawn({
        let source = source.clone();
        move || source.arrive()
    });
    if source.read_until(|waiter| waiter.time_out()) {
        source.arrive();
    }
    reader.join().unwrap();
    peer.join().unwrap();
}

/// Three readers take all messages that two peers send. Two more readers have deadlines. A message that
/// one of these takes is sent again.
fn many_readers() {
    const MESSAGES: usize = 6;
    let source = Source::new();
    let patient = [(); 3].map(|()| {
        let source = source.clone();
        thread::spawn(move || {
            for _ in 0..MESSAGES / 3 {
                source.read();
            }
        })
    });
    let impatient = [(); 2].map(|()| {
        let source = source.clone();
        thread::spawn(move || {
            for _ in 0..2 {
                let took = source.read_until(|waiter| {
                    let waiter = waiter.clone();
                    thread::spawn(move || waiter.time_out());
                });
                if took {
                    source.arrive();
                }
            }
        })
    });
    let peers = [(); 2].map(|()| {
        let source = source.clone();
        thread::spawn(move || {
            for _ in 0..MESSAGES / 2 {
                source.arrive();
            }
        })
    });
    for thread in patient.into_iter().chain(impatient).chain(peers) {
        thread.join().unwrap();
    }
    assert_eq!(source.messages.load(Ordering::Acquire), 0);
    assert!(source.waiters.lock().unwrap().is_empty());
}
