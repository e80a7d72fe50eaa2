//! Readiness and those who wait for it: `reactor/ready_word.rs`.

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::ready_word::ReadyWord;
use crate::{Model, Signal};

pub(crate) const MODELS: &[Model] = &[
    (
        "readiness: an event against a failed attempt",
        4,
        one_reader_one_event,
    ),
    (
        "readiness: an event against a short read",
        4,
        short_read_against_event,
    ),
    (
        "readiness: two readers, two messages",
        2,
        two_readers_two_messages,
    ),
    (
        "readiness: a waiter that leaves passes readiness on",
        2,
        a_leaver_passes_on,
    ),
];

/// A socket that holds messages, its readiness, and the queue of its readers.
struct Source {
    messages: AtomicUsize,
    word: ReadyWord,
    waiters: Mutex<Vec<Arc<Signal>>>,
}

impl Source {
    fn new() -> Arc<Source> {
        Arc::new(Source {
            messages: AtomicUsize::new(0),
            word: ReadyWord::new(),
            waiters: Mutex::new(Vec::new()),
        })
    }

    /// A message arrives, and some worker's poll tells its edge.
    fn arrive(&self) {
        self.messages.fetch_add(1, Ordering::AcqRel);
        if self.word.set(0) {
            self.wake_one();
        }
    }

    fn wake_one(&self) {
        let mut waiters = self.waiters.lock().unwrap();
        let first = (!waiters.is_empty()).then(|| waiters.remove(0));
        if first.is_none() {
            self.word.no_waiters();
        }
        drop(waiters);
        if let Some(first) = first {
            first.raise();
        }
    }

    /// One attempt to take a message.
    fn try_read(&self) -> bool {
        let take = |messages: usize| messages.checked_sub(1);
        self.messages
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take)
            .is_ok()
    }

    /// The I/O loop, as in `Operation::run_stream`.
    fn read(&self) {
        loop {
            let seen = self.word.observe();
            if seen.is_ready() {
                if self.try_read() {
                    self.pass_on();
                    return;
                }
                self.word.clear(seen);
                if self.word.observe().is_ready() {
                    continue;
                }
            }
            self.wait();
        }
    }

    fn pass_on(&self) {
        if self.word.is_left_for_a_waiter() {
            self.wake_one();
        }
    }

    fn wait(&self) {
        let woken = Arc::new(Signal::new());
        {
            let mut waiters = self.waiters.lock().unwrap();
            if self.word.is_ready_or_awaited() {
                return;
            }
            waiters.push(woken.clone());
        }
        woken.wait();
    }
}

fn one_reader_one_event() {
    let source = Source::new();
    let peer = thread::spawn({
        let source = source.clone();
        move || source.arrive()
    });
    source.read();
    peer.join().unwrap();
}

/// A reader that takes all there is clears READY by inference, without a failed attempt.
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

/// One edge for two messages: the first reader, done, wakes the second.
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
