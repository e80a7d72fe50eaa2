//! A database server, which the tests of drivers start, too.

#[path = "../../../tests/porting/servers/postgres_server.rs"]
mod postgres_server;
#[allow(dead_code, reason = "the tests use the rest")]
#[path = "../../../tests/porting/servers/server.rs"]
mod server;

use std::io;

/// A server of PostgreSQL, in a directory of its own. Dropping this ends it.
pub(crate) struct Database(server::Server);

impl Database {
    /// # Errors
    ///
    /// If PostgreSQL is not installed.
    pub(crate) fn start() -> io::Result<Database> {
        let server = postgres_server::start();
        server.map(Database).ok_or_else(|| {
            io::Error::other("this work needs PostgreSQL (Debian: postgresql, libpq-dev)")
        })
    }

    /// What a client connects to.
    pub(crate) fn address(&self) -> String {
        let port = self.0.port();
        format!("host=127.0.0.1 port={port} user=test dbname=postgres")
    }
}
