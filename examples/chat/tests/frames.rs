//! The frames of RFC 6455, to `/echo`.

use std::io::Write;
use std::net::Shutdown;

use crate::client::{
    BINARY, CLOSE, CONTINUATION, Client, FIN, INVALID, PING, PONG, PROTOCOL, TEXT, TOO_LONG, close,
    frame, head, start,
};
use crate::util::{noise, reset_on_close, until};

/// The longest message that the server takes.
const LONGEST: usize = 1 << 20;

#[test]
fn messages_of_all_sizes_come_back() {
    let server = start();
    let mut client = Client::connect(&server, "/echo");
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, LONGEST] {
        let bytes = noise(length, 7);
        client.send(&frame(FIN | BINARY, &bytes));
        client.expect(FIN | BINARY, &bytes);
        let text = "ä".repeat(length / 2);
        client.text(&text);
        client.expect(FIN | TEXT, text.as_bytes());
    }
}

#[test]
fn a_message_in_fragments_comes_back_whole_and_pings_between_them_are_answered_at_once() {
    let server = start();
    let mut client = Client::connect(&server, "/echo");
    let [first, second] = ["ä".as_bytes()[0], "ä".as_bytes()[1]];
    // A character may begin in one fragment and end in the next.
    client.send(&frame(TEXT, &[b'x', first]));
    client.send(&frame(FIN | PING, b"one"));
    client.expect(FIN | PONG, b"one");
    client.send(&frame(CONTINUATION, &[second]));
    client.send(&frame(CONTINUATION, b""));
    client.send(&frame(FIN | PONG, b"not asked for"));
    client.send(&frame(FIN | PING, &[7; 125]));
    client.expect(FIN | PONG, &[7; 125]);
    client.send(&frame(FIN | CONTINUATION, b"y"));
    client.expect(FIN | TEXT, "xäy".as_bytes());
}

#[test]
fn frames_may_come_byte_by_byte_or_all_at_once() {
    let server = start();
    let mut client = Client::connect(&server, "/echo");
    client.stream.set_nodelay(true).unwrap();
    for byte in frame(FIN | TEXT, &[b'x'; 200]) {
        client.send(&[byte]);
    }
    client.expect(FIN | TEXT, &[b'x'; 200]);
    let many: Vec<_> = (0..100u8).flat_map(|n| frame(FIN | BINARY, &[n])).collect();
    client.send(&many);
    for n in 0..100 {
        client.expect(FIN | BINARY, &[n]);
    }
}

#[test]
fn a_close_is_answered_with_its_code_after_what_was_sent_before() {
    let server = start();
    for (payload, answer) in [
        (vec![], vec![]),
        (close(1000, b""), close(1000, b"")),
        (close(1001, b"bye"), close(1001, b"bye")),
        (close(4321, "ä".as_bytes()), close(4321, "ä".as_bytes())),
    ] {
        let mut client = Client::connect(&server, "/echo");
        client.text("last words");
        client.send(&frame(FIN | CLOSE, &payload));
        client.expect(FIN | TEXT, b"last words");
        client.expect(FIN | CLOSE, &answer);
        assert_eq!(client.receive(), None);
    }
}

#[test]
fn a_bad_frame_ends_only_its_own_conversation_with_the_code_that_says_why() {
    let mut server = start();
    let mut other = Client::connect(&server, "/echo");
    // The other conversation is in the midst of a message all the time.
    other.send(&frame(BINARY, b""));
    let unmasked = |first, payload: &[u8]| [&[first, payload.len() as u8], payload].concat();
    let cases = [
        ("unmasked", unmasked(FIN | TEXT, b"hello"), PROTOCOL),
        ("an unmasked ping", unmasked(FIN | PING, b""), PROTOCOL),
        ("reserved bit 1", frame(FIN | 0x40 | TEXT, b"x"), PROTOCOL),
        ("reserved bit 2", frame(FIN | 0x20 | TEXT, b"x"), PROTOCOL),
        ("reserved bit 3", frame(FIN | 0x10 | TEXT, b"x"), PROTOCOL),
        ("reserved kind 3", frame(FIN | 3, b"x"), PROTOCOL),
        ("reserved kind 11", frame(FIN | 11, b""), PROTOCOL),
        ("a ping in fragments", frame(PING, b"x"), PROTOCOL),
        ("a close in fragments", frame(CLOSE, b""), PROTOCOL),
        ("a long ping", frame(FIN | PING, &[b'x'; 126]), PROTOCOL),
        (
            "a long close",
            frame(FIN | CLOSE, &close(1000, &[b'x'; 124])),
            PROTOCOL,
        ),
        (
            "nothing to continue",
            frame(FIN | CONTINUATION, b"x"),
            PROTOCOL,
        ),
        (
            "a message within another",
            [frame(TEXT, b"x"), frame(FIN | TEXT, b"y")].concat(),
            PROTOCOL,
        ),
        ("half a code", frame(FIN | CLOSE, &[3]), PROTOCOL),
        ("code 0", frame(FIN | CLOSE, &close(0, b"")), PROTOCOL),
        ("code 999", frame(FIN | CLOSE, &close(999, b"")), PROTOCOL),
        ("code 1005", frame(FIN | CLOSE, &close(1005, b"")), PROTOCOL),
        ("code 1006", frame(FIN | CLOSE, &close(1006, b"")), PROTOCOL),
        ("code 5000", frame(FIN | CLOSE, &close(5000, b"")), PROTOCOL),
        (
            "a bad reason",
            frame(FIN | CLOSE, &close(1000, b"\xff")),
            INVALID,
        ),
        (
            "a text with a stray byte",
            frame(FIN | TEXT, b"a\xffb"),
            INVALID,
        ),
        (
            "a text that is cut off",
            frame(FIN | TEXT, b"\xc3"),
            INVALID,
        ),
        ("a surrogate", frame(FIN | TEXT, b"\xed\xa0\x80"), INVALID),
        (
            "a stray byte in the second of three fragments",
            [frame(TEXT, b"a"), frame(CONTINUATION, b"\xff")].concat(),
            INVALID,
        ),
        (
            "one byte too long",
            head(FIN | BINARY, LONGEST as u64 + 1),
            TOO_LONG,
        ),
        ("exabytes", head(FIN | BINARY, u64::MAX >> 1), TOO_LONG),
        (
            "too long in fragments",
            [frame(BINARY, &[0; LONGEST]), frame(CONTINUATION, b"x")].concat(),
            TOO_LONG,
        ),
    ];
    for (what, bytes, code) in cases {
        let mut client = Client::connect(&server, "/echo");
        client.text("before");
        client.expect(FIN | TEXT, b"before");
        client.send(&bytes);
        // Not echoed any more.
        let _ = client.stream.write_all(&frame(FIN | TEXT, b"after"));
        let (first, payload) = client.receive().expect(what);
        assert_eq!(first, FIN | CLOSE, "{what}: {payload:?}");
        let got = u16::from_be_bytes([payload[0], payload[1]]);
        assert_eq!(got, code, "{what}");
        assert!(payload.len() <= 125, "{what}");
        assert_eq!(client.receive(), None, "{what}");

        other.send(&frame(CONTINUATION, what.as_bytes()));
        other.send(&frame(FIN | PING, b"?"));
        other.expect(FIN | PONG, b"?");
    }
    other.send(&frame(FIN | CONTINUATION, b""));
    let (first, payload) = other.receive().unwrap();
    assert_eq!(first, FIN | BINARY);
    assert!(payload.ends_with(b"too long in fragments"));
    server.assert_alive();
}

#[test]
fn a_client_that_is_refused_while_it_sends_still_reads_why() {
    let server = start();
    for _ in 0..10 {
        let mut client = Client::connect(&server, "/echo");
        client.send(&head(FIN | BINARY, 8 << 20));
        // More than the buffers of the connection hold.
        let mut stream = client.stream.try_clone().unwrap();
        let sender = std::thread::spawn(move || stream.write_all(&vec![0; 8 << 20]));
        assert_eq!(client.code_of_close(), TOO_LONG);
        drop(client);
        let _ = sender.join().unwrap();
    }
}

#[test]
fn a_client_that_disappears_leaves_nothing_behind() {
    let server = start();
    // With this one, the server has all descriptors that it keeps.
    let mut stays = Client::connect(&server, "/echo");
    stays.text("hello");
    stays.expect(FIN | TEXT, b"hello");
    let before = server.open_descriptors();
    let ways: [fn(Client); 6] = [
        |client| drop(client),
        |client| client.stream.shutdown(Shutdown::Write).unwrap(),
        |client| reset_on_close(&client.stream),
        |mut client| client.send(&frame(FIN | TEXT, b"x")[..3]),
        |mut client| client.send(&frame(TEXT, b"x")),
        |mut client| {
            client.send(&frame(FIN | BINARY, &noise(LONGEST, 1)));
            reset_on_close(&client.stream);
        },
    ];
    for leave in ways.iter().cycle().take(120) {
        let mut client = Client::connect(&server, "/echo");
        client.text("hello");
        client.expect(FIN | TEXT, b"hello");
        leave(client);
    }
    until("the connections are closed", || {
        server.open_descriptors() <= before
    });
    stays.text("still here");
    stays.expect(FIN | TEXT, b"still here");
}
