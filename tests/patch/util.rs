//! What the tests share.

use greenroom::RuntimeBuilder;

/// Runs `test` on a coroutine of a runtime with one worker.
pub(crate) fn on_one_worker<R>(test: impl FnOnce() -> R) -> R {
    let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
    runtime.run(test)
}
