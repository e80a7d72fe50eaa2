//! [`std::sync`], but waits park the coroutine.
//!
//! All types here work among coroutines, among OS threads, and between the two, with or without a
//! runtime. A coroutine may hold a guard while the coroutine waits for something else.
//!
//! # Shutdown
//!
//! Waits here are not interruption points: a wait ends by its event or not at all. When a runtime shuts
//! down, a coroutine that still waits here is left behind, and keeps what it has locked.
//!
//! A coroutine that unwinds because its runtime shuts down poisons what it has locked, as a panic does.
//! An initialiser that unwinds poisons its [`LazyLock`] or [`Once`]. A static then stays poisoned for
//! the rest of the process, even if another runtime starts later. A [`OnceLock`] stays empty, and the
//! next caller tries again.
//!
//! # During an unwind
//!
//! A coroutine that unwinds from a panic does not switch to another coroutine: a wait blocks the worker.
//! If another coroutine of the same worker holds the lock or runs the [`Once`], the process aborts with
//! a message that names both coroutines. The readers of a [`RwLock`] are not recorded, so a wait for
//! readers of the same worker is not detected.
//!
//! # Allocators
//!
//! A global allocator may use one of these locks at a time. When the runtime itself allocates, the
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
pub use mutex::{Mutex, MutexExt, MutexGuard};
pub use once::{Once, OnceState};
pub use once_lock::OnceLock;
pub use rwlock::{RwLock, RwLockExt, RwLockReadGuard, RwLockWriteGuard};

/// Like [`std::sync::ONCE_INIT`].
#[deprecated(note = "replaced by `Once::new`")]
#[expect(
    clippy::declare_interior_mutable_const,
    reason = "mirrors std: each use is a new value"
)]
pub const ONCE_INIT: Once = Once::new();
