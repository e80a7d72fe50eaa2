//! Address space for stacks: reserved in one piece, backed by memory only where it is touched.

use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// `MADV_GUARD_INSTALL` (Linux 6.13): makes a range fault when touched without splitting its
/// mapping, so that a million guards cost page-table entries instead of mappings.
const MADV_GUARD_INSTALL: libc::c_int = 102;

/// The size of a page in bytes.
pub(crate) fn page_size() -> usize {
    static PAGE: OnceLock<usize> = OnceLock::new();
    *PAGE.get_or_init(|| {
        // SAFETY: sysconf has no preconditions.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).expect("the page size is positive")
    })
}

/// Has the processor fetch the cache line of `address` ahead of its use, where it can. Any address
/// will do: this is no access.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE, which every x86-64 has; a prefetch of whatever address has no effect but on
        // caches.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// How the guards of stacks are made on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuardKind {
    /// `madvise(MADV_GUARD_INSTALL)`: no extra mapping.
    Advice,
    /// `mprotect(PROT_NONE)`: two mappings a guard, of which a process has about 65,000.
    Protection,
}

/// Whether guards by advice are known to fail in this process (old kernel, locked memory).
static ADVICE_FAILED: AtomicBool = AtomicBool::new(false);

impl GuardKind {
    /// The cheapest kind that has not failed yet.
    pub(crate) fn preferred() -> GuardKind {
        if ADVICE_FAILED.load(Ordering::Relaxed) {
            GuardKind::Protection
        } else {
            GuardKind::Advice
        }
    }
}

/// Reserves `len` bytes of readable and writable address space, without committing memory, and
/// returns its lowest address.
///
/// Where a stack has been it is never unmapped: one that has started and not completed must stay
/// where it is for as long as the process lives. What comes back is its memory (see [`discard`]),
/// not its addresses.
///
/// # Errors
///
/// The kernel's: out of address space (`RLIMIT_AS`), or of mappings.
pub(crate) fn reserve(len: usize) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches nothing.
    let base = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // A stack that touches one page must not be given 2 MiB. Where the kernel has no huge pages
    // the advice fails, and there is nothing to prevent.
    // SAFETY: the range is the mapping just made.
    unsafe { libc::madvise(base, len, libc::MADV_NOHUGEPAGE) };
    Ok(base as usize)
}

/// Gives back a range of whole pages that no stack was ever in.
///
/// # Safety
///
/// The range lies in memory from [`reserve`], and nobody uses it, now or later.
pub(crate) unsafe fn release(start: usize, len: usize) {
    // At the limit of mappings this can fail, if it splits one; the addresses are lost then.
    // SAFETY: the caller's range is its own, and unused.
    unsafe { libc::munmap(start as *mut libc::c_void, len) };
}

/// Makes a range of whole pages fault when it is touched, and returns how: by advice only if that
/// is asked for and the kernel has it.
///
/// # Errors
///
/// The kernel's, when neither kind of guard can be had.
///
/// # Safety
///
/// The range lies in memory from [`reserve`], and holds nothing that is in use.
pub(crate) unsafe fn guard(start: usize, len: usize, kind: GuardKind) -> io::Result<GuardKind> {
    let start = start as *mut libc::c_void;
    if kind == GuardKind::Advice {
        // SAFETY: the caller's range is its own, and unused.
        if unsafe { libc::madvise(start, len, MADV_GUARD_INSTALL) } == 0 {
            return Ok(GuardKind::Advice);
        }
        ADVICE_FAILED.store(true, Ordering::Relaxed);
    }
    // SAFETY: as above.
    if unsafe { libc::mprotect(start, len, libc::PROT_NONE) } == 0 {
        return Ok(GuardKind::Protection);
    }
    Err(io::Error::last_os_error())
}

/// Makes ranges of whole pages fault when they are touched, by advice, all at once; returns whether
/// that was done. If not, some may be done already.
///
/// # Safety
///
/// As [`guard`], for each range.
pub(crate) unsafe fn guard_all(ranges: impl Iterator<Item = (usize, usize)>) -> bool {
    // SAFETY: the advice changes nothing but these ranges, which are unused.
    unsafe { advise_all(ranges, MADV_GUARD_INSTALL) }
}

/// Gives the memory behind ranges of whole pages back; it reads as zeroes afterwards.
///
/// # Safety
///
/// The ranges lie in memory from [`reserve`], and hold nothing that is in use.
pub(crate) unsafe fn discard_all(ranges: impl Iterator<Item = (usize, usize)> + Clone) {
    // SAFETY: the advice changes nothing but these ranges, which are unused.
    if !unsafe { advise_all(ranges.clone(), libc::MADV_DONTNEED) } {
        for (start, len) in ranges {
            // The advice can fail on locked memory, which then simply stays resident.
            // SAFETY: as above.
            unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED) };
        }
    }
}

/// Gives an advice for many ranges by few system calls; returns whether it was all taken. For each
/// call has its price: page tables to lock, and other processors to tell.
///
/// # Safety
///
/// The advice may be given for each of the ranges.
unsafe fn advise_all(ranges: impl Iterator<Item = (usize, usize)>, advice: libc::c_int) -> bool {
    /// Names the calling process where a pidfd is asked for (Linux 6.14).
    const PIDFD_SELF: libc::c_int = -10_000;
    /// Whether the kernel has no such call, or refuses it: before 6.13, or in a sandbox.
    static REFUSED: AtomicBool = AtomicBool::new(false);
    const MOST: usize = 64;

    let mut ranges = ranges.peekable();
    while ranges.peek().is_some() {
        if REFUSED.load(Ordering::Relaxed) {
            return false;
        }
        let (mut table, mut count, mut bytes) = ([EMPTY; MOST], 0, 0);
        for (entry, (start, len)) in table.iter_mut().zip(ranges.by_ref()) {
            entry.iov_base = start as *mut libc::c_void;
            entry.iov_len = len;
            count += 1;
            bytes += len;
        }
        // SAFETY: the table has `count` entries, and what they name may be advised so.
        let advised = unsafe {
            let call = libc::SYS_process_madvise;
            libc::syscall(call, PIDFD_SELF, table.as_ptr(), count, advice, 0_u32)
        };
        if advised < 0 {
            // Of locked memory it takes some kinds of advice and not others.
            let kernel = io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL);
            REFUSED.fetch_or(kernel, Ordering::Relaxed);
        }
        if usize::try_from(advised) != Ok(bytes) {
            return false;
        }
    }
    true
}

const EMPTY: libc::iovec = libc::iovec {
    iov_base: ptr::null_mut(),
    iov_len: 0,
};
