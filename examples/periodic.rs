//! Periodic callbacks: a loop over the ticks of an interval. The ticks do not drift, a slow turn skips what it
//! has missed, and a loop ends where it wants to.
//!
//! ```text
//! $ cargo run --example periodic
//! 10 ticks at multiples of 20 ms, the last one after at least 200 ms
//! a turn of 70 ms misses 3 ticks or more, and the next one is in step
//! 5 ticks with jitter, each at most 10 ms after its multiple
//! a callback by itself: 3 calls, none at the same time as another, and no more after that
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greenroom::interval;
use greenroom::shims::sync::mpsc;
use greenroom::shims::thread::sleep;

const PERIOD: Duration = Duration::from_millis(20);

/// Which multiple of the period `tick` is.
fn number(start: Instant, tick: Instant) -> u128 {
    let since = (tick - start).as_nanos();
    assert_eq!(since % PERIOD.as_nanos(), 0, "a tick is out of step");
    since / PERIOD.as_nanos()
}

fn main() {
    // When a tick is due does not depend on when the loop comes to it.
    let mut ticks = interval(PERIOD);
    let first = ticks.tick();
    let start = first - PERIOD;
    let last = ticks.by_ref().nth(8).expect("ticks have no end");
    assert!(number(start, last) >= 10 && start.elapsed() >= 10 * PERIOD);
    println!("10 ticks at multiples of 20 ms, the last one after at least 200 ms");

    sleep(Duration::from_millis(70));
    let late = ticks.tick();
    assert!(number(start, late) - number(start, last) >= 3);
    number(start, ticks.tick());
    println!("a turn of 70 ms misses 3 ticks or more, and the next one is in step");

    // Many programs with the same period should not all come at the same moment.
    let mut noise = 4711_u64;
    for tick in ticks.take(5) {
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let jitter = Duration::from_nanos((noise >> 33) % 10_000_000);
        sleep((tick + jitter).saturating_duration_since(Instant::now()));
        assert!(Instant::now() >= tick + jitter);
    }
    println!("5 ticks with jitter, each at most 10 ms after its multiple");

    // In a coroutine of its own, until its guard is dropped.
    let (tell, told) = mpsc::channel();
    let at_once = AtomicUsize::new(0);
    let callback = greenroom::every(PERIOD, move |tick| {
        assert_eq!(at_once.fetch_add(1, Ordering::SeqCst), 0);
        sleep(PERIOD / 2);
        at_once.fetch_sub(1, Ordering::SeqCst);
        if tell.send(()).is_err() {
            tick.stop();
        }
    });
    let calls = told.iter().take(3).count();
    drop(callback);
    println!(
        "a callback by itself: {calls} calls, none at the same time as another, and no more after that"
    );
}
