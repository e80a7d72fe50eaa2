//! A coroutine whose operations never wait takes turns with others.
//!
//! All coroutines are on one worker, and operations are counted: a busy machine stretches times, but not
//! counts.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use greenroom::shims::net::{TcpListener, TcpStream, UdpSocket};
use greenroom::{LocalJoinHandle, park_until, spawn_local, yield_now};
use serial_test::serial;

use crate::util;

/// The most operations in a turn: one after a wait, and 32.
const TURN: usize = 1 + 32;

/// Enough operations for many turns.
const MANY: usize = 100 * TURN;

const MILLI: Duration = Duration::from_millis(1);

/// Does one operation that does not wait.
type Firehose = Box<dyn FnMut()>;

/// The name of an operation, and how to make it.
type Kind = (&'static str, fn() -> Firehose);

const KINDS: [Kind; 4] = [
    ("reads of a stream", || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut near = std::net::TcpStream::connect(addr).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        // Writes until the other end is closed.
        std::thread::spawn(move || while near.write_all(&[0; 1 << 16]).is_ok() {});
        // One byte at a time, so that the kernel always has more.
        Box::new(move || assert_eq!(far.read(&mut [0]).unwrap(), 1))
    }),
    ("receptions of datagrams", || {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        Box::new(move || {
            sender.send(b"x").unwrap();
            assert_eq!(receiver.recv(&mut [0]).unwrap(), 1);
        })
    }),
    ("datagrams", || {
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        Box::new(move || {
            // The kernel drops datagrams for which there is no room.
            let addr = receiver.local_addr().unwrap();
            assert_eq!(sender.send_to(b"x", addr).unwrap(), 1);
        })
    }),
    ("connections", || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        Box::new(move || {
            let near = std::net::TcpStream::connect(addr).unwrap();
            let accepted: (TcpStream, _) = listener.accept().unwrap();
            assert_eq!(accepted.1, near.local_addr().unwrap());
            // A reset, so that the ports are free at once.
            util::reset_on_close(&near);
        })
    }),
];

/// A coroutine that does nothing but operations until it is told to stop.
struct Flooded {
    over: Rc<Cell<bool>>,
    operations: Rc<Cell<usize>>,
    coroutine: LocalJoinHandle<()>,
}

impl Flooded {
    /// `each` is called after each operation.
    fn spawn(mut firehose: Firehose, each: impl Fn() + 'static) -> Flooded {
        let (over, operations) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        let coroutine = spawn_local({
            let (over, operations) = (Rc::clone(&over), Rc::clone(&operations));
            move || {
                while !over.get() {
                    firehose();
                    operations.set(operations.get() + 1);
                    each();
                }
            }
        });
        Flooded {
            over,
            operations,
            coroutine,
        }
    }

    fn operations(&self) -> usize {
        self.operations.get()
    }

    fn end(self) -> usize {
        self.over.set(true);
        self.coroutine.join().unwrap();
        self.operations.get()
    }
}

#[test]
#[serial]
fn between_two_turns_of_another_it_does_no_more_than_its_share() {
    for (what, firehose) in KINDS {
        util::on_workers(1, || {
            let flooded = Flooded::spawn(firehose(), || ());
            let (mut most, mut turns) = (0, 0);
            while flooded.operations() < MANY {
                turns += 1;
                let before = flooded.operations();
                yield_now();
                most = most.max(flooded.operations() - before);
            }
            let all = flooded.end();
            eprintln!("{all} {what} in {turns} turns, at most {most} at a time");
            assert!(most <= TURN, "{most} {what} at a time");
        });
    }
}

#[test]
#[serial]
fn two_of_them_get_on_equally() {
    for (what, firehose) in KINDS {
        util::on_workers(1, || {
            // How far one was ahead of the other at most, since both have begun.
            let (ahead, counts) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new([0_usize; 2])));
            let both = [0, 1].map(|n| {
                let (ahead, counts) = (Rc::clone(&ahead), Rc::clone(&counts));
                Flooded::spawn(firehose(), move || {
                    counts.borrow_mut()[n] += 1;
                    let [one, other] = *counts.borrow();
                    ahead.set(ahead.get().max(one.abs_diff(other)));
                })
            });
            while both.iter().any(|one| one.operations() < MANY) {
                yield_now();
            }
            let [one, other] = both.map(Flooded::end);
            let ahead = ahead.get();
            eprintln!("{one} and {other} {what}, at most {ahead} ahead");
            // A stream may have to wait for its writer now and then.
            if what != "reads of a stream" {
                assert!(ahead <= 2 * TURN, "{ahead} {what} ahead");
            }
        });
    }
}

/// The worker looks at its timers after each batch of operations.
#[test]
#[serial]
fn a_ticker_is_late_by_no_more_than_a_batch() {
    const TICKS: usize = 100;
    /// The largest batch, the turn that exceeds it, and the turn before the ticker's.
    const MOST: usize = 256 + 2 * TURN;
    for (what, firehose) in KINDS {
        util::on_workers(1, || {
            let due = Rc::new(Cell::new(None::<Instant>));
            let late = Rc::new(Cell::new(0));
            let flooded = Flooded::spawn(firehose(), {
                let (due, late) = (Rc::clone(&due), Rc::clone(&late));
                move || {
                    if due.get().is_some_and(|due| Instant::now() >= due) {
                        late.set(late.get() + 1);
                    }
                }
            });
            let (mut operations, mut times) = (Vec::new(), Vec::new());
            for _ in 0..TICKS {
                let tick = Instant::now() + MILLI;
                due.set(Some(tick));
                late.set(0);
                assert!(!park_until(tick), "nobody unparks");
                due.set(None);
                operations.push(late.get());
                times.push(tick.elapsed());
            }
            let all = flooded.end();
            operations.sort();
            times.sort();
            let (half, last) = (TICKS / 2, TICKS - 1);
            eprintln!(
                "{all} {what}: ticks are late by {} of them, at most {}: {:?}, p99 {:?}",
                operations[half],
                operations[last],
                times[half],
                times[last - 1]
            );
            assert!(all > TICKS, "{all} {what}");
            assert!(operations[last] <= MOST, "late by {operations:?} {what}");
        });
    }
}
