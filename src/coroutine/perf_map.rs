//! The names of coroutines in the call graphs of perf.
//!
//! perf knows functions, and nothing of coroutines. So the name becomes a function: a few instructions, made at run
//! time, which call what they are given. A coroutine of that name runs its body through it, so that the frame is
//! part of each call graph. perf finds the name of such code in `/tmp/perf-PID.map`, where virtual machines write
//! what they have compiled. No unwind table leads beyond such a function, so that backtraces end there.
//!
//! All these functions have the same instructions. So a block of memory is filled with them, made executable and
//! read-only, and never written to again. A name that is used for the first time takes the next function.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::mem;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::memory;
use crate::sys::switches::own_lock;

/// Turns the names on. To be called aside: it allocates under a lock.
pub(crate) fn turn_on() -> io::Result<()> {
    let mut map = own_lock(&MAP);
    if map.is_none() {
        *map = Some(PerfMap::new()?);
        IS_ON.store(true, Ordering::Relaxed);
    }
    Ok(())
}

static IS_ON: AtomicBool = AtomicBool::new(false);

static MAP: Mutex<Option<PerfMap>> = Mutex::new(None);

/// Whether coroutines are to be run by functions of their names.
#[inline]
pub(crate) fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// A function that perf shows as `coroutine NAME`.
#[derive(Clone, Copy)]
pub(crate) struct NamedFunction {
    address: usize,
}

impl NamedFunction {
    /// The function with this name. `None` if names are off, or the file cannot be written to. Allocates.
    pub(crate) fn of(name: &str) -> Option<NamedFunction> {
        let address = own_lock(&MAP).as_mut()?.function(name)?;
        Some(NamedFunction { address })
    }

    /// Calls `f` from this function. The process aborts if `f` unwinds.
    pub(crate) fn call<F: FnOnce()>(self, f: F) {
        extern "C" fn begin<F: FnOnce()>(f: *mut Option<F>) {
            // SAFETY: `call` has passed its own `f`, and waits for this.
            let f = unsafe { (*f).take() };
            f.expect("it was not called before")();
        }
        type Begin<F> = extern "C" fn(*mut Option<F>);
        // SAFETY: at the address are instructions that call the second argument with the first, and return.
        let function = unsafe {
            mem::transmute::<usize, extern "C" fn(*mut Option<F>, Begin<F>)>(self.address)
        };
        let mut f = Some(f);
        // `begin` does not unwind into it: it has no table.
        function(&raw mut f, begin::<F>);
    }
}

/// Whether code at this address is one of the functions, beyond which no unwind table leads.
#[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
pub(super) fn has(address: usize) -> bool {
    is_on()
        && own_lock(&MAP)
            .as_ref()
            .is_some_and(|map| (map.code..map.code + LEN).contains(&address))
}

/// The instructions of each function: it makes a frame, calls its second argument with its first, and returns.
#[rustfmt::skip]
const FUNCTION: [u8; 16] = [
    0x55,             // push rbp
    0x48, 0x89, 0xe5, // mov rbp, rsp
    0xff, 0xd6,       // call rsi
    0x5d,             // pop rbp
    0xc3,             // ret
    0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc,
];

/// The number of functions.
const MOST: usize = 1 << 14;

/// The bytes of all functions.
const LEN: usize = MOST * FUNCTION.len();

struct PerfMap {
    file: File,
    /// The address of the first function.
    code: usize,
    /// The index of each name's function.
    functions: HashMap<String, usize>,
}

impl PerfMap {
    fn new() -> io::Result<PerfMap> {
        if cfg!(not(target_arch = "x86_64")) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let file = create_file()?;
        let code = memory::reserve(LEN)?;
        // SAFETY: the memory was reserved here, has this length, and nothing else knows it.
        unsafe {
            std::slice::from_raw_parts_mut(code as *mut [u8; FUNCTION.len()], MOST).fill(FUNCTION);
        }
        let access = libc::PROT_READ | libc::PROT_EXEC;
        // SAFETY: the range is that of the mapping, which no reference points to any more.
        if unsafe { libc::mprotect(code as *mut libc::c_void, LEN, access) } != 0 {
            let error = io::Error::last_os_error();
            // SAFETY: the memory was reserved here, and nothing uses it.
            unsafe { memory::release(code, LEN) };
            return Err(error);
        }
        let mut map = PerfMap {
            file,
            code,
            functions: HashMap::new(),
        };
        map.add("(another name)")?;
        Ok(map)
    }

    /// The address of the function with this name. `None` if the file cannot be written to.
    fn function(&mut self, name: &str) -> Option<usize> {
        let index = match self.functions.get(name) {
            Some(index) => *index,
            None if self.functions.len() == MOST => 0,
            None => self.add(name).ok()?,
        };
        Some(self.code + index * FUNCTION.len())
    }

    /// Gives the next function this name.
    fn add(&mut self, name: &str) -> io::Result<usize> {
        let index = self.functions.len();
        let at = self.code + index * FUNCTION.len();
        let len = FUNCTION.len();
        // What folds stacks separates frames by semicolons, and the file has one line for each function.
        let shown = name.replace(|c: char| c == ';' || c.is_control(), " ");
        let line = format!("{at:x} {len:x} coroutine {shown}\n");
        self.file.write_all(line.as_bytes())?;
        self.functions.insert(name.to_owned(), index);
        Ok(index)
    }
}

/// The file for this process, where perf looks for it.
fn create_file() -> io::Result<File> {
    let path = format!("/tmp/perf-{}.map", std::process::id());
    let create = || {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o644).open(&path)
    };
    match create() {
        // Of an earlier process with this number. What belongs to another user stays, and is an error.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(&path)?;
            create()
        }
        other => other,
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn a_call_goes_through_the_function_of_its_name() {
        turn_on().unwrap();
        let mut calls = 0;
        for name in ["a;b\nc", "second", "a;b\nc"] {
            NamedFunction::of(name).unwrap().call(|| calls += 1);
        }
        assert_eq!(calls, 3);
        let path = format!("/tmp/perf-{}.map", std::process::id());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let lines = text.lines().map(|line| {
            let fields: Vec<_> = line.splitn(3, ' ').collect();
            (usize::from_str_radix(fields[0], 16).unwrap(), fields[2])
        });
        // Coroutines of other tests may have got theirs meanwhile.
        let own = [
            "coroutine (another name)",
            "coroutine a b c",
            "coroutine second",
        ];
        let (addresses, names): (Vec<_>, Vec<_>) =
            lines.filter(|(_, name)| own.contains(name)).unzip();
        assert_eq!(names, own);
        let distance = addresses[2] - addresses[1];
        assert!(distance >= FUNCTION.len() && distance.is_multiple_of(FUNCTION.len()));
        #[cfg(target_env = "gnu")]
        assert!(has(addresses[2]) && !has(FUNCTION.as_ptr() as usize));
    }
}
