//! Queries of a PostgreSQL database, on many connections at once.
//!
//! - `greenroom`: libpq, a C library, in coroutines of one worker. The patch has its blocking calls park.
//! - `threads`: libpq in a thread for each connection.
//! - `tokio`: tokio-postgres on tokio's current-thread runtime.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use super::{Result, USAGE, in_threads, on_greenroom};

/// Sends `each` queries, one after the other, on each of `connections` connections.
pub(crate) fn run(peer: &str, database: &str, connections: usize, each: usize) -> Result<()> {
    let database: Arc<str> = database.into();
    let by_libpq = {
        let database = Arc::clone(&database);
        move || Connection::new(&database)?.ask(each)
    };
    match peer {
        "greenroom" => on_greenroom(connections, by_libpq),
        "threads" => in_threads(connections, by_libpq),
        "tokio" => on_tokio(database, connections, each),
        _ => Err(USAGE.into()),
    }
}

fn query(number: usize) -> String {
    format!("select {number} * 2")
}

fn check(number: usize, answer: Option<&str>) -> Result<()> {
    match answer.map(str::parse) {
        Some(Ok(answer)) if number * 2 == answer => Ok(()),
        _ => Err(format!("{answer:?} for {number}").into()),
    }
}

/// A connection of libpq.
struct Connection(*mut pq_sys::PGconn);

impl Connection {
    fn new(database: &str) -> Result<Connection> {
        let database = CString::new(database)?;
        // SAFETY: the string ends with a zero.
        let connection = Connection(unsafe { pq_sys::PQconnectdb(database.as_ptr()) });
        // SAFETY: the connection is valid, also if connecting has failed.
        match unsafe { pq_sys::PQstatus(connection.0) } {
            pq_sys::ConnStatusType::CONNECTION_OK => Ok(connection),
            _ => Err(connection.error().into()),
        }
    }

    fn error(&self) -> String {
        // SAFETY: the connection is valid, and its message is a string until the next call.
        let error = unsafe { CStr::from_ptr(pq_sys::PQerrorMessage(self.0)) };
        error.to_string_lossy().into_owned()
    }

    fn ask(&self, count: usize) -> Result<()> {
        for number in 0..count {
            let query = CString::new(query(number))?;
            // SAFETY: the connection is valid, and the query ends with a zero. The result is valid until it is
            // cleared, or null, which is a failure. A successful one has a row with a column.
            unsafe {
                let result = pq_sys::PQexec(self.0, query.as_ptr());
                let checked = match pq_sys::PQresultStatus(result) {
                    pq_sys::ExecStatusType::PGRES_TUPLES_OK => {
                        let answer = CStr::from_ptr(pq_sys::PQgetvalue(result, 0, 0));
                        check(number, answer.to_str().ok())
                    }
                    _ => Err(self.error().into()),
                };
                pq_sys::PQclear(result);
                checked?;
            }
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: the connection is valid, and closed once.
        unsafe { pq_sys::PQfinish(self.0) };
    }
}

fn on_tokio(database: Arc<str>, connections: usize, each: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let tasks = (0..connections).map(|_| {
            let database = Arc::clone(&database);
            tokio::spawn(async move {
                let (client, connection) =
                    tokio_postgres::connect(&database, tokio_postgres::NoTls).await?;
                tokio::spawn(connection);
                for number in 0..each {
                    // As PQexec sends it.
                    let rows = client.simple_query(&query(number)).await?;
                    let row = rows.iter().find_map(|message| match message {
                        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
                        _ => None,
                    });
                    check(number, row.and_then(|row| row.get(0)))?;
                }
                Result::Ok(())
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await??;
        }
        Ok(())
    })
}
