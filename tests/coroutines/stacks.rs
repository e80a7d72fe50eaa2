//! Stacks run out with an error, whatever resource is exhausted, and their memory is given back.
//!
//! A process does not recover from these tests, so each runs in a child.

use std::hint::black_box;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::process::ExitStatus;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use greenroom::{Builder, JoinHandle, RuntimeBuilder, SendQueue};

use crate::util::{self, on_workers};

/// The outcome of a test that ran in a process of its own.
struct Child {
    status: ExitStatus,
    output: String,
}

/// Runs a test of this binary again, in a child with this role.
fn in_a_child(test: &str, role: &str) -> Child {
    let output = util::again!(test, role)
        .env("GREENROOM_WORKERS", "2")
        .env_remove("GREENROOM_STACK_SIZE")
        .env_remove("RUST_MIN_STACK")
        .output()
        .unwrap();
    Child {
        status: output.status,
        output: String::from_utf8([output.stdout, output.stderr].concat()).unwrap(),
    }
}

/// Runs `body` in a child. The test passes if the child reaches its end, or says why it skips.
fn alone(test: &str, body: impl FnOnce()) {
    if util::role().is_some() {
        body();
        eprintln!("end of child");
        return;
    }
    let child = in_a_child(test, "child");
    assert!(
        child.status.success(),
        "{:?}\n{}",
        child.status,
        child.output
    );
    assert!(child.output.contains("end of child"), "{}", child.output);
    // Shows how far the child got, and what it skipped.
    eprint!("{}", child.output);
}

#[track_caller]
fn check(result: libc::c_int) {
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Writes to `BYTES` bytes of the stack.
#[inline(never)]
fn deepen<const BYTES: usize>() {
    black_box(&mut [1_u8; BYTES]);
}

/// Coroutines that use their stacks and wait.
struct Parked(Vec<JoinHandle<usize>>);

impl Parked {
    /// Reserves room for the handles, because an allocation may fail when stacks do.
    fn with_room(for_them: usize) -> Parked {
        Parked(Vec::with_capacity(for_them))
    }

    fn spawn(&mut self, stack_size: usize) -> io::Result<()> {
        assert!(self.0.len() < self.0.capacity(), "spawning does not fail");
        let index = self.0.len();
        let builder = Builder::new().stack_size(stack_size);
        self.0.push(builder.spawn(move || {
            deepen::<2048>();
            greenroom::park();
            deepen::<4096>();
            index
        })?);
        Ok(())
    }

    /// Spawns until an error comes.
    fn spawn_all(&mut self, stack_size: usize) -> io::Error {
        loop {
            if let Err(error) = self.spawn(stack_size) {
                return error;
            }
        }
    }

    /// Lets all of them go on to their end.
    fn finish(self) {
        for handle in &self.0 {
            handle.thread().unpark();
        }
        for (index, handle) in self.0.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), index);
        }
    }
}

#[track_caller]
fn assert_out_of_memory(error: &io::Error) {
    assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
}

/// The first number in a line of a file in /proc.
fn number_in(file: &str, line: &str) -> usize {
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|of| of.strip_prefix(line)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Limits the address space of this process to what it has, and 1 GiB.
fn leave_a_gibibyte_of_address_space() {
    let limit = (number_in("/proc/self/status", "VmSize:") << 10) + (1 << 30);
    let limit = libc::rlimit {
        rlim_cur: limit as libc::rlim_t,
        rlim_max: limit as libc::rlim_t,
    };
    // SAFETY: the structure is valid.
    check(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) });
}

#[test]
fn without_address_space_spawning_fails_until_stacks_are_free_again() {
    alone(
        "without_address_space_spawning_fails_until_stacks_are_free_again",
        || {
            const SIZE: usize = 1 << 20;
            on_workers(1, || {
                let mut parked = Parked::with_room(10_000);
                leave_a_gibibyte_of_address_space();
                let error = parked.spawn_all(SIZE);
                assert_out_of_memory(&error);
                let count = parked.0.len();
                eprintln!("{count} coroutines, then: {error}");
                assert!(
                    count > 500,
                    "most of the address space went to stacks: {count}"
                );
                greenroom::yield_now();
                assert_out_of_memory(&parked.spawn(SIZE).unwrap_err());
                parked.finish();

                let mut again = Parked::with_room(count);
                for _ in 0..count {
                    again.spawn(SIZE).unwrap();
                }
                again.finish();
            });
        },
    );
}

#[test]
fn a_send_queue_without_a_stack_to_write_fails_and_holds_nobody_up() {
    alone(
        "a_send_queue_without_a_stack_to_write_fails_and_holds_nobody_up",
        || {
            const SIZE: usize = 1 << 20;
            let runtime = RuntimeBuilder::new().workers(1).stack_size(SIZE).build();
            let runtime = runtime.unwrap();
            util::on_an_os_thread(|| {
                runtime.run(|| {
                    let queue = SendQueue::new(io::sink(), 4);
                    let mut parked = Parked::with_room(10_000);
                    leave_a_gibibyte_of_address_space();
                    parked.spawn_all(SIZE);
                    for _ in 0..2 {
                        assert_out_of_memory(&queue.send(b"full").unwrap_err());
                    }
                    parked.finish();
                    assert_out_of_memory(&queue.flush().unwrap_err());
                    assert_eq!(queue.queued(), 0);
                });
            });
        },
    );
}

/// The most mappings that a process may have. `None`, with a message, if it would take too long to make
/// so many.
fn mapping_limit() -> Option<usize> {
    let limit = number_in("/proc/sys/vm/max_map_count", "");
    if limit > 2_000_000 {
        eprintln!("skipped: vm.max_map_count is {limit}");
        return None;
    }
    Some(limit)
}

/// Mappings of one page each, which the kernel cannot merge.
struct Mappings(Vec<*mut libc::c_void>);

impl Mappings {
    const PAGE: usize = 4096;

    fn add(&mut self) -> bool {
        let access = match self.0.len() % 2 {
            0 => libc::PROT_NONE,
            _ => libc::PROT_READ,
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing.
        let page = unsafe { libc::mmap(ptr::null_mut(), Self::PAGE, access, flags, -1, 0) };
        let mapped = page != libc::MAP_FAILED;
        if mapped {
            self.0.push(page);
        }
        mapped
    }

    /// Takes all mappings up to the limit, except `left`.
    fn take_all_but(left: usize, limit: usize) -> Mappings {
        let mut taken = Mappings(Vec::with_capacity(limit + 1000));
        while taken.add() {}
        taken.give_back(left);
        taken
    }

    fn give_back(&mut self, count: usize) {
        for page in self.0.drain(self.0.len() - count..).rev() {
            // SAFETY: this is one of the mappings above, which hold nothing.
            check(unsafe { libc::munmap(page, Self::PAGE) });
        }
    }
}

/// Fills the heap, because the allocator aborts if it needs memory when no mappings are left.
fn stock_the_heap() {
    const STOCK: libc::c_int = 64 << 20;
    // SAFETY: these calls set parameters of the allocator to valid values.
    unsafe {
        assert_eq!(libc::mallopt(libc::M_TOP_PAD, STOCK), 1);
        assert_eq!(libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX), 1);
        assert_eq!(libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20), 1);
    }
    drop(black_box(Vec::<u8>::with_capacity(16 << 20)));
}

#[test]
fn at_the_limit_of_mappings_spawning_fails_and_the_others_go_on() {
    alone(
        "at_the_limit_of_mappings_spawning_fails_and_the_others_go_on",
        || {
            // A size that no other test uses.
            const SIZE: usize = 512 << 10;
            let Some(limit) = mapping_limit() else { return };
            stock_the_heap();
            on_workers(1, || {
                let mut parked = Parked::with_room(100_000);
                let mut others = Mappings::take_all_but(5, limit);
                // Stacks may need few mappings, so each coroutine maps something else, too.
                let error = loop {
                    if let Err(error) = parked.spawn(SIZE) {
                        break error;
                    }
                    others.add();
                };
                assert_out_of_memory(&error);
                let count = parked.0.len();
                greenroom::yield_now();
                assert_out_of_memory(&parked.spawn(SIZE).unwrap_err());
                parked.finish();
                others.give_back(others.0.len());
                eprintln!("{count} coroutines, then: {error}");
                assert!(count > 0);

                let mut again = Parked::with_room(count + 1000);
                for _ in 0..count + 1000 {
                    again.spawn(SIZE).unwrap();
                }
                again.finish();
            });
        },
    );
}

/// Has the kernel lock all memory when it is touched. Returns false, with a message, if that is not
/// allowed.
fn lock_memory() -> bool {
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: the call has no preconditions.
    if unsafe { libc::mlockall(flags) } != 0 {
        eprintln!("skipped: mlockall: {}", io::Error::last_os_error());
        return false;
    }
    // A small process may be allowed to lock what it has, and then not to map more.
    const MUCH: usize = 1 << 30;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing.
    let mapped = unsafe { libc::mmap(ptr::null_mut(), MUCH, libc::PROT_READ, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        eprintln!("skipped: RLIMIT_MEMLOCK: {}", io::Error::last_os_error());
        return false;
    }
    // SAFETY: the mapping was just made, and holds nothing.
    check(unsafe { libc::munmap(mapped, MUCH) });
    true
}

#[test]
fn coroutines_run_in_locked_memory_and_overflows_are_reported() {
    const NAME: &str = "coroutines_run_in_locked_memory_and_overflows_are_reported";
    #[expect(unconditional_recursion, reason = "that is the point")]
    fn recurse(depth: u64) -> u64 {
        let frame = black_box([depth; 16]);
        recurse(depth + 1) + frame[3]
    }
    match util::role().as_deref() {
        None => {
            let child = in_a_child(NAME, "runs");
            assert!(child.status.success(), "{}", child.output);
            eprint!("{}", child.output);
            if child.output.contains("skipped: ") {
                return;
            }
            assert!(child.output.contains("all have run"), "{}", child.output);
            let child = in_a_child(NAME, "overflows");
            let report = format!("coroutine 'locked' (spawned at {}:", file!());
            assert!(child.output.contains(&report), "{}", child.output);
            let end = "has overflowed its stack of 131072 bytes";
            assert_eq!(child.output.matches(end).count(), 1, "{}", child.output);
            assert_eq!(
                child.status.signal(),
                Some(libc::SIGABRT),
                "{}",
                child.output
            );
        }
        Some("runs") => {
            if lock_memory() {
                on_workers(4, || {
                    let mut parked = Parked::with_room(1000);
                    for _ in 0..1000 {
                        parked.spawn(64 << 10).unwrap();
                    }
                    parked.finish();
                });
                eprintln!("all have run");
            }
        }
        Some(_) => {
            assert!(lock_memory());
            on_workers(1, || {
                for _ in 0..20 {
                    greenroom::spawn(greenroom::park);
                }
                let deep = Builder::new().name("locked".to_owned());
                let deep = deep.stack_size(128 << 10).spawn(|| black_box(recurse(0)));
                deep.unwrap().join().unwrap();
            });
        }
    }
}

/// Locks memory, leaves 1000 mappings, and calls `spawner`, which decides where coroutines are spawned
/// from.
fn run_out_of_guards(spawner: impl FnOnce(Box<dyn FnOnce() + Send>)) {
    let Some(limit) = mapping_limit() else { return };
    if !lock_memory() {
        return;
    }
    stock_the_heap();
    spawner(Box::new(move || {
        let mut parked = Parked::with_room(100_000);
        let mut others = Mappings::take_all_but(1000, limit);
        let error = parked.spawn_all(64 << 10);
        let count = parked.0.len();
        // If the stacks had taken every mapping, this would abort the process.
        let thread = std::thread::spawn(|| 7);
        assert_eq!(thread.join().unwrap(), 7);
        greenroom::yield_now();
        let size = || number_in("/proc/self/status", "VmSize:") << 10;
        let before = size();
        for _ in 0..100 {
            assert_out_of_memory(&parked.spawn(64 << 10).unwrap_err());
        }
        assert!(
            size() < before + (1 << 20),
            "failing takes no address space"
        );
        parked.finish();
        others.give_back(others.0.len());
        eprintln!("{count} coroutines, then: {error}");
        assert_out_of_memory(&error);
        assert!((100..500).contains(&count), "two mappings each: {count}");

        let mut again = Parked::with_room(count + 1000);
        for _ in 0..count + 1000 {
            again.spawn(64 << 10).unwrap();
        }
        again.finish();
    }));
}

#[test]
fn in_locked_memory_guards_run_out_with_an_error_of_spawn() {
    alone(
        "in_locked_memory_guards_run_out_with_an_error_of_spawn",
        || {
            run_out_of_guards(|body| on_workers(1, body));
        },
    );
}

#[test]
fn guards_run_out_with_an_error_of_spawn_before_any_coroutine_has_run() {
    let test = "guards_run_out_with_an_error_of_spawn_before_any_coroutine_has_run";
    // An OS thread spawns faster than the workers of the default runtime start coroutines.
    alone(test, || run_out_of_guards(|body| body()));
}

#[test]
fn a_main_coroutine_whose_guard_cannot_be_made_is_a_panic_with_a_message() {
    const NAME: &str = "a_main_coroutine_whose_guard_cannot_be_made_is_a_panic_with_a_message";
    let runtime = || RuntimeBuilder::new().workers(1).build().unwrap();
    alone(NAME, || {
        let Some(limit) = mapping_limit() else { return };
        stock_the_heap();
        // After this, the class has stacks whose guards are still to be made, by `madvise` if the kernel
        // supports that. The second runtime has the stack that was used.
        let (first, second) = (runtime(), runtime());
        first.run(|| ());
        if !lock_memory() {
            return;
        }
        let mut others = Mappings::take_all_but(0, limit);
        let unwound = catch_unwind(AssertUnwindSafe(|| second.run(|| ())));
        others.give_back(others.0.len());
        match unwound {
            Ok(()) => eprintln!("skipped: the kernel makes guards at once"),
            Err(payload) => {
                let message = util::message(&*payload);
                assert!(
                    message.starts_with("no stack for the main coroutine: "),
                    "{message}"
                );
            }
        }
        let io_error = || panic_any(io::Error::other("main's own"));
        let payload = catch_unwind(AssertUnwindSafe(|| first.run(io_error))).unwrap_err();
        assert!(payload.is::<io::Error>());
    });
}

#[test]
fn memory_is_given_back_when_coroutines_finish() {
    alone("memory_is_given_back_when_coroutines_finish", || {
        const COUNT: usize = 2000;
        const TOUCHED: usize = 64 << 10;
        let resident = || number_in("/proc/self/smaps_rollup", "Rss:") << 10;
        for workers in [1, 2] {
            on_workers(workers, || {
                let before = resident();
                let deep = Arc::new(AtomicUsize::new(0));
                let mut handles = Vec::new();
                for _ in 0..COUNT {
                    let deep = Arc::clone(&deep);
                    handles.push(greenroom::spawn(move || {
                        deepen::<TOUCHED>();
                        deep.fetch_add(1, Ordering::Relaxed);
                        greenroom::park();
                    }));
                }
                while deep.load(Ordering::Relaxed) < COUNT {
                    greenroom::yield_now();
                }
                let most = resident();
                assert!(most > before + COUNT * TOUCHED, "{before}, then {most}");
                for handle in handles {
                    handle.thread().unpark();
                    handle.join().unwrap();
                }
                let after = resident();
                eprintln!("{workers} workers: {before} bytes, {most}, then {after}");
                assert!(
                    after < before + (20 << 20),
                    "{before}, {most}, then {after}"
                );
            });
        }
    });
}
