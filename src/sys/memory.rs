//! Address space for stacks: reserved in one piece, backed by memory only where it is touched.

use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// `MADV_GUARD_INSTALL` (Linux 6.13): makes a range fault when touched without splitting its
/// mapping, so that a million guards cost page-table entries instead of mappings.
const MADV_GUARD_INSTALL: libc::c_int = 102;

/// The bytes that a processor's caches fetch at once.
pub(crate) const CACHE_LINE: usize = 64;

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

/// As [`prefetch`], for the cache lines that `value` lies in: the first few of them.
#[inline(always)]
pub(crate) fn prefetch_all<T: ?Sized>(value: &T) {
    const MOST: usize = 256;
    let start = ptr::from_ref(value).cast::<u8>();
    let len = size_of_val(value).clamp(1, MOST);
    for offset in (0..len).step_by(CACHE_LINE) {
        prefetch(start.wrapping_add(offset));
    }
    // It may not begin with a line.
    prefetch(start.wrapping_add(len - 1));
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

/// Gives back a range of whole pages that no stack of a coroutine was ever in.
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

/// The pages that have memory behind them among a range of whole pages: their addresses, lowest
/// first. Where the kernel gives no answer, none.
pub(crate) fn resident_pages(start: usize, len: usize) -> impl Iterator<Item = usize> {
    /// Few, because this may run on the smallest of stacks.
    const AT_ONCE: usize = 512;
    let page = page_size();
    let end = start + len;
    (start..end).step_by(AT_ONCE * page).flat_map(move |start| {
        let len = (AT_ONCE * page).min(end - start);
        let mut states = [0_u8; AT_ONCE];
        // SAFETY: the kernel writes a byte for each of the range's pages, for which there is room;
        // of the range itself it touches nothing, mapped or not.
        let answered = unsafe { libc::mincore(start as *mut _, len, states.as_mut_ptr()) } == 0;
        let pages = if answered { len / page } else { 0 };
        (0..pages)
            .filter(move |&index| states[index] & 1 == 1)
            .map(move |index| start + index * page)
    })
}

/// The most pages that [`perhaps_resident`] is asked about.
pub(crate) const PAGES_AT_ONCE: usize = u64::BITS as usize;

/// Which of some pages may have memory behind them: bit by bit, the first one lowest. One system
/// call tells of all of them, wherever they are; of a kernel without it, or in a sandbox that
/// refuses it, each may.
pub(crate) fn perhaps_resident(pages: &[usize]) -> u64 {
    static REFUSED: AtomicBool = AtomicBool::new(false);
    assert!(pages.len() <= PAGES_AT_ONCE);
    if REFUSED.load(Ordering::Relaxed) {
        return u64::MAX;
    }
    let mut nodes: [libc::c_int; PAGES_AT_ONCE] = [0; _];
    // Without nodes to move them to, pages stay, and the node that each is at is told.
    let (to, flags) = (ptr::null::<libc::c_int>(), 0);
    // SAFETY: there are so many addresses, which are not accessed, and room for their nodes.
    let told = unsafe {
        let (call, myself) = (libc::SYS_move_pages, 0);
        let (count, pages) = (pages.len(), pages.as_ptr());
        libc::syscall(call, myself, count, pages, to, nodes.as_mut_ptr(), flags)
    };
    if told != 0 {
        REFUSED.store(true, Ordering::Relaxed);
        return u64::MAX;
    }
    let bit = |(index, node): (usize, &libc::c_int)| u64::from(*node != -libc::ENOENT) << index;
    nodes.iter().take(pages.len()).enumerate().map(bit).sum()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_were_touched_are_resident_and_no_others() {
        let page = page_size();
        // More than are asked for at once.
        let count = 1300;
        let start = reserve(count * page).unwrap();
        let touched: Vec<_> = [0, 1, 511, 512, 700, 1299]
            .map(|index| start + index * page)
            .to_vec();
        for address in &touched {
            // SAFETY: the page has just been reserved, and is of no other use.
            unsafe { ptr::write_volatile((address + 7) as *mut u8, 1) };
        }
        assert!(resident_pages(start, count * page).eq(touched.iter().copied()));
        assert_eq!(resident_pages(start + 2 * page, 500 * page).count(), 0);
        assert_eq!(resident_pages(start, 0).count(), 0);

        let all: Vec<_> = (0..64).map(|index| start + index * page).collect();
        let found = perhaps_resident(&all);
        assert!([0b11, u64::MAX].contains(&found), "{found:b}");
        let found = perhaps_resident(&touched) & 0b111111;
        assert_eq!(found, 0b111111);
        // SAFETY: as above.
        unsafe { release(start, count * page) };
    }
}
