//! What does a message cost, through a queue and in a ping-pong?

mod util;

use std::time::Instant;

use criterion::{BenchmarkId, Throughput};
use greenroom::shims::sync::mpsc::{channel, sync_channel};
use greenroom::{RuntimeBuilder, spawn};

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
    });
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
