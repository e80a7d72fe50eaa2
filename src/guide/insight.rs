//! Seeing what coroutines do.
//!
//! # Dumps
//!
//! A program with ten thousand coroutines hangs, or is slow: what do they wait for? A dump tells that of each one:
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! greenroom::dump_on_signal(greenroom::signal::SIGQUIT)?; // on `kill -QUIT`, to standard error
//! greenroom::dump(std::io::stdout())?; // or here and now
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! greenroom: 10003 coroutines: 1 running, 0 ready, 10002 parked, 0 fresh
//! the pool: 2 threads, 1 of them idle; 0 jobs wait for a thread
//!
//! these coroutines wait for each other, and will for ever:
//!   17 'mover' waits for a mutex at 0x7f3c08001b50 that 18 'counter' has
//!   18 'counter' waits for a mutex at 0x7f3c08001b10 that 17 'mover' has
//!
//! 10000 coroutines, parked (read), spawned at src/main.rs:12:9
//!   20 reads descriptor 31 (connected to 127.0.0.1:60874), for 2.104s so far; stack 1712 bytes, 4096 so far, of 262144; worker 0; spawned by 1 'main'
//!   21 reads descriptor 33 (connected to 127.0.0.1:60878), for 1.900s so far; stack 1712 bytes, 4096 so far, of 262144; worker 2; spawned by 1 'main'
//!   and 9998 more
//!       0: <greenroom::shims::net::tcp_stream::TcpStream as std::io::Read>::read
//!              at /home/ann/.cargo/registry/src/…/shims/net/tcp_stream.rs:121:9
//!       1: server::serve
//!              at ./src/main.rs:21:33
//! …
//! spawned by
//!   1 'main' (src/main.rs:8:5)
//!     1 of src/main.rs:10:9: 17 'mover'
//!     10000 of src/main.rs:12:9: 20 21 and 9998 more
//! ```
//!
//! Coroutines that were spawned at the same place, and wait in the same way and with the same stack, are one group;
//! the largest comes first. Ids count from 1, in the order in which they are first asked for, and are not used
//! again.
//!
//! What a coroutine waits for is told as exactly as it is known: the descriptor, the direction and the peer; the
//! lock and its owner; the coroutines to be joined; the channel, by its address; the child process; each arm of a
//! `select!`. Three things are not known: the owner of a lock if that is an OS thread, the readers of a
//! [`RwLock`](crate::shims::sync::RwLock), and which future of another crate has to make progress. After a coroutine
//! has ended without unlocking, its successor on the same worker may be named instead.
//!
//! The time since the last run is measured by the kernel's tick, and from the beginning of a batch of turns. So it is
//! too long by some milliseconds, or by as long as another coroutine of the worker has run in one piece.
//!
//! # How it is done, and what it costs
//!
//! Each worker describes its own coroutines, on its own thread, for half a millisecond in each of its turns. So no
//! coroutine is stopped for longer than that, and the descriptions are not all of the same moment. A hundred thousand
//! parked coroutines take about a second, most of it for their backtraces; [`Dump::backtraces`](crate::Dump::backtraces)
//! leaves those out. Coroutines that have not started are the exception: a worker lists all that are in its queue at
//! once, a million in about a tenth of a second.
//!
//! The stack of a parked coroutine is walked by the unwinder of panics, while the coroutine is resumed for a moment,
//! on the stack of its worker. None of the program's code runs meanwhile. A coroutine that is ready since it has
//! yielded has no backtrace, and neither has one that has not started.
//!
//! A worker that is held by a coroutine does not answer. After a second
//! ([`Dump::patience`](crate::Dump::patience)) the dump names such workers and does without them.
//!
//! A program that makes no dumps pays for a few stores in each wait.
//!
//! # JSON
//!
//! [`Dump::json`](crate::Dump::json) writes one object for programs:
//!
//! | member | what it is |
//! |---|---|
//! | `version` | 1; members may be added without a change of this |
//! | `workers` | for each: `runtime`, `worker`, `state` (`answered`, `busy`, or `away` if no thread drives it), how many coroutines were `not_described`, and the `holder` |
//! | `pool` | the pool of [`unblock`](crate::unblock()): how many `threads` it has, how many of these are `idle`, and how many jobs are `queued` for one |
//! | `cycles` | lists of the ids of coroutines, each of which waits for the next |
//! | `coroutines` | see below |
//! | `traces` | the different stacks; each is a list of frames with an `address` and `symbols` (`name`, `at`), innermost first |
//!
//! The `holder` of a worker is the coroutine that keeps it from answering, or `null` if there is none or it is not
//! known. It has an `id` and a `name`, which may be `null`; `spawned_at`; the `system_call` in which it waits, or `null`
//! if it computes or that is not known; and its `backtrace`, a text, or `null`.
//!
//! A coroutine has:
//!
//! | member | what it is |
//! |---|---|
//! | `id`, `name`, `parent`, `spawned_at`, `runtime`, `daemon` | `name` and `parent`, the id of the spawner, may be `null` |
//! | `state` | `running`, `ready`, `parked`, or `fresh` if it has not started |
//! | `trace` | the index of its stack in `traces`, or `null` |
//! | `worker`, `stack`, `locals` | unless it is fresh; `stack` has `size`, `depth` and `high_water` in bytes; `locals` are the names of its [coroutine locals](crate::coroutine_local) that have a value |
//! | `parked_for`, `wakes_in`, `wait` | if it is parked; seconds, and `null` if nothing but the event ends the wait |
//!
//! A `wait` has a `reason`, a `text` for people, and what is known of `address`, `owner` (an id, or `null`), `joins`
//! (ids), `descriptors` (`number`, `interest`, `object`) and `arms` (waits). The reasons are `park`, `sleep`, `read`,
//! `write`, `descriptors`, `child`, `mutex`, `rwlock`, `condvar`, `once`, `futex`, `semaphore`, `barrier`, `event`,
//! `wait_group`, `queue`, `receive`, `send`, `join`, `members`, `idle`, `select`, `job`, `future`, `tick` and
//! `timers`.
//!
//! # The backdoor, and `top`
//!
//! A program that serves a [backdoor](crate::backdoor) answers questions while it runs: its owner connects to a Unix
//! socket for dumps and numbers, cancels a coroutine, or sets the threshold of the monitor. Only the user of the process
//! and root are let in. The answers come from an OS thread of their own, also if coroutines hold all workers.
//!
//! ```no_run
//! # fn main() -> std::io::Result<()> {
//! let _backdoor = greenroom::backdoor::serve("/run/app/backdoor")?;
//! # Ok(()) }
//! ```
//!
//! `examples/top`, in a checkout of greenroom, shows the coroutines of such a program in a table that is renewed each
//! second: `cargo run -p top -- /run/app/backdoor`. The table can be sorted by each column, filtered by a text, grouped
//! by stacks, and frozen; a coroutine's backtrace is one key away, and `k` cancels it. The header has the numbers.
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
//! # Deadlocks
//!
//! [`RuntimeBuilder::abort_on_deadlock`](crate::RuntimeBuilder::abort_on_deadlock) has a program end with a report,
//! instead of hanging, when all its coroutines wait for each other:
//!
//! ```text
//! greenroom: fatal: all coroutines wait for each other, and nothing else can wake them:
//!   coroutine 1 'main' (spawned at src/main.rs:8:5) joins 2 'mover'
//!   coroutine 2 'mover' (spawned at src/main.rs:10:9) waits for a mutex at 0x55ac2dfaf9c0 that 3 'counter' has
//!   coroutine 3 'counter' (spawned at src/main.rs:14:9) waits for a mutex at 0x55ac2dfaf9a0 that 2 'mover' has
//! ```
//!
//! A dump follows, with the backtraces. [`RuntimeBuilder::on_deadlock`](crate::RuntimeBuilder::on_deadlock) calls a hook
//! instead, which may make a dump of its own, and may end the deadlock. Either reports a deadlock only if that is
//! certain: nothing is expected from the system, no job is under way, no coroutine runs a future
//! ([`block_on`](crate::block_on)), the runtime has had no timer of [`after`](crate::after()), and the process has no
//! other thread, which might have a handle. Where that is not certain, a dump shows the cycle.
//!
//! # gdb
//!
//! The executable of a program that is built with debug information (`debug = true` in its profile) has a script for
//! gdb, which adds commands for coroutines. They work in a live process and with a core file, on x86-64, in gdb 11
//! and later. gdb runs the script if it is told to trust the executable:
//!
//! ```text
//! $ gdb -iex 'add-auto-load-safe-path target' -p 4711
//! (gdb) info coroutines
//! 1.0.0 'main' parked (join), in server::main::{closure#0} (src/main.rs:31), spawned at src/main.rs:8:5, id 1
//! 1.0.1 'reader' parked (read or write), in server::serve (src/main.rs:21), spawned at src/main.rs:12:9, id 2
//! 1.1.0 'hasher' running on thread 2, in server::hash (src/main.rs:44), spawned at src/main.rs:14:9
//! 3 started coroutines
//! (gdb) coroutine 1.0.1 bt
//! #1  0x00005579bf4a7ffc in corosensei::arch::x86_64::switch_yield (arg=0, parent_link=0x7fdd217d0fb0) at …
//! …
//! #17 0x00005579bf33fa31 in server::serve (stream=…) at src/main.rs:21
//! …
//! ```
//!
//! | command | what it does |
//! |---|---|
//! | `info coroutines` | lists the coroutines that have started; `-quick` leaves out where each one is |
//! | `coroutine 1.0.1 bt` | prints the backtrace of a coroutine |
//! | `coroutine 1.0.1 COMMAND` | runs any command in the innermost frame of a coroutine: `frame 17`, `frame apply 20 info locals` |
//! | `coroutine apply all COMMAND` | does so for each coroutine |
//! | `coroutine gcore FILE` | writes a core file |
//!
//! A coroutine is named by its runtime, its worker and its slot there, which it keeps until it ends, or by its id if it
//! has one. The frames of a parked coroutine are shown as the callers of the selected thread's innermost frame, which
//! is why their numbers begin at 1 or more. No register is changed.
//!
//! Core files that the kernel writes have the stacks of all coroutines. gdb's own `gcore` does not know the guards
//! that Linux 6.13 and later make between stacks: it leaves out what follows the first one. `coroutine gcore` does not.
//!
//! # Backtraces
//!
//! The backtrace of a coroutine that runs ends at its root, `root_of_coroutine`, in std's `Backtrace` and in the report
//! of a panic, in gdb (`bt`) and in perf, whether these follow unwind tables or frame pointers. What the worker has
//! done before is not part of it. (On other processors than x86-64 and AArch64 it goes on into the worker.)
//!
//! A panic is reported with the name of its coroutine, and with a backtrace as `RUST_BACKTRACE` says: `1` or `full`. A
//! stack overflow is reported with the frames of both ends of the stack, and with one round of a recursion:
//!
//! ```text
//! coroutine 'parser' (spawned at src/main.rs:8:5) has overflowed its stack of 131072 bytes
//! its frames, innermost first:
//!    0: parser::value
//!              at ./src/main.rs:30:17
//!    1: parser::list
//!              at ./src/main.rs:21:5
//!    2: parser::value
//!              at ./src/main.rs:33:5
//!       these 2 frames 403 times more
//!  809: parser::parse
//! …
//! ```
//!
//! A copy of the process finds the names, since the one that has overflowed may hold the lock of its allocator. If the
//! copy does not succeed within five seconds, the report has addresses alone, for `addr2line`. (Other systems than
//! x86-64 with glibc: the first line only.)
//!
//! # Flame graphs
//!
//! *Where does the processor's time go?* perf tells it by function. With
//! [`perf_map`](crate::perf_map()), which a program calls at its start, it tells the coroutine as well: each has a frame
//! with its name. `examples/profile.rs` is such a program. It needs frame pointers, or else `--call-graph dwarf`, which
//! makes larger files:
//!
//! ```text
//! $ RUSTFLAGS="-C force-frame-pointers=yes" cargo build --release --example profile
//! $ perf record -e cpu-clock -g target/release/examples/profile > waits.folded
//! $ perf script -F ip,sym | grep -o 'coroutine .*' | sort | uniq -c
//!       1 coroutine feeder
//!     144 coroutine heavy
//!      37 coroutine light
//!       6 coroutine main
//! ```
//!
//! For a flame graph, the stacks are folded: one line for each different stack, outermost function first. Of the
//! frames of a coroutine, those from its name on are kept:
//!
//! ```text
//! $ perf script -F ip,sym | awk '
//!     NF == 0 { if (stack != "") count[stack]++; stack = ""; done = 0; next }
//!     { $1 = ""; if (!done) stack = substr($0, 2) (stack == "" ? "" : ";" stack) }
//!     / coroutine / { done = 1 }
//!     END { for (stack in count) print stack, count[stack] }' > cpu.folded
//! $ grep 'work;profile::compute ' cpu.folded
//! coroutine light;greenroom::coroutine::perf_map::NamedFunction::call::begin;<greenroom::runtime::join::packet::Packet<F,T,G> as greenroom::task::Body>::run;profile::work;profile::compute 36
//! coroutine heavy;greenroom::coroutine::perf_map::NamedFunction::call::begin;<greenroom::runtime::join::packet::Packet<F,T,G> as greenroom::task::Body>::run;profile::work;profile::compute 140
//! ```
//!
//! Brendan Gregg's `flamegraph.pl`, or `inferno-flamegraph` of the crate inferno, draws either file:
//! `inferno-flamegraph cpu.folded > cpu.svg`.
//!
//! *Where do coroutines wait?* perf does not tell that, because a coroutine that waits is on no thread. A
//! [`WaitProfile`](crate::WaitProfile) does, over any time, in the same format. The number is the time in microseconds:
//!
//! ```text
//! $ cat waits.folded
//! feeder;<greenroom::runtime::join::packet::Packet<F,T,G> as greenroom::task::Body>::run;profile::feed;greenroom::park::sleep;sleep 1163845
//! heavy;<greenroom::runtime::join::packet::Packet<F,T,G> as greenroom::task::Body>::run;profile::work;greenroom::channel::mpmc::Channel<T>::take_or_wait;receive 1158194
//! light;<greenroom::runtime::join::packet::Packet<F,T,G> as greenroom::task::Body>::run;profile::work;greenroom::channel::mpmc::Channel<T>::take_or_wait;receive 1129951
//! main;<greenroom::runtime::join::packet::Packet<F,T,G> as greenroom::task::Body>::run;greenroom::runtime::join::JoinHandle<T>::join;greenroom::runtime::join::wait_for;join 1163845
//! ```
//!
//! While it is taken, a thread wakes up every interval and has each worker look at its coroutines, as for a dump: at no
//! more than 256 in all, which takes about ten microseconds each. Of more coroutines, a part that is chosen at random
//! stands for all. What is waited for without a profile costs nothing.
//!
//! # Numbers
//!
//! [`metrics`](crate::metrics()) returns what the runtimes of the process have counted: coroutines that are alive and
//! that wait for their turn, spawns, turns, wake-ups, yields, steals and polls; how long runnable coroutines wait;
//! the pool, and the stacks. They are always counted, and a call takes microseconds. `examples/metrics.rs`
//! exports them in the text format of Prometheus. [`parked_by_reason`](crate::parked_by_reason) tells how
//! many coroutines wait for what, for which it asks the workers.
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
