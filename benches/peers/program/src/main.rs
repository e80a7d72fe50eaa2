//! An ordinary program that has a thread for each thing that it waits for.
//!
//! Each command but `serve` prints how long it took, in ns.

use std::env;
use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use rayon::iter::{IntoParallelIterator, ParallelIterator};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "usage: peers-program serve | gets URL COUNT | sleeps COUNT MS | compute COUNT";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers-program: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    let start = Instant::now();
    match args {
        ["serve"] => serve()?,
        ["gets", url, count] => gets(url, count.parse()?)?,
        ["sleeps", count, ms] => sleeps(count.parse()?, Duration::from_millis(ms.parse()?))?,
        ["compute", count] => compute(count.parse()?)?,
        _ => return Err(USAGE.into()),
    }
    println!("{}", start.elapsed().as_nanos());
    Ok(())
}

/// An echo server with a thread for each connection. Prints its address. Does not end by itself.
fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        // A connection that breaks ends its thread. The client reports the error.
        thread::Builder::new().spawn(move || echo(stream))?;
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buf = [0; 1024];
    loop {
        let n = stream.read(&mut buf)?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&buf[..n])?;
    }
}

/// Fetches `url` in each of `count` threads at once.
fn gets(url: &str, count: usize) -> Result<()> {
    let url: &'static str = url.to_owned().leak();
    in_threads(count, move || {
        let body = ureq::get(url).call()?.into_string()?;
        match body.as_str() {
            "hello\n" => Ok(()),
            other => Err(format!("not what the server says: {other:?}").into()),
        }
    })
}

/// Sleeps in each of `count` threads at once.
fn sleeps(count: usize, duration: Duration) -> Result<()> {
    in_threads(count, move || {
        thread::sleep(duration);
        Ok(())
    })
}

fn in_threads(count: usize, work: impl Fn() -> Result<()> + Clone + Send + 'static) -> Result<()> {
    let mut threads = Vec::with_capacity(count);
    for _ in 0..count {
        threads.push(thread::Builder::new().spawn(work.clone())?);
    }
    for thread in threads {
        thread.join().map_err(|_| "a thread has panicked")??;
    }
    Ok(())
}

/// Computes on all CPUs: of the numbers below `count`, the one with the longest Collatz sequence.
fn compute(count: u64) -> Result<()> {
    let steps = |mut number: u64| {
        let mut steps = 0;
        while number > 1 {
            number = if number.is_multiple_of(2) {
                number / 2
            } else {
                3 * number + 1
            };
            steps += 1;
        }
        steps
    };
    let longest = (1..count)
        .into_par_iter()
        .max_by_key(|&number| (steps(number), number));
    let longest = longest.ok_or("there are no numbers")?;
    eprintln!("{longest} takes {} steps", steps(longest));
    Ok(())
}
