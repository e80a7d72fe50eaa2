//! A server whose log lines begin with the number of their request. No function has that as a parameter, and it is
//! right three spawns deep, after waits, and on threads of the pool.
//!
//! ```text
//! $ cargo run --example request_id
//! [a] GET /price/17
//! [a] item 17: asks the shop
//! [a] item 17: the shop asks its clerk
//! [a] item 17: the clerk opens the book
//! [a] item 17: the book says 170
//! [a] 200 OK
//! [1] GET /nowhere
//! [1] 404 Not Found
//! [-] 2 requests were answered on one connection
//! ```
//!
//! A client may name its request, by `X-Request-Id`, as the first one has done here. Given an address, it serves
//! until it is killed: `cargo run --example request_id -- 127.0.0.1:8000`, and then
//! `curl -H 'X-Request-Id: ada-1' http://127.0.0.1:8000/price/17`.

#[path = "util/http.rs"]
mod http;
#[path = "util/outcome.rs"]
mod outcome;
#[path = "util/printable.rs"]
mod printable;

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use greenroom::context::ContextKey;
use greenroom::server::Server;
use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::thread::sleep;
use greenroom::{spawn, unblock};

use http::{Reply, Request};
use printable::printable;

/// The name of the request that the caller works on. What a request spawns inherits it.
static REQUEST: ContextKey<String> = ContextKey::new();

fn log(text: &str) {
    REQUEST.with(|name| {
        let name = name.map_or("-", String::as_str);
        println!("[{name}] {text}");
    });
}

/// The client's name for the request, if it can be part of a log line; or else a number.
fn name_of(request: &Request) -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);

    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    match request.field("X-Request-Id") {
        Some(name) if (1..=32).contains(&name.len()) && name.bytes().all(is_plain) => name.into(),
        _ => (LAST.fetch_add(1, Ordering::Relaxed) + 1).to_string(),
    }
}

fn answer(request: &Request, reply: &mut Reply) -> io::Result<()> {
    let name = name_of(request);
    REQUEST.scope(name.clone(), || {
        log(&format!("{} {}", request.method, printable(request.target)));
        let item = request.target.strip_prefix("/price/");
        let item = item.and_then(|item| item.parse().ok());
        let (status, text) = match item {
            Some(item) => {
                let price = spawn(move || ask_shop(item)).join();
                (
                    "200 OK",
                    price.map_err(|_| io::ErrorKind::Other)?.to_string(),
                )
            }
            None => ("404 Not Found", "there is /price/ITEM".to_owned()),
        };
        log(status);
        reply.start(status, &[("X-Request-Id", &name)], Some(text.len() as u64))?;
        reply.write_all(text.as_bytes())
    })
}

/// How long each of these takes to answer.
const PAUSE: Duration = Duration::from_millis(5);

fn ask_shop(item: u32) -> u64 {
    log(&format!("item {item}: asks the shop"));
    sleep(PAUSE);
    spawn(move || ask_clerk(item))
        .join()
        .expect("a clerk answers")
}

fn ask_clerk(item: u32) -> u64 {
    sleep(PAUSE);
    log(&format!("item {item}: the shop asks its clerk"));
    spawn(move || look_up(item))
        .join()
        .expect("it is in the book")
}

fn look_up(item: u32) -> u64 {
    log(&format!("item {item}: the clerk opens the book"));
    // On a thread of the pool, as for a book that can only be read by a call that blocks.
    unblock(move || {
        std::thread::sleep(PAUSE);
        let price = u64::from(item) * 10;
        log(&format!("item {item}: the book says {price}"));
        price
    })
}

fn serve(listener: TcpListener) -> io::Result<Server> {
    http::serve(listener, |request, _, reply| answer(request, reply))
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let done = match &arguments[..] {
        [] => demonstrate(),
        [address] => serve_at(address),
        _ => Err(io::Error::other("more than an address")),
    };
    outcome::status(done, "Usage: request_id [IP:PORT]")
}

fn serve_at(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address).map_err(|error| outcome::about(address, error))?;
    let server = serve(listener)?;
    println!("serving on {}", server.local_addr());
    server.wait()
}

fn demonstrate() -> io::Result<()> {
    let server = serve(TcpListener::bind("127.0.0.1:0")?)?;
    let mut client = TcpStream::connect(server.local_addr())?;
    let first = "GET /price/17 HTTP/1.1\r\nHost: example\r\nX-Request-Id: a\r\n\r\n";
    let second = "GET /nowhere HTTP/1.1\r\nHost: example\r\nConnection: close\r\n\r\n";
    client.write_all([first, second].concat().as_bytes())?;
    let mut answers = String::new();
    client.read_to_string(&mut answers)?;
    let answers = answers.matches("HTTP/1.1 ").count();
    log(&format!(
        "{answers} requests were answered on one connection"
    ));
    Ok(())
}
