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

/// What is used through references, and freed with the last.
struct Counted {
    refs: Refs,
    uses: AtomicUsize,
    used: UnsafeCell<usize>,
    freed: AtomicUsize,
}

// SAFETY: the cell checks that nobody changes it meanwhile.
unsafe impl Sync for Counted {}
// SAFETY: as above.
unsafe impl Send for Counted {}

impl Counted {
    /// What the holder of a reference does.
    fn use_and_let_go(&self) {
        // SAFETY: it is checked that nobody frees it.
        self.used.with(|used| unsafe { *used });
        self.uses.fetch_add(1, Ordering::Relaxed);
        if self.refs.let_go() {
            // SAFETY: it is checked that nobody uses it.
            self.used.with_mut(|used| unsafe { *used = 1 });
            // Seen, because all that others did happened before.
            let uses = self.uses.load(Ordering::Relaxed);
            assert_eq!(self.freed.fetch_add(uses, Ordering::Relaxed), 0);
        }
    }
}

/// As many threads as references, each of which makes `more`.
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
    assert_eq!(freed, count * (more + 1), "freed once, by the last");
}
