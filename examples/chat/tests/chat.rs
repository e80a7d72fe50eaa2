//! The chat.

use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{
    AWAY, BINARY, CLOSE, Client, FIN, POLICY, TEXT, TOO_LONG, UNSUPPORTED, close, frame, program,
    start, terminate,
};
use crate::program::Server;

fn said(event: &Value) -> (&str, &str) {
    assert_eq!(event["kind"], "said", "{event}");
    assert!(event["at"].as_u64() > Some(1_700_000_000_000), "{event}");
    (
        event["name"].as_str().unwrap(),
        event["text"].as_str().unwrap(),
    )
}

/// Reads events up to this one.
fn wait_for(client: &mut Client, wanted: &Value) {
    while client.event() != *wanted {}
}

#[test]
fn members_see_who_is_there_who_comes_and_who_leaves() {
    let server = start();
    let (mut ada, welcome) = Client::join(&server, "Ada");
    assert_eq!(
        welcome,
        json!({"kind": "welcome", "names": ["Ada"], "history": []})
    );
    let (mut ben, welcome) = Client::join(&server, " Ben ");
    assert_eq!(welcome["names"], json!(["Ada", "Ben"]));
    assert_eq!(ada.event(), json!({"kind": "joined", "name": "Ben"}));
    let (cleo, _) = Client::join(&server, "Cleo");
    wait_for(&mut ada, &json!({"kind": "joined", "name": "Cleo"}));

    ben.send(&frame(FIN | CLOSE, &close(1000, b"")));
    assert_eq!(ben.code_of_close(), 1000);
    assert_eq!(ada.event(), json!({"kind": "left", "name": "Ben"}));
    // Without a farewell.
    drop(cleo);
    assert_eq!(ada.event(), json!({"kind": "left", "name": "Cleo"}));
    let (_ben, welcome) = Client::join(&server, "Ben");
    assert_eq!(welcome["names"], json!(["Ada", "Ben"]));
}

#[test]
fn a_name_that_cannot_be_had_is_refused_and_another_one_may_follow() {
    let server = start();
    let (_ada, _) = Client::join(&server, "Ada");
    let mut client = Client::connect(&server, "/socket");
    for (name, why) in [
        ("", "1 to 20 characters"),
        ("   ", "1 to 20 characters"),
        (&"x".repeat(21), "1 to 20 characters"),
        ("a\nb", "control characters"),
        ("ADA", "taken"),
    ] {
        client.text(name);
        let event = client.event();
        assert_eq!(event["kind"], "refused", "{event}");
        assert!(event["why"].as_str().unwrap().contains(why), "{event}");
    }
    client.text(&"ä".repeat(20));
    assert_eq!(client.event()["kind"], "welcome");
}

#[test]
fn a_new_member_is_shown_the_last_messages() {
    let server = start();
    let (mut ada, _) = Client::join(&server, "Ada");
    for n in 0..25 {
        ada.text(&format!(" message {n}\n"));
        ada.text("  ");
    }
    for n in 0..25 {
        assert_eq!(said(&ada.event()), ("Ada", &*format!("message {n}")));
    }
    let (_, welcome) = Client::join(&server, "Ben");
    let history = welcome["history"].as_array().unwrap();
    let texts: Vec<_> = history
        .iter()
        .map(|event| said(event).1.to_owned())
        .collect();
    let last: Vec<_> = (5..25).map(|n| format!("message {n}")).collect();
    assert_eq!(texts, last);
}

#[test]
fn two_hundred_members_receive_all_messages_in_the_same_order() {
    const MEMBERS: usize = 200;
    const ROUNDS: usize = 3;
    let server = start();
    let mut members: Vec<_> = (0..MEMBERS)
        .map(|n| Client::join(&server, &format!("member {n}")).0)
        .collect();
    for (n, member) in members.iter_mut().enumerate() {
        if n < MEMBERS - 1 {
            let last = json!({"kind": "joined", "name": format!("member {}", MEMBERS - 1)});
            wait_for(member, &last);
        }
    }
    for round in 0..ROUNDS {
        for member in &mut members {
            member.text(&format!("round {round}"));
        }
        let mut orders = members
            .iter_mut()
            .map(|member| -> Vec<Value> { (0..MEMBERS).map(|_| member.event()).collect() });
        let first = orders.next().unwrap();
        let mut names: Vec<_> = first.iter().map(|event| said(event).0).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), MEMBERS, "each member has said something");
        for order in orders {
            assert!(order == first, "another order in round {round}");
        }
    }
}

/// Sets how much the kernel keeps of what this client does not read.
fn set_receive_buffer(stream: &impl AsRawFd, size: libc::c_int) {
    // SAFETY: the option takes a `c_int`, and the length is that of one.
    let done = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const size).cast(),
            size_of_val(&size) as libc::socklen_t,
        )
    };
    assert_eq!(done, 0);
}

#[test]
fn a_member_that_does_not_read_is_dropped_and_slows_nobody() {
    const TALKERS: usize = 20;
    /// How long the server waits until a client has taken a frame.
    const STALL: Duration = Duration::from_secs(10);
    let server = start();
    let stream = server.connect();
    set_receive_buffer(&stream, 4 << 10);
    let mut slow = Client::on(stream, "/socket");
    slow.text("slow");
    assert_eq!(slow.event()["kind"], "welcome");

    let start = Instant::now();
    let left = json!({"kind": "left", "name": "slow"});
    let talkers: Vec<_> = (0..TALKERS)
        .map(|n| Client::join(&server, &format!("talker {n}")).0)
        .collect();
    let talkers: Vec<_> = talkers
        .into_iter()
        .map(|mut talker| {
            let left = left.clone();
            thread::spawn(move || {
                // Each waits for the messages of all before its next one, so that none is ever slow itself.
                loop {
                    talker.text(&"x".repeat(4000));
                    let mut said = 0;
                    while said < TALKERS {
                        let event = talker.event();
                        if event == left {
                            return talker;
                        }
                        said += usize::from(event["kind"] == "said");
                    }
                }
            })
        })
        .collect();
    let mut talkers: Vec<_> = talkers
        .into_iter()
        .map(|talker| talker.join().unwrap())
        .collect();
    talkers[0].text("still here");
    while talkers[1].event()["text"] != "still here" {}
    // Otherwise it would take minutes to read what was sent.
    set_receive_buffer(&slow.stream, 1 << 20);
    // What was queued comes before the end, unless the server has waited for it for too long.
    let code = loop {
        match slow.try_receive() {
            Ok(Some((first, payload))) if first == FIN | CLOSE => {
                break Some(u16::from_be_bytes([payload[0], payload[1]]));
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => break None,
        }
    };
    match code {
        Some(code) => assert_eq!(code, POLICY),
        None => assert!(start.elapsed() >= STALL, "what was queued is lost"),
    }
}

#[test]
fn a_silent_client_is_asked_and_dropped_if_it_does_not_answer() {
    let server = Server::start_command(&mut program(&["127.0.0.1:0", "--ping", "5"]));
    let (mut here, _) = Client::join(&server, "here");
    let (mut dead, _) = Client::join(&server, "dead");
    // `event` answers pings.
    assert_eq!(here.event(), json!({"kind": "joined", "name": "dead"}));
    assert_eq!(here.event(), json!({"kind": "left", "name": "dead"}));
    assert_eq!(dead.code_of_close(), POLICY);
    here.text("still here");
    assert_eq!(said(&here.event()), ("here", "still here"));
}

#[test]
fn a_message_that_is_no_text_or_too_long_ends_only_its_sender_s_conversation() {
    let server = start();
    let (mut ada, _) = Client::join(&server, "Ada");
    for (bytes, code) in [
        (frame(FIN | BINARY, b"x"), UNSUPPORTED),
        (frame(FIN | TEXT, &[b'x'; 4097]), TOO_LONG),
    ] {
        let (mut bad, _) = Client::join(&server, "bad");
        assert_eq!(ada.event(), json!({"kind": "joined", "name": "bad"}));
        bad.send(&bytes);
        assert_eq!(bad.code_of_close(), code);
        assert_eq!(ada.event(), json!({"kind": "left", "name": "bad"}));
    }
    ada.text("<b>hello</b> \u{0} \" \\ 💚");
    assert_eq!(said(&ada.event()).1, "<b>hello</b> \u{0} \" \\ 💚");
}

#[test]
fn a_stop_tells_all_clients_and_ends_the_program() {
    let mut server = start();
    let (mut ada, _) = Client::join(&server, "Ada");
    let mut nameless = Client::connect(&server, "/socket");
    let mut echo = Client::connect(&server, "/echo");
    echo.text("begun");
    echo.expect(FIN | TEXT, b"begun");
    nameless.text("");
    nameless.event();
    terminate(&server);
    for client in [&mut ada, &mut nameless, &mut echo] {
        assert_eq!(client.code_of_close(), AWAY);
    }
    server.assert_ends();
}

#[test]
fn a_stop_does_not_wait_for_clients_that_are_dead() {
    let mut server = start();
    let (_ada, _) = Client::join(&server, "Ada");
    terminate(&server);
    // It does not answer the close.
    server.assert_ends();
}

#[test]
fn bad_arguments_are_refused_with_a_reason() {
    for (arguments, why) in [
        (&["nowhere"][..], "error: "),
        (&["127.0.0.1:0", "--ping"], "error: unknown arguments"),
        (
            &["127.0.0.1:0", "--ping", "0"],
            "error: '0' is no number of seconds above 0",
        ),
        (
            &["127.0.0.1:0", "--ping", "x"],
            "error: 'x' is no number of seconds above 0",
        ),
    ] {
        let output = program(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(complaint.starts_with(why), "{complaint}");
        assert!(complaint.contains("Usage: chat "), "{complaint}");
    }
}
