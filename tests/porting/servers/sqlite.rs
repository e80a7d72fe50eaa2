//! SQLite, through the crate `rusqlite`: no server, but computing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use greenroom::shims::thread;
use greenroom::{RuntimeBuilder, unblock};
use rusqlite::Connection;

use crate::at_once::alone;

/// Computes for about half a second, in SQLite, and returns the result.
fn count() -> (u64, Duration) {
    let start = Instant::now();
    let connection = Connection::open_in_memory().unwrap();
    let query =
        "with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < ?1)
        select count(*) from numbers";
    let counted = connection.query_row(query, [COUNTED], |row| row.get(0));
    (counted.unwrap(), start.elapsed())
}

const COUNTED: u64 = 3_000_000;

/// Runs `count` by `call` in a coroutine, and returns how long it took, and for how long the ticker of the same
/// worker did not run.
fn beside_a_ticker(call: impl FnOnce(fn() -> (u64, Duration)) -> (u64, Duration)) -> [Duration; 2] {
    let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
    runtime.run(|| {
        let over = AtomicBool::new(false);
        greenroom::scope(|s| {
            let ticker = s.spawn(|| {
                let mut gap = Duration::ZERO;
                while !over.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    thread::sleep(Duration::from_millis(1));
                    gap = gap.max(start.elapsed());
                }
                gap
            });
            thread::sleep(Duration::from_millis(10));
            let (counted, took) = call(count);
            assert_eq!(counted, COUNTED);
            over.store(true, Ordering::Relaxed);
            [took, ticker.join().unwrap()]
        })
    })
}

#[test]
fn a_query_that_computes_leaves_the_worker_to_others_in_unblock_only() {
    let _alone = alone();
    let [took, gap] = beside_a_ticker(|count| count());
    eprintln!("sqlite, directly: {took:.1?}; the ticker's largest gap: {gap:.1?}");
    assert!(gap >= took);
    let [took, gap] = beside_a_ticker(unblock);
    eprintln!("sqlite, in unblock: {took:.1?}; the ticker's largest gap: {gap:.1?}");
    assert!(gap < took / 2, "{gap:?}");
}
