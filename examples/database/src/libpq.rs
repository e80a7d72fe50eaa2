//! PostgreSQL's C library.
//!
//! Its calls block the OS thread: `PQconnectdbParams` until the login is complete, `PQexec` until the whole reply
//! has come. Under `greenroom::patch!`, they park the coroutine.

use std::ffi::{CStr, CString, c_int};
use std::os::fd::BorrowedFd;
use std::ptr;

use pq_sys::{ConnStatusType, ExecStatusType, PG_DIAG_MESSAGE_PRIMARY, PG_DIAG_SQLSTATE};

use crate::{Error, Login, Row, is_quiet};

/// A `PGconn`.
#[derive(Debug)]
pub struct Connection(*mut pq_sys::PGconn);

// SAFETY: libpq may use a connection on any thread, if it is on one at a time.
unsafe impl Send for Connection {}

impl crate::Connection for Connection {
    fn rows(&mut self, query: &str) -> Result<Vec<Row>, Error> {
        let Ok(query) = CString::new(query) else {
            return Err(crate::zero_byte());
        };
        // SAFETY: the connection is valid, and the query ends with a zero.
        let reply = Reply(unsafe { pq_sys::PQexec(self.0, query.as_ptr()) });
        match reply.status() {
            ExecStatusType::PGRES_COMMAND_OK | ExecStatusType::PGRES_EMPTY_QUERY => Ok(vec![]),
            ExecStatusType::PGRES_TUPLES_OK => reply.rows().map_err(Error::Lost),
            ExecStatusType::PGRES_COPY_IN | ExecStatusType::PGRES_COPY_OUT => {
                Err(Error::Lost(crate::NO_COPY.into()))
            }
            // An error without a code is not the server's, so its reply may still come.
            _ => match reply.field(PG_DIAG_SQLSTATE) {
                Some(code) if self.is_connected() => {
                    let message = reply.field(PG_DIAG_MESSAGE_PRIMARY).unwrap_or_default();
                    Err(Error::Query { code, message })
                }
                _ => Err(Error::Lost(self.error())),
            },
        }
    }

    fn is_usable(&self) -> bool {
        // SAFETY: the connection is valid, and owns the descriptor as long as it is connected.
        self.is_connected() && is_quiet(unsafe { BorrowedFd::borrow_raw(pq_sys::PQsocket(self.0)) })
    }
}

impl Connection {
    /// Connects, and logs in.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`].
    pub fn open(login: &Login) -> Result<Connection, Error> {
        let port = login.port.to_string();
        let settings = [
            (c"host", login.host.as_str()),
            (c"port", &port),
            (c"user", &login.user),
            (c"password", login.password.as_deref().unwrap_or_default()),
            (c"dbname", &login.database),
            (c"client_encoding", "UTF8"),
        ];
        let values: Result<Vec<_>, _> = settings
            .map(|(_, value)| CString::new(value))
            .into_iter()
            .collect();
        let values = values.map_err(|_| Error::Connect("a setting contains a zero byte".into()))?;
        let mut keys: Vec<_> = settings.iter().map(|(key, _)| key.as_ptr()).collect();
        let mut texts: Vec<_> = values.iter().map(|value| value.as_ptr()).collect();
        keys.push(ptr::null());
        texts.push(ptr::null());
        // SAFETY: both arrays end with a null pointer, and their strings outlive the call.
        let connection = unsafe { pq_sys::PQconnectdbParams(keys.as_ptr(), texts.as_ptr(), 0) };
        assert!(!connection.is_null(), "out of memory");
        let connection = Connection(connection);
        match connection.is_connected() {
            true => Ok(connection),
            false => Err(Error::Connect(connection.error())),
        }
    }

    fn is_connected(&self) -> bool {
        // SAFETY: the connection is valid, also if connecting has failed.
        let status = unsafe { pq_sys::PQstatus(self.0) };
        status == ConnStatusType::CONNECTION_OK
    }

    /// What went wrong last.
    fn error(&self) -> String {
        // SAFETY: the connection is valid, and its message is a string until the next call.
        let error = unsafe { CStr::from_ptr(pq_sys::PQerrorMessage(self.0)) };
        error.to_string_lossy().trim_end().to_owned()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: the connection is valid, and is closed once.
        unsafe { pq_sys::PQfinish(self.0) };
    }
}

/// A `PGresult`. Null, which all of these functions accept, is a failure.
struct Reply(*mut pq_sys::PGresult);

impl Reply {
    fn status(&self) -> ExecStatusType {
        // SAFETY: the result is valid or null.
        unsafe { pq_sys::PQresultStatus(self.0) }
    }

    /// A part of an error.
    fn field(&self, field: u8) -> Option<String> {
        // SAFETY: the result is valid or null. A field is null, or a string that lives as long as the result.
        let text = unsafe {
            let text = pq_sys::PQresultErrorField(self.0, field.into());
            (!text.is_null()).then(|| CStr::from_ptr(text))
        };
        text.map(|text| text.to_string_lossy().into_owned())
    }

    fn rows(&self) -> Result<Vec<Row>, String> {
        // SAFETY: the result is valid.
        let (rows, columns) = unsafe { (pq_sys::PQntuples(self.0), pq_sys::PQnfields(self.0)) };
        let row = |row| (0..columns).map(|column| self.value(row, column)).collect();
        (0..rows).map(row).collect()
    }

    fn value(&self, row: c_int, column: c_int) -> Result<Option<String>, String> {
        // SAFETY: the result is valid, and has this row and column. The value has this length, and lives as long
        // as the result.
        let value = unsafe {
            if pq_sys::PQgetisnull(self.0, row, column) != 0 {
                return Ok(None);
            }
            let length = pq_sys::PQgetlength(self.0, row, column) as usize;
            let value = pq_sys::PQgetvalue(self.0, row, column);
            std::slice::from_raw_parts(value.cast::<u8>(), length)
        };
        crate::text(value).map(Some)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        // SAFETY: the result is freed once, and nothing borrows from it.
        unsafe { pq_sys::PQclear(self.0) };
    }
}
