//! Async: wake-ups by other threads. Several that come before the loop's next turn are one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use greenroom::{Unparker, join_thread, park};

const THREADS: u32 = 4;
const SENDS: u32 = 10_000;

pub(crate) fn show() -> io::Result<String> {
    let sent = Arc::new(AtomicU32::new(0));
    let wakes = Unparker::current();
    let senders: Vec<_> = (0..THREADS)
        .map(|_| {
            let (sent, wakes) = (Arc::clone(&sent), wakes.clone());
            thread::spawn(move || {
                for _ in 0..SENDS {
                    sent.fetch_add(1, Ordering::Release);
                    wakes.unpark();
                }
            })
        })
        .collect();
    let mut woken = 0;
    let mut seen = 0;
    while seen < THREADS * SENDS {
        park();
        woken += 1;
        seen = sent.load(Ordering::Acquire);
    }
    for sender in senders {
        join_thread(sender).expect("no panic");
    }
    let fewer = woken <= seen;
    Ok(format!(
        "{seen} sends of {THREADS} threads, no more wake-ups than sends: {fewer}"
    ))
}
