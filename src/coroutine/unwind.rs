//! Walks over stacks on x86-64, from any registers on, by the unwinder of gcc.
//!
//! A walk begins in `call_above`, a function whose unwind table says that it was called with the registers that it is
//! given, as if a signal handler had been. So the frames of the walk come after those of its caller.

use std::arch::naked_asm;
use std::backtrace::Backtrace;
use std::ffi::{c_int, c_void};

/// The registers that an unwind table can speak of, in the order of DWARF's numbers. The last one is the
/// instruction.
pub(super) type Registers = [usize; 17];

pub(super) const FRAME: usize = 6;
pub(super) const STACK: usize = 7;
pub(super) const INSTRUCTION: usize = 16;

/// The registers of the code that a signal has interrupted.
pub(super) fn registers_of(context: &libc::ucontext_t) -> Registers {
    use libc::*;
    let order = [
        REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI, REG_RBP, REG_RSP, REG_R8, REG_R9,
        REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP,
    ];
    order.map(|register| context.uc_mcontext.gregs[register as usize] as usize)
}

/// What the unwinder passes to a callback.
pub(super) type Context = *mut c_void;

unsafe extern "C" {
    fn _Unwind_Backtrace(visit: Visit, argument: *mut c_void) -> c_int;
    fn _Unwind_GetIP(context: Context) -> usize;
    fn _Unwind_GetCFA(context: Context) -> usize;
    fn _Unwind_GetGR(context: Context, register: c_int) -> usize;
    fn _Unwind_SetGR(context: Context, register: c_int, value: usize);
}

/// What is called with each frame, and with the argument of the walk. Returns zero to go on. Must not unwind.
pub(super) type Visit = extern "C" fn(Context, *mut c_void) -> c_int;

/// Visits the frames of the caller, and then those from `registers` on.
///
/// # Safety
///
/// What `registers` lead to can be read, until a visit stops the walk. `visit` takes `argument`.
pub(super) unsafe fn walk_above(registers: *mut Registers, visit: Visit, argument: *mut c_void) {
    extern "C" fn walk(visit_and_argument: *mut c_void) {
        // SAFETY: the caller of `call_above` below has passed these.
        unsafe {
            let (visit, argument) = *visit_and_argument.cast::<(Visit, *mut c_void)>();
            _Unwind_Backtrace(visit, argument);
        }
    }
    let mut both = (visit, argument);
    // SAFETY: the caller makes the same promises. `walk` does not unwind.
    unsafe { call_above(registers, walk, (&raw mut both).cast()) };
}

/// Where a frame goes on, and its stack pointer.
///
/// # Safety
///
/// `context` is what the unwinder has passed to the visit that runs.
pub(super) unsafe fn place(context: Context) -> (usize, usize) {
    // SAFETY: that is what the caller promises.
    unsafe { (_Unwind_GetIP(context), _Unwind_GetCFA(context)) }
}

/// A register in a frame.
///
/// # Safety
///
/// `context` is what the unwinder has passed to the visit that runs, of a frame from the registers of
/// [`walk_above`] on. The register is a general one, and not the stack pointer.
pub(super) unsafe fn register_in(context: Context, register: usize) -> usize {
    // SAFETY: all registers have a value there, since `call_above` has given each a place in memory.
    unsafe { _Unwind_GetGR(context, register as c_int) }
}

/// Sets a register in a frame.
///
/// # Safety
///
/// As for [`register_in`]. The place in memory where the register was saved may be written to.
pub(super) unsafe fn set_register_in(context: Context, register: usize, value: usize) {
    // SAFETY: that is what the caller promises.
    unsafe { _Unwind_SetGR(context, register as c_int, value) };
}

/// Calls `f` with `argument`, in a frame whose caller seems to have the registers `registers`.
///
/// Its table is that of a signal handler's frame: the stack pointer of the caller is the canonical frame
/// address, and each register is found in memory. The rules are expressions over RBX, which points to the
/// registers: DW_CFA_def_cfa_expression (0x0f) of DW_OP_breg3 56, DW_OP_deref; and for each register
/// DW_CFA_expression (0x10), its number, and DW_OP_breg3 (0x73) with the offset as a signed LEB128.
#[unsafe(naked)]
unsafe extern "C" fn call_above(
    registers: *mut Registers,
    f: extern "C" fn(*mut c_void),
    argument: *mut c_void,
) {
    naked_asm!(
        ".cfi_startproc",
        ".cfi_signal_frame",
        "push rbx",
        "mov rbx, rdi",
        ".cfi_escape 0x0f, 3, 0x73, 56, 0x06",
        ".cfi_escape 0x10, 0, 2, 0x73, 0",
        ".cfi_escape 0x10, 1, 2, 0x73, 8",
        ".cfi_escape 0x10, 2, 2, 0x73, 16",
        ".cfi_escape 0x10, 3, 2, 0x73, 24",
        ".cfi_escape 0x10, 4, 2, 0x73, 32",
        ".cfi_escape 0x10, 5, 2, 0x73, 40",
        ".cfi_escape 0x10, 6, 2, 0x73, 48",
        ".cfi_escape 0x10, 8, 3, 0x73, 0xc0, 0x00",
        ".cfi_escape 0x10, 9, 3, 0x73, 0xc8, 0x00",
        ".cfi_escape 0x10, 10, 3, 0x73, 0xd0, 0x00",
        ".cfi_escape 0x10, 11, 3, 0x73, 0xd8, 0x00",
        ".cfi_escape 0x10, 12, 3, 0x73, 0xe0, 0x00",
        ".cfi_escape 0x10, 13, 3, 0x73, 0xe8, 0x00",
        ".cfi_escape 0x10, 14, 3, 0x73, 0xf0, 0x00",
        ".cfi_escape 0x10, 15, 3, 0x73, 0xf8, 0x00",
        ".cfi_escape 0x10, 16, 3, 0x73, 0x80, 0x01",
        "mov rdi, rdx",
        "call rsi",
        "pop rbx",
        "ret",
        ".cfi_endproc",
    )
}

/// The frames from `registers` on, as std prints them. The first one has the number `first`.
///
/// # Safety
///
/// What `registers` lead to can be read.
pub(super) unsafe fn frames_above(registers: &mut Registers, first: usize) -> Option<String> {
    // Without registers that lead anywhere, these are the frames that have led here.
    let mut nothing = *registers;
    nothing[INSTRUCTION] = 0;
    // SAFETY: that is what the caller promises.
    let (below, all) = unsafe { (print(&mut nothing)?, print(registers)?) };
    let below = below.lines().filter_map(number).count();
    Some(without_first_frames(&all, below, first))
}

extern "C" fn print_frames(text: *mut c_void) {
    // SAFETY: `print` has passed its own place.
    let text = unsafe { &mut *text.cast::<Option<Backtrace>>() };
    *text = Some(Backtrace::force_capture());
}

/// The present frames, with those from `registers` on, as std prints them.
///
/// # Safety
///
/// What `registers` lead to can be read.
unsafe fn print(registers: &mut Registers) -> Option<String> {
    let mut captured: Option<Backtrace> = None;
    // SAFETY: that is what the caller promises. `print_frames` takes the place for the
    // backtrace, and does not unwind.
    unsafe { call_above(registers, print_frames, (&raw mut captured).cast()) };
    Some(captured?.to_string())
}

/// The number of the frame that a line of std's begins with.
pub(super) fn number(line: &str) -> Option<usize> {
    let (number, _) = line.trim_start().split_once(": ")?;
    number.parse().ok()
}

/// What std has printed, without the first `count` frames. The next one gets the number `first`.
fn without_first_frames(all: &str, count: usize, first: usize) -> String {
    let kept = all.lines().skip_while(|line| number(line) != Some(count));
    let kept = kept.map(|line| match number(line) {
        Some(of) => {
            let (_, name) = line.split_once(": ").unwrap_or_default();
            format!("{:>4}: {name}\n", of - count + first)
        }
        None => format!("{line}\n"),
    });
    kept.collect()
}
