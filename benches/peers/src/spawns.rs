//! Tasks that do nothing: the cost of spawning and joining.

use std::time::Instant;

use crate::peers::{Blocking, Greenroom, May, Peer, Threads, run_tokio};
use crate::stats::median;

/// Tasks are spawned in waves. Each wave is joined before the next wave is spawned.
#[derive(Clone, Copy)]
struct Plan {
    wave: usize,
    waves: usize,
    /// The number of batches. Each batch times `waves` waves.
    batches: usize,
}

/// One task after another: `[ns per task]`
pub(crate) fn one_by_one(peer: Peer) -> Vec<f64> {
    let batches = run(
        peer,
        Plan {
            wave: 1,
            waves: if peer == Peer::Threads { 2_000 } else { 50_000 },
            batches: 6,
        },
    );
    // The first batch warms up.
    vec![median(&batches[1..])]
}

/// `tasks` tasks at a time: `[ns per task in the first batch, ns per task in later batches]`
///
/// Before the first batch, the process has never had as many tasks.
pub(crate) fn at_once(peer: Peer, tasks: usize) -> Vec<f64> {
    let batches = run(
        peer,
        Plan {
            wave: peer.capped(tasks),
            waves: 1,
            batches: 10,
        },
    );
    vec![batches[0], median(&batches[1..])]
}

/// The nanoseconds per task in each batch.
fn run(peer: Peer, plan: Plan) -> Vec<f64> {
    match peer {
        Peer::Greenroom => blocking::<Greenroom>(plan),
        Peer::May => blocking::<May>(plan),
        Peer::Threads => blocking::<Threads>(plan),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, asynchronous(plan)),
        Peer::Mio => unreachable!("not a peer of this work"),
    }
}

fn blocking<P: Blocking>(plan: Plan) -> Vec<f64> {
    P::run(1, move || {
        let mut handles = Vec::with_capacity(plan.wave);
        let mut batch = || {
            let start = Instant::now();
            for _ in 0..plan.waves {
                handles.extend((0..plan.wave).map(|_| P::spawn(|| ())));
                handles.drain(..).for_each(P::join);
            }
            start.elapsed().as_nanos() as f64 / (plan.waves * plan.wave) as f64
        };
        (0..plan.batches).map(|_| batch()).collect()
    })
}

async fn asynchronous(plan: Plan) -> Vec<f64> {
    let mut handles = Vec::with_capacity(plan.wave);
    let mut batches = Vec::new();
    for _ in 0..plan.batches {
        let start = Instant::now();
        for _ in 0..plan.waves {
            handles.extend((0..plan.wave).map(|_| tokio::spawn(async {})));
            for handle in handles.drain(..) {
                handle.await.expect("a task that does not panic");
            }
        }
        let elapsed = start.elapsed().as_nanos() as f64;
        batches.push(elapsed / (plan.waves * plan.wave) as f64);
    }
    batches
}
