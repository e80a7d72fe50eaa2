//! `examples/echo_four_ways` and `examples/serial_echo.rs`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::program::{Directory, Server, book, command, example, have, succeed};
use crate::util::{assert_same_bytes, noise, own_loopback, reset_on_close, until};

const STYLES: [&str; 4] = ["select", "dispatcher", "terminator", "protocol"];

fn start(style: &str) -> Server {
    Server::start("echo_four_ways", &[style.as_ref(), "127.0.0.1:0".as_ref()])
}

fn serial_echo(program: &Path) -> Server {
    Server::start_command(command(program).args(["server", "127.0.0.1:0"]))
}

fn python(name: &str, arguments: &[&str]) -> Command {
    let mut python = command("python3");
    python.arg(book(name)).args(arguments);
    python
}

/// What the book's client prints, which ends each line with `end`.
fn transcript(server: SocketAddr, end: &str) -> String {
    let port = server.port().to_string();
    let output = succeed(&mut python("client.py", &[&port, end]));
    String::from_utf8(output.stdout).unwrap()
}

/// What it should print, if each line comes back with `end`.
fn wanted(end: &str) -> String {
    let lines = [
        "A few lines of data",
        "to test the operation",
        "of both server and client.",
    ];
    let replies = lines.map(|line| format!("Sent: {line}\nReceived: {line}{end}\n"));
    format!("Connected to server\n{}", replies.concat())
}

/// The log with names for the addresses of clients, in the order in which they came.
fn anonymous(log: &str) -> String {
    let mut names = BTreeMap::new();
    let mut lines = String::new();
    for line in log.lines() {
        let (text, address) = line.rsplit_once(' ').unwrap();
        let next = names.len();
        let name = *names.entry(address.to_owned()).or_insert(next);
        lines += &format!("{text} client {name}\n");
    }
    lines
}

#[test]
fn the_books_clients_get_the_same_from_all_servers() {
    if !have(&["python3"]) {
        return;
    }
    for style in STYLES {
        let server = start(style);
        match style {
            "terminator" => assert_eq!(transcript(server.address, r"\n"), wanted("")),
            _ => {
                assert_eq!(transcript(server.address, ""), wanted(""), "{style}");
                assert_eq!(transcript(server.address, r"\n"), wanted("\n"), "{style}");
            }
        }
    }
    let server = serial_echo(&example("serial_echo"));
    assert_eq!(transcript(server.address, ""), wanted(""));
    assert_eq!(transcript(server.address, r"\n"), wanted("\n"));
}

#[test]
fn the_server_by_select_logs_what_the_books_does() {
    if !have(&["python3"]) {
        return;
    }
    let logs = [
        start("select"),
        Server::start_command(&mut python("select_server.py", &[])),
    ];
    let logs = logs.map(|server| {
        for (before, end) in ["", r"\n"].into_iter().enumerate() {
            transcript(server.address, end);
            until("the client has gone", || {
                server.log().matches("disconnected").count() > before
            });
        }
        anonymous(&server.log())
    });
    assert_eq!(logs[0], logs[1]);
    assert!(logs[0].contains("22 bytes to client 1\nNo data currently remain for client 1\n"));
}

/// How many OS threads a server of coroutines may have: its workers, and a few others.
fn most_threads() -> usize {
    thread::available_parallelism().unwrap().get() + 6
}

#[test]
fn the_dispatchers_end_by_themselves_after_their_last_client() {
    // Nothing else listens there when the listener is closed.
    let address = format!("{}:0", own_loopback());
    let arguments = ["dispatcher", &address, "3"];
    let mut server = Server::start("echo_four_ways", &arguments.map(OsStr::new));
    let mut clients = [(); 3].map(|()| server.connect());
    // In another order than they came.
    clients.rotate_left(1);
    for mut client in clients {
        client.write_all(b"hello").unwrap();
        let mut echo = [0; 5];
        client.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"hello");
        until("the listener is closed", || {
            TcpStream::connect(server.address).is_err()
        });
        server.assert_alive();
    }
    server.assert_ends();
}

#[test]
fn five_hundred_clients_of_asyncio_are_served_at_once() {
    if !have(&["python3"]) {
        return;
    }
    for style in STYLES.into_iter().filter(|&style| style != "terminator") {
        let server = start(style);
        let port = server.address.port().to_string();
        let output = succeed(&mut python("asyncio_clients.py", &[&port, "500"]));
        assert_eq!(output.stdout, b"500\n", "{style}");
        assert!(server.status("Threads:") <= most_threads(), "{style}");
    }
}

/// What comes back of `sent`.
fn echo_of(style: &str, sent: &[u8]) -> Vec<u8> {
    let kept = |byte: &&u8| style != "terminator" || **byte != b'\n';
    sent.iter().filter(kept).copied().collect()
}

/// Lines of different content.
fn lines(length: usize) -> Vec<u8> {
    let mut lines = noise(length, 5);
    for line in lines.chunks_mut(1000) {
        line.iter_mut().for_each(|byte| *byte = b'a' + *byte % 26);
        *line.last_mut().unwrap() = b'\n';
    }
    lines
}

/// Has `sent` echoed over `stream` by a thread that writes while the caller reads.
fn writer(stream: &TcpStream, sent: &[u8]) -> thread::JoinHandle<()> {
    let (mut stream, sent) = (stream.try_clone().unwrap(), sent.to_vec());
    thread::spawn(move || {
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    })
}

#[test]
fn five_hundred_clients_with_slow_readers_among_them_get_their_echo() {
    let sent = lines(8 << 20);
    for style in STYLES {
        let server = start(style);
        // They send more than all buffers hold, and read nothing for now.
        let slow: Vec<_> = (0..3).map(|_| server.connect()).collect();
        let writers: Vec<_> = slow.iter().map(|stream| writer(stream, &sent)).collect();

        let mut crowd: Vec<_> = (0..497).map(|_| server.connect()).collect();
        for round in 0..3 {
            for (number, stream) in crowd.iter_mut().enumerate() {
                writeln!(stream, "client {number}, round {round}").unwrap();
            }
            for (number, stream) in crowd.iter_mut().enumerate() {
                let text = format!("client {number}, round {round}\n");
                let mut echo = vec![0; echo_of(style, text.as_bytes()).len()];
                stream.read_exact(&mut echo).unwrap();
                assert!(text.as_bytes().starts_with(&echo), "{style}: {text:?}");
            }
        }
        for (mut stream, writer) in slow.into_iter().zip(writers) {
            let mut echo = Vec::new();
            stream.read_to_end(&mut echo).unwrap();
            assert_same_bytes(&echo, &echo_of(style, &sent));
            writer.join().unwrap();
        }
        if style == "select" {
            let log = server.log();
            assert!(log.contains(" bytes remain for "), "a send took a part");
        }
    }
}

#[test]
fn a_client_that_has_sent_everything_gets_all_of_its_echo() {
    let sent = lines(1 << 20);
    for style in STYLES {
        let server = start(style);
        let mut stream = server.connect();
        let writer = writer(&stream, &sent);
        // By now the server has seen the end, or waits for room.
        thread::sleep(Duration::from_millis(50));
        let mut echo = Vec::new();
        stream.read_to_end(&mut echo).unwrap();
        assert_same_bytes(&echo, &echo_of(style, &sent));
        writer.join().unwrap();
    }
}

#[test]
fn clients_that_reset_or_send_without_end_end_no_other_conversation() {
    for style in STYLES {
        let mut server = start(style);
        let mut other = server.connect();
        for _ in 0..20 {
            let mut stream = server.connect();
            stream.write_all(&lines(5000)).unwrap();
            reset_on_close(&stream);
        }
        if style == "terminator" {
            // A record must end some time.
            let mut stream = server.connect();
            let _ = stream.write_all(&[b'x'; 200_000]);
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert_eq!(rest, b"");
            let told = "did not come within 65536 bytes";
            until("the log tells", || server.log().contains(told));
        }
        other.write_all(b"still here\n").unwrap();
        let mut echo = [0; 10];
        other.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"still here", "{style}");
        server.assert_alive();
    }
}

/// The program without its first line is one for std: the compiler says so, and both do the same.
#[test]
fn one_line_ports_the_serial_server_and_client() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = fs::read_to_string(root.join("examples/serial_echo.rs")).unwrap();
    let line = "use greenroom::shims as std; // The program as it was begins below.\n";
    let unported = source.replacen(line, "", 1);
    assert!(unported.len() < source.len() && !unported.contains("greenroom"));
    let directory = Directory::new();
    let (file, threads) = (
        directory.join("serial_echo.rs"),
        directory.join("serial_echo"),
    );
    fs::write(&file, unported).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    succeed(
        Command::new(rustc)
            .args(["--edition=2024", "-o"])
            .args([&threads, &file]),
    );

    let coroutines = example("serial_echo");
    for program in [&threads, &coroutines] {
        let server = serial_echo(program);
        // A client that is silent holds up no other.
        let mut silent: Vec<_> = (0..100).map(|_| server.connect()).collect();
        for client in [&threads, &coroutines] {
            let address = server.address.to_string();
            let output = succeed(command(client).args(["client", &address])).stdout;
            assert_eq!(String::from_utf8(output).unwrap(), wanted(""));
        }
        let os_threads = server.status("Threads:");
        match program == &threads {
            true => assert!(os_threads > silent.len()),
            false => assert!(os_threads <= most_threads()),
        }
        let mut last = silent.pop().unwrap();
        last.write_all(b"hello").unwrap();
        let mut echo = [0; 5];
        last.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"hello");
    }
    let lost = command(&coroutines)
        .args(["client", "nowhere"])
        .output()
        .unwrap();
    assert!(!lost.status.success());
}
