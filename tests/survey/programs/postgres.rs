//! Forty threads have a connection each, and the server takes its time. The client runs tokio on the thread that
//! asks.

use std::thread;
use std::time::Duration;

use postgres::{Client, NoTls};

fn main() {
    let server = std::env::var("POSTGRES").unwrap();
    let threads: Vec<_> = (0..40)
        .map(|number| {
            let server = server.clone();
            thread::spawn(move || {
                let mut client = Client::connect(&server, NoTls).unwrap();
                let query = "select pg_sleep(0.2)::text, $1::int";
                let row = client.query_one(query, &[&number]).unwrap();
                assert_eq!(row.get::<_, i32>(1), number);
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
