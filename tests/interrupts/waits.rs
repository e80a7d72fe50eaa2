//! Every kind of wait, as something that lasts for ever unless it is interrupted.
//!
//! Each test runs for all of them: with a timeout around the wait, and with a cancellation of the
//! coroutine that waits.

use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use greenroom::shims;
use greenroom::shims::net::{TcpListener, TcpStream, UdpSocket};
use greenroom::shims::os::unix::net::UnixStream;
use greenroom::{Cancelled, Interest, Interrupts, timeout, with_interrupts};

use crate::util::{self, PATIENCE, ms, on_workers, settle};

/// A wait, and what must be true for it after an interrupt.
struct Case {
    name: &'static str,
    /// Sets up what the wait needs, waits, and never returns normally.
    wait: fn(),
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (one, listener.accept().unwrap().0)
}

const CASES: &[Case] = &[
    Case {
        name: "accept",
        wait: || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let _ = listener.accept();
        },
    },
    Case {
        name: "connect",
        wait: || {
            let full = util::ClosedPort::new();
            full.listen_without_accepting();
            // The queue of the listener is filled up, so a further connection waits for an answer.
            let _held: Vec<_> = (0..8).map(|_| TcpStream::connect(full.addr)).collect();
        },
    },
    Case {
        name: "read",
        wait: || {
            let (mut stream, _peer) = tcp_pair();
            let _ = stream.read(&mut [0; 16]);
        },
    },
    Case {
        name: "read_exact after a part",
        wait: || {
            let (mut stream, mut peer) = tcp_pair();
            peer.write_all(b"abc").unwrap();
            let _ = stream.read_exact(&mut [0; 16]);
        },
    },
    Case {
        name: "write_all into a full socket",
        wait: || {
            let (mut stream, _peer) = tcp_pair();
            let _ = stream.write_all(&vec![0; 64 << 20]);
        },
    },
    Case {
        name: "a makefile's line",
        wait: || {
            let (stream, mut peer) = tcp_pair();
            peer.write_all(b"no end of line").unwrap();
            let mut file = stream.makefile();
            let _ = file.read_line(&mut String::new());
        },
    },
    Case {
        name: "a datagram",
        wait: || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let _ = socket.recv(&mut [0; 16]);
        },
    },
    Case {
        name: "a unix stream",
        wait: || {
            let (mut stream, _peer) = UnixStream::pair().unwrap();
            let _ = stream.read(&mut [0; 16]);
        },
    },
    Case {
        name: "a pipe",
        wait: || {
            let (mut reader, _writer) = shims::io::pipe().unwrap();
            let _ = reader.read(&mut [0; 16]);
        },
    },
    Case {
        name: "sleep",
        wait: || shims::thread::sleep(Duration::MAX),
    },
    Case {
        name: "interval",
        wait: || {
            greenroom::interval(Duration::from_secs(10_000)).tick();
        },
    },
    Case {
        name: "join",
        wait: || {
            let endless = greenroom::spawn(|| shims::thread::sleep(Duration::MAX)).cancel_on_drop();
            let _ = endless.into_handle().join();
        },
    },
    Case {
        name: "recv",
        wait: || {
            let (_sender, receiver) = shims::sync::mpsc::channel::<u32>();
            let _ = receiver.recv();
        },
    },
    Case {
        name: "send to a full channel",
        wait: || {
            let (sender, _receiver) = shims::sync::mpsc::sync_channel(1);
            sender.send(1).unwrap();
            let _ = sender.send(2);
        },
    },
    Case {
        name: "a child",
        wait: || {
            /// Ends a child that would live for too long.
            struct Killed(shims::process::Child);
            impl Drop for Killed {
                fn drop(&mut self) {
                    self.0.kill().unwrap();
                }
            }
            let mut command = shims::process::Command::new("sleep");
            let mut child = Killed(command.arg("1000").spawn().unwrap());
            let _ = child.0.wait();
        },
    },
    Case {
        name: "a job of the pool",
        wait: || {
            let (end, ended) = mpsc::channel::<()>();
            let _ = greenroom::unblock(move || ended.recv_timeout(PATIENCE));
            drop(end);
        },
    },
    Case {
        name: "select",
        wait: || {
            let (reader, _writer) = io::pipe().unwrap();
            let _ = shims::select::select(&[reader.as_fd()], &[], &[], None);
        },
    },
    Case {
        name: "wait_fd",
        wait: || {
            let (reader, _writer) = io::pipe().unwrap();
            let _ = greenroom::wait_fd(reader.as_fd(), Interest::READABLE, None);
        },
    },
    Case {
        name: "a loop with an interruption point",
        wait: || {
            loop {
                greenroom::yield_now(); // not one
                greenroom::interruption_point();
            }
        },
    },
    Case {
        name: "operations that always succeed",
        wait: || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let addr = socket.local_addr().unwrap();
            loop {
                socket.send_to(b"x", addr).unwrap();
                socket.recv(&mut [0; 4]).unwrap();
            }
        },
    },
];

#[test]
fn a_timeout_ends_every_kind_of_wait() {
    for workers in [1, 4] {
        on_workers(workers, || {
            for case in CASES {
                let start = Instant::now();
                let result = timeout(ms(20), case.wait);
                assert!(result.is_err(), "{} has ended by itself", case.name);
                assert!(start.elapsed() >= ms(20), "{}", case.name);
            }
        });
    }
}

#[test]
fn a_cancellation_ends_every_kind_of_wait() {
    for workers in [1, 4] {
        on_workers(workers, || {
            for case in CASES {
                let waiting = greenroom::spawn(case.wait);
                shims::thread::sleep(ms(10));
                assert!(!waiting.is_finished(), "{} has ended by itself", case.name);
                waiting.cancel();
                let payload = waiting.join().unwrap_err();
                assert!(payload.is::<Cancelled>(), "{}", case.name);
            }
        });
    }
}

#[test]
fn a_cancellation_before_the_wait_prevents_it() {
    on_workers(1, || {
        for case in CASES {
            let (started, has_started) = shims::sync::mpsc::channel();
            let waiting = greenroom::spawn(move || {
                started.send(greenroom::current()).unwrap();
                greenroom::park(); // not an interruption point
                (case.wait)();
            });
            let thread = has_started.recv().unwrap();
            waiting.cancel();
            thread.unpark();
            let payload = waiting.join().unwrap_err();
            assert!(payload.is::<Cancelled>(), "{}", case.name);
        }
    });
}

/// What std never unwinds is not unwound here either: the wait goes on until its event comes.
#[test]
fn locks_conditions_barriers_once_and_park_are_not_interrupted() {
    use greenroom::shims::sync::{Barrier, Condvar, Mutex, Once, RwLock};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Shared {
        mutex: Mutex<()>,
        rwlock: RwLock<()>,
        flag: Mutex<bool>,
        changed: Condvar,
        barrier: Barrier,
        once: Once,
    }
    type Wait = fn(&Shared);
    type End = fn(&Shared, &greenroom::Thread);
    let waits: [(&str, Wait, End); 4] = [
        (
            "condvar",
            |shared| {
                let flag = shared.flag.lock().unwrap();
                drop(shared.changed.wait_while(flag, |flag| !*flag).unwrap());
            },
            |shared, _| {
                *shared.flag.lock().unwrap() = true;
                shared.changed.notify_all();
            },
        ),
        ("park", |_| greenroom::park(), |_, thread| thread.unpark()),
        (
            "barrier",
            |shared| _ = shared.barrier.wait(),
            |shared, _| _ = shared.barrier.wait(),
        ),
        (
            "mutex and rwlock",
            |shared| {
                drop(shared.mutex.lock().unwrap());
                drop(shared.rwlock.read().unwrap());
            },
            |_, _| {},
        ),
    ];
    for workers in [1, 4] {
        for (name, wait, end) in waits {
            for by_timeout in [false, true] {
                on_workers(workers, || {
                    let shared = Arc::new(Shared {
                        mutex: Mutex::new(()),
                        rwlock: RwLock::new(()),
                        flag: Mutex::new(false),
                        changed: Condvar::new(),
                        barrier: Barrier::new(2),
                        once: Once::new(),
                    });
                    let waited = Arc::new(AtomicBool::new(false));
                    let held = (shared.mutex.lock().unwrap(), shared.rwlock.write().unwrap());
                    let waiter = util::begin({
                        let (shared, waited) = (Arc::clone(&shared), Arc::clone(&waited));
                        move || {
                            let waits = || {
                                shared.once.call_once(|| wait(&shared));
                                waited.store(true, Ordering::Release);
                                shims::thread::sleep(Duration::MAX);
                            };
                            match by_timeout {
                                true => timeout(ms(1), waits).unwrap_err(),
                                false => unreachable!("{:?}", waits()),
                            };
                        }
                    });
                    settle();
                    if !by_timeout {
                        waiter.cancel();
                    }
                    shims::thread::sleep(ms(10));
                    assert!(!waited.load(Ordering::Acquire), "{name} was cut short");
                    assert!(!waiter.is_finished(), "{name} was unwound");
                    drop(held);
                    end(&shared, waiter.thread());
                    let result = waiter.join();
                    assert!(waited.load(Ordering::Acquire), "{name} has come to its end");
                    assert!(
                        shared.once.is_completed(),
                        "{name}: the once was not poisoned"
                    );
                    assert_eq!(result.is_ok(), by_timeout);
                });
            }
        }
    }
}

#[test]
fn what_an_interrupted_wait_has_not_taken_is_still_there() {
    on_workers(1, || {
        let (mut stream, mut peer) = tcp_pair();
        let (sender, receiver) = shims::sync::mpsc::channel();
        assert!(timeout(ms(5), || stream.read(&mut [0; 4])).is_err());
        assert!(timeout(ms(5), || receiver.recv()).is_err());
        peer.write_all(b"late").unwrap();
        sender.send(7).unwrap();
        let mut got = [0; 4];
        assert_eq!(
            timeout(PATIENCE, || stream.read_exact(&mut got))
                .unwrap()
                .unwrap(),
            ()
        );
        assert_eq!(&got, b"late");
        assert_eq!(timeout(PATIENCE, || receiver.recv()).unwrap(), Ok(7));
    });
}

/// A makefile keeps what it has read, so the next call goes on where the interrupted one was.
#[test]
fn a_makefile_resumes_an_interrupted_line() {
    on_workers(1, || {
        let (stream, mut peer) = tcp_pair();
        let mut file = stream.makefile();
        peer.write_all(b"first ").unwrap();
        let mut line = String::new();
        assert!(timeout(ms(5), || file.read_line(&mut line)).is_err());
        peer.write_all(b"line\n").unwrap();
        let mut rest = String::new();
        file.read_line(&mut rest).unwrap();
        assert_eq!(line + &rest, "first line\n");
    });
}

#[test]
fn an_interrupted_lookup_ends_the_wait_and_not_the_lookup() {
    use greenroom::shims::net::ToSocketAddrs;

    on_workers(1, || {
        // A literal never waits.
        let literal = timeout(Duration::ZERO, || ("127.0.0.1", 80).to_socket_addrs());
        assert!(literal.unwrap().unwrap().next().is_some());
        // A name may be answered before or after the timeout, but always with a defined result.
        let named = timeout(Duration::ZERO, || ("localhost", 80).to_socket_addrs());
        assert!(named.is_err() || named.unwrap().is_ok());
    });
}

#[test]
fn an_operating_system_thread_is_interrupted_in_the_waits_of_this_crate() {
    util::on_an_os_thread(|| {
        let (_sender, receiver) = shims::sync::mpsc::channel::<u32>();
        assert!(timeout(ms(5), || receiver.recv()).is_err());
        let sleeper = greenroom::spawn(|| shims::thread::sleep(Duration::MAX)).cancel_on_drop();
        let joined = timeout(ms(5), || sleeper.into_handle().join());
        assert!(joined.is_err());
        let ticked = timeout(ms(5), || {
            greenroom::interval(Duration::from_secs(10_000)).tick()
        });
        assert!(ticked.is_err());
        let (reader, _writer) = io::pipe().unwrap();
        let waited = timeout(ms(5), || {
            greenroom::wait_fd(&reader, Interest::READABLE, None)
        });
        assert!(waited.is_err());
        let selected = timeout(ms(5), || {
            shims::select::select(&[reader.as_fd()], &[], &[], None)
        });
        assert!(selected.is_err());
        let waited = timeout(ms(5), || {
            with_interrupts(Interrupts::Errors, || {
                greenroom::wait_fd(&reader, Interest::READABLE, None)
            })
        });
        assert_eq!(waited.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    });
}
