//! Taking turns at what blocks a thread of the pool.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread;

use rustix::net::SocketAddrUnix;

use crate::park::Waiters;
use crate::sys::fork::Process;
use crate::task::word::Kind;

/// The right to block a thread of the pool in connecting to an address: of one coroutine at a time,
/// lest each of many that connect to a listener has a thread made for it.
pub(super) struct Turn {
    key: Key,
    line: Arc<Line>,
    /// Whether it is this one's turn.
    has_it: bool,
}

/// In a fork of the process nobody is there who would end a turn.
type Key = (u32, SocketAddrUnix);

/// Those who connect to one address.
struct Line {
    taken: AtomicBool,
    waiters: Waiters,
}

impl Turn {
    /// Waits for the turn at `name`. None if that is not known, in a forked child.
    pub(super) fn wait(name: &SocketAddrUnix) -> Option<Turn> {
        let key = (Process::current().number(), name.clone());
        let line = Arc::clone(lock()?.entry(key.clone()).or_insert_with(|| {
            Arc::new(Line {
                taken: AtomicBool::new(false),
                waiters: Waiters::new(),
            })
        }));
        let mut turn = Turn {
            key,
            line,
            has_it: false,
        };
        let line = &*turn.line;
        while line.taken.swap(true, Ordering::SeqCst) {
            let is_free = || !line.taken.load(Ordering::SeqCst);
            line.waiters.wait(Kind::Peer, None, is_free);
        }
        turn.has_it = true;
        Some(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.has_it {
            self.line.taken.store(false, Ordering::SeqCst);
        }
        // Also what one was woken for that does not take its turn any more.
        if !self.line.taken.load(Ordering::SeqCst) {
            self.line.waiters.wake_one(|| {});
        }
        if let Some(mut lines) = lock() {
            // The table's, and this one's: who wants another takes it under the lock.
            if Arc::strong_count(&self.line) == 2 {
                lines.remove(&self.key);
            }
        }
    }
}

/// The lines by address. None in a forked child, where the lock may have been taken for ever.
fn lock() -> Option<MutexGuard<'static, BTreeMap<Key, Arc<Line>>>> {
    static LINES: Mutex<BTreeMap<Key, Arc<Line>>> = Mutex::new(BTreeMap::new());
    for _ in 0..1000 {
        match LINES.try_lock() {
            Ok(lines) => return Some(lines),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => thread::yield_now(),
        }
    }
    None
}
