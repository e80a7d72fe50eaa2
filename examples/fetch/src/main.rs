//! Parallel fetches: a coroutine for each address, ten connections at most, and an error for each that fails.
//!
//! ```text
//! $ cargo run -p fetch
//! /page: 200, 6 bytes
//! /chunks: 200, 11 bytes
//! /moved/away: 200, 6 bytes, from /page
//! /loop: redirected: more than 5 times
//! /missing: 404, 10 bytes
//! /never: waiting for the answer: timed out
//! /stalled: reading the body: timed out
//! /cut: reading the body: 5 bytes are missing
//! a closed port: connecting: Connection refused (os error 111)
//! a silent port, by https: TLS handshake: timed out
//! a hundred pages, 10 at once
//! ```
//!
//! With addresses, it fetches these: `cargo run -p fetch -- https://127.0.0.1:8443/ ...`. A connection of `https` is
//! a stream of rustls over the coroutine's own. The system's roots are trusted, or those of `--ca`.

#[path = "../../util/chunked.rs"]
mod chunked;
mod client;
#[path = "../../util/progress.rs"]
mod progress;
mod tls;
mod url;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::thread::sleep;
use greenroom::{scope, spawn};

use client::{Client, Limits};
use progress::Progress;
use tls::Trust;

const HELP: &str = "\
Fetches pages, all at the same time.

Usage: fetch [OPTION...] URL...

  --connections N    at the same time [default: 10]
  --connect SECONDS  to resolve the name, to connect, and for the TLS handshake [default: 20]
  --total SECONDS    for a page in all, from its connection on [default: 20]
  --ca FILE          trust the certificates in this PEM file, not those of the system
  --print            print the pages, one after the other

The status is 1 if a page could not be fetched. Without arguments, it shows what may happen.
";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => demonstrate().map(|()| true),
        ["--help" | "-h"] => {
            print!("{HELP}");
            Ok(true)
        }
        ref arguments => fetch(arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Fetches what the command line asks for. Returns whether all could be fetched.
fn fetch(mut arguments: &[&str]) -> io::Result<bool> {
    let wrong = || io::Error::other("wrong arguments (see --help)");
    let (mut limits, mut connections, mut prints) = (Limits::default(), 10, false);
    let mut trust = Trust::default();
    while let [option, more @ ..] = arguments
        && option.starts_with('-')
    {
        if *option == "--print" {
            (prints, arguments) = (true, more);
            continue;
        }
        let [value, more @ ..] = more else {
            return Err(wrong());
        };
        let seconds = || {
            let seconds = value.parse().ok();
            let limit = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            limit.ok_or_else(wrong)
        };
        match *option {
            "--connections" => {
                let number = value.parse().ok().filter(|number| *number > 0);
                connections = number.ok_or_else(wrong)?;
            }
            "--connect" => limits.connect = seconds()?,
            "--total" => limits.total = seconds()?,
            "--ca" => trust = Trust::in_file(value)?,
            _ => return Err(wrong()),
        }
        arguments = more;
    }
    if arguments.is_empty() {
        return Err(wrong());
    }
    let client = Client::new(connections, limits, trust);
    let print = |page: &mut dyn Read| match prints {
        true => io::copy(page, &mut io::stdout()),
        false => io::copy(page, &mut io::sink()),
    };
    let fetched = |url: &str| {
        client.get(url, |answer| {
            let length = print(&mut answer.body)?;
            Ok(format!(
                "{}, {length} bytes, from {}",
                answer.status, answer.url
            ))
        })
    };
    let mut all = true;
    let mut tell = |url: &str, result: io::Result<String>| match result {
        Ok(told) if prints => eprintln!("{url}: {told}"),
        Ok(told) => println!("{url}: {told}"),
        Err(error) => {
            all = false;
            eprintln!("{url}: {error}");
        }
    };
    if prints {
        arguments.iter().for_each(|url| tell(url, fetched(url)));
        return Ok(all);
    }
    scope(|scope| {
        let fetches = arguments.iter().map(|url| scope.spawn(|| fetched(url)));
        let fetches: Vec<_> = fetches.collect();
        let mut progress = Progress::new();
        for (number, (url, fetch)) in arguments.iter().zip(fetches).enumerate() {
            let result = fetch.join().expect("a fetch does not panic");
            progress.show(|| format!("{number} of {} pages", arguments.len()));
            tell(url, result);
        }
    });
    Ok(all)
}

/// A server with all kinds of pages.
fn serve(listener: TcpListener, slow: &'static Slow) -> io::Result<()> {
    for stream in listener.incoming() {
        let mut stream = stream?;
        spawn(move || answer(&mut stream, slow));
    }
    Ok(())
}

/// How many clients have waited for the slow page at the same time.
#[derive(Default)]
struct Slow {
    now: AtomicUsize,
    most: AtomicUsize,
}

fn answer(stream: &mut TcpStream, slow: &Slow) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(&*stream).read_line(&mut line)?;
    let answer = match line.split(' ').nth(1).unwrap_or_default() {
        "/page" => "200 OK\r\nContent-Length: 6\r\n\r\nhello\n",
        "/chunks" => {
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n"
        }
        "/moved/away" => "301 Moved\r\nLocation: ../page\r\n\r\n",
        "/loop" => "302 Found\r\nLocation: /loop\r\n\r\n",
        "/never" => return stream.read(&mut [0]).map(drop),
        "/stalled" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
            return stream.read(&mut [0]).map(drop);
        }
        "/cut" => "200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "/slow" => {
            let now = slow.now.fetch_add(1, Ordering::SeqCst) + 1;
            slow.most.fetch_max(now, Ordering::SeqCst);
            sleep(Duration::from_millis(50));
            slow.now.fetch_sub(1, Ordering::SeqCst);
            "200 OK\r\n\r\nslow"
        }
        _ => "404 Not Found\r\nContent-Length: 10\r\n\r\nno page :(",
    };
    stream.write_all(format!("HTTP/1.1 {answer}").as_bytes())
}

fn demonstrate() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = listener.local_addr()?;
    static SLOW: LazyLock<Slow> = LazyLock::new(Slow::default);
    spawn(move || serve(listener, &SLOW));
    // Nothing else can listen on the port of a client while its connection is open.
    let client = TcpStream::connect(server)?;
    let closed = client.local_addr()?;
    // Nothing accepts there.
    let silent = TcpListener::bind("127.0.0.1:0")?;

    let hasty = Limits {
        total: Duration::from_secs(2),
        ..Limits::default()
    };
    let hasty = &Client::new(10, hasty, Trust::default());
    let patient = &Client::new(10, Limits::default(), Trust::default());
    let fetched = |client: &Client, url: &str| {
        client.get(url, |answer| {
            let length = io::copy(&mut answer.body, &mut io::sink())?;
            let told = format!("{}, {length} bytes", answer.status);
            Ok(match answer.url.to_string() == url {
                true => told,
                false => format!("{told}, from {}", answer.url.target),
            })
        })
    };
    let page = |path| format!("http://{server}{path}");
    let of_silent = format!("https://{}/", silent.local_addr()?);
    let pages = [
        ("/page", patient, page("/page")),
        ("/chunks", patient, page("/chunks")),
        ("/moved/away", patient, page("/moved/away")),
        ("/loop", patient, page("/loop")),
        ("/missing", patient, page("/missing")),
        ("/never", hasty, page("/never")),
        ("/stalled", hasty, page("/stalled")),
        ("/cut", patient, page("/cut")),
        ("a closed port", patient, format!("http://{closed}/")),
        ("a silent port, by https", hasty, of_silent),
    ];
    scope(|scope| {
        let fetches = pages.each_ref();
        let fetches = fetches.map(|(_, client, url)| scope.spawn(|| fetched(client, url)));
        for ((name, ..), fetch) in pages.iter().zip(fetches) {
            match fetch.join().expect("a fetch does not panic") {
                Ok(told) => println!("{name}: {told}"),
                Err(error) => println!("{name}: {error}"),
            }
        }
    });
    let slow = page("/slow");
    scope(|scope| {
        (0..100).for_each(|_| drop(scope.spawn(|| fetched(patient, &slow))));
    });
    println!(
        "a hundred pages, {} at once",
        SLOW.most.load(Ordering::SeqCst)
    );
    Ok(())
}
