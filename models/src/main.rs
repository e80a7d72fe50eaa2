//! Model checks of greenroom's protocols: loom runs each model in every order that its threads can
//! come in, within a bound on preemptions.
//!
//! ```text
//! cargo run --release -p greenroom-models            all of them
//! cargo run --release -p greenroom-models -- WORD    those whose names contain WORD
//! ```
//!
//! The files that are checked are the ones greenroom runs, compiled here over loom's atomics. What
//! stands around them is modelled: a thread for each coroutine, worker or waker, and loom's
//! `Notify` for the switch or the poll that a task or worker blocks in.

mod atomic {
    pub(crate) use loom::sync::atomic::{
        AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };
    pub(crate) use loom::thread::yield_now;
}

#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../src/scheduler/attention.rs"]
mod attention;
#[path = "../../src/join/completion.rs"]
mod completion;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../src/reactor/ready_word.rs"]
mod ready_word;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../src/scheduler/sleep.rs"]
mod sleep;
#[allow(dead_code, reason = "a model uses its part")]
#[path = "../../src/task/word.rs"]
mod word;

mod joining;
mod parking;
mod readiness;
mod sleeping;

use std::process::ExitCode;

use loom::sync::Notify;
use loom::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// What a thread blocks in: the switch to a coroutine's owner, or a worker's poll.
struct Signal {
    raised: AtomicUsize,
    notify: Notify,
}

impl Signal {
    fn new() -> Signal {
        Signal {
            raised: AtomicUsize::new(0),
            notify: Notify::new(),
        }
    }

    fn raise(&self) {
        self.raised.fetch_add(1, Ordering::Release);
        self.notify.notify();
    }

    /// Waits until it has been raised since the last time, and returns how often.
    fn wait(&self) -> usize {
        loop {
            match self.raised.swap(0, Ordering::Acquire) {
                // Loom's notification may come for no reason.
                0 => self.notify.wait(),
                raised => return raised,
            }
        }
    }
}

/// A model's name, the preemptions to consider, and what it does.
type Model = (&'static str, usize, fn());

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let models = [
        joining::MODELS,
        parking::MODELS,
        readiness::MODELS,
        sleeping::MODELS,
    ]
    .concat();
    let mut checked = 0;
    for (name, preemptions, model) in models {
        if !name.contains(&wanted) {
            continue;
        }
        let start = Instant::now();
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        // A model that fails panics, with the trace of what led there.
        builder.check(model);
        println!("{name}: holds ({:.1} s)", start.elapsed().as_secs_f64());
        checked += 1;
    }
    println!("{checked} models hold");
    if checked == 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
