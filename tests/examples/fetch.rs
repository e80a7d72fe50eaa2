//! `examples/fetch.rs`, with servers that know nothing of greenroom: Python's, and some that do everything wrong.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::program::{Directory, command, example, have};
use crate::util::noise;

fn fetch(arguments: &[&str]) -> Output {
    command(example("fetch")).args(arguments).output().unwrap()
}

/// Python's server of the files in a directory. It ends when this is dropped.
struct Python {
    child: Child,
    address: String,
}

impl Python {
    fn serve(directory: &Directory) -> Python {
        let mut python = command("python3");
        python.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]);
        python.current_dir(directory.path());
        let python = python.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = python.spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        // "Serving HTTP on 127.0.0.1 port 40123 (http://...) ..."
        let mut words = line.split(' ').skip_while(|word| *word != "port").skip(1);
        let address = format!("http://127.0.0.1:{}", words.next().unwrap());
        Python { child, address }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers each connection with `answer`, which gets the path that is asked for. Ends with the test.
fn serve(answer: impl Fn(&mut TcpStream, &str) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = std::sync::Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let answer = std::sync::Arc::clone(&answer);
            thread::spawn(move || {
                let mut line = String::new();
                let _ = BufReader::new(&stream).read_line(&mut line);
                answer(&mut stream, line.split(' ').nth(1).unwrap_or_default());
            });
        }
    });
    address
}

#[test]
fn pages_of_python_arrive_whole() {
    if !have(&["python3"]) {
        return;
    }
    let directory = Directory::new();
    let large = noise(3 << 20, 9);
    fs::write(directory.join("large"), &large).unwrap();
    fs::create_dir(directory.join("sub")).unwrap();
    fs::write(directory.join("sub/index.html"), "index").unwrap();
    let python = Python::serve(&directory);
    let url = |path: &str| format!("{}{path}", python.address);

    let fetched = fetch(&["--print", &url("/large")]);
    assert!(fetched.status.success());
    assert!(fetched.stdout == large);
    // Python redirects from a directory to its slash.
    let urls = [url("/sub"), url("/large"), url("/absent")];
    let fetched = fetch(&urls.each_ref().map(String::as_str));
    let told = String::from_utf8(fetched.stdout).unwrap();
    let lines: Vec<_> = told.lines().collect();
    let sub = url("/sub");
    assert_eq!(lines[0], format!("{sub}: 200, 5 bytes, from {sub}/"));
    assert_eq!(
        lines[1],
        format!("{0}: 200, {1} bytes, from {0}", urls[1], large.len())
    );
    assert!(
        lines[2].starts_with(&format!("{}: 404, ", urls[2])),
        "{told}"
    );
    assert!(fetched.status.success());
}

#[test]
fn each_bad_page_has_its_own_error_and_the_others_arrive() {
    let server = serve(|stream, path| {
        let head = "HTTP/1.1 200 OK\r\n";
        let answer = match path.split('?').next().unwrap() {
            "/good" => format!("{head}Content-Length: 4\r\n\r\ngood"),
            "/open" => format!("{head}\r\nopen"),
            "/early" => format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{head}\r\nearly"),
            "/loop" => "HTTP/1.1 307 Again\r\nLocation: loop?\r\nContent-Length: 0\r\n\r\n".into(),
            "/a/b/relative" => "HTTP/1.1 302 Found\r\nLocation: ../../good?x=y#z\r\n\r\n".into(),
            "/elsewhere" => "HTTP/1.1 302 Found\r\nLocation: ftp://host/\r\n\r\n".into(),
            "/cut" => format!("{head}Content-Length: 10\r\n\r\n12345"),
            "/cut-chunk" => format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nabc"),
            "/bad-chunk" => format!("{head}Transfer-Encoding: chunked\r\n\r\nx\r\nabc"),
            "/cut-head" => format!("{head}Content-Le"),
            "/no-http" => "220 mail.example ESMTP\r\n\r\n".into(),
            "/long-head" => format!("{head}A: {}\r\n\r\n", "x".repeat(20_000)),
            "/endless-head" => {
                // As long as the client takes it.
                while stream.write_all(b"A: b\r\n").is_ok() {}
                return;
            }
            "/two-lengths" => format!("{head}Content-Length: 4\r\nContent-Length: 5\r\n\r\ngood"),
            "/never" | "/stalled" => {
                if path == "/stalled" {
                    write!(stream, "{head}Content-Length: 10\r\n\r\n12345").unwrap();
                }
                // Until the client has gone.
                let _ = stream.read(&mut [0]);
                return;
            }
            _ => panic!("{path}"),
        };
        let _ = stream.write_all(answer.as_bytes());
    });
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let cases = [
        ("/good", "200, 4 bytes, from "),
        ("/open", "200, 4 bytes, from "),
        ("/early", "200, 5 bytes, from "),
        ("/a/b/relative", "200, 4 bytes, from "),
        ("/loop", "redirected: more than 5 times"),
        (
            "/elsewhere",
            "redirected: \"ftp://host/\": only http is spoken here",
        ),
        ("/cut", "reading the body: 5 bytes are missing"),
        ("/cut-chunk", "reading the body: "),
        ("/bad-chunk", "reading the body: malformed size of a chunk"),
        ("/cut-head", "waiting for the answer: the head is cut off"),
        ("/no-http", "waiting for the answer: malformed head"),
        ("/long-head", "waiting for the answer: the head is too long"),
        (
            "/endless-head",
            "waiting for the answer: the head is too long",
        ),
        ("/two-lengths", "reading the body: unknown length"),
        ("/never", "waiting for the answer: timed out"),
        ("/stalled", "reading the body: timed out"),
    ];
    let mut urls: Vec<_> = cases
        .map(|(path, _)| format!("http://{server}{path}"))
        .into();
    let mut wanted: Vec<_> = cases.map(|(_, wanted)| wanted).into();
    let others = [
        (
            format!("http://{closed}/"),
            "connecting: Connection refused",
        ),
        ("http://name.invalid/".into(), "resolving the name: "),
        (
            "https://127.0.0.1/".into(),
            "\"https://127.0.0.1/\": only http is spoken here",
        ),
        (
            "http://127.0.0.1:x/".into(),
            "\"http://127.0.0.1:x/\": not a port",
        ),
        ("http://a b/".into(), "\"http://a b/\": spaces"),
        ("nonsense".into(), "\"nonsense\": not an address"),
    ];
    for (url, error) in others {
        urls.push(url);
        wanted.push(error);
    }
    let mut arguments = vec!["--total", "5"];
    arguments.extend(urls.iter().map(String::as_str));
    let fetched = fetch(&arguments);
    assert!(!fetched.status.success());
    let told = [fetched.stdout, fetched.stderr].concat();
    let told = String::from_utf8(told).unwrap();
    for (url, wanted) in urls.iter().zip(wanted) {
        let line = format!("{url}: {wanted}");
        assert!(
            told.lines().any(|told| told.starts_with(&line)),
            "{line}\n{told}"
        );
    }
    assert_eq!(told.lines().count(), urls.len(), "{told}");
}

#[test]
fn no_more_connections_than_allowed_are_open_at_once() {
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let server = serve(|stream, _| {
        MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(20));
        NOW.fetch_sub(1, Ordering::SeqCst);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    });
    let urls: Vec<_> = (0..60)
        .map(|page| format!("http://{server}/{page}"))
        .collect();
    let mut arguments = vec!["--connections", "3"];
    arguments.extend(urls.iter().map(String::as_str));
    let fetched = fetch(&arguments);
    assert!(fetched.status.success());
    let told = String::from_utf8(fetched.stdout).unwrap();
    // In the order of the arguments.
    let told: Vec<_> = told
        .lines()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    assert_eq!(told, urls);
    assert_eq!(MOST.load(Ordering::SeqCst), 3);
}

#[test]
fn wrong_arguments_are_refused() {
    for wrong in [
        &["--connections", "0", "http://127.0.0.1/"][..],
        &["--total", "x", "http://127.0.0.1/"],
        &["--total"],
        &["--print"],
        &["--unknown", "1"],
    ] {
        let output = fetch(wrong);
        assert!(!output.status.success(), "{wrong:?}");
        assert_eq!(
            output.stderr, b"error: wrong arguments (see --help)\n",
            "{wrong:?}"
        );
    }
}
