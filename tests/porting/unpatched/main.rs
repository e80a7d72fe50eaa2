//! A C driver without the patch: on threads of its own, or where it must not be called.
//!
//! The server is that of the test `servers`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use greenroom::shims::thread::sleep;
use greenroom::{PinnedThread, Proxy, ResourcePool, timeout};
use libmariadb::CConnection;
use server::Server;

#[allow(dead_code, reason = "the test `servers` uses the rest")]
#[path = "../servers/libmariadb.rs"]
mod libmariadb;
#[allow(dead_code, reason = "the test `servers` uses the rest")]
#[path = "../servers/server.rs"]
mod server;
#[path = "../util.rs"]
mod util;

/// How long a query takes, and its text.
const EACH: Duration = Duration::from_millis(200);
const QUERY: &str = "select sleep(0.2)";

/// How often the ticker wants to run.
const TICK: Duration = Duration::from_millis(5);

/// A connection on a thread of its own. libmariadb keeps something per thread.
fn connect(server: &Server) -> Result<Proxy<CConnection>, String> {
    let socket = server.directory().join("socket");
    let thread = PinnedThread::new("mariadb").map_err(|error| error.to_string())?;
    thread.try_proxy(move || CConnection::to_socket_at(&socket))
}

#[test]
fn a_pool_of_ten_pinned_connections_serves_fifty_coroutines() {
    let Some(server) = libmariadb::start() else {
        return;
    };
    util::on_workers(1, || {
        let server = Arc::new(server);
        let pool = {
            let server = Arc::clone(&server);
            ResourcePool::builder()
                .max(10)
                .build(move || connect(&server))
        };
        let idlers = util::Idlers::start(TICK);
        let over = Arc::new(AtomicBool::new(false));
        let ticker = greenroom::spawn({
            let over = Arc::clone(&over);
            move || {
                let mut gap = Duration::ZERO;
                while !over.load(Ordering::Relaxed) {
                    gap = gap.max(util::idle_during(|| sleep(TICK)));
                }
                gap
            }
        });
        let start = Instant::now();
        let queries = (0..50).map(|number| {
            let pool = pool.clone();
            greenroom::spawn(move || {
                let connection = pool.get().unwrap();
                let query = format!("{QUERY}, {number}");
                connection.with(move |connection| connection.first_row(&query))
            })
        });
        for (number, query) in queries.collect::<Vec<_>>().into_iter().enumerate() {
            let row = query.join().unwrap().unwrap();
            assert_eq!(row, ["0".to_owned(), number.to_string()]);
        }
        let took = start.elapsed();
        over.store(true, Ordering::Relaxed);
        let gap = ticker.join().unwrap();
        eprintln!("50 × {EACH:?}, 10 at once, in {took:.1?}; the ticker's largest gap: {gap:.1?}");
        // A worker that makes the calls itself takes 50 times as long as one of them.
        assert!(took >= 5 * EACH && took < 50 * EACH, "{took:?}");
        let blocked = gap.saturating_sub(idlers.longest());
        assert!(blocked < EACH, "the worker was blocked for {blocked:?}");
    });
}

#[test]
fn a_query_that_is_given_up_or_panics_leaves_its_connection_to_the_next() {
    let Some(server) = libmariadb::start() else {
        return;
    };
    util::on_workers(1, || {
        let connection = connect(&server).unwrap();
        let given_up = timeout(EACH / 10, || {
            connection.with(|connection| connection.first_row(QUERY))
        });
        assert!(given_up.is_err());
        // Waits until the first one is over.
        let row = connection.with(|connection| connection.first_row("select 7"));
        assert_eq!(row, Ok(vec!["7".to_owned()]));
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            connection.with(|_| panic!("in a query"))
        }));
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"in a query"));
        let row = connection.with(|connection| connection.first_row("select 8"));
        assert_eq!(row, Ok(vec!["8".to_owned()]));
    });
}

/// Blocked workers are found in debug builds only.
#[cfg(debug_assertions)]
#[test]
fn a_direct_call_blocks_the_worker_and_is_reported_with_the_name_of_its_coroutine() {
    let Some(server) = libmariadb::start() else {
        return;
    };
    let (tell, told) = std::sync::mpsc::channel();
    let hook = move |report: &greenroom::BlockingReport<'_>| {
        // Nobody listens after the end of the test.
        let _ = tell.send(report.to_string());
    };
    assert!(greenroom::deny_blocking_with(hook));
    util::on_workers(1, || {
        let socket = server.directory().join("socket");
        let direct = greenroom::Builder::new().name("impatient".into());
        let direct = direct.spawn(move || {
            let connection = CConnection::to_socket_at(&socket).unwrap();
            connection.first_row(QUERY).unwrap()
        });
        assert_eq!(direct.unwrap().join().unwrap(), ["0"]);
    });
    // The other tests of this binary may be reported, too.
    let report = told.into_iter().find(|report| report.contains("impatient"));
    assert!(report.unwrap().contains("blocked its worker"));
}
