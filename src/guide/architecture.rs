//! How greenroom works, in the order in which things happen to a coroutine.
//!
//! 1. *Spawn.* One allocation holds the task (name, spawn site, the word that governs its waits)
//!    and its closure, later its result. Capacity for a stack is reserved; where it cannot be had,
//!    [`Builder::spawn`](crate::Builder::spawn) returns the error. The task goes to the spawning worker's deque of fresh
//!    coroutines (or, from elsewhere, to the runtime's injector), and if nobody is searching for
//!    work, one sleeping worker is woken to.
//! 2. *First turn.* The worker that takes it pins it: from now on it is known by its slot there. It
//!    gets a stack, most likely one that is hot from the coroutine before. Stacks are slots of a
//!    few large mappings; the guards below them are made by `MADV_GUARD_INSTALL`, which splits no
//!    mapping (on kernels before 6.13 by `mprotect`, of which a process has room for about 32,000).
//!    Tops are staggered, lest all hot frames compete for the same cache sets.
//! 3. *An operation* that need not wait is one system call with `MSG_DONTWAIT`. A read that would
//!    have to is preceded by a park, if it is known to be futile: readiness is remembered from the
//!    edges that the poll reports, and cleared when an operation finds it gone or takes less than it
//!    could. A write is tried first, because the kernel tells of room only when there is much of it.
//!    When a timeout has passed, the operation is tried once more, and the kernel decides. The
//!    protocol is drawn in `reactor/ready_word.rs`.
//! 4. *Park.* A wait begins with a new sequence number in the task's word; whoever is to end it
//!    holds that number. One compare-and-swap on the word decides between event, deadline and
//!    interrupt; the loser has no effect (`task/word.rs`). A wait that has begun is suspended in any
//!    case, and whoever ends it, be it before that, schedules the coroutine. The switch is inlined
//!    into what waits, because a processor mispredicts the return from each function that has called
//!    before a switch and returns after it. Waiters queue by nodes on their own stacks. A deadline goes to the worker's timers, where arming and cancelling are
//!    mostly a few stores. One that is a duration away may be late by 1/64 of that, at most 1 ms,
//!    to share a wake-up of the worker with its neighbours; the instants of `*_until` are kept as well
//!    as the system can. Descriptors that others use are registered for each wait
//!    (`reactor/watch.rs`).
//! 5. *Wake.* The winner puts the slot into the owner's queue; from another thread, into its inbox,
//!    and kicks the owner's eventfd if that sleeps. Since a coroutine only runs on its owner, no
//!    waker has to wait for it to be switched out.
//! 6. *A worker's turn*: a bounded batch, alternately from started and fresh coroutines; then a poll
//!    without waiting; then the timers that are due. With nothing to run it looks for fresh
//!    coroutines elsewhere, and where there are none blocks in its poll until an event, a kick or the
//!    next deadline (`worker/sleep.rs` has the protocol). One that has many more coroutines than
//!    another leaves fresh ones to that (`worker/placement.rs`). A coroutine whose operations
//!    never wait is made to yield after 32 of them.
//! 7. *The end.* The result is published and the joiner woken (`task/completion.rs`) on the
//!    coroutine's own stack, which then goes back to the worker. A worker that is idle a second
//!    later takes note of how deep such stacks were used, and returns the memory of their deep parts
//!    to the system.
//!
//! The protocols of 3, 4, 6 and 7, the pool's, those of the futex and the locks over it (`sync/`), and the
//! channels (`channel/`) are model-checked: the package in `tests/models` of the repository compiles
//! their files over loom and shuttle.
//!
//! The layers, each of which knows only those below it: `shims`; `after`, `fs`; `runtime`, `fork`,
//! `spawn`, `scope`, `stats`; `scheduler`; `wait_fd`, `deny_blocking`;
//! `reactor`, `timer`, `resolver`, `blocking`,
//! `sync`, `channel`, `join`, `local`; `park`, `task`; `coroutine`, `sys`.
