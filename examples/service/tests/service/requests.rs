//! Requests: right ones, wrong ones, and too slow ones.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::Duration;

use crate::client::{Client, post, service, start};
use crate::program::{Directory, command, have, succeed};
use crate::util::until;

#[test]
fn links_redirect_and_survive_the_process() {
    let directory = Directory::new();
    let journal = directory.join("links");
    let address = |number: usize| format!("https://example.com/{number}");
    {
        let server = start(&journal, &[]);
        let mut client = Client::new(&server);
        for number in 1..=20 {
            let made = client.shorten(&address(number));
            assert_eq!(made.status, 201);
            assert_eq!(made.content, format!("/l/{number:x}\n"));
            assert!(made.head.contains(&format!("Location: /l/{number:x}\r\n")));
        }
        // It is killed here.
    }
    let server = start(&journal, &[]);
    let mut client = Client::new(&server);
    for number in 1..=20 {
        let answer = client.get(&format!("/l/{number:x}"));
        assert_eq!(answer.status, 302);
        let location = format!("Location: {}\r\n", address(number));
        assert!(answer.head.contains(&location), "{}", answer.head);
    }
    for absent in [
        "/l/15",
        "/l/0",
        "/l/",
        "/l/ffffffffffffffffffff",
        "/l/x",
        "/other",
    ] {
        assert_eq!(client.get(absent).status, 404, "{absent}");
    }
    assert_eq!(client.shorten(&address(21)).content, "/l/15\n");
}

#[test]
fn a_torn_last_line_of_the_journal_is_no_link() {
    let directory = Directory::new();
    let journal = directory.join("links");
    fs::write(&journal, "https://example.com/1\nhttps://exam").unwrap();
    let server = start(&journal, &[]);
    let mut client = Client::new(&server);
    assert_eq!(client.get("/l/2").status, 404);
    assert_eq!(client.shorten("https://example.com/2").content, "/l/2\n");
    let stored = fs::read_to_string(&journal).unwrap();
    assert_eq!(stored, "https://example.com/1\nhttps://example.com/2\n");
}

#[test]
fn wrong_flags_are_told_and_end_with_status_2() {
    let directory = Directory::new();
    let cases: &[(&[&str], &str)] = &[
        (
            &["--listen", "here"],
            "'here' for '--listen <IP:PORT>': invalid socket address",
        ),
        (
            &["--connections", "0"],
            "'0' for '--connections <N>': a number above zero is needed",
        ),
        (&["--connections", "many"], "a number above zero is needed"),
        (
            &["--deadline", "0"],
            "'0' for '--deadline <SECONDS>': a number of seconds above zero",
        ),
        (
            &["--deadline=-1"],
            "a number of seconds above zero is needed",
        ),
        (
            &["--deadline", "NaN"],
            "a number of seconds above zero is needed",
        ),
        (
            &["--grace", "1e300"],
            "a number of seconds above zero is needed",
        ),
        (&["--log", "loud"], "'loud' for '--log <LEVEL>'"),
        (&["--speed", "9"], "unexpected argument '--speed' found"),
        (&["extra"], "unexpected argument 'extra' found"),
        (&["--journal"], "--journal"),
    ];
    for (flags, why) in cases {
        // A flag may be given once, so none of these is `--listen` again.
        let mut command = command(env!("CARGO_BIN_EXE_service"));
        let output = command.args(*flags).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {told}");
        assert!(
            told.starts_with("error: ") && told.contains(why),
            "{flags:?}: {told}"
        );
    }
    let help = succeed(service(&directory.join("links"), &[]).arg("--help")).stdout;
    let help = String::from_utf8(help).unwrap();
    for flag in [
        "--listen",
        "--journal",
        "--connections",
        "--deadline",
        "--grace",
        "--log",
    ] {
        assert!(help.contains(flag), "{help}");
    }
}

#[test]
fn what_cannot_be_had_is_told_and_ends_with_status_1() {
    let directory = Directory::new();
    let journal = directory.join("links");
    let server = start(&journal, &[]);
    let fail = |flags: &[&str], journal| {
        let output = service(journal, &[]).args(flags).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let shown = journal.display();
    let told = fail(&[], &journal);
    assert_eq!(
        told,
        format!("error: {shown}: another process has this journal\n")
    );
    let told = fail(&[], directory.path());
    assert!(
        told.starts_with(&format!("error: {}: ", directory.path().display())),
        "{told}"
    );
    drop(server);
}

#[test]
fn malformed_requests_end_only_their_own_connection() {
    let directory = Directory::new();
    let mut server = start(&directory.join("links"), &[]);
    let mut other = Client::new(&server);
    let whole = post("https://example.com/");
    let (begun, rest) = whole.split_at(whole.len() - 5);
    other.send(begun).unwrap();

    let long = format!("http://{}", "x".repeat(3000));
    let close = |body: &str| post(body).replace("Host: x", "Host: x\r\nConnection: close");
    let cases = [
        ("\0\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n".to_owned(), "505"),
        (close("ftp://example.com/"), "400"),
        (close("https://"), "400"),
        (close(""), "400"),
        (close("https://example.com/\r\nSet-Cookie: a=b"), "400"),
        (close("https://example.com/ü"), "400"),
        (close(&long), "413"),
        (
            "DELETE /l/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
            "405",
        ),
        (
            "POST /links HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".to_owned(),
            "400",
        ),
    ];
    for (request, wanted) in cases {
        let answer = server.ask(request.as_bytes());
        let status = answer.strip_prefix("HTTP/1.1 ").unwrap_or(&answer);
        assert!(status.starts_with(wanted), "{request:?}: {answer:?}");
    }
    // Not UTF-8.
    let answer = server.ask(b"POST /links HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\nhttp://\xff\xff");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");

    other.send(rest).unwrap();
    assert_eq!(other.answer().unwrap().unwrap().content, "/l/1\n");
    server.assert_alive();
}

#[test]
fn a_request_that_takes_too_long_is_answered_408_and_others_go_on() {
    let directory = Directory::new();
    let server = start(&directory.join("links"), &["--deadline", "0.3"]);
    let mut stalled = Client::new(&server);
    let whole = post("https://example.com/");
    stalled.send(&whole[..whole.len() - 1]).unwrap();
    let mut other = Client::new(&server);
    assert_eq!(other.shorten("https://example.com/").status, 201);
    let answer = stalled.answer().unwrap().unwrap();
    assert_eq!(answer.status, 408, "{answer:?}");
    assert!(answer.head.contains("Connection: close\r\n"), "{answer:?}");
    assert!(stalled.answer().unwrap().is_none());
    assert_eq!(other.get("/l/1").status, 302);
}

#[test]
fn a_client_that_sends_a_byte_at_a_time_is_served() {
    let directory = Directory::new();
    let server = start(&directory.join("links"), &[]);
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    let request = post("https://example.com/").replace("Host: x", "Host: x\r\nConnection: close");
    for byte in request.as_bytes() {
        stream.write_all(&[*byte]).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    let answer = std::io::read_to_string(stream).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer:?}");
}

#[test]
fn connections_beyond_the_limit_wait_for_their_turn() {
    let directory = Directory::new();
    let server = start(&directory.join("links"), &["--connections", "2"]);
    let (mut first, mut second) = (Client::new(&server), Client::new(&server));
    first.get("/");
    second.get("/");
    let third = Client::new(&server);
    let fourth = Client::new(&server);
    let waiting = [third, fourth].map(|mut client| {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        thread::spawn(move || client.answer().unwrap().unwrap().status)
    });
    // The two that are served can make many requests meanwhile, and the others none.
    for _ in 0..50 {
        first.get("/");
        second.get("/");
    }
    let accepted = "service_connections_total 2\n";
    assert!(first.get("/metrics").content.contains(accepted));
    assert!(waiting.iter().all(|client| !client.is_finished()));
    drop(second);
    // One after the other, since each leaves when it has its answer.
    assert_eq!(waiting.map(|client| client.join().unwrap()), [200; 2]);
    let accepted = "service_connections_total 4\n";
    until("all were accepted", || {
        first.get("/metrics").content.contains(accepted)
    });
}

#[test]
fn curl_and_wrk_find_no_fault() {
    if !have(&["curl", "wrk"]) {
        return;
    }
    let directory = Directory::new();
    let mut server = start(&directory.join("links"), &["--log", "warn"]);
    let url = |path: &str| format!("http://{}{path}", server.address);
    let mut curl = command("curl");
    curl.args([
        "-sS",
        "--max-time",
        "60",
        "-d",
        "https://example.com/a?b=c&d",
        &url("/links"),
    ]);
    assert_eq!(succeed(&mut curl).stdout, b"/l/1\n");
    let mut curl = command("curl");
    curl.args([
        "-sS",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{redirect_url}",
        &url("/l/1"),
    ]);
    assert_eq!(
        succeed(&mut curl).stdout,
        b"302 https://example.com/a?b=c&d"
    );
    let mut wrk = command("wrk");
    wrk.args([
        "--connections=100",
        "--duration=1s",
        "--timeout=60s",
        &url("/l/1"),
    ]);
    let told = String::from_utf8(succeed(&mut wrk).stdout).unwrap();
    let is_error = |line: &str| line.contains("Socket errors") || line.contains("Non-2xx");
    assert!(!told.lines().any(is_error), "{told}");
    server.assert_alive();
}
