//! A child process: its pipes and its end park a coroutine, and others run meanwhile.
//!
//! ```text
//! $ cargo run --example child
//! sort wrote: one three two
//! sleep was still running, and was killed
//! another coroutine ran meanwhile: true
//! ```

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use greenroom::shims::process::{ChildExt, Command, Stdio};
use greenroom::shims::thread;

static TICKS: AtomicU32 = AtomicU32::new(0);

fn children() -> io::Result<()> {
    let mut sort = Command::new("sort")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // Dropped after the write, the pipe is at its end, and `sort` begins.
    sort.stdin.take().unwrap().write_all(b"two\none\nthree\n")?;
    let mut sorted = String::new();
    sort.stdout.take().unwrap().read_to_string(&mut sorted)?;
    sort.wait()?;
    println!("sort wrote: {}", sorted.trim_end().replace('\n', " "));

    let mut sleep = Command::new("sleep").arg("1000").spawn()?;
    if sleep.wait_timeout(Duration::from_millis(100))?.is_none() {
        sleep.kill()?;
        sleep.wait()?;
        println!("sleep was still running, and was killed");
    }
    Ok(())
}

fn main() -> io::Result<()> {
    // With one worker, the ticks are of the same OS thread.
    let runtime = greenroom::RuntimeBuilder::new().workers(1).build()?;
    runtime.run(|| {
        greenroom::spawn(|| {
            loop {
                thread::sleep(Duration::from_millis(1));
                TICKS.fetch_add(1, Relaxed);
            }
        });
        children()
    })?;
    println!(
        "another coroutine ran meanwhile: {}",
        TICKS.load(Relaxed) > 0
    );
    Ok(())
}
