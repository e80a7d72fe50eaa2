//! Coroutines from an ordinary `main`: the first `spawn` starts a runtime by itself.
//!
//! ```text
//! $ cargo run --example spawn
//! 10000 coroutines slept, and then returned numbers whose sum is 49995000
//! a coroutine panicked: one of them fails
//! ```

use std::time::Duration;

use greenroom::shims::thread;

fn main() {
    // They sleep at the same time, on a few OS threads.
    let sleepers: Vec<_> = (0..10_000_u32)
        .map(|number| {
            greenroom::spawn(move || {
                thread::sleep(Duration::from_millis(100));
                number
            })
        })
        .collect();
    let sum: u32 = sleepers.into_iter().map(|it| it.join().unwrap()).sum();
    println!("10000 coroutines slept, and then returned numbers whose sum is {sum}");

    // A panic ends its own coroutine only; `join` returns the payload.
    let fails = greenroom::spawn(|| panic!("one of them fails"));
    let payload = fails.join().unwrap_err();
    let message: &&str = payload.downcast_ref().unwrap();
    println!("a coroutine panicked: {message}");
}
