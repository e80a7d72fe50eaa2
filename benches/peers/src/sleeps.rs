//! Timers.

use std::time::{Duration, Instant};

use crate::peers::{Blocking, Greenroom, May, Peer, Threads, run_tokio};
use crate::stats::{Random, median, percentile};
use crate::usage::Usage;

/// Tasks that each sleep once, for 0 to 2 s: `[CPU µs per timer, p99 of its lateness in µs]`
///
/// The CPU time is the process's, with what spawning and joining take.
pub(crate) fn many(peer: Peer, tasks: usize) -> Vec<f64> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut duration = || Duration::from_micros(random.next() % 2_000_000);
    let durations: Vec<_> = (0..peer.capped(tasks)).map(|_| duration()).collect();
    let tasks = durations.len() as f64;
    let before = Usage::own();
    let late = match peer {
        Peer::Greenroom => at_once::<Greenroom>(durations),
        Peer::May => at_once::<May>(durations),
        Peer::Threads => at_once::<Threads>(durations),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, async move {
            let sleep = |duration| tokio::spawn(oversleep_async(duration));
            let handles: Vec<_> = durations.into_iter().map(sleep).collect();
            let mut late = Vec::new();
            for handle in handles {
                late.push(handle.await.expect("a task that does not panic"));
            }
            late
        }),
        Peer::Mio => unreachable!("not a peer of this work"),
    };
    let used = Usage::own() - before;
    vec![used.total() / 1e3 / tasks, percentile(&late, 0.99)]
}

/// One task that sleeps again and again: `[µs]` that it sleeps longer than for `duration`.
pub(crate) fn one(peer: Peer, duration: Duration) -> Vec<f64> {
    let late = match peer {
        Peer::Greenroom => in_turn::<Greenroom>(duration),
        Peer::May => in_turn::<May>(duration),
        Peer::Threads => in_turn::<Threads>(duration),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, async move {
            let mut late = Vec::new();
            for _ in 0..TIMES {
                late.push(oversleep_async(duration).await);
            }
            late
        }),
        Peer::Mio => unreachable!("not a peer of this work"),
    };
    vec![median(&late)]
}

const TIMES: usize = 300;

fn at_once<P: Blocking>(durations: Vec<Duration>) -> Vec<f64> {
    P::run(1, || {
        let sleep = |duration| P::spawn(move || oversleep::<P>(duration));
        let handles: Vec<_> = durations.into_iter().map(sleep).collect();
        handles.into_iter().map(P::join).collect()
    })
}

fn in_turn<P: Blocking>(duration: Duration) -> Vec<f64> {
    P::run(1, move || {
        (0..TIMES).map(|_| oversleep::<P>(duration)).collect()
    })
}

fn oversleep<P: Blocking>(duration: Duration) -> f64 {
    let start = Instant::now();
    P::sleep(duration);
    late(start, duration)
}

async fn oversleep_async(duration: Duration) -> f64 {
    let start = Instant::now();
    tokio::time::sleep(duration).await;
    late(start, duration)
}

/// How much more than `duration` has passed since `start`, in µs.
fn late(start: Instant, duration: Duration) -> f64 {
    (start.elapsed().as_secs_f64() - duration.as_secs_f64()) * 1e6
}
