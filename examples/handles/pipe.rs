//! Pipes between processes, which pass descriptors: a child goes on with a connection that this process began.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};

use greenroom::shims::descriptor::PassDescriptors;
use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::os::unix::net::UnixStream;
use greenroom::shims::process::Command;

/// The argument of the child.
pub(crate) const CHILD: &str = "pipe-child";

pub(crate) fn show() -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (connection, _) = listener.accept()?;

    client.write_all(b"one\n")?;
    answer(&connection, "parent")?;
    let first = line(&client)?;

    let (pipe, end) = UnixStream::pair()?;
    let mut child = Command::new(env::current_exe()?);
    let mut child = child.arg(CHILD).stdin(OwnedFd::from(end)).spawn()?;
    pipe.send_fds(&[connection.as_fd()], b"!")?;
    drop(connection);
    client.write_all(b"two\n")?;
    let second = line(&client)?;
    child.wait()?;
    Ok(format!("{first:?}, and on the same connection {second:?}"))
}

/// Answers on the connection that comes through standard input.
pub(crate) fn child() -> io::Result<()> {
    let pipe = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (_, mut passed) = pipe.recv_fds(1, &mut [0])?;
    let connection = passed.pop().ok_or(io::ErrorKind::UnexpectedEof)?;
    answer(&TcpStream::from(connection), "child")
}

fn answer(mut connection: &TcpStream, who: &str) -> io::Result<()> {
    let request = line(connection)?;
    connection.write_all(format!("{who}: {request}\n").as_bytes())
}

/// The next line. The peer sends one at a time, so the buffer is empty afterwards.
fn line(connection: &TcpStream) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}
