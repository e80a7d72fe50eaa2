//! Model checks of greenroom's protocols.
//!
//! ```text
//! cargo run --release -p greenroom-models                      all models
//! cargo run --release -p greenroom-models -- WORD              models whose names contain WORD
//! cargo run --release -p greenroom-models -- WORD SCHEDULE     run shuttle's SCHEDULE again
//! ```
//!
//! The checked files are those that greenroom itself runs, compiled here over the atomics of two tools.
//! The code around them is modelled: a thread for each coroutine, worker or waker, and a `Signal` for
//! what a task or worker blocks in (the switch to the worker, or the poll).
//!
//! - *loom* runs a small model in every order of its threads' steps, within a bound on preemptions, and
//!   with every value that a load may return under its ordering. So loom checks the orderings and the
//!   fences. It treats a sequentially consistent access as one that acquires and releases. So a model
//!   that holds under loom needs no more than that, and the fences.
//! - *shuttle* runs small and large models under random schedules: any order of steps, and orders
//!   with a few preemptions at well-chosen places (PCT). Every atomic operation is sequentially
//!   consistent, and a fence does nothing. So shuttle checks the logic, with many threads and rounds,
//!   but not the orderings.
//!
//! A model that fails panics. Loom prints the trace that led there. Shuttle prints the schedule, to be
//! run again as shown above. It also prints the seed of its schedules, to be given in
//! `SHUTTLE_RANDOM_SEED`.

#[path = "check/loom.rs"]
mod check;
mod models;

use std::process::ExitCode;

use check::atomic;
use models::{park, task};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let wanted = arguments.next().unwrap_or_default();
    if let Some(schedule) = arguments.next() {
        return report(over_shuttle::replay(&wanted, &schedule));
    }
    report(check::all(&wanted) + over_shuttle::all(&wanted))
}

fn report(held: usize) -> ExitCode {
    println!("{held} checks hold");
    if held == 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
