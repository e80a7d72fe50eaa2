//! A place where some wait for each other.

use ::std::fmt;
use ::std::sync::PoisonError;

use super::condvar::Condvar;
use super::mutex::Mutex;

/// Like [`std::sync::Barrier`], but waiting parks the coroutine.
pub struct Barrier {
    group: Mutex<Group>,
    left: Condvar,
    size: usize,
}

/// Those who are there.
struct Group {
    arrived: usize,
    /// Of the group.
    number: usize,
}

/// Like [`std::sync::BarrierWaitResult`], of which only std can make values.
pub struct BarrierWaitResult(bool);

impl Barrier {
    /// Like [`std::sync::Barrier::new`].
    #[must_use]
    #[inline]
    pub const fn new(n: usize) -> Barrier {
        Barrier {
            group: Mutex::new(Group {
                arrived: 0,
                number: 0,
            }),
            left: Condvar::new(),
            size: n,
        }
    }

    /// Like [`std::sync::Barrier::wait`], but parks the coroutine.
    pub fn wait(&self) -> BarrierWaitResult {
        let mut group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        group.arrived += 1;
        if group.arrived >= self.size {
            group.arrived = 0;
            group.number = group.number.wrapping_add(1);
            self.left.notify_all();
            return BarrierWaitResult(true);
        }
        let number = group.number;
        while group.number == number {
            let woken = self.left.wait(group);
            group = woken.unwrap_or_else(PoisonError::into_inner);
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
