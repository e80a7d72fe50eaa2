//! A service that can be deployed: short links, over HTTP.
//!
//! ```text
//! $ cargo run --release -p service -- --listen 127.0.0.1:8080 --journal links.txt
//! serving on 127.0.0.1:8080
//! ```
//!
//! `curl -d https://example.com/ http://127.0.0.1:8080/links` makes a link and prints its path, such as `/l/1`, which
//! redirects to that address. A browser at <http://127.0.0.1:8080/> shows a live plot of connections and latency.
//!
//! | path | |
//! |---|---|
//! | `POST /links` | stores the address in the body, and answers when it is on the disk |
//! | `GET /l/CODE` | redirects to it |
//! | `GET /` | the page with the plot, whose data are the events of `GET /plot` |
//! | `GET /metrics` | the numbers of the service and of greenroom, in the text format of Prometheus |
//!
//! | signal | |
//! |---|---|
//! | SIGTERM, SIGINT, SIGHUP | the service accepts no more connections, answers the requests in progress, and ends |
//! | the same again | it ends at once |
//! | SIGUSR1 | it writes to standard error what each coroutine does |
//!
//! The log goes to standard error. Each line of it names the connection and the request that it belongs to.
//!
//! # Under systemd
//!
//! A socket unit (`ListenStream=8080`) has systemd make the listening socket, which the service takes instead of
//! `--listen`. Its service unit needs `ExecStart=/usr/local/bin/service --journal /var/lib/links/links.txt`, a
//! `TimeoutStopSec=` above `--grace`, and a `LimitNOFILE=` above `--connections`. While `systemctl restart` has the one
//! process end and starts the next one, the socket stays open. Clients that connect meanwhile wait, and none is lost.

#[path = "../../util/http.rs"]
mod http;
mod links;
mod numbers;
mod options;
#[path = "../../util/prometheus.rs"]
mod prometheus;
mod service;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use greenroom::ListenOptions;
use greenroom::server::{End, Event, Server, listen_fds};
use greenroom::shims::net::TcpListener;
use greenroom::signal::{self, SIGHUP, SIGINT, SIGTERM, SIGUSR1, Signals};
use greenroom_tracing::PerCoroutine;
use tracing::{debug, info, warn};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;

use links::Links;
use options::Options;
use service::Service;

/// How long a turn of a coroutine may take before the log tells of it.
const MAX_BLOCKING: Duration = Duration::from_millis(100);

/// How often the plot gets a new point.
const PERIOD: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let options = Options::parse();
    match greenroom::run(|| serve(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: &Options) -> io::Result<()> {
    log_to_stderr(options.log);
    greenroom::dump_on_signal(SIGUSR1)?;
    greenroom::monitor_with(MAX_BLOCKING, |report| {
        let backtrace = report.backtrace().unwrap_or("no backtrace");
        warn!("{report}\n{backtrace}");
    })?;
    let ends = [SIGTERM, SIGINT, SIGHUP];
    // Before the service is ready, so that no signal is missed.
    let mut signals = Signals::new(&ends)?;

    let links =
        Links::open(&options.journal).map_err(|error| at(options.journal.display(), error))?;
    let service = Arc::new(Service::new(links, options.deadline));
    let server = Server::builder()
        .name("connection")
        .limit(options.connections)
        .log(log_event)
        .serve(listener(options)?, {
            let service = Arc::clone(&service);
            move |connection| service.converse(connection)
        })?;
    let _plot = greenroom::every(PERIOD, move |_| service.numbers.sample(Instant::now()));
    println!("serving on {}", server.local_addr());

    let signal = signals.next().transpose()?;
    info!(signal, "stopping");
    signal::restore_default(&ends)?;
    let cancelled = server.stop(options.grace);
    info!(cancelled, "stopped");
    Ok(())
}

/// The socket that systemd has made, or else a new one.
fn listener(options: &Options) -> io::Result<TcpListener> {
    match listen_fds()?.pop() {
        Some(inherited) => inherited.into_tcp(),
        None => ListenOptions::new()
            .backlog(1024)
            .listen(options.listen)
            .map_err(|error| at(options.listen, error)),
    }
}

fn at(place: impl std::fmt::Display, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{place}: {error}"))
}

fn log_to_stderr(level: LevelFilter) {
    // greenroom's standard error: while nobody reads it, only the coroutines that log something wait.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(greenroom::shims::io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let subscriber = tracing_subscriber::registry().with(level).with(lines);
    PerCoroutine::new(subscriber).init();
}

fn log_event(event: &Event<'_>) {
    match event {
        Event::Ended { end: End::Done, .. } => debug!("{event}"),
        Event::Ended {
            end: End::Failed(_),
            ..
        } => info!("{event}"),
        _ => warn!("{event}"),
    }
}
