//! A global allocator that uses a lock of the shims, as an allocator does that was ported by the rename.

mod util;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::sync::{Arc, Condvar, Mutex, RwLock, mpsc};
use greenroom::shims::thread;
use greenroom::{
    RuntimeBuilder, after, on_coroutine, park, spawn, spawn_local, unblock, yield_now,
};

/// Counts under the lock. The lock is contended, because other threads allocate all the time.
struct Counting {
    allocated: Mutex<u64>,
    freed: RwLock<u64>,
}

// SAFETY: the system's allocator does the work. This only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(gate) = NEXT_WAITS_AT.take() {
            gate.pass();
        }
        note_use();
        {
            let mut allocated = self
                .allocated
                .lock()
                .unwrap_or_else(|error| error.into_inner());
            *allocated += 1;
            for _ in 0..300 {
                std::hint::spin_loop();
            }
        }
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if UNPARKS.take() {
            PARKED.get().expect("it is there before it parks").unpark();
        }
        note_use();
        *self
            .freed
            .write()
            .unwrap_or_else(|error| error.into_inner()) += 1;
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

thread_local! {
    /// The next allocation of this thread waits until the gate is open.
    static NEXT_WAITS_AT: Cell<Option<&'static Gate>> = const { Cell::new(None) };

    /// The next deallocation of this thread unparks `PARKED`.
    static UNPARKS: Cell<bool> = const { Cell::new(false) };

    /// Allocations and deallocations of this thread use the local of the allocator.
    static USES_LOCAL: Cell<bool> = const { Cell::new(false) };

    /// Calls of the allocator by this thread, outside of coroutines, wait for `HELD_BY_COROUTINE`.
    static WAITS_FOR_COROUTINE: Cell<bool> = const { Cell::new(false) };
}

static PARKED: OnceLock<thread::Thread> = OnceLock::new();

/// Where an allocation waits, by a real wait of the shims.
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

struct GateState {
    is_reached: bool,
    is_open: bool,
}

impl Gate {
    const fn new() -> Gate {
        let state = GateState {
            is_reached: false,
            is_open: false,
        };
        Gate {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Waits until the gate is open.
    fn pass(&self) {
        self.set_and_wait_until(|state| state.is_reached = true, |state| state.is_open);
    }

    /// Has an OS thread open the gate once it is reached, and what else is ready has run.
    fn open_when_reached(&'static self) {
        std::thread::spawn(|| {
            self.set_and_wait_until(|_| {}, |state| state.is_reached);
            std::thread::sleep(Duration::from_millis(20));
            self.open();
        });
    }

    fn open(&self) {
        self.set_and_wait_until(|state| state.is_open = true, |_| true);
    }

    fn set_and_wait_until(&self, set: fn(&mut GateState), is_done: fn(&GateState) -> bool) {
        let mut state = self.state.lock().unwrap();
        set(&mut state);
        self.changed.notify_all();
        while !is_done(&state) {
            state = self.changed.wait(state).unwrap();
        }
    }
}

/// Calls `f`, whose first allocation waits at `gate`.
fn with_first_at(gate: &'static Gate, f: impl FnOnce()) {
    NEXT_WAITS_AT.set(Some(gate));
    f();
    assert!(NEXT_WAITS_AT.take().is_none(), "nothing was allocated");
}

greenroom::coroutine_local! {
    /// What the allocator keeps for each coroutine.
    static LOCAL: LocalOfAllocator = LocalOfAllocator::new();
}

/// Counts those of coroutines.
struct LocalOfAllocator {
    is_of_coroutine: bool,
}

static LOCALS_MADE: AtomicUsize = AtomicUsize::new(0);
static LOCALS_DROPPED: AtomicUsize = AtomicUsize::new(0);

impl LocalOfAllocator {
    fn new() -> LocalOfAllocator {
        let is_of_coroutine = on_coroutine();
        LOCALS_MADE.fetch_add(usize::from(is_of_coroutine), Relaxed);
        LocalOfAllocator { is_of_coroutine }
    }
}

impl Drop for LocalOfAllocator {
    fn drop(&mut self) {
        LOCALS_DROPPED.fetch_add(usize::from(self.is_of_coroutine), Relaxed);
    }
}

static HELD_BY_COROUTINE: Mutex<()> = Mutex::new(());

/// What a call of the allocator does besides, if a test has asked for it.
fn note_use() {
    if USES_LOCAL.get() {
        // Fails if the local was dropped.
        let _ = LOCAL.try_with(|_| ());
    }
    if WAITS_FOR_COROUTINE.get() && !on_coroutine() {
        drop(HELD_BY_COROUTINE.lock());
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting {
    allocated: Mutex::new(0),
    freed: RwLock::new(0),
};

/// Runs `main` on one worker and on two, while OS threads allocate: some for long, and many others for
/// the first time.
fn during_allocations(main: fn()) {
    for workers in [1, 2] {
        util::on_an_os_thread(|| run_during_allocations(workers, main));
    }
}

fn run_during_allocations(workers: usize, main: fn()) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    drop(std::hint::black_box(Box::new(1)));
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Relaxed) {
                let short = std::thread::spawn(|| drop(std::hint::black_box(vec![0; 100])));
                short.join().unwrap();
            }
        });
        let runtime = RuntimeBuilder::new().workers(workers).build().unwrap();
        runtime.run(main);
        drop(runtime);
        over.store(true, Relaxed);
    });
}

fn allocate() {
    drop(std::hint::black_box(vec![0_u8; 100]));
}

#[test]
fn coroutines_are_spawned_and_sleep_and_are_joined() {
    during_allocations(|| {
        let sleepers: Vec<_> = (0..500)
            .map(|n| {
                let sleeper = move || {
                    for round in 0..5 {
                        thread::sleep(Duration::from_micros(n * 7 % 3_000 + round));
                        allocate();
                    }
                };
                match n % 5 {
                    0 => {
                        spawn_local(sleeper);
                        None
                    }
                    _ => Some(spawn(sleeper)),
                }
            })
            .collect();
        for sleeper in sleepers.into_iter().flatten() {
            sleeper.join().unwrap();
        }
        greenroom::wait_idle();
    });
}

#[test]
fn channels_grow_and_shrink() {
    during_allocations(|| {
        for bound in [None, Some(0), Some(1), Some(100)] {
            let (sums, sum) = mpsc::channel();
            let receive = |values: mpsc::Receiver<u64>| {
                let sums = sums.clone();
                spawn(move || sums.send(values.iter().sum::<u64>()).unwrap());
            };
            const EACH: u64 = 300;
            let values = 0..EACH;
            match bound {
                None => {
                    let (sender, receiver) = mpsc::channel();
                    receive(receiver);
                    for _ in 0..4 {
                        let (sender, values) = (sender.clone(), values.clone());
                        spawn(move || values.for_each(|value| sender.send(value).unwrap()));
                    }
                    let sender_of_thread = sender.clone();
                    std::thread::spawn(move || {
                        values.for_each(|v| sender_of_thread.send(v).unwrap())
                    });
                }
                Some(bound) => {
                    let (sender, receiver) = mpsc::sync_channel(bound);
                    receive(receiver);
                    for _ in 0..4 {
                        let (sender, values) = (sender.clone(), values.clone());
                        spawn(move || values.for_each(|value| sender.send(value).unwrap()));
                    }
                    let sender_of_thread = sender.clone();
                    std::thread::spawn(move || {
                        values.for_each(|v| sender_of_thread.send(v).unwrap())
                    });
                }
            }
            assert_eq!(sum.recv().unwrap(), 5 * EACH * (EACH - 1) / 2);
        }
    });
}

#[test]
fn locks_are_waited_for_by_coroutines_and_threads() {
    during_allocations(|| {
        let shared = Arc::new((
            Mutex::new(Vec::new()),
            Condvar::new(),
            RwLock::new(Vec::new()),
        ));
        let work = {
            let shared = Arc::clone(&shared);
            move || {
                for round in 0..50 {
                    shared.0.lock().unwrap().push(round);
                    shared.1.notify_all();
                    shared.2.write().unwrap().push(Box::new(round));
                    assert!(!shared.2.read().unwrap().clone().is_empty());
                }
            }
        };
        let threads: Vec<_> = (0..2).map(|_| std::thread::spawn(work.clone())).collect();
        let coroutines: Vec<_> = (0..4).map(|_| spawn(work.clone())).collect();
        let mut all = shared.0.lock().unwrap();
        while all.len() < 300 {
            all = shared.1.wait(all).unwrap();
        }
        drop(all);
        for coroutine in coroutines {
            coroutine.join().unwrap();
        }
        unblock(|| {
            threads
                .into_iter()
                .for_each(|thread| thread.join().unwrap())
        });
        assert_eq!(shared.2.read().unwrap().len(), 300);
    });
}

#[test]
fn timers_fire_and_are_cancelled() {
    during_allocations(|| {
        static FIRED: AtomicUsize = AtomicUsize::new(0);
        FIRED.store(0, Relaxed);
        let timers: Vec<_> = (0..300)
            .map(|n| {
                let fire = || {
                    allocate();
                    FIRED.fetch_add(1, Relaxed);
                };
                after(Duration::from_micros(n * 31 % 2_000), fire)
            })
            .collect();
        let far = after(Duration::from_secs(1_000), || {
            unreachable!("it is cancelled")
        });
        yield_now();
        util::until("they fire", || FIRED.load(Relaxed) == timers.len());
        assert!(far.cancel());
    });
}

#[test]
fn sockets_are_accepted_and_read_and_written_and_closed() {
    during_allocations(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        const CLIENTS: usize = 60;
        let server = spawn(move || {
            let servers: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    let (mut stream, _) = listener.accept().unwrap();
                    spawn(move || {
                        let mut text = String::new();
                        stream.read_to_string(&mut text).unwrap();
                        stream.write_all(text.to_uppercase().as_bytes()).unwrap();
                    })
                })
                .collect();
            servers
                .into_iter()
                .for_each(|server| server.join().unwrap());
        });
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                spawn(move || {
                    let mut stream = TcpStream::connect(addr).unwrap();
                    thread::sleep(Duration::from_micros(n as u64));
                    write!(stream, "client {n}").unwrap();
                    stream.shutdown(std::net::Shutdown::Write).unwrap();
                    let mut text = String::new();
                    stream.read_to_string(&mut text).unwrap();
                    assert_eq!(text, format!("CLIENT {n}"));
                })
            })
            .collect();
        clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
        server.join().unwrap();
    });
}

#[test]
fn scopes_lend_and_the_pool_works() {
    during_allocations(|| {
        let mut numbers = vec![0_usize; 100];
        greenroom::scope(|scope| {
            for (n, number) in numbers.iter_mut().enumerate() {
                scope.spawn(move || {
                    yield_now();
                    *number = unblock(move || {
                        allocate();
                        n
                    });
                });
            }
        });
        assert!(numbers.into_iter().eq(0..100));
    });
}

/// A thread that waits for the first time allocates what it waits with. Until it has that, it cannot be
/// woken.
#[test]
fn an_allocator_waits_at_a_condition_variable_for_a_thread_that_waits_for_the_first_time() {
    static HELD: Mutex<()> = Mutex::new(());
    static GATE: Gate = Gate::new();
    let guard = HELD.lock().unwrap();
    let (done, over) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        NEXT_WAITS_AT.set(Some(&GATE));
        drop(HELD.lock().unwrap());
        NEXT_WAITS_AT.set(None);
        done.send(()).unwrap();
    });
    std::thread::sleep(Duration::from_millis(20));
    GATE.open();
    drop(guard);
    over.recv_timeout(Duration::from_secs(10)).unwrap();
    thread.join().unwrap();
}

/// A worker that has nothing to run looks when its next timer is due, which drops memory of old timers, and then blocks.
/// A coroutine that the allocator wakes meanwhile kicks nobody, because its own worker is awake.
#[test]
fn a_worker_that_frees_memory_before_it_sleeps_runs_a_coroutine_that_the_allocator_wakes() {
    util::on_workers(1, || {
        PARKED.set(thread::current()).unwrap();
        thread::sleep(Duration::from_millis(10));
        let start = Instant::now();
        UNPARKS.set(true);
        thread::park_timeout(Duration::from_secs(80));
        assert!(!UNPARKS.get(), "nothing was freed");
        assert!(start.elapsed() < Duration::from_secs(40));
    });
}

/// The wait has begun when its stack is looked at, which allocates.
#[cfg(debug_assertions)]
#[test]
fn a_wait_whose_stack_is_looked_at_ends_if_the_allocator_has_waited_meanwhile() {
    static GATE: Gate = Gate::new();
    let name = "a_wait_whose_stack_is_looked_at_ends_if_the_allocator_has_waited_meanwhile";
    if util::role().is_some() {
        assert!(greenroom::deny_blocking_with(|_| {}));
        GATE.open_when_reached();
        return util::on_workers(1, || {
            with_first_at(&GATE, || thread::sleep(Duration::from_millis(1)));
        });
    }
    let status = util::again!(name, "child").status().unwrap();
    assert!(status.success(), "{status}");
}

/// The wait has begun when it is counted, which allocates.
#[cfg(debug_assertions)]
#[test]
fn a_wait_that_is_counted_ends_if_the_allocator_has_waited_meanwhile() {
    static GATE: Gate = Gate::new();
    GATE.open_when_reached();
    util::on_workers(1, || {
        greenroom::assert_switches(1, || {
            with_first_at(&GATE, || thread::sleep(Duration::from_millis(1)));
        });
    });
}

/// Two coroutines of a worker call `f`. That of the first one allocates, at `gate`.
fn use_while_another_allocates(gate: &'static Gate, f: fn()) {
    gate.open_when_reached();
    util::on_workers(1, || {
        let has_begun = Arc::new(AtomicBool::new(false));
        let second = spawn({
            let has_begun = Arc::clone(&has_begun);
            move || {
                util::until("the first one calls", || has_begun.load(Relaxed));
                f();
            }
        });
        with_first_at(gate, || {
            has_begun.store(true, Relaxed);
            f();
        });
        second.join().unwrap();
    });
}

#[test]
fn a_coroutine_uses_stdout_while_another_one_of_its_worker_allocates_it() {
    static GATE: Gate = Gate::new();
    use_while_another_allocates(&GATE, || _ = greenroom::shims::io::stdout());
}

#[test]
fn a_coroutine_uses_stdin_while_another_one_of_its_worker_allocates_it() {
    static GATE: Gate = Gate::new();
    use_while_another_allocates(&GATE, || _ = greenroom::shims::io::stdin());
}

/// The memory of a coroutine's locals is freed when they are dropped. Then the allocator must not make its own anew.
#[test]
fn each_local_that_the_allocator_has_made_for_a_coroutine_is_dropped() {
    util::on_an_os_thread(|| {
        // std's list of destructors grows when that of the thread is made, which the allocator must not cause.
        LOCAL.with(|_| ());
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        runtime.run(|| {
            USES_LOCAL.set(true);
            let coroutines: Vec<_> = (0..10).map(|_| spawn(allocate)).collect();
            for coroutine in coroutines {
                coroutine.join().unwrap();
            }
        });
        USES_LOCAL.set(false);
        let made = LOCALS_MADE.load(Relaxed);
        assert!(made > 10, "{made}");
        assert_eq!(LOCALS_DROPPED.load(Relaxed), made);
    });
}

/// Otherwise the process would hang without a word.
#[test]
fn a_worker_that_needs_a_lock_of_its_own_parked_coroutine_aborts_with_a_message() {
    let name = "a_worker_that_needs_a_lock_of_its_own_parked_coroutine_aborts_with_a_message";
    if util::role().is_some() {
        return util::on_workers(1, || {
            util::begin(|| {
                let _guard = HELD_BY_COROUTINE.lock().unwrap();
                park();
            });
            WAITS_FOR_COROUTINE.set(true);
            let allocating: Vec<_> = (0..1000).map(|_| spawn(allocate)).collect();
            for coroutine in allocating {
                coroutine.join().unwrap();
            }
        });
    }
    let output = util::again!(name, "child").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let why = "a worker waits for a lock that one of its own coroutines holds";
    assert!(stderr.contains(why), "{stderr}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{stderr}");
}

/// The report must not wait for ever for what the overflowing coroutine holds.
#[test]
fn an_overflow_under_the_lock_of_the_allocator_is_reported_without_names() {
    let name = "an_overflow_under_the_lock_of_the_allocator_is_reported_without_names";
    #[expect(unconditional_recursion, reason = "that is the point")]
    fn recurse(depth: u64) -> u64 {
        let frame = std::hint::black_box([depth; 16]);
        recurse(depth + 1) + frame[3]
    }
    if util::role().is_some() {
        return util::on_workers(1, || {
            let deep = greenroom::Builder::new().name("deep".into());
            let deep = deep.spawn(|| {
                let _guard = ALLOCATOR.allocated.lock();
                std::hint::black_box(recurse(0));
            });
            deep.unwrap().join().unwrap();
        });
    }
    let output = util::again!(name, "child").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("coroutine 'deep' (spawned at "), "{stderr}");
    assert!(stderr.contains(" has overflowed its stack of "), "{stderr}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{stderr}");
    if cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        let (_, addresses) = stderr.split_once("its frames could not be named").unwrap();
        assert!(addresses.matches("\n  0x").count() > 2, "{stderr}");
    }
}
