//! A lock and a channel, std's in name and shape: a coroutine that waits for one lets others run.
//!
//! ```text
//! $ cargo run --example lock_and_channel
//! 100 coroutines sent 1000 messages
//! each message was counted under the lock: true
//! ```

use greenroom::shims::sync::{Arc, Mutex, mpsc};
use greenroom::shims::thread;

fn main() {
    let count = Arc::new(Mutex::new(0));
    // Room for one message: whoever sends waits until there is room.
    let (sender, receiver) = mpsc::sync_channel(1);
    for _ in 0..100 {
        let (count, sender) = (Arc::clone(&count), sender.clone());
        thread::spawn(move || {
            for _ in 0..10 {
                let mut count = count.lock().unwrap();
                *count += 1;
                // Others may run here, though the lock is held: they wait for it.
                thread::yield_now();
                let number = *count;
                drop(count);
                sender.send(number).unwrap();
            }
        });
    }
    drop(sender); // The loop below ends when the last of the clones is gone.
    let mut numbers: Vec<u32> = receiver.iter().collect();
    println!("100 coroutines sent {} messages", numbers.len());

    numbers.sort_unstable();
    let each = numbers.into_iter().eq(1..=1000);
    println!("each message was counted under the lock: {each}");
}
