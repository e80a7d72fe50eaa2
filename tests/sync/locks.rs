//! What the shims' locks promise beyond std's: coroutines with OS threads, the order of waiters, panics,
//! the end of a runtime, forked children.

use std::cell::Cell;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use greenroom::shims::sync::{Arc, Barrier, Condvar, LazyLock, Mutex, Once, OnceLock, RwLock};
use greenroom::shims::thread;
use greenroom::{Builder, RuntimeBuilder, park, spawn, spawn_local, unblock, yield_now};
use serial_test::{parallel, serial};

use crate::util::{self, Finally, until};

const MILLI: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(1_000);

/// Calls `work` with each number: in a coroutine, or for every third number in an OS thread. Waits for
/// all.
fn in_a_mix(count: usize, work: impl Fn(usize) + Send + Sync + 'static) {
    let work = Arc::new(work);
    let mut coroutines = Vec::new();
    let mut threads = Vec::new();
    for n in 0..count {
        let work = Arc::clone(&work);
        match n % 3 {
            2 => threads.push(std::thread::spawn(move || work(n))),
            _ => coroutines.push(spawn(move || work(n))),
        }
    }
    for coroutine in coroutines {
        coroutine.join().unwrap();
    }
    for thread in threads {
        // If the caller is a coroutine, others run meanwhile.
        unblock(move || thread.join()).unwrap();
    }
}

// ------------------------------------------------------------------------ order

#[test]
fn ten_thousand_waiters_get_a_mutex_in_the_order_in_which_they_came() {
    const COUNT: usize = 10_000;
    util::on_workers(1, || {
        let order = Arc::new(Mutex::new(Vec::new()));
        let guard = order.lock().unwrap();
        let queued = Arc::new(AtomicUsize::new(0));
        let queue: Vec<_> = (0..COUNT)
            .map(|_| {
                let (order, queued) = (Arc::clone(&order), Arc::clone(&queued));
                spawn(move || {
                    let ticket = queued.fetch_add(1, SeqCst);
                    order.lock().unwrap().push(ticket);
                })
            })
            .collect();
        until("it queues", || queued.load(SeqCst) == COUNT);
        drop(guard);
        for one in queue {
            one.join().unwrap();
        }
        assert!(order.lock().unwrap().iter().copied().eq(0..COUNT));
    });
}

#[test]
fn ten_thousand_waiters_of_four_workers_all_get_their_turn() {
    const COUNT: usize = 10_000;
    util::on_workers(4, || {
        let count = Arc::new(Mutex::new(0_usize));
        let queue: Vec<_> = (0..COUNT)
            .map(|_| {
                let count = Arc::clone(&count);
                spawn(move || {
                    let mut guard = count.lock().unwrap();
                    if (*guard).is_multiple_of(10) {
                        yield_now();
                    }
                    *guard += 1;
                })
            })
            .collect();
        for one in queue {
            one.join().unwrap();
        }
        assert_eq!(*count.lock().unwrap(), COUNT);
    });
}

/// Each holds the lock over a switch, releases it, and locks it again at once.
#[test]
fn coroutines_that_lock_again_at_once_take_turns() {
    const COUNT: usize = 20;
    util::on_workers(1, || {
        let turns = Arc::new(Mutex::new([0_usize; COUNT]));
        let over = Arc::new(AtomicBool::new(false));
        let players: Vec<_> = (0..COUNT)
            .map(|me| {
                let (turns, over) = (Arc::clone(&turns), Arc::clone(&over));
                spawn(move || {
                    while !over.load(SeqCst) {
                        let mut turns = turns.lock().unwrap();
                        yield_now();
                        turns[me] += 1;
                        if turns[me] == 100 {
                            over.store(true, SeqCst);
                        }
                    }
                })
            })
            .collect();
        for player in players {
            player.join().unwrap();
        }
        let turns = *turns.lock().unwrap();
        assert!(turns.iter().all(|&turns| turns > 40), "{turns:?}");
    });
}

#[test]
fn writers_do_not_starve_a_reader() {
    util::everywhere(|| {
        let lock = Arc::new(RwLock::new(0));
        let over = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..3)
            .map(|_| {
                let (lock, over) = (Arc::clone(&lock), Arc::clone(&over));
                spawn(move || {
                    while !over.load(SeqCst) {
                        let mut guard = lock.write().unwrap();
                        *guard += 1;
                        thread::sleep(MILLI);
                    }
                })
            })
            .collect();
        let mut before = 0;
        for _ in 0..5 {
            let now = *lock.read().unwrap();
            assert!(now >= before);
            before = now;
        }
        over.store(true, SeqCst);
        for writer in writers {
            writer.join().unwrap();
        }
    });
}

// ---------------------------------------------------------------------- convoys

/// An OS thread holds the lock. A coroutine waits for it first, and its worker then computes. `others` of
/// that worker wait behind it, and then a task of another thread. That task gets the lock while the
/// worker still computes.
fn goes_on_while_a_worker_computes<G>(
    lock: fn() -> G,
    other: fn(),
    others: usize,
    behind: fn(fn(), mpsc::Sender<()>),
) {
    let computes = Arc::new(AtomicBool::new(true));
    let runtime = RuntimeBuilder::new().workers(2).build().unwrap();
    let guard = lock();
    let queued = Arc::new(AtomicUsize::new(0));
    let busy = runtime.spawn({
        let (computes, queued) = (Arc::clone(&computes), Arc::clone(&queued));
        move || {
            let first: Vec<_> = (0..=others)
                .map(|_| {
                    let queued = Arc::clone(&queued);
                    spawn_local(move || {
                        queued.fetch_add(1, SeqCst);
                        other();
                    })
                })
                .collect();
            until("they queue", || queued.load(SeqCst) == others + 1);
            queued.store(usize::MAX, SeqCst);
            while computes.load(SeqCst) {
                std::hint::spin_loop();
            }
            for one in first {
                one.join().unwrap();
            }
        }
    });
    until("it computes", || queued.load(SeqCst) == usize::MAX);
    let (done, is_done) = mpsc::channel();
    behind(other, done);
    std::thread::sleep(20 * MILLI);
    drop(guard);
    let had_it = is_done.recv_timeout(Duration::from_secs(20));
    computes.store(false, SeqCst);
    busy.join().unwrap();
    had_it.expect("the lock is free, and somebody wants it");
}

fn on_a_thread(wait: fn(), done: mpsc::Sender<()>) {
    std::thread::spawn(move || {
        wait();
        done.send(()).unwrap();
    });
}

fn on_another_runtime(wait: fn(), done: mpsc::Sender<()>) {
    std::thread::spawn(move || {
        greenroom::RuntimeBuilder::new()
            .workers(1)
            .build()
            .unwrap()
            .run(|| {
                spawn(wait).join().unwrap();
                done.send(()).unwrap();
            });
    });
}

#[test]
fn a_free_mutex_is_taken_though_the_worker_of_the_first_waiter_computes() {
    static LOCK: Mutex<()> = Mutex::new(());
    for behind in [on_a_thread, on_another_runtime] {
        for others in [0, 1, 100] {
            let lock = || LOCK.lock().unwrap();
            goes_on_while_a_worker_computes(lock, || drop(LOCK.lock().unwrap()), others, behind);
        }
    }
}

#[test]
fn a_free_rwlock_is_taken_though_the_worker_of_the_first_waiter_computes() {
    static LOCK: RwLock<()> = RwLock::new(());
    for others in [0, 1, 100] {
        let lock = || LOCK.write().unwrap();
        let read = || drop(LOCK.read().unwrap());
        let write = || drop(LOCK.write().unwrap());
        goes_on_while_a_worker_computes(lock, read, others, |_, done| {
            on_a_thread(|| drop(LOCK.write().unwrap()), done);
        });
        goes_on_while_a_worker_computes(lock, write, others, |_, done| {
            on_a_thread(|| drop(LOCK.read().unwrap()), done);
        });
        goes_on_while_a_worker_computes(lock, write, others, on_another_runtime);
    }
}

/// A coroutine is woken, finds the lock taken and waits again. When it is woken the next time, the lock is
/// reserved for it, but its worker is busy and does not run it.
#[test]
fn a_lock_that_is_reserved_for_a_coroutine_that_cannot_run_is_taken_by_others() {
    static LOCK: Mutex<()> = Mutex::new(());
    static RWLOCK: RwLock<()> = RwLock::new(());
    type Acts = (fn() -> Box<dyn FnOnce()>, fn(), fn() -> bool);
    let locks: [Acts; 3] = [
        (
            || hold(LOCK.lock()),
            || drop(LOCK.lock()),
            || LOCK.try_lock().is_ok(),
        ),
        (
            || hold(RWLOCK.write()),
            || drop(RWLOCK.write()),
            || RWLOCK.try_write().is_ok(),
        ),
        (
            || hold(RWLOCK.write()),
            || drop(RWLOCK.read()),
            || RWLOCK.try_read().is_ok(),
        ),
    ];
    for (take, want, try_take) in locks {
        for tries in [false, true] {
            let (done, is_done) = mpsc::channel();
            util::on_workers(1, move || {
                let let_go = take();
                let late = spawn(want);
                yield_now();
                let_go();
                // The coroutine was woken, and will find the lock taken.
                let let_go = take();
                yield_now();
                let_go();
                let other = std::thread::spawn(move || {
                    match tries {
                        true => until("it is free", try_take),
                        false => want(),
                    }
                    done.send(()).unwrap();
                });
                // The worker of the coroutine is busy here.
                let had_it = is_done.recv_timeout(Duration::from_secs(20));
                other.join().unwrap();
                had_it.expect("the lock is free, and somebody wants it");
                late.join().unwrap();
            });
        }
    }
}

fn hold<T: 'static>(guard: T) -> Box<dyn FnOnce()> {
    Box::new(|| drop(guard))
}

// -------------------------------------------------------------------- all kinds

#[test]
fn a_mutex_excludes_coroutines_and_os_threads_alike() {
    util::everywhere(|| {
        let shared = Arc::new(Mutex::new((0, false)));
        let own = Arc::clone(&shared);
        in_a_mix(9, move |n| {
            for round in 0..100 {
                let mut guard = own.lock().unwrap();
                assert!(!guard.1);
                guard.1 = true;
                if (n + round) % 10 == 0 {
                    thread::yield_now();
                }
                guard.0 += 1;
                guard.1 = false;
            }
        });
        assert_eq!(*shared.lock().unwrap(), (900, false));
    });
}

#[test]
fn a_barrier_and_a_once_serve_coroutines_and_os_threads_alike() {
    util::everywhere(|| {
        let barrier = Barrier::new(9);
        let value = OnceLock::new();
        let made = AtomicUsize::new(0);
        in_a_mix(9, move |n| {
            for _ in 0..20 {
                barrier.wait();
            }
            value.get_or_init(|| {
                thread::sleep(5 * MILLI);
                made.fetch_add(1, SeqCst);
                n
            });
            assert_eq!(made.load(SeqCst), 1);
            barrier.wait();
        });
    });
}

/// An OS thread holds each lock for a while.
#[test]
fn others_run_while_a_coroutine_waits_for_a_lock() {
    static MUTEX: Mutex<()> = Mutex::new(());
    static RWLOCK: RwLock<()> = RwLock::new(());
    static ONCE: Once = Once::new();
    static CELL: OnceLock<()> = OnceLock::new();
    static LAZY: LazyLock<()> = LazyLock::new(hold);
    static BARRIER: LazyLock<Barrier> = LazyLock::new(|| Barrier::new(2));
    static SIGNAL: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    static HELD: AtomicUsize = AtomicUsize::new(0);

    /// Called by an OS thread. Holds the lock until the ticker has ticked.
    fn hold() {
        let start = HELD.fetch_add(1, SeqCst) + 1;
        until("it may go on", || HELD.load(SeqCst) > start);
    }
    type HoldAndWait = (fn(), fn());
    let locks: [HoldAndWait; 7] = [
        (|| drop((MUTEX.lock(), hold())), || drop(MUTEX.lock())),
        (|| drop((RWLOCK.write(), hold())), || drop(RWLOCK.read())),
        (|| ONCE.call_once(hold), || ONCE.call_once(|| ())),
        (|| *CELL.get_or_init(hold), || *CELL.get_or_init(|| ())),
        (|| *LAZY, || *LAZY),
        (
            || {
                hold();
                BARRIER.wait();
            },
            || {
                BARRIER.wait();
            },
        ),
        (
            || {
                hold();
                *SIGNAL.0.lock().unwrap() = true;
                SIGNAL.1.notify_one();
            },
            || drop(SIGNAL.1.wait_while(SIGNAL.0.lock().unwrap(), |told| !*told)),
        ),
    ];
    util::on_workers(1, || {
        for (hold, wait) in locks {
            HELD.store(0, SeqCst);
            let holder = std::thread::spawn(hold);
            until("it is held", || HELD.load(SeqCst) == 1);
            let waiter = spawn(wait);
            for _ in 0..5 {
                thread::sleep(MILLI);
                assert!(!waiter.is_finished());
            }
            HELD.store(2, SeqCst);
            waiter.join().unwrap();
            holder.join().unwrap();
        }
    });
}

#[test]
fn the_initialiser_of_a_lazy_value_may_wait_for_other_coroutines() {
    static LAZY: LazyLock<usize> = LazyLock::new(|| {
        let helpers: Vec<_> = (0..3)
            .map(|n| {
                spawn(move || {
                    thread::sleep(MILLI);
                    n
                })
            })
            .collect();
        let found = helpers.into_iter().map(|helper| helper.join().unwrap());
        found.sum()
    });
    util::everywhere(|| in_a_mix(9, |_| assert_eq!(*LAZY, 3)));
}

/// Random numbers from a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % n
    }
}

/// Coroutines, threads and jobs use a bounded queue, a table and the sum of the table at random. The test
/// prints its seed. With the same seed, each user does the same operations again, though perhaps in
/// another order among the users.
#[test]
#[serial]
fn locks_of_all_kinds_in_random_use() {
    const SEED: &str = "GREENROOM_TEST_SEED";
    const USERS: usize = 12;
    const ROUNDS: usize = 400;
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => RandomState::new().hash_one(0),
    };
    eprintln!("{SEED}={seed}");

    struct State {
        queue: Mutex<VecDeque<u64>>,
        changed: Condvar,
        table: RwLock<[u64; 16]>,
        sum: Mutex<u64>,
        made: [OnceLock<u64>; 8],
        once: Once,
    }
    let seeds = Cell::new(seed);
    util::everywhere(|| {
        let state = Arc::new(State {
            queue: Mutex::new(VecDeque::new()),
            changed: Condvar::new(),
            table: RwLock::new([0; 16]),
            sum: Mutex::new(0),
            made: Default::default(),
            once: Once::new(),
        });
        let own = Arc::clone(&state);
        let seed = seeds.replace(seeds.get().wrapping_add(1));
        in_a_mix(USERS, move |me| {
            let State {
                queue,
                changed,
                table,
                sum,
                made,
                once,
            } = &*own;
            let mut random = Random((seed ^ (me as u64 + 1) << 32) | 1);
            for round in 0..ROUNDS {
                let pause = random.below(8) == 0;
                match random.below(6) {
                    0 => {
                        let mut table = table.write().unwrap();
                        let by = random.below(100);
                        table[random.below(16) as usize] += by;
                        if pause {
                            thread::yield_now();
                        }
                        *sum.lock().unwrap() += by;
                    }
                    1 => {
                        let table = table.read().unwrap();
                        if pause {
                            thread::sleep(Duration::from_micros(random.below(200)));
                        }
                        let sum = *sum.lock().unwrap();
                        assert_eq!(table.iter().sum::<u64>(), sum);
                    }
                    2 => {
                        let n = random.below(8);
                        let make = || {
                            thread::yield_now();
                            n
                        };
                        assert_eq!(*made[n as usize].get_or_init(make), n);
                        once.call_once(thread::yield_now);
                    }
                    3 => {
                        let short = Duration::from_micros(random.below(300));
                        let guard = queue.lock().unwrap();
                        drop(changed.wait_timeout(guard, short).unwrap());
                    }
                    _ => {
                        let one = u64::from(pause);
                        let mut guard = queue.lock().unwrap();
                        guard.push_back(one);
                        changed.notify_one();
                        if pause {
                            thread::yield_now();
                        }
                        drop(guard);
                        let filled =
                            changed.wait_while(queue.lock().unwrap(), |queue| queue.is_empty());
                        assert!(filled.unwrap().pop_front().is_some(), "{round}");
                        changed.notify_all();
                    }
                }
            }
        });
        assert!(state.queue.lock().unwrap().is_empty());
    });
}

// ----------------------------------------------------------------- during panics

/// Waits in its destructor.
struct WaitsInDrop;

impl Drop for WaitsInDrop {
    fn drop(&mut self) {
        let before = std::thread::panicking();
        thread::sleep(Duration::from_micros(200));
        assert_eq!(std::thread::panicking(), before);
    }
}

#[test]
fn a_panic_poisons_what_its_coroutine_holds_and_nothing_else() {
    const COUNT: usize = 60;
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let locks: Vec<_> = (0..COUNT)
                .map(|_| Arc::new((Mutex::new(0), RwLock::new(0))))
                .collect();
            let holders: Vec<_> = (0..COUNT)
                .map(|n| {
                    let own = Arc::clone(&locks[n]);
                    let next = Arc::clone(&locks[(n + 1) % COUNT]);
                    spawn(move || {
                        let mut guard = own.0.lock().unwrap_or_else(|error| error.into_inner());
                        let _waits = WaitsInDrop;
                        let mut writer = own.1.write().unwrap_or_else(|error| error.into_inner());
                        for _ in 0..5 {
                            thread::sleep(Duration::from_micros(n as u64 % 5 * 100));
                            *guard += 1;
                            *writer += 1;
                        }
                        // Locks of other coroutines are only tried.
                        drop(next.0.try_lock());
                        if n % 2 == 1 {
                            resume_unwind(Box::new(n));
                        }
                    })
                })
                .collect();
            for (n, holder) in holders.into_iter().enumerate() {
                assert_eq!(holder.join().is_err(), n % 2 == 1);
            }
            for (n, locks) in locks.iter().enumerate() {
                let poisoned = (locks.0.is_poisoned(), locks.1.is_poisoned());
                assert_eq!(poisoned, (n % 2 == 1, n % 2 == 1), "those of {n}");
            }
        });
    }
}

/// Locks in a destructor, during a panic.
fn locks_during_a_panic(lock: impl FnMut()) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let _finally = Finally(lock);
        resume_unwind(Box::new("unwound"));
    }));
    let payload = result.map(|(): ()| ()).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"unwound"));
}

/// Also if other coroutines of its worker have queued before it.
#[test]
fn a_destructor_during_a_panic_waits_for_a_lock_that_is_held_elsewhere() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let lock = Arc::new((Mutex::new(0), RwLock::new(0)));
            let held = Arc::new(Barrier::new(2));
            let holder = std::thread::spawn({
                let (lock, held) = (Arc::clone(&lock), Arc::clone(&held));
                move || {
                    let _guards = (lock.0.lock().unwrap(), lock.1.read().unwrap());
                    held.wait();
                    std::thread::sleep(50 * MILLI);
                }
            });
            held.wait();
            let before: Vec<_> = (0..2)
                .map(|_| {
                    let lock = Arc::clone(&lock);
                    spawn_local(move || {
                        *lock.0.lock().unwrap() += 1;
                        *lock.1.write().unwrap() += 1;
                    })
                })
                .collect();
            thread::sleep(5 * MILLI);
            locks_during_a_panic(|| {
                *lock.0.lock().unwrap() += 1;
                *lock.1.write().unwrap() += 1;
            });
            for before in before {
                before.join().unwrap();
            }
            unblock(move || holder.join()).unwrap();
            assert_eq!(*lock.0.lock().unwrap(), 3);
            assert_eq!(*lock.1.read().unwrap(), 3);
        });
    }
}

/// Runs `child` in a process of its own, which aborts. Returns its standard error. `name` is the name of
/// the calling test.
fn stderr_of_abort(name: &str, child: impl FnOnce()) -> String {
    if util::role().is_some() {
        child();
        std::process::exit(0);
    }
    let output = util::again!(name, "child").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{stderr}");
    stderr
}

/// One coroutine calls `hold`. Another one of the same worker calls `want` during a panic.
fn deadlock_during_a_panic(hold: fn(), want: fn()) {
    util::on_workers(1, || {
        let holder = Builder::new().name("holder".into()).spawn(hold).unwrap();
        thread::sleep(5 * MILLI);
        let wants = Builder::new().name("wants".into());
        let wants = wants.spawn(move || locks_during_a_panic(want)).unwrap();
        wants.join().unwrap();
        holder.join().unwrap();
    });
}

#[track_caller]
fn assert_names_both(stderr: &str) {
    let wants = stderr.find("coroutine 'wants' (spawned at tests/sync/locks.rs:");
    let holder = stderr.find("what coroutine 'holder' (spawned at tests/sync/locks.rs:");
    assert!(wants < holder && wants.is_some(), "{stderr}");
    assert!(stderr.contains("unwinding from a panic"), "{stderr}");
}

#[test]
fn a_mutex_held_by_a_coroutine_of_the_same_worker_aborts_with_both_names() {
    static LOCK: Mutex<()> = Mutex::new(());
    let name = "a_mutex_held_by_a_coroutine_of_the_same_worker_aborts_with_both_names";
    assert_names_both(&stderr_of_abort(name, || {
        let hold = || {
            let _guard = LOCK.lock().unwrap();
            thread::sleep(LONG);
        };
        deadlock_during_a_panic(hold, || drop(LOCK.lock()));
    }));
}

/// The coroutine that the lock is reserved for cannot run meanwhile, and does not hold the lock yet.
#[test]
fn a_mutex_reserved_for_a_coroutine_of_the_same_worker_is_taken_during_a_panic() {
    static LOCK: Mutex<()> = Mutex::new(());
    static HAD_IT: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    let had_it = |who| HAD_IT.lock().unwrap().push(who);
    util::on_workers(1, move || {
        let first = LOCK.lock().unwrap();
        let other = spawn(move || {
            let _guard = LOCK.lock().unwrap();
            had_it("other");
        });
        yield_now();
        // The coroutine is woken and comes too late. The next unlock reserves the lock for it.
        drop(first);
        let second = LOCK.lock().unwrap();
        yield_now();
        drop(second);
        let unwinds = catch_unwind(AssertUnwindSafe(|| {
            let _locks = Finally(|| {
                let _guard = LOCK.lock().unwrap();
                had_it("amid a panic");
            });
            panic!("on purpose");
        }));
        unwinds.unwrap_err();
        other.join().unwrap();
    });
    assert_eq!(*HAD_IT.lock().unwrap(), ["amid a panic", "other"]);
}

#[test]
fn a_lock_written_by_a_coroutine_of_the_same_worker_aborts_with_both_names() {
    static LOCK: RwLock<()> = RwLock::new(());
    let name = "a_lock_written_by_a_coroutine_of_the_same_worker_aborts_with_both_names";
    assert_names_both(&stderr_of_abort(name, || {
        let hold = || {
            let _guard = LOCK.write().unwrap();
            thread::sleep(LONG);
        };
        deadlock_during_a_panic(hold, || drop(LOCK.read()));
    }));
}

#[test]
fn a_value_initialised_by_a_coroutine_of_the_same_worker_aborts_with_both_names() {
    static VALUE: OnceLock<()> = OnceLock::new();
    let name = "a_value_initialised_by_a_coroutine_of_the_same_worker_aborts_with_both_names";
    assert_names_both(&stderr_of_abort(name, || {
        let hold = || {
            VALUE.get_or_init(|| thread::sleep(LONG));
        };
        deadlock_during_a_panic(hold, || {
            VALUE.wait();
        });
    }));
}

// ---------------------------------------------------------- the end of a runtime

#[test]
#[parallel] // not beside serial tests, whose waiters the end of the runtime may wake
fn the_end_of_a_runtime_does_not_unwind_waits_for_locks() {
    for workers in [1, 4] {
        let held = Arc::new(Mutex::new(()));
        let wanted = Arc::new(Mutex::new(()));
        let condvar = Arc::new((Mutex::new(()), Condvar::new()));
        let handles = util::on_workers(workers, || {
            let holder = spawn({
                let wanted = Arc::clone(&wanted);
                move || {
                    let _guard = wanted.lock().unwrap();
                    park();
                }
            });
            until("it is locked", || wanted.try_lock().is_err());
            let waiter = spawn({
                let (held, wanted) = (Arc::clone(&held), Arc::clone(&wanted));
                move || {
                    let _guard = held.lock().unwrap();
                    drop(wanted.lock());
                }
            });
            until("it is locked", || held.try_lock().is_err());
            let notified = util::begin({
                let condvar = Arc::clone(&condvar);
                move || {
                    let guard = condvar.0.lock().unwrap();
                    drop(condvar.1.wait(guard));
                }
            });
            thread::sleep(10 * MILLI);
            [holder, waiter, notified]
        });
        assert!(handles.iter().all(|handle| !handle.is_finished()));
        // The locks are as the waiters have left them.
        for locked in [&held, &wanted] {
            assert!(!locked.is_poisoned() && locked.try_lock().is_err());
        }
        assert!(!condvar.0.is_poisoned() && condvar.0.try_lock().is_ok());
        condvar.1.notify_all();
    }
}

/// A lock is poisoned if its holder unwound, and only then.
#[test]
#[parallel] // not beside serial tests, whose waiters the end of the runtime may wake
fn the_end_of_a_runtime_poisons_locks_held_over_a_wait_that_unwinds() {
    for workers in [1, 4] {
        let held = Arc::new(Mutex::new(()));
        let seen = Arc::new(AtomicUsize::new(0));
        util::on_workers(workers, || {
            let holder = Arc::clone(&held);
            spawn(move || {
                let _guard = holder.lock().unwrap();
                thread::sleep(Duration::from_secs(1_000));
            });
            until("it is locked", || held.try_lock().is_err());
            let (held, seen) = (Arc::clone(&held), Arc::clone(&seen));
            util::begin(move || {
                let locked = held.lock();
                seen.fetch_add(1 + usize::from(locked.is_err()), SeqCst);
            });
            thread::sleep(10 * MILLI);
        });
        assert_eq!(seen.load(SeqCst), 2, "the waiter had its turn");
        assert!(held.is_poisoned());
    }
}

/// A coroutine waits, and behind it an OS thread. The coroutine is woken, but its runtime ends before it
/// runs.
#[test]
#[parallel] // not beside serial tests, whose waiters the end of the runtime may wake
fn a_wake_up_is_not_lost_with_a_coroutine_that_is_left_behind() {
    static MUTEX: Mutex<()> = Mutex::new(());
    static RWLOCK: RwLock<()> = RwLock::new(());
    static WAITING: Mutex<usize> = Mutex::new(0);
    static SIGNAL: Condvar = Condvar::new();
    type HoldAndWait = (fn() -> Box<dyn FnOnce()>, fn());
    let waits: [HoldAndWait; 4] = [
        (|| hold(MUTEX.lock()), || drop(MUTEX.lock())),
        (|| hold(RWLOCK.read()), || drop(RWLOCK.write())),
        (|| hold(RWLOCK.write()), || drop(RWLOCK.read())),
        (
            || {
                Box::new(|| {
                    until("both wait", || *WAITING.lock().unwrap() == 2);
                    *WAITING.lock().unwrap() = 0;
                    SIGNAL.notify_one();
                })
            },
            || {
                let mut waiting = WAITING.lock().unwrap();
                *waiting += 1;
                drop(SIGNAL.wait(waiting));
            },
        ),
    ];
    for workers in [1, 4] {
        for (hold, wait) in waits {
            util::on_a_thread_that_stays(move || {
                let runtime = |workers| RuntimeBuilder::new().workers(workers).build().unwrap();
                let given_up = runtime(workers);
                let let_go = hold();
                given_up.run(|| {
                    spawn_local(wait);
                    yield_now();
                    yield_now();
                });
                let behind = std::thread::spawn(wait);
                std::thread::sleep(10 * MILLI);
                // Nobody drives the coroutine's worker between two runs.
                let_go();
                runtime(1).run(|| drop(given_up));
                until("the other goes on", || behind.is_finished());
                behind.join().unwrap();
            });
        }
    }
}

// -------------------------------------------------------------------- and forks

#[test]
#[serial]
fn in_a_forked_child_nobody_waits_for_the_locks() {
    util::on_workers(2, || {
        let lock = Arc::new(Mutex::new(0));
        let guard = lock.lock().unwrap();
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let lock = Arc::clone(&lock);
                spawn(move || *lock.lock().unwrap() += 1)
            })
            .collect();
        let busy = Arc::new(AtomicBool::new(true));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let (busy, own) = (Arc::clone(&busy), Mutex::new(()));
                std::thread::spawn(move || {
                    let both = (own, Condvar::new());
                    while busy.load(SeqCst) {
                        let guard = both.0.lock().unwrap();
                        drop(both.1.wait_timeout(guard, Duration::from_micros(10)));
                    }
                })
            })
            .collect();
        thread::sleep(10 * MILLI);
        for _ in 0..20 {
            // SAFETY: the child uses only what is tested, and the allocator, whose locks libc resets.
            let child = unsafe { libc::fork() };
            assert!(child >= 0);
            if child == 0 {
                // SAFETY: the call has no preconditions.
                unsafe { libc::alarm(50) };
                let fine = catch_unwind(AssertUnwindSafe(|| {
                    // Nobody is woken here. Other buckets are free as well.
                    drop(guard);
                    *lock.lock().unwrap() += 10;
                    let locks: Vec<_> = (0..1_000)
                        .map(|_| (Mutex::new(()), Condvar::new()))
                        .collect();
                    for (mutex, condvar) in &locks {
                        let waited = condvar.wait_timeout(mutex.lock().unwrap(), Duration::ZERO);
                        assert!(waited.unwrap().1.timed_out());
                    }
                    *lock.lock().unwrap()
                }));
                // SAFETY: as above.
                unsafe { libc::_exit(i32::from(!matches!(fine, Ok(10)))) };
            }
            let mut status = 0;
            until("the child ends", || {
                // SAFETY: `status` is valid to write to.
                unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) == child }
            });
            assert_eq!(status, 0);
        }
        busy.store(false, SeqCst);
        drop(guard);
        for waiter in waiters {
            waiter.join().unwrap();
        }
        for other in others {
            unblock(move || other.join()).unwrap();
        }
        assert_eq!(*lock.lock().unwrap(), 4);
    });
}
