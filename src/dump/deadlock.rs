//! The end of a process whose coroutines wait for each other.

use std::time::Duration;

use crate::fatal;
use crate::runtime::RuntimeBuilder;
use crate::sys::stderr::Stderr;

/// How long nothing must have happened.
const MOMENT: Duration = Duration::from_millis(100);

impl RuntimeBuilder {
    /// Has the process end with a report if the coroutines of this runtime wait for each other and nothing else can wake
    /// them, instead of hanging. See [`on_deadlock`](RuntimeBuilder::on_deadlock) for what is found.
    ///
    /// The report names the coroutines on standard error. A [dump](crate::dump()) follows, with their backtraces. Then the
    /// process aborts: the waits of a deadlock are often those for locks, which must not unwind.
    pub fn abort_on_deadlock(self) -> RuntimeBuilder {
        self.on_deadlock(MOMENT, |deadlock| {
            fatal::abort_after(format_args!("{deadlock}"), || {
                let _ = super::dump(Stderr);
            });
        })
    }
}
