//! A priority queue of moments, most of which are far away.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::mem;

/// Nanoseconds since some origin. The last value, after 584 years, stands for all later moments.
pub(super) type Moment = u64;

/// An item that is ordered by its moment first.
pub(super) trait Timed: Ord + Copy {
    /// The moment at which the item is due.
    fn moment(self) -> Moment;
}

/// A window of time is 2^24 ns (17 ms) long.
const WINDOW_BITS: u32 = 24;

/// Keeps the items of the nearest windows in a heap. The other items are unordered, in a list for each
/// window. When the heap is empty, the list of the next window becomes the heap.
///
/// So pushing and popping a few among very many items touches little memory.
#[derive(Debug)]
pub(super) struct MomentQueue<T> {
    /// All items before `next_window`. `Reverse`, since the standard heap has the largest item on top.
    near: BinaryHeap<Reverse<T>>,
    /// Items of earlier windows are in `near`, items of this window and later ones in `far`.
    next_window: u64,
    /// The items of each later window, which is never empty.
    far: BTreeMap<u64, Vec<Reverse<T>>>,
    /// The number of items in `far`.
    far_len: usize,
}

impl<T: Timed> MomentQueue<T> {
    pub(super) fn new() -> MomentQueue<T> {
        MomentQueue {
            near: BinaryHeap::new(),
            next_window: 0,
            far: BTreeMap::new(),
            far_len: 0,
        }
    }

    /// The number of items.
    pub(super) fn len(&self) -> usize {
        self.near.len() + self.far_len
    }

    /// Adds an item. Most items are far away, and only appended to a list.
    pub(super) fn push(&mut self, item: T) {
        let window = item.moment() >> WINDOW_BITS;
        if window < self.next_window {
            self.near.push(Reverse(item));
        } else {
            self.far.entry(window).or_default().push(Reverse(item));
            self.far_len += 1;
        }
    }

    /// The first item.
    pub(super) fn peek(&mut self) -> Option<T> {
        if self.near.is_empty() {
            // The nearest window becomes the heap. Building a heap of a list takes linear time.
            let (window, items) = self.far.pop_first()?;
            self.far_len -= items.len();
            self.next_window = window + 1;
            self.near = BinaryHeap::from(items);
        }
        self.near.peek().map(|&Reverse(first)| first)
    }

    /// Takes the first item.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.peek()?;
        self.near.pop().map(|Reverse(first)| first)
    }

    /// Takes the first item, if its moment is not after `last`.
    pub(super) fn pop_until(&mut self, last: Moment) -> Option<T> {
        (self.peek()?.moment() <= last)
            .then(|| self.near.pop())
            .flatten()
            .map(|Reverse(first)| first)
    }

    /// Gives back the memory that a burst has left unused.
    pub(super) fn shrink(&mut self) {
        self.near.shrink_to_fit();
        for items in self.far.values_mut() {
            items.shrink_to_fit();
        }
    }

    /// Removes all items for which `keep` returns false.
    pub(super) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        let keep = |item: &Reverse<T>| keep(&item.0);
        self.near.retain(keep);
        // Rebuilt, since a window without items must not stay: `peek` would make it an empty heap.
        for (window, mut items) in mem::take(&mut self.far) {
            self.far_len -= items.len();
            items.retain(keep);
            self.far_len += items.len();
            if !items.is_empty() {
                self.far.insert(window, items);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Timed for (Moment, u32) {
        fn moment(self) -> Moment {
            self.0
        }
    }

    /// Pseudo-random moments below `range`, the same each time. The second number counts them.
    fn scattered(count: u32, range: u64) -> impl Iterator<Item = (Moment, u32)> {
        let mut state = 1_u64;
        (0..count).map(move |order| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((state >> 20) % range, order)
        })
    }

    #[test]
    fn pop_until_takes_items_up_to_a_moment_and_keeps_the_rest() {
        let mut queue = MomentQueue::new();
        for moment in [5, 1 << 40, 3, 1 << 30] {
            queue.push((moment, 0));
        }
        let popped: Vec<_> = std::iter::from_fn(|| queue.pop_until(1 << 30)).collect();
        assert_eq!(popped, [(3, 0), (5, 0), (1 << 30, 0)]);
        assert_eq!(queue.pop(), Some((1 << 40, 0)));
        assert_eq!(queue.pop_until(Moment::MAX), None);
    }

    #[test]
    fn items_are_popped_in_order_however_far_apart_they_are() {
        for range in [1, 1_000, 1 << WINDOW_BITS, 1 << 34, u64::MAX] {
            let mut queue = MomentQueue::new();
            let mut items: Vec<_> = scattered(2_000, range).collect();
            items.extend([(0, 2_000), (Moment::MAX, 2_001), (Moment::MAX, 2_002)]);
            items.iter().for_each(|&item| queue.push(item));
            assert_eq!(queue.len(), items.len());
            items.sort_unstable();
            let popped: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
            assert_eq!(popped, items);
            assert_eq!(queue.len(), 0);
        }
    }

    #[test]
    fn an_item_that_is_pushed_between_pops_is_popped_in_order() {
        let mut queue = MomentQueue::new();
        let mut sorted = std::collections::BTreeSet::new();
        let mut popped = 0;
        for item in scattered(5_000, 1 << 30) {
            queue.push(item);
            sorted.insert(item);
            if item.1 % 3 == 0 {
                assert_eq!(queue.peek(), sorted.first().copied());
                assert_eq!(queue.pop(), sorted.pop_first());
                popped += 1;
            }
        }
        assert!(popped > 1_000);
        assert_eq!(queue.len(), sorted.len());
        assert!(std::iter::from_fn(|| queue.pop()).eq(sorted));
    }

    #[test]
    fn retain_removes_the_other_items() {
        let mut queue = MomentQueue::new();
        let items: Vec<_> = scattered(1_000, 1 << 32).collect();
        items.iter().for_each(|&item| queue.push(item));
        queue.peek();
        queue.retain(|item| item.1 % 4 == 0);
        assert_eq!(queue.len(), 250);
        let popped: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        let mut left: Vec<_> = items.into_iter().filter(|item| item.1 % 4 == 0).collect();
        left.sort_unstable();
        assert_eq!(popped, left);
    }
}
