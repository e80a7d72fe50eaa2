//! Copies of the stacks of coroutines on x86-64, and walks over them by the unwinder of gcc.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::io;
use std::mem;
use std::ops::Range;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::Duration;

use super::super::unwind::{
    Context, FRAME, INSTRUCTION, Registers, STACK, frames_above, number, place, register_in,
    registers_of, set_register_in, walk_above,
};
use super::super::{YIELDER, overflow, perf_map, root, slab};
use super::{Seen, Sight};
use crate::sys::memory;
use crate::sys::switches::own_lock;
use crate::sys::thread_state::{self, OwnMemory, State, ThreadNumber};

/// Where the parts of a copy lie.
struct Room {
    /// The reserved range.
    start: usize,
    /// The place of the copy.
    copy: usize,
    /// Where words lead that lead nowhere.
    nowhere: usize,
}

/// The most bytes of a stack that are copied, from its innermost frame on.
const MOST: usize = 1 << 20;

/// The bytes around a place that an unwinder reads there, unless a frame is extraordinarily large.
const NEAR: usize = 64 << 10;

/// The bytes below the stack pointer that code may use.
const RED_ZONE: usize = 128;

impl Room {
    const LEN: usize = (1 << 30) + (128 << 20);

    fn at(start: usize) -> Room {
        Room {
            start,
            copy: start + NEAR,
            nowhere: start + (2 << 20),
        }
    }
}

/// A copied part of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    /// The addresses that it was copied from.
    from: Range<usize>,
    /// The address of the parent link.
    root: usize,
}

impl Part {
    /// What to copy of the stack whose innermost frame is at `stack` and whose parent link is at `root`. `None` if
    /// they are not of one coroutine's stack. Async-signal-safe.
    fn of(stack: usize, root: usize) -> Option<Part> {
        let usable = slab::usable_range(root)?;
        if !usable.contains(&stack) || stack > root {
            return None;
        }
        let low = stack.saturating_sub(RED_ZONE).max(usable.start) & !7;
        let high = (root + 16).min(usable.end).min(low + MOST);
        Some(Part {
            from: low..high,
            root,
        })
    }
}

/// Makes the words of a copy harmless. See the top of this file.
fn sanitise(words: &mut [usize], part: &Part, room: &Room, code: &[Range<usize>]) {
    for word in words.iter_mut() {
        *word = moved(*word, part, room, code);
    }
}

/// What becomes of a word, or of a register.
fn moved(word: usize, part: &Part, room: &Room, code: &[Range<usize>]) -> usize {
    if part.from.contains(&word) {
        room.copy + (word - part.from.start)
    } else if code.iter().any(|range| range.contains(&word)) {
        word
    } else {
        room.nowhere
    }
}

/// The place for copies. One thread uses it at a time.
static ROOM: Mutex<Option<Room>> = Mutex::new(None);

/// How long a thread that computes may take to get to the signal. On a busy machine, it first waits for a processor.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn look(sight: Sight, is_same: impl Fn() -> bool) -> Option<Seen> {
    let mut room = own_lock(&ROOM);
    if room.is_none() {
        *room = memory::reserve(Room::LEN).ok().map(Room::at);
    }
    let state = sight.thread.state();
    let call = match state {
        Some(State::Blocked { call, .. }) => call,
        _ => None,
    };
    let copy = room.as_ref().and_then(|room| copy(sight, state?, room));
    // Names take longer than the copy, and the turn may end meanwhile.
    let is_same = is_same();
    let backtrace = room.as_ref().filter(|_| is_same).and_then(|room| {
        let (registers, part) = copy?;
        let backtrace = backtrace(registers, &part, state?, room);
        // SAFETY: the range was reserved above, and nothing in it is in use: the copy was walked.
        unsafe { memory::discard_all([(room.start, Room::LEN)].into_iter()) };
        backtrace
    });
    is_same.then_some(Seen { call, backtrace })
}

/// Copies the stack of the coroutine that runs on the thread.
fn copy(sight: Sight, state: State, room: &Room) -> Option<(Registers, Part)> {
    match state {
        State::Running => ask(sight.thread, room),
        State::Blocked { stack, at, .. } => {
            let part = copy_from_outside(sight, stack, room).ok()??;
            let mut registers = [0; 17];
            registers[STACK] = stack;
            registers[INSTRUCTION] = at;
            // It may have gone on meanwhile. Then the copy is of no moment.
            (sight.thread.state() == Some(state)).then_some((registers, part))
        }
    }
}

/// Walks the copy from `registers` on.
fn backtrace(mut registers: Registers, part: &Part, state: State, room: &Room) -> Option<String> {
    let code = thread_state::code().ok()?;
    // SAFETY: the copy was made, and no other thread uses the room. Its start is aligned to words.
    let words = unsafe {
        let count = part.from.len() / size_of::<usize>();
        slice::from_raw_parts_mut(room.copy as *mut usize, count)
    };
    sanitise(words, part, room, &code);
    // SAFETY: the ranges lie in the room, which is reserved and used by this thread alone. They are aligned to
    // words, and the copy is in none of them.
    unsafe {
        fill(room.start..room.copy, room.nowhere);
        let end = room.copy + part.from.len();
        fill(end..end + NEAR, room.nowhere);
        fill(room.nowhere - NEAR..room.nowhere + NEAR, room.nowhere);
    }
    for register in &mut registers {
        *register = moved(*register, part, room, &code);
    }
    let harmless = words.to_vec();
    let root = room.copy + (part.root - part.from.start);
    let mut attempt = |frame: Option<usize>| {
        words.copy_from_slice(&harmless);
        let mut registers = registers;
        if let Some(frame) = frame {
            registers[FRAME] = frame;
        }
        // SAFETY: the words of the copy and the registers were made harmless.
        unsafe { Walk::new(registers, root, room) }
    };
    let mut walk = attempt(None);
    if let State::Blocked { .. } = state
        && walk.end != End::Root
    {
        let candidates = saved_frames(&registers, &harmless, room, &code);
        let found = candidates
            .map(|frame| attempt(Some(frame)))
            .find(|walk| walk.end == End::Root);
        walk = found.unwrap_or_else(|| attempt(None));
    }
    walk.print()
}

/// Writes `word` into all of a range.
///
/// # Safety
///
/// The range is aligned to words, and nothing else uses it.
unsafe fn fill(range: Range<usize>, word: usize) {
    let words = range.len() / size_of::<usize>();
    // SAFETY: that is what the caller promises.
    unsafe { slice::from_raw_parts_mut(range.start as *mut usize, words) }.fill(word);
}

/// The addresses in the copy where a frame pointer may have been saved, next to a return address. The first comes
/// first.
fn saved_frames(
    registers: &Registers,
    words: &[usize],
    room: &Room,
    code: &[Range<usize>],
) -> impl Iterator<Item = usize> {
    /// A walk takes some microseconds for each frame.
    const MOST_TRIES: usize = 256;
    let first = (registers[STACK] - room.copy) / size_of::<usize>();
    let is_code = |word: &usize| code.iter().any(|range| range.contains(word));
    let pairs = (first..words.len().saturating_sub(1)).filter(move |at| is_code(&words[at + 1]));
    pairs
        .map(|at| room.copy + at * size_of::<usize>())
        .take(MOST_TRIES)
}

/// Copies the stack of a thread that waits, whose innermost frame is at `stack`.
fn copy_from_outside(sight: Sight, stack: usize, room: &Room) -> io::Result<Option<Part>> {
    let memory = OwnMemory::open()?;
    let yielder = sight.yielder.bytes(&memory)?;
    // SAFETY: any bytes are a pointer.
    let yielder = unsafe { yielder.assume_init() };
    let Some(part) = Part::of(stack, yielder as usize) else {
        return Ok(None);
    };
    // SAFETY: the place of the copy is reserved, has room for `MOST` bytes, and is used by this thread only.
    let copy =
        unsafe { slice::from_raw_parts_mut(room.copy as *mut u8, part.from.len().min(MOST)) };
    memory.read(part.from.start, copy)?;
    Ok(Some(part))
}

// What a thread that asks and the handler of the thread that is asked have between them.
//
// ```text
// asking:  IDLE ─▶ ASKED ──────────────────────────▶ IDLE (given up)
// handler:           └───▶ TAKING ─▶ TAKEN
// asking:                              └────────────▶ IDLE
// ```
//
// The handler has the registers and the room from TAKING until TAKEN, the asking thread otherwise.
const IDLE: u32 = 0;
const ASKED: u32 = 1;
const TAKING: u32 = 2;
const TAKEN: u32 = 3;

struct Question {
    state: AtomicU32,
    /// The thread that is asked.
    thread: AtomicI32,
    /// Where to copy to.
    copy: AtomicUsize,
    answer: UnsafeCell<(Registers, Option<Part>)>,
}

// SAFETY: the answer is accessed by the handler between TAKING and TAKEN, and by the asking thread, of which
// there is one at a time, after TAKEN. The state says so by acquire and release.
unsafe impl Sync for Question {}

static QUESTION: Question = Question {
    state: AtomicU32::new(IDLE),
    thread: AtomicI32::new(0),
    copy: AtomicUsize::new(0),
    answer: UnsafeCell::new(([0; 17], None)),
};

/// Has the thread copy its registers and its stack. Called under the lock of the room.
fn ask(thread: ThreadNumber, room: &Room) -> Option<(Registers, Part)> {
    install();
    QUESTION.thread.store(thread.number(), Ordering::Relaxed);
    QUESTION.copy.store(room.copy, Ordering::Relaxed);
    QUESTION.state.store(ASKED, Ordering::Release);
    // SAFETY: the handler is installed. If the program has replaced it, that handler was installed for any
    // SIGURG.
    if !unsafe { thread.signal(libc::SIGURG) } {
        QUESTION.state.store(IDLE, Ordering::Relaxed);
        return None;
    }
    let mut waited = Duration::ZERO;
    let pause = Duration::from_micros(200);
    while QUESTION.state.load(Ordering::Acquire) != TAKEN {
        if waited >= PATIENCE {
            // A thread that has begun to copy is let finish.
            let given_up =
                QUESTION
                    .state
                    .compare_exchange(ASKED, IDLE, Ordering::Relaxed, Ordering::Relaxed);
            if given_up.is_ok() {
                return None;
            }
        }
        thread::sleep(pause);
        waited += pause;
    }
    // SAFETY: the state is TAKEN, so the handler is done with the answer.
    let (registers, part) = unsafe { (*QUESTION.answer.get()).clone() };
    QUESTION.state.store(IDLE, Ordering::Relaxed);
    Some((registers, part?))
}

/// The action that was installed for SIGURG before ours. Leaked.
static PREVIOUS: AtomicUsize = AtomicUsize::new(0);

fn install() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // SAFETY: all-zero bytes are a valid `sigaction`.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        // SAFETY: as above.
        let before: &mut libc::sigaction = Box::leak(Box::new(unsafe { mem::zeroed() }));
        // SAFETY: a null pointer asks for no change, and the other one is valid.
        unsafe { libc::sigaction(libc::SIGURG, ptr::null(), before) };
        PREVIOUS.store(ptr::from_ref(before) as usize, Ordering::Release);
        // SAFETY: both pointers are to valid structures or null. `handle` has the signature that SA_SIGINFO
        // asks for, and is async-signal-safe.
        unsafe { libc::sigaction(libc::SIGURG, &raw const action, ptr::null_mut()) };
    });
}

/// The handler of SIGURG. Async-signal-safe: it reads atomics and a thread-local without initialiser or
/// destructor, makes one system call that cannot fail, and copies memory.
extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let is_asked = QUESTION.state.load(Ordering::Acquire) == ASKED
        && QUESTION.thread.load(Ordering::Relaxed) == ThreadNumber::current().number()
        && QUESTION
            .state
            .compare_exchange(ASKED, TAKING, Ordering::Acquire, Ordering::Relaxed)
            .is_ok();
    if is_asked {
        // SAFETY: the kernel passes a `ucontext_t` to a handler that was installed with SA_SIGINFO.
        let registers = registers_of(unsafe { &*context.cast::<libc::ucontext_t>() });
        let part = Part::of(registers[STACK], YIELDER.get() as usize);
        if let Some(part) = &part {
            let to = QUESTION.copy.load(Ordering::Relaxed) as *mut u8;
            // SAFETY: the part lies in the usable range of this coroutine's stack, above its guard. The
            // asking thread has reserved `MOST` bytes at `to`, and leaves them to the handler for now. The
            // copy is not the place of a stack.
            unsafe { ptr::copy_nonoverlapping(part.from.start as *const u8, to, part.from.len()) };
        }
        // SAFETY: the state is TAKING, so this handler has the answer. Nothing is dropped that owns memory.
        unsafe { *QUESTION.answer.get() = (registers, part) };
        QUESTION.state.store(TAKEN, Ordering::Release);
        return;
    }
    let previous = PREVIOUS.load(Ordering::Acquire) as *const libc::sigaction;
    // SAFETY: a pointer that is not null is to an action that `install` has leaked.
    if let Some(previous) = unsafe { previous.as_ref() }
        && ![libc::SIG_DFL, libc::SIG_IGN].contains(&previous.sa_sigaction)
    {
        // SAFETY: the arguments are those of this handler, and the action was installed for this signal. (The
        // default is to ignore it.)
        unsafe { overflow::pass_on(signal, info, context, previous) };
    }
}

/// How a walk has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// At the root of the coroutine.
    Root,
    /// Where no table describes the code.
    Unknown,
    /// Before a step that might read anything.
    Refused,
}

/// The first walk over the copy.
struct Walk {
    registers: Registers,
    end: End,
    /// The frames in the copy.
    frames: usize,
    /// The addresses that may be in registers: those of the copy, and those near nowhere.
    harmless: Range<usize>,
    nowhere: usize,
    /// The place of the parent link in the copy.
    root: usize,
    /// Whether the frames of the copy have begun.
    begun: bool,
}

impl Walk {
    /// Walks the copy from `registers` on. `root` is the place of the parent link in the copy.
    ///
    /// # Safety
    ///
    /// The words of the copy and the registers were made harmless.
    unsafe fn new(registers: Registers, root: usize, room: &Room) -> Walk {
        let mut walk = Walk {
            registers,
            end: End::Unknown,
            frames: 0,
            harmless: room.start..room.nowhere + NEAR,
            nowhere: room.nowhere,
            root,
            begun: false,
        };
        let walking = &raw mut walk;
        // SAFETY: the caller has made harmless what the unwinder reads, and `step` refuses the rest. `step` takes the
        // walk, and writes to the registers by the pointer that is passed here.
        unsafe { walk_above(&raw mut (*walking).registers, step, walking.cast()) };
        walk
    }

    /// Looks at a frame before the unwinder goes on to its caller. Returns whether it may.
    ///
    /// # Safety
    ///
    /// `context` is what the unwinder has passed to its callback.
    unsafe fn step(&mut self, context: Context) -> bool {
        /// More frames are of a recursion that has gone too deep.
        const MOST: usize = 10_000;
        // SAFETY: the caller has promised that this is the context of a frame.
        let (at, stack) = unsafe { place(context) };
        self.begun |= at == self.registers[INSTRUCTION] && self.harmless.contains(&stack);
        if !self.begun || [0, self.nowhere].contains(&at) {
            return true;
        }
        self.frames += 1;
        if !self.harmless.contains(&stack) || self.frames > MOST {
            self.end = End::Refused;
            return false;
        }
        for register in (0..INSTRUCTION).filter(|register| *register != STACK) {
            // SAFETY: all registers have a value in the frames of the copy, since `call_above` has given each a
            // place in memory. What the tables say after that are places in the copy.
            unsafe {
                if !self.harmless.contains(&register_in(context, register)) {
                    set_register_in(context, register, self.nowhere);
                }
            }
        }
        if root::is_root(at) || perf_map::has(at) {
            self.end = End::Root;
        } else if at == self.first_instruction() {
            self.end = End::Refused;
        }
        self.end == End::Unknown
    }

    /// The return address into corosensei's first function, which lies on the stack below the body of the
    /// coroutine, which is a pointer in two words.
    fn first_instruction(&self) -> usize {
        let place = self.root - 3 * size_of::<usize>();
        // SAFETY: the place is in the copy, or in the filled words before it.
        unsafe { *(place as *const usize) }
    }

    /// The frames, as std prints them. `None` if there is none, or the walk was refused.
    fn print(mut self) -> Option<String> {
        if self.frames == 0 || self.end == End::Refused {
            return None;
        }
        // SAFETY: the first walk was not refused, so the same walk reads nothing but what is harmless.
        let frames = unsafe { frames_above(&mut self.registers, 0) }?;
        Some(match self.end {
            End::Root => frames,
            _ => without_last_frame(&frames),
        })
    }
}

extern "C" fn step(context: Context, walk: *mut c_void) -> c_int {
    // SAFETY: `Walk::new` has passed the walk, and the unwinder the context.
    let goes_on = unsafe { (*walk.cast::<Walk>()).step(context) };
    c_int::from(!goes_on)
}

/// What std has printed, without the last frame, which is nowhere.
fn without_last_frame(all: &str) -> String {
    let numbers = || all.lines().filter_map(number);
    let last = numbers().next_back().filter(|last| *last > 0);
    let kept = all
        .lines()
        .take_while(|line| last.is_none() || number(line) != last);
    kept.flat_map(|line| [line, "\n"]).collect()
}
