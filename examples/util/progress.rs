//! A line on the terminal that says how far a long work is.

#![allow(dead_code, reason = "each example uses its part")]

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// Shows `line` in the place of the line before, if there is a terminal. An empty line removes it.
pub(crate) fn show(line: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r{line}\x1b[K");
    }
}

/// Shows lines, but not more often than the eye follows.
pub(crate) struct Progress {
    shown: Instant,
}

impl Progress {
    pub(crate) fn new() -> Progress {
        Progress {
            shown: Instant::now(),
        }
    }

    pub(crate) fn show(&mut self, line: impl FnOnce() -> String) {
        if self.shown.elapsed() >= Duration::from_millis(100) {
            show(&line());
            self.shown = Instant::now();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        show("");
    }
}
