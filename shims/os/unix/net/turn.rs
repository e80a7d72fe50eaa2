//! Taking turns at what blocks a thread of the pool.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread;

use rustix::net::SocketAddrUnix;

use crate::pool::{Job, JobResult, submit_waiting};
use crate::sys::fork::Process;
use crate::sys::switches::own_lock;
use crate::task;
use crate::task::word::Kind;

/// In a fork of the process nobody is there who would do what is queued.
type Key = (u32, SocketAddrUnix);

/// Those who connect to an address, by that: one of them does on a thread of the pool, for which
/// the others queue.
type Lines = BTreeMap<Key, VecDeque<Job>>;

/// Calls `connect`, which blocks, on a thread of the pool, after those who connect to `name` already:
/// lest each of many that connect to a listener has a thread made for it. The thread does one after the
/// other, so nobody has to run for the next one to have its turn.
///
/// # Unwinding
///
/// An interruption point. What has not begun then is left out.
pub(super) fn connect_in_turn<T: Send + 'static>(
    name: &SocketAddrUnix,
    connect: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let connected = Arc::new(JobResult::new());
    let asked = Arc::downgrade(&connected);
    let job = Box::new(move || {
        if asked.strong_count() == 0 {
            return;
        }
        let result = catch_unwind(AssertUnwindSafe(connect));
        if let Some(connected) = asked.upgrade() {
            connected.fill(result);
        }
    });
    begin((Process::current().number(), name.clone()), job);
    let result = connected.wait(Kind::Event, None);
    result.expect("there is no deadline")
}

static LINES: Mutex<Lines> = Mutex::new(BTreeMap::new());

fn begin(key: Key, job: Job) {
    let first: Option<Job> = task::aside(|| {
        let Some(mut lines) = lock_unless_lost() else {
            return Some(job);
        };
        if let Some(line) = lines.get_mut(&key) {
            line.push_back(job);
            return None;
        }
        lines.insert(key.clone(), VecDeque::new());
        Some(Box::new(move || work(&key, job)))
    });
    if let Some(first) = first {
        submit_waiting(first);
    }
}

/// Does `job`, and then those that queue for the same address.
fn work(key: &Key, job: Job) {
    let mut next = Some(job);
    while let Some(job) = next {
        // It fails where a connection that nobody wants is dropped; the hook has reported that.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(job)) {
            mem::forget(payload);
        }
        let mut lines = own_lock(&LINES);
        next = lines.get_mut(key).and_then(VecDeque::pop_front);
        if next.is_none() {
            lines.remove(key);
        }
    }
}

/// None in a forked child, where the lock may have been taken for ever: then nobody queues.
fn lock_unless_lost() -> Option<MutexGuard<'static, Lines>> {
    for _ in 0..1000 {
        match LINES.try_lock() {
            Ok(lines) => return Some(lines),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => thread::yield_now(),
        }
    }
    None
}
