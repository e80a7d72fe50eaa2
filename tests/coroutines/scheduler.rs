//! Which coroutine runs when, and where.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::thread;
use greenroom::{park, park_timeout, spawn, spawn_local, yield_now};
use serial_test::{parallel, serial};

use crate::util;

const MILLI: Duration = Duration::from_millis(1);

/// Longer than anything that should happen soon.
const PATIENCE: Duration = Duration::from_secs(10);

/// A record of which coroutine ran when. Its lock is never held across a wait.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<usize>>>);

impl Log {
    fn note(&self, entry: usize) {
        self.0.lock().unwrap().push(entry);
    }

    fn entries(&self) -> Vec<usize> {
        self.0.lock().unwrap().clone()
    }
}

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

#[test]
#[parallel]
fn a_child_does_not_run_before_its_parent_waits() {
    util::on_workers(1, || {
        let log = Log::default();
        let children: Vec<_> = (1..=3)
            .map(|n| {
                let log = log.clone();
                let child = spawn(move || log.note(n));
                assert!(!child.is_finished());
                child
            })
            .collect();
        log.note(0);
        yield_now();
        for child in children {
            child.join().unwrap();
        }
        assert_eq!(log.entries(), [0, 1, 2, 3]);
    });
}

#[test]
#[parallel]
fn coroutines_start_in_the_order_in_which_they_were_spawned() {
    util::on_workers(1, || {
        for local in [false, true] {
            let log = Log::default();
            for n in 0..1_000 {
                let log = log.clone();
                match local {
                    true => drop(spawn_local(move || log.note(n))),
                    false => drop(spawn(move || log.note(n))),
                }
            }
            greenroom::wait_idle();
            assert_eq!(log.entries(), Vec::from_iter(0..1_000));
        }
    });
}

#[test]
#[parallel]
fn coroutines_that_yield_take_turns() {
    util::on_workers(1, || {
        let log = Log::default();
        let parked = util::counter();
        let players: Vec<_> = (0..5)
            .map(|n| {
                let (log, parked) = (log.clone(), Arc::clone(&parked));
                spawn(move || {
                    parked.fetch_add(1, SeqCst);
                    park();
                    for _ in 0..20 {
                        log.note(n);
                        yield_now();
                    }
                })
            })
            .collect();
        util::until("all are parked", || parked.load(SeqCst) == 5);
        assert_eq!(log.entries(), []);
        for player in &players {
            player.thread().unpark();
        }
        for player in players {
            player.join().unwrap();
        }
        let turns = [[0, 1, 2, 3, 4]; 20].concat();
        assert_eq!(log.entries(), turns);
    });
}

#[test]
#[parallel]
fn unparked_coroutines_run_in_the_order_of_the_unparks() {
    util::on_workers(1, || {
        let log = Log::default();
        let parked = util::counter();
        let players: Vec<_> = (0..100)
            .map(|n| {
                let (log, parked) = (log.clone(), Arc::clone(&parked));
                spawn(move || {
                    parked.fetch_add(1, SeqCst);
                    park();
                    log.note(n);
                })
            })
            .collect();
        util::until("all are parked", || parked.load(SeqCst) == 100);
        for player in players.iter().rev() {
            player.thread().unpark();
        }
        for player in players {
            player.join().unwrap();
        }
        assert_eq!(log.entries(), Vec::from_iter((0..100).rev()));
    });
}

#[test]
#[parallel]
fn a_coroutine_that_is_always_ready_starves_neither_timers_nor_sockets_nor_fresh_coroutines() {
    util::on_workers(1, || {
        let over = Arc::new(AtomicBool::new(false));
        let busy = [(); 3].map(|()| {
            let over = Arc::clone(&over);
            spawn(move || {
                while !over.load(SeqCst) {
                    yield_now();
                }
            })
        });
        let ticker = spawn(|| (0..50).for_each(|_| thread::sleep(MILLI)));
        let (mut near, mut far) = connection();
        let echo = spawn(move || {
            let mut byte = [0];
            while far.read(&mut byte).unwrap() > 0 {
                far.write_all(&byte).unwrap();
            }
        });
        for round in 0..100 {
            near.write_all(&[round]).unwrap();
            let mut byte = [0];
            near.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [round]);
            assert_eq!(spawn(move || round).join().unwrap(), round);
        }
        ticker.join().unwrap();
        drop(near);
        echo.join().unwrap();
        over.store(true, SeqCst);
        for busy in busy {
            busy.join().unwrap();
        }
    });
}

/// Each turn takes longer than a batch of turns should, so batches are as small as can be.
#[test]
#[parallel]
fn coroutines_with_long_turns_do_not_starve_fresh_ones() {
    util::on_workers(1, || {
        let over = Arc::new(AtomicBool::new(false));
        let turns = Arc::new(AtomicUsize::new(0));
        let busy = [(); 2].map(|()| {
            let (over, turns) = (Arc::clone(&over), Arc::clone(&turns));
            spawn(move || {
                while !over.load(SeqCst) {
                    std::thread::sleep(2 * MILLI); // computes
                    turns.fetch_add(1, SeqCst);
                    yield_now();
                }
            })
        });
        while turns.load(SeqCst) < 100 {
            yield_now();
        }
        let (before, begun) = (turns.load(SeqCst), Arc::clone(&turns));
        let fresh = spawn(move || begun.load(SeqCst) - before);
        let between = loop {
            if fresh.is_finished() {
                break fresh.join().unwrap();
            }
            assert!(turns.load(SeqCst) < before + 100, "it does not start");
            yield_now();
        };
        assert!(between <= 2, "{between}");
        over.store(true, SeqCst);
        busy.into_iter().for_each(|busy| busy.join().unwrap());
    });
}

#[test]
#[parallel]
fn coroutines_that_spawn_without_end_starve_neither_timers_nor_ready_coroutines() {
    fn successor(over: Arc<AtomicBool>) {
        if !over.load(SeqCst) {
            drop(spawn(move || successor(over)));
        }
    }
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let over = Arc::new(AtomicBool::new(false));
            for _ in 0..4 {
                successor(Arc::clone(&over));
            }
            let ticker = spawn(|| (0..50).for_each(|_| thread::sleep(MILLI)));
            let yields = spawn(|| (0..1_000).for_each(|_| yield_now()));
            ticker.join().unwrap();
            yields.join().unwrap();
            over.store(true, SeqCst);
            greenroom::wait_idle();
        });
    }
}

#[test]
#[parallel]
fn a_reader_whose_peer_floods_it_does_not_starve_others() {
    util::on_workers(1, || {
        let (near, mut far) = connection();
        let over = Arc::new(AtomicBool::new(false));
        let flood = std::thread::spawn({
            let over = Arc::clone(&over);
            move || {
                let mut near = std::net::TcpStream::from(near);
                while !over.load(SeqCst) && near.write_all(&[0; 1 << 16]).is_ok() {}
            }
        });
        let received = Arc::new(AtomicUsize::new(0));
        let reader = spawn({
            let received = Arc::clone(&received);
            move || {
                loop {
                    match far.read(&mut [0; 64]).unwrap() {
                        0 => break,
                        some => received.fetch_add(some, SeqCst),
                    };
                }
            }
        });
        for _ in 0..50 {
            thread::sleep(MILLI);
        }
        util::until("something has come", || received.load(SeqCst) > 0);
        assert!(!reader.is_finished());
        over.store(true, SeqCst);
        reader.join().unwrap();
        flood.join().unwrap();
    });
}

/// Computes without a wait until `done` returns true. Returns false if that takes too long.
fn compute_until(done: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > PATIENCE {
            return false;
        }
        std::hint::spin_loop();
    }
    true
}

#[test]
#[serial]
fn coroutines_spawned_by_a_busy_coroutine_run_on_other_workers() {
    util::on_workers(4, || {
        let busy = spawn(|| {
            let ended = Arc::new(AtomicUsize::new(0));
            for _ in 0..100 {
                let ended = Arc::clone(&ended);
                drop(spawn(move || ended.fetch_add(1, SeqCst)));
            }
            compute_until(|| ended.load(SeqCst) == 100)
        });
        assert!(busy.join().unwrap(), "fresh coroutines wait for a busy one");
    });
}

#[test]
#[serial]
fn a_busy_coroutine_does_not_hold_up_what_others_spawn() {
    util::on_workers(4, || {
        let (busy, started) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let computes = spawn({
            let (busy, started) = (Arc::clone(&busy), Arc::clone(&started));
            move || {
                busy.store(true, SeqCst);
                compute_until(|| started.load(SeqCst) == 1_000)
            }
        });
        // The children live on, so that some workers have more of them than others.
        let parent = spawn({
            let (busy, started) = (Arc::clone(&busy), Arc::clone(&started));
            move || {
                while !busy.load(SeqCst) {
                    yield_now();
                }
                let children: Vec<_> = (0..1_000)
                    .map(|_| {
                        let started = Arc::clone(&started);
                        spawn(move || {
                            started.fetch_add(1, SeqCst);
                            park();
                        })
                    })
                    .collect();
                for child in children {
                    child.thread().unpark();
                    child.join().unwrap();
                }
            }
        });
        let all_started = computes.join().unwrap();
        parent.join().unwrap();
        assert!(all_started, "fresh coroutines wait for a busy one");
    });
}

thread_local! {
    static LOCAL: u8 = const { 0 };
}

fn address_of_local() -> usize {
    LOCAL.with(|local| std::ptr::from_ref(local).addr())
}

#[test]
#[parallel]
fn a_coroutine_that_has_started_stays_on_its_thread() {
    util::on_workers(4, || {
        let wanderers: Vec<_> = (0..200)
            .map(|n: u64| {
                spawn(move || {
                    let (here, local) = (std::thread::current().id(), address_of_local());
                    let at_home = || {
                        assert_eq!(std::thread::current().id(), here);
                        assert_eq!(address_of_local(), local);
                    };
                    let (mut near, mut far) = connection();
                    at_home();
                    for round in 0..10 {
                        thread::sleep(Duration::from_micros((n + round) % 10 * 200));
                        at_home();
                        yield_now();
                        at_home();
                        park_timeout(Duration::from_micros(100));
                        at_home();
                        far = spawn(move || {
                            far.write_all(b"x").unwrap();
                            far
                        })
                        .join()
                        .unwrap();
                        at_home();
                        near.read_exact(&mut [0]).unwrap();
                        at_home();
                    }
                    here
                })
            })
            .collect();
        let homes = wanderers
            .into_iter()
            .map(|wanderer| wanderer.join().unwrap());
        let homes = std::collections::HashSet::<_>::from_iter(homes);
        assert!(homes.len() <= 4);
    });
}

/// Spawns `count` coroutines, each of which lives until all are alive. Returns how many of them each OS
/// thread had, leaving out threads that had none.
fn alive_per_thread(count: usize) -> Vec<usize> {
    let threads = Arc::new(Mutex::new(HashMap::new()));
    let alive = Arc::new(AtomicUsize::new(0));
    let children: Vec<_> = (0..count)
        .map(|_| {
            let (threads, alive) = (Arc::clone(&threads), Arc::clone(&alive));
            spawn(move || {
                let thread = std::thread::current().id();
                *threads.lock().unwrap().entry(thread).or_insert(0) += 1;
                alive.fetch_add(1, SeqCst);
                while alive.load(SeqCst) < count {
                    thread::sleep(MILLI);
                }
            })
        })
        .collect();
    for child in children {
        child.join().unwrap();
    }
    let threads = threads.lock().unwrap();
    threads.values().copied().collect()
}

#[test]
#[parallel]
fn long_lived_coroutines_are_spread_over_all_workers() {
    const WORKERS: usize = 4;
    util::on_workers(WORKERS, || {
        for count in [4_000, 1_000, 4_000] {
            // A thread that gets no processor for a while takes fewer, so this is tried several times.
            let mut alive = Vec::new();
            let spread = (0..10).any(|_| {
                alive = alive_per_thread(count);
                alive.len() == WORKERS && alive.iter().all(|&some| some >= count / 33)
            });
            assert!(spread, "{alive:?}");
        }
    });
}

#[test]
#[parallel]
fn long_lived_coroutines_start_though_the_other_workers_are_busy() {
    util::on_workers(2, || {
        let (busy, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let hog = spawn({
            let (busy, done) = (Arc::clone(&busy), Arc::clone(&done));
            move || {
                busy.store(true, SeqCst);
                while !done.load(SeqCst) {
                    std::hint::spin_loop();
                }
            }
        });
        while !busy.load(SeqCst) {
            std::thread::yield_now(); // without it, the hog starts here
        }
        assert_eq!(alive_per_thread(4_000), [4_000]);
        done.store(true, SeqCst);
        hog.join().unwrap();
    });
}

#[test]
#[parallel]
fn a_local_coroutine_runs_where_it_was_spawned() {
    util::on_workers(4, || {
        let spawners: Vec<_> = (0..100)
            .map(|_| {
                spawn(|| {
                    let here = std::thread::current().id();
                    for _ in 0..10 {
                        let local = spawn_local(move || {
                            let before = std::thread::current().id();
                            thread::sleep(MILLI);
                            (before, std::thread::current().id())
                        });
                        assert_eq!(local.join().unwrap(), (here, here));
                    }
                })
            })
            .collect();
        for spawner in spawners {
            spawner.join().unwrap();
        }
    });
}

#[test]
#[serial]
fn a_hundred_thousand_coroutines_can_be_alive_at_once() {
    const NUMBER: usize = 100_000;
    util::on_workers(1, || {
        let started = Arc::new(AtomicUsize::new(0));
        let sleepers: Vec<_> = (0..NUMBER)
            .map(|n| {
                let started = Arc::clone(&started);
                spawn(move || {
                    started.fetch_add(1, SeqCst);
                    while started.load(SeqCst) < NUMBER {
                        thread::sleep(300 * MILLI);
                    }
                    n
                })
            })
            .collect();
        for (n, sleeper) in sleepers.into_iter().enumerate() {
            assert_eq!(sleeper.join().unwrap(), n);
        }
    });
}

#[test]
#[parallel]
fn a_coroutine_that_computes_in_slices_delays_timers_by_few_slices() {
    util::on_workers(1, || {
        let sleeper = spawn(|| thread::sleep(MILLI));
        yield_now();
        let mut slices = 0;
        while !sleeper.is_finished() {
            std::thread::sleep(MILLI); // computes
            yield_now();
            slices += 1;
        }
        assert!(slices <= 64, "{slices}");
    });
}
