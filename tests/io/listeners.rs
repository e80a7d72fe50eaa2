//! Accepting keeps the mode that the user has set, for all processes that share the listener.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::os::unix::net::UnixListener;
use greenroom::shims::thread;
use rustix::fs::OFlags;
use serial_test::serial;

use crate::util;

fn is_nonblocking(fd: &impl AsFd) -> bool {
    let flags = rustix::fs::fcntl_getfl(fd).unwrap();
    flags.contains(OFlags::NONBLOCK)
}

#[test]
#[serial]
fn a_listener_stays_in_blocking_mode_for_others_while_a_coroutine_accepts() {
    util::everywhere(|| {
        let others = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = others.local_addr().unwrap();
        let listener = TcpListener::from(others.try_clone().unwrap());
        let near = std::net::TcpStream::connect(addr).unwrap();
        let (far, _) = listener.accept().unwrap();
        assert!(!is_nonblocking(&others) && !is_nonblocking(&far));
        let waiting = thread::spawn(move || listener.accept().map(drop));
        util::settle();
        assert!(!is_nonblocking(&others), "while a coroutine waits");
        drop((near, std::net::TcpStream::connect(addr).unwrap()));
        waiting.join().unwrap().unwrap();
        assert!(!is_nonblocking(&others), "when that is over");
    });
}

#[test]
#[serial]
fn a_mode_that_the_user_has_set_by_the_descriptor_stays() {
    util::everywhere(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let accept = || {
            let _near = std::net::TcpStream::connect(addr).unwrap();
            listener.accept().unwrap();
        };
        let fd = listener.as_fd().try_clone_to_owned().unwrap();
        accept();
        rustix::io::ioctl_fionbio(&fd, true).unwrap();
        accept();
        assert!(is_nonblocking(&fd));
    });
}

#[test]
#[serial]
fn what_is_set_by_a_duplicate_that_was_given_away_holds() {
    util::everywhere(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        listener.accept().unwrap();
        let given = std::net::TcpListener::from(listener.try_clone().unwrap());
        given.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut file = near.makefile();
        assert_eq!(near.read_timeout().unwrap(), None);
        let given = std::net::TcpStream::from(near);
        given.set_read_timeout(Some(util::ms(20))).unwrap();
        let read = util::uninterrupted(|| file.read(&mut [0]));
        assert_eq!(read.unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}

#[test]
#[serial]
fn a_unix_listener_stays_in_blocking_mode_for_others_while_a_coroutine_accepts() {
    util::everywhere(|| {
        let any = std::os::unix::net::SocketAddr::from_pathname("").unwrap();
        let others = std::os::unix::net::UnixListener::bind_addr(&any).unwrap();
        let addr = others.local_addr().unwrap();
        let listener = UnixListener::from(others.try_clone().unwrap());
        let waiting = thread::spawn(move || listener.accept().map(drop));
        util::settle();
        assert!(!is_nonblocking(&others), "while a coroutine waits");
        drop(std::os::unix::net::UnixStream::connect_addr(&addr).unwrap());
        waiting.join().unwrap().unwrap();
        assert!(!is_nonblocking(&others), "when that is over");
    });
}

/// A worker that blocked in an accept would keep the client, which runs on it, from connecting again.
#[test]
#[serial]
fn coroutines_and_threads_accept_from_one_listener_and_block_no_worker() {
    const CONNECTIONS: usize = 200;
    for threads in [0, 2] {
        util::on_workers(2, || {
            let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
            let addr = listener.local_addr().unwrap();
            let accepted = util::counter();
            let accept = {
                let (listener, accepted) = (Arc::clone(&listener), Arc::clone(&accepted));
                move || {
                    while listener.accept().is_ok_and(|(stream, _)| {
                        // Counted before the client knows of it.
                        accepted.fetch_add(1, Ordering::SeqCst);
                        // The last clients do not wait for it.
                        let _ = (&stream).write_all(b"x");
                        accepted.load(Ordering::SeqCst) <= CONNECTIONS
                    }) {}
                }
            };
            let coroutines: Vec<_> = (0..4).map(|_| thread::spawn(accept.clone())).collect();
            let threads: Vec<_> = (0..threads)
                .map(|_| std::thread::spawn(accept.clone()))
                .collect();
            // Each is one connection at a time, so all of them race for it.
            for _ in 0..CONNECTIONS {
                let mut stream = TcpStream::connect(addr).unwrap();
                stream.read_exact(&mut [0]).unwrap();
            }
            assert_eq!(accepted.load(Ordering::SeqCst), CONNECTIONS);
            // One more for each that still waits.
            while !(coroutines.iter().all(|one| one.is_finished())
                && threads.iter().all(|one| one.is_finished()))
            {
                drop(TcpStream::connect(addr).unwrap());
                greenroom::yield_now();
            }
        });
    }
}

/// Starts a child that has the listener as its standard input, and serves on one worker.
fn server(test: &str, listener: &std::net::TcpListener, control: &std::net::TcpListener) -> Child {
    let addr = control.local_addr().unwrap();
    let mut command: Command = util::again!(test, &addr.to_string());
    let input = OwnedFd::from(listener.try_clone().unwrap());
    command.stdin(input).stdout(Stdio::null());
    command.spawn().unwrap()
}

/// The child's part: sends `k` to each client, and echoes what comes on the control connection until that
/// ends.
fn serve(control: &str) {
    // SAFETY: nobody else in this process uses descriptor 0.
    let listener = TcpListener::from(unsafe { OwnedFd::from_raw_fd(libc::STDIN_FILENO) });
    let control = control.to_owned();
    util::on_workers(1, move || {
        let mut control = TcpStream::connect(&*control).unwrap();
        thread::spawn(move || {
            loop {
                let mut stream = listener.accept().unwrap().0;
                // The parent may end first.
                let _ = stream.write_all(b"k");
            }
        });
        let mut byte = [0];
        while control.read_exact(&mut byte).is_ok() && byte != *b"x" {
            control.write_all(&byte).unwrap();
        }
        std::process::exit(0);
    });
}

fn greet(listener: &std::net::TcpListener) {
    let mut stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut greeting = [0];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"k");
}

#[test]
#[serial]
fn a_process_that_ends_while_it_accepts_leaves_the_mode_to_its_parent() {
    const NAME: &str = "a_process_that_ends_while_it_accepts_leaves_the_mode_to_its_parent";
    if let Some(control) = util::role() {
        return serve(&control);
    }
    for by_signal in [true, false] {
        let [listener, control] =
            [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let mut child = server(NAME, &listener, &control);
        let (mut control, _) = control.accept().unwrap();
        (0..3).for_each(|_| greet(&listener));
        util::settle();
        match by_signal {
            true => child.kill().unwrap(),
            false => control.write_all(b"x").unwrap(),
        }
        assert_eq!(child.wait().unwrap().success(), !by_signal);
        assert!(!is_nonblocking(&listener), "by a signal: {by_signal}");
    }
}

/// A worker that is held up by an accept would answer only after the next connection.
#[test]
#[serial]
fn processes_that_accept_from_one_listener_do_not_hold_each_other_up() {
    const NAME: &str = "processes_that_accept_from_one_listener_do_not_hold_each_other_up";
    const CONNECTIONS: usize = 1000;
    if let Some(control) = util::role() {
        return serve(&control);
    }
    let [listener, control] = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let mut children = [(); 3].map(|()| server(NAME, &listener, &control));
    let mut controls = [(); 3].map(|()| control.accept().unwrap().0);
    for control in &controls {
        control.set_read_timeout(Some(util::PATIENCE)).unwrap();
    }
    for _ in 0..CONNECTIONS {
        greet(&listener);
        for control in &mut controls {
            control.write_all(b"?").unwrap();
            let mut answer = [0];
            control.read_exact(&mut answer).expect("an answer in time");
        }
    }
    for control in &mut controls {
        control.write_all(b"x").unwrap();
    }
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert!(!is_nonblocking(&listener));
}
