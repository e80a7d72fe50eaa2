//! CPU time.

use std::mem::MaybeUninit;
use std::ops::Sub;

/// The CPU time of a process, in ns.
///
/// The total is precise. The kernel splits the total into user and system time by samples that it
/// takes at its ticks (most often, 250 a second).
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Usage {
    pub(crate) fn own() -> Usage {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: `usage` has room for the `rusage` that the kernel writes. `usage` is initialised
        // even without this write, because all zeros are a valid `rusage`.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
            usage.assume_init()
        };
        let ns = |time: libc::timeval| time.tv_sec as f64 * 1e9 + time.tv_usec as f64 * 1e3;
        Usage {
            user: ns(usage.ru_utime),
            system: ns(usage.ru_stime),
        }
    }

    pub(crate) fn total(self) -> f64 {
        self.user + self.system
    }
}

impl Sub for Usage {
    type Output = Usage;

    fn sub(self, before: Usage) -> Usage {
        Usage {
            user: self.user - before.user,
            system: self.system - before.system,
        }
    }
}
