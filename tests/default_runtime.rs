//! The default runtime: only plain threads spawn here.

mod util;

use std::io::ErrorKind;
use std::panic::{self, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use greenroom::shims::thread;
use serial_test::serial;
use util::Finally;

const MILLI: Duration = Duration::from_millis(1);

/// Runs `child` in a process of its own, which has had no runtime, and has std's panic hook. Returns its
/// standard error. `name` is the name of the calling test.
fn in_a_fresh_process(
    name: &str,
    environment: &[(&str, &str)],
    child: impl FnOnce(),
) -> Option<String> {
    if util::role().is_some() {
        // The test harness may have set a hook.
        drop(panic::take_hook());
        util::on_an_os_thread(child);
        eprintln!("end of child");
        return None;
    }
    let output = util::again!(name, "child")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{}\n{stderr}", output.status);
    assert!(stderr.contains("end of child"), "{stderr}");
    Some(stderr)
}

#[test]
#[serial]
fn a_plain_thread_can_spawn_and_join() {
    util::on_an_os_thread(|| {
        assert_eq!(greenroom::spawn(|| 6 * 7).join().unwrap(), 42);
        let handle = thread::spawn(|| {
            thread::sleep(MILLI);
            thread::spawn(|| "nested").join().unwrap()
        });
        assert_eq!(handle.join().unwrap(), "nested");
        let panics = greenroom::spawn(|| std::panic::resume_unwind(Box::new(5)));
        let payload = panics.join().map(|(): ()| ()).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&5));
    });
}

#[test]
#[serial]
fn a_coroutine_runs_on_another_thread_than_the_one_that_spawns_it() {
    util::on_an_os_thread(|| {
        let here = std::thread::current().id();
        for _ in 0..20 {
            let there = greenroom::spawn(|| std::thread::current().id());
            assert_ne!(there.join().unwrap(), here);
        }
    });
}

#[test]
#[serial]
fn a_plain_thread_can_use_a_scope() {
    util::on_an_os_thread(|| {
        let mut numbers = [1, 2, 3];
        let sum = AtomicUsize::new(0);
        thread::scope(|s| {
            for number in &mut numbers {
                let sum = &sum;
                s.spawn(move || {
                    thread::sleep(MILLI);
                    *number *= 2;
                    sum.fetch_add(*number, SeqCst);
                });
            }
        });
        assert_eq!(numbers, [2, 4, 6]);
        assert_eq!(sum.into_inner(), 12);
    });
}

#[test]
#[serial]
fn wait_idle_waits_for_all_coroutines_and_those_they_spawn() {
    util::on_an_os_thread(|| {
        let ended = Arc::new(AtomicUsize::new(0));
        for n in 0..50 {
            let ended = Arc::clone(&ended);
            greenroom::spawn(move || {
                thread::sleep(n % 5 * MILLI);
                let child = Arc::clone(&ended);
                greenroom::spawn(move || {
                    thread::sleep(2 * MILLI);
                    child.fetch_add(1, SeqCst);
                });
                ended.fetch_add(1, SeqCst);
            });
        }
        greenroom::wait_idle();
        assert_eq!(ended.load(SeqCst), 100);
        greenroom::wait_idle();
    });
}

#[test]
#[serial]
fn several_plain_threads_can_wait_for_idleness_at_once() {
    util::on_an_os_thread(|| {
        for _ in 0..20 {
            let ended = Arc::new(AtomicUsize::new(0));
            for _ in 0..10 {
                let ended = Arc::clone(&ended);
                greenroom::spawn(move || {
                    thread::sleep(MILLI);
                    ended.fetch_add(1, SeqCst);
                });
            }
            let waiters = [(); 4].map(|()| {
                let ended = Arc::clone(&ended);
                std::thread::spawn(move || {
                    greenroom::wait_idle();
                    ended.load(SeqCst)
                })
            });
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), 10);
            }
        }
    });
}

#[test]
#[serial]
fn several_plain_threads_can_spawn_at_once() {
    util::on_an_os_thread(|| {
        let spawners: Vec<_> = (0..8)
            .map(|n| {
                std::thread::spawn(move || {
                    let handles: Vec<_> = (0..200)
                        .map(|m| greenroom::spawn(move || n * 1_000 + m))
                        .collect();
                    for (m, handle) in handles.into_iter().enumerate() {
                        assert_eq!(handle.join().unwrap(), n * 1_000 + m);
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
fn a_handle_can_be_joined_on_any_thread() {
    util::on_an_os_thread(|| {
        let handles: Vec<_> = (0..20)
            .map(|n| {
                let handle = greenroom::spawn(move || {
                    thread::sleep(n % 3 * MILLI);
                    n
                });
                std::thread::spawn(move || handle.join().unwrap())
            })
            .collect();
        for (n, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap(), n as u32);
        }
    });
}

#[test]
#[serial]
fn the_default_runtime_and_another_do_not_mix() {
    util::on_an_os_thread(|| {
        let outside = greenroom::spawn(greenroom::park);
        let unparker = outside.thread().clone();
        // Neither runtime waits for coroutines of the other, or unwinds them.
        util::on_workers(1, move || {
            greenroom::spawn(|| thread::sleep(MILLI));
            greenroom::wait_idle();
        });
        assert!(!outside.is_finished());
        unparker.unpark();
        outside.join().unwrap();
    });
}

#[test]
#[serial]
fn coroutines_spawned_by_threads_start_while_coroutines_spawn_without_end() {
    fn chain(over: Arc<AtomicBool>) {
        if !over.load(SeqCst) {
            greenroom::spawn(move || chain(over));
        }
    }
    let over = Arc::new(AtomicBool::new(false));
    let workers = std::thread::available_parallelism().unwrap().get();
    for _ in 0..workers {
        chain(Arc::clone(&over));
    }
    std::thread::sleep(Duration::from_millis(20)); // each worker has one
    let start = Instant::now();
    let late = greenroom::spawn(|| 5);
    while !late.is_finished() && start.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(late.is_finished());
    over.store(true, SeqCst);
    assert_eq!(late.join().unwrap(), 5);
    greenroom::wait_idle();
}

#[test]
#[serial]
fn a_destructor_can_start_it_while_its_thread_panics() {
    let name = "a_destructor_can_start_it_while_its_thread_panics";
    let stderr = in_a_fresh_process(name, &[], || {
        let unwound = catch_unwind(|| {
            let _spawns = Finally(|| {
                assert_eq!(greenroom::spawn(|| 6 * 7).join().unwrap(), 42);
                // The workers have set up what the panicking thread could not.
                let named = greenroom::Builder::new().name("named".into());
                named.spawn(|| panic!("of it")).unwrap().join().unwrap_err();
            });
            panic!("of the thread");
        });
        unwound.unwrap_err();
        assert_eq!(greenroom::spawn(|| 43).join().unwrap(), 43);
    });
    if let Some(stderr) = stderr {
        assert!(stderr.contains("coroutine 'named' panicked"), "{stderr}");
        assert!(!stderr.contains("panic hook"), "{stderr}");
    }
}

/// The size of this process's address space, in bytes.
fn address_space() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

fn limit_address_space(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the structure is valid.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(done, 0);
}

#[test]
#[serial]
fn a_start_that_fails_leaves_nothing_behind_and_may_be_tried_again() {
    let name = "a_start_that_fails_leaves_nothing_behind_and_may_be_tried_again";
    // The stacks of the threads have 64 MiB, and there is room for a few.
    let environment = [("GREENROOM_WORKERS", "40"), ("RUST_MIN_STACK", "67108864")];
    in_a_fresh_process(name, &environment, || {
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let before = (threads(), util::open_descriptors());
        for _ in 0..3 {
            limit_address_space(address_space() + (1 << 30));
            let spawned = greenroom::Builder::new().spawn(|| ());
            limit_address_space(libc::RLIM_INFINITY);
            assert_eq!(spawned.unwrap_err().kind(), ErrorKind::WouldBlock);
            assert_eq!(util::open_descriptors(), before.1);
            // A thread that was joined may still be listed for a moment.
            while threads() != before.0 {
                std::thread::sleep(MILLI);
            }
        }
        assert_eq!(greenroom::spawn(|| 42).join().unwrap(), 42);
    });
}
