//! The flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;

/// Short links over HTTP, with a live plot.
#[derive(clap::Parser)]
pub(crate) struct Options {
    /// Where to listen, unless systemd passes a socket
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,

    /// The file that keeps the links
    #[arg(long, value_name = "FILE", default_value = "links.txt")]
    pub(crate) journal: PathBuf,

    /// How many connections are served at the same time; others wait
    #[arg(long, value_name = "N", default_value = "1000", value_parser = count)]
    pub(crate) connections: usize,

    /// How long a request may take
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) deadline: Duration,

    /// How long requests in progress may take when the service stops
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) grace: Duration,

    /// What is logged: error, warn, info, debug, trace or off
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log: LevelFilter,
}

fn count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| "a number above zero is needed".into())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration
        .filter(|time| !time.is_zero())
        .ok_or_else(|| "a number of seconds above zero is needed".into())
}
