//! Idle, prepare and check: work for when there is nothing else to do, and hooks around each poll.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use greenroom::shims::sync::mpsc;
use greenroom::shims::thread::sleep;
use greenroom::{on_idle, spawn, yield_now};

static PREPARED: AtomicUsize = AtomicUsize::new(0);
static CHECKED: AtomicUsize = AtomicUsize::new(0);

/// The runtime's worker calls this before each poll.
pub(crate) fn prepare() {
    PREPARED.fetch_add(1, Relaxed);
}

/// The runtime's worker calls this after each poll.
pub(crate) fn check() {
    CHECKED.fetch_add(1, Relaxed);
}

pub(crate) fn show() -> io::Result<String> {
    let (say, said) = mpsc::channel();
    let mut calls = 0..3;
    on_idle({
        let say = say.clone();
        move || match calls.next() {
            Some(_) => {
                let _ = say.send("idle");
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        }
    });
    spawn(move || {
        (0..1000).for_each(|_| yield_now());
        say.send("busy")
    });
    let order: Vec<_> = said.iter().collect();

    let before = PREPARED.load(Relaxed);
    sleep(Duration::from_millis(5));
    let polled = PREPARED.load(Relaxed) > before;
    let in_pairs = PREPARED.load(Relaxed) == CHECKED.load(Relaxed);
    Ok(format!(
        "{order:?}\na prepare before each poll, a check after it: {}",
        polled && in_pairs
    ))
}
