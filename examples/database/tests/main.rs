//! The three ways against real servers, and the protocol against one that misbehaves.
//!
//! Each test starts a server of its own. Without PostgreSQL on the machine, tests say so and pass, unless
//! `GREENROOM_REQUIRE_SERVERS` is set.

greenroom::patch!(unsafe);

mod failures;
mod misbehaviour;
#[allow(dead_code, reason = "other packages use the rest")]
#[path = "../../../tests/porting/servers/postgres_server.rs"]
mod postgres_server;
mod program;
#[allow(dead_code, reason = "other packages use the rest")]
#[path = "../../../tests/porting/servers/server.rs"]
mod server;
#[path = "../../../tests/porting/util.rs"]
mod util;
mod ways;

use std::time::Duration;

use database::{Database, Login, Way};
use server::Server;

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test of each way, on a worker of its own.
fn each_way(test: impl Fn(Way)) {
    for way in Way::ALL {
        util::on_workers(1, || {
            eprintln!("{way:?}");
            test(way);
        });
    }
}

/// The login of the server's user, over TCP.
fn login(server: &Server) -> Login {
    Login {
        host: "127.0.0.1".into(),
        port: server.port(),
        user: "test".into(),
        password: Some(postgres_server::PASSWORD.into()),
        database: "postgres".into(),
    }
}

/// The one value that a query returns.
#[track_caller]
fn value(database: &Database, query: &str) -> String {
    let rows = database.rows(query).unwrap();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    let [Some(value)] = &row[..] else {
        panic!("{row:?}")
    };
    value.clone()
}

/// Waits until the query returns this value.
#[track_caller]
fn until(database: &Database, query: &str, wanted: &str) {
    let start = std::time::Instant::now();
    while value(database, query) != wanted {
        assert!(start.elapsed() < PATIENCE, "{query} is not {wanted}");
        greenroom::shims::thread::sleep(Duration::from_millis(5));
    }
}
