//! All functions that replace those of the C library.
#![forbid(unsafe_code)]

pub(super) use super::children::{
    wait, wait as __wait, wait3, wait4, waitid, waitpid, waitpid as __waitpid,
};
pub(super) use super::closing::{close, close as __close, dup2, dup2 as __dup2, dup3};
pub(super) use super::connections::{accept, accept4, connect, connect as __connect};
pub(super) use super::files::{
    __read_chk, preadv2, preadv64v2, pwritev2, pwritev64v2, read as __read, read, readv,
    write as __write, write, writev,
};
pub(super) use super::futexes::syscall;
pub(super) use super::locks::{fcntl, fcntl as __fcntl, fcntl64, flock};
pub(super) use super::moves::{sendfile, sendfile64, splice};
pub(super) use super::mutexes::{
    pthread_cond_broadcast, pthread_cond_clockwait, pthread_cond_signal, pthread_cond_timedwait,
    pthread_cond_wait, pthread_mutex_clocklock, pthread_mutex_lock, pthread_mutex_timedlock,
    pthread_mutex_trylock, pthread_mutex_unlock,
};
pub(super) use super::names::{
    getaddrinfo, gethostbyaddr, gethostbyaddr_r, gethostbyname, gethostbyname_r, gethostbyname2,
    gethostbyname2_r, getnameinfo,
};
pub(super) use super::polls::{
    __poll_chk, __ppoll_chk, epoll_pwait, epoll_pwait2, epoll_wait, poll, poll as __poll, ppoll,
    pselect, select, select as __select,
};
pub(super) use super::rwlocks::{
    pthread_rwlock_clockrdlock, pthread_rwlock_clockwrlock, pthread_rwlock_rdlock,
    pthread_rwlock_timedrdlock, pthread_rwlock_timedwrlock, pthread_rwlock_trywrlock,
    pthread_rwlock_unlock, pthread_rwlock_wrlock,
};
pub(super) use super::semaphores::{sem_clockwait, sem_timedwait, sem_wait};
pub(super) use super::sockets::{
    __recv_chk, __recvfrom_chk, recv, recvfrom, recvmmsg, recvmsg, send, send as __send, sendmmsg,
    sendmsg, sendto,
};
pub(super) use super::threads::pthread_join;
pub(super) use super::time::{
    clock_nanosleep, nanosleep, nanosleep as __nanosleep, sleep_seconds as sleep, usleep,
};
