//! Timers: one that fires once, one that is brought forward, one that is stopped, and one that repeats.

use std::io;
use std::time::Duration;

use greenroom::shims::sync::mpsc;
use greenroom::{after, interval};

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn show() -> io::Result<String> {
    let (say, said) = mpsc::channel();
    let set = |delay, word| {
        let say = say.clone();
        after(delay, move || _ = say.send(word))
    };
    set(Duration::from_millis(10), "once");
    set(HOUR, "again").reset(Duration::from_millis(20));
    set(HOUR, "stopped").cancel();
    drop(say);
    let fired: Vec<_> = said.iter().collect();

    let period = Duration::from_millis(5);
    let mut ticks = interval(period);
    let first = ticks.tick();
    let third = ticks.nth(1).expect("it has no end");
    let drift = (third - first).as_nanos() % period.as_nanos();
    Ok(format!("{fired:?}, and ticks that drifted by {drift} ns"))
}
