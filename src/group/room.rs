//! A limited number of places, given out in the order in which they were asked for.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Instant;

use crate::sync::Semaphore;

/// The places.
#[derive(Debug)]
pub(super) struct Room {
    limit: usize,
    free: Semaphore,
}

impl Room {
    pub(super) fn new(limit: usize) -> Arc<Room> {
        Arc::new(Room {
            limit,
            free: Semaphore::new(limit),
        })
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether all places are taken.
    pub(super) fn is_full(&self) -> bool {
        self.free.available_permits() == 0
    }

    /// Takes a place, if one is free and nobody waits for it.
    pub(super) fn try_enter(self: &Arc<Room>) -> Option<Place> {
        self.free.try_acquire()?.forget();
        Some(Place(Arc::clone(self)))
    }

    /// Takes a place. Waits for it.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub(super) fn enter(self: &Arc<Room>) -> Place {
        self.free.acquire().forget();
        Place(Arc::clone(self))
    }

    /// Takes a place. `None` if none was free before `deadline`.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub(super) fn enter_until(self: &Arc<Room>, deadline: Instant) -> Option<Place> {
        self.free.acquire_deadline(deadline)?.forget();
        Some(Place(Arc::clone(self)))
    }
}

/// A place in a [`Room`], which is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Room>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.free.add_permits(1);
    }
}
