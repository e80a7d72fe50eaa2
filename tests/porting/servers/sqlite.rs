//! SQLite, through the crate `rusqlite`: no server, but computing, and files.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use greenroom::shims::thread;
use greenroom::{RuntimeBuilder, unblock};
use rusqlite::Connection;

use crate::at_once::alone;
use crate::server::Directory;
use crate::util;

/// Computes for about half a second, in SQLite, and returns the result.
fn count() -> u64 {
    let connection = Connection::open_in_memory().unwrap();
    let query =
        "with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < ?1)
        select count(*) from numbers";
    let counted = connection.query_row(query, [COUNTED], |row| row.get(0));
    counted.unwrap()
}

const COUNTED: u64 = 3_000_000;

/// Runs `count` by `call` in a coroutine, and returns how often the ticker of the same worker ran meanwhile.
fn ticks_during(call: impl FnOnce(fn() -> u64) -> u64) -> u64 {
    let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
    runtime.run(|| {
        let (ticks, over) = (AtomicU64::new(0), AtomicBool::new(false));
        greenroom::scope(|s| {
            s.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    ticks.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(1));
                }
            });
            while ticks.load(Ordering::Relaxed) == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            let before = ticks.load(Ordering::Relaxed);
            assert_eq!(call(count), COUNTED);
            let ticks = ticks.load(Ordering::Relaxed) - before;
            over.store(true, Ordering::Relaxed);
            ticks
        })
    })
}

#[test]
fn a_query_that_computes_leaves_the_worker_to_others_in_unblock_only() {
    let _alone = alone();
    assert_eq!(ticks_during(|count| count()), 0);
    let ticks = ticks_during(unblock);
    eprintln!("sqlite, in unblock: {ticks} turns of the ticker meanwhile");
    assert!(ticks > 1);
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

    const IN_UNBLOCK: [&str; 3] = ["in unblock", "in unblock, again", "in unblock, once more"];

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
        for name in IN_UNBLOCK {
            let commit = named(name).spawn(move || unblock(commit));
            commit.unwrap().join().unwrap();
        }
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
    // Any coroutine is reported whose worker gets no processor for long enough.
    assert!(IN_UNBLOCK.iter().any(|name| of(name) == 0), "{reported:?}");
    std::fs::remove_file(file).unwrap();
}
