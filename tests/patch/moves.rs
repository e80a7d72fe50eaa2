//! sendfile(2), and splice(2), by which std's `io::copy` moves bytes from pipes.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::ptr::null_mut;

use libc::{EAGAIN, EBADF, EINVAL, SO_SNDTIMEO};

use crate::calls::{alike, call, nowhere, on_coroutine, patched};
use crate::util::{Scratch, assert_same_bytes, ms, noise, set_socket_timeout, tcp_pair};

/// A file with these bytes.
fn file(dir: &Scratch, bytes: &[u8]) -> File {
    let path = dir.join("file");
    std::fs::write(&path, bytes).unwrap();
    File::options().read(true).write(true).open(path).unwrap()
}

#[test]
fn a_file_is_sent_while_its_reader_runs_on_the_same_thread() {
    on_coroutine(|_| {
        let (dir, bytes) = (Scratch::new(), noise(8 << 20, 1));
        let file = file(&dir, &bytes);
        let (stream, mut end) = tcp_pair();
        let sender = greenroom::spawn(move || {
            let (to, from) = (stream.as_raw_fd(), file.as_raw_fd());
            let c = patched();
            call!(c.sendfile(to, from, null_mut(), usize::MAX))
        });
        let mut got = Vec::new();
        end.read_to_end(&mut got).unwrap();
        assert_same_bytes(&got, &bytes);
        assert_eq!(sender.join().unwrap(), Ok(bytes.len() as i64));
    });
}

#[test]
fn a_copy_from_and_to_a_pipe_parks() {
    on_coroutine(|_| {
        let (dir, bytes) = (Scratch::new(), noise(1 << 20, 2));
        let mut target = file(&dir, b"");
        let (mut reader, mut writer) = io::pipe().unwrap();
        let (mut next_reader, mut next_writer) = io::pipe().unwrap();
        let (mut stream, mut end) = UnixStream::pair().unwrap();
        greenroom::scope(|s| {
            s.spawn(|| {
                io::copy(&mut reader, &mut next_writer)
                    .map(|_| drop(next_writer))
                    .unwrap()
            });
            s.spawn(|| {
                io::copy(&mut next_reader, &mut stream)
                    .map(|_| drop(stream))
                    .unwrap()
            });
            s.spawn(|| io::copy(&mut end, &mut target).unwrap());
            writer.write_all(&bytes).unwrap();
            drop(writer);
        });
        target.rewind().unwrap();
        let mut got = Vec::new();
        target.read_to_end(&mut got).unwrap();
        assert_same_bytes(&got, &bytes);
    });
}

#[test]
fn a_part_of_a_file_is_sent_from_its_position_or_from_an_offset() {
    alike(|c| {
        let dir = Scratch::new();
        let mut file = file(&dir, b"0123456789");
        let (stream, mut end) = UnixStream::pair().unwrap();
        let (to, from) = (stream.as_raw_fd(), file.as_raw_fd());
        let mut sent = |expected: &[u8]| {
            let mut got = vec![0; expected.len()];
            end.read_exact(&mut got).unwrap();
            assert_eq!(got, expected);
        };
        assert_eq!(call!(c.sendfile(to, from, null_mut(), 4)), Ok(4));
        sent(b"0123");
        assert_eq!(file.stream_position().unwrap(), 4);
        let mut offset = 7;
        assert_eq!(call!(c.sendfile64(to, from, &raw mut offset, 99)), Ok(3));
        sent(b"789");
        assert_eq!((offset, file.stream_position().unwrap()), (10, 4));
        assert_eq!(call!(c.sendfile(to, from, &raw mut offset, 99)), Ok(0));
        assert_eq!(call!(c.sendfile(to, from, null_mut(), 0)), Ok(0));
        offset = -1;
        assert_eq!(call!(c.sendfile(to, from, &raw mut offset, 1)), Err(EINVAL));
        assert_eq!(call!(c.sendfile(to, from, nowhere(), 1)), Err(libc::EFAULT));
        assert_eq!(call!(c.sendfile(-1, from, null_mut(), 1)), Err(EBADF));
        assert_eq!(call!(c.sendfile(to, -1, null_mut(), 1)), Err(EBADF));
    });
}

#[test]
fn a_file_is_sent_until_the_timeout_of_the_socket() {
    alike(|c| {
        let dir = Scratch::new();
        let file = file(&dir, &noise(4 << 20, 3));
        let (stream, _end) = UnixStream::pair().unwrap();
        set_socket_timeout(&stream, SO_SNDTIMEO, ms(30));
        let (to, from) = (stream.as_raw_fd(), file.as_raw_fd());
        let mut offset = 0;
        let sent = call!(c.sendfile(to, from, &raw mut offset, 4 << 20)).unwrap();
        assert!(0 < sent && sent < 4 << 20);
        assert_eq!(offset, sent);
        let more = call!(c.sendfile(to, from, &raw mut offset, 4 << 20));
        assert_eq!((more, offset), (Err(EAGAIN), sent));
    });
}
