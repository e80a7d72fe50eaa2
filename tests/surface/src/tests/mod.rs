mod availability;
mod comparison;
mod explained;
mod pages;
mod signatures;
mod the_table;

use std::path::PathBuf;

use crate::docs::Docs;

/// Documentation of a small std, or of shims for it.
fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fixtures", name]
        .iter()
        .collect()
}

fn small_std() -> Docs {
    Docs::at(fixture("std"))
}
