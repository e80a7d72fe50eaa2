//! What do a park and its unpark cost, between two coroutines of one worker?

mod util;

use std::time::Instant;

use greenroom::{Unparker, park, spawn};

fn main() {
    util::run(|criterion| {
        // A round trip: two parks, two unparks.
        criterion.bench_function("park/ping-pong", |bencher| {
            let runtime = util::one_worker();
            bencher.iter_custom(|trips| {
                runtime.run(|| {
                    let ping = Unparker::current();
                    let pong = spawn(move || {
                        for _ in 0..=trips {
                            park();
                            ping.unpark();
                        }
                    });
                    let trip = || {
                        pong.thread().unpark();
                        park();
                    };
                    trip(); // which starts the other
                    let start = Instant::now();
                    for _ in 0..trips {
                        trip();
                    }
                    let elapsed = start.elapsed();
                    pong.join().expect("a coroutine that does not panic");
                    elapsed
                })
            });
        });
    });
}
