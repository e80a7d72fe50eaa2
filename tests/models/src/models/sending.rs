//! A queue that is emptied in turns: `runtime/writing.rs`, with a channel of `channel`.
//!
//! A thread stands for each sender, and one for the coroutine of each turn.

use super::channel::{Receiver, Sender, channel};
use super::writing::Writing;
use super::{Model, large, small};
use crate::check::{Arc, UnsafeCell, thread};

pub(super) const MODELS: &[Model] = &[
    small("sending: two senders", 2, || send(&[1, 1], false)),
    small("sending: a sender against the end of a turn", 3, || {
        send(&[2], false);
    }),
    small(
        "sending: a sender against a turn that is dropped",
        3,
        || {
            send(&[2], true);
        },
    ),
    large("sending: many senders", || send(&[4, 2, 5], false)),
    large("sending: many senders, and turns that are dropped", || {
        send(&[4, 2, 5], true);
    }),
];

/// An item: the number of its sender, and its own number there.
type Item = (usize, usize);

struct Queue {
    writing: Writing,
    items: Receiver<Item>,
    /// What turns have taken. The cell panics if two turns are under way at the same time.
    taken: UnsafeCell<Vec<Item>>,
}

// SAFETY: the cell panics if two threads use it at the same time, and the rest is `Sync`.
unsafe impl Sync for Queue {}
// SAFETY: all parts may be sent to other threads.
unsafe impl Send for Queue {}

impl Queue {
    fn turn(&self, is_dropped: bool) {
        if is_dropped {
            // It unwinds amid its work. The drop of the turn goes on.
            self.take();
        }
        let is_empty = || self.items.channel().len() == 0;
        self.writing.run(is_empty, || while self.take() {});
    }

    /// Takes an item. Returns false if there is none.
    fn take(&self) -> bool {
        self.taken.with_mut(|taken| match self.items.try_recv() {
            Ok(item) => {
                // SAFETY: the cell has checked that no other access is under way.
                unsafe { (*taken).push(item) };
                true
            }
            Err(_) => false,
        })
    }
}

/// Sends an item. If that begins a turn, returns the turn's thread.
fn put(
    queue: &Arc<Queue>,
    sender: &Sender<Item>,
    item: Item,
    is_dropped: bool,
) -> Option<thread::JoinHandle<()>> {
    sender.send(item).unwrap();
    queue.writing.begin().then(|| {
        let queue = queue.clone();
        thread::spawn(move || queue.turn(is_dropped))
    })
}

/// One sender for each number in `each` sends that many items. Each item is taken by a turn, and those of
/// one sender in order.
fn send(each: &'static [usize], is_dropped: bool) {
    let (sender, items) = channel(usize::MAX);
    let queue = Arc::new(Queue {
        writing: Writing::new(),
        items,
        taken: UnsafeCell::new(Vec::new()),
    });
    let start = |name: usize| {
        let (queue, sender) = (queue.clone(), Sender::clone(&sender));
        move || {
            let put = |number| put(&queue, &sender, (name, number), is_dropped);
            (0..each[name]).filter_map(put).collect::<Vec<_>>()
        }
    };
    let others: Vec<_> = (1..each.len())
        .map(|name| thread::spawn(start(name)))
        .collect();
    let mut turns = start(0)();
    for other in others {
        turns.extend(other.join().unwrap());
    }
    for turn in turns {
        turn.join().unwrap();
    }
    let mut taken = queue.taken.with_mut(|taken| {
        // SAFETY: the other threads have ended.
        std::mem::take(unsafe { &mut *taken })
    });
    // A stable sort: the items of one sender stay in the order in which they were taken.
    taken.sort_by_key(|&(name, _)| name);
    let sent = each.iter().enumerate();
    let sent = sent.flat_map(|(name, &count)| (0..count).map(move |number| (name, number)));
    assert!(taken.into_iter().eq(sent), "each item is taken once");
}
