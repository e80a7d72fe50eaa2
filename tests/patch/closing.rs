//! close(2): it ends the waits of coroutines for the descriptor.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

use libc::{EBADF, c_int};

use crate::calls::{alike, call, on_coroutine, patched, pause};
use crate::util::{ms, on_workers, tcp_pair};

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
        let fd = stream.into_raw_fd();
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
        let fd = reader.into_raw_fd();
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
