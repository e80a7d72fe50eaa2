//! How handlers that wait for a request learn that their server stops.
//!
//! # No handler waits through a stop
//!
//! A handler enlists its connection, then asks whether the stop has begun, and then waits. The stop sets
//! its flag, and then has all enlisted connections retried. The list has a lock. If the handler has enlisted
//! first, the stop finds the connection; its waits begin by asking again, or are woken to ask again. If the stop has
//! looked at the list first, the handler, which takes the lock after that, sees the flag.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use slab::Slab;

use super::Stream;
use crate::task;

/// Whether a server stops, and the connections whose handlers must hear of it.
pub(super) struct Stopping<S> {
    begun: AtomicBool,
    /// The connections on which a handler has waited for a request.
    waiting: Mutex<Slab<Weak<S>>>,
}

impl<S> Default for Stopping<S> {
    fn default() -> Stopping<S> {
        Stopping {
            begun: AtomicBool::new(false),
            waiting: Mutex::default(),
        }
    }
}

impl<S: Stream> Stopping<S> {
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Begins the stop, and wakes the handlers that wait for a request. Has no effect if the stop has begun.
    pub(super) fn begin(&self) {
        if self.begun.swap(true, Ordering::SeqCst) {
            return;
        }
        let waiting: Vec<_> = {
            let waiting = task::lock_aside(&self.waiting);
            waiting.iter().map(|(_, stream)| stream.clone()).collect()
        };
        // Not under the lock, for which a woken handler may come back at once.
        for stream in waiting.iter().filter_map(Weak::upgrade) {
            stream.retry_waits();
        }
    }

    /// Enlists a connection, until the returned value is dropped.
    pub(super) fn enlist(self: &Arc<Self>, stream: &Arc<S>) -> Enlisted<S> {
        let entry = task::lock_aside(&self.waiting).insert(Arc::downgrade(stream));
        Enlisted {
            stopping: Arc::clone(self),
            entry,
        }
    }
}

/// A connection that hears of the stop.
pub(super) struct Enlisted<S> {
    stopping: Arc<Stopping<S>>,
    entry: usize,
}

impl<S> Drop for Enlisted<S> {
    fn drop(&mut self) {
        let stream = task::lock_aside(&self.stopping.waiting).remove(self.entry);
        drop(stream);
    }
}
