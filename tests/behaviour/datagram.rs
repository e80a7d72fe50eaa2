//! What datagram sockets promise, whether UDP's or Unix's. The parent module says what a `Datagram` is, and
//! connects a pair of them.

use super::{Datagram, datagram_pair as pair, std, util};
use ::std::io::ErrorKind;
use ::std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use ::std::sync::Arc;
use ::std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};
use util::{PATIENCE, assert_times_out, everywhere, ms, settle, until};

// ------------------------------------------------------ sending and receiving

#[test]
fn connected_sockets_send_and_receive_without_addresses() {
    everywhere(|| {
        let (a, b) = pair();
        let echo = thread::spawn(move || {
            let mut buf = [0; 16];
            let n = b.recv(&mut buf).unwrap();
            b.send(&buf[..n]).unwrap();
            b
        });
        settle();
        assert_eq!(a.send(b"round trip").unwrap(), 10);
        let mut buf = [0; 16];
        assert_eq!(a.recv(&mut buf).unwrap(), 10);
        assert_eq!(&buf[..10], b"round trip");
        echo.join().unwrap();
    });
}

#[test]
fn a_datagram_too_long_for_the_buffer_is_cut_and_the_rest_is_dropped() {
    everywhere(|| {
        let (a, b) = pair();
        for message in [&b"too long for that"[..], b"vanishes", b"too long", b"next"] {
            assert_eq!(a.send(message).unwrap(), message.len());
        }
        let mut buf = [0; 8];
        assert_eq!(b.recv(&mut buf).unwrap(), 8);
        assert_eq!(&buf, b"too long");
        assert_eq!(b.recv(&mut []).unwrap(), 0);
        assert_eq!(b.recv_from(&mut buf[..3]).unwrap().0, 3);
        assert_eq!(b.recv_from(&mut buf).unwrap().0, 4);
        assert_eq!(&buf[..4], b"next");
    });
}

#[test]
fn a_datagram_of_no_bytes_is_a_datagram() {
    everywhere(|| {
        let (a, b) = pair();
        let receiver = thread::spawn(move || {
            let first = b.recv(&mut [0; 16]).unwrap();
            let second = b.recv_from(&mut [0; 16]).unwrap().0;
            (first, second, b.recv(&mut [0; 16]).unwrap())
        });
        settle();
        assert_eq!(a.send(&[]).unwrap(), 0);
        settle();
        assert_eq!(a.send(&[]).unwrap(), 0);
        settle();
        a.send(b"x").unwrap();
        assert_eq!(receiver.join().unwrap(), (0, 0, 1));
    });
}

#[test]
fn one_task_receives_while_another_sends_on_the_same_socket() {
    everywhere(|| {
        let (a, b) = pair();
        let a = Arc::new(a);
        let receiver = thread::spawn({
            let a = Arc::clone(&a);
            move || a.recv_from(&mut [0; 16]).unwrap().0
        });
        settle();
        a.send(b"out").unwrap();
        assert_eq!(b.recv_from(&mut [0; 16]).unwrap().0, 3);
        b.send(b"back").unwrap();
        assert_eq!(receiver.join().unwrap(), 4);
    });
}

// --------------------------------------------------------- timeouts and modes

#[test]
fn receiving_times_out_and_the_socket_stays_usable() {
    everywhere(|| {
        let (a, b) = pair();
        b.set_read_timeout(Some(ms(50))).unwrap();
        let mut buf = [0; 16];
        for from in [false, true] {
            let start = Instant::now();
            match from {
                false => assert_times_out(|| b.recv(&mut buf)),
                true => assert_times_out(|| b.recv_from(&mut buf).map(drop)),
            }
            let took = start.elapsed();
            assert!(took >= ms(40), "{took:?}");
            assert!(took < PATIENCE, "{took:?}");
        }
        b.set_read_timeout(Some(PATIENCE)).unwrap();
        a.send(b"after").unwrap();
        assert_eq!(b.recv(&mut buf).unwrap(), 5);
        assert_eq!(&buf[..5], b"after");
    });
}

#[test]
fn timeouts_read_back_as_they_were_set_and_zero_is_invalid_input() {
    everywhere(|| {
        let (a, _b) = pair();
        assert_eq!(a.read_timeout().unwrap(), None);
        assert_eq!(a.write_timeout().unwrap(), None);
        a.set_read_timeout(Some(ms(1500))).unwrap();
        a.set_write_timeout(Some(ms(2500))).unwrap();
        for refused in [
            a.set_read_timeout(Some(Duration::ZERO)),
            a.set_write_timeout(Some(Duration::ZERO)),
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(a.read_timeout().unwrap(), Some(ms(1500)));
        assert_eq!(a.write_timeout().unwrap(), Some(ms(2500)));
        a.set_read_timeout(None).unwrap();
        a.set_write_timeout(None).unwrap();
        assert_eq!(a.read_timeout().unwrap(), None);
        assert_eq!(a.write_timeout().unwrap(), None);
    });
}

#[test]
fn a_nonblocking_socket_does_not_wait_until_it_is_made_to_again() {
    everywhere(|| {
        let (a, b) = pair();
        b.set_nonblocking(true).unwrap();
        let start = Instant::now();
        for result in [
            b.recv(&mut [0; 1]),
            b.recv_from(&mut [0; 1]).map(|(n, _)| n),
        ] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        assert!(start.elapsed() < PATIENCE);
        b.set_nonblocking(false).unwrap();
        let receiver = thread::spawn(move || b.recv(&mut [0; 16]).unwrap());
        thread::sleep(ms(100));
        assert!(!receiver.is_finished());
        a.send(b"now").unwrap();
        assert_eq!(receiver.join().unwrap(), 3);
        assert!(a.take_error().unwrap().is_none());
    });
}

// -------------------------------------------------------------------- sharing

#[test]
fn two_receivers_on_clones_of_one_socket_get_one_datagram_each() {
    everywhere(|| {
        let (a, b) = pair();
        let got = Arc::new(AtomicUsize::new(0));
        let receivers: Vec<_> = [b.try_clone().unwrap(), b]
            .into_iter()
            .map(|b| {
                let got = Arc::clone(&got);
                thread::spawn(move || {
                    let mut buf = [0; 16];
                    let n = b.recv(&mut buf).unwrap();
                    got.fetch_add(1, SeqCst);
                    buf[..n].to_vec()
                })
            })
            .collect();
        settle();
        a.send(b"one").unwrap();
        until("one receiver is served", || got.load(SeqCst) == 1);
        settle();
        assert_eq!(got.load(SeqCst), 1, "one datagram served two receivers");
        a.send(b"two").unwrap();
        let mut both: Vec<_> = receivers.into_iter().map(|r| r.join().unwrap()).collect();
        both.sort();
        assert_eq!(both, [b"one", b"two"]);
    });
}

#[test]
fn receivers_sharing_a_socket_get_each_datagram_exactly_once() {
    everywhere(|| {
        const COUNT: u32 = 300;
        let (a, b) = pair();
        let b = Arc::new(b);
        let got = Arc::new(AtomicUsize::new(0));
        let receivers: Vec<_> = (0..3)
            .map(|_| {
                let (b, got) = (Arc::clone(&b), Arc::clone(&got));
                thread::spawn(move || {
                    let mut seen = Vec::new();
                    let mut buf = [0; 4];
                    loop {
                        assert_eq!(b.recv(&mut buf).unwrap(), 4);
                        match u32::from_be_bytes(buf) {
                            u32::MAX => return seen,
                            n => seen.push(n),
                        }
                        got.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        for n in 0..COUNT {
            // Sends no more datagrams than the receiver has room for, because UDP drops others.
            until("they keep up", || got.load(SeqCst) + 32 > n as usize);
            a.send(&n.to_be_bytes()).unwrap();
        }
        for _ in &receivers {
            a.send(&u32::MAX.to_be_bytes()).unwrap();
        }
        let mut all: Vec<u32> = receivers
            .into_iter()
            .flat_map(|r| r.join().unwrap())
            .collect();
        all.sort();
        assert_eq!(all, (0..COUNT).collect::<Vec<_>>());
    });
}

#[test]
fn a_receiver_parked_on_one_clone_goes_on_when_the_other_is_dropped() {
    everywhere(|| {
        let (a, b) = pair();
        let clone = b.try_clone().unwrap();
        let receiver = thread::spawn(move || b.recv(&mut [0; 16]).unwrap());
        settle();
        drop(clone);
        settle();
        assert!(!receiver.is_finished());
        a.send(b"still").unwrap();
        assert_eq!(receiver.join().unwrap(), 5);
    });
}

#[test]
fn two_senders_and_two_receivers_on_clones_lose_and_repeat_nothing() {
    everywhere(|| {
        const EACH: u32 = 200;
        let (a, b) = pair();
        let senders = [a.try_clone().unwrap(), a].map(Arc::new);
        let receivers = [b.try_clone().unwrap(), b];
        let acks = Arc::new(AtomicUsize::new(0));
        let receiving = receivers.map(|socket| {
            let acks = Arc::clone(&acks);
            thread::spawn(move || {
                let mut got = Vec::new();
                let mut datagram = [0; 16];
                loop {
                    let length = socket.recv(&mut datagram).unwrap();
                    match <[u8; 4]>::try_from(&datagram[..length]) {
                        Ok(number) => got.push(u32::from_be_bytes(number)),
                        Err(_) => break got,
                    }
                    acks.fetch_add(1, SeqCst);
                }
            })
        });
        let sending: Vec<_> = (0..2)
            .map(|index| {
                let (socket, acks) = (Arc::clone(&senders[index]), Arc::clone(&acks));
                thread::spawn(move || {
                    for n in 0..EACH {
                        let number = index as u32 * EACH + n;
                        socket.send(&number.to_be_bytes()).unwrap();
                        // Sends no more datagrams than the receivers have room for.
                        until("some arrived", || acks.load(SeqCst) + 40 > 2 * n as usize);
                    }
                })
            })
            .collect();
        for sender in sending {
            sender.join().unwrap();
        }
        until("all arrived", || acks.load(SeqCst) == 2 * EACH as usize);
        senders[0].send(b"").unwrap();
        senders[1].send(b"").unwrap();
        let mut got = receiving.map(|receiver| receiver.join().unwrap()).concat();
        got.sort_unstable();
        assert_eq!(got, (0..2 * EACH).collect::<Vec<_>>());
    });
}

// ---------------------------------------------------------------- conversions

#[test]
fn a_socket_survives_becoming_an_owned_descriptor_and_back() {
    everywhere(|| {
        let (a, b) = pair();
        let fd: OwnedFd = b.into();
        let b = Datagram::from(fd);
        let raw = b.into_raw_fd();
        // SAFETY: `raw` is open, and `into_raw_fd` has given up the ownership.
        let b = unsafe { Datagram::from_raw_fd(raw) };
        assert_eq!(b.as_raw_fd(), raw);
        assert_eq!(b.as_fd().as_raw_fd(), raw);
        let receiver = thread::spawn(move || b.recv_from(&mut [0; 16]).unwrap().0);
        settle();
        a.send(b"same").unwrap();
        assert_eq!(receiver.join().unwrap(), 4);
    });
}
