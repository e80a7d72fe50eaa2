//! recv(2), send(2) and their relatives for one message.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use greenroom::shims::thread;
use libc::{
    EAGAIN, EBADF, ECONNREFUSED, ECONNRESET, EFAULT, EINTR, EINVAL, ENOTSOCK, EPIPE, MSG_DONTWAIT,
    MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, SO_RCVTIMEO, SO_SNDTIMEO, c_int,
    c_void, iovec,
};

use crate::calls::{Calls, alike, call, later, nowhere, on_coroutine, pause};
use crate::util::{
    Scratch, assert_same_bytes, leave_timestamp, ms, noise, reset_on_close, set_socket_timeout,
    tcp_pair, udp_pair, until_full, until_read,
};

#[test]
fn a_receive_returns_what_comes_first() {
    alike(|c| {
        let (stream, mut end) = UnixStream::pair().unwrap();
        let fd = stream.as_raw_fd();
        let copy = stream.try_clone().unwrap();
        let writer = later(move || {
            for text in [b"one".as_slice(), b"two!", b"three"] {
                end.write_all(text).unwrap();
                until_read(&copy);
            }
        });
        let mut buf = [0u8; 100];
        assert_eq!(call!(c.recv(fd, buf.as_mut_ptr().cast(), 100, 0)), Ok(3));
        assert_eq!(&buf[..3], b"one");
        let received =
            call!(c.recvfrom(fd, buf.as_mut_ptr().cast(), 100, 0, null_mut(), null_mut()));
        assert_eq!(received, Ok(4));
        assert_eq!(&buf[..4], b"two!");
        let received = call!(c.__recv_chk(fd, buf.as_mut_ptr().cast(), 100, 100, 0));
        assert_eq!(received, Ok(5));
        assert_eq!(&buf[..5], b"three");
        writer.join().unwrap();
        assert_eq!(call!(c.recv(fd, buf.as_mut_ptr().cast(), 100, 0)), Ok(0));
    });
}

#[test]
fn a_receive_tells_where_the_datagram_came_from() {
    alike(|c| {
        let (socket, sender) = udp_pair();
        let port = sender.local_addr().unwrap().port();
        let sender = later(move || sender.send(b"datagram").unwrap());
        // SAFETY: all-zero is a valid `sockaddr_in`.
        let mut from: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        let mut len = size_of_val(&from) as libc::socklen_t;
        let mut buf = [0u8; 100];
        let received = call!(c.__recvfrom_chk(
            socket.as_raw_fd(),
            buf.as_mut_ptr().cast(),
            100,
            100,
            0,
            (&raw mut from).cast(),
            &raw mut len
        ));
        assert_eq!(received, Ok(8));
        assert_eq!(&buf[..8], b"datagram");
        assert_eq!(u16::from_be(from.sin_port), port);
        assert_eq!(len as usize, size_of_val(&from));
        sender.join().unwrap();
    });
}

#[test]
fn non_blocking_mode_and_the_flag_for_it_are_respected() {
    alike(|c| {
        let (stream, _end) = UnixStream::pair().unwrap();
        let fd = stream.as_raw_fd();
        let mut buf = [0u8; 100];
        let buf = buf.as_mut_ptr().cast();
        let receive = |flags| {
            [
                call!(c.recv(fd, buf, 100, flags)),
                call!(c.recvfrom(fd, buf, 100, flags, null_mut(), null_mut())),
                call!(c.recv(fd, buf, 100, flags | MSG_WAITALL)),
                call!(c.recv(fd, buf, 100, flags | MSG_PEEK | MSG_WAITALL)),
            ]
        };
        assert_eq!(receive(MSG_DONTWAIT), [Err(EAGAIN); 4]);
        stream.set_nonblocking(true).unwrap();
        assert_eq!(receive(0), [Err(EAGAIN); 4]);
        let much = vec![0u8; 1 << 20];
        for flags in [0, MSG_DONTWAIT] {
            // Some of it, until nothing more has room.
            let mut sent = Ok(1);
            while sent.is_ok() {
                sent = call!(c.send(fd, much.as_ptr().cast(), much.len(), flags));
                assert_ne!(sent, Ok(much.len() as i64));
            }
            assert_eq!(sent, Err(EAGAIN));
            stream.set_nonblocking(false).unwrap();
        }
    });
}

#[test]
fn a_receive_of_all_waits_for_all() {
    alike(|c| {
        for peeks in [0, MSG_PEEK] {
            let (stream, mut end) = tcp_pair();
            let fd = stream.as_raw_fd();
            let writer = later(move || {
                for text in [b"one", b"two", b"six"] {
                    end.write_all(text).unwrap();
                    pause();
                }
                end
            });
            let mut buf = [0u8; 9];
            let received = call!(c.recv(fd, buf.as_mut_ptr().cast(), 9, MSG_WAITALL | peeks));
            assert_eq!(received, Ok(9));
            assert_eq!(&buf, b"onetwosix");
            let _end = writer.join().unwrap();
            stream.set_nonblocking(true).unwrap();
            let left = call!(c.recv(fd, buf.as_mut_ptr().cast(), 9, 0));
            match peeks {
                0 => assert_eq!(left, Err(EAGAIN)),
                _ => assert_eq!(left, Ok(9)),
            }
        }
    });
}

#[test]
fn a_receive_of_all_returns_a_part_at_the_end() {
    alike(|c| {
        for peeks in [0, MSG_PEEK] {
            let (stream, mut end) = UnixStream::pair().unwrap();
            let writer = later(move || {
                end.write_all(b"a part").unwrap();
                pause();
            });
            let mut buf = [0u8; 100];
            let (fd, to) = (stream.as_raw_fd(), buf.as_mut_ptr().cast());
            assert_eq!(call!(c.recv(fd, to, 100, MSG_WAITALL | peeks)), Ok(6));
            writer.join().unwrap();
            // It is the end already.
            let left = call!(c.recv(fd, to, 100, MSG_WAITALL | peeks));
            assert_eq!(left, Ok(if peeks == 0 { 0 } else { 6 }));
        }
    });
}

#[test]
fn a_receive_of_all_returns_a_part_when_the_time_of_the_socket_is_over() {
    alike(|c| {
        for peeks in [0, MSG_PEEK] {
            let (stream, mut end) = tcp_pair();
            set_socket_timeout(&stream, SO_RCVTIMEO, ms(300));
            let fd = stream.as_raw_fd();
            let mut buf = [0u8; 100];
            let to = buf.as_mut_ptr().cast();
            let receive = || call!(c.recv(fd, to, 100, MSG_WAITALL | peeks));
            let begin = Instant::now();
            // The time is so long that the call is often interrupted on a machine that stops the process.
            let none = loop {
                match receive() {
                    Err(EINTR) => {}
                    none => break none,
                }
            };
            assert_eq!(none, Err(EAGAIN));
            assert!(begin.elapsed() >= ms(300));
            let writer = later(move || {
                end.write_all(b"a part").unwrap();
                end
            });
            // On a busy machine the time may be over before it comes.
            let mut attempts = (0..10).map(|_| receive());
            let part = attempts.find(|received| !matches!(received, Err(EAGAIN | EINTR)));
            assert_eq!(part, Some(Ok(6)));
            writer.join().unwrap();
        }
    });
}

#[test]
fn a_receive_of_all_of_a_datagram_is_one_of_the_datagram() {
    alike(|c| {
        for peeks in [0, MSG_PEEK] {
            let (socket, sender) = udp_pair();
            sender.send(b"one").unwrap();
            let mut buf = [0u8; 100];
            let (fd, to) = (socket.as_raw_fd(), buf.as_mut_ptr().cast());
            assert_eq!(call!(c.recv(fd, to, 100, MSG_WAITALL | peeks)), Ok(3));
        }
    });
}

#[test]
fn a_peek_leaves_what_it_sees() {
    alike(|c| {
        let (stream, mut end) = UnixStream::pair().unwrap();
        let writer = later(move || end.write_all(b"seen").unwrap());
        let mut buf = [0u8; 100];
        let (fd, to) = (stream.as_raw_fd(), buf.as_mut_ptr().cast());
        for _ in 0..2 {
            assert_eq!(call!(c.recv(fd, to, 2, MSG_PEEK)), Ok(2));
        }
        assert_eq!(call!(c.recv(fd, to, 100, 0)), Ok(4));
        writer.join().unwrap();
    });
}

#[test]
fn a_long_datagram_is_truncated_and_its_length_told() {
    alike(|c| {
        let (socket, sender) = UnixDatagram::pair().unwrap();
        let sender = later(move || {
            for _ in 0..3 {
                sender.send(b"0123456789").unwrap();
            }
            sender
        });
        let mut buf = [0u8; 100];
        let (fd, to) = (socket.as_raw_fd(), buf.as_mut_ptr().cast());
        assert_eq!(call!(c.recv(fd, to, 4, MSG_TRUNC | MSG_PEEK)), Ok(10));
        assert_eq!(call!(c.recv(fd, to, 4, MSG_TRUNC)), Ok(10));
        assert_eq!(call!(c.recv(fd, to, 4, 0)), Ok(4));
        assert_eq!(call!(c.recv(fd, to, 0, 0)), Ok(0));
        let sender = sender.join().unwrap();
        sender.send(b"").unwrap();
        assert_eq!(call!(c.recv(fd, to, 100, 0)), Ok(0));
    });
}

#[test]
fn nothing_is_sent_and_received_at_once() {
    alike(|c| {
        let (stream, end) = tcp_pair();
        let fd = stream.as_raw_fd();
        assert_eq!(call!(c.recv(fd, null_mut(), 0, MSG_DONTWAIT)), Err(EAGAIN));
        assert_eq!(call!(c.send(fd, null(), 0, 0)), Ok(0));
        let (socket, peer) = udp_pair();
        assert_eq!(call!(c.send(socket.as_raw_fd(), null(), 0, 0)), Ok(0));
        assert_eq!(peer.recv(&mut [0; 10]).unwrap(), 0);
        drop(end);
    });
}

#[test]
fn bad_arguments_are_refused() {
    alike(|c| {
        let mut buf = [0u8; 10];
        let to = buf.as_mut_ptr().cast();
        let file = std::fs::File::open("/dev/null").unwrap();
        for (fd, error) in [(-1, EBADF), (99_999, EBADF), (file.as_raw_fd(), ENOTSOCK)] {
            let results = [
                call!(c.recv(fd, to, 10, 0)),
                call!(c.recv(fd, to, 10, MSG_WAITALL)),
                call!(c.recv(fd, to, 10, MSG_WAITALL | MSG_PEEK)),
                call!(c.recvfrom(fd, to, 10, 0, null_mut(), null_mut())),
                call!(c.send(fd, to, 10, 0)),
                call!(c.sendto(fd, to, 10, 0, null(), 0)),
            ];
            assert_eq!(results, [Err(error); 6], "{fd}");
        }
        let (stream, mut end) = UnixStream::pair().unwrap();
        end.write_all(b"bytes").unwrap();
        let fd = stream.as_raw_fd();
        for flags in [0, MSG_WAITALL, MSG_WAITALL | MSG_PEEK] {
            assert_eq!(call!(c.recv(fd, nowhere(), 10, flags)), Err(EFAULT));
        }
        assert_eq!(call!(c.send(fd, nowhere(), 10, 0)), Err(EFAULT));
        assert_eq!(call!(c.sendto(fd, to, 10, 0, nowhere(), 16)), Err(EFAULT));
        assert_eq!(call!(c.recv(fd, to, 10, 0)), Ok(5));
    });
}

#[test]
fn the_timeout_of_a_socket_ends_receives_and_sends() {
    alike(|c| {
        let (stream, mut end) = tcp_pair();
        set_socket_timeout(&stream, SO_RCVTIMEO, ms(30));
        set_socket_timeout(&stream, SO_SNDTIMEO, ms(30));
        let fd = stream.as_raw_fd();
        let mut buf = noise(16 << 20, 1);
        let begin = Instant::now();
        let received = call!(c.recv(fd, buf.as_mut_ptr().cast(), 1, 0));
        assert_eq!(received, Err(EAGAIN));
        assert!(begin.elapsed() >= ms(30));
        let sent = call!(c.send(fd, buf.as_ptr().cast(), buf.len(), 0));
        let sent = sent.expect("a part") as usize;
        assert!(sent > 0 && sent < buf.len(), "{sent}");
        assert!(begin.elapsed() >= ms(60));
        drop(stream);
        let mut got = Vec::new();
        end.read_to_end(&mut got).unwrap();
        assert_same_bytes(&got, &buf[..sent]);

        let (socket, _peer) = UnixDatagram::pair().unwrap();
        set_socket_timeout(&socket, SO_SNDTIMEO, ms(30));
        let fd = socket.as_raw_fd();
        let mut sent = Ok(1);
        while sent.is_ok() {
            sent = call!(c.send(fd, buf.as_ptr().cast(), 1, 0));
        }
        assert_eq!(sent, Err(EAGAIN));
    });
}

#[test]
fn a_send_goes_on_until_everything_is_sent() {
    alike(|c| {
        let (stream, mut end) = tcp_pair();
        let bytes = noise(8 << 20, 2);
        let reader = later(move || {
            let mut got = Vec::new();
            end.read_to_end(&mut got).unwrap();
            got
        });
        let (fd, from) = (stream.as_raw_fd(), bytes.as_ptr());
        let half = bytes.len() / 2;
        let sent = call!(c.send(fd, from.cast(), half, 0));
        assert_eq!(sent, Ok(half as i64));
        let rest = from.wrapping_add(half).cast();
        let sent = call!(c.sendto(fd, rest, bytes.len() - half, 0, null(), 0));
        assert_eq!(sent, Ok((bytes.len() - half) as i64));
        drop(stream);
        assert_same_bytes(&reader.join().unwrap(), &bytes);
    });
}

#[test]
fn a_send_moves_no_more_than_the_kernel_does_at_once() {
    const MOST: usize = 0x7fff_f000;

    on_coroutine(|c| {
        let (socket, end) = UnixStream::pair().unwrap();
        let reader = greenroom::spawn(move || {
            let (mut buf, mut received) = (vec![0; 1 << 20], 0);
            loop {
                match { &end }.read(&mut buf).unwrap() {
                    0 => return received,
                    some => received += some,
                }
            }
        });
        let len = MOST + (4 << 20);
        let (access, flags) = (
            libc::PROT_READ,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: the kernel chooses the address.
        let bytes = unsafe { libc::mmap(null_mut(), len, access, flags, -1, 0) };
        assert_ne!(bytes, libc::MAP_FAILED);
        assert_eq!(
            call!(c.send(socket.as_raw_fd(), bytes, len, 0)),
            Ok(MOST as i64)
        );
        // SAFETY: it was mapped above.
        unsafe { libc::munmap(bytes, len) };
        drop(socket);
        assert_eq!(reader.join().unwrap(), MOST);
    });
}

#[test]
fn a_datagram_waits_for_room() {
    alike(|c| {
        let (socket, peer) = UnixDatagram::pair().unwrap();
        let reader = later(move || {
            let mut buf = [0; 100];
            (0..500u32)
                .map(|_| {
                    let n = peer.recv(&mut buf).unwrap();
                    u32::from_ne_bytes(buf[..n].try_into().unwrap())
                })
                .collect::<Vec<_>>()
        });
        for i in 0..500u32 {
            let sent = call!(c.send(socket.as_raw_fd(), (&raw const i).cast(), 4, 0));
            assert_eq!(sent, Ok(4));
        }
        assert_eq!(reader.join().unwrap(), Vec::from_iter(0..500));
    });
}

#[test]
fn shutting_down_either_end_ends_a_receive() {
    alike(|c| {
        for own in [false, true] {
            let (stream, end) = tcp_pair();
            let other = stream.try_clone().unwrap();
            let closer = later(move || {
                match own {
                    false => end.shutdown(Shutdown::Write),
                    true => other.shutdown(Shutdown::Read),
                }
                .unwrap();
                end
            });
            let fd = stream.as_raw_fd();
            assert_eq!(call!(c.recv(fd, [0u8; 9].as_mut_ptr().cast(), 9, 0)), Ok(0));
            let end = closer.join().unwrap();
            // The other direction is as before.
            assert_eq!(call!(c.send(fd, b"x".as_ptr().cast(), 1, 0)), Ok(1));
            drop(end);
        }
    });
}

#[test]
fn a_datagram_socket_that_is_shut_down_ends_a_receive() {
    alike(|c| {
        let mut buf = [0u8; 9];
        let to = buf.as_mut_ptr().cast();
        for reads in [false, true] {
            let (socket, _peer) = UnixDatagram::pair().unwrap();
            let fd = socket.as_raw_fd();
            let receive = || match reads {
                true => call!(c.read(fd, to, 9)),
                false => call!(c.recv(fd, to, 9, 0)),
            };
            let other = socket.try_clone().unwrap();
            let closer = later(move || other.shutdown(Shutdown::Read).unwrap());
            assert_eq!(receive(), Ok(0));
            closer.join().unwrap();
            assert_eq!(receive(), Ok(0));
            socket.set_nonblocking(true).unwrap();
            assert_eq!(receive(), Err(EAGAIN));
        }
    });
}

#[test]
fn a_datagram_waits_for_room_in_a_socket_that_is_not_the_peer() {
    alike(|c| {
        let dir = Scratch::new();
        let path = dir.join("socket");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        // SAFETY: all-zero is a valid `sockaddr_un`.
        let mut name: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        name.sun_family = libc::AF_UNIX as _;
        for (to, &from) in name
            .sun_path
            .iter_mut()
            .zip(path.as_os_str().as_encoded_bytes())
        {
            *to = from as _;
        }
        let reader = later(move || {
            (0..100u32).for_each(|i| {
                let mut buf = [0; 4];
                receiver.recv(&mut buf).unwrap();
                assert_eq!(u32::from_ne_bytes(buf), i);
            });
            receiver
        });
        let (fd, to) = (sender.as_raw_fd(), (&raw const name).cast());
        let send = |i: u32| {
            let len = size_of_val(&name) as libc::socklen_t;
            call!(c.sendto(fd, (&raw const i).cast(), 4, 0, to, len))
        };
        for i in 0..100 {
            assert_eq!(send(i), Ok(4));
        }
        let _receiver = reader.join().unwrap();
        set_socket_timeout(&sender, SO_SNDTIMEO, ms(30));
        let mut sent = Ok(4);
        while sent.is_ok() {
            sent = send(0);
        }
        assert_eq!(sent, Err(EAGAIN));
    });
}

#[test]
fn a_receive_of_no_bytes_waits_as_the_kernel_does() {
    alike(|c| {
        let (stream, mut end) = tcp_pair();
        set_socket_timeout(&stream, SO_RCVTIMEO, ms(20));
        let fd = stream.as_raw_fd();
        let begin = Instant::now();
        assert_eq!(call!(c.recv(fd, null_mut(), 0, 0)), Ok(0));
        assert!(begin.elapsed() >= ms(20));
        end.write_all(b"x").unwrap();
        assert_eq!(call!(c.recv(fd, null_mut(), 0, 0)), Ok(0));
        let (stream, _end) = UnixStream::pair().unwrap();
        set_socket_timeout(&stream, SO_RCVTIMEO, ms(20));
        let fd = stream.as_raw_fd();
        assert_eq!(call!(c.recv(fd, null_mut(), 0, 0)), Err(EAGAIN));
    });
}

#[test]
fn a_send_after_the_end_fails() {
    alike(|c| {
        let (stream, end) = UnixStream::pair().unwrap();
        drop(end);
        let (fd, from) = (stream.as_raw_fd(), b"x".as_ptr().cast());
        let flags = MSG_NOSIGNAL;
        assert_eq!(call!(c.send(fd, from, 1, flags)), Err(EPIPE));
        assert_eq!(call!(c.sendto(fd, from, 1, flags, null(), 0)), Err(EPIPE));
    });
}

#[test]
fn a_reset_is_told_after_the_part_that_came_before() {
    alike(|c| {
        let (stream, mut end) = tcp_pair();
        let writer = later(move || {
            end.write_all(b"a part").unwrap();
            pause();
            reset_on_close(&end);
        });
        let mut buf = [0u8; 100];
        let (fd, to) = (stream.as_raw_fd(), buf.as_mut_ptr().cast());
        assert_eq!(call!(c.recv(fd, to, 100, MSG_WAITALL)), Ok(6));
        writer.join().unwrap();
        assert_eq!(call!(c.recv(fd, to, 100, MSG_WAITALL)), Err(ECONNRESET));
        assert_eq!(call!(c.recv(fd, to, 100, MSG_WAITALL)), Ok(0));
    });
}

#[test]
fn a_reset_is_told_after_the_part_that_was_sent() {
    alike(|c| {
        let (stream, end) = tcp_pair();
        let copy = stream.try_clone().unwrap();
        let closer = later(move || {
            until_full(&copy);
            reset_on_close(&end);
        });
        let bytes = vec![0u8; 16 << 20];
        let (fd, from) = (stream.as_raw_fd(), bytes.as_ptr().cast());
        let sent = call!(c.send(fd, from, bytes.len(), MSG_NOSIGNAL));
        assert!(sent.is_ok_and(|sent| sent < bytes.len() as i64), "{sent:?}");
        closer.join().unwrap();
        let errors = [(); 2].map(|()| call!(c.send(fd, from, 1, MSG_NOSIGNAL)));
        assert_eq!(errors, [Err(ECONNRESET), Err(EPIPE)]);
    });
}

#[test]
fn a_datagram_that_was_refused_is_told_of() {
    alike(|c| {
        let (socket, peer) = udp_pair();
        drop(peer);
        let fd = socket.as_raw_fd();
        let sender = socket.try_clone().unwrap();
        let sender = later(move || sender.send(b"x").unwrap());
        let received = call!(c.recv(fd, [0u8; 9].as_mut_ptr().cast(), 9, 0));
        assert_eq!(received, Err(ECONNREFUSED));
        sender.join().unwrap();
    });
}

#[test]
fn urgent_data_are_there_or_not() {
    alike(|c| {
        let (stream, end) = tcp_pair();
        let (fd, peer) = (stream.as_raw_fd(), end.as_raw_fd());
        let mut buf = [0u8; 9];
        let to = buf.as_mut_ptr().cast();
        assert_eq!(call!(c.recv(fd, to, 1, MSG_OOB)), Err(EINVAL));
        assert_eq!(
            call!(c.send(peer, b"ab".as_ptr().cast(), 2, MSG_OOB)),
            Ok(2)
        );
        assert_eq!(call!(c.recv(fd, to, 9, 0)), Ok(1));
        assert_eq!(call!(c.recv(fd, to, 9, MSG_OOB)), Ok(1));
        assert_eq!(buf[0], b'b');
        assert_eq!(call!(c.recv(fd, to, 9, MSG_OOB)), Err(EINVAL));
    });
}

#[test]
fn several_coroutines_receive_from_one_socket() {
    on_coroutine(|_| {
        let (socket, sender) = udp_pair();
        let receivers: Vec<_> = (0..10)
            .map(|_| {
                let socket = socket.try_clone().unwrap();
                greenroom::spawn(move || {
                    let mut buf = [0u8];
                    socket.recv(&mut buf).unwrap();
                    buf[0]
                })
            })
            .collect();
        pause();
        for i in 0..10 {
            sender.send(&[i]).unwrap();
        }
        let mut received: Vec<_> = receivers.into_iter().map(|r| r.join().unwrap()).collect();
        received.sort_unstable();
        assert_eq!(received, Vec::from_iter(0..10));
    });
}

#[test]
fn one_coroutine_receives_while_another_sends() {
    alike(|c| {
        let (stream, mut end) = tcp_pair();
        let fd = stream.as_raw_fd();
        let bytes = noise(4 << 20, 3);
        let echo = later(move || {
            let mut got = vec![0; 4 << 20];
            end.write_all(b"first").unwrap();
            end.read_exact(&mut got).unwrap();
            end.write_all(b"last").unwrap();
            got
        });
        let mut copy = stream.try_clone().unwrap();
        let sender = later({
            let bytes = bytes.clone();
            move || copy.write_all(&bytes).unwrap()
        });
        let mut buf = [0u8; 9];
        let received = call!(c.recv(fd, buf.as_mut_ptr().cast(), 9, MSG_WAITALL));
        assert_eq!((received, &buf), (Ok(9), b"firstlast"));
        sender.join().unwrap();
        assert_same_bytes(&echo.join().unwrap(), &bytes);
    });
}

#[test]
fn a_coroutine_that_yields_after_many_receives_keeps_the_number_of_the_last_error() {
    on_coroutine(|c| {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let other = thread::spawn(move || {
            let mut turns = 0;
            while !is_over.load(Relaxed) {
                // Another number.
                // SAFETY: no descriptor has this number.
                assert_eq!(unsafe { libc::close(-1) }, -1);
                turns += 1;
                greenroom::yield_now();
            }
            turns
        });
        let (stream, mut end) = UnixStream::pair().unwrap();
        let fd = stream.as_raw_fd();
        let mut buf = [0u8; 1];
        for _ in 0..100 {
            end.write_all(&[7; 100]).unwrap();
            for _ in 0..100 {
                // `call!` compares the number of the last error.
                assert_eq!(call!(c.recv(fd, buf.as_mut_ptr().cast(), 1, 0)), Ok(1));
            }
        }
        over.store(true, Relaxed);
        assert!(other.join().unwrap() > 1);
    });
}

#[test]
fn calls_that_do_not_wait_do_not_yield() {
    on_coroutine(|c| {
        let (stream, end) = UnixStream::pair().unwrap();
        let (to, from) = (stream.as_raw_fd(), end.as_raw_fd());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let _clients = [(); 100].map(|()| TcpStream::connect(addr).unwrap());
        listener.set_nonblocking(true).unwrap();
        let has_run = Arc::new(AtomicBool::new(false));
        let runs = Arc::clone(&has_run);
        let other = thread::spawn(move || runs.store(true, Relaxed));
        let mut byte = 7u8;
        let buf: *mut c_void = (&raw mut byte).cast();
        let mut list = iovec {
            iov_base: buf,
            iov_len: 1,
        };
        // SAFETY: a C struct of numbers and pointers, for which all-zero bytes are valid.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut list;
        message.msg_iovlen = 1;
        for nonblocking in [false, true] {
            stream.set_nonblocking(nonblocking).unwrap();
            end.set_nonblocking(nonblocking).unwrap();
            let flags = if nonblocking { 0 } else { MSG_DONTWAIT };
            for _ in 0..100 {
                let sent = [
                    call!(c.send(to, buf, 1, flags)),
                    call!(c.sendto(to, buf, 1, flags, null(), 0)),
                    call!(c.sendmsg(to, &raw const message, flags)),
                    call!(c.write(to, buf, 1)),
                ];
                assert_eq!(sent, [Ok(1); 4]);
                let received = [
                    call!(c.recv(from, buf, 1, flags)),
                    call!(c.recvfrom(from, buf, 1, flags, null_mut(), null_mut())),
                    call!(c.recvmsg(from, &raw mut message, flags)),
                    match nonblocking {
                        true => call!(c.read(from, buf, 1)),
                        false => call!(c.recv(from, buf, 1, flags)),
                    },
                ];
                assert_eq!(received, [Ok(1); 4]);
            }
        }
        for _ in 0..100 {
            let end = call!(c.accept(listener.as_raw_fd(), null_mut(), null_mut())).unwrap();
            // SAFETY: the call has made the descriptor.
            drop(unsafe { OwnedFd::from_raw_fd(end as c_int) });
        }
        assert!(!has_run.load(Relaxed));
        other.join().unwrap();
    });
}

#[test]
fn a_loop_of_reads_that_find_nothing_lets_others_run() {
    type Look = fn(&Calls, c_int, *mut c_void) -> Result<i64, c_int>;
    let looks: [(bool, Look); 3] = [
        (false, |c, fd, buf| call!(c.recv(fd, buf, 1, MSG_DONTWAIT))),
        (true, |c, fd, buf| call!(c.recv(fd, buf, 1, 0))),
        (true, |c, fd, buf| call!(c.read(fd, buf, 1))),
    ];
    on_coroutine(|c| {
        for (nonblocking, look) in looks {
            let (stream, mut end) = UnixStream::pair().unwrap();
            stream.set_nonblocking(nonblocking).unwrap();
            let writer = thread::spawn(move || end.write_all(b"x").map(|()| end));
            let mut byte = 0u8;
            let mut found = Err(EAGAIN);
            while found == Err(EAGAIN) {
                found = look(c, stream.as_raw_fd(), (&raw mut byte).cast());
            }
            assert_eq!(found, Ok(1));
            writer.join().unwrap().unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let client = thread::spawn(move || TcpStream::connect(addr).unwrap());
        let mut found = Err(EAGAIN);
        while found == Err(EAGAIN) {
            found = call!(c.accept(listener.as_raw_fd(), null_mut(), null_mut()));
        }
        // SAFETY: the call has made the descriptor.
        drop(unsafe { OwnedFd::from_raw_fd(found.unwrap() as c_int) });
        client.join().unwrap();
    });
}

#[test]
fn a_message_in_the_error_queue_ends_neither_a_send_nor_a_receive() {
    alike(|c| {
        let (stream, mut end) = tcp_pair();
        leave_timestamp(&stream);
        end.read_exact(&mut [0]).unwrap();
        let fd = stream.as_raw_fd();
        for peeks in [MSG_PEEK, 0] {
            let mut writing = end.try_clone().unwrap();
            let writer = later(move || {
                for text in [b"one", b"two", b"six"] {
                    writing.write_all(text).unwrap();
                    pause();
                }
            });
            let mut buf = [0u8; 9];
            let received = call!(c.recv(fd, buf.as_mut_ptr().cast(), 9, MSG_WAITALL | peeks));
            assert_eq!(received, Ok(9));
            writer.join().unwrap();
            if peeks != 0 {
                (&stream).read_exact(&mut buf).unwrap();
            }
        }
        let bytes = noise(8 << 20, 11);
        let reader = later(move || {
            let mut all = Vec::new();
            end.read_to_end(&mut all).map(|_| all).unwrap()
        });
        let sent = call!(c.send(fd, bytes.as_ptr().cast(), bytes.len(), 0));
        assert_eq!(sent, Ok(bytes.len() as i64));
        drop(stream);
        assert_same_bytes(&reader.join().unwrap(), &bytes);
    });
}
