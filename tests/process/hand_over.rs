//! Listening sockets that one process hands over to another.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;

use greenroom::server::{Connection, Server, hand_over, listen_fds};
use greenroom::shims::descriptor::PassDescriptors;
use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::os::unix::net::{UnixListener, UnixStream};
use greenroom::shims::process::{Child, Command, Stdio};
use serial_test::parallel;

use crate::util::{self, PATIENCE, on_workers};

/// Starts the process of `test` that has the role `role`.
fn again(test: &str, role: &str) -> Command {
    let again = util::again!(test, role);
    let mut command = Command::new(again.get_program());
    command.args(again.get_args());
    for (name, value) in again.get_envs() {
        command.env(name, value.unwrap());
    }
    command
}

/// Starts the same process by a shell, which sets the variables first, and then executes it.
fn by_a_shell(test: &str, role: &str, variables: &str) -> Command {
    let again = again(test, role);
    let mut shell = Command::new("sh");
    let script = format!("{variables} exec \"$0\" \"$@\"");
    shell.args(["-c", &script]).arg(again.get_program());
    shell.args(again.get_args());
    for (name, value) in again.get_envs() {
        shell.env(name, value.unwrap());
    }
    shell
}

/// Answers a line with the same line, and says who has.
fn answer(mut connection: &Connection, who: &str) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    connection.write_all(format!("{who}: {line}").as_bytes())
}

fn hear(client: &TcpStream) -> String {
    let mut answer = String::new();
    BufReader::new(client).read_line(&mut answer).unwrap();
    answer
}

fn tcp_listener() -> TcpListener {
    TcpListener::bind((util::own_loopback(), 0)).unwrap()
}

/// Waits until a child has written a line of these words.
#[track_caller]
fn assert_says(stdout: &mut impl BufRead, words: &str) {
    let found = stdout.lines().any(|line| line.unwrap().contains(words));
    assert!(found, "the child has not said {words:?}");
}

#[track_caller]
fn assert_succeeds(mut child: Child) {
    drop(child.stdin.take());
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
#[parallel]
fn a_successor_serves_what_waits_in_the_backlog() {
    const NAME: &str = "a_successor_serves_what_waits_in_the_backlog";
    match util::role().as_deref() {
        Some("successor") => return succeed(NAME),
        Some("grandchild") => return assert!(listen_fds().unwrap().is_empty()),
        _ => {}
    }
    on_workers(1, || {
        let server = Server::builder().limit(1);
        let server = server.serve(tcp_listener(), |connection| answer(connection, "first"));
        let server = server.unwrap();
        let mut served = TcpStream::connect(server.local_addr()).unwrap();
        // The successor accepts whatever this process has not.
        while server.stats().active == 0 {
            greenroom::shims::thread::yield_now();
        }
        let queued = [(); 5].map(|()| TcpStream::connect(server.local_addr()).unwrap());
        for mut client in &queued {
            client.write_all(b"hello\n").unwrap();
        }

        let mut command = again(NAME, "successor");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        hand_over(&mut command, &[server.listener().unwrap().as_fd()]).unwrap();
        let mut child = command.spawn().unwrap();
        drop(command);
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        assert_says(&mut stdout, "ready");

        // The first process has one connection, and cannot accept another one.
        for client in &queued {
            assert_eq!(hear(client), "successor: hello\n");
        }
        served.write_all(b"hello\n").unwrap();
        assert_eq!(hear(&served), "first: hello\n");
        drop(served);
        assert_eq!(server.stop(PATIENCE), 0);

        // The socket is the successor's alone now.
        let mut late = TcpStream::connect(server.local_addr()).unwrap();
        late.write_all(b"hello\n").unwrap();
        assert_eq!(hear(&late), "successor: hello\n");
        drop(late);
        assert_succeeds(child);
        // A child that another test has just forked has all descriptors, until it executes its program.
        util::until("the socket is closed", || {
            TcpStream::connect(server.local_addr()).is_err()
        });
    });
}

/// What the successor does.
fn succeed(test: &str) {
    on_workers(1, || {
        let mut inherited = listen_fds().unwrap();
        assert!(listen_fds().unwrap().is_empty(), "they are taken once");
        assert_eq!(inherited[0].name(), None);
        let listener = inherited.pop().unwrap().into_tcp().unwrap();
        assert!(inherited.is_empty());
        let server = Server::serve(listener, |connection| answer(connection, "successor"));
        let server = server.unwrap();
        // Its children inherit the variables, but not the sockets.
        let child = again(test, "grandchild").output().unwrap();
        assert!(child.status.success(), "{child:?}");
        println!("\nready");
        let mut stdin = greenroom::shims::io::stdin();
        stdin.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(server.stop(PATIENCE), 0);
    });
}

#[test]
#[parallel]
fn sockets_in_the_manner_of_systemd_have_names_and_are_checked() {
    const NAME: &str = "sockets_in_the_manner_of_systemd_have_names_and_are_checked";
    if util::role().is_some() {
        let mut inherited = listen_fds().unwrap().into_iter();
        let [unix, tcp, other] = [(); 3].map(|()| inherited.next().unwrap());
        assert_eq!([unix.name(), tcp.name()], [Some("control"), Some("web")]);
        let other = other.into_tcp().unwrap_err();
        assert_eq!(other.kind(), io::ErrorKind::InvalidInput);
        let expected = "descriptor 5 of LISTEN_FDS is no listening TCP socket";
        assert_eq!(other.to_string(), expected);
        let error = tcp.into_unix().unwrap_err();
        let expected = "descriptor 4 of LISTEN_FDS is no listening Unix stream socket";
        assert_eq!(error.to_string(), expected);
        let listener = unix.into_unix().unwrap();
        on_workers(1, || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"hello").unwrap();
        });
        return;
    }
    on_workers(1, || {
        let scratch = util::Scratch::new();
        let unix = UnixListener::bind(scratch.join("socket")).unwrap();
        let tcp = tcp_listener();
        let pair = UnixStream::pair().unwrap();
        let variables = "LISTEN_FDS=3 LISTEN_PID=$$ LISTEN_FDNAMES=control:web:other";
        let mut command = by_a_shell(NAME, "child", variables);
        hand_over(&mut command, &[unix.as_fd(), tcp.as_fd(), pair.0.as_fd()]).unwrap();
        let child = command.spawn().unwrap();
        let mut client = UnixStream::connect(scratch.join("socket")).unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "hello");
        assert_succeeds(child);
    });
}

#[test]
#[parallel]
fn variables_that_are_wrong_or_for_another_process_are_told_apart() {
    const NAME: &str = "variables_that_are_wrong_or_for_another_process_are_told_apart";
    if util::role().is_some() {
        let found = match listen_fds() {
            Ok(inherited) => format!("{} sockets", inherited.len()),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
                error.to_string()
            }
        };
        return println!("\nfound {found}");
    }
    let cases = [
        ("LISTEN_FDS=1 LISTEN_PID=1", "found 0 sockets"),
        ("LISTEN_PID=$$", "found 1 sockets"),
        ("LISTEN_FDS=0 LISTEN_PID=$$", "found 0 sockets"),
        (
            "LISTEN_FDS=two LISTEN_PID=$$",
            "found LISTEN_FDS is not a number: \"two\"",
        ),
        (
            "LISTEN_FDS=2 LISTEN_PID=$$",
            "found LISTEN_FDS is 2, but descriptor 4 is not open",
        ),
        // Of another program that does not know the process's number.
        ("GREENROOM_LISTEN_INODES=0", "found 0 sockets"),
        ("unset GREENROOM_LISTEN_INODES;", "found 1 sockets"),
    ];
    on_workers(1, || {
        let listener = tcp_listener();
        for (variables, found) in cases {
            let mut command = by_a_shell(NAME, "child", variables);
            hand_over(&mut command, &[listener.as_fd()]).unwrap();
            let output = command.output().unwrap();
            assert_says(&mut &*output.stdout, found);
        }
    });
}

#[test]
#[parallel]
fn a_successor_that_does_not_exist_is_an_error() {
    on_workers(1, || {
        let listener = tcp_listener();
        let mut command = Command::new("/no/such/program");
        hand_over(&mut command, &[listener.as_fd(), listener.as_fd()]).unwrap();
        let error = command.spawn().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    });
}

#[test]
#[parallel]
fn a_listener_can_be_sent_to_a_process_that_runs() {
    on_workers(1, || {
        // A process of its own would do the same.
        let (near, far) = UnixStream::pair().unwrap();
        let server = Server::serve(tcp_listener(), |connection| answer(connection, "first"));
        let server = server.unwrap();
        let listener = server.listener().unwrap();
        near.send_fds(&[listener.as_fd()], b"serve").unwrap();
        drop(listener);
        let (_, mut fds) = far.recv_fds(1, &mut [0; 8]).unwrap();
        assert_eq!(server.stop(PATIENCE), 0);
        let mut client = TcpStream::connect(server.local_addr()).unwrap();
        client.write_all(b"hello\n").unwrap();

        let listener = TcpListener::from(fds.pop().unwrap());
        let successor = Server::serve(listener, |connection| answer(connection, "second"));
        assert_eq!(hear(&client), "second: hello\n");
        drop((client, successor));
    });
}
