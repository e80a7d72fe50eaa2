//! The shims, in a program with the patch: std's functions below them are the patch's.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use greenroom::shims::fs::{File, OpenOptions};
use greenroom::shims::io::pipe;
use greenroom::shims::net::{TcpListener, TcpStream, UdpSocket};
use greenroom::shims::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use greenroom::shims::process::{Command, Stdio};
use greenroom::spawn;

use crate::util::{Scratch, on_workers};

/// What a listener is like when it accepts.
#[derive(Clone, Copy, Debug)]
enum State {
    Fresh,
    /// Others may have its descriptor.
    Shown,
    /// An OS thread accepts from it, too.
    OfThreads,
}

const STATES: [State; 3] = [State::Fresh, State::Shown, State::OfThreads];

/// Talks over connections of a listener that waits for them.
macro_rules! accepts {
    ($listener:expr, $connect:expr) => {
        for state in STATES {
            let listener = $listener;
            let connect = $connect(&listener);
            match state {
                State::Fresh => {}
                State::Shown => drop(listener.as_raw_fd()),
                State::OfThreads => {
                    let listener = listener.try_clone().unwrap();
                    let accepting = std::thread::spawn(move || drop(listener.accept().unwrap()));
                    // The thread has accepted before any coroutine does.
                    drop(connect());
                    while !accepting.is_finished() {
                        greenroom::yield_now();
                    }
                    accepting.join().unwrap();
                }
            }
            let server = spawn(move || {
                for _ in 0..3 {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut line = String::new();
                    BufReader::new(&stream).read_line(&mut line).unwrap();
                    stream.write_all(line.as_bytes()).unwrap();
                }
                listener.set_nonblocking(true).unwrap();
                assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
            });
            for _ in 0..3 {
                // Until the server waits.
                greenroom::yield_now();
                let mut stream = connect();
                greenroom::yield_now();
                stream.write_all(b"hello\n").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert_eq!(answer, "hello\n", "{state:?}");
            }
            server.join().unwrap();
        }
    };
}

#[test]
fn their_listeners_accept() {
    on_workers(1, || {
        accepts!(
            TcpListener::bind("127.0.0.1:0").unwrap(),
            |listener: &TcpListener| {
                let addr = listener.local_addr().unwrap();
                move || TcpStream::connect(addr).unwrap()
            }
        );
        let dir = Scratch::new();
        let mut number = 0;
        accepts!(
            {
                number += 1;
                UnixListener::bind(dir.join(number.to_string())).unwrap()
            },
            |listener: &UnixListener| {
                let addr = listener.local_addr().unwrap();
                move || UnixStream::connect_addr(&addr).unwrap()
            }
        );
    });
}

#[test]
fn their_datagrams_pipes_and_files_are_waited_for() {
    on_workers(1, || {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = udp.local_addr().unwrap();
        let receiver = spawn(move || udp.recv_from(&mut [0; 9]).unwrap().0);
        greenroom::yield_now();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(sender.send_to(b"hello", addr).unwrap(), 5);
        assert_eq!(receiver.join().unwrap(), 5);

        let (one, other) = UnixDatagram::pair().unwrap();
        let receiver = spawn(move || one.recv(&mut [0; 9]).unwrap());
        greenroom::yield_now();
        assert_eq!(other.send(b"hello").unwrap(), 5);
        assert_eq!(receiver.join().unwrap(), 5);

        let (mut reader, mut writer) = pipe().unwrap();
        let receiver = spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all.len()
        });
        greenroom::yield_now();
        // More than a pipe has room for.
        writer.write_all(&[7; 1 << 18]).unwrap();
        drop(writer);
        assert_eq!(receiver.join().unwrap(), 1 << 18);

        let dir = Scratch::new();
        let path = dir.join("file");
        let file = File::create(&path).unwrap();
        file.lock().unwrap();
        (&file).write_all(b"hello").unwrap();
        let opened = path.clone();
        let waits = spawn(move || {
            let mut file = OpenOptions::new().read(true).open(opened).unwrap();
            file.lock().unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            text
        });
        greenroom::yield_now();
        assert!(!waits.is_finished());
        file.unlock().unwrap();
        assert_eq!(waits.join().unwrap(), "hello");
    });
}

#[test]
fn their_processes_are_waited_for() {
    on_workers(1, || {
        let mut cat = Command::new("cat");
        cat.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut cat = cat.spawn().unwrap();
        let mut input = cat.stdin.take().unwrap();
        let waits = spawn(move || cat.wait_with_output().unwrap());
        greenroom::yield_now();
        input.write_all(b"hello").unwrap();
        drop(input);
        let output = waits.join().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, b"hello");
    });
}
