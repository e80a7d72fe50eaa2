//! Tasks that do nothing but yield to each other.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::peers::{Blocking, Greenroom, May, Peer, Threads, run_tokio};

/// The total number of yields of all tasks.
fn yields(peer: Peer) -> usize {
    match peer {
        Peer::Threads => 400_000,
        _ => 4_000_000,
    }
}

/// `tasks` tasks that yield in turn: `[ns per yield]`
pub(crate) fn run(peer: Peer, tasks: usize) -> Vec<f64> {
    let tasks = peer.capped(tasks);
    let turns = yields(peer) / tasks;
    let elapsed = match peer {
        Peer::Greenroom => blocking::<Greenroom>(tasks, turns),
        Peer::May => blocking::<May>(tasks, turns),
        Peer::Threads => blocking::<Threads>(tasks, turns),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, asynchronous(tasks, turns)),
        Peer::Mio => unreachable!("not a peer of this work"),
    };
    vec![elapsed / (turns * tasks) as f64]
}

/// Measures the time from the start of the last task until the last task has made its yields.
struct Window {
    tasks: usize,
    started: AtomicUsize,
    start: OnceLock<Instant>,
    finished: AtomicUsize,
    end: OnceLock<Instant>,
}

impl Window {
    fn new(tasks: usize) -> Arc<Window> {
        Arc::new(Window {
            tasks,
            started: AtomicUsize::new(0),
            start: OnceLock::new(),
            finished: AtomicUsize::new(0),
            end: OnceLock::new(),
        })
    }

    fn start(&self) {
        if self.started.fetch_add(1, Relaxed) + 1 == self.tasks {
            self.start.set(Instant::now()).expect("one last task");
        }
    }

    fn is_open(&self) -> bool {
        self.started.load(Relaxed) == self.tasks
    }

    fn finish(&self) {
        if self.finished.fetch_add(1, Relaxed) + 1 == self.tasks {
            self.end.set(Instant::now()).expect("one last task");
        }
    }

    fn nanoseconds(&self) -> f64 {
        let start = *self.start.get().expect("all have started");
        let end = *self.end.get().expect("all have finished");
        (end - start).as_nanos() as f64
    }
}

fn blocking<P: Blocking>(tasks: usize, turns: usize) -> f64 {
    P::run(1, move || {
        let window = Window::new(tasks);
        let task = |_| {
            let window = Arc::clone(&window);
            P::spawn(move || {
                window.start();
                while !window.is_open() {
                    P::yield_now();
                }
                for _ in 0..turns {
                    P::yield_now();
                }
                window.finish();
            })
        };
        let handles: Vec<_> = (0..tasks).map(task).collect();
        handles.into_iter().for_each(P::join);
        window.nanoseconds()
    })
}

async fn asynchronous(tasks: usize, turns: usize) -> f64 {
    let window = Window::new(tasks);
    let task = |_| {
        let window = Arc::clone(&window);
        tokio::spawn(async move {
            window.start();
            while !window.is_open() {
                tokio::task::yield_now().await;
            }
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            window.finish();
        })
    };
    let handles: Vec<_> = (0..tasks).map(task).collect();
    for handle in handles {
        handle.await.expect("a task that does not panic");
    }
    window.nanoseconds()
}
