//! The body of each coroutine: it runs its task.

use crate::coroutine::perf_map::{self, NamedFunction};
use crate::park::Cancelled;
use crate::task::{self, Role, Task};

use super::shutdown::NOTHING_UNWINDS;

/// The body of every coroutine: runs its task. If the task was cancelled or the runtime has begun to stop,
/// only drops the task's closure. The drop happens on the coroutine, because the destructors may wait.
pub(super) fn run_task() {
    task::with_running(|task| {
        let task = task.expect("a coroutine is running");
        match perf_map::is_on() {
            false => run_body(task),
            true => run_named(task),
        }
    });
}

/// Runs the body in a frame that has the name of the coroutine in call graphs of perf.
#[cold]
fn run_named(task: &Task) {
    let function = task::aside(|| match task.name() {
        Some(name) => NamedFunction::of(name),
        None => NamedFunction::of(&format!("spawned at {}", task.spawned_at())),
    });
    match function {
        Some(function) => function.call(|| run_body(task)),
        None => run_body(task),
    }
}

// Inlined where no function of perf's lies between.
#[inline(always)]
fn run_body(task: &Task) {
    let is_left = task.role() != Role::Main && !NOTHING_UNWINDS && task::is_runtime_stopping();
    if is_left || task.word.is_interrupted() {
        let waited = task.word.interrupt();
        debug_assert!(!waited, "a fresh coroutine does not wait");
        // SAFETY: this is the first turn of the task, on its worker, so the body was neither run nor
        // abandoned before, and is not run after.
        return unsafe { task.body().abandon(task, Box::new(Cancelled)) };
    }
    // SAFETY: this is the first turn of the task, on its worker, so the body was neither run nor
    // abandoned before. The branch above has returned.
    unsafe { task.body().run(task) };
}
