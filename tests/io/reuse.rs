//! The number of a closed descriptor goes to the next socket, which must not get the events of the old
//! one.

use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::thread;
use serial_test::serial;

use crate::util;

const MILLI: Duration = Duration::from_millis(1);

fn connect(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// A connection whose near end has the descriptor `number`, which was just closed. Made by std, so that
/// no poll runs meanwhile.
fn connect_as(number: RawFd, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(
        near.as_raw_fd(),
        number,
        "numbers are given out from the lowest"
    );
    (TcpStream::from(near), listener.accept().unwrap().0)
}

/// Registers the stream with the poll, by a read that waits.
fn register(stream: &mut TcpStream) {
    stream
        .set_read_timeout(Some(Duration::from_nanos(1)))
        .unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    stream.set_read_timeout(None).unwrap();
}

/// The event of the old owner that is pending when the descriptor is closed.
#[derive(Clone, Copy, Debug)]
enum Pending {
    Data,
    End,
    Reset,
}

/// Makes an event pending, through the other end `peer`, without a poll.
fn cause(pending: Pending, mut peer: TcpStream) -> Option<TcpStream> {
    match pending {
        Pending::Data => {
            peer.write_all(b"stale").unwrap();
            return Some(peer);
        }
        Pending::End => {}
        Pending::Reset => util::reset_on_close(&peer),
    }
    None
}

#[test]
#[serial]
fn an_event_that_is_pending_at_a_close_does_not_reach_the_next_owner_of_the_number() {
    util::on_workers(1, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for pending in [Pending::Data, Pending::End, Pending::Reset] {
            let (mut old, old_peer) = connect(&listener);
            register(&mut old);
            let number = old.as_raw_fd();
            let _kept = cause(pending, old_peer);
            drop(old);
            let (mut next, mut peer) = connect_as(number, &listener);

            next.set_read_timeout(Some(20 * MILLI)).unwrap();
            let error = next.read(&mut [0; 8]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{pending:?}");
            next.set_read_timeout(None).unwrap();
            let writer = thread::spawn(move || {
                thread::sleep(MILLI);
                peer.write_all(b"fresh").unwrap();
            });
            let mut text = String::new();
            next.read_to_string(&mut text).unwrap();
            assert_eq!(text, "fresh", "{pending:?}");
            writer.join().unwrap();
        }
    });
}

/// The poll knows open file descriptions, not numbers: one with an open duplicate still has events.
#[test]
#[serial]
fn events_of_a_duplicate_do_not_reach_the_next_owner_of_the_number() {
    util::on_workers(1, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut old, mut old_peer) = connect(&listener);
        register(&mut old);
        let number = old.as_raw_fd();
        let duplicate = old.as_fd().try_clone_to_owned().unwrap();
        drop(old);
        let (mut next, mut peer) = connect_as(number, &listener);

        let reader = thread::spawn(move || {
            let mut text = String::new();
            next.read_to_string(&mut text).unwrap();
            text
        });
        for _ in 0..10 {
            old_peer.write_all(b"stale").unwrap();
            thread::sleep(MILLI);
        }
        assert!(!reader.is_finished());
        peer.write_all(b"fresh").unwrap();
        drop(peer);
        assert_eq!(reader.join().unwrap(), "fresh");

        // Then the duplicate itself can be waited on.
        let mut duplicate = TcpStream::from(duplicate);
        let mut stale = [0; 50];
        duplicate.read_exact(&mut stale).unwrap();
        assert_eq!(&stale, &b"stale".repeat(10)[..]);
        drop(old_peer);
        assert_eq!(duplicate.read(&mut stale).unwrap(), 0);
    });
}

/// Two coroutines wait on one socket. The first that is woken takes the socket away.
#[test]
#[serial]
fn a_coroutine_may_drop_the_socket_whose_event_woke_it() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            for _ in 0..50 {
                let (old, mut peer) = connect(&listener);
                let shared = Arc::new(old);
                let taken = Arc::new(AtomicBool::new(false));
                let readers = [(); 3].map(|()| {
                    let (mut own, shared) = (shared.try_clone().unwrap(), Arc::clone(&shared));
                    let taken = Arc::clone(&taken);
                    thread::spawn(move || {
                        let read = own.read(&mut [0; 8]).unwrap();
                        if read > 0 && !taken.swap(true, SeqCst) {
                            // The clones of the others end with it.
                            shared.shutdown(std::net::Shutdown::Both).unwrap();
                        }
                        drop((own, shared));
                        read
                    })
                });
                drop(shared);
                thread::yield_now();
                peer.write_all(b"x").unwrap();
                let read: usize = readers.map(|reader| reader.join().unwrap()).iter().sum();
                assert_eq!(read, 1);
            }
        });
    }
}

/// `number` as a stream that does not own it.
fn wrapped(number: RawFd) -> ManuallyDrop<TcpStream> {
    // SAFETY: the callers keep the descriptor open.
    ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(number) })
}

#[test]
#[serial]
fn a_descriptor_may_be_wrapped_for_each_operation_by_code_that_does_not_own_it() {
    util::on_workers(1, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut owner, mut peer) = connect(&listener);
        let number = owner.as_raw_fd();
        let answers = thread::spawn(move || {
            for n in 0..4 {
                peer.read_exact(&mut [0]).unwrap();
                thread::sleep(MILLI);
                peer.write_all(&[n]).unwrap();
            }
            peer
        });
        let mut answer = [0];
        for n in 0..4 {
            wrapped(number).write_all(b"?").unwrap();
            if n == 2 {
                owner.read_exact(&mut answer).unwrap();
            } else {
                wrapped(number).read_exact(&mut answer).unwrap();
            }
            assert_eq!(answer, [n]);
        }
        drop(answers.join().unwrap());
        assert_eq!(owner.read(&mut answer).unwrap(), 0);
    });
}

#[test]
#[serial]
fn the_owner_and_a_wrapper_of_a_number_may_wait_at_once() {
    util::on_workers(1, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut owner, mut peer) = connect(&listener);
        let number = owner.as_raw_fd();
        for _ in 0..3 {
            let wraps = [(); 2].map(|()| {
                thread::spawn(move || {
                    let mut byte = [0];
                    wrapped(number).read_exact(&mut byte).unwrap();
                    byte[0]
                })
            });
            let owns = thread::spawn(move || {
                let mut byte = [0];
                owner.read_exact(&mut byte).unwrap();
                (owner, byte[0])
            });
            thread::sleep(MILLI);
            let mut got = Vec::new();
            for byte in 0..3 {
                peer.write_all(&[byte]).unwrap();
                thread::sleep(MILLI);
            }
            got.extend(wraps.map(|wrap| wrap.join().unwrap()));
            let owns = owns.join().unwrap();
            owner = owns.0;
            got.push(owns.1);
            got.sort();
            assert_eq!(got, [0, 1, 2]);
        }
    });
}

#[test]
#[serial]
fn numbers_that_are_reused_all_the_time_get_the_right_data() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let over = Arc::new(AtomicBool::new(false));
            let acceptor = thread::spawn({
                let over = Arc::clone(&over);
                move || {
                    while !over.load(SeqCst) {
                        let (mut stream, _) = listener.accept().unwrap();
                        thread::spawn(move || {
                            let mut own = [0; 4];
                            if stream.read_exact(&mut own).is_err() {
                                return;
                            }
                            thread::yield_now();
                            // Some clients have gone by now, with or without a reset.
                            let _ = stream.write_all(&own);
                        });
                    }
                }
            });
            let clients: Vec<_> = (0..32_u32)
                .map(|client| {
                    thread::spawn(move || {
                        for round in 0..50 {
                            let mut stream = TcpStream::connect(addr).unwrap();
                            let own = (client << 16 | round).to_be_bytes();
                            stream.write_all(&own).unwrap();
                            match (client + round) % 4 {
                                // Closed with the answer on its way, or unread, or both.
                                0 => thread::yield_now(),
                                1 => util::reset_on_close(&stream),
                                _ => {
                                    let mut echo = [0; 4];
                                    stream.read_exact(&mut echo).unwrap();
                                    assert_eq!(echo, own);
                                }
                            }
                        }
                    })
                })
                .collect();
            for client in clients {
                client.join().unwrap();
            }
            over.store(true, SeqCst);
            // Fails if the listener has gone already.
            drop(TcpStream::connect(addr));
            acceptor.join().unwrap();
            greenroom::wait_idle();
        });
    }
}
