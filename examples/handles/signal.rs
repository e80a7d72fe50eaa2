//! Signals, one after the other.

use std::io;
use std::time::Duration;

use greenroom::after;
use greenroom::signal::{SIGHUP, SIGUSR2, Signals};
use rustix::process::{Signal, getpid, kill_process};

pub(crate) fn show() -> io::Result<String> {
    let mut signals = Signals::new(&[SIGHUP, SIGUSR2])?;
    kill_process(getpid(), Signal::HUP)?;
    after(Duration::from_millis(10), || {
        kill_process(getpid(), Signal::USR2).expect("this process exists");
    });
    let mut next = || signals.next().expect("it has no end");
    let names = [next()?, next()?].map(|number| match number {
        SIGHUP => "SIGHUP",
        _ => "SIGUSR2",
    });
    Ok(names.join(", "))
}
