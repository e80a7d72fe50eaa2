//! The pool for calls that block.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use greenroom::shims::net::{TcpListener, TcpStream, ToSocketAddrs};
use greenroom::shims::thread;
use greenroom::{RuntimeBuilder, spawn, unblock};
use serial_test::serial;

use crate::util;

const MILLI: Duration = Duration::from_millis(1);

#[test]
#[serial]
fn a_job_returns_its_result() {
    util::everywhere(|| {
        assert_eq!(unblock(|| vec![1, 2, 3]), [1, 2, 3]);
        let text = String::from("moved in and out");
        assert_eq!(unblock(move || text), "moved in and out");
    });
}

#[test]
#[serial]
fn a_panic_of_a_job_reaches_the_caller_with_its_payload_and_the_pool_goes_on() {
    util::everywhere(|| {
        for _ in 0..3 {
            let result = catch_unwind(AssertUnwindSafe(|| unblock(|| panic_any(41_u8))));
            let payload = result.map(|(): ()| ()).unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&41_u8));
        }
        assert_eq!(unblock(|| 42), 42);
        let uncaught = spawn(|| unblock(|| panic_any(43_u8)));
        let payload = uncaught.join().map(|(): ()| ()).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&43_u8));
    });
}

#[test]
#[serial]
fn a_job_runs_inline_off_coroutine_and_on_the_pool_in_a_coroutine() {
    util::on_an_os_thread(|| {
        let here = std::thread::current().id();
        assert_eq!(unblock(|| std::thread::current().id()), here);
    });
    util::on_workers(1, || {
        let here = std::thread::current().id();
        assert_ne!(unblock(|| std::thread::current().id()), here);
        // A thread of the pool is no coroutine, so a nested job runs inline.
        let nested =
            unblock(|| unblock(|| std::thread::current().id()) == std::thread::current().id());
        assert!(nested);
    });
}

#[test]
#[serial]
fn fifty_jobs_run_at_once_while_their_worker_goes_on() {
    const TICKS: usize = 5;
    util::on_workers(1, || {
        let (begun, ticks) = (util::counter(), util::counter());
        let over = Arc::new(AtomicBool::new(false));
        let jobs: Vec<_> = (0..50)
            .map(|n| {
                let (begun, ticks) = (Arc::clone(&begun), Arc::clone(&ticks));
                spawn(move || {
                    unblock(move || {
                        begun.fetch_add(1, SeqCst);
                        let start = Instant::now();
                        while ticks.load(SeqCst) < TICKS {
                            assert!(start.elapsed() < 3 * util::PATIENCE, "the worker waits");
                            std::thread::sleep(MILLI);
                        }
                        n
                    })
                })
            })
            .collect();
        let ticker = spawn({
            let over = Arc::clone(&over);
            move || {
                while !over.load(SeqCst) {
                    thread::sleep(MILLI);
                    // A job ends after some ticks that come when all fifty have begun.
                    ticks.fetch_add(usize::from(begun.load(SeqCst) == 50), SeqCst);
                }
            }
        });
        for (n, job) in jobs.into_iter().enumerate() {
            assert_eq!(job.join().unwrap(), n);
        }
        over.store(true, SeqCst);
        ticker.join().unwrap();
    });
}

#[test]
#[serial]
fn more_jobs_than_threads_all_finish() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let jobs: Vec<_> = (0..300)
                .map(|n| {
                    let (running, most) = (Arc::clone(&running), Arc::clone(&most));
                    spawn(move || {
                        unblock(move || {
                            let now = running.fetch_add(1, SeqCst) + 1;
                            most.fetch_max(now, SeqCst);
                            std::thread::sleep(5 * MILLI);
                            running.fetch_sub(1, SeqCst);
                            n
                        })
                    })
                })
                .collect();
            for (n, job) in jobs.into_iter().enumerate() {
                assert_eq!(job.join().unwrap(), n);
            }
            assert!(most.load(SeqCst) <= 256);
        });
    }
}

#[test]
#[serial]
fn the_resolution_of_a_name_leaves_the_worker_to_others() {
    util::on_workers(1, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ran = Arc::new(AtomicBool::new(false));
        spawn({
            let ran = Arc::clone(&ran);
            move || ran.store(true, SeqCst)
        });
        // Sometimes the answer is there before the coroutine parks, but not each time.
        let resolved = (0..1_000).any(|_| {
            let mut addrs = ("localhost", port).to_socket_addrs().unwrap();
            assert!(addrs.any(|addr| addr.ip().is_loopback() && addr.port() == port));
            ran.load(SeqCst)
        });
        assert!(resolved, "the worker did nothing else meanwhile");

        let acceptor = spawn(move || listener.accept().unwrap());
        let stream = TcpStream::connect(("localhost", port)).unwrap();
        let (accepted, _) = acceptor.join().unwrap();
        assert_eq!(accepted.peer_addr().unwrap(), stream.local_addr().unwrap());
    });
}

#[test]
#[serial]
fn a_name_without_a_valid_port_is_invalid_input() {
    util::everywhere(|| {
        for name in ["localhost", "", "localhost:many", "127.0.0.1"] {
            let error = name.to_socket_addrs().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}");
        }
    });
}

#[test]
#[serial]
fn a_job_outlives_a_runtime_that_does_not_wait_for_it() {
    let (begun, ended) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let waits = util::on_workers(1, || {
        let waits = spawn({
            let (begun, ended) = (Arc::clone(&begun), Arc::clone(&ended));
            move || {
                unblock(move || {
                    begun.store(true, SeqCst);
                    std::thread::sleep(50 * MILLI);
                    ended.store(true, SeqCst);
                });
            }
        });
        while !begun.load(SeqCst) {
            thread::sleep(MILLI);
        }
        waits
    });
    let payload = waits.join().unwrap_err();
    assert!(payload.is::<greenroom::Cancelled>());
    while !ended.load(SeqCst) {
        std::thread::sleep(MILLI);
    }
}

#[test]
#[serial]
fn an_unwanted_result_whose_destructor_panics_costs_no_thread() {
    struct Bomb(Arc<AtomicUsize>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
            std::panic::resume_unwind(Box::new("a bomb"));
        }
    }
    util::on_an_os_thread(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        // More than the pool has threads.
        for _ in 0..3 {
            let (begun, over) = (
                Arc::new(AtomicUsize::new(0)),
                Arc::new(AtomicBool::new(false)),
            );
            RuntimeBuilder::new().workers(1).build().unwrap().run(|| {
                for _ in 0..100 {
                    let (dropped, begun) = (Arc::clone(&dropped), Arc::clone(&begun));
                    let over = Arc::clone(&over);
                    spawn(move || {
                        unblock(move || {
                            begun.fetch_add(1, SeqCst);
                            while !over.load(SeqCst) {
                                std::thread::sleep(MILLI);
                            }
                            Bomb(dropped)
                        })
                    });
                }
                while begun.load(SeqCst) < 100 {
                    thread::sleep(MILLI);
                }
            });
            over.store(true, SeqCst);
        }
        while dropped.load(SeqCst) < 300 {
            std::thread::sleep(MILLI);
        }
        greenroom::run(|| assert_eq!(unblock(|| 42), 42));
    });
}
