//! How a program ends.

#![allow(dead_code, reason = "each example uses its part")]

use std::io;
use std::process::ExitCode;

/// The status of a program for its outcome. Tells an error, and then how the program is called.
pub(crate) fn status(outcome: io::Result<()>, usage: &str) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}\n{usage}");
            ExitCode::FAILURE
        }
    }
}

/// The error, with the argument that it is about.
pub(crate) fn about(argument: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{argument}: {error}"))
}
