//! Fetches a page many times at once, or sends queries to a database on many connections at once, and prints how
//! long that took, in ns.
//!
//! - `greenroom`: ureq in coroutines of one worker. The patch has its blocking calls park.
//! - `threads`: ureq in a thread for each.
//! - `tokio-mt`: ureq in tokio's pool of blocking threads.
//! - `tokio`: reqwest, which is asynchronous, on tokio's current-thread runtime.
//! - `may`: a request written by hand on may's sockets, in one worker. ureq would block the worker.
//!
//! The queries are in `queries.rs`.

#[cfg(feature = "queries")]
mod queries;

use std::env;
use std::error::Error;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

greenroom::patch!(unsafe);

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "usage: peers-clients gets greenroom|threads|tokio-mt|tokio|may URL COUNT
       peers-clients queries greenroom|threads|tokio DATABASE CONNECTIONS QUERIES";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers-clients: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    let start = Instant::now();
    match args {
        ["gets", peer, url, count] => gets(peer, (*url).into(), count.parse()?)?,
        #[cfg(feature = "queries")]
        ["queries", peer, database, connections, each] => {
            queries::run(peer, database, connections.parse()?, each.parse()?)?;
        }
        _ => return Err(USAGE.into()),
    }
    println!("{}", start.elapsed().as_nanos());
    Ok(())
}

fn gets(peer: &str, url: Arc<str>, count: usize) -> Result<()> {
    match peer {
        "greenroom" => on_greenroom(count, move || fetch(&url)),
        "threads" => in_threads(count, move || fetch(&url)),
        "tokio-mt" => on_blocking_threads(url, count),
        "tokio" => by_reqwest(url, count),
        "may" => on_may(url, count),
        _ => Err(USAGE.into()),
    }
}

fn check(body: &str) -> Result<()> {
    match body {
        "hello\n" => Ok(()),
        other => Err(format!("not what the server says: {other:?}").into()),
    }
}

/// Fetches the page by calls that block.
fn fetch(url: &str) -> Result<()> {
    check(&ureq::get(url).call()?.into_string()?)
}

fn panicked<T>(_: T) -> Box<dyn Error + Send + Sync> {
    "a task has panicked".into()
}

/// Runs `task` in each of `count` coroutines of one worker.
fn on_greenroom(
    count: usize,
    task: impl Fn() -> Result<()> + Clone + Send + 'static,
) -> Result<()> {
    let runtime = greenroom::RuntimeBuilder::new().workers(1).build()?;
    runtime.run(|| {
        let tasks: Vec<_> = (0..count).map(|_| greenroom::spawn(task.clone())).collect();
        tasks
            .into_iter()
            .try_for_each(|task| task.join().map_err(panicked)?)
    })
}

/// Runs `task` in each of `count` threads.
fn in_threads(count: usize, task: impl Fn() -> Result<()> + Clone + Send + 'static) -> Result<()> {
    let mut threads = Vec::with_capacity(count);
    for _ in 0..count {
        threads.push(thread::Builder::new().spawn(task.clone())?);
    }
    threads
        .into_iter()
        .try_for_each(|thread| thread.join().map_err(panicked)?)
}

fn on_blocking_threads(url: Arc<str>, count: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(count)
        .build()?;
    runtime.block_on(async {
        let fetches = (0..count).map(|_| {
            let url = Arc::clone(&url);
            tokio::task::spawn_blocking(move || fetch(&url))
        });
        for fetch in fetches.collect::<Vec<_>>() {
            fetch.await??;
        }
        Ok(())
    })
}

fn by_reqwest(url: Arc<str>, count: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // One for all, as its documentation advises. It has no idle connections to use again here.
        let client = reqwest::Client::new();
        let fetches = (0..count).map(|_| {
            let (client, url) = (client.clone(), Arc::clone(&url));
            tokio::spawn(async move { check(&client.get(&*url).send().await?.text().await?) })
        });
        for fetch in fetches.collect::<Vec<_>>() {
            fetch.await??;
        }
        Ok(())
    })
}

fn on_may(url: Arc<str>, count: usize) -> Result<()> {
    may::config().set_workers(1);
    let host = url.strip_prefix("http://").ok_or("not an http URL")?;
    let host: Arc<str> = host.trim_end_matches('/').into();
    let fetches = (0..count).map(|_| {
        let host = Arc::clone(&host);
        // SAFETY: the closure keeps nothing in thread-locals, and needs little stack.
        unsafe {
            may::coroutine::spawn(move || -> Result<()> {
                let mut stream = may::net::TcpStream::connect(&*host)?;
                write!(
                    stream,
                    "GET / HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n"
                )?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                let (_, body) = answer.split_once("\r\n\r\n").ok_or("no head")?;
                check(body)
            })
        }
    });
    let fetches: Vec<_> = fetches.collect();
    fetches
        .into_iter()
        .try_for_each(|fetch| fetch.join().map_err(panicked)?)
}
