//! read(2), write(2) and their relatives, on all kinds of descriptors.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::ptr::{null, null_mut};
use std::time::Instant;

use libc::{
    EAGAIN, EBADF, EFAULT, EINVAL, EISDIR, EOPNOTSUPP, EPIPE, O_NONBLOCK, PIPE_BUF, SO_RCVTIMEO,
    c_int, iovec,
};

use crate::calls::{Calls, alike, call, later, nowhere, on_coroutine, pause};
use crate::util::{
    Replaced, Scratch, assert_same_bytes, iovecs, ms, noise, set_socket_timeout, tcp_pair,
    udp_pair, until_full, until_read,
};

fn set_nonblocking(fd: &impl AsRawFd, on: bool) {
    // SAFETY: the calls take any numbers.
    unsafe {
        let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
        let flags = if on {
            flags | O_NONBLOCK
        } else {
            flags & !O_NONBLOCK
        };
        assert_eq!(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags), 0);
    }
}

/// A descriptor that a call has returned.
fn owned(fd: c_int) -> OwnedFd {
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the call has made the descriptor, for its caller.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A named pipe.
fn named_pipe(dir: &Path) -> (File, File) {
    let path = dir.join("pipe");
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the name is a C string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    // To open one end alone would wait for the other.
    let both = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let ends = (
        File::open(&path).unwrap(),
        OpenOptions::new().write(true).open(&path).unwrap(),
    );
    drop(both);
    ends
}

/// Runs `test` with both kinds of pipes.
fn with_pipes(test: impl Fn(&Calls, File, File)) {
    alike(|c| with_both_kinds(c, &test));
}

fn with_both_kinds(c: &Calls, test: impl Fn(&Calls, File, File)) {
    let (reader, writer) = io::pipe().unwrap();
    let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
    test(c, reader.into(), writer.into());
    let dir = Scratch::new();
    let (reader, writer) = named_pipe(&dir);
    test(c, reader, writer);
}

#[test]
fn a_read_returns_what_comes_first_and_then_the_end() {
    with_pipes(|c, reader, mut writer| {
        let fd = reader.as_raw_fd();
        let copy = reader.try_clone().unwrap();
        let writer = later(move || {
            for text in ["one", "two!", "three", "four", "fives"] {
                writer.write_all(text.as_bytes()).unwrap();
                until_read(&copy);
            }
        });
        let mut bufs = [vec![0u8; 2], vec![], vec![0u8; 100]];
        let vecs = iovecs(&mut bufs);
        let to = vecs[2].iov_base;
        assert_eq!(call!(c.read(fd, to, 100)), Ok(3));
        assert_eq!(call!(c.__read_chk(fd, to, 100, 100)), Ok(4));
        assert_eq!(call!(c.readv(fd, vecs.as_ptr(), 3)), Ok(5));
        assert_eq!((&*bufs[0], &bufs[2][..3]), (&b"th"[..], &b"ree"[..]));
        assert_eq!(call!(c.preadv2(fd, vecs.as_ptr(), 3, -1, 0)), Ok(4));
        assert_eq!(call!(c.preadv64v2(fd, vecs.as_ptr(), 3, -1, 0)), Ok(5));
        writer.join().unwrap();
        assert_eq!(call!(c.read(fd, to, 100)), Ok(0));
        assert_eq!(call!(c.readv(fd, vecs.as_ptr(), 3)), Ok(0));
    });
}

#[test]
fn an_empty_buffer_in_front_holds_no_write_up() {
    with_pipes(|c, mut reader, writer| {
        let reader = later(move || reader.read_exact(&mut [0; 5000]).map(|()| reader));
        let mut bufs = [vec![], noise(5000, 3)];
        let vecs = iovecs(&mut bufs);
        let written = call!(c.writev(writer.as_raw_fd(), vecs.as_ptr(), 2));
        assert_eq!(written, Ok(5000));
        reader.join().unwrap().unwrap();
    });
}

#[test]
fn a_write_goes_on_until_everything_is_written() {
    with_pipes(|c, mut reader, writer| {
        let mut bytes = noise(1 << 20, 5);
        let wanted = [&*bytes, &*bytes, &*bytes].concat();
        let reader = later(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).unwrap();
            got
        });
        let (fd, len) = (writer.as_raw_fd(), bytes.len());
        assert_eq!(
            call!(c.write(fd, bytes.as_ptr().cast(), len)),
            Ok(len as i64)
        );
        let mut pieces: Vec<_> = bytes.chunks_mut(1234).collect();
        let vecs = iovecs(&mut pieces);
        let count = vecs.len() as c_int;
        assert_eq!(call!(c.writev(fd, vecs.as_ptr(), count)), Ok(len as i64));
        let written = call!(c.pwritev2(fd, vecs.as_ptr(), count, -1, 0));
        assert_eq!(written, Ok(len as i64));
        drop(writer);
        assert_same_bytes(&reader.join().unwrap(), &wanted);
    });
}

#[test]
fn small_writes_to_a_pipe_are_not_mixed() {
    // All on one worker: another thread could fill a named pipe that has just had room, and the write would block the
    // worker.
    let with_pipes = |test: fn(&Calls, File, File)| on_coroutine(|c| with_both_kinds(c, test));
    with_pipes(|c, mut reader, writer| {
        let other = writer.try_clone().unwrap();
        let (half, ones, twos) = (PIPE_BUF / 2, [1u8; PIPE_BUF], [2u8; PIPE_BUF]);
        let write = |c: &Calls, fd: c_int, bytes: &[u8; PIPE_BUF]| {
            let mut bytes = *bytes;
            let (one, two) = bytes.split_at_mut(half);
            let vecs = iovecs(&mut [one, two]);
            for _ in 0..50 {
                let written = call!(c.writev(fd, vecs.as_ptr(), 2));
                assert_eq!(written, Ok(PIPE_BUF as i64));
            }
        };
        let second = greenroom::spawn(move || {
            for _ in 0..50 {
                let io = [&twos[..half], &twos[half..]].map(io::IoSlice::new);
                assert_eq!((&other).write_vectored(&io).unwrap(), PIPE_BUF);
            }
        });
        let reader = later(move || {
            let mut got = Vec::<u8>::new();
            let mut buf = [0; 1000];
            loop {
                match reader.read(&mut buf).unwrap() {
                    0 => return got,
                    n => got.extend(&buf[..n]),
                }
            }
        });
        write(c, writer.as_raw_fd(), &ones);
        second.join().unwrap();
        drop(writer);
        let got = reader.join().unwrap();
        assert_eq!(got.len(), 100 * PIPE_BUF);
        for part in got.chunks(PIPE_BUF) {
            assert!(part == ones || part == twos);
        }
    });
}

#[test]
fn non_blocking_mode_is_respected() {
    with_pipes(|c, reader, writer| {
        for fd in [&reader, &writer] {
            set_nonblocking(fd, true);
        }
        let mut bufs = [vec![0u8; 1 << 20]];
        let vecs = iovecs(&mut bufs);
        let (buf, len) = (vecs[0].iov_base, vecs[0].iov_len);
        let fd = reader.as_raw_fd();
        assert_eq!(call!(c.read(fd, buf, 10)), Err(EAGAIN));
        assert_eq!(call!(c.readv(fd, vecs.as_ptr(), 1)), Err(EAGAIN));
        let fd = writer.as_raw_fd();
        let written = call!(c.write(fd, buf, len)).unwrap();
        assert!(written > 0 && written < len as i64, "{written}");
        assert_eq!(call!(c.write(fd, buf, len)), Err(EAGAIN));
        assert_eq!(call!(c.writev(fd, vecs.as_ptr(), 1)), Err(EAGAIN));
        // A part of it would have room.
        assert_eq!(call!(c.read(reader.as_raw_fd(), buf, 100)), Ok(100));
        assert_eq!(call!(c.write(fd, buf, PIPE_BUF)), Err(EAGAIN));
    });
}

#[test]
fn bad_arguments_are_refused() {
    alike(|c| {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"bytes").unwrap();
        let mut bufs = [[0u8; 10]; 2];
        let vecs = iovecs(&mut bufs);
        let (buf, list) = (vecs[0].iov_base, vecs.as_ptr());
        // The wrong ends too.
        for fd in [-1, 99_999, writer.as_raw_fd()] {
            assert_eq!(call!(c.read(fd, buf, 10)), Err(EBADF));
            assert_eq!(call!(c.readv(fd, list, 1)), Err(EBADF));
        }
        for fd in [-1, 99_999, reader.as_raw_fd()] {
            assert_eq!(call!(c.write(fd, buf, 10)), Err(EBADF));
            assert_eq!(call!(c.writev(fd, list, 1)), Err(EBADF));
        }
        let (stream, mut end) = UnixStream::pair().unwrap();
        end.write_all(b"bytes").unwrap();
        for (reader, writer) in [
            (reader.as_raw_fd(), writer.as_raw_fd()),
            (stream.as_raw_fd(), stream.as_raw_fd()),
        ] {
            assert_eq!(call!(c.read(reader, nowhere(), 10)), Err(EFAULT));
            assert_eq!(call!(c.read(reader, buf, usize::MAX)), Err(EFAULT));
            assert_eq!(call!(c.readv(reader, nowhere(), 1)), Err(EFAULT));
            assert_eq!(call!(c.write(writer, nowhere(), 10)), Err(EFAULT));
            assert_eq!(call!(c.write(writer, buf, usize::MAX)), Err(EFAULT));
            assert_eq!(call!(c.writev(writer, nowhere(), 1)), Err(EFAULT));
            for count in [-1, 1025, c_int::MAX] {
                assert_eq!(call!(c.readv(reader, list, count)), Err(EINVAL));
                assert_eq!(call!(c.writev(writer, list, count)), Err(EINVAL));
            }
            let negative = [iovec {
                iov_base: buf,
                iov_len: usize::MAX,
            }];
            assert_eq!(call!(c.readv(reader, negative.as_ptr(), 1)), Err(EINVAL));
            assert_eq!(call!(c.writev(writer, negative.as_ptr(), 1)), Err(EINVAL));
            assert_eq!(
                call!(c.preadv2(reader, list, 1, -1, 1 << 20)),
                Err(EOPNOTSUPP)
            );
            assert_eq!(call!(c.read(reader, buf, 10)), Ok(5));
        }
        let dir = File::open("/").unwrap();
        assert_eq!(call!(c.read(dir.as_raw_fd(), buf, 10)), Err(EISDIR));
    });
}

#[test]
fn nothing_is_read_and_written_at_once() {
    alike(|c| {
        let (reader, writer) = io::pipe().unwrap();
        let (stream, _end) = tcp_pair();
        let (socket, peer) = udp_pair();
        let empty = [iovec {
            iov_base: null_mut(),
            iov_len: 0,
        }; 3];
        let empty = empty.as_ptr();
        for fd in [reader.as_raw_fd(), stream.as_raw_fd(), socket.as_raw_fd()] {
            assert_eq!(call!(c.read(fd, null_mut(), 0)), Ok(0));
            assert_eq!(call!(c.readv(fd, null(), 0)), Ok(0));
            assert_eq!(call!(c.readv(fd, empty, 3)), Ok(0));
        }
        // Nor is a datagram taken.
        peer.send(b"x").unwrap();
        assert_eq!(call!(c.readv(socket.as_raw_fd(), empty, 3)), Ok(0));
        assert_eq!(socket.recv(&mut [0; 9]).unwrap(), 1);
        for fd in [writer.as_raw_fd(), stream.as_raw_fd()] {
            assert_eq!(call!(c.write(fd, null(), 0)), Ok(0));
            assert_eq!(call!(c.writev(fd, null(), 0)), Ok(0));
            assert_eq!(call!(c.writev(fd, empty, 3)), Ok(0));
        }
        // The first is a datagram, and the second is not.
        assert_eq!(call!(c.write(socket.as_raw_fd(), null(), 0)), Ok(0));
        assert_eq!(call!(c.writev(socket.as_raw_fd(), empty, 3)), Ok(0));
        socket.send(b"x").unwrap();
        assert_eq!(peer.recv(&mut [0; 9]).unwrap(), 0);
        assert_eq!(peer.recv(&mut [0; 9]).unwrap(), 1);
    });
}

#[test]
fn sockets_are_read_and_written() {
    alike(|c| {
        let (stream, mut end) = tcp_pair();
        let fd = stream.as_raw_fd();
        let mut bytes = noise(8 << 20, 6);
        let wanted = bytes.clone();
        let len = bytes.len();
        let copy = stream.try_clone().unwrap();
        let echo = later(move || {
            let mut got = vec![0; len];
            end.read_exact(&mut got).unwrap();
            end.write_all(b"one").unwrap();
            until_read(&copy);
            end.write_all(b"two").unwrap();
            (got, end)
        });
        let mut pieces: Vec<_> = bytes.chunks_mut(12_345).collect();
        let vecs = iovecs(&mut pieces);
        let count = vecs.len() as c_int;
        assert_eq!(call!(c.writev(fd, vecs.as_ptr(), count)), Ok(len as i64));
        let mut bufs = [[0u8; 2], [0; 2]];
        let vecs = iovecs(&mut bufs);
        assert_eq!(call!(c.readv(fd, vecs.as_ptr(), 2)), Ok(3));
        assert_eq!(call!(c.read(fd, vecs[0].iov_base, 2)), Ok(2));
        assert_eq!(bufs, [*b"tw", *b"e\0"]);
        let (got, _end) = echo.join().unwrap();
        assert_same_bytes(&got, &wanted);
        assert_eq!(call!(c.read(fd, bufs[0].as_mut_ptr().cast(), 2)), Ok(1));
        set_socket_timeout(&stream, SO_RCVTIMEO, ms(30));
        let begin = Instant::now();
        let read = call!(c.read(fd, bufs[0].as_mut_ptr().cast(), 2));
        assert_eq!(read, Err(EAGAIN));
        assert!(begin.elapsed() >= ms(30));
        stream.set_nonblocking(true).unwrap();
        let read = call!(c.read(fd, bufs[0].as_mut_ptr().cast(), 2));
        assert_eq!(read, Err(EAGAIN));
    });
}

#[test]
fn a_write_fails_without_a_reader() {
    with_pipes(|c, reader, writer| {
        // The runtime of Rust ignores the signal.
        let (fd, buf) = (writer.as_raw_fd(), b"x".as_ptr().cast());
        drop(reader);
        assert_eq!(call!(c.write(fd, buf, 1)), Err(EPIPE));
        let (stream, end) = UnixStream::pair().unwrap();
        drop(end);
        assert_eq!(call!(c.write(stream.as_raw_fd(), buf, 1)), Err(EPIPE));
    });
}

#[test]
fn a_write_that_waits_ends_when_the_reader_goes() {
    with_pipes(|c, reader, writer| {
        let copy = writer.try_clone().unwrap();
        let closer = later(move || {
            until_full(&copy);
            drop(reader);
        });
        let bytes = vec![0u8; 1 << 20];
        let fd = writer.as_raw_fd();
        let written = call!(c.write(fd, bytes.as_ptr().cast(), bytes.len()));
        assert_eq!(written, Ok(1 << 16));
        closer.join().unwrap();
        let written = call!(c.write(fd, bytes.as_ptr().cast(), bytes.len()));
        assert_eq!(written, Err(EPIPE));
    });
}

#[test]
fn files_are_read_and_written_as_ever() {
    alike(|c| {
        let dir = Scratch::new();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(dir.join("file"))
            .unwrap();
        let fd = file.as_raw_fd();
        let mut bufs = [*b"one", *b"two"];
        let vecs = iovecs(&mut bufs);
        let list = vecs.as_ptr();
        assert_eq!(call!(c.write(fd, vecs[0].iov_base, 3)), Ok(3));
        assert_eq!(call!(c.writev(fd, list, 2)), Ok(6));
        assert_eq!(call!(c.pwritev2(fd, list, 1, 100, 0)), Ok(3));
        assert_eq!(call!(c.pwritev64v2(fd, list, 1, -1, 0)), Ok(3));
        let mut all = [0; 12];
        assert_eq!(file.read_at(&mut all, 0).unwrap(), 12);
        assert_eq!(&all, b"oneonetwoone");
        assert_eq!(call!(c.preadv2(fd, list, 1, 6, 0)), Ok(3));
        assert_eq!(call!(c.read(fd, vecs[1].iov_base, 3)), Ok(3));
        assert_eq!(bufs, [*b"two", [0; 3]]);
        let null = File::open("/dev/null").unwrap();
        let mut byte = 0u8;
        assert_eq!(
            call!(c.read(null.as_raw_fd(), (&raw mut byte).cast(), 1)),
            Ok(0)
        );
        let zero = File::open("/dev/zero").unwrap();
        assert_eq!(
            call!(c.read(zero.as_raw_fd(), (&raw mut byte).cast(), 1)),
            Ok(1)
        );
    });
}

/// The two ends of a terminal.
fn terminal() -> (OwnedFd, OwnedFd) {
    let (mut master, mut terminal) = (0, 0);
    // SAFETY: the pointers are to numbers, or null.
    let opened = unsafe {
        libc::openpty(
            &raw mut master,
            &raw mut terminal,
            null_mut(),
            null(),
            null(),
        )
    };
    assert_eq!(opened, 0);
    (owned(master), owned(terminal))
}

#[test]
fn a_terminal_is_read_by_lines() {
    alike(|c| {
        let (master, terminal) = terminal();
        let mut typist = File::from(master.try_clone().unwrap());
        let copy = terminal.try_clone().unwrap();
        let typist = later(move || {
            typist.write_all(b"a li").unwrap();
            pause();
            typist.write_all(b"ne\nand").unwrap();
            until_read(&copy);
            typist.write_all(b"\n").unwrap();
        });
        let mut buf = [0u8; 100];
        let (fd, to) = (terminal.as_raw_fd(), buf.as_mut_ptr().cast());
        assert_eq!(call!(c.read(fd, to, 100)), Ok(7));
        assert_eq!(&buf[..7], b"a line\n");
        assert_eq!(call!(c.read(fd, to, 100)), Ok(4));
        typist.join().unwrap();
        assert_eq!(call!(c.write(fd, b"out".as_ptr().cast(), 3)), Ok(3));
        // What was typed is echoed.
        let mut shown = Vec::new();
        while !shown.ends_with(b"out") {
            let n = call!(c.read(master.as_raw_fd(), to, 100)).unwrap() as usize;
            shown.extend(&buf[..n]);
        }
        assert_eq!(shown, b"a line\r\nand\r\nout");
        drop(terminal);
        assert_eq!(call!(c.read(master.as_raw_fd(), to, 100)), Err(libc::EIO));
    });
}

#[test]
fn an_eventfd_counts_and_waits() {
    alike(|c| {
        // SAFETY: the call takes any numbers.
        let counter = owned(unsafe { libc::eventfd(0, 0) });
        let fd = counter.as_raw_fd();
        let mut count = 0u64;
        let number = (&raw mut count).cast();
        let poster = later({
            let mut counter = File::from(counter.try_clone().unwrap());
            move || {
                counter.write_all(&7u64.to_ne_bytes()).unwrap();
                until_read(&counter);
                counter.write_all(&3u64.to_ne_bytes()).unwrap();
            }
        });
        assert_eq!(call!(c.read(fd, number, 8)), Ok(8));
        assert_eq!(count, 7);
        assert_eq!(call!(c.read(fd, number, 7)), Err(EINVAL));
        poster.join().unwrap();
        assert_eq!(call!(c.read(fd, number, 8)), Ok(8));
        assert_eq!(count, 3);

        // It is as full as it can be.
        let full = u64::MAX - 1;
        assert_eq!(call!(c.write(fd, (&raw const full).cast(), 8)), Ok(8));
        let reader = later({
            let mut counter = File::from(counter.try_clone().unwrap());
            move || {
                let mut count = [0; 8];
                counter.read_exact(&mut count).unwrap();
                u64::from_ne_bytes(count)
            }
        });
        let (one, too_large) = (1u64, u64::MAX);
        assert_eq!(call!(c.write(fd, (&raw const one).cast(), 8)), Ok(8));
        assert_eq!(reader.join().unwrap(), full);
        assert_eq!(
            call!(c.write(fd, (&raw const too_large).cast(), 8)),
            Err(EINVAL)
        );
        set_nonblocking(&counter, true);
        assert_eq!(call!(c.read(fd, number, 8)), Ok(8));
        assert_eq!(call!(c.read(fd, number, 8)), Err(EAGAIN));
    });
}

#[test]
fn a_write_to_a_terminal_goes_on_while_others_run() {
    on_coroutine(|c| {
        let (master, terminal) = terminal();
        let bytes = vec![b'x'; 1 << 20];
        let len = bytes.len();
        let reader = greenroom::spawn(move || {
            let mut got = vec![0; len];
            File::from(master).read_exact(&mut got).unwrap();
            got
        });
        let (fd, from) = (terminal.as_raw_fd(), bytes.as_ptr().cast());
        assert_eq!(call!(c.write(fd, from, len)), Ok(len as i64));
        assert_same_bytes(&reader.join().unwrap(), &bytes);

        // A terminal that is almost full.
        let (master, terminal) = self::terminal();
        let fd = terminal.as_raw_fd();
        set_nonblocking(&terminal, true);
        while call!(c.write(fd, from, 1000)).is_ok() {}
        let mut some = [0; 100];
        let some = some.as_mut_ptr().cast();
        assert!(call!(c.read(master.as_raw_fd(), some, 100)).is_ok());
        set_nonblocking(&terminal, false);
        let reader = greenroom::spawn(move || io::copy(&mut File::from(master), &mut io::sink()));
        assert_eq!(call!(c.write(fd, from, 1 << 16)), Ok(1 << 16));
        drop(terminal);
        // It ends by an error, as the last one at the other end has gone.
        reader.join().unwrap().unwrap_err();
    });
}

#[test]
fn a_write_that_an_eventfd_has_no_room_for_parks() {
    on_coroutine(|c| {
        // SAFETY: the call takes any numbers.
        let counter = owned(unsafe { libc::eventfd(0, 0) });
        let fd = counter.as_raw_fd();
        let numbers = [u64::MAX - 10, 1, 20].map(u64::to_ne_bytes);
        let mut writes = numbers.iter();
        let mut write = || call!(c.write(fd, writes.next().unwrap().as_ptr().cast(), 8));
        assert_eq!((write(), write()), (Ok(8), Ok(8)));
        let mut file = File::from(counter.try_clone().unwrap());
        let reader = greenroom::spawn(move || {
            let mut count = [0; 8];
            file.read_exact(&mut count).unwrap();
            u64::from_ne_bytes(count)
        });
        assert_eq!(write(), Ok(8));
        assert_eq!(reader.join().unwrap(), u64::MAX - 9);
        let unaligned = [1u8; 9];
        let number = unaligned[1..].as_ptr().cast();
        assert_eq!(call!(c.write(fd, number, 8)), Ok(8));
        assert_eq!(call!(c.write(fd, nowhere(), 8)), Err(EFAULT));
    });
}

#[test]
fn an_empty_datagram_waits_for_room() {
    alike(|c| {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        sender.set_nonblocking(true).unwrap();
        let mut sent = 1;
        while sender.send(b"x").is_ok() {
            sent += 1;
        }
        sender.set_nonblocking(false).unwrap();
        let reader = later(move || {
            let receive = || receiver.recv(&mut [0; 9]).unwrap();
            (1..sent).for_each(|_| assert_eq!(receive(), 1));
            receive()
        });
        assert_eq!(call!(c.write(sender.as_raw_fd(), null(), 0)), Ok(0));
        assert_eq!(reader.join().unwrap(), 0);
    });
}

#[test]
fn a_timerfd_is_waited_for() {
    alike(|c| {
        // SAFETY: the call takes any numbers.
        let timer = owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, 0) });
        let fd = timer.as_raw_fd();
        let begin = Instant::now();
        // SAFETY: a C struct of numbers, for which all-zero bytes are valid.
        let mut times: libc::itimerspec = unsafe { mem::zeroed() };
        times.it_value.tv_nsec = 30_000_000;
        // SAFETY: the pointer is to times.
        let set = unsafe { libc::timerfd_settime(fd, 0, &raw const times, null_mut()) };
        assert_eq!(set, 0);
        let mut count = 0u64;
        assert_eq!(call!(c.read(fd, (&raw mut count).cast(), 8)), Ok(8));
        assert_eq!(count, 1);
        assert!(begin.elapsed() >= ms(30));
    });
}

#[test]
fn an_inotify_instance_tells_of_a_new_file() {
    alike(|c| {
        let dir = Scratch::new();
        let name = std::ffi::CString::new(dir.to_str().unwrap()).unwrap();
        // SAFETY: the name is a C string.
        let watcher = unsafe {
            let watcher = owned(libc::inotify_init1(0));
            let fd = watcher.as_raw_fd();
            assert!(libc::inotify_add_watch(fd, name.as_ptr(), libc::IN_CREATE) > 0);
            watcher
        };
        let path = dir.join("new");
        let maker = later(move || File::create(path).unwrap());
        let mut buf = [0u64; 100];
        let read = call!(c.read(watcher.as_raw_fd(), buf.as_mut_ptr().cast(), 800));
        assert_eq!(read, Ok(32));
        maker.join().unwrap();
    });
}

#[test]
fn a_signalfd_tells_of_a_signal() {
    alike(|c| {
        // SAFETY: the set is initialised by the first call. The signal is blocked, and goes to this thread only.
        let (signals, before) = unsafe {
            let (mut set, mut before) = (mem::zeroed(), mem::zeroed());
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGUSR2);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before);
            (owned(libc::signalfd(-1, &raw const set, 0)), before)
        };
        // SAFETY: the thread waits below.
        let this_thread = unsafe { libc::pthread_self() } as usize;
        let sender = later(move || {
            // SAFETY: as above.
            let sent = unsafe { libc::pthread_kill(this_thread as _, libc::SIGUSR2) };
            assert_eq!(sent, 0);
        });
        let mut info = [0u32; 32];
        let read = call!(c.read(signals.as_raw_fd(), info.as_mut_ptr().cast(), 128));
        assert_eq!((read, info[0]), (Ok(128), libc::SIGUSR2 as u32));
        sender.join().unwrap();
        // SAFETY: the set was filled above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, null_mut()) };
    });
}

#[test]
fn duplicates_are_read_independently() {
    alike(|c| {
        let (reader, mut writer) = io::pipe().unwrap();
        let other = reader.try_clone().unwrap();
        let writer = later(move || {
            writer.write_all(b"one").unwrap();
            pause();
            writer.write_all(b"two").unwrap();
        });
        let mut buf = [0u8; 3];
        let to = buf.as_mut_ptr().cast();
        assert_eq!(call!(c.read(reader.as_raw_fd(), to, 3)), Ok(3));
        // The registration of a closed one does not disturb the others.
        drop(reader);
        assert_eq!(call!(c.read(other.as_raw_fd(), to, 3)), Ok(3));
        assert_eq!(&buf, b"two");
        writer.join().unwrap();
        assert_eq!(call!(c.read(other.as_raw_fd(), to, 3)), Ok(0));
    });
}

#[test]
fn a_number_may_belong_to_another_file_by_the_next_call() {
    alike(|c| {
        let (reader, mut writer) = io::pipe().unwrap();
        let (stays, mut writer_of_other) = io::pipe().unwrap();
        let fd = reader.as_raw_fd();
        let mut buf = [0u8; 9];
        let to = buf.as_mut_ptr().cast();
        let mut first = writer.try_clone().unwrap();
        let first = later(move || first.write_all(b"1").unwrap());
        assert_eq!(call!(c.read(fd, to, 9)), Ok(1));
        first.join().unwrap();
        // The file stays open under another number.
        let duplicate = reader.try_clone().unwrap();
        // SAFETY: both are open, and `reader` owns the number.
        assert_eq!(unsafe { libc::dup2(stays.as_raw_fd(), fd) }, fd);
        let second = later(move || {
            writer.write_all(b"to the duplicate").unwrap();
            pause();
            writer_of_other.write_all(b"two").unwrap();
            writer
        });
        assert_eq!(call!(c.read(fd, to, 9)), Ok(3));
        assert_eq!(&buf[..3], b"two");
        let _writer = second.join().unwrap();
        assert_eq!(call!(c.read(duplicate.as_raw_fd(), to, 2)), Ok(2));
        assert_eq!(&buf[..2], b"to");
    });
}

#[test]
fn standard_descriptors_do_not_park() {
    if crate::util::role().is_none() {
        let child = crate::util::again!("standard_descriptors_do_not_park", "alone");
        return assert!({ child }.status().unwrap().success());
    }
    let (reader, writer) = io::pipe().unwrap();
    let replaced = Replaced::new(0, reader.as_raw_fd());
    let writer_of_thread: PipeWriter = writer.try_clone().unwrap();
    let reader_of_pipe: PipeReader = reader;
    on_coroutine(|c| {
        let has_run = std::rc::Rc::new(std::cell::Cell::new(false));
        let other = greenroom::spawn_local({
            let has_run = has_run.clone();
            move || has_run.set(true)
        });
        let writer = std::thread::spawn(move || {
            std::thread::sleep(ms(30));
            (&writer_of_thread).write_all(b"in").unwrap();
        });
        let mut buf = [0u8; 9];
        assert_eq!(call!(c.read(0, buf.as_mut_ptr().cast(), 9)), Ok(2));
        assert!(!has_run.get(), "the read has kept the thread");
        other.join().unwrap();
        writer.join().unwrap();
    });
    drop((replaced, reader_of_pipe, writer));
}
