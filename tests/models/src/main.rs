//! Model checks of greenroom's protocols.
//!
//! ```text
//! cargo run --release -p greenroom-models                      all of them
//! cargo run --release -p greenroom-models -- WORD              those whose names contain WORD
//! cargo run --release -p greenroom-models -- WORD SCHEDULE     shuttle's SCHEDULE once more
//! ```
//!
//! The files that are checked are the ones greenroom runs, compiled here over the atomics of two
//! tools. What stands around them is modelled: a thread for each coroutine, worker or waker, and a
//! `Signal` for the switch or the poll that a task or worker blocks in.
//!
//! - *loom* runs a small model in every order that its threads can come in, within a bound on
//!   preemptions, and with every value that a load may return under its ordering. So it is what
//!   checks the orderings and the fences. It takes a sequentially consistent access for one that
//!   acquires and releases, so what it shows to hold needs no more than the fences.
//! - *shuttle* runs small and large models under random schedules: any order of steps, and orders
//!   with a few preemptions at places that matter to them (PCT). To it every atomic operation is
//!   sequentially consistent and a fence is nothing: it checks the logic under many threads, over
//!   many rounds, and says nothing about orderings.
//!
//! A model that fails panics. Loom prints the trace of what led there; shuttle prints the schedule,
//! to be given back as above, and each run the seed that it takes its schedules from, to be given
//! back in `SHUTTLE_RANDOM_SEED`.

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
