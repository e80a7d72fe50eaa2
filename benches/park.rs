//! What do a park and its unpark cost, between two coroutines of one worker?

mod util;

fn main() {
    util::run(|criterion| {
        // A round trip: two parks, two unparks.
        criterion.bench_function("park/ping-pong", |bencher| {
            util::ping_pong(bencher, greenroom::park);
        });
    });
}
