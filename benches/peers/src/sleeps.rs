//! Tasks that sleep: the cost and the accuracy of timers.

use std::time::{Duration, Instant};

use crate::peers::{Blocking, Greenroom, May, Peer, Threads, run_tokio};
use crate::stats::{Random, median, percentile};
use crate::usage::Usage;

/// Many tasks that sleep: `[CPU µs per sleep, p99 of the lateness in µs]`
///
/// The CPU time is the process's, including spawning and joining.
///
/// If each of many tasks sleeps once, greenroom spends a third of its CPU time on the memory of
/// stacks: a page fault for the first page of each stack, and a call that gives the page back after
/// the task has ended. greenroom has as many wake-ups as tokio. If few tasks sleep many times, the
/// stacks cost nothing, and the figures measure the timers and the wake-ups.
pub(crate) fn many(peer: Peer, naps: &Naps) -> Vec<f64> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let longest = u64::try_from(naps.longest.as_micros()).expect("a short time");
    let mut nap = || Duration::from_micros(random.next() % longest);
    let mut naps_of_one = || (0..naps.each).map(|_| nap()).collect();
    let tasks: Vec<_> = (0..peer.capped(naps.tasks))
        .map(|_| naps_of_one())
        .collect();
    let sleeps = (tasks.len() * naps.each) as f64;
    let before = Usage::own();
    let late: Vec<Vec<f64>> = match peer {
        Peer::Greenroom => at_once::<Greenroom>(tasks),
        Peer::May => at_once::<May>(tasks),
        Peer::Threads => at_once::<Threads>(tasks),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, async move {
            let sleep = |naps| tokio::spawn(oversleep_each_async(naps));
            let handles: Vec<_> = tasks.into_iter().map(sleep).collect();
            let mut late = Vec::new();
            for handle in handles {
                late.push(handle.await.expect("a task that does not panic"));
            }
            late
        }),
        Peer::Mio => unreachable!("not a peer of this work"),
    };
    let used = Usage::own() - before;
    vec![
        used.total() / 1e3 / sleeps,
        percentile(&late.concat(), 0.99),
    ]
}

/// The number of tasks, the number of sleeps of each task, and the bound on a sleep's length.
pub(crate) struct Naps {
    pub(crate) tasks: usize,
    pub(crate) each: usize,
    pub(crate) longest: Duration,
}

/// One task that sleeps for `duration` again and again: `[median overshoot in µs]`
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

/// The number of sleeps of the task in [`one`].
const TIMES: usize = 300;

fn at_once<P: Blocking>(tasks: Vec<Vec<Duration>>) -> Vec<Vec<f64>> {
    P::run(1, || {
        let sleep =
            |naps: Vec<Duration>| P::spawn(move || naps.into_iter().map(oversleep::<P>).collect());
        let handles: Vec<_> = tasks.into_iter().map(sleep).collect();
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

async fn oversleep_each_async(naps: Vec<Duration>) -> Vec<f64> {
    let mut late = Vec::with_capacity(naps.len());
    for nap in naps {
        late.push(oversleep_async(nap).await);
    }
    late
}

async fn oversleep_async(duration: Duration) -> f64 {
    let start = Instant::now();
    tokio::time::sleep(duration).await;
    late(start, duration)
}

/// The time since `start`, less `duration`, in µs.
fn late(start: Instant, duration: Duration) -> f64 {
    (start.elapsed().as_secs_f64() - duration.as_secs_f64()) * 1e6
}
