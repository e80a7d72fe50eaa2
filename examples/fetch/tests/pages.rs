//! Pages of Python's servers, and of some that do everything wrong.

use std::fs;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::program::{Directory, have};
use crate::servers::{Identity, Python, http};
use crate::util::{ClosedPort, noise};
use crate::{assert_told, fetch};

#[test]
fn pages_of_python_arrive_whole_with_tls_and_without() {
    if !have(&["python3"]) {
        return;
    }
    let directory = Directory::new();
    let large = noise(3 << 20, 9);
    fs::write(directory.join("large"), &large).unwrap();
    fs::create_dir(directory.join("sub")).unwrap();
    fs::write(directory.join("sub/index.html"), "index").unwrap();
    let identity = Identity::of(&["127.0.0.1"]);
    let trusted = identity.certificate();
    for identity in [None, Some(&identity)] {
        let python = Python::serve(&directory, identity);
        let url = |path: &str| format!("{}{path}", python.url);
        let trust = ["--ca", trusted.to_str().unwrap()];

        let page = url("/large");
        let fetched = fetch(&[&trust[..], &["--print", &page]].concat());
        assert!(fetched.status.success(), "{fetched:?}");
        assert!(fetched.stdout == large);
        // Python redirects from a directory to its slash.
        let urls = [url("/sub"), url("/large"), url("/absent")];
        let fetched = fetch(&[&trust[..], &urls.each_ref().map(String::as_str)].concat());
        assert!(fetched.status.success(), "{fetched:?}");
        let told = String::from_utf8(fetched.stdout).unwrap();
        let lines: Vec<_> = told.lines().collect();
        let [sub, large_page, absent] = &urls;
        assert_eq!(lines[0], format!("{sub}: 200, 5 bytes, from {sub}/"));
        let length = large.len();
        let whole = format!("{large_page}: 200, {length} bytes, from {large_page}");
        assert_eq!(lines[1], whole);
        assert!(lines[2].starts_with(&format!("{absent}: 404, ")), "{told}");
    }
}

#[test]
fn each_bad_page_has_its_own_error_and_the_others_arrive() {
    let server = http(|stream, path| {
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
    let closed = ClosedPort::new();
    let cases = [
        ("/good", "200, 4 bytes, from "),
        ("/open", "200, 4 bytes, from "),
        ("/early", "200, 5 bytes, from "),
        ("/a/b/relative", "200, 4 bytes, from "),
        ("/loop", "redirected: more than 5 times"),
        (
            "/elsewhere",
            "redirected: \"ftp://host/\": only http and https are spoken here",
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
    let mut cases =
        Vec::from(cases.map(|(path, wanted)| (format!("http://{server}{path}"), wanted)));
    let others = [
        (
            format!("http://{}/", closed.addr),
            "connecting: Connection refused",
        ),
        ("http://name.invalid/".into(), "resolving the name: "),
        (
            "http://127.0.0.1:x/".into(),
            "\"http://127.0.0.1:x/\": not a port",
        ),
        ("http://a b/".into(), "\"http://a b/\": spaces"),
        ("nonsense".into(), "\"nonsense\": not an address"),
    ];
    cases.extend(others);
    assert_told(&["--total", "15"], &cases);
}

#[test]
fn no_more_connections_than_allowed_are_open_at_once() {
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let server = http(|stream, _| {
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
    let most = MOST.load(Ordering::SeqCst);
    // A machine that stands still may keep the third from coming in time.
    assert!((2..=3).contains(&most), "{most}");
}

#[test]
fn wrong_arguments_are_refused() {
    for wrong in [
        &["--connections", "0", "http://127.0.0.1/"][..],
        &["--total", "x", "http://127.0.0.1/"],
        &["--total"],
        &["--ca"],
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
