//! A hundred threads run a future each, which waits for time and for another thread.

use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use smol::io::AsyncReadExt;
use smol::{Async, Timer};

fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(200));
                stream.write_all(b"hello").unwrap();
            });
        }
    });
    let threads: Vec<_> = (0..100)
        .map(|_| {
            thread::spawn(move || {
                smol::block_on(async {
                    let mut stream = Async::<std::net::TcpStream>::connect(addr).await.unwrap();
                    Timer::after(Duration::from_millis(10)).await;
                    let mut text = String::new();
                    stream.read_to_string(&mut text).await.unwrap();
                    assert_eq!(text, "hello");
                });
            })
        })
        .collect();
    let count = threads.len();
    thread::sleep(Duration::from_millis(100));
    check_os_threads();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    println!("{count} answers");
}

/// Panics if there are more OS threads than `MOST_OS_THREADS` says.
fn check_os_threads() {
    let Ok(most) = std::env::var("MOST_OS_THREADS") else {
        return;
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let count = lines.find_map(|line| line.strip_prefix("Threads:")).unwrap();
    let count: usize = count.trim().parse().unwrap();
    assert!(count <= most.parse().unwrap(), "{count} OS threads");
}
