//! What does a message cost, through a queue, in a ping-pong, and through one of many channels?

mod util;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Throughput};
use greenroom::channel::{bounded, unbounded};
use greenroom::shims::sync::mpsc::{channel, sync_channel};
use greenroom::{RuntimeBuilder, Select, select, spawn};

fn main() {
    util::run(|criterion| {
        let mut group = criterion.benchmark_group("mpsc");
        group.throughput(Throughput::Elements(MESSAGES));
        for (name, bound) in [("1,024", Some(1_024)), ("unbounded", None)] {
            for workers in [1, 2] {
                let name = format!("4 producers, {name}, workers");
                group.bench_function(BenchmarkId::new(name, workers), |bencher| {
                    let runtime = RuntimeBuilder::new()
                        .workers(workers)
                        .build()
                        .expect("a runtime");
                    bencher.iter(|| runtime.run(|| produce_and_consume(bound)));
                });
            }
        }
        // A round trip: two messages, two waits.
        group.throughput(Throughput::Elements(1));
        group.bench_function("ping-pong", |bencher| {
            let runtime = util::one_worker();
            bencher.iter_custom(|trips| {
                runtime.run(|| {
                    let (ping, pings) = channel();
                    let (pong, pongs) = channel();
                    let other = spawn(move || {
                        for ball in pings {
                            pong.send(ball).expect("who waits for it");
                        }
                    });
                    let trip = |ball| {
                        ping.send(ball).expect("who waits for it");
                        assert_eq!(pongs.recv(), Ok(ball));
                    };
                    trip(0); // which starts the other
                    let start = Instant::now();
                    for ball in 0..trips {
                        trip(ball);
                    }
                    let elapsed = start.elapsed();
                    drop(ping);
                    other.join().expect("a coroutine that does not panic");
                    elapsed
                })
            });
        });
        group.finish();
        let mut group = criterion.benchmark_group("select");
        group.throughput(Throughput::Elements(1));
        group.bench_function("2 channels, ready", |bencher| {
            let runtime = util::one_worker();
            bencher.iter_custom(|messages| runtime.run(|| select_ready(messages)));
        });
        group.bench_function("2 channels, ping-pong", |bencher| {
            let runtime = util::one_worker();
            bencher.iter_custom(|trips| runtime.run(|| select_ping_pong(trips)));
        });
        for count in [2, 64] {
            let name = format!("{count} channels, one message each");
            group.bench_function(name, |bencher| {
                let runtime = util::one_worker();
                bencher.iter_custom(|messages| runtime.run(|| select_any(messages, count)));
            });
        }
        group.finish();
    });
}

/// Receives from the one of two channels that has a message. Nothing waits.
fn select_ready(messages: u64) -> Duration {
    let (sender, receiver) = unbounded();
    let (_quiet, silent) = unbounded::<u64>();
    let start = Instant::now();
    for message in 0..messages {
        sender.send(message).expect("there is a receiver");
        select! {
            recv(receiver) -> got => assert_eq!(got, Ok(message)),
            recv(silent) -> _ => unreachable!(),
        }
    }
    start.elapsed()
}

/// Two coroutines send each other a message, and wait for it by a select over two channels. A round trip: two
/// messages, two waits.
fn select_ping_pong(trips: u64) -> Duration {
    let (ping, pings) = unbounded();
    let (pong, pongs) = unbounded();
    let (_quiet, silent) = unbounded::<u64>();
    let never = silent.clone();
    let other = spawn(move || {
        loop {
            select! {
                recv(pings) -> ball => match ball {
                    Ok(ball) => pong.send(ball).expect("there is a receiver"),
                    Err(_) => break,
                },
                recv(never) -> _ => unreachable!(),
            }
        }
    });
    let mut start = Instant::now();
    for ball in 0..=trips {
        // The first trip starts the other coroutine.
        if ball == 1 {
            start = Instant::now();
        }
        ping.send(ball).expect("there is a receiver");
        select! {
            recv(pongs) -> got => assert_eq!(got, Ok(ball)),
            recv(silent) -> _ => unreachable!(),
        }
    }
    let elapsed = start.elapsed();
    drop(ping);
    other.join().expect("a coroutine that does not panic");
    elapsed
}

/// Coroutines send to a channel each, without a queue. Another one waits for all of them at once.
fn select_any(messages: u64, channels: u64) -> Duration {
    let each = messages.div_ceil(channels);
    let receivers: Vec<_> = (0..channels)
        .map(|_| {
            let (sender, receiver) = bounded(0);
            spawn(move || (0..each).for_each(|n| sender.send(n).expect("there is a receiver")));
            receiver
        })
        .collect();
    let mut select = Select::new();
    for receiver in &receivers {
        select.recv(receiver, |got| got.is_ok());
    }
    let start = Instant::now();
    let mut received = 0;
    while received < messages {
        received += u64::from(select.wait());
    }
    start.elapsed()
}

const PRODUCERS: u64 = 4;
const MESSAGES: u64 = 400_000;

fn produce_and_consume(bound: Option<usize>) {
    const EACH: u64 = MESSAGES / PRODUCERS;
    let received = match bound {
        Some(bound) => {
            let (sender, receiver) = sync_channel(bound);
            for _ in 0..PRODUCERS {
                let sender = sender.clone();
                spawn(move || (0..EACH).try_for_each(|n| sender.send(n)));
            }
            drop(sender);
            receiver.into_iter().sum::<u64>()
        }
        None => {
            let (sender, receiver) = channel();
            for _ in 0..PRODUCERS {
                let sender = sender.clone();
                spawn(move || (0..EACH).try_for_each(|n| sender.send(n)));
            }
            drop(sender);
            receiver.into_iter().sum::<u64>()
        }
    };
    assert_eq!(received, PRODUCERS * EACH * (EACH - 1) / 2);
}
