//! What do a timeout and a cancellation cost?

mod util;

use std::hint::black_box;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use criterion::{Bencher, Throughput};
use greenroom::shims::os::unix::net::UnixStream;
use greenroom::shims::sync::mpsc;
use greenroom::shims::thread::sleep;
use greenroom::{JoinHandle, Unparker, park, spawn, timeout};

const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    util::run(|criterion| {
        let mut group = criterion.benchmark_group("interrupts");

        // The difference of the two is the price.
        group.bench_function("read that is ready", |bencher| {
            reads(bencher, |stream, buffer| {
                stream.read(buffer).expect("a byte")
            });
        });
        group.bench_function("read that is ready, in a timeout", |bencher| {
            reads(bencher, |stream, buffer| {
                let read = timeout(LIMIT, || stream.read(buffer));
                read.expect("in time").expect("a byte")
            });
        });

        group.bench_function("message that is waited for", |bencher| {
            messages(bencher, |receiver| receiver.recv().expect("a message"));
        });
        group.bench_function("message that is waited for, in a timeout", |bencher| {
            messages(bencher, |receiver| {
                let received = timeout(LIMIT, || receiver.recv());
                received.expect("in time").expect("a message")
            });
        });

        group.bench_function("timeout around nothing", |bencher| {
            util::one_worker().run(|| bencher.iter(|| timeout(LIMIT, || black_box(1))));
        });

        group.throughput(Throughput::Elements(MANY));
        group.bench_function("10,000 parked coroutines, woken and joined", |bencher| {
            many(
                bencher,
                || {
                    let (tell, told) = mpsc::channel();
                    let handles = (0..MANY).map(|_| {
                        let tell = tell.clone();
                        spawn(move || {
                            tell.send(Unparker::current()).expect("the receiver waits");
                            park();
                        })
                    });
                    let handles: Vec<_> = handles.collect();
                    let unparkers = (0..MANY).map(|_| told.recv().expect("each tells"));
                    (handles, unparkers.collect::<Vec<_>>())
                },
                |(_, unparkers)| unparkers.iter().for_each(Unparker::unpark),
            );
        });
        group.bench_function(
            "10,000 parked coroutines, cancelled and joined",
            |bencher| {
                many(
                    bencher,
                    || {
                        let handles = (0..MANY).map(|_| spawn(|| sleep(Duration::MAX)));
                        let handles: Vec<_> = handles.collect();
                        sleep(Duration::from_millis(20));
                        (handles, Vec::new())
                    },
                    |(handles, _)| handles.iter().for_each(JoinHandle::cancel),
                );
            },
        );
        group.finish();
    });
}

const MANY: u64 = 10_000;

type Parked = (Vec<JoinHandle<()>>, Vec<Unparker>);

/// Measures `end` and the joins, for coroutines that `park_all` has made and parked.
fn many(bencher: &mut Bencher<'_>, park_all: fn() -> Parked, end: fn(&Parked)) {
    let runtime = util::one_worker();
    bencher.iter_custom(|times| {
        runtime.run(|| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                let parked = park_all();
                let start = Instant::now();
                end(&parked);
                for handle in parked.0 {
                    // Those that were cancelled return an error.
                    let _ = handle.join();
                }
                took += start.elapsed();
            }
            took
        })
    });
}

/// Measures reads of one byte that is there, and its write.
fn reads(bencher: &mut Bencher<'_>, read: fn(&mut UnixStream, &mut [u8]) -> usize) {
    util::one_worker().run(|| {
        let (mut near, mut far) = UnixStream::pair().expect("a pair");
        let mut buffer = [0; 8];
        bencher.iter(|| {
            far.write_all(b"x").expect("there is room");
            read(&mut near, &mut buffer)
        });
    });
}

/// Measures messages that a coroutine sends when it is asked to.
fn messages(bencher: &mut Bencher<'_>, receive: fn(&mpsc::Receiver<u32>) -> u32) {
    util::one_worker().run(|| {
        let (ask, asked) = mpsc::channel();
        let (answer, answered) = mpsc::channel();
        let answerer = spawn(move || {
            while asked.recv().is_ok() {
                answer.send(1).expect("the receiver waits");
            }
        });
        bencher.iter(|| {
            ask.send(()).expect("it answers");
            receive(&answered)
        });
        drop(ask);
        answerer.join().expect("it returns");
    });
}
