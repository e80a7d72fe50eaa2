//! Compares greenroom's shims with std, item by item, as both are documented.
//!
//! ```text
//! cargo run -p greenroom-surface               writes shims/SURFACE.md
//! cargo run -p greenroom-surface -- --check    compares it with what would be written
//! ```
//!
//! std's side is the HTML of the `rust-docs` component; where that is not installed, nothing can be
//! compared. The shims' side is the HTML of `cargo doc`, in which a re-exported item links to std's
//! sources and one of greenroom's own to greenroom's. What documentation cannot tell, `explained.toml`
//! does: which items never wait, and why one that differs does. Both commands fail where an item
//! differs, is missing or may block and no sentence there says so, and where a sentence has become
//! superfluous.

mod availability;
mod docs;
mod explained;
mod item;
mod names;
mod page;
mod report;
mod signature;
mod standing;
mod surface;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod verdict;

use std::process::ExitCode;
use std::{env, io};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        [] => report::write(),
        ["--check"] => report::check(),
        _ => Err(io::Error::other("usage: greenroom-surface [--check]")),
    };
    match result {
        Ok(report) => {
            println!("{}", report.text);
            ExitCode::from(u8::from(report.failed))
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
