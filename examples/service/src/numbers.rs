//! What the service counts, for Prometheus and for the plot.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use greenroom::channel::watch;

use crate::prometheus::Text;

/// The upper bounds of the ranges of latencies, in microseconds. The last range has none.
const BOUNDS: [u64; 21] = [
    2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000,
    500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
];

/// How many requests have taken how long: a number for each range.
type Latencies = [u64; BOUNDS.len() + 1];

/// How many points the plot has.
const HISTORY: usize = 120;

pub(crate) struct Numbers {
    start: Instant,
    connections: AtomicUsize,
    accepted: AtomicU64,
    /// Answers whose status begins with 2, 3, 4 and 5.
    answers: [AtomicU64; 4],
    latencies: [AtomicU64; BOUNDS.len() + 1],
    /// The sum of all latencies.
    nanoseconds: AtomicU64,
    /// The points of the plot. Each new one is told to the pages that are open.
    history: watch::Sender<Vec<Sample>>,
}

/// A point of the plot.
#[derive(Clone)]
pub(crate) struct Sample {
    /// Counts the samples, from 1 on.
    pub(crate) number: u64,
    at: Instant,
    connections: usize,
    /// Requests in each second.
    rate: f64,
    /// The latency in milliseconds that half of the requests have not exceeded, and 99 of 100.
    p50: Option<f64>,
    p99: Option<f64>,
    /// The latencies of all requests until then.
    total: Latencies,
}

impl Numbers {
    pub(crate) fn new() -> Numbers {
        Numbers {
            start: Instant::now(),
            connections: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            answers: Default::default(),
            latencies: Default::default(),
            nanoseconds: AtomicU64::new(0),
            history: watch(Vec::new()).0,
        }
    }

    /// Counts a connection, as one that is open until the returned value is dropped.
    pub(crate) fn connection(&self) -> Open<'_> {
        self.connections.fetch_add(1, Relaxed);
        Open {
            number: self.accepted.fetch_add(1, Relaxed) + 1,
            numbers: self,
        }
    }

    /// Counts a request that was answered with this status.
    pub(crate) fn request(&self, status: &str, took: Duration) {
        let class = status.as_bytes()[0].clamp(b'2', b'5') - b'2';
        self.answers[usize::from(class)].fetch_add(1, Relaxed);
        let range = BOUNDS.partition_point(|bound| Duration::from_micros(*bound) < took);
        self.latencies[range].fetch_add(1, Relaxed);
        self.nanoseconds.fetch_add(took.as_nanos() as u64, Relaxed);
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Vec<Sample>> {
        self.history.subscribe()
    }

    /// All numbers, in the text format of Prometheus.
    pub(crate) fn text(&self, links: usize) -> io::Result<String> {
        let mut text = Text::default();
        text.gauge("service_links", "The links that are stored.", links);
        let help = "The connections that are open.";
        text.gauge("service_connections", help, self.connections.load(Relaxed));
        let help = "The connections that were accepted.";
        text.counter(
            "service_connections_total",
            help,
            self.accepted.load(Relaxed),
        );
        let answers = self.answers.iter().map(|count| count.load(Relaxed));
        let answers = ["2xx", "3xx", "4xx", "5xx"].into_iter().zip(answers);
        let help = "The requests that were answered, by status.";
        text.by_label("service_requests_total", "counter", help, "status", answers);
        let bounds = BOUNDS.map(Duration::from_micros).map(Some).into_iter();
        let buckets = bounds.chain([None]).zip(self.latencies());
        let sum = Duration::from_nanos(self.nanoseconds.load(Relaxed));
        let help = "How long the answers have taken.";
        text.histogram("service_request_seconds", help, buckets, sum);
        text.runtime()?;
        Ok(text.0)
    }

    /// Adds a point to the plot.
    pub(crate) fn sample(&self, now: Instant) {
        let mut history = Vec::clone(&self.history.borrow());
        let total = self.latencies();
        let last = history.last();
        let before = last.map_or_else(Latencies::default, |last| last.total);
        let since = last.map_or(self.start, |last| last.at);
        let new: Latencies = std::array::from_fn(|range| total[range] - before[range]);
        let sample = Sample {
            number: last.map_or(1, |last| last.number + 1),
            at: now,
            connections: self.connections.load(Relaxed),
            rate: new.iter().sum::<u64>() as f64 / (now - since).as_secs_f64(),
            p50: quantile(&new, 0.5),
            p99: quantile(&new, 0.99),
            total,
        };
        let surplus = (history.len() + 1).saturating_sub(HISTORY);
        history.drain(..surplus);
        history.push(sample);
        self.history.set(history);
    }

    fn latencies(&self) -> Latencies {
        std::array::from_fn(|range| self.latencies[range].load(Relaxed))
    }
}

/// A connection that is open.
pub(crate) struct Open<'a> {
    /// Counts the connections, from 1 on.
    pub(crate) number: u64,
    numbers: &'a Numbers,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.numbers.connections.fetch_sub(1, Relaxed);
    }
}

impl Sample {
    /// The data of an event for the page.
    pub(crate) fn json(&self) -> String {
        let number =
            |value: Option<f64>| value.map_or("null".into(), |value| format!("{value:.4}"));
        format!(
            r#"{{"connections":{},"rate":{:.1},"p50":{},"p99":{}}}"#,
            self.connections,
            self.rate,
            number(self.p50),
            number(self.p99),
        )
    }
}

/// The latency in milliseconds that this part of all requests has not exceeded, as Prometheus estimates it: as if the
/// requests of a range were spread over it evenly. `None`, if there are no requests.
fn quantile(latencies: &Latencies, part: f64) -> Option<f64> {
    let wanted = latencies.iter().sum::<u64>() as f64 * part;
    let mut below = 0.0;
    for (range, count) in latencies.iter().enumerate() {
        let count = *count as f64;
        if count > 0.0 && below + count >= wanted {
            let from = range.checked_sub(1).map_or(0, |range| BOUNDS[range]) as f64;
            let to = *BOUNDS.get(range).unwrap_or(&BOUNDS[BOUNDS.len() - 1]) as f64;
            return Some((from + (to - from) * (wanted - below) / count) / 1e3);
        }
        below += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_time_since_the_point_before() {
        let numbers = Numbers::new();
        let second = Duration::from_secs(1);
        let mut now = numbers.start;
        for (seconds, requests) in [(1, 10), (5, 50), (1, 10)] {
            now += seconds * second;
            (0..requests).for_each(|_| numbers.request("200 OK", second));
            numbers.sample(now);
        }
        let points = numbers.subscribe();
        let rates: Vec<_> = points.borrow().iter().map(|point| point.rate).collect();
        assert_eq!(rates, [10.0; 3]);
    }
}
