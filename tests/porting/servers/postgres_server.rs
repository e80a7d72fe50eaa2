//! A server of PostgreSQL.

use std::fs;

use super::server::{Directory, Server, program};

/// The password of the user `test`, if it needs one.
pub(crate) const PASSWORD: &str = "secret";

/// Starts a server, for which the user `test` needs no password. `None`, if it is not on the machine.
pub(crate) fn start() -> Option<Server> {
    start_with("trust")
}

/// Starts a server. `login` is a method of `pg_hba.conf`.
pub(crate) fn start_with(login: &str) -> Option<Server> {
    let postgres = program("postgres")?;
    let initdb = program("initdb")?;
    let directory = Directory::new("postgres");
    let data = directory.join("data");
    let password = directory.write("password", PASSWORD);
    directory.prepare(
        directory
            .command(initdb)
            .args(["--no-sync", "--username=test", "--auth", login, "--pgdata"])
            .arg(&data)
            .arg("--pwfile")
            .arg(password),
        "",
    );
    let command = |directory: &Directory, port: u16| {
        let mut command = directory.command(&postgres);
        command.arg("-D").arg(&data).args(["-c", "fsync=off"]);
        command.args(["-c", "listen_addresses=127.0.0.1", "-p", &port.to_string()]);
        let sockets = format!("unix_socket_directories={}", directory.path().display());
        command.args(["-c", &sockets]);
        command
    };
    // It answers before it is ready.
    let is_ready = |directory: &Directory, _| {
        let state = fs::read_to_string(directory.join("data/postmaster.pid")).unwrap_or_default();
        state.lines().next_back().map(str::trim) == Some("ready")
    };
    // SIGINT ends it without waiting for its clients.
    Some(Server::start(directory, libc::SIGINT, command, is_ready))
}
