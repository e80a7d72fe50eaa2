//! The conversation with the program.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::Duration;

use greenroom::channel::{Receiver, RecvTimeoutError, Sender};
use greenroom::shims;
use serde_json::Value;
use shims::io::BufReader;
use shims::os::unix::net::UnixStream;

use crate::Event;
use crate::sample::{Frame, Sample, frames};

/// How long the view stays as it is.
const INTERVAL: Duration = Duration::from_secs(1);

/// After this time without a reply, the program counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the user wants of the program.
pub(crate) enum Request {
    Backtrace(u64),
    Cancel(u64),
    /// From now on, samples have this.
    Watch(Scope),
}

/// What samples have, besides the numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Nothing,
    Coroutines,
    WithStacks,
}

/// What came of a request. `Err` is for people.
pub(crate) enum Reply {
    Backtrace(u64, Result<Vec<Frame>, String>),
    Cancelled(u64, Result<(), String>),
}

/// A connection to a backdoor.
pub(crate) struct Link(BufReader<UnixStream>);

impl Link {
    pub(crate) fn connect(path: &Path) -> io::Result<Link> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Link(BufReader::new(stream)))
    }

    /// The reply to a command. The inner error is the program's, and the outer one that of the connection.
    fn ask(&mut self, command: &str) -> io::Result<Result<Value, String>> {
        // A program that has turned this one away has said why, and takes nothing.
        let sent = writeln!(self.0.get_mut(), "{command}");
        let mut line = String::new();
        self.0
            .read_line(&mut line)
            .map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => io::Error::other("the program does not answer"),
                _ => error,
            })?;
        if !line.ends_with('\n') {
            sent?;
            return Err(io::Error::other("the program has closed the connection"));
        }
        let mut reply: Value = greenroom::unblock(move || serde_json::from_str(&line))?;
        Ok(match reply.get_mut("error").map(Value::take) {
            Some(Value::String(why)) => Err(why),
            _ => Ok(reply),
        })
    }

    fn sample(&mut self, scope: Scope) -> io::Result<Sample> {
        let metrics = self.ask("metrics")?.map_err(io::Error::other)?;
        let dump = match scope {
            Scope::Nothing => None,
            Scope::Coroutines => Some("dump brief"),
            Scope::WithStacks => Some("dump"),
        };
        let dump = match dump {
            Some(command) => Some(self.ask(command)?.map_err(io::Error::other)?),
            None => None,
        };
        Ok(greenroom::unblock(move || Sample::of(&metrics, dump)))
    }

    fn answer(&mut self, request: &Request) -> io::Result<Option<Reply>> {
        Ok(match *request {
            Request::Watch(_) => None,
            Request::Cancel(id) => {
                let reply = self.ask(&format!("cancel {id}"))?;
                Some(Reply::Cancelled(id, reply.map(drop)))
            }
            Request::Backtrace(id) => {
                let reply = self.ask(&format!("backtrace {id}"))?;
                let stack = reply.and_then(|reply| match &reply["frames"] {
                    Value::Array(stack) => Ok(frames(stack)),
                    _ => Err(format!("it is {}, and has no backtrace", reply["state"])),
                });
                Some(Reply::Backtrace(id, stack))
            }
        })
    }
}

/// Tells what the program says, and asks it what the user wants to know. If the program is lost, waits for it.
pub(crate) fn watch(link: Link, path: &Path, requests: &Receiver<Request>, tell: &Sender<Event>) {
    let mut scope = Scope::Coroutines;
    let mut link = Ok(link);
    loop {
        let Err(error) = link.and_then(|link| converse(link, &mut scope, requests, tell)) else {
            return;
        };
        let _ = tell.send(Event::Lost(error.to_string()));
        shims::thread::sleep(INTERVAL);
        link = Link::connect(path);
        // What was asked meanwhile was not meant for another process.
        for request in requests.try_iter() {
            if let Request::Watch(other) = request {
                scope = other;
            }
        }
    }
}

/// Returns when there is no user any more.
fn converse(
    mut link: Link,
    scope: &mut Scope,
    requests: &Receiver<Request>,
    tell: &Sender<Event>,
) -> io::Result<()> {
    loop {
        let sample = link.sample(*scope)?;
        let _ = tell.send(Event::Sample(Box::new(sample)));
        let next = std::time::Instant::now() + INTERVAL;
        loop {
            match requests.recv_deadline(next) {
                Ok(Request::Watch(other)) => {
                    *scope = other;
                    break;
                }
                Ok(request) => {
                    if let Some(reply) = link.answer(&request)? {
                        let _ = tell.send(Event::Reply(reply));
                    }
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }
}
