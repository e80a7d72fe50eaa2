//! recvmsg(2), sendmsg(2), and their relatives for many messages.

use std::io::{Read, Write};
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::ptr::null_mut;
use std::time::Instant;

use libc::{
    EAGAIN, EBADF, ECONNREFUSED, EFAULT, EINVAL, EMSGSIZE, ENOTSOCK, EPIPE, MSG_DONTWAIT,
    MSG_NOSIGNAL, MSG_TRUNC, MSG_WAITALL, MSG_WAITFORONE, SO_RCVTIMEO, SO_SNDTIMEO, c_int, iovec,
    mmsghdr, msghdr, timespec,
};

use crate::calls::{Calls, alike, call, later, nowhere, on_coroutine, pause};
use crate::util::{
    assert_same_bytes, in_one_of_ten, iovecs, ms, noise, set_socket_timeout, tcp_pair, udp_pair,
    until_read,
};

/// A message for these buffers.
fn message(bufs: &mut [iovec]) -> msghdr {
    // SAFETY: a C struct of numbers and pointers, for which all-zero bytes are valid.
    let mut message: msghdr = unsafe { mem::zeroed() };
    message.msg_iov = bufs.as_mut_ptr();
    message.msg_iovlen = bufs.len();
    message
}

/// The bytes, cut into pieces of many sizes. Some are empty.
fn pieces(bytes: &mut [u8]) -> Vec<iovec> {
    let mut pieces: Vec<&mut [u8]> = Vec::new();
    let mut rest = bytes;
    for i in 0..900 {
        let (piece, after) = rest.split_at_mut(rest.len().min(i * 37 % 20_000));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    iovecs(&mut pieces)
}

#[test]
fn a_message_is_scattered_over_buffers() {
    alike(|c| {
        let (socket, sender) = UnixDatagram::pair().unwrap();
        let sender = later(move || {
            sender.send(b"0123456789").unwrap();
            sender.send(b"0123456789").unwrap();
        });
        let mut bufs = [vec![0; 3], vec![], vec![0; 4]];
        let mut vecs = iovecs(&mut bufs);
        let mut message = message(&mut vecs);
        for (flags, len) in [(0, 7), (MSG_TRUNC, 10)] {
            let received = call!(c.recvmsg(socket.as_raw_fd(), &raw mut message, flags));
            assert_eq!(received, Ok(len));
            assert_eq!(message.msg_flags & MSG_TRUNC, MSG_TRUNC);
            assert_eq!(bufs, [&b"012"[..], b"", b"3456"]);
        }
        sender.join().unwrap();
    });
}

#[test]
fn messages_do_not_wait_where_that_is_asked_for() {
    alike(|c| {
        let (socket, _peer) = udp_pair();
        let fd = socket.as_raw_fd();
        let mut buf = [[0u8; 10]];
        let mut vecs = iovecs(&mut buf);
        let mut message = message(&mut vecs);
        let mut messages = [mmsghdr {
            msg_hdr: message,
            msg_len: 0,
        }];
        let mut receive = |flags| {
            let many = messages.as_mut_ptr();
            [
                call!(c.recvmsg(fd, &raw mut message, flags)),
                call!(c.recvmsg(fd, &raw mut message, flags | MSG_WAITALL)),
                call!(c.recvmmsg(fd, many, 1, flags, null_mut())),
            ]
        };
        assert_eq!(receive(MSG_DONTWAIT), [Err(EAGAIN); 3]);
        set_socket_timeout(&socket, SO_RCVTIMEO, ms(20));
        assert_eq!(receive(0), [Err(EAGAIN); 3]);
        set_socket_timeout(&socket, SO_RCVTIMEO, ms(0));
        socket.set_nonblocking(true).unwrap();
        assert_eq!(receive(0), [Err(EAGAIN); 3]);
    });
}

#[test]
fn many_buffers_are_sent_and_received_completely() {
    alike(|c| {
        let (stream, end) = UnixStream::pair().unwrap();
        let mut bytes = noise(10 << 20, 1);
        let wanted = bytes.clone();
        let mut end_too = end.try_clone().unwrap();
        let len = bytes.len();
        // Reads and sends it back, in turns that do not fit the buffers.
        let echo = later(move || {
            let mut got = vec![0; len];
            for part in got.chunks_mut(777_777) {
                end_too.read_exact(part).unwrap();
            }
            for part in got.chunks(333_333) {
                end_too.write_all(part).unwrap();
            }
        });
        let mut vecs = pieces(&mut bytes);
        let sent = call!(c.sendmsg(stream.as_raw_fd(), &message(&mut vecs), 0));
        assert_eq!(sent, Ok(len as i64));
        bytes.fill(0);
        let mut vecs = pieces(&mut bytes);
        let mut message = message(&mut vecs);
        let received = call!(c.recvmsg(stream.as_raw_fd(), &raw mut message, MSG_WAITALL));
        assert_eq!(received, Ok(len as i64));
        echo.join().unwrap();
        assert_same_bytes(&bytes, &wanted);
        drop(end);
    });
}

#[test]
fn a_message_that_was_sent_in_part_is_cut_there() {
    alike(|c| {
        let (stream, mut end) = tcp_pair();
        set_socket_timeout(&stream, SO_SNDTIMEO, ms(30));
        let mut bytes = noise(16 << 20, 1);
        let mut vecs = pieces(&mut bytes);
        let message = message(&mut vecs);
        let sent = call!(c.sendmsg(stream.as_raw_fd(), &raw const message, 0)).unwrap() as usize;
        assert!(sent > 0 && sent < bytes.len(), "{sent}");
        drop(stream);
        let mut got = Vec::new();
        end.read_to_end(&mut got).unwrap();
        assert_same_bytes(&got, &bytes[..sent]);
    });
}

#[test]
fn a_send_that_does_not_copy_is_one_call_of_the_kernel() {
    on_coroutine(|c| {
        let (client, mut server) = tcp_pair();
        let fd = client.as_raw_fd();
        let one: c_int = 1;
        // SAFETY: the option takes a number, and the length is that of one.
        let set = unsafe {
            let (level, option) = (libc::SOL_SOCKET, libc::SO_ZEROCOPY);
            libc::setsockopt(fd, level, option, (&raw const one).cast(), 4)
        };
        assert_eq!(set, 0);
        let reader = later(move || std::io::copy(&mut server, &mut std::io::sink()));
        let bytes = vec![0u8; 16 << 20];
        let (mut sent, mut calls) = (0, 0);
        while sent < bytes.len() {
            let (rest, len) = (bytes[sent..].as_ptr().cast(), bytes.len() - sent);
            match call!(c.send(fd, rest, len, libc::MSG_ZEROCOPY)) {
                Ok(part) => (sent, calls) = (sent + part as usize, calls + 1),
                // A user may lock less memory than that.
                Err(libc::ENOBUFS) if calls == 0 => return,
                // Of the memory for notes.
                Err(libc::ENOBUFS) => pause(),
                failed => panic!("{failed:?}"),
            }
        }
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), bytes.len() as u64);
        // Each call of the kernel has a number.
        let mut last = None;
        while last != Some(calls - 1) {
            let mut control = [0u64; 16];
            let mut note = message(&mut []);
            note.msg_control = control.as_mut_ptr().cast();
            note.msg_controllen = size_of_val(&control);
            match call!(c.recvmsg(fd, &raw mut note, libc::MSG_ERRQUEUE)) {
                Ok(_) => {
                    // SAFETY: the call has filled the message with one note, which has such an error.
                    let error = unsafe {
                        let data = libc::CMSG_DATA(libc::CMSG_FIRSTHDR(&raw const note));
                        data.cast::<libc::sock_extended_err>().read_unaligned()
                    };
                    assert!(error.ee_data < calls, "{} of {calls}", error.ee_data);
                    last = last.max(Some(error.ee_data));
                }
                Err(EAGAIN) => pause(),
                failed => panic!("{failed:?}"),
            }
        }
    });
}

#[test]
fn bad_messages_are_refused() {
    alike(|c| {
        let (socket, peer) = UnixDatagram::pair().unwrap();
        peer.send(b"bytes").unwrap();
        let fd = socket.as_raw_fd();
        let mut buf = [[0u8; 10]];
        let mut vecs = iovecs(&mut buf);
        let mut good = message(&mut vecs);
        let file = std::fs::File::open("/dev/null").unwrap();
        for (fd, error) in [(-1, EBADF), (99_999, EBADF), (file.as_raw_fd(), ENOTSOCK)] {
            let mut messages = mmsghdr {
                msg_hdr: good,
                msg_len: 0,
            };
            let many = &raw mut messages;
            let results = [
                call!(c.recvmsg(fd, &raw mut good, 0)),
                call!(c.sendmsg(fd, &raw const good, 0)),
                call!(c.recvmmsg(fd, many, 1, 0, null_mut())),
                call!(c.recvmmsg(fd, many, 0, 0, null_mut())),
                call!(c.sendmmsg(fd, many, 1, 0)),
                call!(c.sendmmsg(fd, many, 0, 0)),
            ];
            assert_eq!(results, [Err(error); 6], "{fd}");
        }
        for flags in [0, MSG_WAITALL] {
            assert_eq!(call!(c.recvmsg(fd, nowhere(), flags)), Err(EFAULT));
            let mut bad = good;
            bad.msg_iov = nowhere();
            assert_eq!(call!(c.recvmsg(fd, &raw mut bad, flags)), Err(EFAULT));
            let mut bad = good;
            bad.msg_iovlen = 1025;
            assert_eq!(call!(c.recvmsg(fd, &raw mut bad, flags)), Err(EMSGSIZE));
            assert_eq!(call!(c.sendmsg(fd, &raw const bad, 0)), Err(EMSGSIZE));
            bad.msg_iovlen = usize::MAX;
            assert_eq!(call!(c.recvmsg(fd, &raw mut bad, flags)), Err(EMSGSIZE));
        }
        assert_eq!(call!(c.sendmsg(fd, nowhere(), 0)), Err(EFAULT));
        assert_eq!(call!(c.sendmmsg(fd, nowhere(), 1, 0)), Err(EFAULT));
        let received = call!(c.recvmmsg(fd, nowhere(), 1, 0, null_mut()));
        assert_eq!(received, Err(EFAULT));
        let mut none = good;
        none.msg_iovlen = 0;
        assert_eq!(call!(c.recvmsg(fd, &raw mut none, 0)), Ok(0));
    });
}

/// Sends the descriptor with a byte.
fn send_with_descriptor(socket: &UnixStream, descriptor: &impl AsRawFd) {
    let mut byte = [[b'x']];
    let mut vecs = iovecs(&mut byte);
    let mut message = message(&mut vecs);
    let mut control = [0u64; 8];
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: the control buffer has room for one header and one number.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(4) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as _;
        let data = libc::CMSG_DATA(header).cast::<c_int>();
        data.write_unaligned(descriptor.as_raw_fd());
        libc::sendmsg(socket.as_raw_fd(), &raw const message, 0)
    };
    assert_eq!(sent, 1);
}

#[test]
fn descriptors_come_with_the_message() {
    alike(|c| {
        for (before, flags, len) in [(0, 0, 1), (3, MSG_WAITALL, 4)] {
            let (socket, mut sender) = UnixStream::pair().unwrap();
            let (reader, mut writer) = std::io::pipe().unwrap();
            let sender = later(move || {
                if before > 0 {
                    sender.write_all(&vec![b'x'; before]).unwrap();
                    pause();
                }
                send_with_descriptor(&sender, &reader);
                sender
            });
            let mut buf = [[0u8; 100]];
            let mut vecs = iovecs(&mut buf);
            let mut message = message(&mut vecs);
            let mut control = [0u64; 8];
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control);
            let received = call!(c.recvmsg(socket.as_raw_fd(), &raw mut message, flags));
            assert_eq!(received, Ok(len));
            assert_eq!(message.msg_flags & libc::MSG_CTRUNC, 0);
            // SAFETY: the kernel has filled the message.
            let mut reader = unsafe {
                let header = libc::CMSG_FIRSTHDR(&raw const message);
                assert!(!header.is_null(), "no descriptor");
                let data = libc::CMSG_DATA(header).cast::<c_int>();
                std::fs::File::from(OwnedFd::from_raw_fd(data.read_unaligned()))
            };
            sender.join().unwrap();
            writer.write_all(b"pipe").unwrap();
            drop(writer);
            let mut got = String::new();
            reader.read_to_string(&mut got).unwrap();
            assert_eq!(got, "pipe");
        }
    });
}

/// Receives up to five messages at once.
fn receive_five(
    c: &Calls,
    fd: c_int,
    flags: c_int,
    timeout: *mut timespec,
) -> Result<Vec<Vec<u8>>, c_int> {
    let mut bufs = [[0u8; 10]; 5];
    let mut vecs = iovecs(&mut bufs);
    let mut messages: Vec<_> = vecs
        .chunks_mut(1)
        .map(|vec| mmsghdr {
            msg_hdr: message(vec),
            msg_len: 99,
        })
        .collect();
    let received = call!(c.recvmmsg(fd, messages.as_mut_ptr(), 5, flags, timeout))? as usize;
    let lens = messages[..received].iter().map(|m| m.msg_len as usize);
    assert!(messages[received..].iter().all(|m| m.msg_len == 99));
    Ok(lens
        .zip(bufs)
        .map(|(len, buf)| buf[..len].to_vec())
        .collect())
}

fn time(millis: u64) -> timespec {
    timespec {
        tv_sec: (millis / 1000) as _,
        tv_nsec: (millis % 1000 * 1_000_000) as _,
    }
}

#[test]
fn many_messages_are_received_at_once() {
    alike(|c| {
        let (socket, sender) = UnixDatagram::pair().unwrap();
        let fd = socket.as_raw_fd();
        let send = |text: &'static [&str], sender: UnixDatagram| {
            let copy = socket.try_clone().unwrap();
            later(move || {
                for text in text {
                    sender.send(text.as_bytes()).unwrap();
                    until_read(&copy);
                }
                sender
            })
        };
        let writer = send(&["a", "bb", "", "dddd", "eeeee"], sender);
        let received = receive_five(c, fd, 0, null_mut()).unwrap();
        assert_eq!(received, [&b"a"[..], b"bb", b"", b"dddd", b"eeeee"]);

        // It waits for one, and takes what is there.
        let writer = send(&["one"], writer.join().unwrap());
        let received = receive_five(c, fd, MSG_WAITFORONE, null_mut()).unwrap();
        assert_eq!(received, [b"one"]);
        let writer = send(&["two"], writer.join().unwrap());
        let received = receive_five(c, fd, MSG_WAITFORONE, null_mut()).unwrap();
        assert_eq!(received, [b"two"]);
        let sender = writer.join().unwrap();
        sender.send(b"1").unwrap();
        sender.send(b"2").unwrap();
        let received = receive_five(c, fd, MSG_WAITFORONE, null_mut()).unwrap();
        assert_eq!(received, [b"1", b"2"]);
        assert_eq!(receive_five(c, fd, MSG_DONTWAIT, null_mut()), Err(EAGAIN));

        // The socket's own timeout ends the wait for the third. On a busy machine it may be over before.
        set_socket_timeout(&socket, SO_RCVTIMEO, ms(300));
        let mut sender = Some(sender);
        in_one_of_ten(|| {
            let writer = send(&["one", "two"], sender.take().unwrap());
            let mut all = Vec::new();
            let mut receives = 0;
            while all.len() < 2 {
                receives += 1;
                match receive_five(c, fd, 0, null_mut()) {
                    Ok(received) => all.extend(received),
                    Err(errno) => assert_eq!(errno, EAGAIN),
                }
            }
            assert_eq!(all, [b"one", b"two"]);
            sender = Some(writer.join().unwrap());
            (receives == 1)
                .then_some(())
                .ok_or_else(|| format!("{receives} receives"))
        });
    });
}

#[test]
fn the_time_for_many_messages_is_looked_at_after_each() {
    alike(|c| {
        let (socket, sender) = UnixDatagram::pair().unwrap();
        let fd = socket.as_raw_fd();
        for text in ["1", "2", "3"] {
            sender.send(text.as_bytes()).unwrap();
        }
        let mut none = time(0);
        let received = receive_five(c, fd, 0, &raw mut none).unwrap();
        assert_eq!(received, [b"1"]);
        let writer = later(move || {
            for text in ["4", "5", "6"] {
                sender.send(text.as_bytes()).unwrap();
                pause();
            }
            sender
        });
        let mut short = time(35);
        let begin = Instant::now();
        let received = receive_five(c, fd, 0, &raw mut short).unwrap();
        // The time was over when the last of them came, unless this was late to begin.
        assert!(received.len() >= 3, "{received:?}");
        assert!(received.len() == 5 || begin.elapsed() >= ms(35));
        let sender = writer.join().unwrap();
        for text in ["1", "2", "3", "4", "5"] {
            sender.send(text.as_bytes()).unwrap();
        }
        socket.set_nonblocking(true).unwrap();
        while receive_five(c, fd, 0, null_mut()).is_ok_and(|received| received.len() == 5) {}
        for text in ["1", "2", "3", "4", "5"] {
            sender.send(text.as_bytes()).unwrap();
        }
        socket.set_nonblocking(false).unwrap();
        // What is left of the time is told.
        let mut long = time(10_000);
        assert_eq!(receive_five(c, fd, 0, &raw mut long).unwrap().len(), 5);
        assert!((1..10).contains(&long.tv_sec) && long.tv_nsec < 1_000_000_000);
        let mut invalid = timespec {
            tv_sec: 0,
            tv_nsec: 1_000_000_000,
        };
        let refused = receive_five(c, fd, 0, &raw mut invalid);
        assert_eq!(refused, Err(EINVAL));
    });
}

#[test]
fn an_error_after_some_messages_is_told_by_the_next_call() {
    alike(|c| {
        let (socket, peer) = udp_pair();
        let fd = socket.as_raw_fd();
        let again = socket.try_clone().unwrap();
        let writer = later(move || {
            peer.send(b"1").unwrap();
            pause();
            drop(peer);
            again.send(b"x").unwrap();
        });
        let mut told = [(); 2].map(|()| receive_five(c, fd, 0, null_mut()));
        // An error that is there before the first call comes first.
        told.sort_by_key(Result::is_err);
        assert_eq!(told, [Ok(vec![b"1".to_vec()]), Err(ECONNREFUSED)]);
        writer.join().unwrap();
    });
}

#[test]
fn many_messages_are_sent_at_once() {
    alike(|c| {
        let (socket, peer) = UnixDatagram::pair().unwrap();
        let reader = later(move || {
            let mut buf = [0; 10];
            (0..1024).for_each(|i| {
                let n = peer.recv(&mut buf).unwrap();
                assert_eq!(buf[..n], u16::to_ne_bytes(i));
            });
            peer
        });
        let mut bufs: Vec<_> = (0..1500u16).map(u16::to_ne_bytes).collect();
        let mut vecs = iovecs(&mut bufs);
        let mut messages: Vec<_> = vecs
            .chunks_mut(1)
            .map(|vec| mmsghdr {
                msg_hdr: message(vec),
                msg_len: 0,
            })
            .collect();
        let many = messages.as_mut_ptr();
        // The kernel takes no more at once.
        assert_eq!(
            call!(c.sendmmsg(socket.as_raw_fd(), many, 1500, 0)),
            Ok(1024)
        );
        assert!(messages[..1024].iter().all(|m| m.msg_len == 2));
        let peer = reader.join().unwrap();
        // Some have room.
        let flags = MSG_DONTWAIT;
        let sent = call!(c.sendmmsg(socket.as_raw_fd(), many, 1000, flags)).unwrap();
        assert!(sent > 0 && sent < 1000, "{sent}");
        drop(peer);
        let flags = MSG_NOSIGNAL;
        let refused = call!(c.sendmmsg(socket.as_raw_fd(), many, 1000, flags));
        assert!(
            refused == Err(ECONNREFUSED) || refused == Err(EPIPE),
            "{refused:?}"
        );
    });
}
