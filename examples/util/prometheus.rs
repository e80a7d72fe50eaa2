//! The text format of Prometheus, and greenroom's numbers in it.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use greenroom::{Metrics, metrics, parked_by_reason};

/// The type of the text, for the field `Content-Type`.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One metric after the other, in the text format.
#[derive(Default)]
pub(crate) struct Text(pub(crate) String);

impl Text {
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.0 += &format!("{name} {value}\n");
    }

    pub(crate) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "counter", help);
        self.0 += &format!("{name} {value}\n");
    }

    /// A metric with a value for each value of a label.
    pub(crate) fn by_label(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (impl Display, impl Display)>,
    ) {
        self.head(name, kind, help);
        for (of, value) in values {
            self.0 += &format!("{name}{{{label}=\"{of}\"}} {value}\n");
        }
    }

    /// `buckets` has the upper bound of each range of durations, and how many were in it and not in the one before.
    pub(crate) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        buckets: impl IntoIterator<Item = (Option<Duration>, u64)>,
        sum: Duration,
    ) {
        self.head(name, "histogram", help);
        let mut so_far = 0;
        for (bound, count) in buckets {
            // In the text they are cumulative.
            so_far += count;
            let bound = bound.map_or("+Inf".to_owned(), |bound| bound.as_secs_f64().to_string());
            self.0 += &format!("{name}_bucket{{le=\"{bound}\"}} {so_far}\n");
        }
        self.0 += &format!("{name}_sum {}\n", sum.as_secs_f64());
        self.0 += &format!("{name}_count {so_far}\n");
    }

    /// The numbers of greenroom.
    pub(crate) fn runtime(&mut self) -> io::Result<()> {
        let metrics = metrics();
        let parked = parked_by_reason()?;
        let Metrics {
            pool,
            stacks,
            run_queue_delay: delay,
            ..
        } = &metrics;
        let gauges = [
            (
                "coroutines",
                metrics.live,
                "The coroutines that have not ended.",
            ),
            (
                "coroutines_runnable",
                metrics.runnable,
                "The coroutines that wait for their turn.",
            ),
            (
                "workers",
                metrics.workers,
                "The threads that run coroutines.",
            ),
            ("pool_threads", pool.threads, "The threads of the pool."),
            ("pool_threads_idle", pool.idle, "Those without a job."),
            (
                "pool_jobs_queued",
                pool.queued,
                "The jobs that wait for a thread.",
            ),
            ("stacks", stacks.count, "The stacks that are reserved."),
            (
                "stacks_reserved_bytes",
                stacks.reserved,
                "Their usable address space.",
            ),
            (
                "stacks_mapped_bytes",
                stacks.mapped,
                "The address space of all stacks.",
            ),
        ];
        for (name, value, help) in gauges {
            self.gauge(&format!("greenroom_{name}"), help, value);
        }
        let counters = [
            (
                "spawned",
                metrics.spawned,
                "The coroutines that were spawned.",
            ),
            ("turns", metrics.turns, "The turns of coroutines."),
            (
                "wakes",
                metrics.wakes,
                "The turns that came from a wake-up.",
            ),
            (
                "yields",
                metrics.yields,
                "The turns that ended with a yield.",
            ),
            ("steals", metrics.steals, "The coroutines that were stolen."),
            ("polls", metrics.polls, "The polls for events."),
            ("sleeps", metrics.sleeps, "The polls that have waited."),
        ];
        for (name, value, help) in counters {
            self.counter(&format!("greenroom_{name}_total"), help, value);
        }
        let (name, help) = ("greenroom_coroutines_parked", "The coroutines that wait.");
        self.by_label(name, "gauge", help, "reason", parked);
        let help = "Waits of runnable coroutines, sampled.";
        let name = "greenroom_run_queue_delay_seconds";
        self.histogram(name, help, delay.buckets(), delay.sum());
        Ok(())
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.0 += &format!("# HELP {name} {help}\n");
        self.0 += &format!("# TYPE {name} {kind}\n");
    }
}
