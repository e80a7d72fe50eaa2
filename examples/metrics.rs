//! An exporter of the runtime's numbers, in the text format of Prometheus.
//!
//! ```text
//! $ cargo run --example metrics
//! # HELP greenroom_coroutines The coroutines that have not ended.
//! # TYPE greenroom_coroutines gauge
//! greenroom_coroutines 4
//! ```
//!
//! This asks its own server, and prints the first of its metrics. Given an address, it serves there until it is
//! killed: `cargo run --example metrics -- 127.0.0.1:9464`, and then `curl 127.0.0.1:9464/metrics`.

#[path = "util/http.rs"]
mod http;
#[path = "util/outcome.rs"]
mod outcome;
#[path = "util/prometheus.rs"]
mod prometheus;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use greenroom::server::Server;
use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::{park, spawn};

use prometheus::{CONTENT_TYPE, Text};

fn serve(listener: TcpListener) -> io::Result<Server> {
    http::serve(listener, |request, _, reply| {
        if request.path_and_query().0 != "/metrics" {
            return reply.text("404 Not Found", "the metrics are at /metrics");
        }
        let mut text = Text::default();
        text.runtime()?;
        let fields = [("Content-Type", CONTENT_TYPE)];
        reply.start("200 OK", &fields, Some(text.0.len() as u64))?;
        reply.write_all(text.0.as_bytes())
    })
}

fn ask(server: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (_, body) = response.split_once("\r\n\r\n").unwrap_or_default();
    Ok(body.to_owned())
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let done = match &arguments[..] {
        [] => demonstrate(),
        [address] => serve_at(address),
        _ => Err(io::Error::other("more than an address")),
    };
    outcome::status(done, "Usage: metrics [IP:PORT]")
}

fn serve_at(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address).map_err(|error| outcome::about(address, error))?;
    println!("http://{}/metrics", listener.local_addr()?);
    serve(listener)?.wait()
}

fn demonstrate() -> io::Result<()> {
    let server = serve(TcpListener::bind("127.0.0.1:0")?)?;
    // Two more, beside the server and its answer.
    (0..2).for_each(|_| drop(spawn(park)));
    let body = ask(*server.local_addr())?;
    body.lines().take(3).for_each(|line| println!("{line}"));
    Ok(())
}
