//! Several coroutines together: joins and waits, groups, pools of resources, servers.

#[path = "../util/mod.rs"]
mod util;

mod group;
mod joins;
mod resource_pool;
mod server;

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts how many are inside at the same time.
#[derive(Debug, Default)]
struct Gauge {
    inside: AtomicUsize,
    entered: AtomicUsize,
    most: AtomicUsize,
}

impl Gauge {
    fn enter(&self) -> Inside<'_> {
        self.entered.fetch_add(1, Ordering::SeqCst);
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        Inside(self)
    }

    fn inside(&self) -> usize {
        self.inside.load(Ordering::SeqCst)
    }

    fn entered(&self) -> usize {
        self.entered.load(Ordering::SeqCst)
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

struct Inside<'a>(&'a Gauge);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}
