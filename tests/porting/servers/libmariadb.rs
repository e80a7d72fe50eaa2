//! A server of MariaDB, and connections of its C library.

use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::path::Path;
use std::ptr;

use mysqlclient_sys as sys;

use crate::server::{Directory, Server, not_tested, program};

/// Options for data that need not outlive the machine: nothing waits for the disk.
const WITHOUT_DISK: [&str; 2] = [
    "--innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=0",
];

/// Starts a server, with a user `test` and a database `test`. `None`, if it is not on the machine.
pub(crate) fn start() -> Option<Server> {
    let mariadbd = program("mariadbd")?;
    let scripts = ["/usr/share/mysql", "/usr/share/mariadb"].map(Path::new);
    let tables = scripts
        .iter()
        .find_map(|scripts| fs::read_to_string(scripts.join("mysql_system_tables.sql")).ok());
    let Some(tables) = tables else {
        not_tested("there are no mysql_system_tables.sql");
        return None;
    };
    let directory = Directory::new("mariadb");
    let data = format!("--datadir={}", directory.join("data").display());
    directory.prepare(directory.command("mkdir").arg("data"), "");
    // A statement ends at the end of a line.
    directory.prepare(
        directory
            .command(&mariadbd)
            .args(["--no-defaults", "--bootstrap", &data])
            .args(WITHOUT_DISK),
        &format!("create database mysql;\nuse mysql;\n{tables}"),
    );
    directory.write(
        "init.sql",
        "create user test@'%' identified by 'secret';\ncreate database test;\n\
        grant all on test.* to test@'%';\n",
    );
    let command = |directory: &Directory, port: u16| {
        let mut command = directory.command(&mariadbd);
        command
            .args(["--no-defaults", "--skip-name-resolve", &data])
            .args(WITHOUT_DISK)
            .args(["--bind-address=127.0.0.1", "--max-connections=200"])
            .arg(format!("--port={port}"))
            .arg(format!("--socket={}", directory.join("socket").display()))
            .arg(format!(
                "--init-file={}",
                directory.join("init.sql").display()
            ));
        command
    };
    let answers = |directory: &Directory, _| CConnection::to_socket(directory).is_ok();
    Some(Server::start(directory, libc::SIGTERM, command, answers))
}

/// A connection of libmariadb.
pub(crate) struct CConnection(*mut sys::MYSQL);

impl CConnection {
    pub(crate) fn to_socket(directory: &Directory) -> Result<CConnection, String> {
        CConnection::to_socket_at(&directory.join("socket"))
    }

    pub(crate) fn to_socket_at(socket: &Path) -> Result<CConnection, String> {
        CConnection::new("localhost", 0, socket.to_str().unwrap())
    }

    pub(crate) fn to_port(server: &Server) -> Result<CConnection, String> {
        CConnection::to_local_port(server.port())
    }

    pub(crate) fn to_local_port(port: u16) -> Result<CConnection, String> {
        CConnection::new("127.0.0.1", port, "")
    }

    /// Connects to the socket, or to the port if there is none.
    fn new(host: &str, port: u16, socket: &str) -> Result<CConnection, String> {
        let [host, user, password, socket] =
            [host, "test", "secret", socket].map(|text| CString::new(text).unwrap());
        let socket = if socket.is_empty() {
            ptr::null()
        } else {
            socket.as_ptr()
        };
        // SAFETY: without an argument, mysql_init makes a new handle.
        let connection = CConnection(unsafe { sys::mysql_init(ptr::null_mut()) });
        assert!(!connection.0.is_null());
        // SAFETY: the handle is new, and the strings end with a zero and outlive the call.
        let done = unsafe {
            sys::mysql_real_connect(
                connection.0,
                host.as_ptr(),
                user.as_ptr(),
                password.as_ptr(),
                ptr::null(),
                port.into(),
                socket,
                0,
            )
        };
        match done.is_null() {
            false => Ok(connection),
            true => Err(connection.error()),
        }
    }

    fn error(&self) -> String {
        // SAFETY: the handle is valid, and its message is a string until the next call.
        let error = unsafe { CStr::from_ptr(sys::mysql_error(self.0)) };
        error.to_string_lossy().into_owned()
    }

    /// Runs the query, and returns the columns of its first row.
    pub(crate) fn first_row(&self, query: &str) -> Result<Vec<String>, String> {
        let query = CString::new(query).unwrap();
        // SAFETY: the handle is connected, and the query ends with a zero.
        if unsafe { sys::mysql_query(self.0, query.as_ptr()) } != 0 {
            return Err(self.error());
        }
        // SAFETY: as above, after a query that has succeeded.
        let result = unsafe { sys::mysql_store_result(self.0) };
        if result.is_null() {
            return Err(self.error());
        }
        // SAFETY: the result is valid until it is freed. A row has as many columns as it says, each of them null
        // or a string, because the queries of this test return no bytes that are zero.
        let columns = unsafe {
            let columns = sys::mysql_num_fields(result) as usize;
            let row = sys::mysql_fetch_row(result);
            assert!(!row.is_null());
            let row = std::slice::from_raw_parts(row, columns);
            let text = |&column: &*mut c_char| match column.is_null() {
                true => "null".to_owned(),
                false => CStr::from_ptr(column).to_string_lossy().into_owned(),
            };
            row.iter().map(text).collect()
        };
        // SAFETY: the result is freed once, and nothing borrows from it.
        unsafe { sys::mysql_free_result(result) };
        Ok(columns)
    }
}

impl Drop for CConnection {
    fn drop(&mut self) {
        // SAFETY: the handle is valid, and closed once.
        unsafe { sys::mysql_close(self.0) };
    }
}
