//! Where the time of a program goes: on the processor, by perf with the names of coroutines; and in waits, by a
//! `WaitProfile`, which is printed as folded stacks. Either can be made a flame graph.
//!
//! A feeder sends a job to two coroutines every other millisecond. One of them works four times as much.
//!
//! ```text
//! $ cargo run --release --example profile
//! ```

use std::hint::black_box;
use std::io;
use std::time::Duration;

use greenroom::shims::sync::mpsc;
use greenroom::shims::thread;
use greenroom::{Builder, JoinHandle, WaitProfile};

const JOBS: u32 = 300;

fn main() -> io::Result<()> {
    greenroom::perf_map()?;
    greenroom::run(|| {
        let profiler = WaitProfile::start(Duration::from_millis(5))?;
        let (to_light, jobs_of_light) = mpsc::channel();
        let (to_heavy, jobs_of_heavy) = mpsc::channel();
        let all = [
            named("feeder", move || feed([to_light, to_heavy]))?,
            named("light", move || work(jobs_of_light, 50_000))?,
            named("heavy", move || work(jobs_of_heavy, 200_000))?,
        ];
        for coroutine in all {
            coroutine.join().unwrap();
        }
        profiler.finish().write_folded(io::stdout())
    })
}

fn named(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(body)
}

fn feed(workers: [mpsc::Sender<u32>; 2]) {
    for job in 0..JOBS {
        thread::sleep(Duration::from_millis(2));
        for worker in &workers {
            worker.send(job).unwrap();
        }
    }
}

fn work(jobs: mpsc::Receiver<u32>, rounds: u32) {
    for job in jobs {
        compute(job, rounds);
    }
}

#[inline(never)]
fn compute(job: u32, rounds: u32) -> u32 {
    let mut sum = job;
    for round in 0..rounds {
        sum = black_box(sum ^ round).rotate_left(3);
    }
    sum
}
