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

use std::fmt::{self, Display, Write as _};
use std::io::{self, Read, Write};
use std::net::SocketAddr;

use greenroom::server::Server;
use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::{Metrics, metrics, park, parked_by_reason, spawn};

/// One metric after the other, in the text format.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(self.0, "# HELP greenroom_{name} {help}")?;
        writeln!(self.0, "# TYPE greenroom_{name} {kind}")
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) -> fmt::Result {
        self.head(name, "gauge", help)?;
        writeln!(self.0, "greenroom_{name} {value}")
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) -> fmt::Result {
        self.head(name, "counter", help)?;
        writeln!(self.0, "greenroom_{name} {value}")
    }
}

fn text(metrics: &Metrics, parked: &[(&str, usize)]) -> Result<String, fmt::Error> {
    let mut text = Text(String::new());
    let Metrics {
        pool,
        stacks,
        run_queue_delay: delay,
        ..
    } = metrics;
    text.gauge(
        "coroutines",
        "The coroutines that have not ended.",
        metrics.live,
    )?;
    text.gauge(
        "coroutines_runnable",
        "The coroutines that wait for their turn.",
        metrics.runnable,
    )?;
    text.head("coroutines_parked", "gauge", "The coroutines that wait.")?;
    for (reason, count) in parked {
        let name = "greenroom_coroutines_parked";
        writeln!(text.0, "{name}{{reason=\"{reason}\"}} {count}")?;
    }
    text.gauge(
        "workers",
        "The threads that run coroutines.",
        metrics.workers,
    )?;
    text.counter(
        "spawned_total",
        "The coroutines that were spawned.",
        metrics.spawned,
    )?;
    text.counter("turns_total", "The turns of coroutines.", metrics.turns)?;
    text.counter(
        "wakes_total",
        "The turns that came from a wake-up.",
        metrics.wakes,
    )?;
    text.counter(
        "yields_total",
        "The turns that ended with a yield.",
        metrics.yields,
    )?;
    text.counter(
        "steals_total",
        "The coroutines that were stolen.",
        metrics.steals,
    )?;
    text.counter("polls_total", "The polls for events.", metrics.polls)?;
    text.counter(
        "sleeps_total",
        "The polls that have waited.",
        metrics.sleeps,
    )?;
    text.gauge("pool_threads", "The threads of the pool.", pool.threads)?;
    text.gauge("pool_threads_idle", "Those without a job.", pool.idle)?;
    text.gauge(
        "pool_jobs_queued",
        "The jobs that wait for a thread.",
        pool.queued,
    )?;
    text.gauge("stacks", "The stacks that are reserved.", stacks.count)?;
    text.gauge(
        "stacks_reserved_bytes",
        "Their usable address space.",
        stacks.reserved,
    )?;
    text.gauge(
        "stacks_mapped_bytes",
        "The address space of all stacks.",
        stacks.mapped,
    )?;

    text.head(
        "run_queue_delay_seconds",
        "histogram",
        "Waits of runnable coroutines, sampled.",
    )?;
    let mut so_far = 0;
    for (bound, count) in delay.buckets() {
        // Buckets are cumulative.
        so_far += count;
        let bound = bound.map_or("+Inf".to_owned(), |bound| bound.as_secs_f64().to_string());
        writeln!(
            text.0,
            "greenroom_run_queue_delay_seconds_bucket{{le=\"{bound}\"}} {so_far}"
        )?;
    }
    writeln!(
        text.0,
        "greenroom_run_queue_delay_seconds_sum {}",
        delay.sum().as_secs_f64()
    )?;
    writeln!(text.0, "greenroom_run_queue_delay_seconds_count {so_far}")?;
    Ok(text.0)
}

fn serve(listener: TcpListener) -> io::Result<Server> {
    http::serve(listener, |request, _, reply| {
        if request.path_and_query().0 != "/metrics" {
            return reply.text("404 Not Found", "the metrics are at /metrics");
        }
        let text = text(&metrics(), &parked_by_reason()?).map_err(io::Error::other)?;
        let fields = [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")];
        reply.start("200 OK", &fields, Some(text.len() as u64))?;
        reply.write_all(text.as_bytes())
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

fn main() -> io::Result<()> {
    if let Some(address) = std::env::args().nth(1) {
        let listener = TcpListener::bind(address)?;
        println!("http://{}/metrics", listener.local_addr()?);
        return serve(listener)?.wait();
    }
    let server = serve(TcpListener::bind("127.0.0.1:0")?)?;
    // Two more, beside the server and its answer.
    (0..2).for_each(|_| drop(spawn(park)));
    let body = ask(*server.local_addr())?;
    body.lines().take(3).for_each(|line| println!("{line}"));
    Ok(())
}
