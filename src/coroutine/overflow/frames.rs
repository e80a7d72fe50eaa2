//! The frames of a stack that has overflowed, printed by a process of its own.
//!
//! A signal handler can neither allocate nor read debug information: the thread may have been interrupted anywhere,
//! for instance in the allocator. But the process is about to abort. So the handler makes a copy of the process
//! (`clone(2)`), in which only a copy of its thread runs, on a fresh stack, and waits for it:
//!
//! ```text
//! handler: prints that a stack has overflowed ─▶ clone ─▶ waits, for 5 s at most ─────────▶ abort
//! copy:                                             └──▶ walks the stack ─▶ prints ─▶ _exit
//! ```
//!
//! - If the copy crashes or hangs (the allocator's lock may be held), nothing is lost: it has left the addresses of
//!   the frames in memory that both share, and the handler prints those.
//! - The copy has all memory to itself, so it shortens the copied stack by writing into it: what std's `Backtrace`
//!   would find beyond the frames that are to be printed is cut off.
//! - No handler of the program's for the end of children runs: the copy sends no signal.

use std::ffi::{c_int, c_void};
use std::fmt::Write;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::unwind::{
    self, Context, INSTRUCTION, Registers, STACK, frames_above, registers_of,
};
use crate::sys::memory;
use crate::sys::stderr::Stderr;

/// The most frames that are printed of the inner end of the stack.
const INNER: usize = 16;

/// The most frames that are printed of the outer end. More than a dozen are those that call the coroutine's closure.
const OUTER: usize = 24;

/// The most frames that a walk finds: of a recursion in 64 MiB.
const MOST: usize = 1 << 20;

/// How long the copy may take, in milliseconds.
const PATIENCE: u32 = 5000;

/// The bytes of the copy's stack.
const ROOM: usize = 1 << 20;

/// The addresses of the frames to be printed, in memory that both processes have.
struct Shared {
    count: AtomicUsize,
    addresses: [AtomicUsize; INNER + OUTER],
}

/// What the copy needs to know.
struct Case<'a> {
    registers: Registers,
    shared: &'a Shared,
}

/// Prints the frames of the thread that a signal has interrupted, as far as that can be done. Async-signal-safe.
///
/// The thread must not count as a coroutine: if the functions of the C library are patched, a coroutine would park here.
///
/// # Safety
///
/// `context` is what the kernel has passed to the handler that runs.
pub(super) unsafe fn print(context: *mut c_void) {
    // SAFETY: the kernel passes a `ucontext_t` to a handler that was installed with SA_SIGINFO.
    let registers = registers_of(unsafe { &*context.cast::<libc::ucontext_t>() });
    let (Some(shared), Ok(room)) = (share(), memory::reserve(ROOM)) else {
        return;
    };
    let mut case = Case { registers, shared };
    // SAFETY: the copy runs `in_copy` on memory that nothing else uses, and its argument is in the copied memory.
    // Without flags, the two processes share nothing else, and the copy sends no signal when it ends.
    let copy = unsafe {
        let top = (room + ROOM) as *mut c_void;
        libc::clone(in_copy, top, 0, (&raw mut case).cast())
    };
    if copy != -1 && !ends_well(copy) {
        let _ = print_addresses(shared);
    }
}

/// Memory that a copy of the process shares. Never unmapped.
fn share() -> Option<&'static Shared> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: the kernel chooses the address of the new mapping, so the call changes none that is in use.
    let at = unsafe { libc::mmap(ptr::null_mut(), size_of::<Shared>(), access, flags, -1, 0) };
    // SAFETY: the mapping is long enough, and zeroes are valid for atomics.
    (at != libc::MAP_FAILED).then(|| unsafe { &*at.cast::<Shared>() })
}

/// Waits for the copy to end, and ends it if that takes too long. Returns whether it has printed all.
fn ends_well(copy: libc::pid_t) -> bool {
    const PAUSE: u32 = 5;
    for _ in 0..PATIENCE / PAUSE {
        let mut status = 0;
        // SAFETY: `status` is valid for the kernel to write. `__WALL` waits for a child that sends no signal, too.
        match unsafe { libc::waitpid(copy, &raw mut status, libc::WNOHANG | libc::__WALL) } {
            0 => {}
            ended => return ended == copy && status == 0,
        }
        // SAFETY: the call takes a number.
        unsafe { libc::usleep(PAUSE * 1000) };
    }
    // SAFETY: the copy was not waited for, so the number is still that of the copy.
    unsafe { libc::kill(copy, libc::SIGKILL) };
    false
}

/// Prints what the copy has found, if it has not printed that itself.
fn print_addresses(shared: &Shared) -> std::fmt::Result {
    let count = shared.count.load(Ordering::Acquire);
    if count == 0 {
        return Ok(());
    }
    unsafe extern "C" {
        /// The first byte of the executable, or of the library that this is in.
        static __ehdr_start: u8;
    }
    let start = &raw const __ehdr_start;
    let mut stderr = Stderr;
    writeln!(
        stderr,
        "its frames could not be named (the program is loaded at {start:p}):"
    )?;
    for address in &shared.addresses[..count] {
        writeln!(stderr, "  {:#x}", address.load(Ordering::Relaxed))?;
    }
    Ok(())
}

/// The copy's thread. Returns its exit status.
extern "C" fn in_copy(case: *mut c_void) -> c_int {
    // SAFETY: `print` has passed the case, which is in the frame of that.
    let case = unsafe { &mut *case.cast::<Case<'_>>() };
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure is valid. The calls concern this process only: it ends with its parent, and leaves no
    // core file.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
    }
    let Some(walk) = Walk::all(&case.registers) else {
        return 1;
    };
    let pieces = Pieces::of(walk.frames);
    let printed = pieces.printed().flatten().map(|at| walk.frames[at].at);
    let mut count = 0;
    for (address, place) in printed.zip(&case.shared.addresses) {
        place.store(address, Ordering::Relaxed);
        count += 1;
    }
    case.shared.count.store(count, Ordering::Release);
    let Some(text) = describe(&walk, &pieces, &mut case.registers) else {
        return 1;
    };
    match std::io::Write::write_all(&mut Stderr, text.as_bytes()) {
        Ok(()) => 0,
        // There is nowhere to print the addresses to, either.
        Err(_) => 0,
    }
}

/// A frame, as the unwinder knows it.
#[derive(Clone, Copy)]
struct Frame {
    /// Where it goes on.
    at: usize,
    /// Its lowest address: its caller's return address lies in the word below that of its caller.
    stack: usize,
}

/// A walk over the interrupted thread's stack.
struct Walk {
    /// Where the walk begins.
    registers: Registers,
    has_begun: bool,
    frames: &'static mut [Frame],
    count: usize,
    /// The frame of which the registers are wanted.
    wanted: usize,
    found: Registers,
}

impl Walk {
    /// All frames. `None` if there is no memory.
    fn all(registers: &Registers) -> Option<Walk> {
        let frames = memory::reserve(MOST * size_of::<Frame>()).ok()?;
        // SAFETY: the memory was reserved here, is long enough, and zeroes are valid for a frame.
        let frames = unsafe { std::slice::from_raw_parts_mut(frames as *mut Frame, MOST) };
        let mut walk = Walk {
            registers: *registers,
            has_begun: false,
            frames,
            count: 0,
            wanted: usize::MAX,
            found: *registers,
        };
        walk.run();
        let all = mem::take(&mut walk.frames);
        walk.frames = &mut all[..walk.count];
        Some(walk)
    }

    /// The registers in the frame with this index.
    fn registers_in(&self, index: usize) -> Registers {
        let mut walk = Walk {
            registers: self.registers,
            has_begun: false,
            frames: &mut [],
            count: 0,
            wanted: index,
            found: self.registers,
        };
        walk.run();
        walk.found
    }

    fn run(&mut self) {
        extern "C" fn step(context: Context, walk: *mut c_void) -> c_int {
            // SAFETY: `run` has passed the walk, and the unwinder the context.
            let goes_on = unsafe { (*walk.cast::<Walk>()).step(context) };
            c_int::from(!goes_on)
        }
        let mut registers = self.registers;
        // SAFETY: this process is a copy, and its other threads do not exist. So the stack stays as it was when the
        // signal came, and the registers are those of that moment.
        unsafe { unwind::walk_above(&mut registers, step, ptr::from_mut(self).cast()) };
    }

    /// Notes a frame. Returns whether to go on.
    ///
    /// # Safety
    ///
    /// `context` is what the unwinder has passed to its callback.
    unsafe fn step(&mut self, context: Context) -> bool {
        // SAFETY: the caller has promised that this is the context of a frame.
        let (at, stack) = unsafe { unwind::place(context) };
        self.has_begun |= at == self.registers[INSTRUCTION] && stack == self.registers[STACK];
        if !self.has_begun {
            return true;
        }
        if at == 0 {
            return false;
        }
        if self.count == self.wanted {
            self.found = std::array::from_fn(|register| match register {
                STACK => stack,
                // The instruction of the call, not the one after it, which may be another function's.
                INSTRUCTION => at - 1,
                // SAFETY: as above. The frame is one of those above `walk_above`.
                _ => unsafe { unwind::register_in(context, register) },
            });
            return false;
        }
        if let Some(frame) = self.frames.get_mut(self.count) {
            *frame = Frame { at, stack };
        }
        self.count += 1;
        self.count < MOST
    }
}

/// Which frames are printed: some at either end, and of a recursion one round.
#[derive(Debug, PartialEq, Eq)]
struct Pieces {
    /// How many of the innermost frames are printed.
    first: usize,
    /// How many of these, at the end, are one round of a recursion; and how many more rounds follow.
    recursion: Option<(usize, usize)>,
    /// How many frames that follow are left out.
    omitted: usize,
    /// How many there are in all.
    all: usize,
}

impl Pieces {
    fn of(frames: &[Frame]) -> Pieces {
        let recursion = recursion(frames);
        let all = frames.len();
        let (first, repeated) = match recursion {
            Some((start, period, rounds)) => (start + period, period * (rounds - 1)),
            None => (all.min(INNER), 0),
        };
        Pieces {
            first,
            recursion: recursion.map(|(_, period, rounds)| (period, rounds - 1)),
            omitted: (all - first - repeated).saturating_sub(OUTER),
            all,
        }
    }

    /// The frames that are printed, in one piece or two.
    fn printed(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        [0..self.first, self.second()..self.all].into_iter()
    }

    /// The first frame of the second piece.
    fn second(&self) -> usize {
        let repeated = self.recursion.map_or(0, |(period, rounds)| period * rounds);
        self.first + repeated + self.omitted
    }
}

/// The recursion that the innermost frames are part of: where its first round begins, the number of frames in a
/// round, and the number of rounds.
fn recursion(frames: &[Frame]) -> Option<(usize, usize, usize)> {
    /// Fewer rounds are printed in full.
    const ROUNDS: usize = 3;
    for start in 0..INNER / 2 {
        for period in 1..=INNER / 2 {
            let rest = frames.get(start..)?;
            let pairs = rest.iter().zip(rest.get(period..)?);
            let same = pairs.take_while(|(one, other)| one.at == other.at).count();
            let rounds = same / period + 1;
            if rounds >= ROUNDS {
                return Some((start, period, rounds));
            }
        }
    }
    None
}

/// The frames as text. Cuts the stack. `None` if std finds no frames.
fn describe(walk: &Walk, pieces: &Pieces, registers: &mut Registers) -> Option<String> {
    let second = pieces.second();
    let mut above_second = walk.registers_in(second);
    // Where the first piece ends, and where the walk has ended if that has not come to the root.
    let cuts = [pieces.first, MOST - 1];
    for next in cuts.into_iter().filter_map(|at| walk.frames.get(at)) {
        // SAFETY: below a frame's lowest address lies the address that its callee returns to. The stack is a copy,
        // on which nothing goes on.
        unsafe { *((next.stack - size_of::<usize>()) as *mut usize) = 0 };
    }
    let mut text = String::from("its frames, innermost first:\n");
    // SAFETY: the stack stays as it is, and the registers are those of a frame on it.
    text += &unsafe { frames_above(registers, 0) }?;
    if let Some((period, rounds)) = pieces.recursion {
        let frames = match period {
            1 => "this frame".into(),
            _ => format!("these {period} frames"),
        };
        text += &format!("      {frames} {rounds} times more\n");
    }
    if pieces.omitted > 0 {
        text += &format!("      and {} frames more\n", pieces.omitted);
    }
    if second < pieces.all {
        // SAFETY: as above.
        text += &unsafe { frames_above(&mut above_second, second) }?;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(functions: &str) -> Pieces {
        let frames: Vec<_> = functions
            .bytes()
            .map(|at| Frame {
                at: at.into(),
                stack: 0,
            })
            .collect();
        Pieces::of(&frames)
    }

    #[test]
    fn a_recursion_is_one_round_and_a_count() {
        let all = format!("xy{}main", "abc".repeat(1000));
        let found = pieces(&all);
        assert_eq!(found.recursion, Some((3, 999)));
        assert_eq!((found.first, found.omitted), (5, 0));
        let printed: Vec<_> = found.printed().collect();
        assert_eq!(printed, [0..5, 3002..3006]);
    }

    #[test]
    fn a_round_that_is_not_complete_is_printed() {
        let found = pieces(&format!("{}ab-main", "abc".repeat(9)));
        assert_eq!(found.recursion, Some((3, 8)));
        assert_eq!(found.printed().nth(1), Some(27..34));
    }

    #[test]
    fn of_many_different_frames_those_at_either_end_are_printed() {
        let all: Vec<u8> = (1..=100).collect();
        let found = pieces(std::str::from_utf8(&all).unwrap());
        assert_eq!(found.recursion, None);
        let printed: Vec<_> = found.printed().collect();
        assert_eq!(printed, [0..INNER, 100 - OUTER..100]);
        assert_eq!(found.omitted, 100 - INNER - OUTER);
        let few = pieces("abcdef");
        assert_eq!((few.first, few.second(), few.omitted), (6, 6, 0));
        assert_eq!(pieces("").all, 0);
    }
}
