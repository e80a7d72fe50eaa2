//! What goes wrong: each failure is told, and the pool goes on.

use std::os::unix::fs::symlink;
use std::time::Duration;

use database::{Database, Error, Login, Way};
use greenroom::{JoinHandle, spawn, timeout};

use crate::server::{Directory, Server};
use crate::{PATIENCE, each_way, login, postgres_server, until, value};

const SLEEP: &str = "select pg_sleep(100)";

/// How many queries like [`SLEEP`] the server runs.
const SLEEPING: &str = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";

/// A connection of its own, to see what the server does.
fn observer(server: &Server) -> Database {
    Database::new(Way::Wire, login(server), 1, PATIENCE)
}

/// Begins a query that takes long, and waits until the server runs it.
fn begin_to_sleep(
    database: &Database,
    observer: &Database,
) -> JoinHandle<Result<Vec<database::Row>, Error>> {
    let database = database.clone();
    let query = spawn(move || database.rows(SLEEP));
    until(observer, SLEEPING, "1");
    query
}

fn end_sleeps(observer: &Database) {
    let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity where wait_event = 'PgSleep'";
    observer.rows(end).unwrap();
    until(observer, SLEEPING, "0");
}

#[test]
fn a_query_that_the_server_refuses_leaves_its_connection() {
    let Some(server) = postgres_server::start() else {
        return;
    };
    let cases = [
        ("selekt 1", "42601", "syntax error at or near \"selekt\""),
        ("select 1 / 0", "22012", "division by zero"),
        (
            "select 1; select * from absent",
            "42P01",
            "relation \"absent\" does not exist",
        ),
        (
            "select 1 / a from (values (1), (0)) t (a)",
            "22012",
            "division by zero",
        ),
        (
            "set statement_timeout to 10; select pg_sleep(100)",
            "57014",
            "canceling statement due to statement timeout",
        ),
        ("select 1\0", "22021", "the query contains a zero byte"),
    ];
    each_way(|way| {
        let database = Database::new(way, login(&server), 1, PATIENCE);
        let backend = value(&database, "select pg_backend_pid()");
        for (query, code, message) in cases {
            let refused = Error::Query {
                code: code.into(),
                message: message.into(),
            };
            assert_eq!(database.rows(query), Err(refused), "{query}");
            assert_eq!(
                value(&database, "select pg_backend_pid()"),
                backend,
                "{query}"
            );
        }
    });
}

#[test]
fn logins_that_the_server_refuses_are_told() {
    let Some(server) = postgres_server::start() else {
        return;
    };
    let stranger = Login {
        user: "stranger".into(),
        ..login(&server)
    };
    let absent = Login {
        database: "absent".into(),
        ..login(&server)
    };
    let zero = Login {
        user: "te\0st".into(),
        ..login(&server)
    };
    let cases = [
        (stranger, "role \"stranger\" does not exist"),
        (absent, "database \"absent\" does not exist"),
        (zero, "contains a zero byte"),
    ];
    each_way(|way| {
        for (login, wanted) in &cases {
            let database = Database::new(way, login.clone(), 1, PATIENCE);
            let Err(Error::Connect(why)) = database.rows("select 1") else {
                panic!("{login} is let in")
            };
            assert!(why.contains(wanted), "{why}");
            assert_eq!(database.size(), 0);
        }
    });
}

#[test]
fn a_connection_that_ends_amid_a_query_is_replaced() {
    let Some(server) = postgres_server::start() else {
        return;
    };
    each_way(|way| {
        let database = Database::new(way, login(&server), 1, PATIENCE);
        let observer = observer(&server);
        let backend = value(&database, "select pg_backend_pid()");
        let query = begin_to_sleep(&database, &observer);
        end_sleeps(&observer);
        let Err(Error::Lost(why)) = query.join().unwrap() else {
            panic!("the connection is still there")
        };
        assert!(why.contains("terminating connection"), "{why}");
        assert_eq!(database.size(), 0);
        assert_ne!(value(&database, "select pg_backend_pid()"), backend);
    });
}

#[test]
fn a_connection_that_ends_between_queries_is_replaced_without_an_error() {
    let Some(server) = postgres_server::start() else {
        return;
    };
    each_way(|way| {
        let database = Database::new(way, login(&server), 1, PATIENCE);
        let observer = observer(&server);
        let backend = value(&database, "select pg_backend_pid()");
        observer
            .rows(&format!("select pg_terminate_backend({backend})"))
            .unwrap();
        let left = format!("select count(*) from pg_stat_activity where pid = {backend}");
        until(&observer, &left, "0");
        assert_ne!(value(&database, "select pg_backend_pid()"), backend);
        assert_eq!(database.size(), 1);
    });
}

#[test]
fn a_server_that_goes_away_comes_back_for_the_same_pool() {
    each_way(|way| {
        let Some(server) = postgres_server::start() else {
            return;
        };
        // The address stays when the port changes.
        let address = Directory::new("address");
        let socket = address.join(".s.PGSQL.5432");
        let of = |server: &Server| {
            server
                .directory()
                .join(&format!(".s.PGSQL.{}", server.port()))
        };
        symlink(of(&server), &socket).unwrap();
        let login_there = Login {
            host: address.path().to_str().unwrap().into(),
            port: 5432,
            ..login(&server)
        };
        let database = Database::new(way, login_there, 3, PATIENCE);
        let observer = observer(&server);
        let query = begin_to_sleep(&database, &observer);

        greenroom::unblock(move || drop(server));
        let outcome = query.join().unwrap();
        assert!(matches!(outcome, Err(Error::Lost(_))), "{outcome:?}");
        for _ in 0..5 {
            let outcome = database.rows("select 1");
            assert!(matches!(outcome, Err(Error::Connect(_))), "{outcome:?}");
            assert_eq!(database.size(), 0);
        }

        let server = greenroom::unblock(|| postgres_server::start().unwrap());
        std::fs::remove_file(&socket).unwrap();
        symlink(of(&server), &socket).unwrap();
        assert_eq!(value(&database, "select 1"), "1");
    });
}

#[test]
fn an_address_without_a_server_is_told() {
    let directory = Directory::new("nothing");
    // Nothing listens on port 1.
    let hosts = [
        ("127.0.0.1", "refused"),
        (directory.path().to_str().unwrap(), "No such file"),
    ];
    each_way(|way| {
        for (host, wanted) in hosts {
            let login = Login {
                host: host.into(),
                port: 1,
                user: "test".into(),
                password: None,
                database: "postgres".into(),
            };
            let database = Database::new(way, login, 1, PATIENCE);
            let Err(Error::Connect(why)) = database.rows("select 1") else {
                panic!("there is a server")
            };
            assert!(why.contains(wanted), "{why}");
        }
    });
}

#[test]
fn a_query_that_is_given_up_leaves_no_connection_amid_a_reply() {
    let Some(server) = postgres_server::start() else {
        return;
    };
    each_way(|way| {
        let database = Database::new(way, login(&server), 1, PATIENCE);
        let observer = observer(&server);
        // The connection is made before the time begins.
        assert_eq!(value(&database, "select 1"), "1");
        let query = "select 'late' from pg_sleep(0.5)";
        match timeout(Duration::from_millis(50), || database.rows(query)) {
            // Code in C is not unwound.
            Ok(Err(Error::Lost(_))) => assert_eq!(way, Way::Patch),
            Err(_elapsed) => assert_ne!(way, Way::Patch),
            other => panic!("{other:?}"),
        }
        // With threads, this waits for the end of the first one.
        assert_eq!(value(&database, "select 'next'"), "next");

        let query = begin_to_sleep(&database, &observer);
        query.cancel();
        let _ = query.join();
        end_sleeps(&observer);
        assert_eq!(value(&database, "select 'next'"), "next");
        assert!(database.size() == 1);
    });
}

#[test]
fn a_query_waits_for_a_connection_as_long_as_it_may() {
    let Some(server) = postgres_server::start() else {
        return;
    };
    each_way(|way| {
        let patience = Duration::from_secs(5);
        let database = Database::new(way, login(&server), 1, patience);
        let observer = observer(&server);
        let query = begin_to_sleep(&database, &observer);
        assert_eq!(database.rows("select 1"), Err(Error::Busy(patience)));
        end_sleeps(&observer);
        assert!(query.join().unwrap().is_err());
        assert_eq!(value(&database, "select 1"), "1");
    });
}
