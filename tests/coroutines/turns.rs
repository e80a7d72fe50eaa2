//! A worker looks at I/O at every turn, wherever the coroutines it runs come from.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::thread;
use serial_test::serial;

use crate::util;

fn compute_for(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// One worker spawns without end and runs none of it. The others steal all of it. Their coroutines wait
/// for sockets.
#[test]
#[serial]
fn workers_that_steal_without_end_look_at_io() {
    const MESSAGES: usize = 20;
    /// After this long without a message, nothing more is spawned.
    const SILENCE: Duration = Duration::from_secs(1);
    for workers in [2, 4] {
        util::on_workers(workers, || {
            let started = Arc::new(AtomicU64::new(0));
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let waits = Arc::new(AtomicBool::new(false));
            // Records for each message how many coroutines were started since it was sent.
            let receiver = thread::spawn({
                let (started, waits) = (Arc::clone(&started), Arc::clone(&waits));
                move || {
                    waits.store(true, SeqCst);
                    let (mut stream, _) = listener.accept().unwrap();
                    let (mut counts, mut sent_at) = (Vec::new(), [0; 8]);
                    while stream.read_exact(&mut sent_at).is_ok() {
                        counts.push(started.load(SeqCst) - u64::from_ne_bytes(sent_at));
                        stream.write_all(b"x").unwrap();
                    }
                    counts
                }
            });
            // This worker is busy, so another one steals the coroutine.
            while !waits.load(SeqCst) {
                std::hint::spin_loop();
            }
            let (tell, told) = mpsc::channel();
            let over = Arc::new(AtomicBool::new(false));
            let sender = std::thread::spawn({
                let (started, over) = (Arc::clone(&started), Arc::clone(&over));
                move || {
                    let mut stream = std::net::TcpStream::connect(addr).unwrap();
                    stream.write_all(&0_u64.to_ne_bytes()).unwrap();
                    stream.read_exact(&mut [0]).unwrap();
                    tell.send(()).unwrap();
                    let mut sent = 0;
                    while sent < MESSAGES && !over.load(SeqCst) {
                        // Sent while the others run.
                        let (before, start) = (started.load(SeqCst), Instant::now());
                        while started.load(SeqCst) < before + 10 && start.elapsed() < SILENCE {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        let sent_at = started.load(SeqCst).to_ne_bytes();
                        stream.write_all(&sent_at).unwrap();
                        stream.read_exact(&mut [0]).unwrap();
                        sent += 1;
                    }
                    over.store(true, SeqCst);
                }
            });
            while told.try_recv().is_err() {
                thread::sleep(Duration::from_millis(1));
            }
            let start = Instant::now();
            let mut spawned = 0;
            while !over.load(SeqCst) && start.elapsed() < util::PATIENCE {
                if spawned < started.load(SeqCst) + 8 * (workers as u64 - 1) {
                    let started = Arc::clone(&started);
                    thread::spawn(move || {
                        started.fetch_add(1, SeqCst);
                        compute_for(Duration::from_millis(1));
                    });
                    spawned += 1;
                }
            }
            over.store(true, SeqCst);
            let mut counts = receiver.join().unwrap();
            sender.join().unwrap();
            counts.remove(0);
            counts.sort();
            eprintln!("on {workers}: {spawned} spawned; in between {counts:?}");
            assert_eq!(counts.len(), MESSAGES, "the rest came when all was over");
            let median = counts[MESSAGES / 2];
            assert!(median <= 128, "{counts:?}");
        });
    }
}

/// As if each coroutine had a thread of its own: coroutines go on in the order in which their data came.
#[test]
#[serial]
fn all_events_that_came_before_a_deadline_are_seen_before_it() {
    // Not every machine lets all events come in time at the first attempt.
    assert!((0..10).any(|_| util::on_workers(1, events_come_before_a_deadline)));
}

/// Returns false if the machine was too slow.
fn events_come_before_a_deadline() -> bool {
    const STREAMS: usize = 300;
    const DEADLINE: Duration = Duration::from_secs(1);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut senders = Vec::new();
    let gone_on = Arc::new(Mutex::new(Vec::new()));
    let begun = Arc::new(AtomicU64::new(0));
    let read = |index| {
        senders.push(std::net::TcpStream::connect(addr).unwrap());
        let mut stream = TcpStream::from(listener.accept().unwrap().0);
        let (gone_on, begun) = (Arc::clone(&gone_on), Arc::clone(&begun));
        thread::spawn(move || {
            begun.fetch_add(1, SeqCst);
            stream.read_exact(&mut [0]).unwrap();
            gone_on.lock().unwrap().push(index);
        })
    };
    let mut others: Vec<_> = (0..STREAMS).map(read).collect();
    let begin = Instant::now();
    others.push(thread::spawn({
        let (gone_on, begun) = (Arc::clone(&gone_on), Arc::clone(&begun));
        move || {
            begun.fetch_add(1, SeqCst);
            thread::sleep(DEADLINE);
            gone_on.lock().unwrap().push(STREAMS);
        }
    }));
    while begun.load(SeqCst) < others.len() as u64 {
        thread::yield_now();
    }
    // The events come, and the deadline passes, while the worker computes.
    for sender in &mut senders {
        sender.write_all(b"x").unwrap();
    }
    let in_time = begin.elapsed() < DEADLINE * 3 / 4;
    compute_for(DEADLINE);
    for other in others {
        other.join().unwrap();
    }
    let gone_on = gone_on.lock().unwrap();
    assert_eq!(gone_on.len(), STREAMS + 1);
    if in_time {
        assert_eq!(gone_on.last(), Some(&STREAMS), "{gone_on:?}");
    }
    in_time
}
