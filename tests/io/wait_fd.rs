//! Waits on any descriptor.
//!
//! Some tests count the descriptors of the process, so all of them run alone.

use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write, pipe};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use greenroom::shims::{self, net, thread};
use greenroom::{Cancelled, Interest, Readiness, RuntimeBuilder, spawn, wait_fd, yield_now};
use serial_test::serial;

use crate::util::{self, everywhere, on_workers, open_descriptors, registrations};

const MILLI: Duration = Duration::from_millis(1);

fn soon() -> Option<Instant> {
    Some(Instant::now() + 20 * MILLI)
}

/// A moment that no test reaches.
fn far() -> Option<Instant> {
    Some(Instant::now() + Duration::from_secs(1_000))
}

/// Yields often enough for all ready coroutines to park.
fn let_others_park() {
    for _ in 0..10 {
        yield_now();
    }
}

/// The descriptor that a system call has made.
fn made(fd: i64) -> OwnedFd {
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the descriptor is open and new, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn send_urgent(to: &impl AsRawFd) {
    // SAFETY: the descriptor is open, and the buffer has one byte.
    let sent = unsafe { libc::send(to.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1);
}

#[track_caller]
fn assert_timed_out(result: io::Result<Readiness>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
}

/// A descriptor that is not readable, and a function that makes it readable. The function returns what
/// must stay open.
type Kind = (&'static str, OwnedFd, Box<dyn FnOnce() -> Option<OwnedFd>>);

/// One descriptor of each kind.
fn kinds(directory: &std::path::Path) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = Vec::new();

    let (reader, mut writer) = pipe().unwrap();
    let write = move || {
        writer.write_all(b"x").unwrap();
        Some(writer.into())
    };
    kinds.push(("pipe", reader.into(), Box::new(write)));

    let (near, far) = UnixStream::pair().unwrap();
    let close = move || {
        drop(far);
        None
    };
    kinds.push(("socket", near.into(), Box::new(close)));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let connect = move || Some(TcpStream::connect(addr).unwrap().into());
    kinds.push(("listener", listener.into(), Box::new(connect)));

    // SAFETY: the call has no preconditions.
    let event = made(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) }.into());
    let mut other = File::from(event.try_clone().unwrap());
    let add = move || {
        other.write_all(&1_u64.to_ne_bytes()).unwrap();
        None
    };
    kinds.push(("eventfd", event, Box::new(add)));

    // SAFETY: the call has no preconditions.
    let timer = made(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, 0) }.into());
    let other = timer.try_clone().unwrap();
    let arm = move || {
        // SAFETY: all-zero is a valid `itimerspec`.
        let mut in_a_milli: libc::itimerspec = unsafe { std::mem::zeroed() };
        in_a_milli.it_value.tv_nsec = 1_000_000;
        let fd = other.as_raw_fd();
        // SAFETY: the descriptor is open, and the value valid.
        let done =
            unsafe { libc::timerfd_settime(fd, 0, &raw const in_a_milli, std::ptr::null_mut()) };
        assert_eq!(done, 0);
        None
    };
    kinds.push(("timerfd", timer, Box::new(arm)));

    // SAFETY: the call has no preconditions.
    let inotify = made(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) }.into());
    let path = std::ffi::CString::new(directory.to_str().unwrap()).unwrap();
    // SAFETY: the descriptor is open, and the path ends with a null byte.
    let watch =
        unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), path.as_ptr(), libc::IN_CREATE) };
    assert!(watch >= 0, "{}", io::Error::last_os_error());
    let file = directory.join("new");
    let _ = std::fs::remove_file(&file);
    let create = move || Some(File::create(file).unwrap().into());
    kinds.push(("inotify", inotify, Box::new(create)));

    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    // SAFETY: the call has no preconditions, and the child was not waited for yet.
    let pidfd = made(unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) });
    let end = move || {
        drop(child.stdin.take());
        child.wait().unwrap();
        None
    };
    kinds.push(("pidfd", pidfd, Box::new(end)));

    let (mut master, mut slave) = (-1, -1);
    let null = std::ptr::null_mut();
    // SAFETY: both numbers are valid to write to, and the other arguments may be null.
    let opened = unsafe { libc::openpty(&mut master, &mut slave, null, null.cast(), null.cast()) };
    assert_eq!(opened, 0, "{}", io::Error::last_os_error());
    let (master, slave) = (made(master.into()), made(slave.into()));
    let mut keyboard = File::from(master);
    let line = move || {
        keyboard.write_all(b"line\n").unwrap();
        Some(keyboard.into())
    };
    kinds.push(("terminal", slave, Box::new(line)));

    // Another poll. SAFETY: the call has no preconditions.
    let epoll = made(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }.into());
    let (reader, mut writer) = pipe().unwrap();
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: 0,
    };
    let (poll, fd) = (epoll.as_raw_fd(), reader.as_raw_fd());
    // SAFETY: the descriptors are open, and the event is valid.
    let added = unsafe { libc::epoll_ctl(poll, libc::EPOLL_CTL_ADD, fd, &mut event) };
    assert_eq!(added, 0, "{}", io::Error::last_os_error());
    let write = move || {
        writer.write_all(b"x").unwrap();
        Some(reader.into())
    };
    kinds.push(("epoll", epoll, Box::new(write)));
    kinds
}

#[test]
#[serial]
fn every_kind_of_descriptor_can_be_waited_for() {
    let directory = std::env::temp_dir().join(format!("greenroom-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    everywhere(|| {
        for (kind, fd, make_ready) in kinds(&directory) {
            eprintln!("{kind}");
            assert_timed_out(wait_fd(&fd, Interest::READABLE, soon()));
            let waiter = thread::spawn(move || {
                let ready = wait_fd(&fd, Interest::READABLE, far()).unwrap();
                // The descriptor is still readable, because a wait consumes nothing. (More may have
                // become readable.)
                let again = wait_fd(&fd, Interest::READABLE, None).unwrap();
                assert!(again.is_readable(), "{again:?}");
                ready
            });
            thread::sleep(5 * MILLI);
            let _open = make_ready();
            let ready = waiter.join().unwrap();
            assert!(ready.is_readable(), "{ready:?}");
            assert!(!ready.is_error(), "{ready:?}");
        }
    });
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
#[serial]
fn a_descriptor_that_cannot_be_polled_is_refused() {
    let file = std::env::temp_dir().join(format!("greenroom-file-{}", std::process::id()));
    File::create(&file).unwrap();
    everywhere(|| {
        for interest in [Interest::READABLE, Interest::WRITABLE, Interest::PRIORITY] {
            for never in [&file, &std::env::temp_dir()] {
                let never = File::open(never).unwrap();
                let error = wait_fd(&never, interest, None).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unsupported);
            }
        }
        // A device that is always ready, and can be polled.
        let null = File::options().read(true).write(true).open("/dev/null");
        let ready = wait_fd(null.unwrap(), Interest::READABLE, None).unwrap();
        assert!(ready.is_readable());
        // Some regular files can be polled, too.
        let mounts = File::open("/proc/self/mounts").unwrap();
        assert_timed_out(wait_fd(&mounts, Interest::PRIORITY, soon()));
        assert!(wait_fd(&mounts, Interest::READABLE, None).is_ok());
    });
    std::fs::remove_file(&file).unwrap();
}

#[test]
#[serial]
fn a_descriptor_that_is_not_open_is_an_error() {
    everywhere(|| {
        // SAFETY: not sound, because the descriptor is not open. But only the kernel gets its number.
        let closed = unsafe { BorrowedFd::borrow_raw(1_000_000_000) };
        let error = wait_fd(closed, Interest::READABLE, None).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    });
}

#[test]
#[serial]
fn a_deadline_that_has_passed_asks_for_the_present_state() {
    everywhere(|| {
        let (reader, mut writer) = pipe().unwrap();
        let past = Some(Instant::now());
        assert_timed_out(wait_fd(&reader, Interest::READABLE, past));
        writer.write_all(b"x").unwrap();
        let ready = wait_fd(&reader, Interest::READABLE, past).unwrap();
        assert!(ready.is_readable());
    });
}

#[test]
#[serial]
fn a_coroutine_that_asks_in_a_loop_lets_others_run() {
    on_workers(1, || {
        let (reader, mut writer) = pipe().unwrap();
        let past = Some(Instant::now());
        spawn(move || {
            thread::sleep(MILLI);
            writer.write_all(b"x").unwrap();
        });
        while wait_fd(&reader, Interest::READABLE, past).is_err() {}
    });
    // A coroutine that asks for ever ends with its runtime.
    let (reader, _writer) = pipe().unwrap();
    on_workers(1, move || {
        spawn(move || {
            loop {
                let _ = wait_fd(&reader, Interest::READABLE, Some(Instant::now()));
            }
        });
        thread::sleep(5 * MILLI);
    });
}

#[test]
#[serial]
fn only_the_requested_state_ends_a_wait() {
    everywhere(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far_end, _) = listener.accept().unwrap();
        let near = &near;

        let ready = wait_fd(near, Interest::READABLE | Interest::WRITABLE, None).unwrap();
        assert!(ready.is_writable() && !ready.is_readable());
        assert_timed_out(wait_fd(near, Interest::READABLE, soon()));
        assert_timed_out(wait_fd(near, Interest::NONE, soon()));

        far_end.write_all(b"x").unwrap();
        let ready = wait_fd(near, Interest::READABLE, None).unwrap();
        assert!(!ready.is_read_closed() && !ready.is_priority());
        assert_timed_out(wait_fd(near, Interest::PRIORITY, soon()));
        send_urgent(&far_end);
        let ready = wait_fd(near, Interest::PRIORITY, None).unwrap();
        assert!(ready.is_priority());

        // One direction has ended, with data before its end.
        assert_timed_out(wait_fd(near, Interest::READ_CLOSED, soon()));
        far_end.shutdown(std::net::Shutdown::Write).unwrap();
        let ready = wait_fd(near, Interest::READ_CLOSED, None).unwrap();
        assert!(ready.is_read_closed() && !ready.is_hung_up());
        assert_timed_out(wait_fd(near, Interest::NONE, soon()));
        // Both directions have ended.
        near.shutdown(std::net::Shutdown::Write).unwrap();
        let ready = wait_fd(near, Interest::NONE, None).unwrap();
        assert!(ready.is_hung_up() && ready.is_readable());
    });
}

#[test]
#[serial]
fn a_pipe_reports_its_end_and_the_loss_of_its_reader() {
    everywhere(|| {
        let (reader, writer) = pipe().unwrap();
        drop(writer);
        let ready = wait_fd(&reader, Interest::READABLE, None).unwrap();
        assert!(ready.is_readable() && ready.is_hung_up());

        let (reader, mut writer) = pipe().unwrap();
        let room = wait_fd(&writer, Interest::WRITABLE, None).unwrap();
        assert!(room.is_writable() && !room.is_error());
        writer.write_all(&[0; 1 << 16]).unwrap();
        assert_timed_out(wait_fd(&writer, Interest::WRITABLE, soon()));
        let waiter = thread::spawn(move || wait_fd(&writer, Interest::WRITABLE, None).unwrap());
        thread::sleep(MILLI);
        drop(reader);
        assert!(waiter.join().unwrap().is_error());
    });
}

#[test]
#[serial]
fn all_waiters_of_one_descriptor_are_woken() {
    everywhere(|| {
        let (reader, mut writer) = pipe().unwrap();
        let reader = Arc::new(reader);
        let waiters: Vec<_> = (0..20)
            .map(|_| {
                let reader = Arc::clone(&reader);
                thread::spawn(move || wait_fd(&*reader, Interest::READABLE, None).unwrap())
            })
            .collect();
        let late = Arc::clone(&reader);
        let late = thread::spawn(move || wait_fd(&*late, Interest::READABLE, soon()));
        assert_timed_out(late.join().unwrap());
        writer.write_all(b"x").unwrap();
        for waiter in waiters {
            assert!(waiter.join().unwrap().is_readable());
        }
    });
}

/// A wait and the stream's own reads share one registration, whichever comes first and however either
/// ends.
#[test]
#[serial]
fn a_stream_may_be_waited_for_while_another_coroutine_reads_it() {
    for workers in [1, 4] {
        on_workers(workers, || {
            for wait_first in [true, false] {
                let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
                let near = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (mut far_end, _) = listener.accept().unwrap();
                let near = Arc::new(near);
                let wait = |deadline| {
                    let near = Arc::clone(&near);
                    let waiter = spawn(move || wait_fd(&*near, Interest::READABLE, deadline));
                    let_others_park();
                    waiter
                };
                let first = wait_first.then(|| wait(None));
                let early = wait_first.then(|| wait(soon()));
                let reader = spawn({
                    let near = Arc::clone(&near);
                    move || (&*near).read(&mut [0; 8]).unwrap()
                });
                let_others_park();
                let second = wait(None);
                let timed_out = wait(soon());
                for timed_out in early.into_iter().chain([timed_out]) {
                    assert_timed_out(timed_out.join().unwrap());
                }
                far_end.write_all(b"x").unwrap();
                assert_eq!(reader.join().unwrap(), 1);
                // The reader may have taken the byte before the waits saw it.
                far_end.write_all(b"y").unwrap();
                for waiter in first.into_iter().chain([second]) {
                    assert!(waiter.join().unwrap().unwrap().is_readable());
                }
                assert_eq!((&*near).read(&mut [0; 8]).unwrap(), 1);
                let reader = spawn({
                    let near = Arc::clone(&near);
                    move || (&*near).read(&mut [0; 8]).unwrap()
                });
                let_others_park();
                drop(far_end);
                assert_eq!(reader.join().unwrap(), 0);
            }
        });
    }
}

/// The waiters may register the descriptor with several polls.
#[test]
#[serial]
fn a_reader_goes_on_after_a_wait_on_its_stream_is_over() {
    on_workers(1, || {
        let (near, mut far_end) = streams();
        let near = Arc::new(near);
        // The wait registers the descriptor, the reader joins the registration, and the wait leaves.
        let waiter = spawn({
            let near = Arc::clone(&near);
            move || wait_fd(&*near, Interest::PRIORITY, soon())
        });
        let_others_park();
        let reader = spawn({
            let near = Arc::clone(&near);
            move || (&*near).read(&mut [0; 8]).unwrap()
        });
        assert_timed_out(waiter.join().unwrap());
        far_end.write_all(b"xyz").unwrap();
        assert_eq!(reader.join().unwrap(), 3);
    });
}

fn streams() -> (net::TcpStream, net::TcpStream) {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

#[test]
#[serial]
fn readiness_that_is_gone_again_does_not_end_a_wait() {
    on_workers(1, || {
        let (mut reader, mut writer) = pipe().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let waiter = spawn({
            let (reader, over) = (reader.try_clone().unwrap(), Arc::clone(&over));
            move || {
                wait_fd(&reader, Interest::READABLE, None).unwrap();
                over.store(true, SeqCst);
            }
        });
        let_others_park();
        for _ in 0..100 {
            // The event is reported, but nothing is left to read.
            writer.write_all(b"x").unwrap();
            reader.read_exact(&mut [0]).unwrap();
            thread::sleep(Duration::from_micros(100));
            assert!(!over.load(SeqCst));
        }
        writer.write_all(b"x").unwrap();
        waiter.join().unwrap();
    });
}

/// The open file description that had the number before is open under another number, and goes on to have
/// events.
#[test]
#[serial]
fn a_reused_number_does_not_report_events_of_its_old_owner() {
    on_workers(1, || {
        for event_is_under_way in [true, false] {
            let (reader, mut writer) = pipe().unwrap();
            let elsewhere = reader.try_clone().unwrap();
            let number = reader.as_raw_fd();
            let waiter = spawn(move || {
                assert_timed_out(wait_fd(&reader, Interest::READABLE, soon()));
            });
            let_others_park();
            if event_is_under_way {
                // Reported to the poll while the wait is being given up.
                std::thread::sleep(30 * MILLI);
                let mut elsewhere = elsewhere.try_clone().unwrap();
                writer.write_all(b"x").unwrap();
                elsewhere.read_exact(&mut [0]).unwrap();
            }
            waiter.join().unwrap();
            let (reader, mut new) = pipe().unwrap();
            assert_eq!(reader.as_raw_fd(), number, "nobody else opens anything");
            let waiter = spawn(move || {
                assert_timed_out(wait_fd(&reader, Interest::READABLE, soon()));
                wait_fd(&reader, Interest::READABLE, None).unwrap()
            });
            let_others_park();
            writer.write_all(b"stale").unwrap();
            thread::sleep(30 * MILLI);
            assert!(!waiter.is_finished());
            new.write_all(b"x").unwrap();
            assert!(waiter.join().unwrap().is_readable());
            drop(elsewhere);
        }
    });
}

/// A C library may do this, because it knows nothing of borrows.
#[test]
#[serial]
fn closing_a_descriptor_under_its_waiter_harms_nobody_else() {
    on_workers(1, || {
        let (old, _to_old) = pipe().unwrap();
        let _elsewhere = old.try_clone().unwrap();
        let number = old.as_raw_fd();
        let waiter = spawn(move || {
            // SAFETY: not sound, because the descriptor will be closed. But only the kernel gets its
            // number.
            let old = unsafe { BorrowedFd::borrow_raw(number) };
            assert_timed_out(wait_fd(old, Interest::READABLE, soon()));
        });
        let_others_park();
        drop(old);
        let (new, mut to_new) = pipe().unwrap();
        assert_eq!(new.as_raw_fd(), number, "nobody else opens anything");
        let of_new = spawn(move || wait_fd(&new, Interest::READABLE, None).unwrap());
        let_others_park();
        // It removes at most its own registration.
        waiter.join().unwrap();
        assert!(!of_new.is_finished());
        to_new.write_all(b"x").unwrap();
        assert!(of_new.join().unwrap().is_readable());
    });
}

#[test]
#[serial]
fn a_wait_goes_on_when_another_coroutine_wraps_and_releases_the_descriptor() {
    on_workers(1, || {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        let reader = Arc::new(reader);
        let waiter = spawn({
            let reader = Arc::clone(&reader);
            move || wait_fd(&*reader, Interest::READABLE, None).unwrap()
        });
        let_others_park();
        // SAFETY: the descriptor is open, and is released before it is closed.
        let wrapped = unsafe { shims::os::unix::net::UnixStream::from_raw_fd(reader.as_raw_fd()) };
        wrapped.set_read_timeout(Some(MILLI)).unwrap();
        let error = (&wrapped).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert_eq!(wrapped.into_raw_fd(), reader.as_raw_fd());
        let_others_park();
        assert!(!waiter.is_finished());
        writer.write_all(b"x").unwrap();
        assert!(waiter.join().unwrap().is_readable());
    });
}

#[test]
#[serial]
fn a_destructor_during_a_panic_gets_an_error_instead_of_a_wait() {
    struct Waits(PipeReader, PipeWriter, Arc<Mutex<Vec<ErrorKind>>>);

    impl Drop for Waits {
        fn drop(&mut self) {
            let wait = |deadline| {
                let waited = wait_fd(&self.0, Interest::READABLE, deadline);
                let kind = waited.map(|_| ErrorKind::Interrupted);
                let kind = kind.unwrap_or_else(|error| error.kind());
                self.2.lock().unwrap().push(kind);
            };
            wait(None);
            wait(Some(Instant::now()));
            self.1.write_all(b"x").unwrap();
            wait(None);
        }
    }

    on_workers(1, || {
        let seen = Arc::default();
        let (reader, writer) = pipe().unwrap();
        let waits = Waits(reader, writer, Arc::clone(&seen));
        let panics = spawn(move || {
            let _waits = waits;
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(panics.join().is_err());
        let seen = seen.lock().unwrap();
        // The last one is ready, so it does not wait.
        let wanted = [
            ErrorKind::Other,
            ErrorKind::TimedOut,
            ErrorKind::Interrupted,
        ];
        assert_eq!(*seen, wanted);
    });
}

/// These waits last while no thread drives their worker. The second shares its registration with a read,
/// which might go on with another worker.
#[test]
#[serial]
fn a_wait_goes_on_when_its_runtime_is_run_again() {
    util::on_an_os_thread(|| {
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        let (reader, mut writer) = pipe().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let near = Arc::new(net::TcpStream::from(near));
        let (mut far_end, _) = listener.accept().unwrap();
        let (waiters, stream_reader) = runtime.run(|| {
            let of_stream = Arc::clone(&near);
            let waiters = [
                spawn(move || wait_fd(&reader, Interest::READABLE, None).unwrap()),
                spawn(move || wait_fd(&*of_stream, Interest::PRIORITY, None).unwrap()),
            ];
            let of_stream = Arc::clone(&near);
            let reader = spawn(move || (&*of_stream).read(&mut [0; 8]).unwrap());
            let_others_park();
            (waiters, reader)
        });
        runtime.run(let_others_park);
        writer.write_all(b"x").unwrap();
        far_end.write_all(b"x").unwrap();
        send_urgent(&far_end);
        runtime.run(|| {
            let [first, second] = waiters.map(|waiter| waiter.join().unwrap());
            assert!(first.is_readable() && !first.is_priority());
            assert!(second.is_priority());
            assert_eq!(stream_reader.join().unwrap(), 1);
        });
    });
}

#[test]
#[serial]
fn waits_leave_nothing_behind_and_a_ticker_goes_on() {
    const WAITS: usize = 1_000;
    for workers in [1, 4] {
        on_workers(workers, || {
            let (before, registered) = (open_descriptors(), registrations());
            let (reader, writer) = pipe().unwrap();
            let (reader, writer) = (Arc::new(reader), Arc::new(Mutex::new(writer)));
            let (ticks, over) = (
                Arc::new(AtomicUsize::new(0)),
                Arc::new(AtomicBool::new(false)),
            );
            let ticker = spawn({
                let (ticks, over) = (Arc::clone(&ticks), Arc::clone(&over));
                move || {
                    while !over.load(SeqCst) {
                        thread::sleep(MILLI);
                        ticks.fetch_add(1, SeqCst);
                    }
                }
            });
            let mut waits: Vec<_> = (0..WAITS)
                .map(|n| {
                    let reader = Arc::clone(&reader);
                    spawn(move || {
                        // Some waits share a description, and some a descriptor.
                        let own = (n % 4 != 0).then(|| reader.try_clone().unwrap());
                        let fd = own.as_ref().map_or(reader.as_fd(), |own| own.as_fd());
                        match n % 3 {
                            0 => assert_timed_out(wait_fd(fd, Interest::READABLE, soon())),
                            _ => drop(wait_fd(fd, Interest::READABLE, None).unwrap()),
                        }
                    })
                })
                .collect();
            for n in (0..WAITS).rev().filter(|n| n % 3 == 0) {
                waits.swap_remove(n).join().unwrap();
            }
            util::until("the ticker goes on", || ticks.load(SeqCst) > 0);
            let ticks_amid = ticks.load(SeqCst);
            assert!(registrations() > registered);
            writer.lock().unwrap().write_all(b"x").unwrap();
            for wait in waits {
                wait.join().unwrap();
            }
            while ticks.load(SeqCst) == ticks_amid {
                thread::sleep(MILLI);
            }
            over.store(true, SeqCst);
            ticker.join().unwrap();
            drop((reader, writer));
            assert_eq!(registrations(), registered);
            util::assert_no_more_descriptors(before);
            greenroom::wait_idle();
        });
    }
}

#[test]
#[serial]
fn waits_that_a_shutdown_cancels_leave_nothing_behind() {
    util::on_an_os_thread(|| {
        let before = open_descriptors();
        let (reader, writer) = pipe().unwrap();
        let reader = Arc::new(reader);
        let unwound = Arc::new(AtomicUsize::new(0));
        for workers in [1, 4] {
            let waits: Vec<_> = on_workers(workers, || {
                let waits = (0..1_000).map(|n| {
                    let (reader, unwound) = (Arc::clone(&reader), Arc::clone(&unwound));
                    spawn(move || {
                        let own = (n % 2 == 0).then(|| reader.try_clone().unwrap());
                        let fd = own.as_ref().map_or(reader.as_fd(), |own| own.as_fd());
                        let deadline = if n % 3 == 0 { far() } else { None };
                        let wait = || wait_fd(fd, Interest::READABLE, deadline);
                        let caught = catch_unwind(AssertUnwindSafe(wait));
                        assert!(caught.unwrap_err().is::<Cancelled>());
                        unwound.fetch_add(1, SeqCst);
                        // A second wait fails at once.
                        drop(wait());
                        unreachable!();
                    })
                });
                let waits = waits.collect();
                thread::sleep(20 * MILLI);
                waits
            });
            for wait in waits {
                assert!(wait.join().unwrap_err().is::<Cancelled>());
            }
        }
        // Coroutines that had not begun to wait were not unwound there.
        assert!(unwound.load(SeqCst) > 0);
        drop((Arc::try_unwrap(reader).unwrap(), writer));
        let start = Instant::now();
        // Threads of the pool that earlier tests have used may end meanwhile.
        while open_descriptors() > before {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::sleep(MILLI);
        }
    });
}

/// Reads from a pipe that is never empty always succeed at once.
#[test]
#[serial]
fn a_child_that_writes_for_ever_does_not_starve_a_ticker() {
    on_workers(1, || {
        let mut yes = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = yes.stdout.take().unwrap();
        let reads = Arc::new(AtomicUsize::new(0));
        let reader = spawn({
            let reads = Arc::clone(&reads);
            move || {
                // So slow that the pipe stays full.
                let mut line = [0; 2];
                loop {
                    wait_fd(&stdout, Interest::READABLE, None).unwrap();
                    match stdout.read(&mut line).unwrap() {
                        0 => return,
                        read => assert_eq!(&line[..read], b"y\n"),
                    }
                    reads.fetch_add(1, SeqCst);
                }
            }
        });
        while reads.load(SeqCst) < 1_000 {
            let before = reads.load(SeqCst);
            yield_now();
            let amid = reads.load(SeqCst) - before;
            assert!(amid < 100, "{amid} reads in one turn");
        }
        let before = reads.load(SeqCst);
        for _ in 0..20 {
            thread::sleep(MILLI);
        }
        assert!(
            reads.load(SeqCst) > before,
            "the reader goes on between the ticks"
        );
        yes.kill().unwrap();
        yes.wait().unwrap();
        reader.join().unwrap();
    });
}

/// In the child, the coroutine that forked goes on as a thread. The registrations belong to the parent.
#[test]
#[serial]
fn a_forked_child_waits_by_itself_and_leaves_the_parents_waits_alone() {
    on_workers(1, || {
        let (reader, mut writer) = pipe().unwrap();
        let reader = Arc::new(reader);
        let waiter = spawn({
            let reader = Arc::clone(&reader);
            move || wait_fd(&*reader, Interest::READABLE, None).unwrap()
        });
        let_others_park();
        // SAFETY: the child does no more than allocate, which glibc allows after a fork.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let waits = || {
                let timed_out = wait_fd(&*reader, Interest::READABLE, soon());
                assert_timed_out(timed_out);
                let (reader, mut writer) = pipe().unwrap();
                writer.write_all(b"x").unwrap();
                wait_fd(&reader, Interest::READABLE, None).unwrap();
            };
            let failed = catch_unwind(AssertUnwindSafe(waits)).is_err();
            // SAFETY: the call has no preconditions, and ends the child here.
            unsafe { libc::_exit(failed.into()) };
        }
        let mut status = 0;
        // SAFETY: `status` is valid to write to.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        let_others_park();
        assert!(!waiter.is_finished());
        writer.write_all(b"x").unwrap();
        assert!(waiter.join().unwrap().is_readable());
    });
}
