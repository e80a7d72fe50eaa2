//! A barrier.
#![forbid(unsafe_code)]

use ::std::fmt;
use ::std::sync::PoisonError;

use super::condvar::Condvar;
use super::mutex::Mutex;

/// Like [`std::sync::Barrier`], but waiting parks the coroutine.
pub struct Barrier {
    arrivals: Mutex<Arrivals>,
    /// Notified when the last of a generation has arrived.
    complete: Condvar,
    size: usize,
}

struct Arrivals {
    /// How many of the current generation have arrived.
    arrived: usize,
    /// How often the barrier has let a group through.
    generation: usize,
}

/// Like [`std::sync::BarrierWaitResult`], which only std can construct.
pub struct BarrierWaitResult(bool);

impl Barrier {
    /// Like [`std::sync::Barrier::new`].
    #[must_use]
    #[inline]
    pub const fn new(n: usize) -> Barrier {
        Barrier {
            arrivals: Mutex::new(Arrivals {
                arrived: 0,
                generation: 0,
            }),
            complete: Condvar::new(),
            size: n,
        }
    }

    /// Like [`std::sync::Barrier::wait`], but parks the coroutine.
    pub fn wait(&self) -> BarrierWaitResult {
        let arrivals = self.arrivals.lock();
        let mut arrivals = arrivals.unwrap_or_else(PoisonError::into_inner);
        arrivals.arrived += 1;
        if arrivals.arrived >= self.size {
            arrivals.arrived = 0;
            arrivals.generation = arrivals.generation.wrapping_add(1);
            self.complete.notify_all();
            return BarrierWaitResult(true);
        }
        let generation = arrivals.generation;
        while arrivals.generation == generation {
            let woken = self.complete.wait(arrivals);
            arrivals = woken.unwrap_or_else(PoisonError::into_inner);
        }
        BarrierWaitResult(false)
    }
}

impl BarrierWaitResult {
    /// Like [`std::sync::BarrierWaitResult::is_leader`].
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.0
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier").finish_non_exhaustive()
    }
}

impl fmt::Debug for BarrierWaitResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BarrierWaitResult")
            .field("is_leader", &self.is_leader())
            .finish()
    }
}
