//! `examples/request_id.rs`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use crate::program::Server;
use crate::util::until;

/// How many clients there are at once, each with a connection of its own.
const CLIENTS: usize = 100;

/// How many requests each of them makes, one after the other.
const REQUESTS: usize = 3;

/// How many lines the server logs for a request.
const LINES: usize = 6;

/// Writes a request. The last one of a client does not name itself.
fn ask(mut stream: &TcpStream, client: usize, request: usize) {
    let name = match request + 1 {
        REQUESTS => String::new(),
        _ => format!("X-Request-Id: {}\r\n", name(client, request)),
    };
    let item = item(client, request);
    write!(
        stream,
        "GET /price/{item} HTTP/1.1\r\nHost: x\r\n{name}\r\n"
    )
    .unwrap();
}

fn item(client: usize, request: usize) -> usize {
    1000 + client * REQUESTS + request
}

fn name(client: usize, request: usize) -> String {
    format!("client-{client}-{request}")
}

/// The name that an answer has for its request, and its content.
fn read_answer(stream: &mut BufReader<TcpStream>) -> (String, String) {
    let (mut name, mut length, mut line) = (String::new(), 0, String::new());
    while line != "\r\n" {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "no whole answer");
        if let Some(value) = line.strip_prefix("X-Request-Id: ") {
            name = value.trim_end().to_owned();
        } else if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim_end().parse().unwrap();
        }
    }
    let mut content = vec![0; length];
    stream.read_exact(&mut content).unwrap();
    (name, String::from_utf8(content).unwrap())
}

#[test]
fn each_line_has_the_name_of_its_request_however_requests_interleave() {
    let mut server = Server::start("request_id", &["127.0.0.1:0".as_ref()]);
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| BufReader::new(server.connect()))
        .collect();
    // The item that each name stands for.
    let mut items = HashMap::new();
    for request in 0..REQUESTS {
        for (number, client) in clients.iter().enumerate() {
            ask(client.get_ref(), number, request);
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let (answered, price) = read_answer(client);
            let item = item(number, request);
            assert_eq!(price, (item * 10).to_string());
            match request + 1 {
                // A number of the server's: nothing is left of the name before.
                REQUESTS => assert!(answered.parse::<usize>().is_ok(), "{answered}"),
                _ => assert_eq!(answered, name(number, request)),
            }
            let before = items.insert(answered, item);
            assert_eq!(before, None, "two requests of one name");
        }
    }
    let count = CLIENTS * REQUESTS * LINES;
    until("all lines are there", || {
        server.log().lines().count() >= count
    });

    let log = server.log();
    let mut lines: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut changes = 0;
    let mut last = "";
    for line in log.lines() {
        let (name, text) = line.strip_prefix('[').unwrap().split_once("] ").unwrap();
        changes += usize::from(name != last);
        last = name;
        lines.entry(name).or_default().push(text);
    }
    assert_eq!(lines.len(), items.len());
    for (name, lines) in lines {
        let item = items[name];
        let wanted = [
            format!("GET /price/{item}"),
            format!("item {item}: asks the shop"),
            format!("item {item}: the shop asks its clerk"),
            format!("item {item}: the clerk opens the book"),
            format!("item {item}: the book says {}", item * 10),
            "200 OK".to_owned(),
        ];
        assert_eq!(lines, wanted, "{name}");
    }
    assert!(changes > items.len(), "the requests did not interleave");
    server.assert_alive();
}

#[test]
fn a_name_that_could_forge_a_line_is_not_taken() {
    let server = Server::start("request_id", &["127.0.0.1:0".as_ref()]);
    let long = "x".repeat(33);
    for name in ["a b", "a] [b", "\x1b[31m", "ä", "", &long] {
        let request = format!(
            "GET /price/1 HTTP/1.1\r\nHost: x\r\nX-Request-Id: {name}\r\nConnection: close\r\n\r\n"
        );
        let answer = server.ask(request.as_bytes());
        let refused = answer.starts_with("HTTP/1.1 400 ");
        assert!(refused || answer.contains("X-Request-Id: "), "{answer}");
        assert!(
            !answer.contains(&format!("X-Request-Id: {name}\r\n")),
            "{answer}"
        );
    }
    for target in [
        "/",
        "/price/",
        "/price/-1",
        "/price/4294967296",
        "/price/1/2",
        "/\u{9b}2J",
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert!(server.ask(request.as_bytes()).starts_with("HTTP/1.1 404 "));
    }
    let names = server.log();
    for line in names.lines() {
        assert!(!line.contains(char::is_control), "{line:?}");
        let (name, _) = line.strip_prefix('[').unwrap().split_once("] ").unwrap();
        assert!(name.parse::<u64>().is_ok(), "{line}");
    }
}
