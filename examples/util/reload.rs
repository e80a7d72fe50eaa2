//! Servers that a new process takes over from, without losing a connection.
//!
//! SIGHUP starts the program again, with the same listener, and ends this process once the new one serves. SIGTERM
//! and SIGINT end the server when its requests have been answered.

#![allow(dead_code, reason = "each example uses its part")]

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use greenroom::server::{Server, hand_over, listen_fds};
use greenroom::shims::net::TcpListener;
use greenroom::shims::process::{Command, Stdio};
use greenroom::signal::{SIGHUP, SIGINT, SIGTERM, Signals};
use greenroom::{ListenOptions, timeout};

/// How long requests in progress may take when the server stops, and a new process may take to serve.
const GRACE: Duration = Duration::from_secs(30);

/// How many connections wait to be accepted.
const BACKLOG: u32 = 4096;

pub(crate) struct Reload(Signals);

impl Reload {
    /// To be called before the server is ready, so that no signal is missed.
    pub(crate) fn new() -> io::Result<Reload> {
        Ok(Reload(Signals::new(&[SIGTERM, SIGINT, SIGHUP])?))
    }

    /// The listener of the process before this one, or of systemd; or else a new one.
    pub(crate) fn listener(&self, address: &str) -> io::Result<TcpListener> {
        match listen_fds()?.pop() {
            Some(inherited) => inherited.into_tcp(),
            None => ListenOptions::new().backlog(BACKLOG).listen(address),
        }
    }

    /// Says that `server` is ready, and serves until a signal ends this process. `before_stop` is called when no
    /// more connections are needed here: it frees handlers that wait for long.
    pub(crate) fn serve(mut self, server: &Server, before_stop: impl FnOnce()) -> io::Result<()> {
        let address = server.local_addr();
        say(&format!("serves on {address}"));
        // The process that has started this one waits for this.
        println!("serving on {address}");
        while self.0.next().transpose()? == Some(SIGHUP) {
            match start_successor(server) {
                Ok(()) => break,
                Err(error) => say(&format!("has no successor: {error}")),
            }
        }
        before_stop();
        let cancelled = server.stop(GRACE);
        let served = server.stats().accepted;
        say(&format!(
            "ends: {served} connections, {cancelled} cancelled"
        ));
        Ok(())
    }
}

/// Starts this program again, with the same arguments and listener. Returns when the new process serves.
fn start_successor(server: &Server) -> io::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1));
    hand_over(&mut command, &[server.listener()?.as_fd()])?;
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().expect("it is piped");
    let ready = timeout(GRACE, || BufReader::new(stdout).lines().next());
    if !matches!(ready, Ok(Some(Ok(_)))) {
        child.kill()?;
        child.wait()?;
        return Err(io::Error::other("it has not become ready"));
    }
    Ok(())
}

/// Writes a line for the log, at once: other processes write to the same file.
pub(crate) fn say(line: &str) {
    let line = format!("{} {line}\n", std::process::id());
    let _ = io::stderr().write_all(line.as_bytes());
}
