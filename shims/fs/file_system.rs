//! Which file systems a worker may use itself.
//!
//! A file system that another process or a server on the network serves may take any time. A local file
//! system has recently used data in memory. Reading such data never waits, if the file system can be told
//! to read nothing else. A write waits only if the disk cannot keep up, and no call can find out
//! beforehand. So a worker does small writes itself, until some of them take long.
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::FileType;
use rustix::time::{ClockId, clock_gettime};

use crate::pool::unblock_borrowed;
use crate::sys::file::Identity;
use crate::sys::switches::voluntary;

/// The most bytes that a worker copies itself. Copying as many takes about as long as a job of the pool.
pub(crate) const AT_ONCE: usize = 512 << 10;

/// An operation on [`AT_ONCE`] bytes that takes longer has waited: for the file system, or for a processor.
const QUICK: Duration = Duration::from_millis(1);

/// After a slow operation, the pool does the work of workers for this many times as long as the operation
/// took.
const SPARED: u64 = 20;

/// What a descriptor leads to, which decides how to wait for it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Nature {
    /// A pipe or anything else that can be polled.
    Pipe,
    /// A file or directory of a local file system.
    Local(&'static FileSystem),
    /// Any other file.
    Elsewhere,
}

impl Nature {
    /// The nature of `fd`, if that is known without asking its file system.
    pub(crate) fn known(fd: BorrowedFd<'_>) -> Option<Nature> {
        let Ok(identity) = Identity::of(fd) else {
            // The descriptor is not open. The operation on the pool will fail and say so.
            return Some(Nature::Elsewhere);
        };
        match identity.kind {
            _ if identity.polls() => Some(Nature::Pipe),
            FileType::RegularFile | FileType::Directory => {
                let local = FileSystem::known(&identity)?;
                Some(local.map_or(Nature::Elsewhere, Nature::Local))
            }
            _ => Some(Nature::Elsewhere),
        }
    }

    /// The nature of `fd`. May block the thread to ask its file system.
    pub(crate) fn ask(fd: BorrowedFd<'_>) -> Nature {
        Nature::known(fd).unwrap_or_else(|| {
            FileSystem::get_to_know(fd);
            // Not known if another file system has taken the same entry of the table meanwhile.
            Nature::known(fd).unwrap_or(Nature::Elsewhere)
        })
    }

    /// The nature of `fd`. If its file system must be asked, the pool asks.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> Nature {
        Nature::known(fd).unwrap_or_else(|| unblock_borrowed(|| Nature::ask(fd)))
    }

    /// The nature as a number, which is never 0.
    pub(crate) fn to_number(self) -> u8 {
        match self {
            Nature::Pipe => PIPE,
            Nature::Elsewhere => ELSEWHERE,
            Nature::Local(file_system) => {
                let index = KNOWN
                    .iter()
                    .position(|known| std::ptr::eq(known, file_system));
                FIRST_LOCAL + index.expect("all file systems are in the table") as u8
            }
        }
    }

    /// The nature that [`to_number`](Nature::to_number) gives this number.
    pub(crate) fn from_number(number: u8) -> Option<Nature> {
        match number {
            PIPE => Some(Nature::Pipe),
            ELSEWHERE => Some(Nature::Elsewhere),
            _ => Some(Nature::Local(
                KNOWN.get(number.checked_sub(FIRST_LOCAL)? as usize)?,
            )),
        }
    }
}

const PIPE: u8 = 1;
const ELSEWHERE: u8 = 2;
const FIRST_LOCAL: u8 = 3;

/// What is known about a mounted file system: an entry of [`KNOWN`].
///
/// Another file system may take over the entry. Files of both then share the fields, which are only a
/// guess at how quick the file system is.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct FileSystem {
    /// The number of the mount, shifted left by one. The lowest bit says whether the file system is local.
    mount: AtomicU64,
    /// Whether paths to the file system have crossed other mounts.
    beyond_mounts: AtomicBool,
    /// The time, in nanoseconds, until which the thread's context switches are counted around each
    /// operation.
    suspect_until: AtomicU64,
    /// The time, in nanoseconds, until which workers leave operations to the pool.
    slow_until: AtomicU64,
}

/// The table of file systems, indexed by the mount number modulo the length. Mounts made one after another
/// have neighbouring numbers, so they get different entries.
static KNOWN: [FileSystem; 64] = [FileSystem::UNKNOWN; 64];

impl FileSystem {
    #[allow(
        clippy::declare_interior_mutable_const,
        reason = "each use is a new value"
    )]
    const UNKNOWN: FileSystem = FileSystem {
        mount: AtomicU64::new(0),
        beyond_mounts: AtomicBool::new(false),
        suspect_until: AtomicU64::new(0),
        slow_until: AtomicU64::new(0),
    };

    /// `Some(Some(file system))` if the file's file system is local, `Some(None)` if it is not, and `None`
    /// if that is not known yet.
    pub(crate) fn known(identity: &Identity) -> Option<Option<&'static FileSystem>> {
        let Some(mount) = identity.mount else {
            return Some(None);
        };
        let known = FileSystem::at(mount);
        let noted = known.mount.load(Ordering::Relaxed);
        (noted >> 1 == mount).then_some((noted & 1 == 1).then_some(known))
    }

    /// Finds out whether the file system of `fd` is local. May block the thread.
    pub(crate) fn get_to_know(fd: BorrowedFd<'_>) {
        let Ok(Identity {
            mount: Some(mount), ..
        }) = Identity::of(fd)
        else {
            return;
        };
        let local = rustix::fs::fstatfs(fd).is_ok_and(|told| is_local(told.f_type as u64));
        let noted = mount << 1 | u64::from(local);
        FileSystem::at(mount).mount.store(noted, Ordering::Relaxed);
    }

    /// Whether paths to the file system have crossed other mounts.
    pub(crate) fn is_beyond_mounts(&self) -> bool {
        self.beyond_mounts.load(Ordering::Relaxed)
    }

    pub(crate) fn note_beyond_mounts(&self) {
        self.beyond_mounts.store(true, Ordering::Relaxed);
    }

    /// The entry of a mount.
    fn at(mount: u64) -> &'static FileSystem {
        &KNOWN[(mount % KNOWN.len() as u64) as usize]
    }

    /// Runs an operation that may wait for this file system: on the worker if the operation concerns few
    /// bytes and the file system has been quick, otherwise on the pool.
    pub(crate) fn use_it<T: Send>(&self, bytes: usize, operation: impl FnOnce() -> T + Send) -> T {
        if bytes > AT_ONCE {
            return unblock_borrowed(operation);
        }
        let now = now();
        if now < self.slow_until.load(Ordering::Relaxed) {
            return unblock_borrowed(|| self.watch(self::now(), operation));
        }
        self.watch(now, operation)
    }

    /// Runs `operation` on the calling thread, and records whether the operation waits.
    fn watch<T>(&self, start: u64, operation: impl FnOnce() -> T) -> T {
        // An operation also takes long if its thread is preempted. Telling the two apart needs a system
        // call before the operation, which is made only if an operation has taken long recently.
        let suspect = start < self.suspect_until.load(Ordering::Relaxed);
        let switches = suspect.then(voluntary);
        let result = operation();
        let end = now();
        let took = end.saturating_sub(start);
        if took > QUICK.as_nanos() as u64 {
            let until = end.saturating_add(took.saturating_mul(SPARED));
            self.suspect_until.fetch_max(until, Ordering::Relaxed);
            if switches.is_some_and(|before| voluntary() > before) {
                self.slow_until.fetch_max(until, Ordering::Relaxed);
            }
        }
        result
    }
}

/// The monotonic time in nanoseconds.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Whether file systems of this kind, a magic number of statfs(2), are on disks or in the memory of this
/// machine. The layers of an overlay are assumed to be.
fn is_local(kind: u64) -> bool {
    const BCACHEFS: u64 = 0xca45_1a4e;
    const BTRFS: u64 = 0x9123_683e;
    const EXT: u64 = 0xef53;
    const F2FS: u64 = 0xf2f5_2010;
    const OVERLAY: u64 = 0x794c_7630;
    const RAMFS: u64 = 0x8584_58f6;
    const TMPFS: u64 = 0x0102_1994;
    const XFS: u64 = 0x5846_5342;
    const ZFS: u64 = 0x2fc1_2fc1;
    matches!(
        kind & 0xffff_ffff,
        BCACHEFS | BTRFS | EXT | F2FS | OVERLAY | RAMFS | TMPFS | XFS | ZFS
    )
}

#[cfg(test)]
mod tests {
    use std::thread::{self, sleep};

    use super::*;
    use crate::RuntimeBuilder;

    #[test]
    fn a_file_system_on_which_operations_wait_is_the_pools_for_a_while() {
        let file_system = FileSystem::UNKNOWN;
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        runtime.run(|| {
            let worker = thread::current().id();
            let is_done_here = |bytes, takes| {
                let done = file_system.use_it(bytes, || {
                    sleep(takes);
                    thread::current().id()
                });
                done == worker
            };
            let (nothing, long) = (Duration::ZERO, Duration::from_millis(50));
            assert!(is_done_here(AT_ONCE, nothing));
            assert!(!is_done_here(AT_ONCE + 1, long), "a long one says nothing");
            assert!(is_done_here(1, long), "this may have been preempted");
            assert!(is_done_here(1, long));
            assert!(!is_done_here(1, long));
            while !is_done_here(1, nothing) {
                sleep(Duration::from_millis(10));
            }
        });
    }

    #[test]
    fn each_nature_has_a_number() {
        assert!(Nature::from_number(0).is_none());
        for file_system in &KNOWN {
            let number = Nature::Local(file_system).to_number();
            let Some(Nature::Local(same)) = Nature::from_number(number) else {
                panic!("{number}");
            };
            assert!(std::ptr::eq(same, file_system));
        }
        for nature in [Nature::Pipe, Nature::Elsewhere] {
            let number = nature.to_number();
            assert_eq!(Nature::from_number(number).unwrap().to_number(), number);
        }
    }
}
