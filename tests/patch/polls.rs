//! poll(2), select(2), epoll_wait(2) and their relatives.

use std::io::{self, Read, Write};
use std::mem;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use libc::{
    EBADF, EFAULT, EINTR, EINVAL, EPOLLET, EPOLLIN, EPOLLONESHOT, ETIMEDOUT, POLLERR, POLLHUP,
    POLLIN, POLLNVAL, POLLOUT, POLLRDHUP, POLLRDNORM, c_int, c_short, epoll_event, fd_set, pollfd,
    sigset_t, timespec, timeval,
};

use crate::calls::{Calls, alike, call, later, nowhere, on_coroutine, pause};
use crate::util::{ms, tcp_pair};

fn entry(fd: c_int, events: c_short) -> pollfd {
    pollfd {
        fd,
        events,
        revents: -1,
    }
}

fn time(duration: Duration) -> timespec {
    timespec {
        tv_sec: duration.as_secs() as _,
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// A mask of signals that differs from that of the thread if `differs`.
fn mask(differs: bool) -> sigset_t {
    // SAFETY: the set is filled by the first call.
    unsafe {
        let mut set = mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, null(), &raw mut set);
        if differs {
            libc::sigaddset(&raw mut set, libc::SIGUSR2);
        }
        set
    }
}

/// All ways to poll descriptors.
fn with_polls(
    test: impl Fn(&Calls, &dyn Fn(&mut [pollfd], Option<Duration>) -> Result<i64, c_int>),
) {
    alike(|c| {
        let millis = |time: Option<Duration>| time.map_or(-1, |time| time.as_millis() as c_int);
        test(c, &|fds, time| {
            call!(c.poll(fds.as_mut_ptr(), fds.len() as _, millis(time)))
        });
        test(c, &|fds, time| {
            call!(c.__poll_chk(
                fds.as_mut_ptr(),
                fds.len() as _,
                millis(time),
                size_of_val(fds)
            ))
        });
        for mask in [None, Some(mask(false))] {
            let mask = mask.as_ref().map_or(null(), |mask| &raw const *mask);
            let timeout = |duration: Option<Duration>| duration.map(time);
            test(c, &|fds, time| {
                let time = timeout(time);
                let time = time.as_ref().map_or(null(), |time| &raw const *time);
                call!(c.ppoll(fds.as_mut_ptr(), fds.len() as _, time, mask))
            });
            test(c, &|fds, time| {
                let time = timeout(time);
                let time = time.as_ref().map_or(null(), |time| &raw const *time);
                call!(c.__ppoll_chk(
                    fds.as_mut_ptr(),
                    fds.len() as _,
                    time,
                    mask,
                    size_of_val(fds)
                ))
            });
        }
    });
}

#[test]
fn a_poll_waits_for_one_of_many() {
    with_polls(|_, poll| {
        let pairs = [(); 5].map(|()| UnixStream::pair().unwrap());
        let mut fds: Vec<_> = pairs
            .iter()
            .map(|(one, _)| entry(one.as_raw_fd(), POLLIN))
            .collect();
        // Not asked for; not open to be read; and twice.
        fds.insert(2, entry(-1, POLLIN));
        fds.push(entry(-7, POLLIN | POLLOUT));
        fds.push(fds[4]);
        let mut writer = pairs[3].1.try_clone().unwrap();
        let writer = later(move || writer.write_all(b"x").unwrap());
        assert_eq!(poll(&mut fds, None), Ok(2));
        let found: Vec<_> = fds.iter().map(|fd| fd.revents).collect();
        assert_eq!(found, [0, 0, 0, 0, POLLIN, 0, 0, POLLIN]);
        writer.join().unwrap();
        // Now at once.
        assert_eq!(poll(&mut fds, Some(Duration::ZERO)), Ok(2));
    });
}

#[test]
fn a_poll_ends_after_its_time() {
    with_polls(|_, poll| {
        let (one, _other) = UnixStream::pair().unwrap();
        let fd = one.as_raw_fd();
        let begin = Instant::now();
        for mut fds in [
            vec![],
            vec![entry(fd, POLLIN)],
            vec![entry(fd, 0), entry(-1, 0)],
        ] {
            assert_eq!(poll(&mut fds, Some(ms(20))), Ok(0));
            assert!(fds.iter().all(|fd| fd.revents == 0));
        }
        assert!(begin.elapsed() >= ms(60));
        assert_eq!(poll(&mut [entry(fd, POLLIN)], Some(Duration::ZERO)), Ok(0));
    });
}

#[test]
fn a_poll_reports_what_was_not_asked_for() {
    with_polls(|_, poll| {
        let (one, other) = UnixStream::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        let (full, mut end) = UnixStream::pair().unwrap();
        full.set_nonblocking(true).unwrap();
        while (&full).write(&[0; 10_000]).is_ok() {}
        let closer = later(move || {
            drop(other);
            pause();
            drop(reader);
            pause();
            end.set_nonblocking(true).unwrap();
            while end.read(&mut [0; 10_000]).is_ok() {}
            end
        });
        let mut fds = [entry(one.as_raw_fd(), 0)];
        assert_eq!(poll(&mut fds, None), Ok(1));
        assert_eq!(fds[0].revents, POLLHUP);
        let mut fds = [entry(writer.as_raw_fd(), 0)];
        assert_eq!(poll(&mut fds, None), Ok(1));
        assert_eq!(fds[0].revents, POLLERR);
        let mut fds = [entry(full.as_raw_fd(), POLLIN | POLLOUT)];
        assert_eq!(poll(&mut fds, None), Ok(1));
        assert_eq!(fds[0].revents, POLLOUT);
        closer.join().unwrap();
    });
}

#[test]
fn a_poll_tells_the_end_of_one_direction() {
    with_polls(|_, poll| {
        let (one, other) = tcp_pair();
        let closer = later(move || {
            other.shutdown(std::net::Shutdown::Write).unwrap();
            other
        });
        let mut fds = [
            entry(one.as_raw_fd(), POLLRDHUP),
            entry(one.as_raw_fd(), POLLRDNORM),
        ];
        let ready = poll(&mut fds, None).unwrap();
        assert!(ready == 2 && fds[0].revents == POLLRDHUP && fds[1].revents == POLLRDNORM);
        closer.join().unwrap();
    });
}

#[test]
fn a_poll_tells_of_descriptors_that_are_not_open() {
    with_polls(|_, poll| {
        let (one, _other) = UnixStream::pair().unwrap();
        let mut fds = [entry(one.as_raw_fd(), POLLIN), entry(99_999, POLLIN)];
        assert_eq!(poll(&mut fds, None), Ok(1));
        assert_eq!((fds[0].revents, fds[1].revents), (0, POLLNVAL));
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let mut fds = [
            entry(one.as_raw_fd(), POLLIN),
            entry(file.as_raw_fd(), POLLIN),
        ];
        assert_eq!(poll(&mut fds, None), Ok(1));
        assert_eq!((fds[0].revents, fds[1].revents), (0, POLLIN));
    });
}

#[test]
fn bad_arguments_are_refused() {
    alike(|c| {
        assert_eq!(call!(c.poll(nowhere(), 1, 10_000)), Err(EFAULT));
        assert_eq!(
            call!(c.poll(null_mut(), u64::MAX as _, 10_000)),
            Err(EINVAL)
        );
        let invalid = timespec {
            tv_sec: -1,
            tv_nsec: 0,
        };
        let refused = call!(c.ppoll(null_mut(), 0, &raw const invalid, null()));
        assert_eq!(refused, Err(EINVAL));
        assert_eq!(
            call!(c.ppoll(null_mut(), 0, null(), nowhere())),
            Err(EFAULT)
        );

        let refused = call!(c.select(-1, null_mut(), null_mut(), null_mut(), null_mut()));
        assert_eq!(refused, Err(EINVAL));
        for end in [1, 64, 1024, 1 << 20] {
            let none = null_mut();
            let bad = nowhere();
            assert_eq!(
                call!(c.select(end, bad, none, none, none.cast())),
                Err(EFAULT)
            );
            assert_eq!(
                call!(c.select(end, none, none, bad, none.cast())),
                Err(EFAULT)
            );
            let refused = call!(c.pselect(end, none, bad, none, null(), null()));
            assert_eq!(refused, Err(EFAULT));
        }
        let refused = call!(c.pselect(
            0,
            null_mut(),
            null_mut(),
            null_mut(),
            &raw const invalid,
            null()
        ));
        assert_eq!(refused, Err(EINVAL));
        let mut invalid_for_select = timeval {
            tv_sec: -1,
            tv_usec: 0,
        };
        let none = null_mut();
        let refused = call!(c.select(0, none, none, none, &raw mut invalid_for_select));
        assert_eq!(refused, Err(EINVAL));

        let epoll = epoll();
        let fd = epoll.as_raw_fd();
        let mut events = [epoll_event { events: 0, u64: 0 }; 2];
        let to = events.as_mut_ptr();
        let (one, _other) = UnixStream::pair().unwrap();
        for (fd, error) in [(-1, EBADF), (99_999, EBADF), (one.as_raw_fd(), EINVAL)] {
            let refused = [
                call!(c.epoll_wait(fd, to, 2, -1)),
                call!(c.epoll_pwait(fd, to, 2, -1, null())),
                call!(c.epoll_pwait2(fd, to, 2, null(), null())),
            ];
            assert_eq!(refused, [Err(error); 3]);
        }
        for most in [0, -1, c_int::MAX] {
            assert_eq!(call!(c.epoll_wait(fd, to, most, -1)), Err(EINVAL));
        }
        assert_eq!(call!(c.epoll_pwait(fd, to, 2, -1, nowhere())), Err(EFAULT));
        let refused = call!(c.epoll_pwait2(fd, to, 2, nowhere(), null()));
        assert_eq!(refused, Err(EFAULT));
        let refused = call!(c.epoll_pwait2(fd, to, 2, &raw const invalid, null()));
        assert_eq!(refused, Err(EINVAL));
        add(&epoll, &one, libc::EPOLLOUT, 0);
        assert_eq!(call!(c.epoll_wait(fd, nowhere(), 2, -1)), Err(EFAULT));
    });
}

/// A set of descriptors.
fn set(fds: &[&dyn AsRawFd]) -> fd_set {
    // SAFETY: the set is filled by the first call. The descriptors of this test are below the limit.
    unsafe {
        let mut set = mem::zeroed();
        libc::FD_ZERO(&raw mut set);
        for fd in fds {
            assert!((fd.as_raw_fd() as usize) < libc::FD_SETSIZE);
            libc::FD_SET(fd.as_raw_fd(), &raw mut set);
        }
        set
    }
}

fn has(set: &fd_set, fd: &dyn AsRawFd) -> bool {
    // SAFETY: the set is valid, and the number below the limit.
    unsafe { libc::FD_ISSET(fd.as_raw_fd(), set) }
}

fn is_empty(set: &fd_set) -> bool {
    // SAFETY: the set is valid, and the numbers below the limit.
    (0..libc::FD_SETSIZE).all(|fd| unsafe { !libc::FD_ISSET(fd as c_int, set) })
}

/// Calls select or pselect.
fn select(
    c: &Calls,
    timed: bool,
    sets: &mut [fd_set; 3],
    timeout: Option<Duration>,
) -> Result<i64, c_int> {
    let [read, write, except] = sets.each_mut().map(|set| &raw mut *set);
    let end = libc::FD_SETSIZE as c_int;
    if timed {
        let timeout = timeout.map(time);
        let timeout = timeout.as_ref().map_or(null(), |time| &raw const *time);
        let mask = mask(false);
        return call!(c.pselect(end, read, write, except, timeout, &raw const mask));
    }
    let mut timeout = timeout.map(|time| timeval {
        tv_sec: time.as_secs() as _,
        tv_usec: time.subsec_micros().into(),
    });
    let timeout = timeout.as_mut().map_or(null_mut(), |time| &raw mut *time);
    call!(c.select(end, read, write, except, timeout))
}

/// A duplicate with a number that no other test gets. It is `least`, or a little more.
fn duplicate(fd: &impl AsRawFd, least: c_int) -> OwnedFd {
    // SAFETY: the call takes any numbers, and returns a new one.
    unsafe {
        let fd = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, least);
        assert!(fd >= least, "{}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

#[test]
fn a_select_waits_and_changes_its_sets() {
    alike(|c| {
        for timed in [false, true] {
            let (one, mut end) = UnixStream::pair().unwrap();
            let (other, _other_end) = UnixStream::pair().unwrap();
            let (full, _full_end) = UnixStream::pair().unwrap();
            full.set_nonblocking(true).unwrap();
            while (&full).write(&[0; 10_000]).is_ok() {}
            let writer = later(move || {
                end.write_all(b"x").unwrap();
                end
            });
            let mut sets = [set(&[&one, &other]), set(&[&full]), set(&[&one, &full])];
            assert_eq!(select(c, timed, &mut sets, None), Ok(1));
            assert!(has(&sets[0], &one) && !has(&sets[0], &other));
            assert!(is_empty(&sets[1]) && is_empty(&sets[2]));
            writer.join().unwrap();
            let mut sets = [set(&[&one]), set(&[&one, &full]), set(&[])];
            assert_eq!(select(c, timed, &mut sets, None), Ok(2));
            assert!(has(&sets[0], &one) && has(&sets[1], &one) && !has(&sets[1], &full));
            // The sets are empty after the time.
            let mut sets = [set(&[&other]), set(&[&full]), set(&[&full])];
            let begin = Instant::now();
            assert_eq!(select(c, timed, &mut sets, Some(ms(20))), Ok(0));
            assert!(begin.elapsed() >= ms(20));
            assert!(sets.iter().all(is_empty));
            let mut sets = [set(&[]); 3];
            assert_eq!(select(c, timed, &mut sets, Some(ms(10))), Ok(0));
            // A number that is not open.
            let closed = duplicate(&other, 900);
            let mut sets = [set(&[&closed]), set(&[]), set(&[])];
            drop(closed);
            assert_eq!(select(c, timed, &mut sets, Some(ms(10_000))), Err(EBADF));
        }
    });
}

#[test]
fn a_select_tells_how_much_of_the_time_is_left() {
    alike(|c| {
        let (one, mut end) = UnixStream::pair().unwrap();
        let writer = later(move || end.write_all(b"x").unwrap());
        let mut read = set(&[&one]);
        let (read, none) = (&raw mut read, null_mut());
        let mut left = timeval {
            tv_sec: 100,
            tv_usec: 0,
        };
        assert_eq!(
            call!(c.select(1024, read, none, none, &raw mut left)),
            Ok(1)
        );
        assert!((90..100).contains(&left.tv_sec), "{}", left.tv_sec);
        writer.join().unwrap();
        let mut left = timeval {
            tv_sec: 0,
            tv_usec: 20_000,
        };
        assert_eq!(call!(c.select(0, none, none, none, &raw mut left)), Ok(0));
        assert_eq!((left.tv_sec, left.tv_usec), (0, 0));
        // More than a second, but not of seconds.
        let mut many = timeval {
            tv_sec: 0,
            tv_usec: 100_000_000,
        };
        assert_eq!(
            call!(c.select(1024, read, none, none, &raw mut many)),
            Ok(1)
        );
        assert!((90..100).contains(&many.tv_sec), "{}", many.tv_sec);
    });
}

#[test]
fn a_select_that_a_signal_interrupts_finds_nothing_that_is_not_there() {
    extern "C" fn ignore(_: c_int) {}

    if crate::util::role().is_none() {
        let test = "a_select_that_a_signal_interrupts_finds_nothing_that_is_not_there";
        let child = crate::util::again!(test, "alone");
        return assert!({ child }.status().unwrap().success());
    }
    // SAFETY: the handler does nothing. All-zero bytes are valid for the action.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = ignore as *const () as usize;
        libc::sigaction(libc::SIGUSR2, &raw const action, null_mut());
    }
    on_coroutine(|c| {
        let (reader, _writer) = io::pipe().unwrap();
        // SAFETY: the call has no preconditions. The thread waits below.
        let this_thread = unsafe { libc::pthread_self() } as usize;
        let is_over = AtomicBool::new(false);
        std::thread::scope(|threads| {
            threads.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // SAFETY: as above.
                    unsafe { libc::pthread_kill(this_thread as _, libc::SIGUSR2) };
                }
            });
            let begin = Instant::now();
            while begin.elapsed() < ms(300) {
                let mut asked = set(&[&reader]);
                let (end, mut no_time) = (
                    reader.as_raw_fd() + 1,
                    timeval {
                        tv_sec: 0,
                        tv_usec: 0,
                    },
                );
                let no_set = null_mut;
                let found =
                    call!(c.select(end, &raw mut asked, no_set(), no_set(), &raw mut no_time));
                assert_eq!(found, Ok(0));
                assert!(is_empty(&asked));
            }
            is_over.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn a_select_that_fails_leaves_its_sets_alone() {
    on_coroutine(|c| {
        let (one, _end) = UnixStream::pair().unwrap();
        let (mut read, mut priority) = (set(&[&one]), set(&[&one]));
        let (of_read, of_priority) = (&raw mut read, &raw mut priority);
        let selected = greenroom::timeout(ms(10), || {
            call!(c.select(1024, of_read, null_mut(), of_priority, null_mut()))
        });
        assert_eq!(selected, Ok(Err(ETIMEDOUT)));
        assert!(has(&read, &one) && has(&priority, &one));
    });
}

#[test]
fn a_select_for_more_than_the_sets_have_room_for_leaves_the_rest_alone() {
    alike(|c| {
        let (one, mut end) = UnixStream::pair().unwrap();
        let writer = later(move || end.write_all(b"x").unwrap());
        // Other tests have no higher numbers, so the table does not grow meanwhile.
        let _high = duplicate(&one, 6000);
        // The kernel looks at no more than its table has. Programs pass the greatest number that may be open.
        let mut sets = [!0u64; 4096];
        sets[..16].fill(0);
        sets[one.as_raw_fd() as usize / 64] |= 1 << (one.as_raw_fd() % 64);
        let room = std::fs::read_to_string("/proc/self/status").unwrap();
        let room = room.lines().find_map(|line| line.strip_prefix("FDSize:"));
        let room: usize = room.unwrap().trim().parse().unwrap();
        let words = room.div_ceil(64).max(16);
        sets[16..words].fill(0);
        let none = null_mut();
        let read = sets.as_mut_ptr().cast();
        assert_eq!(
            call!(c.select(c_int::MAX, read, none, none, null_mut())),
            Ok(1)
        );
        assert!(sets[words + 1000..].iter().all(|&word| word == !0));
        writer.join().unwrap();
    });
}

fn epoll() -> OwnedFd {
    // SAFETY: the call returns a new descriptor.
    unsafe {
        let fd = libc::epoll_create1(0);
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(fd)
    }
}

fn add(epoll: &OwnedFd, fd: &impl AsRawFd, events: c_int, data: u64) {
    let mut event = epoll_event {
        events: events as u32,
        u64: data,
    };
    let (epoll, fd) = (epoll.as_raw_fd(), fd.as_raw_fd());
    // SAFETY: the pointer is to an event.
    let added = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    assert_eq!(added, 0, "{}", io::Error::last_os_error());
}

/// The numbers that an epoll instance has reported.
fn wait(c: &Calls, epoll: &OwnedFd, how: usize, timeout: Option<Duration>) -> Vec<u64> {
    let fd = epoll.as_raw_fd();
    let mut events = [epoll_event { events: 0, u64: 0 }; 8];
    let to = events.as_mut_ptr();
    let millis = timeout.map_or(-1, |time| time.as_millis() as c_int);
    let timeout = timeout.map(time);
    let timeout = timeout.as_ref().map_or(null(), |time| &raw const *time);
    let mask = mask(false);
    let n = match how {
        0 => call!(c.epoll_wait(fd, to, 8, millis)),
        1 => call!(c.epoll_pwait(fd, to, 8, millis, &raw const mask)),
        _ => call!(c.epoll_pwait2(fd, to, 8, timeout, &raw const mask)),
    };
    let mut found: Vec<_> = events[..n.unwrap() as usize]
        .iter()
        .map(|e| e.u64)
        .collect();
    found.sort_unstable();
    found
}

#[test]
fn an_epoll_instance_of_the_callers_is_waited_for() {
    alike(|c| {
        for how in 0..3 {
            let epoll = epoll();
            let begin = Instant::now();
            assert!(wait(c, &epoll, how, Some(ms(20))).is_empty());
            assert!(begin.elapsed() >= ms(20));
            assert!(wait(c, &epoll, how, Some(Duration::ZERO)).is_empty());
            let (one, mut end_of_one) = UnixStream::pair().unwrap();
            let (edge, end_of_edge) = UnixStream::pair().unwrap();
            let (once, mut end_of_once) = UnixStream::pair().unwrap();
            add(&epoll, &one, EPOLLIN, 1);
            add(&epoll, &edge, EPOLLIN | EPOLLET, 2);
            add(&epoll, &once, EPOLLIN | EPOLLONESHOT, 3);
            let writer = later(move || end_of_once.write_all(b"x").map(|()| end_of_once));
            assert_eq!(wait(c, &epoll, how, None), [3]);
            let end_of_once = writer.join().unwrap().unwrap();
            for timeout in [None, Some(ms(10_000))] {
                let mut end = end_of_edge.try_clone().unwrap();
                let writer = later(move || end.write_all(b"x").unwrap());
                assert_eq!(wait(c, &epoll, how, timeout), [2]);
                writer.join().unwrap();
            }
            let writer = later(move || end_of_one.write_all(b"x").map(|()| end_of_one));
            assert_eq!(wait(c, &epoll, how, None), [1]);
            assert_eq!(wait(c, &epoll, how, None), [1]);
            let ends = (writer.join().unwrap().unwrap(), end_of_edge, end_of_once);
            (&one).read_exact(&mut [0]).unwrap();
            assert!(wait(c, &epoll, how, Some(Duration::ZERO)).is_empty());
            drop(ends);
            assert_eq!(wait(c, &epoll, how, None), [1, 2]);
        }
    });
}

#[test]
fn an_event_of_one_epoll_instance_goes_to_one_of_two_coroutines() {
    on_coroutine(|_| {
        let epoll = std::sync::Arc::new(epoll());
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        add(&epoll, &socket, EPOLLIN | EPOLLET, 7);
        let events = std::sync::Arc::new(AtomicUsize::new(0));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let (epoll, events) = (epoll.clone(), events.clone());
                greenroom::spawn(move || {
                    let mut event = epoll_event { events: 0, u64: 0 };
                    // SAFETY: the pointer is to an event.
                    let n = unsafe { libc::epoll_wait(epoll.as_raw_fd(), &raw mut event, 1, -1) };
                    assert_eq!((n, { event.u64 }), (1, 7));
                    events.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for had in 0..2 {
            pause();
            assert_eq!(events.load(Ordering::Relaxed), had);
            sender.send_to(b"x", socket.local_addr().unwrap()).unwrap();
            pause();
        }
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[test]
fn an_epoll_instance_waits_for_what_is_added_meanwhile() {
    alike(|c| {
        let epoll = epoll();
        let (one, mut end) = UnixStream::pair().unwrap();
        end.write_all(b"x").unwrap();
        let (epoll_of_other, one) = (epoll.try_clone().unwrap(), OwnedFd::from(one));
        let adder = later(move || {
            add(&epoll_of_other, &one, EPOLLIN, 9);
            one
        });
        assert_eq!(wait(c, &epoll, 0, None), [9]);
        adder.join().unwrap();
    });
}

/// Does nothing. But a signal that has a handler ends calls.
extern "C" fn handle(_: c_int) {}

#[test]
fn a_call_with_a_signal_mask_of_its_own_is_ended_by_a_signal() {
    // SAFETY: the handler is async-signal-safe. The masks are filled by the first call.
    let (unblocked, before) = unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handle as extern "C" fn(c_int) as usize;
        assert_eq!(
            libc::sigaction(libc::SIGUSR1, &raw const action, null_mut()),
            0
        );
        let (mut blocked, mut before) = (mem::zeroed(), mem::zeroed());
        libc::sigemptyset(&raw mut blocked);
        libc::sigaddset(&raw mut blocked, libc::SIGUSR1);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, &raw mut before);
        (before, before)
    };
    alike(|c| {
        // It waits until it is handled.
        let raise = || {
            // SAFETY: the signal has a handler.
            assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
        };
        let (mask, none) = (&raw const unblocked, null_mut());
        raise();
        assert_eq!(call!(c.ppoll(null_mut(), 0, null(), mask)), Err(EINTR));
        raise();
        let ended = call!(c.pselect(0, none, none, none, null(), mask));
        assert_eq!(ended, Err(EINTR));
        raise();
        let epoll = epoll();
        let mut event = epoll_event { events: 0, u64: 0 };
        let ended = call!(c.epoll_pwait(epoll.as_raw_fd(), &raw mut event, 1, -1, mask));
        assert_eq!(ended, Err(EINTR));
    });
    // SAFETY: the mask was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, null_mut()) };
}

#[test]
fn a_close_ends_polls() {
    on_coroutine(|_| {
        let (one, _other) = UnixStream::pair().unwrap();
        let fd = one.as_raw_fd();
        let poller = greenroom::spawn(move || {
            let mut fds = [entry(fd, POLLIN)];
            // SAFETY: the pointer is to one entry.
            let n = unsafe { libc::poll(fds.as_mut_ptr(), 1, -1) };
            (n, io::Error::last_os_error().raw_os_error())
        });
        pause();
        // SAFETY: the number is owned here.
        assert_eq!(unsafe { libc::close(one.into_raw_fd()) }, 0);
        assert_eq!(poller.join().unwrap(), (-1, Some(EBADF)));
    });
}
