//! A million coroutines, each with a guarded stack of its own, all alive at once: half of them parked,
//! half of them parked with a timeout of an hour. Then all are woken and joined.
//!
//! ```text
//! $ cargo run --release --example million
//! spawned and parked   10.68 s
//! woken and joined     3.97 s
//! page tables          650 bytes each
//! ok: 1000000 coroutines, 4455 bytes each, 45 VMAs, 14.7 seconds
//! ```
//!
//! A stack is 256 KiB of address space, of which a parked coroutine has touched one page.

#[path = "util/progress.rs"]
mod progress;

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greenroom::shims::thread::{self, JoinHandle};
use greenroom::{Builder, RuntimeBuilder};

use progress::Progress;

const HELP: &str = "\
A million coroutines, all alive at once.

Usage: million [OPTION...]

  --count N           how many            [default: 1000000]
  --stack-size BYTES  of each, at least   [default: greenroom's, 256 KiB]
  --help              print this

The status is 0 if all lived and were joined, 1 if not, and 2 if the arguments
are wrong.
";

/// Longer than this program runs.
const HOUR: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    let (count, stack_size) = match parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("error: {why} (see --help)");
            return ExitCode::from(2);
        }
    };
    let outcome = RuntimeBuilder::new()
        .workers(1)
        .build()
        .map_err(|error| format!("no runtime: {error}"))
        .and_then(|runtime| runtime.run(|| live_together(count, stack_size)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("failed: {why}");
            ExitCode::FAILURE
        }
    }
}

fn live_together(count: usize, stack_size: Option<usize>) -> Result<(), String> {
    let before = Footprint::now();
    let start = Instant::now();
    let alive = Arc::new(AtomicUsize::new(0));
    let mut progress = Progress::new();

    let mut crowd: Vec<JoinHandle<usize>> = Vec::with_capacity(count);
    for number in 0..count {
        let alive = Arc::clone(&alive);
        let builder = match stack_size {
            Some(size) => Builder::new().stack_size(size),
            None => Builder::new(),
        };
        let coroutine = builder.spawn(move || {
            alive.fetch_add(1, Ordering::Relaxed);
            match number % 2 {
                0 => thread::park_timeout(HOUR),
                _ => thread::park(),
            }
            number
        });
        crowd
            .push(coroutine.map_err(|error| {
                format!("coroutine {number} of {count} gets no stack: {error}")
            })?);
        progress.show(|| format!("{number} of {count} are spawned"));
    }
    // However long that takes.
    while alive.load(Ordering::Relaxed) < count {
        progress.show(|| format!("{} of {count} are alive", alive.load(Ordering::Relaxed)));
        thread::yield_now();
    }
    let born = start.elapsed();
    let present = Footprint::now();

    let woken = Instant::now();
    for coroutine in &crowd {
        coroutine.thread().unpark();
    }
    for (number, coroutine) in crowd.into_iter().enumerate() {
        match coroutine.join() {
            Ok(own) if own == number => {}
            _ => return Err(format!("coroutine {number} did not come back as it was")),
        }
        progress.show(|| format!("{number} of {count} are joined"));
    }
    drop(progress);

    let each = |now: usize, before: usize| now.saturating_sub(before) * 1024 / count;
    println!("spawned and parked   {:.2} s", born.as_secs_f64());
    println!(
        "woken and joined     {:.2} s",
        woken.elapsed().as_secs_f64()
    );
    println!(
        "page tables          {} bytes each",
        each(present.page_tables, before.page_tables)
    );
    println!(
        "ok: {count} coroutines, {} bytes each, {} VMAs, {:.1} seconds",
        each(present.resident, before.resident),
        present.mappings,
        start.elapsed().as_secs_f64(),
    );
    Ok(())
}

/// The memory of this process in KiB, and the number of its mappings.
struct Footprint {
    resident: usize,
    page_tables: usize,
    mappings: usize,
}

impl Footprint {
    fn now() -> Footprint {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let figure = |key| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok())
                .unwrap_or(0)
        };
        let mappings = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Footprint {
            resident: figure("VmRSS:"),
            page_tables: figure("VmPTE:"),
            mappings: mappings.lines().count(),
        }
    }
}

/// Returns the count and the stack size, or `None` if help was asked for.
fn parse(
    mut arguments: impl Iterator<Item = String>,
) -> Result<Option<(usize, Option<usize>)>, String> {
    let (mut count, mut stack_size) = (1_000_000, None);
    while let Some(name) = arguments.next() {
        let mut number = || match arguments.next().map(|value| value.parse::<usize>()) {
            Some(Ok(number)) if (1..=1 << 30).contains(&number) => Ok(number),
            _ => Err(format!("{name} needs a number from 1 to {}", 1 << 30)),
        };
        match name.as_str() {
            "--count" => count = number()?,
            "--stack-size" => stack_size = Some(number()?),
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("unknown argument '{name}'")),
        }
    }
    Ok(Some((count, stack_size)))
}
