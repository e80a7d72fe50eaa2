//! WebSockets: an echo, and a chat with the page for it. One coroutine reads what a client sends, and one writes
//! what many others have for that client.
//!
//! ```text
//! $ cargo run -p chat -- 127.0.0.1:8080
//! serving on 127.0.0.1:8080
//! ```
//!
//! The chat is at `http://127.0.0.1:8080/`, and the echo at `ws://127.0.0.1:8080/echo`. `kill -TERM` ends the
//! program, when all clients have been told.

#![allow(
    clippy::print_stdout,
    reason = "a program with something to say on standard output"
)]

mod handshake;
#[path = "../../util/http.rs"]
mod http;
mod room;
mod websocket;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use greenroom::ListenOptions;
use greenroom::shims::thread;
use greenroom::signal::{SIGINT, SIGTERM, Signals};
use tungstenite::Message;
use tungstenite::protocol::frame::coding::CloseCode;

use handshake::upgrade;
use http::{Reply, Request};
use room::Room;
use websocket::{Limits, Messages, Outbox};

const HELP: &str = "\
An echo and a chat over WebSockets.

Usage: chat [IP:PORT [--ping SECONDS]]

  GET /        the page of the chat
  GET /socket  a WebSocket of the chat
  GET /echo    a WebSocket that returns each message

  IP:PORT         where to listen [default: 127.0.0.1:8080]
  --ping SECONDS  how long a client may be silent before it is asked whether it is there [default: 20]
";

/// How many seconds a client may be silent before it is asked.
const PING: &str = "20";

/// How long clients have to close their connections when the server stops.
const GRACE: Duration = Duration::from_secs(10);

/// The pause after each message of a client. A client that talks without one would fill the queues of those that
/// read a little slower.
const PACE: Duration = Duration::from_millis(50);

const PAGE: &str = include_str!("../page/index.html");
const STYLE: &str = include_str!("../page/chat.css");
const SCRIPT: &str = include_str!("../page/chat.js");

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => serve("127.0.0.1:8080", PING),
        [address] => serve(address, PING),
        [address, "--ping", seconds] => serve(address, seconds),
        _ => Err(io::Error::other("unknown arguments")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("error: {error}\n\n{HELP}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str, ping: &str) -> io::Result<()> {
    let seconds = ping.parse().ok().filter(|seconds| *seconds > 0);
    let seconds = seconds
        .ok_or_else(|| io::Error::other(format!("'{ping}' is no number of seconds above 0")))?;
    let ping = Duration::from_secs(seconds);
    greenroom::run(|| {
        let mut signals = Signals::new(&[SIGINT, SIGTERM])?;
        // Room for a crowd that comes all at once.
        let listener = ListenOptions::new().backlog(1024).listen(address)?;
        let room = Arc::new(Room::default());
        let server = http::serve(listener, move |request, _, reply| {
            answer(request, reply, &room, ping)
        })?;
        println!("serving on {}", server.local_addr());
        signals.next().transpose()?;
        server.stop(GRACE);
        Ok(())
    })
}

fn answer(
    request: &Request,
    reply: &mut Reply,
    room: &Arc<Room>,
    ping: Duration,
) -> io::Result<()> {
    match request.path_and_query().0 {
        "/" => file(request, reply, "text/html; charset=utf-8", PAGE),
        "/chat.css" => file(request, reply, "text/css; charset=utf-8", STYLE),
        "/chat.js" => file(request, reply, "text/javascript; charset=utf-8", SCRIPT),
        "/echo" => {
            let limits = Limits {
                message: 1 << 20,
                queue: 1,
                ping,
            };
            upgrade(request, reply, limits, echo)
        }
        "/socket" => {
            let limits = Limits {
                message: 4 << 10,
                queue: 256,
                ping,
            };
            let room = Arc::clone(room);
            upgrade(request, reply, limits, move |messages, outbox| {
                chat(&room, messages, outbox)
            })
        }
        _ => reply.text("404 Not Found", "there is no such page"),
    }
}

/// Returns each message.
fn echo(messages: &mut Messages, outbox: &Outbox) {
    for message in messages {
        if outbox.send(message).is_err() {
            return;
        }
    }
}

/// Takes part in the chat: the first message is a name, each later one is said to all.
fn chat(room: &Room, messages: &mut Messages, outbox: &Outbox) {
    let mut member = None;
    while let Some(message) = messages.next() {
        let Message::Text(text) = message else {
            return messages.close(CloseCode::Unsupported, "messages are texts");
        };
        match &member {
            None => match room.join(&text, outbox) {
                Ok(joined) => member = Some(joined),
                Err(why) => room::refuse(outbox, why),
            },
            Some(member) => member.say(&text),
        }
        thread::sleep(PACE);
    }
}

fn file(request: &Request, reply: &mut Reply, kind: &str, content: &str) -> io::Result<()> {
    if !matches!(request.method, "GET" | "HEAD") {
        return reply.start("405 Method Not Allowed", &[("Allow", "GET, HEAD")], Some(0));
    }
    let fields = [
        ("Content-Type", kind),
        ("X-Content-Type-Options", "nosniff"),
        // Nothing from elsewhere, and no script in the page's own text.
        (
            "Content-Security-Policy",
            "default-src 'self'; img-src data:",
        ),
    ];
    reply.start("200 OK", &fields, Some(content.len() as u64))?;
    reply.write_all(content.as_bytes())
}
