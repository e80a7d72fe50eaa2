//! Mutexes and condition variables of C.
//!
//! Their state stays the C library's. Two waits are changed, in which it would block the thread for what another
//! coroutine of the same thread has to do:
//!
//! - *A mutex that another coroutine of the thread holds.* The C library notes the thread that holds a mutex, so
//!   this is seen. The coroutine waits in the lot, and the coroutine that unlocks wakes it. Both are of one thread,
//!   so nothing happens between the look and the wait.
//! - *A condition variable.* The coroutine queues in the lot, then unlocks the mutex, then suspends. A thread
//!   that signals has seen the mutex unlocked, or else need not be seen: so it sees the coroutine counted. It
//!   wakes a coroutine and a thread. One of these is a spurious wake-up, which every wait of this kind allows
//!   for. So is the end of the pause after which a coroutine looks again, if other processes may signal.
//!
//! *A mutex that notes its holder*, to let it in again or to refuse it or others: the C library notes the thread. Which
//! of its coroutines that is, is noted in `owners.rs`.
//!
//! A mutex that another thread holds blocks the thread as before. That is a matter of moments, mostly. And an
//! allocator can rely on it: it has a state per thread, and must not be entered by a second coroutine in the midst of
//! a wait for its mutex.

use std::cell::Cell;
use std::mem::{MaybeUninit, offset_of};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::time::Instant;

use libc::{EBUSY, EOWNERDEAD, EPERM, ETIMEDOUT};

use super::attributes::is_as_second;
use super::counted::Counted;
use super::errno::untouched;
use super::original;
use super::owners::{self, Holder};
use super::processes::next_look;
use super::time::{deadline_of, deadline_of_lock};
use super::types::{c_int, clockid_t, pthread_cond_t, pthread_mutex_t, timespec};
use super::wait::may_wait_in_lot;
use crate::fatal;
use crate::sync::futex::{self, Waited};
use crate::task::{self, Current, Description};

thread_local! {
    /// The coroutines of this thread that wait for a mutex.
    static WAITING_HERE: Cell<usize> = const { Cell::new(0) };
}

/// The coroutines that wait for a condition variable.
static WAITING: Counted = Counted::of(AtomicUsize::new(0));

/// The beginning of a mutex of the GNU C library, on processors of 64 bits. Programs have it compiled in, so it
/// cannot change.
#[repr(C)]
struct Fields {
    lock: AtomicI32,
    count: AtomicU32,
    /// The thread that holds it.
    owner: AtomicI32,
    users: AtomicU32,
    kind: AtomicI32,
}

/// The bits of a mutex's kind that say what happens if its holder locks it again.
const TYPE: c_int = 3;

/// The types that let the holder in again, or refuse it.
const OF_HOLDER: [c_int; 2] = [1, 2];

/// The bits of a mutex that is robust, and of one that inherits priorities. They refuse an unlock by another thread.
const OF_THREAD: c_int = 16 | 32;

const _: () = assert!(
    cfg!(not(all(target_env = "gnu", target_pointer_width = "64")))
        || offset_of!(Fields, kind) == 16 && size_of::<Fields>() <= size_of::<pthread_mutex_t>()
);

/// The fields of the mutex. `None`, if they are not known on this platform.
///
/// # Safety
///
/// The pointer is to a mutex that is initialised, and is there for as long as the result is used.
unsafe fn fields<'a>(mutex: *mut pthread_mutex_t) -> Option<&'a Fields> {
    // SAFETY: the caller's. The fields are those of the type. They are atomic, because other threads change them
    // meanwhile.
    cfg!(all(target_env = "gnu", target_pointer_width = "64")).then(|| unsafe { &*mutex.cast() })
}

/// Whether the mutex notes its holder, to let it in again or to refuse others.
///
/// # Safety
///
/// The pointer is to a mutex that is initialised.
unsafe fn notes_holder(mutex: *mut pthread_mutex_t) -> bool {
    // SAFETY: the caller's.
    unsafe { fields(mutex) }.is_some_and(|fields| {
        let kind = fields.kind.load(Ordering::Relaxed);
        OF_HOLDER.contains(&(kind & TYPE)) || kind & OF_THREAD != 0
    })
}

/// Whether a coroutine of the calling thread holds the mutex, which does not note its holder.
///
/// # Safety
///
/// The pointer is to a mutex that is initialised.
unsafe fn is_held_here(mutex: *mut pthread_mutex_t) -> bool {
    // SAFETY: the caller's; the call has no preconditions.
    let (fields, this_thread) = unsafe { (fields(mutex), libc::gettid()) };
    let owner = fields.map(|fields| fields.owner.load(Ordering::Relaxed));
    // SAFETY: the caller's.
    owner == Some(this_thread) && !unsafe { notes_holder(mutex) }
}

/// The first word of what a pointer of C is to, as the name of a queue of the lot.
///
/// # Safety
///
/// The pointer is to such an object, which is there for as long as the result is used.
unsafe fn word<'a, T>(object: *mut T) -> &'a AtomicU32 {
    const { assert!(align_of::<T>() >= align_of::<AtomicU32>()) };
    // SAFETY: the caller's. The C library uses the word with atomic instructions only.
    unsafe { AtomicU32::from_ptr(object.cast()) }
}

/// Locks the mutex, or returns `ETIMEDOUT`. `block` is the original.
///
/// # Safety
///
/// The pointer is to a mutex that is initialised.
#[inline]
unsafe fn lock(
    mutex: *mut pthread_mutex_t,
    deadline: impl FnOnce() -> Result<Option<Instant>, c_int>,
    block: impl FnOnce() -> c_int,
) -> c_int {
    // SAFETY: the caller's.
    if unsafe { notes_holder(mutex) } {
        // SAFETY: the caller's.
        return unsafe { lock_of_holder(mutex, deadline, block) };
    }
    // SAFETY: the caller's.
    let attempt = || unsafe { original::pthread_mutex_trylock(mutex) };
    match attempt() {
        EBUSY => {}
        done => return done,
    }
    // SAFETY: the caller's.
    let is_held_here = || unsafe { is_held_here(mutex) };
    if !is_held_here() {
        return block();
    }
    let deadline = match deadline() {
        Ok(deadline) => deadline,
        Err(refused) => return refused,
    };
    while is_held_here() && may_wait() {
        // SAFETY: the caller's.
        let waited = unsafe { wait_while(mutex, deadline, is_held_here) };
        match attempt() {
            EBUSY if waited == Waited::TimedOut => return ETIMEDOUT,
            EBUSY => {}
            done => return done,
        }
    }
    block()
}

/// Like `lock`, for a mutex that notes its holder.
///
/// # Safety
///
/// As for `lock`.
unsafe fn lock_of_holder(
    mutex: *mut pthread_mutex_t,
    deadline: impl FnOnce() -> Result<Option<Instant>, c_int>,
    block: impl FnOnce() -> c_int,
) -> c_int {
    let is_held_here = || owners::holder(mutex.addr()) == Holder::Another;
    if is_held_here() && may_wait() {
        let deadline = match deadline() {
            Ok(deadline) => deadline,
            Err(refused) => return refused,
        };
        while is_held_here() {
            // SAFETY: the caller's.
            let waited = unsafe { wait_while(mutex, deadline, is_held_here) };
            if waited == Waited::TimedOut && is_held_here() {
                return ETIMEDOUT;
            }
        }
    }
    note_if_locked(mutex, block())
}

/// Notes that the caller holds the mutex, if that is what `locked` says, which an attempt to lock it has returned.
/// Returns the same.
fn note_if_locked(mutex: *mut pthread_mutex_t, locked: c_int) -> c_int {
    // The previous holder of a robust mutex may have ended.
    if [0, EOWNERDEAD].contains(&locked) {
        owners::note_locked(mutex.addr());
    }
    locked
}

/// Whether the caller waits for coroutines of this thread by `wait_while`. If not, it is not among them: it is in the
/// child of a vfork, say.
fn may_wait() -> bool {
    may_wait_in_lot() || std::thread::panicking()
}

/// Waits until another coroutine of this thread unlocks the mutex. Aborts if no other coroutine can run meanwhile, and
/// there is no deadline.
///
/// # Safety
///
/// The pointer is to a mutex that is there for as long as this waits.
unsafe fn wait_while(
    mutex: *mut pthread_mutex_t,
    deadline: Option<Instant>,
    is_held_here: impl Fn() -> bool,
) -> Waited {
    if !may_wait_in_lot() {
        return wait_in_vain(deadline);
    }
    WAITING_HERE.set(WAITING_HERE.get() + 1);
    // SAFETY: the caller's.
    let word = unsafe { word(mutex) };
    let waited = untouched(|| futex::wait_while(word, deadline, is_held_here, || {}));
    WAITING_HERE.set(WAITING_HERE.get() - 1);
    waited
}

/// Waits for a mutex that is not unlocked before this returns.
#[cold]
fn wait_in_vain(deadline: Option<Instant>) -> Waited {
    let Some(deadline) = deadline else {
        fatal::abort(format_args!(
            "{}, which keeps its worker to itself since it unwinds from a panic, waits for a mutex of C that another \
             coroutine of the worker holds",
            Description(&Current::get()),
        ));
    };
    let left = deadline.saturating_duration_since(Instant::now());
    untouched(|| task::aside(|| std::thread::sleep(left)));
    Waited::TimedOut
}

pub(super) unsafe fn pthread_mutex_trylock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's.
    let attempt = || unsafe { original::pthread_mutex_trylock(mutex) };
    // SAFETY: the caller's.
    if !unsafe { notes_holder(mutex) } {
        return attempt();
    }
    if owners::holder(mutex.addr()) == Holder::Another {
        return EBUSY;
    }
    note_if_locked(mutex, attempt())
}

pub(super) unsafe fn pthread_mutex_lock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's.
    unsafe { lock(mutex, || Ok(None), || original::pthread_mutex_lock(mutex)) }
}

pub(super) unsafe fn pthread_mutex_timedlock(
    mutex: *mut pthread_mutex_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's.
    let deadline = || unsafe { deadline_of_lock(libc::CLOCK_REALTIME, until) };
    // SAFETY: the caller's.
    unsafe {
        lock(mutex, deadline, || {
            original::pthread_mutex_timedlock(mutex, until)
        })
    }
}

pub(super) unsafe fn pthread_mutex_clocklock(
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's.
    let deadline = || unsafe { deadline_of_lock(clock, until) };
    // SAFETY: the caller's.
    unsafe {
        lock(mutex, deadline, || {
            original::pthread_mutex_clocklock(mutex, clock, until)
        })
    }
}

pub(super) unsafe fn pthread_mutex_unlock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: the caller's.
    let notes_holder = unsafe { notes_holder(mutex) };
    if notes_holder && owners::holder(mutex.addr()) == Holder::Another {
        return EPERM;
    }
    // SAFETY: the caller's.
    let done = unsafe { original::pthread_mutex_unlock(mutex) };
    // The mutex may not exist any more.
    if notes_holder && done == 0 {
        owners::note_unlocked(mutex.addr());
    }
    if WAITING_HERE.get() != 0 {
        // All of them look again. A single one might find that another thread has taken the mutex. The unlock of that
        // thread wakes nobody here.
        untouched(|| futex::wake_at(mutex.addr(), usize::MAX));
    }
    done
}

/// Waits for the condition variable. `block` is the original.
///
/// # Safety
///
/// The pointers are to such objects, which are initialised, and the caller holds the mutex.
unsafe fn wait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    deadline: Option<Instant>,
    block: impl FnOnce() -> c_int,
) -> c_int {
    // SAFETY: the caller's.
    let is_held = || unsafe { is_held_here(mutex) };
    if !(is_held() || owners::holder(mutex.addr()) == Holder::Caller) || !may_wait_in_lot() {
        return block();
    }
    // SAFETY: the caller's. The condition variable is not destroyed while there are waiters.
    let word = unsafe { word(condition) };
    // SAFETY: the caller's: it holds the mutex.
    let unlock = || _ = unsafe { pthread_mutex_unlock(mutex) };
    // SAFETY: the caller's.
    let next = unsafe { next_look(condition, deadline) };
    let wait = || futex::wait_while(word, next, || true, unlock);
    let waited = untouched(|| WAITING.during(wait));
    // SAFETY: the caller's.
    match unsafe { pthread_mutex_lock(mutex) } {
        0 if waited == Waited::TimedOut && next == deadline => ETIMEDOUT,
        locked => locked,
    }
}

pub(super) unsafe fn pthread_cond_wait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        wait(condition, mutex, None, || {
            original::pthread_cond_wait(condition, mutex)
        })
    }
}

pub(super) unsafe fn pthread_cond_timedwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        wait_until(condition, mutex, clock_of(condition), until, || {
            original::pthread_cond_timedwait(condition, mutex, until)
        })
    }
}

pub(super) unsafe fn pthread_cond_clockwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    until: *const timespec,
) -> c_int {
    // SAFETY: the caller's.
    unsafe {
        wait_until(condition, mutex, clock, until, || {
            original::pthread_cond_clockwait(condition, mutex, clock, until)
        })
    }
}

/// Like `wait`, for no longer than `until`. What is not valid is the original's to refuse.
///
/// # Safety
///
/// As for `wait`. The last pointer is null or to a time.
unsafe fn wait_until(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    until: *const timespec,
    block: impl FnOnce() -> c_int,
) -> c_int {
    let is_known = [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC].contains(&clock);
    // SAFETY: the caller's.
    match unsafe { deadline_of(clock, until) }.filter(|_| is_known) {
        None => block(),
        // SAFETY: the caller's.
        deadline => unsafe { wait(condition, mutex, deadline, block) },
    }
}

/// The clock of a condition variable.
///
/// # Safety
///
/// The pointer is to a condition variable that is initialised.
unsafe fn clock_of(condition: *mut pthread_cond_t) -> clockid_t {
    let [first, second] = [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC];
    let initialise = |condition, clock| {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the first call initialises the attributes. There is memory for a condition variable.
        unsafe {
            libc::pthread_condattr_init(attributes.as_mut_ptr());
            libc::pthread_condattr_setclock(attributes.as_mut_ptr(), clock);
            libc::pthread_cond_init(condition, attributes.as_ptr());
        }
    };
    // SAFETY: the caller's. There is no third clock that a condition variable can have.
    match unsafe { is_as_second(condition, [first, second], initialise) } {
        true => second,
        false => first,
    }
}

/// Wakes `count` coroutines that wait for the condition variable.
fn signal_coroutines(condition: *mut pthread_cond_t, count: usize) {
    if WAITING.any() {
        untouched(|| futex::wake_at(condition.addr(), count));
    }
}

pub(super) unsafe fn pthread_cond_signal(condition: *mut pthread_cond_t) -> c_int {
    // SAFETY: the caller's.
    let done = unsafe { original::pthread_cond_signal(condition) };
    signal_coroutines(condition, 1);
    done
}

pub(super) unsafe fn pthread_cond_broadcast(condition: *mut pthread_cond_t) -> c_int {
    // SAFETY: the caller's.
    let done = unsafe { original::pthread_cond_broadcast(condition) };
    signal_coroutines(condition, usize::MAX);
    done
}
