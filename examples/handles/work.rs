//! The work queue: calls that block or compute, on a pool of threads, and a library that calls back.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use greenroom::{after, from_callback, unblock};

pub(crate) fn show() -> io::Result<String> {
    let (say, said) = mpsc::channel();
    // If the work kept the loop from its turns, it would wait for ever.
    after(Duration::from_millis(10), move || {
        _ = say.send("a turn of the loop")
    });
    let waited = unblock(move || said.recv()).map_err(io::Error::other)?;

    let called = from_callback(|done| {
        thread::spawn(move || done.call("a callback"));
    });
    let called = called.map_err(io::Error::other)?;
    Ok(format!(
        "the work waited for {waited}, this program for {called}"
    ))
}
