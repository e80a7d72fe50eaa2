//! What keeps the peers from answering.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex};
use std::thread::sleep;
use std::time::Duration;

use crate::threads::os_threads;

/// How long a peer waits for the other clients. So a client that blocks the worker does so for as long. The limits of
/// clients are longer, and so is that of the whole test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(80);

/// The limit of clients that need one.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// The time that each peer takes for its answer, at least.
pub(crate) const ANSWERS_AFTER: Duration = Duration::from_millis(300);

/// The time between two answers.
const BETWEEN: Duration = Duration::from_millis(1);

/// Opens when all clients wait for an answer.
pub(crate) struct Gate {
    clients: usize,
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Default)]
struct State {
    waiting: usize,
    is_open: bool,
    /// The OS threads there were when all were waiting.
    threads: Option<BTreeMap<String, usize>>,
}

impl Gate {
    pub(crate) fn new(clients: usize) -> Gate {
        Gate {
            clients,
            state: Mutex::default(),
            opened: Condvar::new(),
        }
    }

    /// Called by each peer, on its OS thread, when it has read what its client asks.
    pub(crate) fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        let before = state.waiting;
        state.waiting += 1;
        if state.waiting == self.clients {
            state.threads = Some(os_threads());
            state.is_open = true;
        }
        let waited = self
            .opened
            .wait_timeout_while(state, PATIENCE, |state| !state.is_open);
        // Otherwise the clients wait for each other, and the test fails when all are done.
        waited.unwrap().0.is_open = true;
        self.opened.notify_all();
        sleep(ANSWERS_AFTER + BETWEEN * u32::try_from(before).unwrap());
    }

    /// The OS threads there were when all clients were waiting at once; none, if that has not happened.
    pub(crate) fn threads(&self) -> Option<BTreeMap<String, usize>> {
        self.state.lock().unwrap().threads.take()
    }
}
