//! What the table of functions names.

pub(super) use libc::pthread_self;
pub use libc::{
    addrinfo, c_char, c_int, c_long, c_uint, c_void, clockid_t, epoll_event, fd_set, hostent, id_t,
    iovec, mmsghdr, msghdr, nfds_t, off_t, pid_t, pollfd, pthread_cond_t, pthread_mutex_t,
    pthread_rwlock_t, pthread_t, rusage, sem_t, siginfo_t, sigset_t, size_t, sockaddr, socklen_t,
    ssize_t, timespec, timeval,
};
pub(super) use std::ptr::{null, null_mut};

/// No time at all.
pub(super) static NO_TIME: timespec = timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// An address of no family.
pub(super) static NO_ADDRESS: sockaddr = sockaddr {
    sa_family: 0,
    sa_data: [0; 14],
};

// Objects for `status`, on which it calls originals. A call of the table neither waits for one nor fails to return.

/// A mutex that refuses an unlock by a thread that has not locked it.
pub(super) fn mutex() -> pthread_mutex_t {
    libc::PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP
}

pub(super) fn condition() -> pthread_cond_t {
    libc::PTHREAD_COND_INITIALIZER
}

pub(super) fn rwlock() -> pthread_rwlock_t {
    libc::PTHREAD_RWLOCK_INITIALIZER
}

/// A semaphore that one may take.
pub(super) fn semaphore() -> sem_t {
    let mut semaphore = std::mem::MaybeUninit::zeroed();
    // SAFETY: there is memory for a semaphore, which is initialised when the call has succeeded. Zeroes are one, too.
    unsafe {
        libc::sem_init(semaphore.as_mut_ptr(), 0, 1);
        semaphore.assume_init()
    }
}
