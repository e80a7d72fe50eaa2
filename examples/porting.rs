//! A program that was written for std's threads, ported by its first line.
//!
//! ```text
//! $ cargo run --example porting
//! 1000 threads met at a barrier, and each added its number: 499500
//! they shared a few OS threads: true
//! ```

use greenroom::shims as std; // The program as it was begins below.

use std::fs;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

fn main() {
    let sum = Arc::new(Mutex::new(0));
    let barrier = Arc::new(Barrier::new(1001));
    let threads: Vec<_> = (0..1000)
        .map(|number| {
            let (sum, barrier) = (Arc::clone(&sum), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                *sum.lock().unwrap() += number;
            })
        })
        .collect();

    // None of them can go on before this thread waits, too.
    let os_threads = fs::read_dir("/proc/self/task").unwrap().count();
    barrier.wait();
    for thread in threads {
        thread.join().unwrap();
    }
    let sum = sum.lock().unwrap();
    println!("1000 threads met at a barrier, and each added its number: {sum}");
    println!("they shared a few OS threads: {}", os_threads < 1000);
}
