//! What the operating system provides, behind one written contract.
//!
//! Linux is the only platform so far. Another one would be a sibling of these files, with the same
//! items. This page is the contract; the files say how Linux fulfils it.
//!
//! # Rules for all items
//!
//! - *Errors.* A function that returns `io::Result` returns the error of the operating system, with its
//!   raw number. An exception is named at its item. A function that returns anything else cannot fail,
//!   or says here what a failure looks like.
//! - *Blocking.* A function never waits for I/O, for another thread or for time, unless its entry says
//!   **blocks**.
//! - *Signals and forks.* A function is async-signal-safe only if its entry says **signal-safe**: a
//!   signal handler may call it, and so may the child of a fork before `exec`. It allocates nothing and
//!   takes no lock. All other functions may do both.
//! - *Layers.* Nothing here knows coroutines. Nothing here calls code of the user's, except for the
//!   global allocator.
//!
//! # `memory`: address space, guards, pages
//!
//! - `CACHE_LINE`: the length of a cache line in bytes.
//! - `page_size()`: the size of a page in bytes. **Signal-safe** after the first call.
//! - `prefetch(address)`, `prefetch_all(value)`: a hint for the caches. Any address is allowed. May do
//!   nothing. **Signal-safe**.
//! - `reserve(len)`: new address space, readable and writable, aligned to a page, reading as zeroes. It
//!   has no memory behind it until it is touched, then page by page, never by huge pages. Fails if
//!   the address space or the number of mappings is exhausted.
//! - `release(start, len)`: gives the address space back. On failure it stays reserved.
//! - `GuardKind`: the ways to make a guard. `Advice` has no limit in number; `Protection` may have one.
//!   `GuardKind::preferred()` is the first of them that has not failed in this process.
//! - `guard(start, len, kind)`: makes every access to the range a fault (SIGSEGV or SIGBUS with the
//!   address, or an error from a system call). Returns the kind that was used, which is `Protection` if
//!   the other one does not work. Fails if neither does.
//! - `guard_all(ranges)`: the same by `Advice` for many ranges, in few calls. Returns `false` if some
//!   range may not be guarded.
//! - `discard_all(ranges)`: gives the memory behind the ranges back, not the addresses. They read as
//!   zeroes afterwards. Guards in them stay. Best effort: locked memory may stay as it is.
//! - `resident_pages(start, len)`: the pages with memory behind them, lowest first; none where that is
//!   not known.
//! - `perhaps_resident(pages)`, `PAGES_AT_ONCE`: the same as a bit set, for pages anywhere. A bit may be
//!   set for a page without memory, but is never clear for a page with memory.
//!
//! # `thread_end`: the end of a thread
//!
//! - `AtEnd::new(f)`: `const`. Calls `f` for each thread that ends with a pointer kept, on that thread,
//!   after the destructors of its thread-locals. Not if the thread ends with the process.
//! - `keep(pointer)`: replaces the pointer that the calling thread keeps. Returns `false` if that is not
//!   possible; then nothing is called.
//! - `kept()`: the pointer that the calling thread keeps, or null.
//!
//! # `fork`: forked processes
//!
//! A fork here is one that runs the functions registered with the system: `fork`, but not `vfork`,
//! `posix_spawn` or a bare `clone`.
//!
//! - `count_forks()`: from now on, `Process` tells a child from its parent. Idempotent. Fails out of
//!   memory. To be called before the two functions below.
//! - `Process`: `current()`, `is_current()`, and `number()`, which is not zero. **Signal-safe**.
//! - `has_forked()`: whether this process has forked or is a fork, since `count_forks`. **Signal-safe**.
//! - `shares_memory_with_parent()`: whether the caller is a child that no such function was called for.
//!   **Signal-safe**. To be called after `count_forks`.
//! - `in_children(f)`: calls `f` in each child, on its only thread. Fails out of memory.
//! - `at_fork(before, in_parent, in_child)`: calls `before` on the forking thread, then `in_parent`
//!   there and `in_child` on the only thread of the child. Fails out of memory.
//! - `leave_runtimes()`, `has_left_runtimes()`: set and read the flag that this process is a fork of one
//!   with a runtime. **Signal-safe**.
//! - `HeldOverFork`: carries lock guards from `before` to the other two functions. `keep` and `take` are
//!   **signal-safe**.
//!
//! # `poll`: the state of descriptors
//!
//! - `look(fds)`: sets the present events of each descriptor; returns how many have any. A descriptor
//!   that is not open has the event `NVAL`.
//! - `block(fds, timeout)`: **blocks** until there is an event, a signal was handled or the time has
//!   passed, without telling which. `None` is for ever.
//! - `block_in_select(sets, timeout)`: the same with the conditions of `select`.
//! - `can_change(fd)`: whether a poll can wait for the descriptor. `true` if that cannot be found out
//!   for lack of descriptors. **Blocks** for as long as the file system takes to answer fstat(2).
//!
//! # `socket`: attempts at socket operations
//!
//! Each function that sends or receives makes one attempt, which does not block even if the descriptor
//! is in blocking mode, and does not change the mode. If it would have to wait, it fails with
//! `WouldBlock`. Sending to a peer that is gone fails, and raises no signal.
//!
//! - `would_block(error)`: whether an attempt failed because it would have to wait.
//! - `recv`, `peek`, `recv_vectored`, `recv_from`, `peek_from`, `recv_from_unix`, `send`,
//!   `send_vectored`, `send_to`, `send_to_unix`: as their namesakes in std, with std's errors.
//! - `recv_fds(fd, max, buf, blocking)`, `send_fds(fd, fds, buf, blocking)`: with descriptors sent
//!   along. Received ones are closed on exec. With `Blocking::Allowed`, the mode of the descriptor
//!   decides, and the call may **block**. `InvalidInput` for more descriptors than a message can
//!   carry; `InvalidData` if more arrive than `max`.
//! - `asked(bufs)`: the bytes that a vectored attempt asks for. `at_most_iov_max(bufs)`: the buffers
//!   that it takes.
//! - `start_connecting(addr)`: a new TCP socket in non-blocking mode, connected or on its way.
//! - `connect_unix(name)`: a new Unix socket in blocking mode, connected, or not yet because that would
//!   block. `finish_connecting_unix(socket, name)`: connects it, and **blocks**.
//! - `bind_privately(name)`: a Unix socket that accepts connections. From its first moment, nobody but the
//!   owner may connect to the file that names it.
//! - `peer_uid(fd)`: the effective user of the process that has connected a Unix socket, when it did.
//! - `is_writable`, `is_shut_for_reading`: what a poll says at present; `false` if it fails.
//! - `is_send_buffer_full`, `is_nonblocking`: may fail, if the descriptor is not such a one.
//! - `lingers`, `is_listening`: `false` for what is not a socket.
//! - `check_acceptable(fd)`: `WouldBlock` unless an `accept` has something to return.
//! - `family`, `unix_name`, `unnamed`, `no_internet_address`: conversions of addresses, and their errors.
//!
//! # `file`: attempts at file operations
//!
//! The same for files and pipes, where there may be no way to make an attempt.
//!
//! - `read(fd, bufs, offset)`: of a regular file, what is in memory. `InvalidInput` for an offset that
//!   is too large.
//! - `read_pipe(fd, bufs)`, `write_pipe(fd, bufs)`: for pipes, terminals and the like.
//! - `would_block(error)`, `is_not_cached(error)`, `is_unsupported(error)`: whether an attempt failed
//!   because only a blocking call can go on, because the data is not in memory, or because the
//!   platform knows no attempt on this descriptor. The first is true for both others.
//! - `check_readable(fd)`, `check_writable(fd)`: `WouldBlock` unless a blocking call would return at
//!   once, as far as that is known.
//! - `Identity::of(fd)`: the type of an open file, and the number of its mount if the platform has
//!   such numbers. `polls()`: whether a poll can wait for this type.
//! - `open_cached(path, flags, stay)`: opens a file if the lookup needs no disk and no network.
//!   `AGAIN` otherwise. A platform without that always fails.
//!
//! # `mode_turn`: turns at the mode of a listener
//!
//! - `ModeTurn::take()`: excludes the other threads of this process until it is dropped. **Blocks**,
//!   for microseconds, by yielding the processor. A child of a fork does not wait for a thread of its
//!   parent.
//! - `ModeTurn::take_among_processes(fd)`: excludes other processes that share the listener, too. Gives
//!   up on them after a bounded number of attempts.
//!
//! # `child`: the end of a child process
//!
//! - `pidfd(pid)`: a descriptor that is readable once the child has ended. `InvalidInput` for a number
//!   that no process can have.
//! - `wait_for_end(pid)`: **blocks** until the child has ended, and does not reap it.
//!
//! # `signal`: what the process does with signals
//!
//! - `is_ignored(signal)`: whether the signal is ignored. `InvalidInput` for a number that is no signal.
//!
//! # `timerfd`: an alarm for a poll
//!
//! - `TimerFd::new()`: a descriptor that becomes readable when the alarm expires, on the monotonic
//!   clock. Fails if there are no more descriptors.
//! - `set(after)`: arms it, once, to the nanosecond, in place of what was set before.
//! - `unset()`: disarms it. After either call it is not readable for an earlier expiry.
//!
//! # `stderr`: standard error
//!
//! - `Stderr`: a `fmt::Write` without lock, buffer and allocation. **Signal-safe**. Each piece is one
//!   write, which may **block** if standard error is a full pipe.
//!
//! # `switches`: voluntary context switches
//!
//! - `voluntary()`: how often the calling thread has blocked in the kernel so far.
//! - `blamed()`: the same without the excused ones. Debug builds only.
//! - `excused(f)`: runs `f`, and excuses what it blocks.
//! - `is_excused()`: whether the caller is in `excused`. **Signal-safe**.
//! - `own_lock(mutex)`: locks a mutex of this crate's own. **Blocks** for the moment that another thread
//!   holds it, which is excused.
//!
//! # `thread_state`: what another thread is doing
//!
//! - `ThreadNumber`: `current()`, **signal-safe**; `number()`; `state()` and `time_in_queue()`, `None` if the system does not tell;
//!   `signal(signal)`: sends a signal to the thread, and returns `false` if there is no such thread.
//! - `count_threads()`: the number of threads of this process; `None` if the system does not tell.
//! - `name_of_call(number)`: the name of a system call; `None` for a number that is none.
//! - `OwnMemory`: the memory of this process, as the kernel reads it. An address without memory is an error,
//!   and what other threads write meanwhile is read as it comes.
//! - `ForeignCell`: a cell of another thread, which the kernel reads in the same way.
//! - `code()`: the ranges of addresses that hold readable code.
//!
//! # `initialisers`: waits in the initialiser of a `thread_local!`
//!
//! Debug builds only.
//!
//! - `watch()`: turns the detection on for the process.
//! - `look()`: to be called where a wait begins.
//! - `take_found()`: whether, on the calling thread, a wait has begun in an initialiser since the last
//!   call.

#[cfg(not(target_os = "linux"))]
compile_error!("greenroom runs on Linux");

pub(crate) mod child;
pub(crate) mod clock;
pub(crate) mod file;
pub(crate) mod fork;
pub(crate) mod frames;
#[cfg(debug_assertions)]
pub(crate) mod initialisers;
pub(crate) mod memory;
pub(crate) mod mode_turn;
pub(crate) mod poll;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod stderr;
pub(crate) mod switches;
pub(crate) mod thread_end;
pub(crate) mod thread_state;
pub(crate) mod timerfd;
