//! Address space for stacks, which has memory behind it only where it was touched; guards in it; pages
//! and cache lines.
//!
//! Addresses are `usize` here: this module does arithmetic with them and hands them to the kernel,
//! but does not access the memory.

use std::io;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// `MADV_GUARD_INSTALL` of madvise(2), since Linux 6.13: makes a range fault when it is touched,
/// without splitting its mapping. A million guards then cost page-table entries, not mappings.
const MADV_GUARD_INSTALL: libc::c_int = 102;

/// The length of a cache line in bytes: what the processor fetches at once.
pub(crate) const CACHE_LINE: usize = 64;

/// The size of a page in bytes. Async-signal-safe, except for the first call in a process.
pub(crate) fn page_size() -> usize {
    static PAGE: OnceLock<usize> = OnceLock::new();
    *PAGE.get_or_init(|| {
        // SAFETY: sysconf takes any number, and accesses no memory of the caller's.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).expect("the page size is positive")
    })
}

/// Asks the processor to fetch the cache line of `address` ahead of its use. Does nothing on
/// architectures other than x86-64. The address may be invalid: a prefetch is not an access.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction belongs to SSE, which every x86-64 processor has. It takes any
        // address, and has no effect but on caches.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Prefetches the cache lines that `value` lies in, but no more than its first 256 bytes.
#[inline(always)]
pub(crate) fn prefetch_all<T: ?Sized>(value: &T) {
    const MOST_BYTES: usize = 256;
    let start = ptr::from_ref(value).cast::<u8>();
    let len = size_of_val(value).clamp(1, MOST_BYTES);
    for offset in (0..len).step_by(CACHE_LINE) {
        prefetch(start.wrapping_add(offset));
    }
    // A value that does not begin at the start of a line reaches into one line more.
    prefetch(start.wrapping_add(len - 1));
}

/// A way to make the guards of stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GuardKind {
    /// `madvise(MADV_GUARD_INSTALL)`: takes no extra mapping.
    Advice,
    /// `mprotect(PROT_NONE)`: each guard takes two mappings. A process has 65,530 by default
    /// (`vm.max_map_count`).
    Protection,
}

/// Whether a guard by advice has failed in this process: the kernel is older than 6.13, or the
/// memory is locked.
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

/// Reserves `len` bytes of readable and writable address space, and returns its lowest address.
/// No memory is committed: a page gets memory when it is first touched.
///
/// Once a stack has been in the range it is never unmapped, because a coroutine that has started
/// and not finished must stay where it is for as long as the process lives. [`discard_all`] gives
/// its memory back, but not its addresses.
///
/// # Errors
///
/// The kernel's: out of address space (`RLIMIT_AS`), or out of mappings (`vm.max_map_count`).
pub(crate) fn reserve(len: usize) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the kernel chooses the address of the new anonymous mapping, so the call changes no
    // mapping that is in use.
    let base = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // Without this advice a stack that touches one page could be given a huge page of 2 MiB. On a
    // kernel without huge pages the advice fails, which does no harm.
    // SAFETY: the range is the mapping that was just made, and the advice does not change contents.
    unsafe { libc::madvise(base, len, libc::MADV_NOHUGEPAGE) };
    Ok(base as usize)
}

/// Unmaps a range of whole pages that no coroutine's stack was ever in.
///
/// Best effort: unmapping the middle of a mapping splits it, which fails when the process is out of
/// mappings. The range then stays mapped.
///
/// # Safety
///
/// The range lies in memory from [`reserve`], and nothing uses it, now or later.
pub(crate) unsafe fn release(start: usize, len: usize) {
    // SAFETY: the caller promises that the range is from `reserve` and that nothing uses it.
    unsafe { libc::munmap(start as *mut libc::c_void, len) };
}

/// Makes a range of whole pages fault when it is touched, and returns how. Uses advice if `kind`
/// asks for it and the kernel takes it, and otherwise protection.
///
/// # Errors
///
/// The kernel's, if protection is refused: out of mappings.
///
/// # Safety
///
/// The range lies in memory from [`reserve`], and holds nothing that is in use.
pub(crate) unsafe fn guard(start: usize, len: usize, kind: GuardKind) -> io::Result<GuardKind> {
    let start = start as *mut libc::c_void;
    if kind == GuardKind::Advice {
        // SAFETY: the caller promises that the range is from `reserve` and that nothing in it is in
        // use. The advice drops the contents of the range and changes nothing else.
        if unsafe { libc::madvise(start, len, MADV_GUARD_INSTALL) } == 0 {
            return Ok(GuardKind::Advice);
        }
        ADVICE_FAILED.store(true, Ordering::Relaxed);
    }
    // SAFETY: the caller promises that the range is from `reserve` and that nothing in it is in use,
    // so nothing notices that it cannot be accessed any more.
    if unsafe { libc::mprotect(start, len, libc::PROT_NONE) } == 0 {
        return Ok(GuardKind::Protection);
    }
    Err(io::Error::last_os_error())
}

/// Makes ranges of whole pages fault when they are touched, by advice, with as few system calls as
/// possible. Returns whether all of them were done; otherwise some may have been done.
///
/// # Safety
///
/// Each range lies in memory from [`reserve`], and holds nothing that is in use.
pub(crate) unsafe fn guard_all(ranges: impl Iterator<Item = (usize, usize)>) -> bool {
    // SAFETY: the caller promises that nothing in these ranges is in use. The advice drops their
    // contents and changes nothing else.
    unsafe { advise_all(ranges, MADV_GUARD_INSTALL) }
}

/// Gives the memory behind ranges of whole pages back to the system. The ranges read as zeroes
/// afterwards, except for guards, which stay in force, and for locked memory, which may keep its
/// contents.
///
/// # Safety
///
/// Each range lies in memory from [`reserve`], and holds nothing that is in use.
pub(crate) unsafe fn discard_all(ranges: impl Iterator<Item = (usize, usize)> + Clone) {
    // SAFETY: the caller promises that nothing in these ranges is in use. The advice drops their
    // contents and changes nothing else.
    if !unsafe { advise_all(ranges.clone(), libc::MADV_DONTNEED) } {
        for (start, len) in ranges {
            // The advice fails on locked memory, which then stays resident.
            // SAFETY: the caller promises that nothing in this range is in use. The advice drops
            // its contents and changes nothing else.
            unsafe { libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED) };
        }
    }
}

/// The addresses of the pages that have memory behind them, of a range of whole pages, lowest first.
/// Of a part for which the kernel gives no answer (it is not mapped, for instance), none.
pub(crate) fn resident_pages(start: usize, len: usize) -> impl Iterator<Item = usize> {
    /// The pages per system call. Each takes a byte of this frame, which may lie on the smallest of
    /// stacks.
    const AT_ONCE: usize = 512;
    let page = page_size();
    let end = start + len;
    (start..end).step_by(AT_ONCE * page).flat_map(move |start| {
        let len = (AT_ONCE * page).min(end - start);
        let mut states = [0_u8; AT_ONCE];
        // SAFETY: the kernel writes one byte for each page of the range, at most AT_ONCE, and
        // `states` has as many. It does not touch the range itself, whether that is mapped or not.
        let answered = unsafe { libc::mincore(start as *mut _, len, states.as_mut_ptr()) } == 0;
        let pages = if answered { len / page } else { 0 };
        (0..pages)
            .filter(move |&index| states[index] & 1 == 1)
            .map(move |index| start + index * page)
    })
}

/// The most pages that one call of [`perhaps_resident`] takes.
pub(crate) const PAGES_AT_ONCE: usize = u64::BITS as usize;

/// Which of some pages may have memory behind them, as a bit set: bit 0 stands for the first page.
///
/// One system call, move_pages(2), answers for all of them, wherever they lie. If the kernel does
/// not have the call, or a sandbox refuses it, every bit is set.
///
/// # Panics
///
/// If there are more than [`PAGES_AT_ONCE`] pages.
pub(crate) fn perhaps_resident(pages: &[usize]) -> u64 {
    /// Whether the call has failed once. It is not tried again.
    static REFUSED: AtomicBool = AtomicBool::new(false);
    assert!(pages.len() <= PAGES_AT_ONCE);
    if REFUSED.load(Ordering::Relaxed) {
        return u64::MAX;
    }
    let mut nodes: [libc::c_int; PAGES_AT_ONCE] = [0; _];
    // With no nodes to move the pages to, the call moves none, and tells the node of each page.
    let (to, flags) = (ptr::null::<libc::c_int>(), 0);
    // SAFETY: `pages` has `count` addresses, which the kernel looks up but does not access, and
    // `nodes` has room for as many results. Process 0 is the caller.
    let told = unsafe {
        let (call, myself) = (libc::SYS_move_pages, 0);
        let (count, pages) = (pages.len(), pages.as_ptr());
        libc::syscall(call, myself, count, pages, to, nodes.as_mut_ptr(), flags)
    };
    if told != 0 {
        REFUSED.store(true, Ordering::Relaxed);
        return u64::MAX;
    }
    // ENOENT says that the page is not present.
    let bit = |(index, node): (usize, &libc::c_int)| u64::from(*node != -libc::ENOENT) << index;
    nodes.iter().take(pages.len()).enumerate().map(bit).sum()
}

/// Gives the same advice for many ranges with few system calls, by process_madvise(2). Returns
/// whether the kernel took it for all of them; otherwise it may have taken it for some.
///
/// A call has its price, however short the range: it locks page tables, and interrupts the other
/// processors that run this process.
///
/// # Safety
///
/// Giving the advice for each of the ranges is sound: see madvise(2) for what it does.
unsafe fn advise_all(ranges: impl Iterator<Item = (usize, usize)>, advice: libc::c_int) -> bool {
    /// `PIDFD_SELF`, since Linux 6.14: stands for the calling process where a pidfd is expected.
    const PIDFD_SELF: libc::c_int = -10_000;
    /// Whether the kernel has refused the call once, and is not asked again: it is older than 6.14,
    /// or the process is in a sandbox.
    static REFUSED: AtomicBool = AtomicBool::new(false);
    /// The ranges per system call.
    const AT_ONCE: usize = 64;

    let mut ranges = ranges.peekable();
    while ranges.peek().is_some() {
        if REFUSED.load(Ordering::Relaxed) {
            return false;
        }
        let (mut table, mut count, mut bytes) = ([EMPTY; AT_ONCE], 0, 0);
        for (entry, (start, len)) in table.iter_mut().zip(ranges.by_ref()) {
            entry.iov_base = start as *mut libc::c_void;
            entry.iov_len = len;
            count += 1;
            bytes += len;
        }
        // SAFETY: the first `count` entries of the table are set, and the caller promises that the
        // advice may be given for the ranges that they name.
        let advised = unsafe {
            let call = libc::SYS_process_madvise;
            libc::syscall(call, PIDFD_SELF, table.as_ptr(), count, advice, 0_u32)
        };
        if advised < 0 {
            // EINVAL is about these ranges: locked memory refuses some kinds of advice. Any other
            // error is about the call.
            let is_refused = io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL);
            REFUSED.fetch_or(is_refused, Ordering::Relaxed);
        }
        // The kernel returns the number of bytes that it has advised, which may be fewer.
        if usize::try_from(advised) != Ok(bytes) {
            return false;
        }
    }
    true
}

/// An entry that names no range.
const EMPTY: libc::iovec = libc::iovec {
    iov_base: ptr::null_mut(),
    iov_len: 0,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_pages_are_resident_and_others_are_not() {
        let page = page_size();
        // More pages than one system call is asked about.
        let count = 1300;
        let start = reserve(count * page).unwrap();
        let touched: Vec<_> = [0, 1, 511, 512, 700, 1299]
            .map(|index| start + index * page)
            .to_vec();
        for address in &touched {
            // SAFETY: this test has just reserved the page, and nothing else uses it.
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
        // SAFETY: this test has reserved the range, no stack was ever in it, and it is not used
        // from here on.
        unsafe { release(start, count * page) };
    }
}
