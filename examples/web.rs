//! A small web site: pages by their path, news that clients wait for, a streamed answer, files, and a restart that
//! loses no connection.
//!
//! ```text
//! $ cargo run --example web
//! GET /hello/world: 200 OK, Hello, world!
//! GET /hello/green%20room: 200 OK, Hello, green room!
//! GET /nowhere: 404 Not Found, there is no /nowhere
//! DELETE /news: 405 Method Not Allowed
//! GET /ticks/3: 200 OK, tick 1 tick 2 tick 3
//! POST /news: 201 Created, 1
//! GET /news?after=0: 200 OK, 1: it works
//! ```
//!
//! With an address, it serves until SIGTERM: `cargo run --example web -- 127.0.0.1:8080 DIRECTORY`. Open
//! `http://127.0.0.1:8080/` in two windows of a browser. `kill -HUP` has a new process take over.
//!
//! A client that waits for news must keep its side of the connection open: the end of what it sends looks like its
//! leaving, as with `nc -N`.

#[path = "util/descriptors.rs"]
mod descriptors;
#[path = "util/http.rs"]
mod http;
#[path = "util/outcome.rs"]
mod outcome;
#[path = "util/path.rs"]
mod path;
#[path = "util/reload.rs"]
mod reload;

use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use greenroom::server::{Connection, End, Event, Server};
use greenroom::shims::fs::File;
use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::sync::Mutex;
use greenroom::sync::futex;
use greenroom::{Interest, interval, select};

use http::{Body, Limits, Reply, Request};
use outcome::about;
use reload::Reload;

const HELP: &str = "\
A small web site.

Usage: web [IP:PORT [DIRECTORY] [OPTION...]]

  --head SECONDS  how long a client may take for the head of a request [default: 30]
  --idle SECONDS  how long a client may send and take nothing [default: 60]

SIGTERM ends it when all requests are answered. SIGHUP starts it anew: the new process takes the listening socket,
and the old one ends when it has answered its requests.

Without arguments, it shows a few requests.
";

/// How long a client waits for news before it has to ask again.
const LONG: Duration = Duration::from_secs(50);

/// The longest news, in bytes.
const LONGEST: u64 = 1000;

/// What the handlers share.
#[derive(Default)]
struct Site {
    /// Where the files are.
    directory: Option<PathBuf>,
    /// The last news and its number, which is 0 if there is none so far.
    news: Mutex<(u32, String)>,
    /// Changes with the news, and at the end.
    changes: AtomicU32,
    ends: AtomicBool,
    waiting: AtomicUsize,
}

/// One request. `rest` is what the `*` of the pattern stands for.
struct Call<'a, 'b, 'r> {
    rest: &'a str,
    query: &'a str,
    body: &'a mut Body<'b>,
    reply: &'a mut Reply<'r>,
}

type Handler = fn(&Site, Call) -> io::Result<()>;

const ROUTES: &[(&str, &str, Handler)] = &[
    ("GET", "/", Site::start_page),
    ("GET", "/plaintext", |_, call| plain(call, "Hello, World!")),
    ("GET", "/hello/*", Site::hello),
    ("GET", "/ticks/*", Site::ticks),
    ("GET", "/news", Site::wait_for_news),
    ("POST", "/news", Site::publish),
    ("GET", "/status", Site::status),
    ("GET", "/files/*", Site::file),
];

/// What the `*` at the end of `pattern` stands for in `path`.
fn matches<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    match pattern.strip_suffix('*') {
        Some(start) => path.strip_prefix(start).filter(|rest| !rest.is_empty()),
        None => (path == pattern).then_some(""),
    }
}

impl Site {
    fn answer(&self, request: &Request, body: &mut Body, reply: &mut Reply) -> io::Result<()> {
        let (path, query) = request.path_and_query();
        let method = match request.method {
            "HEAD" => "GET",
            method => method,
        };
        let mut allowed = Vec::new();
        for &(own_method, pattern, handler) in ROUTES {
            if let Some(rest) = matches(pattern, path) {
                if own_method == method {
                    let call = Call {
                        rest,
                        query,
                        body,
                        reply,
                    };
                    return handler(self, call);
                }
                allowed.push(own_method);
            }
        }
        match allowed[..] {
            [] => not_found(reply, path),
            _ => {
                let allowed = [("Allow", &*allowed.join(", "))];
                reply.start("405 Method Not Allowed", &allowed, Some(0))
            }
        }
    }

    fn start_page(&self, call: Call) -> io::Result<()> {
        content(call.reply, "text/html; charset=utf-8", PAGE)
    }

    fn hello(&self, call: Call) -> io::Result<()> {
        match path::decoded(&format!("/{}", call.rest)) {
            Some(name) => {
                let name = name.to_string_lossy();
                call.reply
                    .text("200 OK", &format!("Hello, {}!", &name[1..]))
            }
            None => call.reply.text("400 Bad Request", "that is no name"),
        }
    }

    /// Sends each line when it is due.
    fn ticks(&self, call: Call) -> io::Result<()> {
        let count = call.rest.parse::<u32>().ok();
        let Some(count) = count.filter(|count| *count <= 1000) else {
            return call.reply.text("400 Bad Request", "up to 1000 ticks");
        };
        let fields = [("Content-Type", "text/plain")];
        call.reply.start("200 OK", &fields, None)?;
        for (number, _) in (1..=count).zip(interval(Duration::from_millis(100))) {
            // One write, one chunk.
            call.reply
                .write_all(format!("tick {number}\n").as_bytes())?;
            call.reply.flush()?;
        }
        Ok(())
    }

    /// A long poll: answers when there is news that the client does not have. It ends without an answer when the client
    /// closes the connection, or its half of it: these look the same until something is sent.
    fn wait_for_news(&self, call: Call) -> io::Result<()> {
        let after = call.query.strip_prefix("after=").unwrap_or("");
        let Ok(after) = after.parse::<u32>() else {
            return call
                .reply
                .text("400 Bad Request", "?after=NUMBER is missing");
        };
        let _waiting = Waiting::new(&self.waiting);
        let changes = self.changes.load(Ordering::SeqCst);
        let is_news = |number| number != 0 && number != after;
        let number = self.news.lock().unwrap().0;
        if !is_news(number) && !self.ends.load(Ordering::SeqCst) {
            select! {
                futex(&self.changes, changes) -> _ => {}
                ready(call.reply.stream(), Interest::READ_CLOSED) -> _ => {
                    return Err(ErrorKind::ConnectionAborted.into());
                }
                default(LONG) => {}
            }
        }
        let (number, text) = self.news.lock().unwrap().clone();
        match is_news(number) {
            true => call.reply.text("200 OK", &format!("{number}: {text}")),
            false => call.reply.start("204 No Content", &[], Some(0)),
        }
    }

    fn publish(&self, call: Call) -> io::Result<()> {
        let mut text = String::new();
        let read = call.body.take(LONGEST + 1).read_to_string(&mut text)?;
        if read as u64 > LONGEST {
            return Err(ErrorKind::FileTooLarge.into());
        }
        if text.trim().is_empty() {
            return call.reply.text("400 Bad Request", "that is no news");
        }
        let number = {
            let mut news = self.news.lock().unwrap();
            *news = (news.0 + 1, text);
            news.0
        };
        self.wake_waiting();
        call.reply.text("201 Created", &number.to_string())
    }

    /// Frees all that wait for news: the process ends.
    fn end(&self) {
        self.ends.store(true, Ordering::SeqCst);
        self.wake_waiting();
    }

    fn wake_waiting(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        futex::wake(&self.changes, usize::MAX);
    }

    fn status(&self, call: Call) -> io::Result<()> {
        let waiting = self.waiting.load(Ordering::SeqCst);
        let process = std::process::id();
        let text = format!("process {process}, {waiting} wait for news");
        call.reply.text("200 OK", &text)
    }

    fn file(&self, call: Call) -> io::Result<()> {
        match self.open(call.rest) {
            Ok((mut file, path)) => {
                let length = file.metadata()?.len();
                let fields = [("Content-Type", content_type(&path))];
                call.reply.start("200 OK", &fields, Some(length))?;
                io::copy(&mut file, call.reply).map(drop)
            }
            Err(_) => not_found(call.reply, call.rest),
        }
    }

    /// Opens a file of the directory, and no other one, whatever dots and links lead to.
    fn open(&self, name: &str) -> io::Result<(File, PathBuf)> {
        let name = path::decoded(&format!("/{name}")).ok_or(ErrorKind::NotFound)?;
        let directory = self.directory.as_ref().ok_or(ErrorKind::NotFound)?;
        let mut path = directory.clone().into_os_string();
        path.push(name);
        let path = greenroom::shims::fs::canonicalize(path)?;
        if !path.starts_with(directory) || !path.is_file() {
            return Err(ErrorKind::NotFound.into());
        }
        Ok((File::open(&path)?, path))
    }
}

/// Counts a client that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn new(count: &AtomicUsize) -> Waiting<'_> {
        count.fetch_add(1, Ordering::SeqCst);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn plain(call: Call, text: &str) -> io::Result<()> {
    content(call.reply, "text/plain", text)
}

fn content(reply: &mut Reply, kind: &str, text: &str) -> io::Result<()> {
    reply.start("200 OK", &[("Content-Type", kind)], Some(text.len() as u64))?;
    reply.write_all(text.as_bytes())
}

fn not_found(reply: &mut Reply, path: &str) -> io::Result<()> {
    reply.text("404 Not Found", &format!("there is no {path}"))
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("png") => "image/png",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

const PAGE: &str = r#"<!doctype html>
<title>greenroom</title>
<h1>It works</h1>
<p>This page comes from a coroutine. So does each of these:
<ul>
<li><a href="/hello/world">/hello/NAME</a> greets you
<li><a href="/ticks/20">/ticks/COUNT</a> takes its time
<li><a href="/files/index.html">/files/NAME</a> is a file
</ul>
<form id="form"><input id="text" placeholder="Tell the others"> <button>Send</button></form>
<ol id="news"></ol>
<script>
form.onsubmit = event => {
    event.preventDefault();
    fetch("/news", {method: "POST", body: text.value});
    form.reset();
};
async function follow(after) {
    for (;;) {
        const answer = await fetch("/news?after=" + after);
        if (answer.status != 200) continue;
        const [number, line] = (await answer.text()).split(/: (.*)/s);
        after = number;
        news.append(Object.assign(document.createElement("li"), {textContent: line}));
    }
}
follow(0);
</script>
"#;

fn main() -> ExitCode {
    let done = greenroom::run(|| {
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        match arguments[..] {
            [] => demonstrate(),
            ["--help" | "-h"] => {
                print!("{HELP}");
                Ok(())
            }
            [address, ref options @ ..] => serve(address, options),
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str, mut options: &[&str]) -> io::Result<()> {
    let mut site = Site::default();
    let mut limits = Limits::default();
    while let [option, more @ ..] = options {
        options = match (*option, more) {
            (name @ ("--head" | "--idle"), [value, more @ ..]) => {
                let seconds = value.parse().ok();
                let limit = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                let limit = limit.filter(|limit| !limit.is_zero());
                let limit = limit.ok_or(io::Error::other(format!("{name} needs seconds")))?;
                match name {
                    "--head" => limits.head = limit,
                    _ => limits.idle = limit,
                }
                more
            }
            (name, more) if !name.starts_with('-') && site.directory.is_none() => {
                let directory = Path::new(name).canonicalize();
                site.directory = Some(directory.map_err(|error| about(name, error))?);
                more
            }
            _ => return Err(io::Error::other("wrong arguments (see --help)")),
        };
    }
    descriptors::raise_limit();
    let reload = Reload::new()?;
    let listener = reload.listener(address);
    let listener = listener.map_err(|error| about(address, error))?;
    let site = Arc::new(site);
    let server = start(listener, limits, Arc::clone(&site))?;
    reload.serve(&server, || site.end())
}

fn start(listener: TcpListener, limits: Limits, site: Arc<Site>) -> io::Result<Server> {
    Server::builder()
        .name("web")
        .log(log)
        .serve(listener, move |connection: &Connection| {
            http::converse(connection, limits, |request, body, reply| {
                site.answer(request, body, reply)
            })
        })
}

/// Tells what is not as it should be. That clients leave is.
fn log(event: &Event<'_>) {
    match event {
        Event::Ended { end: End::Done, .. } => {}
        Event::Ended {
            end: End::Failed(error),
            ..
        } if matches!(
            error.kind(),
            ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        ) => {}
        event => reload::say(&event.to_string()),
    }
}

fn demonstrate() -> io::Result<()> {
    let site = Arc::new(Site::default());
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = start(listener, Limits::default(), site)?;
    for (request, body) in [
        ("GET /hello/world", ""),
        ("GET /hello/green%20room", ""),
        ("GET /nowhere", ""),
        ("DELETE /news", ""),
        ("GET /ticks/3", ""),
        ("POST /news", "it works"),
        ("GET /news?after=0", ""),
    ] {
        let mut stream = TcpStream::connect(server.local_addr())?;
        let length = body.len();
        write!(
            stream,
            "{request} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, text) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let status = head.lines().next().unwrap_or_default();
        let status = status.trim_start_matches("HTTP/1.1 ");
        let words: Vec<_> = text.split_whitespace().collect();
        let comma = if words.is_empty() { "" } else { ", " };
        println!("{request}: {status}{comma}{}", words.join(" "));
    }
    server.stop(Duration::from_secs(30));
    Ok(())
}
