//! The table of the functions of the C library that the patch replaces.
//!
//! An entry is the signature of a function, and arguments with which a call of the original does nothing, for
//! [`status`](super::status()). A few functions have no such arguments. Others (`epoll_pwait2`, and the waits until a
//! time of a named clock) must not be named by each program, since older versions of the C library do not have them.
//!
//! - `parks`: on a coroutine, `on_coroutine` has the function. Any other caller gets the original at once.
//! - `always`: `on_coroutine` has the function for all callers.
#![forbid(unsafe_code)]

/// Passes the table to the macro in brackets.
#[doc(hidden)]
#[macro_export]
macro_rules! __patched_functions {
    ([$($callback:tt)*]) => {
        $($callback)*! {
            // Sockets.
            parks fn recv(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int) -> ssize_t
                = (-1, null_mut(), 0, 0);
            parks fn recvfrom(fd: c_int, buf: *mut c_void, len: size_t, flags: c_int, from: *mut sockaddr, from_len: *mut socklen_t) -> ssize_t
                = (-1, null_mut(), 0, 0, null_mut(), null_mut());
            parks fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t
                = (-1, null_mut(), 0);
            parks fn recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int, timeout: *mut timespec) -> c_int
                = (-1, null_mut(), 0, 0, null_mut());
            parks fn send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t
                = (-1, null(), 0, 0);
            parks fn sendto(fd: c_int, buf: *const c_void, len: size_t, flags: c_int, to: *const sockaddr, to_len: socklen_t) -> ssize_t
                = (-1, null(), 0, 0, null(), 0);
            parks fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t
                = (-1, null(), 0);
            parks fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int
                = (-1, null_mut(), 0, 0);
            parks fn connect(fd: c_int, to: *const sockaddr, to_len: socklen_t) -> c_int
                = (-1, null(), 0);
            always fn accept(fd: c_int, from: *mut sockaddr, from_len: *mut socklen_t) -> c_int
                = (-1, null_mut(), null_mut());
            always fn accept4(fd: c_int, from: *mut sockaddr, from_len: *mut socklen_t, flags: c_int) -> c_int
                = (-1, null_mut(), null_mut(), 0);
            parks fn __recv_chk(fd: c_int, buf: *mut c_void, len: size_t, room: size_t, flags: c_int) -> ssize_t
                = (-1, null_mut(), 0, 0, 0);
            parks fn __recvfrom_chk(fd: c_int, buf: *mut c_void, len: size_t, room: size_t, flags: c_int, from: *mut sockaddr, from_len: *mut socklen_t) -> ssize_t
                = (-1, null_mut(), 0, 0, 0, null_mut(), null_mut());

            // Any descriptors.
            parks fn read(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t
                = (-1, null_mut(), 0);
            parks fn readv(fd: c_int, bufs: *const iovec, count: c_int) -> ssize_t
                = (-1, null(), 0);
            parks fn preadv2(fd: c_int, bufs: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t
                = (-1, null(), 0, 0, 0);
            parks fn preadv64v2(fd: c_int, bufs: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t
                = (-1, null(), 0, 0, 0);
            parks fn write(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t
                = (-1, null(), 0);
            parks fn writev(fd: c_int, bufs: *const iovec, count: c_int) -> ssize_t
                = (-1, null(), 0);
            parks fn pwritev2(fd: c_int, bufs: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t
                = (-1, null(), 0, 0, 0);
            parks fn pwritev64v2(fd: c_int, bufs: *const iovec, count: c_int, offset: off_t, flags: c_int) -> ssize_t
                = (-1, null(), 0, 0, 0);
            parks fn __read_chk(fd: c_int, buf: *mut c_void, len: size_t, room: size_t) -> ssize_t
                = (-1, null_mut(), 0, 0);
            parks fn sendfile(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t
                = (-1, -1, null_mut(), 0);
            parks fn sendfile64(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t
                = (-1, -1, null_mut(), 0);
            parks fn splice(from: c_int, from_offset: *mut off_t, to: c_int, to_offset: *mut off_t, len: size_t, flags: c_uint) -> ssize_t
                = (-1, null_mut(), -1, null_mut(), 0, 0);
            always fn close(fd: c_int) -> c_int
                = (-1);
            always fn dup2(from: c_int, to: c_int) -> c_int
                = (-1, -1);
            always fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int
                = (-1, -1, 0);
            parks fn flock(fd: c_int, operation: c_int) -> c_int
                = (-1, 0);
            parks fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int
                = (-1, 0, 0);
            parks fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int
                = (-1, 0, 0);

            // Polls.
            parks fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int
                = (null_mut(), 0, 0);
            parks fn ppoll(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t) -> c_int
                = (null_mut(), 0, &raw const NO_TIME, null());
            parks fn __poll_chk(fds: *mut pollfd, count: nfds_t, timeout: c_int, room: size_t) -> c_int
                = (null_mut(), 0, 0, 0);
            parks fn __ppoll_chk(fds: *mut pollfd, count: nfds_t, timeout: *const timespec, mask: *const sigset_t, room: size_t) -> c_int
                = (null_mut(), 0, &raw const NO_TIME, null(), 0);
            parks fn select(end: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *mut timeval) -> c_int
                = (-1, null_mut(), null_mut(), null_mut(), null_mut());
            parks fn pselect(end: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *const timespec, mask: *const sigset_t) -> c_int
                = (-1, null_mut(), null_mut(), null_mut(), null(), null());
            parks fn epoll_wait(epoll: c_int, events: *mut epoll_event, most: c_int, timeout: c_int) -> c_int
                = (-1, null_mut(), 0, 0);
            parks fn epoll_pwait(epoll: c_int, events: *mut epoll_event, most: c_int, timeout: c_int, mask: *const sigset_t) -> c_int
                = (-1, null_mut(), 0, 0, null());
            parks fn epoll_pwait2(epoll: c_int, events: *mut epoll_event, most: c_int, timeout: *const timespec, mask: *const sigset_t) -> c_int;

            // Time.
            parks fn nanosleep(time: *const timespec, left: *mut timespec) -> c_int
                = (&raw const NO_TIME, null_mut());
            parks fn clock_nanosleep(clock: clockid_t, flags: c_int, time: *const timespec, left: *mut timespec) -> c_int
                = (0, 0, &raw const NO_TIME, null_mut());
            parks fn usleep(micros: c_uint) -> c_int
                = (0);
            parks fn sleep(seconds: c_uint) -> c_uint
                = (0);

            // Futexes, and other system calls.
            always fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long
                = (-1, 0, 0, 0, 0, 0, 0);

            // Locks, and the ends of threads and of children.
            parks fn pthread_join(thread: pthread_t, result: *mut *mut c_void) -> c_int
                = (pthread_self(), null_mut());
            parks fn pthread_mutex_lock(mutex: *mut pthread_mutex_t) -> c_int
                = (&mut mutex());
            parks fn pthread_mutex_trylock(mutex: *mut pthread_mutex_t) -> c_int
                = (&mut mutex());
            parks fn pthread_mutex_timedlock(mutex: *mut pthread_mutex_t, until: *const timespec) -> c_int
                = (&mut mutex(), &raw const NO_TIME);
            parks fn pthread_mutex_clocklock(mutex: *mut pthread_mutex_t, clock: clockid_t, until: *const timespec) -> c_int;
            parks fn pthread_mutex_unlock(mutex: *mut pthread_mutex_t) -> c_int
                = (&mut mutex());
            parks fn pthread_cond_wait(condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) -> c_int
                = (&mut condition(), &mut mutex());
            parks fn pthread_cond_timedwait(condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, until: *const timespec) -> c_int
                = (&mut condition(), &mut mutex(), &raw const NO_TIME);
            parks fn pthread_cond_clockwait(condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, clock: clockid_t, until: *const timespec) -> c_int;
            always fn pthread_cond_signal(condition: *mut pthread_cond_t) -> c_int
                = (&mut condition());
            always fn pthread_cond_broadcast(condition: *mut pthread_cond_t) -> c_int
                = (&mut condition());
            parks fn pthread_rwlock_rdlock(lock: *mut pthread_rwlock_t) -> c_int
                = (&mut rwlock());
            parks fn pthread_rwlock_timedrdlock(lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int
                = (&mut rwlock(), &raw const NO_TIME);
            parks fn pthread_rwlock_clockrdlock(lock: *mut pthread_rwlock_t, clock: clockid_t, until: *const timespec) -> c_int;
            parks fn pthread_rwlock_trywrlock(lock: *mut pthread_rwlock_t) -> c_int
                = (&mut rwlock());
            parks fn pthread_rwlock_wrlock(lock: *mut pthread_rwlock_t) -> c_int
                = (&mut rwlock());
            always fn pthread_rwlock_timedwrlock(lock: *mut pthread_rwlock_t, until: *const timespec) -> c_int
                = (&mut rwlock(), &raw const NO_TIME);
            always fn pthread_rwlock_clockwrlock(lock: *mut pthread_rwlock_t, clock: clockid_t, until: *const timespec) -> c_int;
            always fn pthread_rwlock_unlock(lock: *mut pthread_rwlock_t) -> c_int;
            parks fn sem_wait(semaphore: *mut sem_t) -> c_int
                = (&mut semaphore());
            parks fn sem_timedwait(semaphore: *mut sem_t, until: *const timespec) -> c_int
                = (&mut semaphore(), &raw const NO_TIME);
            parks fn sem_clockwait(semaphore: *mut sem_t, clock: clockid_t, until: *const timespec) -> c_int;
            parks fn wait(status: *mut c_int) -> pid_t;
            parks fn waitpid(child: pid_t, status: *mut c_int, options: c_int) -> pid_t
                = (0, null_mut(), -1);
            parks fn wait3(status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t
                = (null_mut(), -1, null_mut());
            parks fn wait4(child: pid_t, status: *mut c_int, options: c_int, usage: *mut rusage) -> pid_t
                = (0, null_mut(), -1, null_mut());
            parks fn waitid(kind: c_uint, id: id_t, info: *mut siginfo_t, options: c_int) -> c_int
                = (0, 0, null_mut(), 0);

            // Other names of some of these.
            parks fn __read(fd: c_int, buf: *mut c_void, len: size_t) -> ssize_t
                = (-1, null_mut(), 0);
            parks fn __write(fd: c_int, buf: *const c_void, len: size_t) -> ssize_t
                = (-1, null(), 0);
            always fn __close(fd: c_int) -> c_int
                = (-1);
            parks fn __connect(fd: c_int, to: *const sockaddr, to_len: socklen_t) -> c_int
                = (-1, null(), 0);
            parks fn __send(fd: c_int, buf: *const c_void, len: size_t, flags: c_int) -> ssize_t
                = (-1, null(), 0, 0);
            always fn __dup2(from: c_int, to: c_int) -> c_int
                = (-1, -1);
            parks fn __fcntl(fd: c_int, command: c_int, argument: usize) -> c_int
                = (-1, 0, 0);
            parks fn __poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int
                = (null_mut(), 0, 0);
            parks fn __select(end: c_int, read: *mut fd_set, write: *mut fd_set, except: *mut fd_set, timeout: *mut timeval) -> c_int
                = (-1, null_mut(), null_mut(), null_mut(), null_mut());
            parks fn __nanosleep(time: *const timespec, left: *mut timespec) -> c_int
                = (&raw const NO_TIME, null_mut());
            parks fn __wait(status: *mut c_int) -> pid_t;
            parks fn __waitpid(child: pid_t, status: *mut c_int, options: c_int) -> pid_t
                = (0, null_mut(), -1);

            // Names.
            parks fn getaddrinfo(node: *const c_char, service: *const c_char, hints: *const addrinfo, found: *mut *mut addrinfo) -> c_int
                = (null(), null(), null(), null_mut());
            parks fn getnameinfo(address: *const sockaddr, len: socklen_t, host: *mut c_char, host_len: socklen_t, service: *mut c_char, service_len: socklen_t, flags: c_int) -> c_int
                = (&raw const NO_ADDRESS, 0, null_mut(), 0, null_mut(), 0, 0);
            parks fn gethostbyname(name: *const c_char) -> *mut hostent;
            parks fn gethostbyname2(name: *const c_char, family: c_int) -> *mut hostent;
            parks fn gethostbyaddr(address: *const c_void, len: socklen_t, family: c_int) -> *mut hostent;
            parks fn gethostbyname_r(name: *const c_char, host: *mut hostent, buf: *mut c_char, len: size_t, found: *mut *mut hostent, error: *mut c_int) -> c_int;
            parks fn gethostbyname2_r(name: *const c_char, family: c_int, host: *mut hostent, buf: *mut c_char, len: size_t, found: *mut *mut hostent, error: *mut c_int) -> c_int;
            parks fn gethostbyaddr_r(address: *const c_void, len: socklen_t, family: c_int, host: *mut hostent, buf: *mut c_char, buf_len: size_t, found: *mut *mut hostent, error: *mut c_int) -> c_int;
        }
    };
}

pub(super) use __patched_functions as patched_functions;
