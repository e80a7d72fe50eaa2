//! Time that passes: how late a timer is, measured by what others did meanwhile.

mod util;

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use greenroom::shims::net::{TcpListener, TcpStream, UdpSocket};
use greenroom::shims::thread;
use greenroom::{RuntimeBuilder, park_timeout, park_until, spawn_local};
use serial_test::{parallel, serial};

const MILLI: Duration = Duration::from_millis(1);

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

fn compute_for(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// A machine that is busy with something else may stretch any time: once in ten it must hold.
fn in_one_of_ten(mut attempt: impl FnMut() -> Result<(), String>) {
    let mut failures = Vec::new();
    for _ in 0..10 {
        match attempt() {
            Ok(()) => return,
            Err(why) => failures.push(why),
        }
    }
    panic!("{failures:#?}");
}

#[test]
#[serial]
fn ticks_at_absolute_deadlines_do_not_drift() {
    const PERIOD: Duration = Duration::from_millis(2);
    const TICKS: u32 = 50;
    util::everywhere(|| {
        in_one_of_ten(|| {
            let start = Instant::now();
            for tick in 1..=TICKS {
                compute_for(PERIOD / 2);
                assert!(!park_until(start + tick * PERIOD), "nobody unparks");
                assert!(Instant::now() >= start + tick * PERIOD);
            }
            // Had each period begun when the last one's work was done, this had taken half more.
            let took = start.elapsed();
            let drifted = TICKS * PERIOD * 3 / 2;
            if took < drifted {
                Ok(())
            } else {
                Err(format!("{took:?}"))
            }
        });
    });
}

#[test]
#[parallel]
fn a_ticker_that_fell_behind_catches_up_and_is_then_in_step_again() {
    util::everywhere(|| {
        let start = Instant::now();
        compute_for(20 * MILLI);
        for tick in 1..=30 {
            let before = Instant::now();
            assert!(!park_until(start + tick * MILLI));
            assert!(Instant::now() >= start + tick * MILLI);
            if tick < 20 {
                assert!(before >= start + tick * MILLI, "it has been due already");
            }
        }
    });
}

#[test]
#[parallel]
fn coroutines_that_sleep_for_no_time_take_turns() {
    let sleep: fn() = || thread::sleep(Duration::ZERO);
    for wait in [sleep, greenroom::yield_now] {
        util::on_workers(1, || {
            let turns = Rc::new(RefCell::new(Vec::new()));
            let sleepers = [0, 1, 2].map(|n| {
                let turns = Rc::clone(&turns);
                spawn_local(move || {
                    greenroom::park();
                    for round in 0..10 {
                        turns.borrow_mut().push((round, n));
                        wait();
                    }
                })
            });
            // Those that have started go before those that have not: let all of them.
            thread::sleep(MILLI);
            for sleeper in &sleepers {
                sleeper.thread().unpark();
            }
            for sleeper in sleepers {
                sleeper.join().unwrap();
            }
            let turns = turns.take();
            assert_eq!(turns.len(), 30);
            assert!(turns.is_sorted(), "{turns:?}");
        });
    }
}

#[test]
#[parallel]
fn a_park_for_no_time_tells_whether_there_is_a_token() {
    util::everywhere(|| {
        assert!(!park_timeout(Duration::ZERO));
        thread::current().unpark();
        assert!(park_timeout(Duration::ZERO));
        assert!(!park_timeout(Duration::ZERO));
        assert!(!park_until(Instant::now()));
    });
}

/// What ends the sleep of one that would sleep for ever is the end of its runtime.
#[test]
#[parallel]
fn a_sleep_may_be_longer_than_the_clock_is_wide() {
    struct Counts(Arc<AtomicUsize>);
    impl Drop for Counts {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let ended = Arc::new(AtomicUsize::new(0));
    let woke = Arc::new(AtomicBool::new(false));
    for workers in [1, 4] {
        util::on_workers(workers, || {
            for longest in [
                Duration::MAX,
                Duration::from_secs(u64::MAX),
                Duration::MAX / 2,
            ] {
                let (counts, woke) = (Counts(Arc::clone(&ended)), Arc::clone(&woke));
                thread::spawn(move || {
                    let _counts = counts;
                    thread::sleep(longest);
                    woke.store(true, SeqCst);
                });
            }
            thread::sleep(5 * MILLI);
        });
    }
    assert_eq!(ended.load(SeqCst), 6);
    assert!(!woke.load(SeqCst));
}

#[test]
#[parallel]
fn timeouts_may_be_longer_than_the_clock_is_wide() {
    util::everywhere(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut near = TcpStream::connect_timeout(&addr, Duration::MAX).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.set_read_timeout(Some(Duration::MAX)).unwrap();
        near.set_write_timeout(Some(Duration::MAX)).unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let receives_at = receiver.local_addr().unwrap();
        receiver.set_read_timeout(Some(Duration::MAX)).unwrap();
        receiver.set_write_timeout(Some(Duration::MAX)).unwrap();
        let later = thread::spawn(move || {
            thread::sleep(5 * MILLI);
            far.write_all(b"x").unwrap();
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(b"y", receives_at).unwrap();
        });
        let mut byte = [0];
        near.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        near.write_all(b"z").unwrap();
        assert_eq!(receiver.recv(&mut byte).unwrap(), 1);
        assert_eq!(&byte, b"y");
        later.join().unwrap();
    });
}

#[test]
#[parallel]
fn a_grace_may_be_longer_than_the_clock_is_wide() {
    util::on_an_os_thread(|| {
        let runtime = RuntimeBuilder::new()
            .workers(2)
            .grace(Duration::MAX)
            .build()
            .unwrap();
        runtime.run(|| drop(thread::spawn(greenroom::park)));
        drop(runtime);
    });
}
