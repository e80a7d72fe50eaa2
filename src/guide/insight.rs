//! Seeing what coroutines do.
//!
//! # Coroutines that hold their worker
//!
//! A coroutine runs until it waits or yields. If it computes for long, or blocks its OS thread by a call that is not
//! greenroom's, all others of its worker stand still, and nothing says why. The [monitor] does:
//!
//! ```
//! use std::time::Duration;
//!
//! # fn main() -> std::io::Result<()> {
//! greenroom::monitor(Duration::from_millis(100))?;
//! # Ok(()) }
//! ```
//!
//! From then on, a turn of more than 100 ms is reported on standard error, while it lasts: the name of the coroutine,
//! where it was spawned, whether it computes or in which system call it waits, and its backtrace. The monitor costs one
//! OS thread, which sleeps while all workers sleep. So it can stay on in production, and
//! [`monitor_with`](crate::monitor_with) passes reports on to where the program's logs go.
//!
//! While a program is developed, [`deny_blocking`](crate::deny_blocking()) is the sharper setting: it finds each call
//! that blocks, however short, but only after the turn, in debug builds, and without a backtrace.
//!
//! | | [`monitor`][monitor] | [`deny_blocking`](crate::deny_blocking()) |
//! |---|---|---|
//! | finds | turns longer than a threshold | turns in which the thread has blocked |
//! | a computation | is found | is not |
//! | a call that has blocked for a millisecond | is not found | is found |
//! | reports | while the turn lasts, with a backtrace | after the turn |
//! | builds | all | debug |
//! | costs | one thread | two system calls in each turn |
//!
//! What to do with what they find: wrap the call in [`unblock`](crate::unblock), or have the computation call
//! [`yield_now`](crate::yield_now) now and then.
//!
//! # Numbers
//!
//! [`metrics`](crate::metrics()) returns what the runtimes of the process have counted: coroutines that are alive and
//! that wait for their turn, spawns, turns, wake-ups, yields, steals and polls; how long runnable coroutines wait;
//! the pool, and the stacks. They are always counted, and a call takes microseconds. `examples/metrics.rs` has an
//! exporter in the text format of Prometheus, in a hundred lines.
//!
//! What to look at:
//!
//! - *`run_queue_delay` grows*: the workers have more to do than they can. Or some turns are long; the monitor
//!   says whose.
//! - *`runnable` stays high*: the same, at this moment.
//! - *`pool.queued` is not zero*: all threads of the pool are at work.
//! - *`live` only grows*: coroutines are spawned and do not end.
//!
//! [monitor]: crate::monitor()
