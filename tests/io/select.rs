//! `select` and `poll` over many descriptors: they return what the system's calls return.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write, pipe};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use greenroom::shims::select::{Interest, PollFd, Ready, poll, select};
use greenroom::shims::{net, thread};
use greenroom::{spawn, wait_fd, yield_now};
use serial_test::serial;

use crate::util::{self, ClosedPort, everywhere, on_workers, open_descriptors};

const MILLI: Duration = Duration::from_millis(1);
const NOW: Option<Duration> = Some(Duration::ZERO);
const SOON: Option<Duration> = Some(Duration::from_millis(20));

/// Longer than any wait in these tests.
const LONG: Option<Duration> = Some(Duration::from_secs(1_000));

/// No descriptors.
const NONE: &[BorrowedFd<'static>] = &[];

/// Yields often enough for all ready coroutines to park.
fn let_others_park() {
    for _ in 0..10 {
        yield_now();
    }
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// A TCP socket that was never connected.
fn unconnected() -> OwnedFd {
    // SAFETY: the call has no preconditions, and nobody else owns a new descriptor.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

/// A TCP socket that is being connected, in non-blocking mode.
fn connecting(to: std::net::SocketAddr) -> OwnedFd {
    let socket = unconnected();
    let std::net::SocketAddr::V4(to) = to else {
        unreachable!("tests use IPv4")
    };
    // SAFETY: all-zero is a valid `sockaddr_in`.
    let mut name: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    name.sin_family = libc::AF_INET as libc::sa_family_t;
    name.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
    name.sin_port = to.port().to_be();
    // SAFETY: the descriptor is open, and the address is valid and has the given length.
    unsafe {
        let fd = socket.as_raw_fd();
        assert_eq!(libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK), 0);
        libc::connect(fd, (&raw const name).cast(), size_of_val(&name) as u32);
    }
    socket
}

fn send_urgent(to: &impl AsRawFd) {
    // SAFETY: the descriptor is open, and the buffer has one byte.
    let sent = unsafe { libc::send(to.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
}

/// What the system's select returns for `fd` now: readable, writable, exceptional.
fn system_select(fd: &impl AsRawFd) -> [bool; 3] {
    let fd = fd.as_raw_fd();
    assert!(fd < libc::FD_SETSIZE as i32);
    // SAFETY: all-zero is an empty set, the descriptor fits into a set, and all pointers are valid.
    unsafe {
        let mut sets: [libc::fd_set; 3] = std::mem::zeroed();
        for set in &mut sets {
            libc::FD_SET(fd, set);
        }
        let mut now: libc::timeval = std::mem::zeroed();
        let [r, w, x] = &mut sets;
        assert!(libc::select(fd + 1, r, w, x, &mut now) >= 0);
        sets.map(|set| libc::FD_ISSET(fd, &set))
    }
}

/// What the system's poll returns for `fd` now.
fn system_poll(fd: &impl AsRawFd, events: libc::c_short) -> i16 {
    let fd = fd.as_raw_fd();
    let mut polled = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: the entry is valid.
    assert!(unsafe { libc::poll(&mut polled, 1, 0) } >= 0);
    polled.revents
}

/// Descriptors in all kinds of states, and the descriptors that must stay open for that.
fn in_all_states() -> BTreeMap<&'static str, (OwnedFd, Vec<OwnedFd>)> {
    let mut all = BTreeMap::new();
    let mut add = |name, fd: OwnedFd, others: Vec<OwnedFd>| {
        all.insert(name, (fd, others));
    };

    let (near, far) = tcp_pair();
    add("idle", near.into(), vec![far.into()]);
    let (near, mut far) = tcp_pair();
    far.write_all(b"x").unwrap();
    add("with data", near.into(), vec![far.into()]);
    let (near, far) = tcp_pair();
    send_urgent(&far);
    add("with urgent data", near.into(), vec![far.into()]);
    let (near, far) = tcp_pair();
    far.shutdown(Shutdown::Write).unwrap();
    add("at its end", near.into(), vec![far.into()]);
    let (near, far) = tcp_pair();
    drop(far);
    near.shutdown(Shutdown::Both).unwrap();
    add("hung up", near.into(), vec![]);
    let (near, far) = tcp_pair();
    util::reset_on_close(&far);
    drop(far);
    add("reset", near.into(), vec![]);
    let (near, far) = tcp_pair();
    near.set_nonblocking(true).unwrap();
    let fill = || {
        while (&near).write(&[0; 1 << 16]).is_ok() {}
        // What moves to the other end meanwhile leaves room.
        std::thread::sleep(10 * MILLI);
        !util::takes_more(&near)
    };
    util::until("it stays full", || fill() && fill());
    add("full", near.into(), vec![far.into()]);

    add("unconnected", unconnected(), vec![]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    add(
        "listener with a connection",
        listener.into(),
        vec![client.into()],
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    add("listener", listener.into(), vec![]);
    let refused = connecting(ClosedPort::new().addr);
    wait_fd(&refused, Interest::WRITABLE, None).unwrap();
    add("refused", refused, vec![]);

    add(
        "UDP",
        UdpSocket::bind("127.0.0.1:0").unwrap().into(),
        vec![],
    );
    let (near, far) = UnixStream::pair().unwrap();
    add("UNIX", near.into(), vec![far.into()]);
    let (near, far) = UnixStream::pair().unwrap();
    drop(far);
    add("UNIX hung up", near.into(), vec![]);

    let (reader, writer) = pipe().unwrap();
    let both: [OwnedFd; 2] = [reader.into(), writer.into()];
    let [other_reader, other_writer] = both.each_ref().map(|fd| fd.try_clone().unwrap());
    let [reader, writer] = both;
    add("pipe to read", reader, vec![other_writer]);
    add("pipe to write", writer, vec![other_reader]);
    let (reader, writer) = pipe().unwrap();
    drop(writer);
    add("pipe at its end", reader.into(), vec![]);
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    add("pipe without a reader", writer.into(), vec![]);

    let file = File::open(std::env::current_exe().unwrap()).unwrap();
    add("regular file", file.into(), vec![]);
    add("directory", File::open("/").unwrap().into(), vec![]);
    add("device", File::open("/dev/null").unwrap().into(), vec![]);
    // What was sent to a socket of this machine is mostly there at once, but not always.
    for (name, event) in [
        ("with data", libc::POLLIN),
        ("with urgent data", libc::POLLPRI),
        ("at its end", libc::POLLRDHUP),
        ("hung up", libc::POLLHUP),
        ("reset", libc::POLLHUP),
        ("listener with a connection", libc::POLLIN),
    ] {
        util::until(name, || system_poll(&all[name].0, event) & event != 0);
    }
    all
}

#[test]
#[serial]
fn the_present_state_is_what_the_system_says() {
    everywhere(|| {
        for (name, (fd, _others)) in &in_all_states() {
            let wanted = system_select(fd);
            for timeout in [NOW, SOON] {
                let ready = select(&[fd], &[fd], &[fd], timeout).unwrap();
                let got = [ready.readable, ready.writable, ready.exceptional];
                assert_eq!(got.map(|list| list == [0]), wanted, "{name}");
                // One at a time, so that the others do not count.
                let r = select(&[fd], &[], &[], timeout).unwrap();
                let w = select(&[], &[fd], &[], timeout).unwrap();
                let x = select(&[], &[], &[fd], timeout).unwrap();
                let got = [&r, &w, &x].map(|ready| !ready.is_empty());
                assert_eq!(got, wanted, "{name}");
            }

            let interests = [
                (Interest::NONE, 0),
                (Interest::READABLE, libc::POLLIN | libc::POLLRDHUP),
                (Interest::WRITABLE, libc::POLLOUT),
                (Interest::PRIORITY, libc::POLLPRI),
                (Interest::READ_CLOSED, libc::POLLRDHUP),
            ];
            for (one, one_event) in interests {
                for (other, other_event) in interests {
                    for timeout in [NOW, Some(MILLI)] {
                        let wanted = system_poll(fd, one_event | other_event);
                        let mut polled = [PollFd::new(fd, one | other)];
                        let ready = poll(&mut polled, timeout).unwrap();
                        assert_eq!(polled[0].readiness().bits(), wanted, "{name}");
                        assert_eq!(ready, usize::from(wanted != 0), "{name}");
                    }
                }
            }
        }
    });
}

#[test]
#[serial]
fn readable_and_writable_mean_the_same_as_for_the_system() {
    everywhere(|| {
        let states = in_all_states();
        for (name, wanted) in [
            ("idle", [false, true, false]),
            ("with urgent data", [false, true, true]),
            ("at its end", [true, true, false]),
            ("refused", [true, true, false]),
            ("listener with a connection", [true, false, false]),
            ("unconnected", [true, true, false]),
            ("full", [false, false, false]),
            ("pipe at its end", [true, false, false]),
            ("pipe without a reader", [true, true, false]),
            ("regular file", [true, true, false]),
        ] {
            let fd = &states[name].0;
            let ready = select(&[fd], &[fd], &[fd], NOW).unwrap();
            let got = [ready.readable, ready.writable, ready.exceptional];
            assert_eq!(got.map(|list| list == [0]), wanted, "{name}");
        }
    });
}

#[test]
#[serial]
fn without_a_timeout_select_waits_for_the_first_event() {
    everywhere(|| {
        let (near, mut far) = tcp_pair();
        let (reader, mut writer) = pipe().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let fds = [near.as_fd(), reader.as_fd(), listener.as_fd()];
        type Event<'a> = (&'a mut dyn FnMut(), usize);
        let mut connect = || drop(TcpStream::connect(addr).unwrap());
        let mut events: [Event<'_>; 3] = [
            (&mut || writer.write_all(b"x").unwrap(), 1),
            (&mut connect, 2),
            (&mut || far.write_all(b"x").unwrap(), 0),
        ];
        let mut ready_before = Vec::new();
        for (event, at) in &mut events {
            let rest: Vec<_> = (0..3).filter(|i| !ready_before.contains(i)).collect();
            let r: Vec<_> = rest.iter().map(|&i| fds[i]).collect();
            assert!(select(&r, &[], &[], SOON).unwrap().is_empty());
            greenroom::scope(|s| {
                let waiter = s.spawn(|| select(&r, &[], &[], None).unwrap());
                thread::sleep(MILLI);
                event();
                let place = rest.iter().position(|i| i == at).unwrap();
                assert_eq!(waiter.join().unwrap().readable, [place]);
            });
            ready_before.push(*at);
        }
        let all = select(&fds, &fds, &[], LONG).unwrap();
        assert_eq!(all.readable, [0, 1, 2]);
        assert_eq!(all.writable, [0]);
    });
}

#[test]
#[serial]
fn a_timeout_gives_three_empty_lists_and_not_early() {
    everywhere(|| {
        let (near, _far) = tcp_pair();
        let start = Instant::now();
        let ready = select(&[&near], &[], &[&near], SOON).unwrap();
        assert!(start.elapsed() >= SOON.unwrap());
        assert_eq!(ready, Ready::default());

        let start = Instant::now();
        let mut polled = [PollFd::new(&near, Interest::READABLE)];
        assert_eq!(poll(&mut polled, SOON).unwrap(), 0);
        assert!(start.elapsed() >= SOON.unwrap());
        assert!(polled[0].readiness().is_empty());
    });
}

#[test]
#[serial]
fn select_sleeps_if_there_are_no_descriptors() {
    everywhere(|| {
        let others_ran = Arc::new(AtomicBool::new(false));
        let other = thread::spawn({
            let others_ran = Arc::clone(&others_ran);
            move || others_ran.store(true, SeqCst)
        });
        let start = Instant::now();
        assert!(select(NONE, NONE, NONE, SOON).unwrap().is_empty());
        assert_eq!(poll(&mut [], SOON).unwrap(), 0);
        assert!(start.elapsed() >= 2 * SOON.unwrap());
        other.join().unwrap();
        assert!(others_ran.load(SeqCst));
        assert!(select(NONE, NONE, NONE, NOW).unwrap().is_empty());
    });
    // Without a timeout it sleeps until the runtime ends.
    on_workers(1, || {
        let asleep = spawn(|| drop(select(NONE, NONE, NONE, None)));
        let_others_park();
        assert!(!asleep.is_finished());
    });
}

#[test]
#[serial]
fn a_zero_timeout_lets_others_run() {
    on_workers(1, || {
        let (reader, mut writer) = pipe().unwrap();
        let other = spawn(move || {
            writer.write_all(b"x").unwrap();
            writer
        });
        // Select sees what the other coroutine did while this one yielded.
        assert_eq!(select(&[&reader], &[], &[], NOW).unwrap().readable, [0]);
        let writer = other.join().unwrap();

        // A coroutine whose selects never wait does not keep the worker to itself.
        let ran = Arc::new(AtomicBool::new(false));
        spawn({
            let ran = Arc::clone(&ran);
            move || ran.store(true, SeqCst)
        });
        while !ran.load(SeqCst) {
            assert_eq!(select(&[&reader], &[], &[], NOW).unwrap().readable, [0]);
        }
        drop(writer);
    });
}

#[test]
#[serial]
fn a_descriptor_that_is_listed_twice_is_returned_twice() {
    everywhere(|| {
        let (near, mut far) = tcp_pair();
        let (idle, _idle_far) = tcp_pair();
        let r = [&near, &idle, &near, &near];
        let w = [&idle, &idle];
        let ready = select(&r, &w, &r, LONG).unwrap();
        assert_eq!((ready.readable, ready.writable), (vec![], vec![0, 1]));

        let waits = [
            thread::spawn({
                let near = near.try_clone().unwrap();
                move || {
                    let ready = select(&[&near, &near], &[], &[&near, &near], None).unwrap();
                    assert_eq!(ready.readable, [0, 1]);
                }
            }),
            thread::spawn({
                let near = near.try_clone().unwrap();
                move || {
                    let mut polled = [
                        PollFd::new(&near, Interest::READABLE),
                        PollFd::new(&near, Interest::PRIORITY),
                        PollFd::new(&near, Interest::READABLE),
                    ];
                    assert_eq!(poll(&mut polled, None).unwrap(), 2);
                    let readable = polled.map(|polled| polled.readiness().is_readable());
                    assert_eq!(readable, [true, false, true]);
                }
            }),
        ];
        thread::sleep(MILLI);
        far.write_all(b"x").unwrap();
        for wait in waits {
            wait.join().unwrap();
        }
        let ready = select(&r, &w, &r, LONG).unwrap();
        assert_eq!(ready.readable, [0, 2, 3]);
        assert_eq!(ready.writable, [0, 1]);
        assert_eq!(ready.exceptional, [0; 0]);
    });
}

#[test]
#[serial]
fn a_descriptor_that_is_not_open_is_an_error_and_no_hang() {
    everywhere(|| {
        let (near, _far) = tcp_pair();
        for number in [1_000_000_000, 19_999] {
            // SAFETY: not sound, because the descriptor is not open. But only the kernel gets its number.
            let closed = unsafe { BorrowedFd::borrow_raw(number) };
            for [r, w, x] in [
                [&[near.as_fd(), closed][..], NONE, NONE],
                [NONE, &[closed], NONE],
                [&[near.as_fd()], NONE, &[closed]],
            ] {
                let error = select(r, w, x, None).unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EBADF));
            }
            let mut polled = [
                PollFd::new(&near, Interest::READABLE),
                PollFd::new(&closed, Interest::READABLE),
            ];
            assert_eq!(poll(&mut polled, None).unwrap(), 1);
            assert!(polled[0].readiness().is_empty());
            assert!(polled[1].readiness().is_invalid());
        }
    });
}

/// A wait for exceptional conditions ignores a hang-up, which the system's `poll` reports again and
/// again.
#[test]
#[serial]
fn a_wait_for_another_state_does_not_spin() {
    let test = || {
        let states = in_all_states();
        for state in ["pipe at its end", "hung up", "reset"] {
            let fd = &states[state].0;
            util::in_one_of_ten(|| {
                let before = util::thread_cpu_time();
                let timeout = Some(200 * MILLI);
                let ready = select(&[], &[], &[fd], timeout).unwrap();
                assert!(ready.is_empty());
                let spent = util::thread_cpu_time() - before;
                let is_little = spent < 100 * MILLI;
                is_little
                    .then_some(())
                    .ok_or_else(|| format!("{spent:?} of 200 ms"))
            });
        }
    };
    util::on_an_os_thread(test);
    on_workers(1, test);
}

#[test]
#[serial]
fn a_stream_may_be_selected_while_another_coroutine_reads_it() {
    for workers in [1, 4] {
        on_workers(workers, || {
            let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
            let near = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut far, _) = listener.accept().unwrap();
            let near = Arc::new(near);
            let select_it = || {
                let near = Arc::clone(&near);
                let selecting =
                    spawn(move || select(&[&*near], &[], &[&*near], None).unwrap().readable);
                let_others_park();
                selecting
            };
            let before = select_it();
            let reader = spawn({
                let near = Arc::clone(&near);
                move || (&*near).read(&mut [0; 8]).unwrap()
            });
            let_others_park();
            let after = select_it();
            assert!(select(&[&*near], &[], &[], SOON).unwrap().is_empty());
            far.write_all(b"x").unwrap();
            assert_eq!(reader.join().unwrap(), 1);
            // The reader may have taken the byte before the selects saw it.
            far.write_all(b"y").unwrap();
            assert_eq!(before.join().unwrap(), [0]);
            assert_eq!(after.join().unwrap(), [0]);
        });
    }
}

#[test]
#[serial]
fn several_coroutines_may_select_the_same_descriptors() {
    everywhere(|| {
        let pipes: Vec<_> = (0..5).map(|_| pipe().unwrap()).collect();
        let (readers, mut writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
        greenroom::scope(|s| {
            let selecting: Vec<_> = (0..10)
                .map(|n| {
                    let readers = &readers;
                    s.spawn(move || {
                        let mut fds: Vec<_> = readers.iter().collect();
                        fds.rotate_left(n % 5);
                        let ready = select(&fds, &[], &[], None).unwrap().readable;
                        assert_eq!(ready.len(), 1);
                        (ready[0] + n) % 5
                    })
                })
                .collect();
            thread::sleep(MILLI);
            writers[3].write_all(b"x").unwrap();
            for selecting in selecting {
                assert_eq!(selecting.join().unwrap(), 3);
            }
        });
    });
}

/// Raises the limit on descriptors, which is too low on some systems.
fn raise_limit() {
    // SAFETY: all-zero is a valid `rlimit`, and both calls get a valid pointer.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
}

/// Runs the named test in a process of its own. Returns false in that process.
fn in_a_child(name: &str) -> bool {
    if util::role().is_some() {
        return false;
    }
    let output = util::again!(name, "child").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    true
}

#[test]
#[serial]
fn thousands_of_descriptors_can_be_selected() {
    if in_a_child("thousands_of_descriptors_can_be_selected") {
        return;
    }
    raise_limit();
    let test = || {
        let pipes: Vec<_> = (0..2_000).map(|_| pipe().unwrap()).collect();
        let (readers, mut writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
        assert!(select(&readers, &[], &readers, SOON).unwrap().is_empty());
        for (first, last) in [(0, 1_999), (1_000, 1_001)] {
            greenroom::scope(|s| {
                let selecting = s.spawn(|| {
                    let ready = select(&readers, &[], &readers, None).unwrap();
                    assert!(ready.exceptional.is_empty() && ready.writable.is_empty());
                    ready.readable
                });
                let polling = s.spawn(|| {
                    let poll_fd = |fd| PollFd::new(fd, Interest::READABLE);
                    let mut fds: Vec<_> = readers.iter().map(poll_fd).collect();
                    assert_eq!(poll(&mut fds, None).unwrap(), 1);
                    fds.iter().position(|fd| fd.readiness().is_readable())
                });
                thread::sleep(20 * MILLI);
                writers[first].write_all(b"x").unwrap();
                assert_eq!(selecting.join().unwrap(), [first]);
                assert_eq!(polling.join().unwrap(), Some(first));
            });
            writers[last].write_all(b"x").unwrap();
            let ready = select(&readers, &[], &[], None).unwrap();
            assert_eq!(ready.readable, [first, last]);
            (&readers[first]).read_exact(&mut [0]).unwrap();
            (&readers[last]).read_exact(&mut [0]).unwrap();
        }
    };
    everywhere(test);
    on_workers(1, || {
        let before = open_descriptors();
        test();
        util::assert_no_more_descriptors(before);
    });
}

#[test]
#[serial]
fn select_takes_more_entries_than_the_process_may_have_descriptors_and_poll_does_not() {
    if in_a_child(
        "select_takes_more_entries_than_the_process_may_have_descriptors_and_poll_does_not",
    ) {
        return;
    }
    let limit = libc::rlimit {
        rlim_cur: 200,
        rlim_max: 200,
    };
    // SAFETY: the limit is valid.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    everywhere(|| {
        let (reader, mut writer) = pipe().unwrap();
        let r = vec![&reader; 300];
        assert!(select(&r, &r, &r, SOON).unwrap().is_empty());
        writer.write_all(b"x").unwrap();
        assert_eq!(select(&r, &r, &r, None).unwrap().readable.len(), 300);
        let mut fds = vec![PollFd::new(&reader, Interest::READABLE); 300];
        let error = poll(&mut fds, None).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    });
}

#[test]
#[serial]
fn a_descriptor_may_leave_the_lists_while_it_has_an_event() {
    on_workers(1, || {
        let (one, mut to_one) = pipe().unwrap();
        let (two, mut to_two) = pipe().unwrap();
        let number = one.as_raw_fd();
        let selecting = spawn(move || {
            let ready = select(&[&one, &two], &[], &[], None).unwrap().readable;
            drop(one);
            // The other event that was reported is ignored.
            let (new, mut to_new) = pipe().unwrap();
            assert_eq!(new.as_raw_fd(), number);
            assert!(select(&[&new], &[], &[], SOON).unwrap().is_empty());
            to_new.write_all(b"x").unwrap();
            assert_eq!(select(&[&new], &[], &[], None).unwrap().readable, [0]);
            ready
        });
        let_others_park();
        to_two.write_all(b"x").unwrap();
        to_one.write_all(b"x").unwrap();
        assert_eq!(selecting.join().unwrap(), [0, 1]);
    });
}

#[test]
#[serial]
fn a_poll_entry_shows_its_state() {
    let (reader, _writer) = pipe().unwrap();
    let mut fd = PollFd::new(&reader, Interest::READABLE | Interest::PRIORITY);
    fd.set_interest(fd.interest() | Interest::WRITABLE);
    assert_eq!(poll(std::slice::from_mut(&mut fd), NOW).unwrap(), 0);
    let number = reader.as_raw_fd();
    let wanted = format!(
        "PollFd {{ fd: {number}, interest: READABLE | WRITABLE | PRIORITY, readiness: NONE }}"
    );
    assert_eq!(format!("{fd:?}"), wanted);
    assert_eq!(fd.as_fd().as_raw_fd(), number);
}
