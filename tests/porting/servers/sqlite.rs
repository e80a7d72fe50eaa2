//! SQLite, through the crate `rusqlite`: no server, but computing, and files.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use greenroom::shims::thread;
use greenroom::{RuntimeBuilder, unblock};
use rusqlite::Connection;

use crate::at_once::alone;
use crate::server::Directory;
use crate::util;

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

#[test]
fn writers_wait_for_the_lock_of_another_coroutine() {
    const WRITERS: usize = 20;

    let _alone = alone();
    let directory = Directory::new("sqlite");
    let file = directory.join("data");
    let open = &|| {
        let connection = Connection::open(&file).unwrap();
        connection.busy_timeout(Duration::from_secs(60)).unwrap();
        connection
    };
    open().execute_batch("create table numbers(n)").unwrap();
    // If a writer blocked the thread, the lock would never be free.
    util::on_workers(1, || {
        greenroom::scope(|s| {
            for number in 0..WRITERS {
                s.spawn(move || {
                    let connection = open();
                    connection.execute_batch("begin immediate").unwrap();
                    let insert = "insert into numbers values (?1)";
                    connection.execute(insert, [number]).unwrap();
                    // The others sleep in SQLite until the lock is free.
                    std::thread::sleep(Duration::from_millis(20));
                    connection.execute_batch("commit").unwrap();
                });
            }
        });
    });
    let (count, sum): (usize, usize) = open()
        .query_row("select count(*), sum(n) from numbers", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!((count, sum), (WRITERS, (0..WRITERS).sum()));
}

#[cfg(debug_assertions)]
#[test]
fn a_commit_that_waits_for_the_disk_is_reported_with_the_name_of_its_coroutine() {
    use std::sync::{Arc, Mutex};

    let _alone = alone();
    let reported = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&reported);
    greenroom::deny_blocking_with(move |report| {
        let name = report.name().map(str::to_owned);
        noted.lock().unwrap().push(name);
    });
    // Not in memory, as the directory for temporary files may be.
    let file = concat!(env!("CARGO_TARGET_TMPDIR"), "/committed.sqlite");
    let _ = std::fs::remove_file(file);
    let commit = move || {
        let connection = Connection::open(file).unwrap();
        connection
            .execute_batch("create table if not exists numbers(n)")
            .unwrap();
        connection
            .execute("insert into numbers values (1)", [])
            .unwrap();
    };
    let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
    runtime.run(|| {
        let named = |name: &str| greenroom::Builder::new().name(name.into());
        named("in unblock")
            .spawn(move || unblock(commit))
            .unwrap()
            .join()
            .unwrap();
        named("direct").spawn(commit).unwrap().join().unwrap();
    });
    let reported = reported.lock().unwrap();
    let of = |name| {
        reported
            .iter()
            .filter(|of| of.as_deref() == Some(name))
            .count()
    };
    assert!(of("direct") > 0, "{reported:?}");
    assert_eq!(of("in unblock"), 0, "{reported:?}");
    std::fs::remove_file(file).unwrap();
}
