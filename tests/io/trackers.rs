//! Many UDP queries at once, each with its own timeout, in sequential code on one OS thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use greenroom::shims as std;
use serial_test::serial;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::util;

const ASK: u8 = 4;

/// Asks a tracker for the size of its swarm.
fn query(tracker: SocketAddr, patience: Duration) -> io::Result<u32> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(tracker)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(&[ASK])?;
    let mut reply = [0; 4];
    let received = socket.recv(&mut reply)?;
    assert_eq!(received, reply.len());
    Ok(u32::from_be_bytes(reply))
}

/// A tracker that answers each query with the port of the client.
fn answering_tracker(stop: &Arc<AtomicBool>) -> (SocketAddr, thread::JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let stop = Arc::clone(stop);
    let tracker = thread::spawn(move || {
        let mut query = [0; 16];
        while !stop.load(Ordering::Acquire) {
            let (length, from) = socket.recv_from(&mut query).unwrap();
            if query[..length] == [ASK] {
                let swarm = u32::from(from.port()).to_be_bytes();
                socket.send_to(&swarm, from).unwrap();
            }
        }
    });
    (addr, tracker)
}

fn stop_tracker(stop: &AtomicBool, addr: SocketAddr, tracker: thread::JoinHandle<()>) {
    stop.store(true, Ordering::Release);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"stop", addr).unwrap();
    tracker.join().unwrap();
}

#[test]
#[serial]
fn a_silent_tracker_times_out_while_others_answer() {
    let attempt = || {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let ticks = Arc::new(AtomicUsize::new(0));
        let ticker = thread::spawn({
            let ticks = Arc::clone(&ticks);
            move || {
                for _ in 0..50 {
                    thread::sleep(Duration::from_millis(5));
                    ticks.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let patience = Duration::from_millis(400);
        let start = Instant::now();
        let error = query(silent.local_addr().unwrap(), patience).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "as std's on Linux");
        assert!(start.elapsed() >= patience);
        let ticked = ticks.load(Ordering::Relaxed);
        ticker.join().unwrap();
        // Otherwise none. More than a few need a machine that does not stand still for long.
        (ticked > 1)
            .then_some(())
            .ok_or_else(|| format!("{ticked} ticks meanwhile"))
    };
    util::on_workers(1, || util::in_one_of_ten(attempt));
}

#[test]
#[serial]
fn a_thousand_queries_take_as_long_as_the_slowest() {
    util::on_workers(1, || {
        let before = util::open_descriptors();
        let threads = || ::std::fs::read_dir("/proc/self/task").unwrap().count();
        let threads_before = threads();
        let stop = Arc::new(AtomicBool::new(false));
        let (answering, tracker) = answering_tracker(&stop);
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let silent_addr = silent.local_addr().unwrap();

        let patience = Duration::from_secs(1);
        let start = Instant::now();
        let queries: Vec<_> = (0..1000)
            .map(|n| {
                // Where an answer comes, the machine may stand still before.
                let (addr, patience) = match n % 2 {
                    0 => (answering, 15 * patience),
                    _ => (silent_addr, patience),
                };
                thread::spawn(move || query(addr, patience).is_ok())
            })
            .collect();
        assert!(
            threads() <= threads_before + 1,
            "no OS thread is made for them"
        );
        let answers = queries
            .into_iter()
            .filter_map(|query| query.join().ok())
            .filter(|ok| *ok);
        assert_eq!(answers.count(), 500);
        assert!(
            start.elapsed() < 20 * patience,
            "one after another they take 500 times that"
        );

        stop_tracker(&stop, answering, tracker);
        drop(silent);
        util::assert_no_more_descriptors(before);
    });
}

/// How a query ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Answer,
    Timeout,
    Cancellation,
    Panic,
}

#[test]
#[serial]
fn ten_thousand_queries_leave_nothing_however_they_end() {
    const AT_ONCE: usize = 100;
    const ROUNDS: usize = 100;

    util::on_workers(1, || {
        let stop = Arc::new(AtomicBool::new(false));
        let (answering, tracker) = answering_tracker(&stop);
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let silent_addr = silent.local_addr().unwrap();
        // The tracker's wait for queries is there from now on.
        query(answering, util::PATIENCE).unwrap();
        let (opened, registered) = (util::open_descriptors(), util::registrations());
        let ends = [End::Answer, End::Timeout, End::Cancellation, End::Panic];
        for _ in 0..ROUNDS {
            let queries: Vec<_> = ends
                .into_iter()
                .cycle()
                .take(AT_ONCE)
                .map(|end| {
                    let query = greenroom::spawn(move || match end {
                        End::Answer => query(answering, util::PATIENCE),
                        End::Timeout => query(silent_addr, Duration::from_millis(1)),
                        End::Cancellation => query(silent_addr, 100 * util::PATIENCE),
                        End::Panic => {
                            let socket = UdpSocket::bind("127.0.0.1:0")?;
                            socket.send_to(&[ASK], answering)?;
                            socket.recv(&mut [0; 4])?;
                            ::std::panic::resume_unwind(Box::new(()))
                        }
                    });
                    (end, query)
                })
                .collect();
            // All have begun.
            thread::yield_now();
            for (end, query) in queries {
                if matches!(end, End::Cancellation) {
                    query.cancel();
                }
                let outcome = query.join();
                match end {
                    End::Answer => assert!(outcome.unwrap().is_ok()),
                    End::Timeout => assert!(util::is_timeout(outcome.unwrap().unwrap_err().kind())),
                    End::Cancellation | End::Panic => assert!(outcome.is_err(), "{end:?}"),
                }
            }
        }
        util::assert_no_more_descriptors(opened);
        assert_eq!(util::registrations(), registered);
        stop_tracker(&stop, answering, tracker);
    });
}
