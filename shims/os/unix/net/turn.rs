//! Connecting to Unix listeners whose queue is full, one connection at a time.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::thread;

use rustix::net::SocketAddrUnix;

use crate::pool::{Job, JobResult, submit_waiting};
use crate::sys::fork::Process;
use crate::task;

/// The process that queues, the address to connect to, and the file at that address. The number of the process keeps
/// a forked child from using its parent's queues: the thread that works through those does not exist in the child. The
/// file tells a listener from an earlier one at the same path, which may accept nothing any more.
type Destination = (u32, SocketAddrUnix, Option<FileNumber>);

/// The numbers of a device and of a file on it.
type FileNumber = (u64, u64);

/// For each address that a thread of the pool is connecting to, the jobs that wait for that thread.
type Queues = BTreeMap<Destination, VecDeque<Job>>;

/// Calls `connect`, which blocks, on a thread of the pool, after earlier calls for the same `name`.
///
/// One thread works through all calls for a name. Otherwise, many coroutines that connect to one listener
/// would take a thread each.
///
/// # Unwinding
///
/// An interruption point. If `connect` has not been called then, `connect` is never called.
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
    let to = (Process::current().number(), name.clone(), file_at(name));
    enqueue(to, job);
    let result = connected.wait_for_operation(None)?;
    result.expect("there is no deadline")
}

/// The file that is the listener at `name` now, if `name` is a path.
fn file_at(name: &SocketAddrUnix) -> Option<FileNumber> {
    let file = rustix::fs::stat(name.path()?).ok()?;
    Some((file.st_dev, file.st_ino))
}

static QUEUES: Mutex<Queues> = Mutex::new(BTreeMap::new());

/// Queues `job`, or has the pool run it if no thread works for `to`.
fn enqueue(to: Destination, job: Job) {
    let first: Option<Job> = task::aside(|| {
        let Some(mut queues) = lock_unless_orphaned() else {
            return Some(job);
        };
        if let Some(queue) = queues.get_mut(&to) {
            queue.push_back(job);
            return None;
        }
        queues.insert(to.clone(), VecDeque::new());
        Some(Box::new(move || work(&to, job)))
    });
    if let Some(first) = first {
        submit_waiting(first);
    }
}

/// Runs `job`, and then the jobs that are queued for the same destination.
fn work(to: &Destination, job: Job) {
    let mut next = Some(job);
    while let Some(job) = next {
        // A job panics if dropping an unwanted connection panics. The panic hook has reported the panic.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(job)) {
            mem::forget(payload);
        }
        let mut queues = task::lock_aside(&QUEUES);
        next = queues.get_mut(to).and_then(VecDeque::pop_front);
        if next.is_none() {
            queues.remove(to);
        }
    }
}

/// Locks the queues. Returns `None` if the lock cannot be had: in a forked child, the thread that held
/// the lock may not exist. Callers then connect without queueing.
fn lock_unless_orphaned() -> Option<MutexGuard<'static, Queues>> {
    for _ in 0..1000 {
        match QUEUES.try_lock() {
            Ok(queues) => return Some(queues),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => thread::yield_now(),
        }
    }
    None
}
