//! `examples/web.rs`.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::program::{
    Directory, PATIENCE, Server, command, have, read_to_the_end, status, succeed, without_dates,
};
use crate::restarts::{Servers, assert_no_errors};
use crate::util::{noise, until};

fn start(arguments: &[&str]) -> Server {
    let mut all = vec![OsStr::new("127.0.0.1:0")];
    all.extend(arguments.iter().map(OsStr::new));
    Server::start("web", &all)
}

fn get(server: &Server, path: &str) -> String {
    server.ask(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

/// How many clients wait for news.
fn waiting(server: &Server) -> usize {
    let status = get(server, "/status");
    let (_, waiting) = body(&status).split_once(", ").unwrap();
    waiting.split(' ').next().unwrap().parse().unwrap()
}

/// Asks for news, and waits until the server is waiting for some.
fn wait_for_news(server: &Server, after: u32) -> TcpStream {
    let before = waiting(server);
    let mut stream = server.connect();
    write!(
        stream,
        "GET /news?after={after} HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    .unwrap();
    until("the client waits", || waiting(server) > before);
    stream
}

/// Reads an answer with a length.
fn read_answer(stream: &mut impl BufRead) -> String {
    let (mut answer, mut length) = (String::new(), 0);
    while !answer.ends_with("\r\n\r\n") {
        let start = answer.len();
        assert_ne!(stream.read_line(&mut answer).unwrap(), 0, "{answer:?}");
        if let Some(value) = answer[start..].strip_prefix("Content-Length: ") {
            length = value.trim_end().parse().unwrap();
        }
    }
    stream.take(length).read_to_string(&mut answer).unwrap();
    answer
}

fn publish(server: &Server, text: &str) -> String {
    let length = text.len();
    let head = format!("POST /news HTTP/1.0\r\nContent-Length: {length}\r\n\r\n");
    server.ask(format!("{head}{text}").as_bytes())
}

#[test]
fn pages_are_found_by_method_and_path() {
    let server = start(&[]);
    let cases = [
        ("GET /", "200", "It works"),
        ("GET /?a=b", "200", "It works"),
        ("GET /hello/world", "200", "Hello, world!"),
        ("GET /hello/a%20b%2f%c3%a4", "200", "Hello, a b/ä!"),
        ("GET /hello/", "404", "there is no /hello/"),
        ("GET /hello/%zz", "400", "that is no name"),
        ("GET /hello", "404", ""),
        ("GET /plaintext", "200", "Hello, World!"),
        ("GET /ticks/3", "200", "tick 1\ntick 2\ntick 3\n"),
        ("GET /ticks/0", "200", ""),
        ("GET /ticks/1001", "400", ""),
        ("GET /ticks/-1", "400", ""),
        ("GET /news", "400", ""),
        ("GET /news?after=x", "400", ""),
        ("GET /files/a", "404", ""),
        ("DELETE /news", "405", ""),
        ("POST /hello/world", "405", ""),
    ];
    for (request, wanted, text) in cases {
        let answer = server.ask(format!("{request} HTTP/1.0\r\n\r\n").as_bytes());
        assert_eq!(status(&answer), wanted, "{request}: {answer:?}");
        assert!(body(&answer).contains(text), "{request}: {answer:?}");
    }
    let refused = server.ask(b"DELETE /news HTTP/1.0\r\n\r\n");
    assert!(refused.contains("\r\nAllow: GET, POST\r\n"), "{refused:?}");
    let head = server.ask(b"HEAD /plaintext HTTP/1.0\r\n\r\n");
    assert!(head.contains("Content-Length: 13\r\n") && body(&head).is_empty());
}

#[test]
fn files_come_from_the_directory_and_from_nowhere_else() {
    let directory = Directory::new();
    let secret = Directory::new();
    fs::write(secret.join("secret"), "secret").unwrap();
    fs::write(directory.join("page.html"), "<p>page").unwrap();
    fs::create_dir(directory.join("sub")).unwrap();
    let large = noise(1 << 20, 5);
    fs::write(directory.join("sub/a b"), &large).unwrap();
    symlink(secret.path(), directory.join("link")).unwrap();
    let mut server = start(&[directory.path().to_str().unwrap()]);

    let page = get(&server, "/files/page.html");
    assert_eq!(body(&page), "<p>page");
    assert!(page.contains("Content-Type: text/html; charset=utf-8\r\n"));
    let mut stream = server.connect();
    write!(stream, "GET /files/sub/a%20b HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(&large));

    let outside = secret.path().to_str().unwrap();
    let up = "../".repeat(10);
    for path in [
        "link/secret".to_owned(),
        format!("{up}{outside}/secret"),
        format!("{}{outside}/secret", up.replace("..", "%2e%2E")),
        format!("/{outside}/secret"),
        "sub".to_owned(),
        "page.html%00".to_owned(),
        "page.html/".to_owned(),
    ] {
        let answer = get(&server, &format!("/files/{path}"));
        assert_eq!(status(&answer), "404", "{path}: {answer:?}");
        assert!(!body(&answer).starts_with("secret"), "{path}: {answer:?}");
    }
    server.assert_alive();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = start(&[]);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let post = "POST /news HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n0\r\n\r\n";
    let mut requests = String::new();
    let mut wanted = String::new();
    for number in 0..200 {
        requests += &get(&format!("/hello/{number}"));
        let text = format!("Hello, {number}!\n");
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n";
        wanted += &format!("{head}Content-Length: {}\r\n\r\n{text}", text.len());
        if number == 100 {
            requests += post;
            let head = "HTTP/1.1 201 Created\r\nContent-Type: text/plain; charset=utf-8\r\n";
            wanted += &format!("{head}Content-Length: 2\r\n\r\n1\n");
        }
    }
    // All at once, and in pieces that end anywhere.
    let whole = server.connect();
    let pieces = server.connect();
    pieces.set_nodelay(true).unwrap();
    for (mut stream, length) in [(whole, requests.len()), (pieces, 777)] {
        for piece in requests.as_bytes().chunks(length) {
            stream.write_all(piece).unwrap();
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        let answers = without_dates(&answers);
        assert_eq!(answers.replace("\r\n\r\n2\n", "\r\n\r\n1\n"), wanted);
    }
}

#[test]
fn news_reach_all_that_wait() {
    let server = start(&[]);
    let mut clients: Vec<_> = (0..10)
        .map(|_| BufReader::new(wait_for_news(&server, 0)))
        .collect();
    assert_eq!(body(&publish(&server, "first")), "1\n");
    for client in &mut clients {
        let answer = read_answer(client);
        assert_eq!(body(&answer), "1: first\n");
        // On the same connection.
        let again = b"GET /news?after=0 HTTP/1.1\r\nHost: x\r\n\r\n";
        client.get_mut().write_all(again).unwrap();
        assert_eq!(body(&read_answer(client)), "1: first\n");
    }
    assert_eq!(waiting(&server), 0);
    assert_eq!(status(&publish(&server, " ")), "400");
    assert_eq!(status(&publish(&server, &"x".repeat(1001))), "413");
}

#[test]
fn a_client_that_leaves_frees_the_handler_that_waits_for_news() {
    let server = start(&[]);
    waiting(&server);
    let before = server.open_descriptors();
    let clients: Vec<_> = (0..20).map(|_| wait_for_news(&server, 0)).collect();
    assert_eq!(waiting(&server), 20);
    drop(clients);
    until("all have been freed", || waiting(&server) == 0);
    until("all connections are closed", || {
        server.open_descriptors() <= before
    });
    assert_eq!(server.log().lines().count(), 1, "{}", server.log());
}

#[test]
fn a_streamed_answer_comes_while_it_is_made() {
    let server = start(&[]);
    let mut stream = BufReader::new(server.connect());
    let request = b"GET /ticks/1000 HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.get_mut().write_all(request).unwrap();
    let mut lines = stream.by_ref().lines().map(Result::unwrap);
    lines
        .find(|line| line == "Transfer-Encoding: chunked")
        .unwrap();
    // The last one is 100 s away.
    lines.find(|line| line == "tick 2").unwrap();
    let before = server.open_descriptors();
    drop(stream);
    until("the client's leaving is noticed", || {
        server.open_descriptors() < before
    });
}

#[test]
fn slow_clients_end_at_their_limits_and_others_do_not_notice() {
    let server = start(&["--head", "0.5", "--idle", "3"]);
    let mut other = BufReader::new(server.connect());
    let mut ask_by_other = || {
        let request = b"GET /plaintext HTTP/1.1\r\nHost: x\r\n\r\n";
        other.get_mut().write_all(request).unwrap();
        assert_eq!(body(&read_answer(&mut other)), "Hello, World!");
    };
    ask_by_other();

    // A head a byte at a time, which is never idle for long.
    let start = Instant::now();
    let mut slow = server.connect();
    let mut reader = slow.try_clone().unwrap();
    let dribble = thread::spawn(move || {
        for byte in b"GET / HTTP/1.1\r\nA: ".iter().chain(&[b'x'; 10_000]) {
            if slow.write_all(&[*byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
    let answer = read_to_the_end(&mut reader, start);
    assert_eq!(status(&answer), "408", "{answer:?}");
    dribble.join().unwrap();

    // A silent client, one that stops in a head, and one that stops in a body.
    let silent = server.ask(b"");
    assert_eq!(silent, "");
    let stopped = server.ask(b"GET / HTTP/1.1\r\nHo");
    assert_eq!(status(&stopped), "408", "{stopped:?}");
    let request = b"POST /news HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc";
    let stopped = server.ask(request);
    assert_eq!(status(&stopped), "408", "{stopped:?}");
    // An idle connection ends without an answer that nobody has asked for.
    let mut stream = server.connect();
    stream
        .write_all(b"GET /plaintext HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("Hello, World!"), "{answer:?}");
    assert_eq!(body(&get(&server, "/plaintext")), "Hello, World!");
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let directory = Directory::new();
    let large = fs::File::create(directory.join("large")).unwrap();
    large.set_len(1 << 30).unwrap();
    let server = start(&[directory.path().to_str().unwrap(), "--idle", "3"]);
    let mut stream = server.connect();
    write!(stream, "GET /files/large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    until("the server has given up", || {
        server.log().lines().count() > 1
    });
    let peak = server.status("VmHWM:");
    assert!(peak < 32 << 10, "{peak} KiB");
}

#[test]
fn a_thousand_connections_of_wrk_have_no_errors() {
    if !have(&["wrk"]) {
        return;
    }
    let server = start(&[]);
    let mut wrk = command("wrk");
    wrk.args(["--connections=1000", "--duration=3s", "--timeout=60s"]);
    wrk.arg(format!("http://{}/plaintext", server.address));
    assert_no_errors(succeed(&mut wrk));
}

#[test]
fn python_and_curl_read_the_answers() {
    if !have(&["curl", "python3"]) {
        return;
    }
    let server = start(&[]);
    let url = |path: &str| format!("http://{}{path}", server.address);
    let page = succeed(command("curl").args(["-sS", &url("/"), &url("/ticks/2")]));
    let page = String::from_utf8(page.stdout).unwrap();
    assert!(page.starts_with("<!doctype html>"), "{page}");
    assert!(page.ends_with("</script>\ntick 1\ntick 2\n"), "{page}");

    let program = "
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1])
for path in ['/plaintext', '/ticks/3', '/nowhere', '/hello/python']:
    connection.request('GET', path)
    answer = connection.getresponse()
    print(answer.status, answer.read())
connection.request('POST', '/news', body=iter([b'chun', b'ked']), encode_chunked=True,
                   headers={'Transfer-Encoding': 'chunked'})
answer = connection.getresponse()
print(answer.status, answer.read())
connection.request('GET', '/news?after=0')
print(connection.getresponse().read())
";
    let address = server.address.to_string();
    let told = succeed(command("python3").args(["-c", program, &address]));
    let wanted = "200 b'Hello, World!'
200 b'tick 1\\ntick 2\\ntick 3\\n'
404 b'there is no /nowhere\\n'
200 b'Hello, python!\\n'
201 b'1\\n'
b'1: chunked\\n'
";
    assert_eq!(String::from_utf8(told.stdout).unwrap(), wanted);
}

#[test]
fn a_reload_frees_those_that_wait_and_the_successor_answers() {
    let servers = Servers::start("web");
    let (first, address) = servers.next();
    let connect = || {
        let stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(stream)
    };
    let ask = |client: &mut BufReader<TcpStream>, path: &str| {
        write!(client.get_mut(), "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        read_answer(client)
    };
    let mut observer = connect();
    let mut poller = connect();
    write!(
        poller.get_mut(),
        "GET /news?after=0 HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    .unwrap();
    until("the client waits", || {
        ask(&mut observer, "/status").ends_with(" 1 wait for news\n")
    });

    kill_process(first, Signal::HUP).unwrap();
    let (second, _) = servers.next();
    // The client is told to ask again. By then, only the new process accepts.
    let answer = read_answer(&mut poller);
    assert_eq!(status(&answer), "204", "{answer:?}");
    assert!(!answer.contains("Content-Length"), "{answer:?}");
    assert_eq!(poller.read(&mut [0]).unwrap(), 0);
    until("the old process has closed the idle connection", || {
        observer.read(&mut [0]).unwrap() == 0
    });
    let answer = ask(&mut connect(), "/status");
    let process = format!("process {}, 0 wait", second.as_raw_nonzero());
    assert!(body(&answer).starts_with(&process), "{answer:?}");
    servers.end(second);
}
