//! The references to a task: `task/refs.rs`.

use super::refs::Refs;
use super::{Model, large, small};
use crate::check::atomic::{AtomicUsize, Ordering};
use crate::check::{Arc, UnsafeCell, thread};

pub(super) const MODELS: &[Model] = &[
    small("counting: a pair", 3, || let_go_of_all(2, 0)),
    small("counting: a pair, and one more of each", 3, || {
        let_go_of_all(2, 1)
    }),
    large("counting: five, and three more of each", || {
        let_go_of_all(5, 3)
    }),
];

/// A value that is used through references, and freed with the last of them.
struct Counted {
    refs: Refs,
    uses: AtomicUsize,
    used: UnsafeCell<usize>,
    freed: AtomicUsize,
}

// SAFETY: the cell panics if two threads use the value at the same time, and one of them writes.
unsafe impl Sync for Counted {}
// SAFETY: the value is a number, which may be sent to other threads.
unsafe impl Send for Counted {}

impl Counted {
    /// Uses the value through a reference, and drops the reference.
    fn use_and_let_go(&self) {
        // SAFETY: the cell has checked that nobody writes.
        self.used.with(|used| unsafe { *used });
        self.uses.fetch_add(1, Ordering::Relaxed);
        if self.refs.let_go() {
            // SAFETY: the cell has checked that nobody else uses the value.
            self.used.with_mut(|used| unsafe { *used = 1 });
            // This load sees all uses, because they happened before the last reference was dropped.
            let uses = self.uses.load(Ordering::Relaxed);
            assert_eq!(self.freed.fetch_add(uses, Ordering::Relaxed), 0);
        }
    }
}

/// `count` threads have a reference each. Each thread makes `more` references, and drops all of its
/// own.
fn let_go_of_all(count: usize, more: usize) {
    let counted = Arc::new(Counted {
        refs: Refs::new(count),
        uses: AtomicUsize::new(0),
        used: UnsafeCell::new(0),
        freed: AtomicUsize::new(0),
    });
    let turn = move |counted: &Counted| {
        for _ in 0..more {
            assert!(counted.refs.another());
        }
        (0..=more).for_each(|_| counted.use_and_let_go());
    };
    let others: Vec<_> = (1..count)
        .map(|_| {
            let counted = counted.clone();
            thread::spawn(move || turn(&counted))
        })
        .collect();
    turn(&counted);
    for other in others {
        other.join().unwrap();
    }
    let freed = counted.freed.load(Ordering::Relaxed);
    assert_eq!(
        freed,
        count * (more + 1),
        "freed once, with the last reference"
    );
}
