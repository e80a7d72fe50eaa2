//! What the table of functions names.

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
