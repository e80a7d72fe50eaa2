use std::cell::RefCell;
use std::pin::Pin;

use super::*;

/// A waiter of a test.
struct QueuedWaiter {
    node: LotNode<&'static TestWait>,
    wait: &'static TestWait,
}

struct TestWait {
    id: usize,
    /// The wait has ended, by a wake or otherwise.
    ended: Cell<bool>,
    runs_at_once: bool,
}

thread_local! {
    /// The waiters that were scheduled, in this order.
    static SCHEDULED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

impl LotWaiter for &'static TestWait {
    unsafe fn end(self) -> bool {
        !self.ended.replace(true)
    }

    unsafe fn runs_at_once(self) -> bool {
        self.runs_at_once
    }

    unsafe fn schedule(self) {
        assert!(self.ended.get());
        SCHEDULED.with_borrow_mut(|scheduled| scheduled.push(self.id));
    }
}

/// A queue that does the same as a bucket in a simple way: all waiters, the first in line first.
#[derive(Default)]
struct Plain(Vec<PlainWaiter>);

#[derive(Clone, Copy)]
struct PlainWaiter {
    id: usize,
    address: usize,
    owner: u32,
    note: u32,
    runs_at_once: bool,
    ended: bool,
}

impl Plain {
    fn wake_first_of(
        &mut self,
        address: usize,
        of: impl Fn(u32) -> bool,
        wanted: impl Fn(u32) -> bool,
    ) -> Option<PlainWaiter> {
        loop {
            let is_first = |waiter: &PlainWaiter| waiter.address == address && of(waiter.owner);
            let first = self.0.iter().position(is_first)?;
            if !wanted(self.0[first].note) {
                return None;
            }
            let waiter = self.0.remove(first);
            if !waiter.ended {
                return Some(waiter);
            }
        }
    }

    fn wake_of_other_owners(&mut self, address: usize, woken: &mut Vec<PlainWaiter>) {
        loop {
            let mut owners: Vec<u32> = woken.iter().map(|waiter| waiter.owner).collect();
            owners.sort_unstable();
            owners.dedup();
            let enough = owners.len() == BusyOwners::MOST;
            if enough || woken.iter().any(|waiter| waiter.runs_at_once) {
                return;
            }
            let of = |owner| !owners.contains(&owner);
            let Some(waiter) = self.wake_first_of(address, of, |_| true) else {
                return;
            };
            woken.push(waiter);
        }
    }
}

/// Numbers that look random: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// Takes the waiters that were scheduled since the last call; they may go now.
fn scheduled(waiting: &mut Vec<Pin<Box<QueuedWaiter>>>) -> Vec<usize> {
    let scheduled = SCHEDULED.take();
    waiting.retain(|waiting| !scheduled.contains(&waiting.wait.id));
    scheduled
}

fn ids(woken: &[PlainWaiter]) -> Vec<usize> {
    woken.iter().map(|waiter| waiter.id).collect()
}

fn random_use(seed: u64, owners: usize) {
    let words = [0_u32; 7];
    let mut random = Random(seed);
    let bucket = Bucket::new(Mutex::new(BucketState::new()));
    let mut plain = Plain::default();
    let mut waiting: Vec<Pin<Box<QueuedWaiter>>> = Vec::new();
    for id in 0..if cfg!(miri) { 200 } else { 5_000 } {
        let address = random.below(words.len());
        let key = LotKey::of(&words[address]);
        match random.below(10) {
            0..5 => {
                let waiter = PlainWaiter {
                    id,
                    address,
                    owner: random.below(owners) as u32,
                    note: random.below(4) as u32,
                    runs_at_once: random.below(4) == 0,
                    ended: false,
                };
                let wait = Box::leak(Box::new(TestWait {
                    id,
                    ended: Cell::new(false),
                    runs_at_once: waiter.runs_at_once,
                }));
                let node = LotNode::new(key, waiter.note, waiter.owner);
                let new = Box::pin(QueuedWaiter { node, wait });
                let in_front = random.below(3) == 0;
                // SAFETY: the node is new, and in a box that is kept until it was woken or has left.
                assert!(unsafe { bucket.enter(&new.node, in_front, || Some(new.wait)) });
                waiting.push(new);
                plain
                    .0
                    .insert(if in_front { 0 } else { plain.0.len() }, waiter);
            }
            5 if !waiting.is_empty() => {
                // One times out; it may leave at once or later.
                let index = random.below(waiting.len());
                let id = waiting[index].wait.id;
                waiting[index].wait.ended.set(true);
                if random.below(2) == 0 {
                    bucket.leave(&waiting.remove(index).node);
                    plain.0.retain(|waiter| waiter.id != id);
                } else if let Some(waiter) = plain.0.iter_mut().find(|waiter| waiter.id == id) {
                    waiter.ended = true;
                }
            }
            6 if random.below(20) == 0 => {
                bucket.wake_all();
                let mut all: Vec<_> = plain.0.drain(..).filter(|waiter| !waiter.ended).collect();
                all.sort_unstable_by_key(|waiter| waiter.id);
                let mut woken = scheduled(&mut waiting);
                woken.sort_unstable();
                assert_eq!(woken, ids(&all));
            }
            6 => {
                let wanted = |note| note != 0;
                let woken = bucket.wake(key, |queue| queue.wake_first_if(wanted));
                let first = plain.wake_first_of(address, |_| true, wanted);
                assert_eq!(woken, first.map(|waiter| waiter.note));
                assert_eq!(scheduled(&mut waiting), ids(first.as_slice()));
            }
            _ => {
                let mut woken: Vec<PlainWaiter> = Vec::new();
                let empty = bucket.wake(key, |queue| {
                    queue.wake_first();
                    queue.wake_of_other_owners();
                    queue.is_empty()
                });
                woken.extend(plain.wake_first_of(address, |_| true, |_| true));
                plain.wake_of_other_owners(address, &mut woken);
                assert_eq!(scheduled(&mut waiting), ids(&woken));
                let any_left = plain.0.iter().any(|waiter| waiter.address == address);
                assert_eq!(empty, !any_left);
            }
        }
    }
    waiting
        .iter()
        .for_each(|waiting| bucket.leave(&waiting.node));
}

#[test]
fn a_bucket_wakes_the_same_waiters_as_a_plain_queue_does() {
    for seed in 1..if cfg!(miri) { 3 } else { 20 } {
        for owners in [1, 2, 3, 12] {
            random_use(0x9e37_79b9_7f4a_7c15 ^ seed, owners);
        }
    }
}

#[test]
fn what_a_waker_tells_reaches_the_waiters_that_it_has_woken() {
    let word = 0_u32;
    let key = LotKey::of(&word);
    let bucket = Bucket::new(Mutex::new(BucketState::new()));
    let wait = Box::leak(Box::new(TestWait {
        id: 0,
        ended: Cell::new(false),
        runs_at_once: false,
    }));
    let node = LotNode::new(key, 7, 0);
    let later = LotNode::new(key, 8, 0);
    // SAFETY: both are new, and leave the bucket below.
    unsafe {
        assert!(!bucket.enter(&later, false, || None));
        bucket.enter(&node, false, || Some(&*wait));
    }
    bucket.wake(key, |queue| {
        assert_eq!(queue.wake_first(), Some(7));
        queue.tell(1);
        queue.tell(4);
        assert!(queue.is_empty());
    });
    assert_eq!(node.token(), 5);
    assert_eq!(later.token(), 0);
    assert_eq!(SCHEDULED.take(), [0]);
}
