//! What each way does alike.

use database::{Database, Error, Login, Way};
use greenroom::Group;

use crate::{PATIENCE, each_way, login, postgres_server, until, value};

/// How many queries wait at the same time.
const MANY: usize = 20;

#[test]
fn queries_wait_at_once_and_each_gets_its_own_rows() {
    let Some(server) = postgres_server::start() else {
        return;
    };
    each_way(|way| {
        let database = Database::new(way, login(&server), MANY, PATIENCE);
        let other = Database::new(Way::Wire, login(&server), 1, PATIENCE);
        other.rows("select pg_advisory_lock(1)").unwrap();
        let queries = greenroom::spawn({
            let database = database.clone();
            move || {
                Group::new().map(0..2 * MANY, |number| {
                    let query = format!("select {number}, pg_advisory_xact_lock_shared(1)");
                    database.rows(&query)
                })
            }
        });
        // All connections wait in the server. The other half of the queries waits for a connection.
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
        until(&other, waiting, &MANY.to_string());
        assert_eq!(database.size(), MANY);
        other.rows("select pg_advisory_unlock(1)").unwrap();
        for (number, rows) in queries.join().unwrap().into_iter().enumerate() {
            let row = vec![Some(number.to_string()), Some(String::new())];
            assert_eq!(rows.unwrap(), Ok(vec![row]));
        }
        assert_eq!(database.size(), MANY);
    });
}

#[test]
fn rows_are_those_of_the_last_statement() {
    let Some(server) = postgres_server::start() else {
        return;
    };
    let some = |text: &str| Some(text.to_owned());
    let cases = [
        (
            "select 1, null, '', 'ä€😀'",
            vec![vec![some("1"), None, some(""), some("ä€😀")]],
        ),
        (
            "select * from generate_series(1, 3)",
            vec![vec![some("1")], vec![some("2")], vec![some("3")]],
        ),
        ("select 1; select 2", vec![vec![some("2")]]),
        ("select 1 where false", vec![]),
        ("select", vec![vec![]]),
        ("select 1; set datestyle to iso", vec![]),
        (
            "create temp table t (a int); insert into t values (5); select a from t; drop table t",
            vec![],
        ),
        ("", vec![]),
        ("; ;", vec![]),
        (
            "do $$ begin raise notice 'heard by nobody'; end $$; select 1",
            vec![vec![some("1")]],
        ),
    ];
    each_way(|way| {
        let database = Database::new(way, login(&server), 1, PATIENCE);
        for (query, rows) in &cases {
            assert_eq!(database.rows(query).as_ref(), Ok(rows), "{query}");
        }
        // Longer than any buffer.
        let long = value(&database, "select repeat('x', 1000000)");
        assert!(long.len() == 1_000_000 && long.bytes().all(|byte| byte == b'x'));
        let query = format!("select length('{long}')");
        assert_eq!(value(&database, &query), "1000000");
    });
}

#[test]
fn logins_use_passwords_over_both_kinds_of_sockets() {
    for method in ["scram-sha-256", "password"] {
        let Some(server) = postgres_server::start_with(method) else {
            return;
        };
        let by_port = login(&server);
        let by_socket = Login {
            host: server.directory().path().to_str().unwrap().into(),
            ..login(&server)
        };
        each_way(|way| {
            for login in [&by_port, &by_socket] {
                let database = Database::new(way, login.clone(), 1, PATIENCE);
                assert_eq!(value(&database, "select current_user"), "test");
            }
            for password in [Some("guessed".into()), None] {
                let login = Login {
                    password,
                    ..by_port.clone()
                };
                let database = Database::new(way, login, 1, PATIENCE);
                let Err(Error::Connect(why)) = database.rows("select 1") else {
                    panic!("it let in a stranger")
                };
                assert!(why.contains("password"), "{why}");
                assert_eq!(database.size(), 0);
            }
        });
    }
}
