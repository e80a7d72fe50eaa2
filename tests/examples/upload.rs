//! `examples/upload.rs`.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::{fs, io};

use crate::program::{Directory, Server, command, have, status, succeed, without_dates};
use crate::util::noise;

fn start(directory: &Directory, more: &[&str]) -> Server {
    let mut arguments = vec![OsStr::new("127.0.0.1:0"), directory.path().as_os_str()];
    arguments.extend(more.iter().map(OsStr::new));
    Server::start("upload", &arguments)
}

#[test]
fn malformed_requests_are_refused_and_end_only_their_own_connection() {
    let directory = Directory::new();
    let mut server = start(&directory, &["--limit", "1000"]);
    // Another conversation, in the middle of a body.
    let mut other = server.connect();
    let begun =
        b"PUT /other HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nConnection: close\r\n\r\n12345";
    other.write_all(begun).unwrap();

    let chunked = "PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n";
    let post = "POST /count HTTP/1.1\r\nHost: x\r\n";
    let long = "x".repeat(20_000);
    let cases: &[(String, &str)] = &[
        ("\0\0\0\0\r\n\r\n".into(), "400"),
        ("GET\r\n\r\n".into(), "400"),
        ("GET / HTTP/1.1\r\n\r\n".into(), "400"), // no Host
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), "400"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), "505"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".into(), "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n".into(), "400"),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), "431"),
        (
            format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100)),
            "431",
        ),
        (format!("{post}Content-Length: -1\r\n\r\n"), "400"),
        (format!("{post}Content-Length: +1\r\n\r\nx"), "400"),
        (format!("{post}Content-Length: \r\n\r\n"), "400"),
        (format!("{post}Content-Length: 1, 1\r\n\r\nx"), "400"),
        (
            format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\nx"),
            "400",
        ),
        (
            format!("{post}Content-Length: 99999999999999999999\r\n\r\n"),
            "400",
        ),
        (format!("{post}Content-Length: 1001\r\n\r\n"), "413"),
        (format!("{post}Transfer-Encoding: gzip\r\n\r\n"), "501"),
        (
            format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n"),
            "501",
        ),
        (
            format!("{chunked}Content-Length: 5\r\n\r\n0\r\n\r\n"),
            "400",
        ),
        (
            format!("{chunked}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "400",
        ),
        (
            "POST /count HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            "400",
        ),
        (format!("{post}Expect: a miracle\r\n\r\n"), "417"),
        (format!("{chunked}\r\n-5\r\nhello\r\n0\r\n\r\n"), "400"),
        (format!("{chunked}\r\n5\r\nhello0\r\n\r\n"), "400"),
        (format!("{chunked}\r\nFFFFFFFFFFFFFFFFF\r\n"), "400"),
        (format!("{chunked}\r\n3E9\r\n{long}"), "413"),
        (
            "PUT /../a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
            "400",
        ),
        (
            "PUT /.part HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
            "400",
        ),
        (
            "GET /absent HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
            "404",
        ),
        (
            "DELETE /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
            "405",
        ),
    ];
    for (request, wanted) in cases {
        let answer = server.ask(request.as_bytes());
        let shown = &request[..request.len().min(100)];
        assert_eq!(status(&answer), *wanted, "{shown:?}: {answer:?}");
        assert!(answer.contains("Connection: close\r\n"), "{answer:?}");
    }
    // Cut off in the middle: in the head, in a body of known length, in a chunk.
    let cut_off = [
        "GET / HT".to_owned(),
        format!("{post}Content-Length: 10\r\n\r\n12345"),
        format!("{chunked}\r\n5\r\nhe"),
    ];
    for request in cut_off {
        let mut stream = server.connect();
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(status(&answer), "400", "{request:?}: {answer:?}");
    }

    other.write_all(b"67890").unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("other: 10 bytes\n"), "{answer:?}");
    server.assert_alive();
    let files = fs::read_dir(directory.path()).unwrap();
    let names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    assert_eq!(names, ["other"], "nothing is left of what failed");
}

#[test]
fn random_damage_to_requests_never_ends_the_server() {
    let directory = Directory::new();
    let mut server = start(&directory, &["--limit", "1000"]);
    let whole = b"POST /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
        5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n";
    let damage = noise(3 * 300, 11);
    for at in damage.chunks(3) {
        let mut request = whole.to_vec();
        let place = (usize::from(at[0]) + usize::from(at[1])) % request.len();
        request[place] = at[2];
        let mut stream = server.connect();
        stream.write_all(&request).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 "), "{request:?}");
    }
    server.assert_alive();
    assert!(server.ask(whole).contains("the body: 5 bytes\nA: b\n"));
}

#[test]
fn a_choppy_upload_with_trailers_is_stored_as_it_was() {
    let directory = Directory::new();
    let server = start(&directory, &[]);
    let request = b"PUT /choppy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
        5\r\nhello\r\n0007\r\n, world\r\n0\r\nX-Sum: 1\r\n\r\n";
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    for byte in request {
        stream.write_all(&[*byte]).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.ends_with("choppy: 12 bytes\nX-Sum: 1\n"),
        "{answer:?}"
    );
    let stored = fs::read(directory.join("choppy")).unwrap();
    assert_eq!(stored, b"hello, world");
}

#[test]
fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let directory = Directory::new();
    let server = start(&directory, &[]);
    let requests = "PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
        GET /a HTTP/1.1\r\nHost: x\r\n\r\n\
        HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n\
        POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n";
    let answer = without_dates(&server.ask(requests.as_bytes()));
    let wanted = "HTTP/1.1 201 Created\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 11\r\n\r\n\
        a: 3 bytes\n\
        HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
        HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\
        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(answer, wanted);
}

#[test]
fn a_client_of_http_1_0_keeps_its_connection_only_if_it_asks() {
    let directory = Directory::new();
    let server = start(&directory, &[]);
    let kept = "POST /count HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nab";
    let answer = server.ask(format!("{kept}GET /absent HTTP/1.0\r\n\r\n").as_bytes());
    assert!(answer.contains("Connection: keep-alive\r\n\r\nthe body: 2 bytes\nHTTP/1.1 404"));
    assert!(answer.ends_with("Connection: close\r\n\r\nthere is no such file\n"));
}

#[test]
fn curl_waits_for_100_continue_and_keeps_its_connection() {
    if !have(&["curl"]) {
        return;
    }
    let directory = Directory::new();
    let server = start(&directory, &["--limit", "100000"]);
    let content = noise(70_000, 3);
    let source = directory.join("source");
    fs::write(&source, &content).unwrap();
    let url = |name: &str| format!("http://{}/{name}", server.address);
    let upload = |name: &str, chunked: bool| {
        let mut curl = command("curl");
        curl.args(["-sS", "-v", "--max-time", "60", "--expect100-timeout", "50"])
            .args(["-H", "Expect: 100-continue", "-T"])
            .arg(&source);
        if chunked {
            curl.args(["-H", "Transfer-Encoding: chunked"]);
        }
        curl.arg(url(name));
        curl
    };
    for chunked in [true, false] {
        // Two uploads by one curl, then a look at what has come.
        let mut curl = upload("first", chunked);
        curl.arg("-T").arg(&source).arg(url("second"));
        let told = String::from_utf8(succeed(&mut curl).stderr).unwrap();
        assert_eq!(told.matches("< HTTP/1.1 100 Continue").count(), 2, "{told}");
        assert_eq!(told.matches("< HTTP/1.1 201 Created").count(), 2, "{told}");
        assert!(told.contains("Re-using existing connection"), "{told}");
        let first = succeed(command("curl").args(["-sS", &url("first")])).stdout;
        assert_eq!(first, content);
        assert_eq!(fs::read(directory.join("second")).unwrap(), content);
    }
    // Refused without a byte of the body.
    fs::write(&source, noise(200_000, 4)).unwrap();
    let told = String::from_utf8(upload("large", false).output().unwrap().stderr).unwrap();
    assert!(told.contains("< HTTP/1.1 413 "), "{told}");
    assert!(!told.contains("100 Continue\n<"), "{told}");
    assert!(!told.contains("200000 bytes data"), "{told}");
    // Found out in the middle.
    let told = String::from_utf8(upload("large", true).output().unwrap().stderr).unwrap();
    assert!(told.contains("< HTTP/1.1 413 "), "{told}");
    assert!(!directory.join("large").exists());
}

#[test]
fn gigabytes_pass_through_a_few_mebibytes_of_memory() {
    if !have(&["curl"]) {
        return;
    }
    // An unoptimised build is slow; it keeps nothing either.
    let length: u64 = match cfg!(debug_assertions) {
        true => 256 << 20,
        false => 4 << 30,
    };
    let directory = Directory::new();
    let server = start(&directory, &[]);
    for path in ["count", "echo"] {
        let mut curl = command("curl");
        curl.args(["-sS", "-X", "POST", "-T", "-"])
            .arg(format!("http://{}/{path}", server.address))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = curl.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let writer = thread::spawn(move || {
            io::copy(&mut io::repeat(b'x').take(length), &mut input).unwrap();
        });
        let mut output = child.stdout.take().unwrap();
        if path == "count" {
            let mut text = String::new();
            output.read_to_string(&mut text).unwrap();
            assert_eq!(text, format!("the body: {length} bytes\n"));
        } else {
            let echoed = io::copy(&mut output, &mut io::sink()).unwrap();
            assert_eq!(echoed, length);
        }
        writer.join().unwrap();
        assert!(child.wait().unwrap().success());
    }
    let peak = server.status("VmHWM:");
    eprintln!("{length} bytes, twice, through {peak} KiB");
    assert!(peak < 16 << 10, "{peak} KiB");
}

#[test]
fn a_stored_upload_is_not_held_in_memory() {
    let directory = Directory::new();
    let server = start(&directory, &[]);
    let mut stream = server.connect();
    let length = 64 << 20;
    write!(
        stream,
        "PUT /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    )
    .unwrap();
    io::copy(&mut io::repeat(7).take(length), &mut stream).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(&format!("large: {length} bytes\n")));
    assert_eq!(fs::metadata(directory.join("large")).unwrap().len(), length);
    let peak = server.status("VmHWM:");
    assert!(peak < 16 << 10, "{peak} KiB");
}

#[test]
fn clients_that_leave_in_the_middle_leave_nothing() {
    let directory = Directory::new();
    let mut server = start(&directory, &[]);
    assert_eq!(status(&server.ask(b"GET /a HTTP/1.0\r\n\r\n")), "404");
    let before = server.open_descriptors();
    for _ in 0..100 {
        let mut stream = server.connect();
        let begun = b"PUT /left HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345";
        stream.write_all(begun).unwrap();
    }
    crate::util::until("all connections are closed", || {
        server.open_descriptors() <= before
    });
    server.assert_alive();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
