//! The way to a WebSocket.

use std::io::{Read, Write};

use crate::client::{Client, FIN, TEXT, frame, start, upgrade};

#[test]
fn a_request_that_asks_for_no_websocket_is_refused_with_a_reason() {
    let server = start();
    let good = upgrade("/echo") + "Connection: close\r\n";
    let without = |field: &str| -> String {
        let lines = good.split_inclusive("\r\n");
        lines.filter(|line| !line.starts_with(field)).collect()
    };
    let cases = [
        (
            "GET /echo HTTP/1.1\r\nHost: x\r\n".to_owned(),
            "426",
            "upgrade",
        ),
        (without("Upgrade"), "426", "Upgrade"),
        (without("Sec-WebSocket-Key"), "426", "Sec-WebSocket-Key"),
        (without("Sec-WebSocket-Version"), "426", "Version: 13"),
        (good.replace(": 13", ": 8"), "426", "Version: 13"),
        (good.replace("dGhl", "?"), "426", "Sec-WebSocket-Key"),
        (good.replace("GET", "POST"), "426", "GET"),
        (
            without("Connection: keep-alive, ").replace("HTTP/1.1", "HTTP/1.0"),
            "426",
            "1.1",
        ),
        (format!("{good}Content-Length: 1\r\n"), "400", "body"),
        (format!("{good}Origin: http://y\r\n"), "403", "own page"),
        (format!("{good}Origin: null\r\n"), "403", "own page"),
        (good.replace("/echo", "/else"), "404", "no such page"),
    ];
    for (head, status, why) in cases {
        let answer = server.ask(format!("{head}Connection: close\r\n\r\n").as_bytes());
        let start = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&start), "{head}{answer}");
        assert!(answer.contains(why), "{head}{answer}");
        assert_eq!(
            answer.contains("Sec-WebSocket-Version: 13\r\n"),
            status == "426"
        );
    }
}

#[test]
fn the_server_s_own_page_may_open_a_websocket() {
    let server = start();
    let head = upgrade("/echo") + "Origin: http://x\r\nConnection: close\r\n\r\n";
    // A frame that comes together with the head is the first message; the end of the input follows.
    let request = [
        head.as_bytes(),
        &frame(FIN | TEXT, b"early"),
        &frame(FIN | 8, b""),
    ]
    .concat();
    let mut stream = server.connect();
    stream.write_all(&request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    assert!(answer.ends_with(b"\r\n\r\n\x81\x05early\x88\x00"));
}

#[test]
fn the_page_comes_from_the_same_port_and_allows_nothing_from_elsewhere() {
    let server = start();
    for (path, kind) in [
        ("/", "text/html"),
        ("/chat.css", "text/css"),
        ("/chat.js", "text/javascript"),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = server.ask(request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains(&format!("Content-Type: {kind}; charset=utf-8\r\n")));
        assert!(answer.contains("Content-Security-Policy: default-src 'self'; img-src data:\r\n"));
        assert!(!answer.contains("://"), "{path} names another place");
    }
    let mut client = Client::connect(&server, "/echo");
    client.text("hello");
    client.expect(FIN | TEXT, b"hello");
}
