//! [`std::sync`], whose waits park the coroutine.
//!
//! Everything here works between coroutines, OS threads and both, before a runtime starts and
//! without one. A guard may be held while its coroutine waits for something else.
//!
//! Waits are no interruption points: they end by their event, or not at all. Where a runtime shuts down, a
//! coroutine that still waits here is left behind, with what it has locked.
//!
//! A coroutine that unwinds elsewhere as its runtime shuts down poisons what it has locked, like a panic. An
//! initialiser that does poisons its [`LazyLock`] or [`Once`]: a static stays so for the rest of the
//! process, whatever runtimes come later. A [`OnceLock`] stays empty, for the next to try.
//!
//! A coroutine that unwinds from a panic keeps its worker to itself while it waits. If it waits for
//! a lock (or a [`Once`]) that another coroutine of that worker holds, the process is aborted with
//! the names of both; who reads a [`RwLock`] is not known.
//!
//! A global allocator may use these locks, one at a time: where the runtime itself allocates, the
//! allocator's wait blocks the thread.

mod barrier;
mod condvar;
mod lazy_lock;
pub mod mpsc;
mod mutex;
mod once;
mod once_lock;
mod poisoning;
mod rwlock;

pub use ::std::sync::*;

pub use barrier::{Barrier, BarrierWaitResult};
pub use condvar::{Condvar, WaitTimeoutResult};
pub use lazy_lock::LazyLock;
pub use mutex::{Mutex, MutexGuard};
pub use once::{Once, OnceState};
pub use once_lock::OnceLock;
pub use rwlock::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Like [`std::sync::ONCE_INIT`].
#[deprecated(note = "replaced by `Once::new`")]
#[expect(
    clippy::declare_interior_mutable_const,
    reason = "as std's: each use is a new one"
)]
pub const ONCE_INIT: Once = Once::new();
