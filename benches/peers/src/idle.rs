//! The memory of parked tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::Notify;

use crate::peers::{Blocking, Greenroom, May, Peer, Threads, run_tokio};
use crate::usage;

/// Parks `tasks` tasks: `[bytes of RSS per task]`
pub(crate) fn run(peer: Peer, tasks: usize) -> Vec<f64> {
    let tasks = peer.capped(tasks);
    let bytes = match peer {
        Peer::Greenroom => blocking::<Greenroom>(tasks),
        Peer::May => blocking::<May>(tasks),
        Peer::Threads => blocking::<Threads>(tasks),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, asynchronous(tasks)),
        Peer::Mio => unreachable!("not a peer of this work"),
    };
    vec![bytes / tasks as f64]
}

fn blocking<P: Blocking>(tasks: usize) -> f64 {
    P::run(1, move || {
        let started = Arc::new(AtomicUsize::new(0));
        let before = resident_bytes();
        for _ in 0..tasks {
            let started = Arc::clone(&started);
            drop(P::spawn(move || {
                started.fetch_add(1, Relaxed);
                loop {
                    P::park();
                }
            }));
        }
        while started.load(Relaxed) < tasks {
            // A sleep, not a yield: may starts no new task while another task is ready.
            P::sleep(SETTLE);
        }
        // The tasks that started last may not have parked yet.
        P::sleep(SETTLE);
        resident_bytes() - before
    })
}

async fn asynchronous(tasks: usize) -> f64 {
    let started = Arc::new(AtomicUsize::new(0));
    let never = Arc::new(Notify::new());
    let before = resident_bytes();
    for _ in 0..tasks {
        let (started, never) = (Arc::clone(&started), Arc::clone(&never));
        drop(tokio::spawn(async move {
            started.fetch_add(1, Relaxed);
            never.notified().await;
        }));
    }
    while started.load(Relaxed) < tasks {
        tokio::time::sleep(SETTLE).await;
    }
    tokio::time::sleep(SETTLE).await;
    resident_bytes() - before
}

/// How long the tasks that started last get to park.
const SETTLE: Duration = Duration::from_millis(50);

fn resident_bytes() -> f64 {
    usage::resident_bytes("self").expect("Linux 4.14 or newer")
}
