//! How late timers are, measured by what happened meanwhile.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use greenroom::shims::io::makefile::SocketFile;
use greenroom::shims::net::{TcpListener, TcpStream, UdpSocket};
use greenroom::shims::thread;
use greenroom::{RuntimeBuilder, park_timeout, park_until, spawn_local};
use serial_test::{parallel, serial};

use crate::util::{self, in_one_of_ten};

const MILLI: Duration = Duration::from_millis(1);

fn compute_for(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

const PAIRS: usize = 500_000;

/// Reads empty lines, each with one byte after it. Returns how long that took.
fn parse(mut file: impl BufRead) -> Duration {
    let start = Instant::now();
    let mut line = String::new();
    for pair in 0..PAIRS {
        line.clear();
        assert_eq!(file.read_line(&mut line).unwrap(), 1);
        let mut byte = [0];
        file.read_exact(&mut byte).unwrap();
        assert_eq!(byte[0], pair as u8);
    }
    start.elapsed()
}

/// The other end of a stream on which pairs arrive, most of them before this returns.
fn burst() -> std::net::TcpStream {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let burst: Vec<u8> = (0..PAIRS).flat_map(|pair| [b'\n', pair as u8]).collect();
    near.set_nonblocking(true).unwrap();
    let written = near.write(&burst).unwrap();
    near.set_nonblocking(false).unwrap();
    // There may be no room for the rest yet.
    std::thread::spawn(move || near.write_all(&burst[written..]));
    listener.accept().unwrap().0
}

/// Over a file, and over a buffer so small that there are many reads.
#[test]
#[serial]
fn a_coroutine_reads_a_burst_at_no_less_than_half_the_speed_of_a_thread() {
    const ROUNDS: usize = 3;
    type Stream = std::net::TcpStream;
    let on_a_thread: [fn(Stream) -> Duration; 2] = [
        |stream| parse(SocketFile::new(stream)),
        |stream| parse(BufReader::with_capacity(64, stream)),
    ];
    let on_a_coroutine: [fn(Stream) -> Duration; 2] = [
        |stream| parse(SocketFile::new(TcpStream::from(OwnedFd::from(stream)))),
        |stream| {
            parse(BufReader::with_capacity(
                64,
                TcpStream::from(OwnedFd::from(stream)),
            ))
        },
    ];
    for (on_a_thread, on_a_coroutine) in on_a_thread.into_iter().zip(on_a_coroutine) {
        in_one_of_ten(|| {
            let (mut thread, mut coroutine) = (Duration::MAX, Duration::MAX);
            for _ in 0..ROUNDS {
                let stream = burst();
                let reader = std::thread::spawn(move || on_a_thread(stream));
                thread = thread.min(reader.join().unwrap());
                let stream = burst();
                let took = util::on_workers(1, || {
                    let builder = thread::Builder::new().stack_size(64 << 10);
                    let reader = builder.spawn(move || on_a_coroutine(stream));
                    reader.unwrap().join().unwrap()
                });
                coroutine = coroutine.min(took);
            }
            eprintln!("a thread takes {thread:?}, a coroutine {coroutine:?}");
            match coroutine < 2 * thread {
                true => Ok(()),
                false => Err(format!("{coroutine:?} instead of {thread:?}")),
            }
        });
    }
}

#[test]
#[serial]
fn ticks_at_absolute_deadlines_do_not_drift() {
    const PERIOD: Duration = Duration::from_millis(5);
    const TICKS: u32 = 40;
    util::everywhere(|| {
        in_one_of_ten(|| {
            let start = Instant::now();
            let mut least_late = Duration::MAX;
            for tick in 1..=TICKS {
                // Holds the worker up as work would, but leaves the processor to other threads.
                std::thread::sleep(PERIOD / 4);
                let deadline = start + tick * PERIOD;
                assert!(!park_until(deadline), "nobody unparks");
                let late = Instant::now().checked_duration_since(deadline);
                let late = late.expect("it is not early");
                if tick > TICKS / 2 {
                    least_late = least_late.min(late);
                }
            }
            // If each period began when the work of the last one was done, all of these ticks would be
            // late by the work of half the ticks.
            if least_late < TICKS / 2 * PERIOD / 8 {
                Ok(())
            } else {
                Err(format!("{least_late:?}"))
            }
        });
    });
}

#[test]
#[parallel]
#[parallel]
fn a_ticker_that_fell_behind_catches_up_and_is_in_step_again() {
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
#[parallel]
fn sleeps_of_zero_take_turns() {
    let sleep: fn() = || thread::sleep(Duration::ZERO);
    for wait in [sleep, greenroom::yield_now] {
        util::on_workers(1, || {
            let turns = Rc::new(RefCell::new(Vec::new()));
            let parked = Rc::new(Cell::new(0));
            let sleepers = [0, 1, 2].map(|n| {
                let (turns, parked) = (Rc::clone(&turns), Rc::clone(&parked));
                spawn_local(move || {
                    parked.set(parked.get() + 1);
                    greenroom::park();
                    for round in 0..10 {
                        turns.borrow_mut().push((round, n));
                        wait();
                    }
                })
            });
            util::until("all are parked", || parked.get() == 3);
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
#[parallel]
fn a_park_of_zero_tells_whether_there_is_a_token() {
    util::everywhere(|| {
        assert!(!park_timeout(Duration::ZERO));
        thread::current().unpark();
        assert!(park_timeout(Duration::ZERO));
        assert!(!park_timeout(Duration::ZERO));
        assert!(!park_until(Instant::now()));
    });
}

/// The end of the runtime ends the sleep.
#[test]
#[parallel]
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
