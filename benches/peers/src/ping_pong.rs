//! Two tasks that unpark each other in turn, and park in between.

use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};
use std::time::Instant;

use tokio::sync::Notify;

use crate::peers::{Blocking, Greenroom, May, Peer, Threads, run_tokio};

/// Both tasks on one worker: `[ns per round trip]`
pub(crate) fn on_one_worker(peer: Peer) -> Vec<f64> {
    let trips = if peer == Peer::Threads {
        100_000
    } else {
        1_000_000
    };
    vec![match peer {
        Peer::Greenroom => blocking::<Greenroom>(1, trips),
        Peer::May => blocking::<May>(1, trips),
        Peer::Threads => blocking::<Threads>(1, trips),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, async move {
            let turn = Arc::new(Turn::default());
            let pong = tokio::spawn(answer(Arc::clone(&turn), trips));
            let elapsed = ask(&turn, trips).await;
            pong.await.expect("a task that does not panic");
            elapsed
        }),
        Peer::Mio => unreachable!("not a peer of this work"),
    }]
}

/// Each task on its own worker: `[ns per round trip]`
///
/// may and tokio's multi-thread runtime are left out, because they may move a task to the worker
/// that wakes the task. Both tasks would soon be on one worker. tokio has two current-thread
/// runtimes.
pub(crate) fn on_two_workers(peer: Peer) -> Vec<f64> {
    let trips = 20_000;
    vec![match peer {
        Peer::Greenroom => blocking::<Greenroom>(2, trips),
        Peer::Threads => blocking::<Threads>(2, trips),
        Peer::Tokio => {
            let turn = Arc::new(Turn::default());
            let theirs = Arc::clone(&turn);
            let pong = thread::spawn(move || run_tokio(peer, 1, answer(theirs, trips)));
            let elapsed = run_tokio(peer, 1, async move { ask(&turn, trips).await });
            pong.join().expect("a thread that does not panic");
            elapsed
        }
        _ => unreachable!("not a peer of this work"),
    }]
}

fn blocking<P: Blocking>(workers: usize, trips: usize) -> f64 {
    P::run(workers, move || {
        let is_pongs_turn = Arc::new(AtomicBool::new(false));
        let started = Arc::new(OnceLock::new());
        let ping = P::unparker();
        let pong = {
            let (is_mine, started) = (Arc::clone(&is_pongs_turn), Arc::clone(&started));
            P::spawn(move || {
                let place = (P::unparker(), thread::current().id());
                started.set(place).ok().expect("set once");
                P::unpark(&ping);
                for _ in 0..trips {
                    while !is_mine.swap(false, AcqRel) {
                        P::park();
                    }
                    P::unpark(&ping);
                }
            })
        };
        let (pong_unparker, pong_thread): &(P::Unparker, ThreadId) = loop {
            match started.get() {
                Some(place) => break place,
                None if workers == 1 => P::park(),
                // Spinning keeps this worker busy, so that the other worker starts `pong` and
                // keeps `pong`.
                None => std::hint::spin_loop(),
            }
        };
        let share = *pong_thread == thread::current().id();
        assert_eq!(
            share,
            workers == 1 && P::PEER != Peer::Threads,
            "the tasks are not where they should be"
        );

        // `park` may return spuriously, so each task checks the flag after a park.
        let mut start = Instant::now();
        for trip in 0..trips {
            if trip == trips / 10 {
                start = Instant::now();
            }
            is_pongs_turn.store(true, Release);
            P::unpark(pong_unparker);
            while is_pongs_turn.load(Acquire) {
                P::park();
            }
        }
        let elapsed = start.elapsed();
        P::join(pong);
        elapsed.as_nanos() as f64 / (trips - trips / 10) as f64
    })
}

/// The state that tokio's two tasks share. A permit of a [`Notify`] replaces the token of a park.
#[derive(Default)]
struct Turn {
    is_pongs: AtomicBool,
    ping: Notify,
    pong: Notify,
}

async fn answer(turn: Arc<Turn>, trips: usize) {
    for _ in 0..trips {
        while !turn.is_pongs.swap(false, AcqRel) {
            turn.pong.notified().await;
        }
        turn.ping.notify_one();
    }
}

async fn ask(turn: &Turn, trips: usize) -> f64 {
    let mut start = Instant::now();
    for trip in 0..trips {
        if trip == trips / 10 {
            start = Instant::now();
        }
        turn.is_pongs.store(true, Release);
        turn.pong.notify_one();
        while turn.is_pongs.load(Acquire) {
            turn.ping.notified().await;
        }
    }
    start.elapsed().as_nanos() as f64 / (trips - trips / 10) as f64
}
