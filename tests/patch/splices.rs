//! splice(2) and sendfile(2): what they wait for, and what they refuse.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;
use std::time::Duration;

use greenroom::shims::thread;
use libc::{
    EAGAIN, EBADF, EINVAL, EPIPE, ESPIPE, ETIMEDOUT, SO_RCVTIMEO, SPLICE_F_NONBLOCK, c_int,
};

use crate::calls::{alike, call, later, on_coroutine, patched};
use crate::util::{
    Replaced, Scratch, assert_same_bytes, leave_timestamp, ms, noise, set_socket_timeout, tcp_pair,
};

fn fd(file: &impl AsRawFd) -> c_int {
    file.as_raw_fd()
}

#[test]
fn a_splice_waits_for_bytes_and_returns_what_is_there() {
    alike(|c| {
        let (reader, mut writer) = io::pipe().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let writing = later(move || writer.write_all(b"hello"));
        let spliced = call!(c.splice(fd(&reader), null_mut(), fd(&near), null_mut(), 100, 0));
        assert_eq!(spliced, Ok(5));
        let mut buf = [0; 100];
        assert_eq!(far.read(&mut buf).unwrap(), 5);
        assert_eq!(&buf[..5], b"hello");
        writing.join().unwrap().unwrap();
        // The writer is gone.
        let spliced = call!(c.splice(fd(&reader), null_mut(), fd(&near), null_mut(), 100, 0));
        assert_eq!(spliced, Ok(0));

        let (mut reader, writer) = io::pipe().unwrap();
        let (mut client, server) = tcp_pair();
        let writing = later(move || client.write_all(b"back"));
        let spliced = call!(c.splice(fd(&server), null_mut(), fd(&writer), null_mut(), 100, 0));
        assert_eq!(spliced, Ok(4));
        assert_eq!(reader.read(&mut buf).unwrap(), 4);
        assert_eq!(&buf[..4], b"back");
        writing.join().unwrap().unwrap();
    });
}

#[test]
fn a_target_without_room_is_waited_for() {
    alike(|c| {
        let dir = Scratch::new();
        let bytes = noise(3_000_000, 5);
        std::fs::write(dir.join("from"), &bytes).unwrap();
        for by_other_name in [false, true] {
            let from = File::open(dir.join("from")).unwrap();
            let (near, mut far) = UnixStream::pair().unwrap();
            let reading = later(move || {
                let mut all = Vec::new();
                far.read_to_end(&mut all).map(|_| all)
            });
            let mut offset = 7;
            while (offset as usize) < bytes.len() {
                let (to, from) = (fd(&near), fd(&from));
                let sent = match by_other_name {
                    false => call!(c.sendfile(to, from, &raw mut offset, bytes.len())),
                    true => call!(c.sendfile64(to, from, &raw mut offset, bytes.len())),
                };
                assert!(sent.unwrap() > 0);
            }
            drop(near);
            assert_same_bytes(&reading.join().unwrap().unwrap(), &bytes[7..]);
        }
    });
}

#[test]
fn pipes_are_copied_through_while_others_run() {
    alike(|c| {
        let bytes = noise(1_000_000, 6);
        let (from, mut source) = io::pipe().unwrap();
        let (mut target, to) = io::pipe().unwrap();
        let written = bytes.clone();
        let writing = thread::spawn(move || source.write_all(&written));
        let reading = thread::spawn(move || {
            let mut all = Vec::new();
            target.read_to_end(&mut all).map(|_| all)
        });
        loop {
            match call!(c.splice(fd(&from), null_mut(), fd(&to), null_mut(), 1 << 20, 0)) {
                Ok(0) => break,
                moved => assert!(moved.is_ok(), "{moved:?}"),
            }
        }
        drop(to);
        writing.join().unwrap().unwrap();
        assert_same_bytes(&reading.join().unwrap().unwrap(), &bytes);
    });
}

#[test]
fn what_is_not_to_wait_does_not() {
    alike(|c| {
        let (reader, writer) = io::pipe().unwrap();
        let (near, _far) = UnixStream::pair().unwrap();
        let (from, to) = (fd(&reader), fd(&near));
        let spliced = call!(c.splice(from, null_mut(), to, null_mut(), 10, SPLICE_F_NONBLOCK));
        assert_eq!(spliced, Err(EAGAIN));
        assert_eq!(
            call!(c.splice(from, null_mut(), to, null_mut(), 0, 0)),
            Ok(0)
        );
        // A socket in non-blocking mode, and one whose time passes.
        near.set_nonblocking(true).unwrap();
        let pipe = fd(&writer);
        let spliced = call!(c.splice(to, null_mut(), pipe, null_mut(), 10, 0));
        assert_eq!(spliced, Err(EAGAIN));
        near.set_nonblocking(false).unwrap();
        set_socket_timeout(&near, SO_RCVTIMEO, ms(20));
        let spliced = call!(c.splice(to, null_mut(), pipe, null_mut(), 10, 0));
        assert_eq!(spliced, Err(EAGAIN));
    });
}

#[test]
fn errors_are_those_of_the_kernel() {
    alike(|c| {
        let (reader, writer) = io::pipe().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let (from, socket) = (fd(&reader), fd(&near));
        let mut offset = 0;
        let refused = call!(c.splice(from, &raw mut offset, socket, null_mut(), 10, 0));
        assert_eq!(refused, Err(ESPIPE));
        let refused = call!(c.splice(socket, null_mut(), fd(&far), null_mut(), 10, 0));
        assert_eq!(refused, Err(EINVAL));
        assert_eq!(
            call!(c.splice(from, null_mut(), -1, null_mut(), 10, 0)),
            Err(EBADF)
        );
        assert_eq!(call!(c.sendfile(socket, -1, null_mut(), 10)), Err(EBADF));
        assert_eq!(call!(c.sendfile(socket, from, null_mut(), 10)), Err(EINVAL));
        (&writer).write_all(b"x").unwrap();
        drop(far);
        assert_eq!(
            call!(c.splice(from, null_mut(), socket, null_mut(), 10, 0)),
            Err(EPIPE)
        );
    });
}

#[test]
fn a_timeout_ends_the_wait_for_bytes() {
    on_coroutine(|c| {
        let (reader, _writer) = io::pipe().unwrap();
        let (near, _far) = UnixStream::pair().unwrap();
        let spliced = greenroom::timeout(Duration::from_millis(20), || {
            call!(c.splice(fd(&reader), null_mut(), fd(&near), null_mut(), 10, 0))
        });
        assert_eq!(spliced, Ok(Err(ETIMEDOUT)));
    });
}

#[test]
fn a_message_in_the_error_queue_does_not_end_the_wait_of_a_splice() {
    on_coroutine(|_| {
        let (stream, mut end) = tcp_pair();
        leave_timestamp(&stream);
        let (_reader, writer) = io::pipe().unwrap();
        let splicer = greenroom::spawn(move || {
            let c = patched();
            call!(c.splice(fd(&stream), null_mut(), fd(&writer), null_mut(), 10, 0))
        });
        // It waits.
        greenroom::yield_until_idle();
        end.write_all(b"hello").unwrap();
        assert_eq!(splicer.join().unwrap(), Ok(5));
    });
}

#[test]
fn a_splice_from_a_standard_descriptor_does_not_park() {
    let test = "a_splice_from_a_standard_descriptor_does_not_park";
    if crate::util::role().is_none() {
        let child = crate::util::again!(test, "alone");
        return assert!({ child }.status().unwrap().success());
    }
    let (input, input_writer) = io::pipe().unwrap();
    let replaced = Replaced::new(0, fd(&input));
    on_coroutine(|c| {
        let has_run = std::rc::Rc::new(std::cell::Cell::new(false));
        let other = greenroom::spawn_local({
            let has_run = has_run.clone();
            move || has_run.set(true)
        });
        let writing = std::thread::spawn(move || {
            std::thread::sleep(ms(30));
            (&input_writer).write_all(b"in").map(|()| input_writer)
        });
        let (_reader, writer) = io::pipe().unwrap();
        let spliced = call!(c.splice(0, null_mut(), fd(&writer), null_mut(), 9, 0));
        assert_eq!(spliced, Ok(2));
        assert!(!has_run.get(), "the splice has kept the thread");
        other.join().unwrap();
        writing.join().unwrap().unwrap();
    });
    drop((replaced, input));
}
