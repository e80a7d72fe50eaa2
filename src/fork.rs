//! What becomes of this crate when the process forks.
//!
//! A forked child has one thread, the one that forked; but all memory, and all descriptors, which it
//! shares with the parent. So in the child
//!
//! - the forking thread is a plain one, even in the middle of a coroutine, on whose stack it goes
//!   on: the thread-locals that say otherwise are cleared, and everything blocks as std does;
//! - a runtime of before is gone. Its polls and timers are the parent's, and are not touched: no
//!   kick, no registration, no deregistration. Who asks for its workers' work gets an error, and
//!   what belongs to it is leaked. What it guards by locks of its own is not looked at, for the
//!   threads that hold them may be missing;
//! - what belongs to the process and not to a runtime (the stacks, the pool of blocking threads, the
//!   lookups of names, the default runtime) starts in a known state: the locks of that are taken before the fork, and
//!   given back after it.
//!
//! So a signal handler that forks may deadlock, as it may on the locks of libc. What a runtime of the
//! parent shares with the child has locks of its own (a socket that coroutines wait on): used in a
//! new runtime of the child, it is refused, or replaced when it is cloned. A channel that another
//! thread was just using is disconnected.
//!
//! A coroutine must not return in the child, where the loop it would return to is not to go on: that
//! aborts the child, see [`Task::end_in_its_process`](crate::task::Task::end_in_its_process). The
//! main coroutine of `run` may, because that ends the loop.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::blocking::PoolLock;
use crate::coroutine::{self, StacksLock, overflow};
#[cfg(debug_assertions)]
use crate::deny_blocking::watch;
use crate::resolver::ResolverLock;
use crate::scheduler::{self, Worker};
use crate::sys::fork::{self, Held};
use crate::sys::memory::page_size;
use crate::{local, panic, runtime, task};

/// What is set up. Locked meanwhile, and over a fork.
static SET_UP: Mutex<SetUp> = Mutex::new(SetUp {
    hook: false,
    handlers: false,
});

struct SetUp {
    /// The panic hook names coroutines.
    hook: bool,
    /// Overflows and forks are handled.
    handlers: bool,
}

impl SetUp {
    fn hook(&mut self) {
        self.hook = self.hook || panic::install_hook();
    }
}

/// Sets up, once, what a process needs before it has its first runtime.
///
/// # Errors
///
/// Out of memory.
pub(crate) fn set_up_process() -> io::Result<()> {
    let mut set_up = lock_set_up();
    set_up.hook();
    if !set_up.handlers {
        overflow::install();
        scheduler::set_up_stealing();
        page_size();
        fork::count_forks()?;
        // SAFETY: `in_child` touches thread-locals without initialiser or destructor, and memory of
        // which the locks are held; it gives those back, which takes atomics and a futex call.
        unsafe { fork::at_fork(before, in_parent, in_child)? };
        set_up.handlers = true;
    }
    Ok(())
}

/// Sets up, on a thread that is about to drive a worker, what a thread could not that has made its
/// runtime amid a panic.
pub(crate) fn set_up_late() {
    lock_set_up().hook();
}

fn lock_set_up() -> MutexGuard<'static, SetUp> {
    SET_UP.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is locked over a fork, in the order in which it is locked.
struct Locks {
    _default_runtime: MutexGuard<'static, ()>,
    _set_up: MutexGuard<'static, SetUp>,
    resolver: ResolverLock,
    pool: PoolLock,
    _stacks: StacksLock,
    #[cfg(debug_assertions)]
    _findings: MutexGuard<'static, watch::Findings>,
}

static HELD: Held<Locks> = Held::new();

unsafe extern "C" fn before() {
    let locks = Locks {
        _default_runtime: runtime::lock_default(),
        _set_up: lock_set_up(),
        resolver: ResolverLock::new(),
        pool: PoolLock::new(),
        _stacks: StacksLock::new(),
        #[cfg(debug_assertions)]
        _findings: watch::lock(),
    };
    // SAFETY: they are the same locks each time.
    unsafe { HELD.keep(locks) };
}

unsafe extern "C" fn in_parent() {
    // SAFETY: this thread has forked.
    drop(unsafe { HELD.take() });
}

unsafe extern "C" fn in_child() {
    local::keep_over_fork();
    task::forget_running();
    coroutine::forget_running();
    Worker::forget_current();
    runtime::forget_default();
    // SAFETY: this thread has forked.
    if let Some(mut locks) = unsafe { HELD.take() } {
        locks.resolver.forget_lookups();
        locks.pool.forget_threads();
    }
}
