//! Every kind of wait, as something that lasts for ever unless it is interrupted.
//!
//! Each test runs for all of them: with a timeout around the wait, and with a cancellation of the
//! coroutine that waits.

use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Once, mpsc};
use std::time::{Duration, Instant};

use greenroom::shims;
use greenroom::shims::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use greenroom::shims::os::unix::net::UnixStream;
use greenroom::{
    Cancelled, Interest, Interrupts, Resolve, SystemResolver, timeout, with_interrupts,
};

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

/// A name whose lookup hangs, until this is dropped.
struct SilentName(std::net::TcpListener);

impl SilentName {
    const HOST: &str = "silent.test";

    fn new() -> SilentName {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| _ = greenroom::set_resolver(Arc::new(SilentName::resolve)));
        SilentName(std::net::TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// Asks a name server, at the port that was asked for, which accepts nobody.
    fn resolve(host: &str, port: u16) -> io::Result<Vec<std::net::SocketAddr>> {
        if host != SilentName::HOST {
            return SystemResolver.resolve(host, port);
        }
        let mut server = std::net::TcpStream::connect(("127.0.0.1", port))?;
        server.read_exact(&mut [0])?;
        unreachable!("it does not answer")
    }

    fn look_up(&self) -> io::Result<()> {
        let port = self.0.local_addr().unwrap().port();
        (SilentName::HOST, port).to_socket_addrs().map(drop)
    }

    /// Waits until the resolver asks. Returns what it asks through.
    fn asked(&self) -> std::net::TcpStream {
        self.0.accept().unwrap().0
    }
}

/// Calls `f` with the path of a named pipe.
fn with_named_pipe(f: impl FnOnce(&Path)) {
    let dir = util::Scratch::new();
    let path = dir.join("pipe");
    util::make_named_pipe(&path);
    // A thread of the pool that waits for a peer goes on waiting after the interrupt. So it gets one.
    let _peer = util::Finally(|| {
        let mut options = std::fs::OpenOptions::new();
        drop(options.read(true).write(true).open(&path).unwrap());
    });
    f(&path);
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
        name: "a name",
        wait: || {
            let silent = SilentName::new();
            let _ = silent.look_up();
        },
    },
    Case {
        name: "a connect to a name",
        wait: || {
            let silent = SilentName::new();
            let port = silent.0.local_addr().unwrap().port();
            let _ = TcpStream::connect((SilentName::HOST, port));
        },
    },
    Case {
        name: "to open a named pipe",
        wait: || {
            with_named_pipe(|path| _ = shims::fs::File::open(path));
        },
    },
    Case {
        name: "a named pipe",
        wait: || {
            with_named_pipe(|path| {
                let mut options = shims::fs::OpenOptions::new();
                let mut pipe = options.read(true).write(true).open(path).unwrap();
                let _ = pipe.read(&mut [0; 16]);
            });
        },
    },
    Case {
        name: "the lock of a file",
        wait: || {
            let dir = util::Scratch::new();
            let held = std::fs::File::create(dir.join("locked")).unwrap();
            held.lock().unwrap();
            let wanted = shims::fs::File::open(dir.join("locked")).unwrap();
            let _ = wanted.lock();
        },
    },
    Case {
        name: "a change of a directory",
        wait: || {
            let dir = util::Scratch::new();
            let _ = greenroom::fs::watch(&*dir).unwrap().next();
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
    for workers in [1, 4] {
        on_workers(workers, || {
            let silent = Arc::new(SilentName::new());
            let waiting = greenroom::spawn({
                let silent = Arc::clone(&silent);
                move || silent.look_up()
            });
            // A lookup that has not begun would not begin any more.
            let asked = greenroom::unblock({
                let silent = Arc::clone(&silent);
                move || silent.asked()
            });
            waiting.cancel();
            assert!(waiting.join().unwrap_err().is::<Cancelled>());
            // A resolver that had given up would have closed its end.
            assert!(!util::has_something(&asked));
        });
    }
}

#[test]
fn an_address_is_no_interruption_point() {
    on_workers(1, || {
        let literal = timeout(Duration::ZERO, || ("127.0.0.1", 80).to_socket_addrs());
        assert!(literal.unwrap().unwrap().next().is_some());
    });
}

#[test]
fn where_interrupts_are_errors_a_lookup_fails() {
    on_workers(1, || {
        with_interrupts(Interrupts::Errors, || {
            let looked_up = timeout(ms(1), || SilentName::new().look_up());
            let error = looked_up.unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
        let cancelled = util::begin_cancelled(|| {
            with_interrupts(Interrupts::Errors, || SilentName::new().look_up())
        });
        let error = cancelled.join().unwrap().unwrap_err();
        assert!(error.get_ref().unwrap().is::<Cancelled>());
    });
}

#[test]
fn operations_on_open_regular_files_and_on_paths_are_not_interrupted() {
    use std::os::unix::fs::FileExt;

    // More than a worker reads or writes itself.
    const LARGE: usize = 1 << 20;
    for workers in [1, 4] {
        on_workers(workers, || {
            let dir = util::Scratch::new();
            let [path, new, link] = ["file", "new", "link"].map(|name| dir.join(name));
            let bytes = util::noise(LARGE, 3);
            std::fs::write(&path, &bytes).unwrap();
            let mut options = shims::fs::OpenOptions::new();
            let mut file = options.read(true).write(true).open(&path).unwrap();
            let (done, is_done) = mpsc::channel();
            let dir = dir.to_owned();
            let used = util::begin_cancelled(move || {
                let mut back = vec![0; LARGE];
                file.read_exact(&mut back).unwrap();
                util::assert_same_bytes(&back, &bytes);
                file.write_all(&bytes).unwrap();
                file.write_all_at(&bytes, 2 * LARGE as u64).unwrap();
                file.read_exact_at(&mut back, 2 * LARGE as u64).unwrap();
                util::assert_same_bytes(&back, &bytes);
                file.sync_all().unwrap();
                file.set_len(5).unwrap();
                assert_eq!(file.metadata().unwrap().len(), 5);
                file.try_lock().unwrap();
                file.unlock().unwrap();
                shims::fs::hard_link(&path, &link).unwrap();
                shims::fs::rename(&link, &new).unwrap();
                shims::fs::create_dir(&link).unwrap();
                assert_eq!(shims::fs::read_dir(&dir).unwrap().count(), 3);
                shims::fs::remove_dir(&link).unwrap();
                shims::fs::canonicalize(&new).unwrap();
                shims::fs::remove_file(&new).unwrap();
                drop(file);
                done.send(()).unwrap();
                // Opening may wait for another process. The pool goes on, so not in the directory.
                shims::fs::File::create("/dev/null").map(drop)
            });
            assert!(used.join().unwrap_err().is::<Cancelled>());
            is_done.recv().unwrap();
        });
    }
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
