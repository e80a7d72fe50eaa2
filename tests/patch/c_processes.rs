//! Locks of C for several processes. The other process is stood for by a second mapping of the same memory, at another
//! address.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libc::{
    PTHREAD_PROCESS_SHARED, c_int, pthread_cond_t, pthread_mutex_t, pthread_rwlock_t, sem_t,
    timespec,
};

use crate::util::{on_workers, until};

unsafe extern "C" {
    fn pthread_rwlock_timedrdlock(lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int;
}

/// The locks, as they lie in the memory.
#[repr(C)]
struct Locks {
    rwlock: pthread_rwlock_t,
    mutex: pthread_mutex_t,
    condition: pthread_cond_t,
    semaphore: sem_t,
    value: AtomicU32,
}

/// The address of the locks in one process.
#[derive(Clone, Copy)]
struct Mapped(*mut Locks);

// SAFETY: the locks are for use by several threads.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    fn locks(&self) -> *mut Locks {
        self.0
    }
}

/// Initialised locks, in this process and in another one. They stay mapped.
fn mapped_twice() -> [Mapped; 2] {
    // SAFETY: the name is a string of C. The descriptor is new, and nothing else closes it.
    let file = unsafe { File::from_raw_fd(libc::memfd_create(c"locks".as_ptr(), 0)) };
    file.set_len(size_of::<Locks>() as u64).unwrap();
    let mapped = [(); 2].map(|()| {
        let (len, access) = (size_of::<Locks>(), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: the kernel chooses the address.
        let at = unsafe {
            let (fd, flags) = (file.as_raw_fd(), libc::MAP_SHARED);
            libc::mmap(std::ptr::null_mut(), len, access, flags, fd, 0)
        };
        assert_ne!(at, libc::MAP_FAILED);
        Mapped(at.cast())
    });
    let Mapped(locks) = mapped[0];
    macro_rules! initialise {
        ($field:ident: $init:ident, $init_attributes:ident, $set:ident) => {
            let mut attributes = MaybeUninit::uninit();
            // SAFETY: the calls initialise the attributes, and then the lock, which nothing uses yet.
            unsafe {
                assert_eq!(libc::$init_attributes(attributes.as_mut_ptr()), 0);
                assert_eq!(
                    libc::$set(attributes.as_mut_ptr(), PTHREAD_PROCESS_SHARED),
                    0
                );
                let initialised = libc::$init(&raw mut (*locks).$field, attributes.as_ptr());
                assert_eq!(initialised, 0);
            }
        };
    }
    initialise!(rwlock: pthread_rwlock_init, pthread_rwlockattr_init, pthread_rwlockattr_setpshared);
    initialise!(mutex: pthread_mutex_init, pthread_mutexattr_init, pthread_mutexattr_setpshared);
    initialise!(condition: pthread_cond_init, pthread_condattr_init, pthread_condattr_setpshared);
    // SAFETY: nothing uses it yet.
    let initialised = unsafe { libc::sem_init(&raw mut (*locks).semaphore, 1, 0) };
    assert_eq!(initialised, 0);
    mapped
}

/// Calls the function of C with one of the locks, and expects a result.
macro_rules! call {
    ($expected:expr, $function:path, $($mapped:ident.$field:ident),* $(; $more:expr)?) => {
        // SAFETY: the locks are initialised, and are used as their manual pages say.
        assert_eq!(unsafe { $function($(&raw mut (*$mapped.locks()).$field),* $(, $more)?) }, $expected)
    };
}

fn in_a_moment() -> timespec {
    let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_millis(20);
    timespec {
        tv_sec: until.as_secs() as i64,
        tv_nsec: until.subsec_nanos().into(),
    }
}

/// Runs `waits` on a coroutine, which ends after `ends` was called by a thread. The coroutine leaves the worker to
/// the one that has the thread call it.
fn wait_for_a_thread(waits: impl FnOnce() + Send, ends: impl FnOnce() + Send) {
    let (begins, may_end) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            until("a coroutine waits", || may_end.load(Ordering::SeqCst));
            ends();
        });
        on_workers(1, || {
            greenroom::scope(|s| {
                s.spawn(|| {
                    begins.store(true, Ordering::SeqCst);
                    waits();
                });
                until("it begins", || begins.load(Ordering::SeqCst));
                may_end.store(true, Ordering::SeqCst);
            });
        });
    });
}

#[test]
fn a_read_write_lock_of_c_that_another_process_unlocks_is_waited_for() {
    let [here, there] = mapped_twice();
    let (is_locked, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            call!(0, libc::pthread_rwlock_wrlock, there.rwlock);
            is_locked.store(true, Ordering::SeqCst);
            until("a coroutine waits", || is_over.load(Ordering::SeqCst));
            call!(0, libc::pthread_rwlock_unlock, there.rwlock);
        });
        until("it is locked", || is_locked.load(Ordering::SeqCst));
        on_workers(1, || {
            let timed = pthread_rwlock_timedrdlock;
            call!(libc::ETIMEDOUT, timed, here.rwlock; &in_a_moment());
        });
        wait_for_a_thread(
            || {
                call!(0, libc::pthread_rwlock_rdlock, here.rwlock);
                call!(0, libc::pthread_rwlock_unlock, here.rwlock);
            },
            || is_over.store(true, Ordering::SeqCst),
        );
    });
}

#[test]
fn a_condition_variable_of_c_that_another_process_signals_is_waited_for() {
    let [here, there] = mapped_twice();
    // SAFETY: the mapping has the value.
    let value = |mapped: Mapped| unsafe { &(*mapped.locks()).value };
    wait_for_a_thread(
        || {
            call!(0, libc::pthread_mutex_lock, here.mutex);
            while value(here).load(Ordering::SeqCst) == 0 {
                call!(0, libc::pthread_cond_wait, here.condition, here.mutex);
            }
            call!(0, libc::pthread_mutex_unlock, here.mutex);
        },
        || {
            call!(0, libc::pthread_mutex_lock, there.mutex);
            value(there).store(1, Ordering::SeqCst);
            call!(0, libc::pthread_mutex_unlock, there.mutex);
            call!(0, libc::pthread_cond_signal, there.condition);
        },
    );
    on_workers(1, || {
        call!(0, libc::pthread_mutex_lock, here.mutex);
        let until = in_a_moment();
        // SAFETY: both are initialised, and the caller holds the mutex.
        let wait = || unsafe {
            let (condition, mutex) = (
                &raw mut (*here.locks()).condition,
                &raw mut (*here.locks()).mutex,
            );
            libc::pthread_cond_timedwait(condition, mutex, &until)
        };
        let ended = std::iter::repeat_with(wait).find(|&waited| waited != 0);
        assert_eq!(ended, Some(libc::ETIMEDOUT));
        call!(0, libc::pthread_mutex_unlock, here.mutex);
    });
}

#[test]
fn a_futex_that_another_process_wakes_is_waited_for() {
    let [here, there] = mapped_twice();
    // SAFETY: the mapping has the value.
    let value = |mapped: Mapped| unsafe { &(*mapped.locks()).value };
    let futex = |word: &AtomicU32, operation: c_int| {
        let forever = std::ptr::null::<timespec>();
        // SAFETY: the word is there.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 0, forever) };
    };
    wait_for_a_thread(
        || {
            while value(here).load(Ordering::SeqCst) == 0 {
                futex(value(here), libc::FUTEX_WAIT);
            }
        },
        || {
            value(there).store(1, Ordering::SeqCst);
            futex(value(there), libc::FUTEX_WAKE);
        },
    );
}

#[test]
fn a_semaphore_of_c_to_which_another_process_posts_is_waited_for() {
    let [here, there] = mapped_twice();
    wait_for_a_thread(
        || call!(0, libc::sem_wait, here.semaphore),
        || call!(0, libc::sem_post, there.semaphore),
    );
}
