//! Git over smart HTTP: `git clone` and `git push`, also in chunks, through `git http-backend`. Each request
//! is a child process. Its input is the body while it arrives, and its output is the answer.
//!
//! ```text
//! $ git init --bare /tmp/repositories/example.git
//! $ cargo run --release --example git_http -- 127.0.0.1:8000 /tmp/repositories
//! serving on 127.0.0.1:8000
//!
//! $ git clone http://127.0.0.1:8000/example.git
//! $ cd example
//! $ git commit --allow-empty -m 'Empty'
//! $ git -c http.postBuffer=65536 push
//! ```
//!
//! Every client may push: put a server that asks for passwords in front of this one.

#[path = "util/http.rs"]
mod http;
#[path = "util/outcome.rs"]
mod outcome;
#[path = "util/path.rs"]
mod path;

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;
use std::process::{ExitCode, Stdio};

use greenroom::shims::net::TcpListener;
use greenroom::shims::process::Command;

use http::{Body, Reply, Request};
use outcome::about;

const HELP: &str = "\
Serves the git repositories in a directory over HTTP, for clones and pushes.

Usage: git_http IP:PORT DIRECTORY
";

/// The longest head of the backend's output.
const MAX_HEAD: u64 = 64 * 1024;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let served = match arguments[..] {
        ["--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        [address, directory] => serve(address, directory.as_ref()),
        _ => Err(io::Error::other("wrong arguments (see --help)")),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str, directory: &Path) -> io::Result<()> {
    let root = directory.canonicalize();
    let root = root.map_err(|error| about(&directory.to_string_lossy(), error))?;
    let listener = TcpListener::bind(address).map_err(|error| about(address, error))?;
    let server = http::serve(listener, move |request, body, reply| {
        answer(&root, request, body, reply)
    })?;
    println!("serving on {}", server.local_addr());
    server.wait()
}

/// Has the backend answer, by the rules of CGI.
fn answer(root: &Path, request: &Request, body: &mut Body, reply: &mut Reply) -> io::Result<()> {
    let Some(mut command) = backend(root, request) else {
        return reply.text("400 Bad Request", "malformed path");
    };
    let mut child = command.spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let mut stdin = stdin.expect("it is piped");
    let mut output = BufReader::new(stdout.expect("it is piped"));

    // The backend may write before it has read everything, so both go on at the same time.
    body.demand()?;
    let answered = greenroom::scope(|scope| {
        let input = scope.spawn(move || {
            let copied = copy(body, &mut stdin);
            drop(stdin); // The backend waits for the end of its input.
            copied
        });
        let answered = relay(&mut output, reply);
        // The backend has ended, or the client has gone. The rest of the input is not needed.
        drop(output);
        input.cancel();
        match input.join() {
            Ok(Err(error)) if error.kind() != ErrorKind::BrokenPipe => Err(error),
            _ => answered,
        }
    });
    child.wait()?;
    answered
}

fn backend(root: &Path, request: &Request) -> Option<Command> {
    let (path, query) = request.path_and_query();
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", request.method)
        .env("PATH_INFO", path::decoded(path)?)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", request.field("Content-Type").unwrap_or(""))
        // The backend refuses pushes of users without a name.
        .env("REMOTE_USER", "anyone")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if let Some(length) = request.content_length() {
        command.env("CONTENT_LENGTH", length.to_string());
    }
    let passed_on = [
        ("Content-Encoding", "HTTP_CONTENT_ENCODING"),
        ("Git-Protocol", "GIT_PROTOCOL"),
    ];
    for (field, variable) in passed_on {
        if let Some(value) = request.field(field) {
            command.env(variable, value);
        }
    }
    Some(command)
}

/// Passes the backend's answer on: a head, of which one field is the status, and the content.
fn relay(output: &mut impl BufRead, reply: &mut Reply) -> io::Result<()> {
    let ended = || io::Error::other("the backend gave no answer");
    let (mut status, mut fields) = ("200 OK".to_owned(), Vec::new());
    let mut head = output.take(MAX_HEAD);
    loop {
        let mut line = String::new();
        head.read_line(&mut line)?;
        if line.trim_end().is_empty() {
            if line.is_empty() {
                return Err(ended());
            }
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(ended)?;
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("status", value) => status = value.to_owned(),
            ("content-length", _) => {} // The answer comes in chunks.
            (_, value) => fields.push((name.to_owned(), value.to_owned())),
        }
    }
    let fields = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    reply.start(&status, &fields.collect::<Vec<_>>(), None)?;
    copy(output, reply)
}

/// Copies to the end, and hands on each piece at once: progress reports are for people.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; 32 * 1024];
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(()),
            length => to.write_all(&piece[..length])?,
        }
        to.flush()?;
    }
}
