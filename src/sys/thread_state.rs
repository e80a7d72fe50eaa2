//! What another thread of this process is doing, and memory that another thread may change.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::slice;
use std::time::Duration;

/// A thread of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadNumber(libc::pid_t);

/// What a thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The thread computes, or waits for a processor to do so.
    Running,
    /// The thread waits in the kernel.
    Blocked {
        /// The number of the system call. `None` if the thread waits for memory that it has touched.
        call: Option<i64>,
        /// The stack pointer of the code that waits.
        stack: usize,
        /// The instruction after the call.
        at: usize,
    },
}

impl ThreadNumber {
    /// The calling thread. Async-signal-safe.
    pub(crate) fn current() -> ThreadNumber {
        // SAFETY: gettid has no preconditions.
        ThreadNumber(unsafe { libc::gettid() })
    }

    /// The number that the system knows the thread by.
    pub(crate) fn number(self) -> i32 {
        self.0
    }

    /// What the thread is doing. `None` if the system does not tell.
    pub(crate) fn state(self) -> Option<State> {
        let said = fs::read_to_string(format!("/proc/self/task/{}/syscall", self.0)).ok()?;
        let mut words = said.split_whitespace();
        let first = words.next()?;
        if first == "running" {
            return Some(State::Running);
        }
        let call = first.parse::<i64>().ok()?;
        let mut last = words.rev().map(|word| {
            let digits = word.strip_prefix("0x")?;
            usize::from_str_radix(digits, 16).ok()
        });
        let at = last.next()??;
        let stack = last.next()??;
        Some(State::Blocked {
            call: (call >= 0).then_some(call),
            stack,
            at,
        })
    }

    /// How long the thread has been ready to run without a processor, so far. `None` if the system does not tell.
    pub(crate) fn time_in_queue(self) -> Option<Duration> {
        let said = fs::read_to_string(format!("/proc/self/task/{}/schedstat", self.0)).ok()?;
        let nanoseconds = said.split_whitespace().nth(1)?;
        nanoseconds.parse().ok().map(Duration::from_nanos)
    }

    /// Sends `signal` to the thread. Returns whether the thread exists.
    ///
    /// # Safety
    ///
    /// A handler for the signal is installed, or its default action does nothing.
    pub(crate) unsafe fn signal(self, signal: libc::c_int) -> bool {
        // SAFETY: tgkill takes any numbers. The caller answers for what the signal does.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.0, signal) == 0 }
    }
}

/// The number of threads of this process. `None` if the system does not tell.
///
/// Not the number of entries of `/proc/self/task`: Linux ends that list early if the thread that it has come to exits
/// meanwhile, and so misses others.
pub(crate) fn count_threads() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let count = status
        .lines()
        .find_map(|line| line.strip_prefix("Threads:"))?;
    count.trim().parse().ok()
}

/// The name of the system call with that number.
pub(crate) fn name_of_call(number: i64) -> Option<&'static str> {
    let number = usize::try_from(number).ok()?;
    syscalls::Sysno::new(number).map(|call| call.name())
}

/// The memory of this process, read by the kernel. A read is no access by this program: it fails where there
/// is no memory, and other threads may write meanwhile. What was read is then anything.
pub(crate) struct OwnMemory(File);

impl OwnMemory {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub(crate) fn open() -> io::Result<OwnMemory> {
        File::open("/proc/self/mem").map(OwnMemory)
    }

    /// Fills `bytes` from `address`.
    ///
    /// # Errors
    ///
    /// The operating system's. `UnexpectedEof` at the end of readable memory.
    pub(crate) fn read(&self, address: usize, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(bytes, address as u64)
    }

    /// The bytes of the value at `address`.
    ///
    /// # Errors
    ///
    /// Those of [`read`](OwnMemory::read).
    pub(crate) fn value<T>(&self, address: *const T) -> io::Result<MaybeUninit<T>> {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the bytes are those of `value`, all initialised, and any bytes may be written to them.
        let bytes =
            unsafe { slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>()) };
        self.read(address as usize, bytes)?;
        Ok(value)
    }
}

/// A cell of another thread, which the kernel reads.
pub(crate) struct ForeignCell<T>(*const Cell<T>);

impl<T> Clone for ForeignCell<T> {
    fn clone(&self) -> ForeignCell<T> {
        *self
    }
}

impl<T> Copy for ForeignCell<T> {}

// SAFETY: the pointer is not followed: it is passed to the kernel, which checks it.
unsafe impl<T> Send for ForeignCell<T> {}

impl<T> ForeignCell<T> {
    pub(crate) fn new(cell: &Cell<T>) -> ForeignCell<T> {
        ForeignCell(cell)
    }

    /// The bytes of the value. They are those of one value if the thread does not write meanwhile.
    ///
    /// # Errors
    ///
    /// Those of [`OwnMemory::read`].
    pub(crate) fn bytes(self, memory: &OwnMemory) -> io::Result<MaybeUninit<T>> {
        memory.value(self.0.cast())
    }
}

impl ForeignCell<u64> {
    /// The value, which is read at once. `None` if the cell is not there any more.
    pub(crate) fn read(self, memory: &OwnMemory) -> Option<u64> {
        // SAFETY: any bytes are a number.
        self.bytes(memory)
            .ok()
            .map(|bytes| unsafe { bytes.assume_init() })
    }
}

/// The addresses of this process that hold code, as far as it can be read.
///
/// # Errors
///
/// The operating system's.
pub(crate) fn code() -> io::Result<Vec<Range<usize>>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let code = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        rest.starts_with("r-x")
            .then_some(address(start)?..address(end)?)
    });
    Ok(code.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeping_thread_is_blocked_in_its_call_and_a_spinning_one_runs() {
        use std::sync::atomic::{AtomicBool, Ordering};
        use std::sync::mpsc;
        use std::thread;
        use std::time::Duration;

        let (seen, over) = (AtomicBool::new(false), AtomicBool::new(false));
        let (tell, told) = mpsc::channel();
        thread::scope(|s| {
            let (tell_too, seen) = (tell.clone(), &seen);
            s.spawn(move || {
                tell_too.send(ThreadNumber::current()).unwrap();
                while !seen.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(100));
                }
            });
            let sleeper = told.recv().unwrap();
            let name = || match sleeper.state()? {
                State::Blocked { call, .. } => name_of_call(call?),
                State::Running => None,
            };
            while name() != Some("clock_nanosleep") {
                thread::yield_now();
            }
            seen.store(true, Ordering::Relaxed);
            let over = &over;
            s.spawn(move || {
                tell.send(ThreadNumber::current()).unwrap();
                while !over.load(Ordering::Relaxed) {}
            });
            let spinner = told.recv().unwrap();
            while spinner.state().unwrap() != State::Running {
                thread::yield_now();
            }
            over.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn no_thread_is_missed_while_others_end() {
        use std::sync::mpsc;
        use std::thread;

        for _ in 0..500 {
            let mut short: Vec<_> = (0..8)
                .map(|n| thread::spawn(move || thread::sleep(Duration::from_micros(50 * n))))
                .collect();
            let (end, ended) = mpsc::channel::<()>();
            let long = thread::spawn(move || ended.recv().unwrap_err());
            while !short.is_empty() {
                let all = count_threads().unwrap();
                short.retain(|thread| !thread.is_finished());
                // With this thread and the long one.
                assert!(all >= short.len() + 2);
            }
            drop(end);
            long.join().unwrap();
        }
    }

    #[test]
    fn reads_fail_where_there_is_no_memory() {
        let memory = OwnMemory::open().unwrap();
        let value = 7_u64;
        // SAFETY: any bytes are a number.
        assert_eq!(unsafe { memory.value(&value).unwrap().assume_init() }, 7);
        assert!(memory.value(std::ptr::dangling::<u64>()).is_err());
    }

    #[test]
    fn functions_are_code_and_statics_are_not() {
        static DATA: u8 = 0;
        let code = code().unwrap();
        let is_code = |address: usize| code.iter().any(|range| range.contains(&address));
        assert!(is_code(
            functions_are_code_and_statics_are_not as fn() as usize
        ));
        assert!(!is_code(&raw const DATA as usize));
    }
}
