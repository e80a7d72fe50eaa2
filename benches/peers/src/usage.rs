//! CPU time, memory and OS threads.

use std::fs;
use std::io;
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
        Usage::of(libc::RUSAGE_SELF)
    }

    /// That of all child processes that have ended and were waited for.
    pub(crate) fn children() -> Usage {
        Usage::of(libc::RUSAGE_CHILDREN)
    }

    fn of(processes: libc::c_int) -> Usage {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: `usage` has room for the `rusage` that the kernel writes. `usage` is initialised
        // even without this write, because all zeros are a valid `rusage`.
        let usage = unsafe {
            libc::getrusage(processes, usage.as_mut_ptr());
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

/// The CPU time that a process has used so far, in ns.
pub(crate) fn cpu_time(process: u32) -> io::Result<f64> {
    let mut clock = 0;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both calls write to the variable that they get a pointer to, and have no other effect.
    unsafe {
        match libc::clock_getcpuclockid(process as libc::pid_t, &mut clock) {
            0 => {}
            error => return Err(io::Error::from_raw_os_error(error)),
        }
        if libc::clock_gettime(clock, &mut time) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(time.tv_sec as f64 * 1e9 + time.tv_nsec as f64)
}

/// The resident memory of a process, which is `self` or a number. Exact, unlike that in `status`. `None` if
/// the process has ended.
pub(crate) fn resident_bytes(process: &str) -> Option<f64> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    Some(number(&rollup, "Rss:")? * 1024.0)
}

/// The most bytes that were resident so far, and the OS threads that there are. `None` if the process has
/// ended.
pub(crate) fn peak_and_threads(process: &str) -> Option<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    Some((
        number(&status, "VmHWM:")? * 1024.0,
        number(&status, "Threads:")?,
    ))
}

/// The number in the line that begins with `name`.
fn number(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}
