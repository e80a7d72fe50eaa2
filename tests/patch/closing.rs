//! close(2): it ends the waits of coroutines for the descriptor.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use libc::{EBADF, EINVAL, c_int};

use greenroom::RuntimeBuilder;

use crate::calls::{alike, call, on_coroutine, patched, pause};
use crate::util::{Finally, ms, on_workers, set_socket_timeout, tcp_pair};

/// Begins to receive, on a coroutine.
fn receiver(fd: c_int) -> greenroom::JoinHandle<Result<i64, c_int>> {
    greenroom::spawn(move || {
        let (c, mut buf) = (patched(), [0u8; 9]);
        call!(c.recv(fd, buf.as_mut_ptr().cast(), 9, 0))
    })
}

/// Closes the descriptor, which the caller owns.
fn close(fd: c_int) {
    let c = patched();
    assert_eq!(call!(c.close(fd)), Ok(0));
}

#[test]
fn a_descriptor_is_closed_once() {
    alike(|c| {
        let fd = std::fs::File::open("/dev/null").unwrap().into_raw_fd();
        assert_eq!(call!(c.close(fd)), Ok(0));
        assert_eq!(call!(c.close(99_999)), Err(EBADF));
        assert_eq!(call!(c.close(-1)), Err(EBADF));
    });
}

#[test]
fn all_waits_of_all_workers_end() {
    on_workers(4, || {
        let (stream, end) = tcp_pair();
        // A number that no other test gets, for a receiver that begins late.
        let fd = duplicate(stream.as_raw_fd(), 4000);
        drop(stream);
        let receivers: Vec<_> = (0..20).map(|_| receiver(fd)).collect();
        pause();
        close(fd);
        for receiver in receivers {
            assert_eq!(receiver.join().unwrap(), Err(EBADF));
        }
        drop(end);
    });
}

#[test]
fn an_os_thread_ends_waits() {
    on_coroutine(|_| {
        let (reader, writer) = io::pipe().unwrap();
        // As above.
        let fd = duplicate(reader.as_raw_fd(), 4500);
        drop(reader);
        let thread = std::thread::spawn(move || {
            std::thread::sleep(ms(30));
            close(fd);
        });
        let (c, mut buf) = (patched(), [0u8; 9]);
        let ended = call!(c.read(fd, buf.as_mut_ptr().cast(), 9));
        assert_eq!(ended, Err(EBADF));
        thread.join().unwrap();
        drop(writer);
    });
}

#[test]
fn a_wait_for_a_number_that_is_used_again_does_not_touch_the_new_file() {
    on_coroutine(|_| {
        for _ in 0..20 {
            let (stream, end) = UnixStream::pair().unwrap();
            // A number that no other test gets.
            // SAFETY: the call takes any numbers, and `stream` is replaced.
            let fd = unsafe { libc::fcntl(stream.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 2000) };
            drop(stream);
            let receiver = receiver(fd);
            pause();
            close(fd);
            let (new, mut new_end) = UnixStream::pair().unwrap();
            // SAFETY: as above.
            assert_eq!(unsafe { libc::dup2(new.as_raw_fd(), fd) }, fd);
            new_end.write_all(b"not for it").unwrap();
            assert_eq!(receiver.join().unwrap(), Err(EBADF));
            assert_eq!((&new).read(&mut [0; 99]).unwrap(), 10);
            // The new one is waited for as ever.
            let receiver = self::receiver(fd);
            pause();
            new_end.write_all(b"for it").unwrap();
            assert_eq!(receiver.join().unwrap(), Ok(6));
            close(fd);
            drop(end);
        }
    });
}

#[test]
fn a_duplicate_of_another_descriptor_ends_the_waits_for_what_was_there() {
    on_coroutine(|c| {
        for with_flags in [false, true] {
            let (stream, mut end) = UnixStream::pair().unwrap();
            // A number that no other test gets.
            let fd = duplicate(stream.as_raw_fd(), 5200);
            drop(stream);
            let (new, mut new_end) = UnixStream::pair().unwrap();
            let replace = |from, to| match with_flags {
                false => call!(c.dup2(from, to)),
                true => call!(c.dup3(from, to, libc::O_CLOEXEC)),
            };
            // These change nothing.
            let receiver = self::receiver(fd);
            pause();
            assert_eq!(replace(-1, fd), Err(EBADF));
            let same = match with_flags {
                false => Ok(fd.into()),
                true => Err(EINVAL),
            };
            assert_eq!(replace(fd, fd), same);
            if with_flags {
                let refused = call!(c.dup3(new.as_raw_fd(), fd, 1));
                assert_eq!(refused, Err(EINVAL));
            }
            end.write_all(b"old").unwrap();
            assert_eq!(receiver.join().unwrap(), Ok(3));

            let receiver = self::receiver(fd);
            pause();
            assert_eq!(replace(new.as_raw_fd(), fd), Ok(fd.into()));
            assert_eq!(receiver.join().unwrap(), Err(EBADF));
            let receiver = self::receiver(fd);
            pause();
            new_end.write_all(b"newer").unwrap();
            assert_eq!(receiver.join().unwrap(), Ok(5));
            close(fd);
        }
    });
}

/// A connection whose end was sent more than it takes. Its close lingers until it has taken that.
fn lingering() -> (TcpStream, TcpStream) {
    let (mut stream, end) = tcp_pair();
    stream.set_nonblocking(true).unwrap();
    while stream.write(&[0; 1 << 16]).is_ok() {}
    stream.set_nonblocking(false).unwrap();
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 1000,
    };
    let value = (&raw const linger).cast();
    // SAFETY: the option takes such a value, and the length is that of one.
    let set = unsafe {
        let (level, option) = (libc::SOL_SOCKET, libc::SO_LINGER);
        let len = size_of_val(&linger) as libc::socklen_t;
        libc::setsockopt(stream.as_raw_fd(), level, option, value, len)
    };
    assert_eq!(set, 0);
    (stream, end)
}

/// Reads until the end, on another coroutine, and then sets the flag.
fn read_later(mut end: TcpStream) -> (greenroom::JoinHandle<()>, Arc<AtomicBool>) {
    let has_begun = Arc::new(AtomicBool::new(false));
    let note = Arc::clone(&has_begun);
    let reader = greenroom::spawn(move || {
        note.store(true, Ordering::SeqCst);
        io::copy(&mut end, &mut io::sink()).unwrap();
    });
    (reader, has_begun)
}

#[test]
fn a_close_that_lingers_parks() {
    on_coroutine(|c| {
        let (stream, end) = lingering();
        let (reader, has_begun) = read_later(end);
        let fd = stream.into_raw_fd();
        assert_eq!(call!(c.close(fd)), Ok(0));
        assert!(has_begun.load(Ordering::SeqCst), "the close has waited");
        reader.join().unwrap();

        // So does a duplicate in its place.
        let (stream, end) = lingering();
        let (reader, has_begun) = read_later(end);
        let (fd, null) = (
            stream.as_raw_fd(),
            std::fs::File::open("/dev/null").unwrap(),
        );
        assert_eq!(call!(c.dup2(null.as_raw_fd(), fd)), Ok(fd.into()));
        assert!(has_begun.load(Ordering::SeqCst), "the close has waited");
        reader.join().unwrap();
    });
}

#[test]
fn a_coroutine_that_unwinds_does_not_wait_for_a_close_that_lingers() {
    on_workers(1, || {
        let (stream, end) = lingering();
        let has_closed = Arc::new(AtomicBool::new(false));
        let note = Arc::clone(&has_closed);
        let unwinding = greenroom::spawn(move || {
            let mut stream = Some(stream);
            let _later = Finally(move || {
                drop(stream.take());
                note.store(true, Ordering::SeqCst);
            });
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(unwinding.join().is_err());
        assert!(has_closed.load(Ordering::SeqCst));
        read_later(end).0.join().unwrap();
    });
}

#[test]
fn a_duplicate_is_not_closed() {
    on_coroutine(|_| {
        let (stream, mut end) = UnixStream::pair().unwrap();
        let other = stream.try_clone().unwrap();
        let (first, second) = (receiver(stream.as_raw_fd()), receiver(other.as_raw_fd()));
        pause();
        close(stream.into_raw_fd());
        assert_eq!(first.join().unwrap(), Err(EBADF));
        end.write_all(b"x").unwrap();
        assert_eq!(second.join().unwrap(), Ok(1));
    });
}

#[test]
fn closes_and_waits_race() {
    on_workers(2, || {
        for round in 0..300 {
            let (stream, end) = UnixStream::pair().unwrap();
            let fd = stream.into_raw_fd();
            let (begins, has_begun) = mpsc::channel();
            let receiver = greenroom::spawn(move || {
                begins.send(()).unwrap();
                let (c, mut buf) = (patched(), [0u8; 9]);
                call!(c.recv(fd, buf.as_mut_ptr().cast(), 9, 0))
            });
            while has_begun.try_recv().is_err() {
                greenroom::yield_now();
            }
            for _ in 0..round % 7 {
                greenroom::yield_now();
            }
            // Before the close, so that a wait that has not begun, and finds the number used again, ends too.
            end.shutdown(std::net::Shutdown::Both).unwrap();
            close(fd);
            let ended = receiver.join().unwrap();
            assert!(ended == Ok(0) || ended == Err(EBADF), "{ended:?}");
        }
    });
}

/// A duplicate with a number that is `least` or more.
fn duplicate(fd: c_int, least: c_int) -> c_int {
    // SAFETY: the call takes any numbers.
    let duplicate = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, least) };
    assert!(duplicate >= least, "{}", io::Error::last_os_error());
    duplicate
}

#[test]
fn a_close_at_the_moment_when_a_wait_begins_ends_it() {
    on_workers(1, || {
        let c = patched();
        for round in 0..4000 {
            let (stream, _end) = UnixStream::pair().unwrap();
            // A wait that is missed ends, too, with another error.
            set_socket_timeout(&stream, libc::SO_RCVTIMEO, ms(10_000));
            // A number that no other test gets.
            let fd = duplicate(stream.as_raw_fd(), 3000);
            drop(stream);
            let begins = std::sync::Arc::new(std::sync::Barrier::new(2));
            let thread = std::thread::spawn({
                let begins = begins.clone();
                move || {
                    begins.wait();
                    for _ in 0..round % 400 {
                        std::hint::spin_loop();
                    }
                    close(fd);
                }
            });
            let mut buf = [0u8; 9];
            // It is noted as one that may be awaited, so that the close looks.
            let mut entry = libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            };
            assert_eq!(call!(c.poll(&raw mut entry, 1, 1)), Ok(0));
            begins.wait();
            let ended = call!(c.recv(fd, buf.as_mut_ptr().cast(), 9, 0));
            assert_eq!(ended, Err(EBADF));
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_runtime_that_runs_again_waits_for_the_same_descriptor() {
    let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
    let (mut reader, writer) = io::pipe().unwrap();
    for byte in *b"abc" {
        let mut got = [0];
        runtime.run(|| {
            greenroom::spawn({
                let writer = writer.try_clone().unwrap();
                move || {
                    pause();
                    (&writer).write_all(&[byte]).unwrap();
                }
            });
            reader.read_exact(&mut got).unwrap();
        });
        assert_eq!(got, [byte]);
    }
}

#[test]
fn a_file_that_comes_back_to_a_number_is_waited_for() {
    on_coroutine(|_| {
        let (file, mut end) = UnixStream::pair().unwrap();
        let (other, mut other_end) = UnixStream::pair().unwrap();
        let fd = duplicate(file.as_raw_fd(), 3500);
        let replace_by = |new: &UnixStream| {
            // SAFETY: the number is this test's.
            assert_eq!(unsafe { libc::dup2(new.as_raw_fd(), fd) }, fd);
        };
        let wait_for = |end: &mut UnixStream| {
            let receiver = receiver(fd);
            pause();
            end.write_all(b"x").unwrap();
            assert_eq!(receiver.join().unwrap(), Ok(1));
        };
        wait_for(&mut end);
        replace_by(&other);
        wait_for(&mut other_end);
        close(fd);
        replace_by(&file);
        wait_for(&mut end);
        close(fd);
    });
}
