//! Waiting for signals: SIGTERM, Ctrl-C (SIGINT), SIGHUP and so on.
//!
//! [`wait`] parks the coroutine until one of some signals comes, and [`Signals`] is an iterator over them.
//! [`restore_default`] gives a signal back to the system. [`unwind_on`] has signals end the process only after all
//! coroutines have unwound.
//!
//! ```no_run
//! use greenroom::signal::{self, SIGINT, SIGTERM};
//! # fn serve() {}
//! # fn drain() {}
//!
//! # fn main() -> std::io::Result<()> {
//! greenroom::run(|| {
//!     let server = greenroom::spawn(serve);
//!     signal::wait(&[SIGTERM, SIGINT])?;
//!     // The next one ends the process at once, if the requests in progress take too long.
//!     signal::restore_default(&[SIGTERM, SIGINT])?;
//!     server.cancel();
//!     drain();
//!     Ok(())
//! })
//! # }
//! ```
//!
//! # What happens to a signal
//!
//! A signal does what it does by default until code asks for it here. From then on its default action is gone
//! for the rest of the process, as with the crate [signal-hook](https://docs.rs/signal-hook), on which this
//! module is built: while nothing waits for it, the signal is ignored. [`restore_default`] brings the default
//! action back.
//!
//! A handler that another part of the program has installed before is still called, and so are the actions of
//! other users of signal-hook. The program may have its own handler of SIGCHLD and wait for its own children:
//! [`shims::process`](crate::shims::process) has no handler.
//!
//! The handler of this module sets a flag and writes a byte to a pipe. The kernel has it run on any thread of
//! the process, which may be a worker. It then uses about 4 KiB of the stack of the coroutine that runs there.
//! System calls go on after it, as SA_RESTART says.

mod inbox;
mod unwind;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use signal_hook::{SigId, flag, low_level};

use crate::reactor::{Interest, wait_fd};
use crate::task::{self, lock_aside};
use inbox::Inbox;

pub use unwind::unwind_on;

#[doc(no_inline)]
pub use libc::{
    SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGPIPE, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN,
    SIGTTOU, SIGURG, SIGUSR1, SIGUSR2, SIGWINCH,
};

/// Waits for one of `signals`, and returns its number.
///
/// Parks the calling coroutine. Off-coroutine, blocks the OS thread. If several callers wait for a signal, each
/// of them sees it. A signal that comes before the call, or after it has returned, is not seen: use [`Signals`]
/// to wait more than once.
///
/// ```no_run
/// use greenroom::signal::{self, SIGINT, SIGTERM};
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let signal = signal::wait(&[SIGTERM, SIGINT])?;
/// println!("signal {signal}");
///
/// // For no longer than a minute:
/// let signal = greenroom::timeout(Duration::from_secs(60), || signal::wait(&[SIGTERM, SIGINT]));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Those of [`Signals::new`].
///
/// # Unwinding
///
/// An interruption point.
pub fn wait(signals: &[i32]) -> io::Result<i32> {
    Signals::new(signals)?.next_until(None)
}

/// Has the signals do again what they do by default: SIGTERM and SIGINT end the process, SIGTSTP stops it.
///
/// To be called when the program does not want to hear of a signal any more, such as after the first SIGTERM. It
/// holds for the whole process, also for waits that still go on, until code asks for one of the signals again.
///
/// # Errors
///
/// `InvalidInput` for real-time signals and for those that [`Signals::new`] refuses. Then no signal has changed.
/// Otherwise the operating system's.
pub fn restore_default(signals: &[i32]) -> io::Result<()> {
    check(signals)?;
    has_default(signals)?;
    let mut defaults = lock_aside(&DEFAULTS);
    for &signal in signals {
        let is_default = match defaults.get(&signal) {
            Some(is_default) => is_default,
            None => {
                let is_default = Arc::new(AtomicBool::new(false));
                flag::register_conditional_default(signal, Arc::clone(&is_default))?;
                defaults.entry(signal).or_insert(is_default)
            }
        };
        is_default.store(true, Ordering::SeqCst);
    }
    Ok(())
}

/// Of each signal for which [`restore_default`] was ever called, whether its default action is in force.
static DEFAULTS: Mutex<BTreeMap<i32, Arc<AtomicBool>>> = Mutex::new(BTreeMap::new());

/// The signals that tell of a fault of the code, which a handler cannot return from. (SIGKILL and SIGSTOP have no
/// handlers.)
const FAULTS: &[i32] = &[libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE];

/// Refuses signals that cannot be waited for.
///
/// # Errors
///
/// `InvalidInput`.
fn check(signals: &[i32]) -> io::Result<()> {
    if signals.is_empty() {
        return Err(invalid("no signal to wait for"));
    }
    for &signal in signals {
        // Those between are the C library's own.
        let exists =
            (1..32).contains(&signal) || (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&signal);
        if !exists {
            return Err(invalid(format!("{signal} is no signal")));
        }
        if FAULTS.contains(&signal) || matches!(signal, libc::SIGKILL | libc::SIGSTOP) {
            let name = low_level::signal_name(signal).unwrap_or_default();
            return Err(invalid(format!("{name} cannot be waited for")));
        }
    }
    Ok(())
}

/// Refuses signals whose default action signal-hook does not know.
///
/// # Errors
///
/// `InvalidInput`.
fn has_default(signals: &[i32]) -> io::Result<()> {
    let is_known = |&signal| low_level::signal_name(signal).is_some();
    match signals.iter().all(is_known) {
        true => Ok(()),
        false => Err(invalid(
            "the default action of real-time signals is not known",
        )),
    }
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.into())
}

/// Receives signals, from its making on. An iterator.
///
/// `next` parks the coroutine until a signal comes (off-coroutine, it blocks the OS thread). The iterator never
/// returns `None`. It returns an error of the operating system as an item.
///
/// A signal that comes again before it was taken is taken once, as the kernel does it with standard signals. This
/// holds for real-time signals, too. Different signals are taken in the order in which they came. Every `Signals`
/// has each signal to itself. If several coroutines share one `Signals`, each signal goes to one of them.
///
/// The [descriptor](AsFd) is readable while there is a signal to be taken. It is for
/// [`wait_fd`](crate::wait_fd()), [`select!`](crate::select!) and other ways to wait for descriptors;
/// [`try_next`](Signals::try_next) then takes the signal.
///
/// ```
/// use greenroom::signal::{SIGHUP, SIGUSR1, Signals};
///
/// # fn main() -> std::io::Result<()> {
/// let mut signals = Signals::new(&[SIGHUP, SIGUSR1])?;
/// let own = std::process::id().to_string();
/// std::process::Command::new("kill").args(["-s", "USR1", &own]).status()?;
///
/// assert_eq!(signals.next().unwrap()?, SIGUSR1);
/// assert_eq!(signals.try_next()?, None);
/// # Ok(())
/// # }
/// ```
///
/// # Unwinding
///
/// An interruption point. No signal is lost in an interrupted wait.
pub struct Signals {
    inbox: Arc<Inbox>,
    actions: Vec<(i32, SigId)>,
}

impl Signals {
    /// Begins to receive `signals`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a number that is no signal; for SIGKILL and SIGSTOP, which no process can handle; for
    /// SIGSEGV, SIGBUS, SIGILL and SIGFPE, which report faults; and if `signals` is empty. Then no signal has
    /// changed. Otherwise the operating system's: the process is out of descriptors.
    pub fn new(signals: &[i32]) -> io::Result<Signals> {
        check(signals)?;
        let mut received = Signals {
            inbox: Arc::new(Inbox::new()?),
            actions: Vec::new(),
        };
        for &signal in signals {
            if received.actions.iter().all(|&(known, _)| known != signal) {
                let inbox = Arc::clone(&received.inbox);
                // SAFETY: `put` is async-signal-safe and does not panic.
                let action = unsafe { register(signal, move || inbox.put(signal)) }?;
                received.actions.push((signal, action));
            }
        }
        Ok(received)
    }

    /// Takes a signal, if one has come.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn try_next(&self) -> io::Result<Option<i32>> {
        self.inbox.take()
    }

    /// Waits for the next signal, but no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// `TimedOut`, if `timeout` has passed without a signal. Otherwise the operating system's.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn next_timeout(&self, timeout: Duration) -> io::Result<i32> {
        self.next_until(Instant::now().checked_add(timeout))
    }

    /// Waits for the next signal until `deadline`; for ever, if that is `None`.
    fn next_until(&self, deadline: Option<Instant>) -> io::Result<i32> {
        loop {
            if let Some(signal) = self.inbox.take()? {
                return Ok(signal);
            }
            wait_fd(self, Interest::READABLE, deadline)?;
        }
    }
}

/// Calls `action` in the handler of `signal`, and takes the default action away from the signal.
///
/// # Errors
///
/// The operating system's.
///
/// # Safety
///
/// `action` is async-signal-safe, and does not panic.
unsafe fn register(signal: i32, action: impl Fn() + Send + Sync + 'static) -> io::Result<SigId> {
    let defaults = lock_aside(&DEFAULTS);
    // SAFETY: as the caller promises.
    let action = unsafe { low_level::register(signal, action) }?;
    if let Some(is_default) = defaults.get(&signal) {
        is_default.store(false, Ordering::SeqCst);
    }
    Ok(action)
}

impl Iterator for Signals {
    type Item = io::Result<i32>;

    fn next(&mut self) -> Option<io::Result<i32>> {
        Some(self.next_until(None))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inbox.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // signal-hook has locks of its own, and frees memory under them.
        task::aside(|| {
            for &(_, action) in &self.actions {
                low_level::unregister(action);
            }
        });
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signals = self.actions.iter().map(|(signal, _)| signal);
        f.write_str("Signals ")?;
        f.debug_list().entries(signals).finish()
    }
}
