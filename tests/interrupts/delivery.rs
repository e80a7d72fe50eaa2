//! How interrupts are delivered: by an unwind, as an error, or not at all.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::FromRawFd;
use std::time::{Duration, Instant};

use greenroom::shims::fs::File;
use greenroom::shims::io::makefile::{MakeFile, SocketFile};
use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::os::unix::net::UnixStream;
use greenroom::shims::sync::mpsc;
use greenroom::shims::thread::sleep;
use greenroom::{Builder, Cancelled, Elapsed, Interrupts, shield, spawn, timeout, with_interrupts};

use crate::util::{self, ms, on_workers};

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (one, listener.accept().unwrap().0)
}

fn is_cancelled(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Cancelled>())
}

#[test]
fn a_shield_keeps_timeouts_and_cancellations_away_until_it_ends() {
    on_workers(1, || {
        let start = Instant::now();
        let mut shielded = false;
        let result = timeout(ms(1), || {
            shield(|| {
                sleep(ms(10));
                shielded = true;
            });
            sleep(Duration::MAX);
        });
        assert_eq!(result, Err(Elapsed));
        assert!(shielded && start.elapsed() >= ms(10));

        let (told, told_of) = mpsc::channel();
        let coroutine = util::begin(move || {
            shield(|| {
                sleep(ms(10));
                told.send("shielded").unwrap();
            });
            sleep(Duration::MAX);
            told.send("not reached").unwrap();
        });
        coroutine.cancel();
        assert!(coroutine.join().unwrap_err().is::<Cancelled>());
        assert_eq!(told_of.iter().collect::<Vec<_>>(), ["shielded"]);
    });
}

#[test]
fn a_timeout_inside_a_shield_works() {
    on_workers(1, || {
        let inner = timeout(ms(1), || shield(|| timeout(ms(5), || sleep(Duration::MAX))));
        assert_eq!(inner, Ok(Err(Elapsed)));
    });
}

#[test]
fn a_coroutine_set_to_errors_is_told_of_its_cancellation_once() {
    on_workers(1, || {
        let (mut stream, mut peer) = tcp_pair();
        let builder = Builder::new().interrupts(Interrupts::Errors);
        let (begun, has_begun) = mpsc::channel();
        let coroutine = builder.spawn(move || {
            begun.send(()).unwrap();
            let error = stream.read(&mut [0; 4]).unwrap_err();
            assert!(is_cancelled(&error), "{error}");
            assert_ne!(
                error.kind(),
                io::ErrorKind::Interrupted,
                "that would be retried"
            );
            // It can still say goodbye, and hear the answer.
            stream.write_all(b"bye").unwrap();
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).unwrap();
            sleep(ms(1));
            answer
        });
        let coroutine = coroutine.unwrap();
        has_begun.recv().unwrap();
        coroutine.cancel();
        let mut goodbye = [0; 3];
        peer.read_exact(&mut goodbye).unwrap();
        assert_eq!(&goodbye, b"bye");
        sleep(ms(2));
        coroutine.cancel(); // the same as once
        peer.write_all(b"well").unwrap();
        assert_eq!(&coroutine.join().unwrap(), b"well");
    });
}

#[test]
fn a_coroutine_set_to_errors_comes_to_the_end_of_other_waits() {
    on_workers(1, || {
        let (sender, receiver) = mpsc::channel();
        let (begun, has_begun) = mpsc::channel();
        let builder = Builder::new().interrupts(Interrupts::Errors);
        let coroutine = builder.spawn(move || {
            begun.send(()).unwrap();
            sleep(ms(10));
            let received = receiver.recv().unwrap();
            let pooled = greenroom::unblock(|| 2);
            received + pooled
        });
        let coroutine = coroutine.unwrap();
        has_begun.recv().unwrap();
        coroutine.cancel();
        sleep(ms(15));
        sender.send(1).unwrap();
        assert_eq!(coroutine.join().unwrap(), 3);
    });
}

/// As with a deadline of Go's connections: each operation that would wait fails, others do not.
#[test]
fn where_interrupts_are_errors_every_operation_after_the_limit_fails() {
    on_workers(1, || {
        let (mut stream, mut peer) = tcp_pair();
        peer.write_all(b"ab").unwrap();
        let result = timeout(ms(5), || {
            with_interrupts(Interrupts::Errors, || {
                let mut got = [0; 4];
                let error = stream.read_exact(&mut got).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                assert_eq!(&got[..2], b"ab", "what was read is there");
                let error = stream.read(&mut got).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                stream.write_all(b"need not wait").unwrap();
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                assert_eq!(
                    listener.accept().unwrap_err().kind(),
                    io::ErrorKind::TimedOut
                );
                sleep(ms(1)); // has no error to return
                "its end"
            })
        });
        assert_eq!(result, Ok("its end"));
        peer.write_all(b"x").unwrap();
        assert_eq!(stream.read(&mut [0; 4]).unwrap(), 1, "the socket is usable");
    });
}

/// The error of a timeout around the wait is not taken for the end of a timeout of the wait's own.
#[test]
fn where_interrupts_are_errors_the_wait_for_a_child_fails() {
    use greenroom::shims::process::{ChildExt, Command};

    on_workers(1, || {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let errors = |f: &mut dyn FnMut() -> io::ErrorKind| {
            timeout(ms(5), || with_interrupts(Interrupts::Errors, f)).unwrap()
        };
        let waited = errors(&mut || child.wait().unwrap_err().kind());
        assert_eq!(waited, io::ErrorKind::TimedOut);
        let waited = errors(&mut || {
            let long = Duration::from_secs(1000);
            child.wait_timeout(long).unwrap_err().kind()
        });
        assert_eq!(waited, io::ErrorKind::TimedOut);
        let own = timeout(util::PATIENCE, || {
            with_interrupts(Interrupts::Errors, || child.wait_timeout(ms(1)))
        });
        assert_eq!(own.unwrap().unwrap(), None);
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
    });
}

/// The next address would not be told of the cancellation.
#[test]
fn a_connect_that_is_cancelled_does_not_go_on_to_the_next_address() {
    use greenroom::ConnectWithin;

    type Connect = fn(&[SocketAddr]) -> io::Result<TcpStream>;
    let connects: [Connect; 2] = [
        |addrs| TcpStream::connect(addrs),
        |addrs| TcpStream::connect_within(addrs, util::PATIENCE),
    ];
    for connect in connects {
        on_workers(1, || {
            let full = util::ClosedPort::new();
            full.listen_without_accepting();
            let answers = TcpListener::bind("127.0.0.1:0").unwrap();
            let addrs = [full.addr, answers.local_addr().unwrap()];
            let builder = Builder::new().interrupts(Interrupts::Errors);
            let coroutine = builder.spawn(move || {
                // The first connections fill the queue of the listener.
                let mut held = Vec::new();
                loop {
                    let stream = connect(&addrs)?;
                    assert_eq!(stream.peer_addr().unwrap(), full.addr);
                    held.push(stream);
                }
            });
            let coroutine: greenroom::JoinHandle<io::Result<()>> = coroutine.unwrap();
            sleep(ms(10));
            coroutine.cancel();
            assert!(is_cancelled(&coroutine.join().unwrap().unwrap_err()));
        });
    }
}

#[test]
fn a_total_deadline_holds_for_a_write_that_makes_progress() {
    on_workers(1, || {
        let (mut stream, mut peer) = tcp_pair();
        let reader = spawn(move || {
            let mut buffer = vec![0; 1 << 10];
            while peer.read(&mut buffer).is_ok_and(|read| read > 0) {
                sleep(ms(1));
            }
        });
        let start = Instant::now();
        let result = timeout(ms(30), || stream.write_all(&vec![0; 256 << 20]));
        assert!(result.is_err());
        assert!(start.elapsed() >= ms(30) && start.elapsed() < util::PATIENCE);
        drop(stream);
        reader.cancel();
        let _ = reader.join();
    });
}

#[test]
fn the_way_of_delivery_can_be_set_back_for_a_part() {
    on_workers(1, || {
        let builder = Builder::new().interrupts(Interrupts::Errors);
        let coroutine = builder.spawn(|| {
            let result = timeout(ms(1), || {
                with_interrupts(Interrupts::Unwind, || sleep(Duration::MAX));
            });
            assert_eq!(result, Err(Elapsed));
        });
        coroutine.unwrap().join().unwrap();
    });
}

/// A coroutine that was cancelled, and says goodbye to a peer that does not answer, does not keep its runtime
/// from ending. Nor does the end of the runtime cut the goodbye of another one short.
#[test]
fn a_coroutine_set_to_errors_is_told_of_the_end_of_its_runtime_once_more() {
    let start = Instant::now();
    let (told, told_of) = std::sync::mpsc::channel();
    let silent = on_workers(1, || {
        let (silent, mut cancelled) = tcp_pair();
        let (answers, mut ended) = tcp_pair();
        let errors = || Builder::new().interrupts(Interrupts::Errors);
        let (begun, has_begun) = mpsc::channel();
        let read_twice = {
            let (begun, told) = (begun.clone(), told.clone());
            move || {
                begun.send(()).unwrap();
                for _ in 0..2 {
                    let error = cancelled.read(&mut [0; 4]).unwrap_err();
                    told.send(is_cancelled(&error)).unwrap();
                }
            }
        };
        let coroutine = errors().spawn(read_twice).unwrap();
        let say_goodbye = move || {
            begun.send(()).unwrap();
            assert!(is_cancelled(&ended.read(&mut [0; 4]).unwrap_err()));
            ended.write_all(b"bye").unwrap();
            let answered = ended.read_exact(&mut [0; 4]);
            told.send(answered.is_ok()).unwrap();
        };
        errors().spawn(say_goodbye).unwrap();
        for _ in 0..2 {
            has_begun.recv().unwrap();
        }
        coroutine.cancel();
        sleep(ms(2));
        std::thread::spawn(move || {
            let mut answers = std::net::TcpStream::from(std::os::fd::OwnedFd::from(answers));
            let mut goodbye = [0; 3];
            answers.read_exact(&mut goodbye).unwrap();
            std::thread::sleep(ms(20));
            answers.write_all(b"well").unwrap();
        });
        silent
    });
    assert!(start.elapsed() < util::PATIENCE, "less than the grace");
    assert_eq!(told_of.iter().collect::<Vec<_>>(), [true; 3]);
    drop(silent);
}

/// Writes to `stream` until it takes no more.
fn fill(mut stream: &UnixStream) {
    stream.set_nonblocking(true).unwrap();
    while stream.write(&[0; 1 << 10]).is_ok() {}
    while stream.write(&[0]).is_ok() {}
    stream.set_nonblocking(false).unwrap();
}

/// The error of a read that waits for nothing.
fn next_error(silent: &UnixStream) -> io::Error {
    silent.set_read_timeout(Some(util::PATIENCE)).unwrap();
    let mut silent = silent;
    silent.read(&mut [0]).unwrap_err()
}

#[test]
fn a_cancellation_that_an_operation_cannot_return_is_told_by_the_next_one() {
    let operations: [fn(SocketFile<UnixStream>); 3] = [
        |mut file| assert_eq!(file.write(b"line\n").unwrap(), 5),
        |mut file| file.write_all(b"what the drop flushes").unwrap(),
        |mut file| assert_eq!(file.read_lines(100).unwrap(), [b"one\n"]),
    ];
    for operation in operations {
        on_workers(1, || {
            let (near, mut far) = UnixStream::pair().unwrap();
            let (silent, _peer) = UnixStream::pair().unwrap();
            far.write_all(b"one\n").unwrap();
            fill(&near);
            let options = MakeFile::new().line_buffered();
            let file = near.makefile_with(&options).unwrap();
            let (begun, has_begun) = mpsc::channel();
            let coroutine = Builder::new()
                .interrupts(Interrupts::Errors)
                .spawn(move || {
                    begun.send(()).unwrap();
                    operation(file);
                    next_error(&silent)
                });
            let coroutine = coroutine.unwrap();
            has_begun.recv().unwrap();
            coroutine.cancel();
            let error = coroutine.join().unwrap();
            assert!(is_cancelled(&error), "{error}");
        });
    }
}

/// The jobs of the pool go on.
#[test]
fn where_interrupts_are_errors_waits_on_the_pool_fail() {
    let dir = util::Scratch::new();
    let (path, pipe) = (dir.join("file"), dir.join("pipe"));
    let held = std::fs::File::create(&path).unwrap();
    held.lock().unwrap();
    util::make_named_pipe(&pipe);
    on_workers(1, || {
        let fails = |operation: &dyn Fn() -> io::Result<()>| {
            let result = timeout(ms(5), || with_interrupts(Interrupts::Errors, operation));
            let error = result.unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        };
        let wanted = File::open(&path).unwrap();
        fails(&|| wanted.lock());
        fails(&|| wanted.lock_shared());
        fails(&|| File::open(&pipe).map(drop));
    });
    // Lets the job that opens the pipe end.
    let mut both = std::fs::File::options();
    drop(both.read(true).write(true).open(&pipe).unwrap());
}

/// A terminal's bytes would be written twice otherwise.
#[test]
fn where_interrupts_are_errors_an_operation_is_not_begun_after_an_interrupt() {
    let (mut master, mut slave) = (-1, -1);
    let null = std::ptr::null_mut();
    // SAFETY: both numbers are valid to write to, and the other arguments may be null.
    let opened = unsafe { libc::openpty(&mut master, &mut slave, null, null.cast(), null.cast()) };
    assert_eq!(opened, 0, "{}", io::Error::last_os_error());
    // SAFETY: nobody else has these descriptors.
    let (mut master, slave) =
        unsafe { (std::fs::File::from_raw_fd(master), File::from_raw_fd(slave)) };
    on_workers(1, || {
        let result = timeout(Duration::ZERO, || {
            with_interrupts(Interrupts::Errors, || (&slave).write(b"never"))
        });
        let error = result.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        (&slave).write_all(b"once").unwrap();
    });
    let mut written = [0; 10];
    let length = master.read(&mut written).unwrap();
    assert_eq!(&written[..length], b"once");
}

/// Beyond some number of waits, a coroutine that waits for the lock of a file makes attempts between pauses.
#[test]
fn where_interrupts_are_errors_a_wait_by_pauses_fails() {
    let dir = util::Scratch::new();
    let path = dir.join("file");
    let held = std::fs::File::create(&path).unwrap();
    held.lock().unwrap();
    on_workers(1, || {
        let waits: Vec<_> = (0..100)
            .map(|_| {
                let file = File::open(&path).unwrap();
                spawn(move || file.lock())
            })
            .collect();
        sleep(ms(5));
        let wanted = File::open(&path).unwrap();
        let result = timeout(ms(5), || {
            with_interrupts(Interrupts::Errors, || wanted.lock())
        });
        let error = result.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        held.unlock().unwrap();
        for wait in waits {
            wait.join().unwrap().unwrap();
        }
    });
}

/// Runs `write` in a coroutine of a child process that is cancelled before anything is read from its standard output.
/// Returns what the child has written. The child returns `None`, once the next operation was told of the cancellation.
fn written_when_cancelled(test: &str, write: fn()) -> Option<Vec<u8>> {
    use std::io::BufRead;
    use std::process::Stdio;

    if util::role().is_none() {
        let child = util::again!(test, "child")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        let mut told = io::BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(told.any(|line| line.unwrap() == "cancelled"));
        std::thread::spawn(move || told.for_each(drop));
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        return Some(output.stdout);
    }
    on_workers(1, || {
        let (silent, _peer) = UnixStream::pair().unwrap();
        let (begun, has_begun) = mpsc::channel();
        let coroutine = Builder::new()
            .interrupts(Interrupts::Errors)
            .spawn(move || {
                begun.send(()).unwrap();
                write();
                next_error(&silent)
            });
        let coroutine = coroutine.unwrap();
        has_begun.recv().unwrap();
        coroutine.cancel();
        io::stderr().write_all(b"cancelled\n").unwrap();
        assert!(is_cancelled(&coroutine.join().unwrap()));
    });
    None
}

/// A print macro would panic because of an error.
#[test]
fn where_interrupts_are_errors_a_print_goes_on_to_its_end() {
    const NAME: &str = "where_interrupts_are_errors_a_print_goes_on_to_its_end";
    const LENGTH: usize = 1 << 20; // more than a pipe takes
    let written = written_when_cancelled(NAME, || {
        greenroom::shims::println!("{}", "#".repeat(LENGTH));
    });
    if let Some(written) = written {
        assert_eq!(written.iter().filter(|&&byte| byte == b'#').count(), LENGTH);
    }
}

#[test]
fn a_cancellation_after_a_part_of_a_write_to_stdout_is_told_by_the_next_operation() {
    const NAME: &str =
        "a_cancellation_after_a_part_of_a_write_to_stdout_is_told_by_the_next_operation";
    written_when_cancelled(NAME, || {
        let part = [b'#'; 4 << 10];
        let mut bufs = vec![io::IoSlice::new(&part); 100]; // more than a pipe takes
        bufs.insert(0, io::IoSlice::new(b"a line\n"));
        let mut stdout = greenroom::shims::io::stdout();
        let written = stdout.write_vectored(&bufs).unwrap();
        assert!(written < 100 * part.len());
    });
}

/// It has no error to return, and must not have its caller block the worker, or ask again and again.
#[test]
fn where_interrupts_are_errors_the_wait_for_a_poll_of_another_crate_goes_on() {
    use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

    on_workers(1, || {
        for is_cancelled in [false, true] {
            let (reader, mut writer) = io::pipe().unwrap();
            let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
            epoll::add(&epoll, &reader, EventData::new_u64(0), EventFlags::IN).unwrap();
            let (begun, has_begun) = mpsc::channel();
            let coroutine = Builder::new()
                .interrupts(Interrupts::Errors)
                .spawn(move || {
                    begun.send(()).unwrap();
                    let limit = if is_cancelled { Duration::MAX } else { ms(1) };
                    let left = timeout(limit, || greenroom::__wait_for_poll(&epoll, None));
                    assert_eq!(left, Ok(Some(Duration::ZERO)));
                    assert!(util::has_something(&epoll));
                });
            let coroutine = coroutine.unwrap();
            has_begun.recv().unwrap();
            if is_cancelled {
                coroutine.cancel();
            }
            sleep(ms(5));
            writer.write_all(b"x").unwrap();
            coroutine.join().unwrap();
            drop(reader);
        }
    });
}
