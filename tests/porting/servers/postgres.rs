//! PostgreSQL, through its C library and through the crate `diesel`.
//!
//! The crate `postgres` is not here: it runs tokio on the thread that asks, and tokio refuses to run twice on
//! one thread ("Cannot start a runtime from within a runtime"), which is what the second coroutine of a worker
//! asks for. It works in a program that `cargo greenroom` builds, where a coroutine is a thread for tokio
//! also: see `tests/survey/programs/postgres.rs`.

use std::ffi::{CStr, CString};
use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{Integer, Text};

use crate::at_once::{Operations, alone};
use crate::postgres_server::start;
use crate::server::Server;

const HALF: Duration = Duration::from_millis(500);

/// A URL for the server's port, or for its socket.
fn url(server: &Server, by_port: bool) -> String {
    let host = match by_port {
        true => "127.0.0.1".to_owned(),
        false => server.directory().path().display().to_string(),
    };
    let host = host.replace('/', "%2F");
    format!("postgresql://test@{host}:{}/postgres", server.port())
}

/// A connection of libpq.
struct CConnection(*mut pq_sys::PGconn);

impl CConnection {
    fn new(url: &str) -> CConnection {
        let url = CString::new(url).unwrap();
        // SAFETY: the string ends with a zero.
        let connection = CConnection(unsafe { pq_sys::PQconnectdb(url.as_ptr()) });
        // SAFETY: the connection is valid, also if connecting has failed.
        let status = unsafe { pq_sys::PQstatus(connection.0) };
        let connected = status == pq_sys::ConnStatusType::CONNECTION_OK;
        assert!(connected, "{}", connection.error());
        connection
    }

    fn error(&self) -> String {
        // SAFETY: the connection is valid, and its message is a string until the next call.
        let error = unsafe { CStr::from_ptr(pq_sys::PQerrorMessage(self.0)) };
        error.to_string_lossy().into_owned()
    }

    /// Runs a query with one row, and returns its columns.
    fn row(&self, query: &str) -> Result<Vec<String>, String> {
        let query = CString::new(query).unwrap();
        // SAFETY: the connection is valid, and the query ends with a zero.
        let result = unsafe { pq_sys::PQexec(self.0, query.as_ptr()) };
        // SAFETY: the result is valid, or null, which is a failure.
        let row = unsafe {
            match pq_sys::PQresultStatus(result) {
                pq_sys::ExecStatusType::PGRES_TUPLES_OK => {
                    assert_eq!(pq_sys::PQntuples(result), 1);
                    let text = |column| CStr::from_ptr(pq_sys::PQgetvalue(result, 0, column));
                    let columns = 0..pq_sys::PQnfields(result);
                    Ok(columns
                        .map(|column| text(column).to_string_lossy().into_owned())
                        .collect())
                }
                _ => Err(self.error()),
            }
        };
        // SAFETY: the result is freed once, and nothing borrows from it.
        unsafe { pq_sys::PQclear(result) };
        row
    }
}

impl Drop for CConnection {
    fn drop(&mut self) {
        // SAFETY: the connection is valid, and closed once.
        unsafe { pq_sys::PQfinish(self.0) };
    }
}

#[test]
fn queries_of_libpq_wait_at_once() {
    let _alone = alone();
    let Some(server) = start() else { return };
    let operations = Operations {
        what: "libpq",
        count: 40,
        each: HALF,
        threads: &[],
    };
    let rows = operations.run(|number| {
        // One half over a Unix socket, the other over TCP.
        let connection = CConnection::new(&url(&server, number % 2 == 0));
        let query = format!("select pg_sleep(0.5), {number} * 2, 'number {number}'");
        connection.row(&query).unwrap()
    });
    for (number, row) in rows.iter().enumerate() {
        let wanted = [
            String::new(),
            (number * 2).to_string(),
            format!("number {number}"),
        ];
        assert_eq!(row[..], wanted);
    }
}

#[test]
fn a_statement_that_times_out_at_the_server_is_an_error_of_libpq() {
    let _alone = alone();
    let Some(server) = start() else { return };
    let operations = Operations {
        what: "libpq, statements that time out",
        count: 10,
        each: HALF,
        threads: &[],
    };
    let outcomes = operations.run(|number| {
        let connection = CConnection::new(&url(&server, number % 2 == 0));
        connection
            .row("select set_config('statement_timeout', '500ms', false)")
            .unwrap();
        let outcome = connection.row("select pg_sleep(30)");
        // The connection goes on.
        assert_eq!(connection.row("select 1"), Ok(vec!["1".to_owned()]));
        outcome
    });
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(error.contains("statement timeout"), "{error}");
    }
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Integer)]
    double: i32,
    #[diesel(sql_type = Text)]
    text: String,
}

#[test]
fn queries_of_diesel_wait_at_once() {
    let _alone = alone();
    let Some(server) = start() else { return };
    let operations = Operations {
        what: "diesel",
        count: 40,
        each: HALF,
        threads: &[],
    };
    let rows = operations.run(|number| {
        let mut connection = PgConnection::establish(&url(&server, number % 2 == 0)).unwrap();
        let query = "select $1 * 2 as double, 'number ' || $1 as text, pg_sleep(0.5)";
        diesel::sql_query(query)
            .bind::<Integer, _>(i32::try_from(number).unwrap())
            .get_result::<Row>(&mut connection)
            .unwrap()
    });
    for (number, row) in (0..).zip(rows) {
        assert_eq!(
            (row.double, row.text),
            (number * 2, format!("number {number}"))
        );
    }
}
