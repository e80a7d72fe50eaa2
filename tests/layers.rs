//! The layers of the library: a module knows only modules below its own.
//!
//! This table is the one place where the layers are written down. `ARCHITECTURE.md` draws them.

use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom up. Modules in one row do not know each other.
const LAYERS: &[&[&str]] = &[
    // The operating system.
    &["sys"],
    &["atomic", "fatal"],
    // What runs, and what waits.
    &["coroutine"],
    &["task"],
    &["park"],
    // What there is to wait for, and what reports.
    &["channel", "local"],
    &["context"],
    &[
        "diagnose",
        "future",
        "interrupt",
        "pool",
        "reactor",
        "sync",
        "time",
    ],
    // What runs coroutines.
    &["fs", "worker"],
    // What foreign code calls.
    &["patch"],
    // What makes runtimes and coroutines.
    &["runtime::fork", "runtime::thread", "runtime::writing"],
    &["runtime::join", "runtime::worker_thread"],
    &["runtime::builder"],
    &["runtime::default_runtime"],
    &["runtime::spawn"],
    &["runtime::idle", "runtime::keeper", "runtime::members"],
    &["runtime::scope"],
    &["runtime::after", "runtime::every", "runtime::send_queue"],
    // The handle and the turn of a runtime are parts of it.
    &["runtime"],
    // What waits for any of the above, and what is built of coroutines.
    &["group", "runtime::program", "select", "signal"],
    // What looks at all coroutines.
    &["dump"],
    // What adds up what dumps tell.
    &["profile"],
    // std's shape, and what tells other processes.
    &["backdoor", "shims"],
    // What is built of std's shape.
    &["guide", "server"],
    // The crate's root, which only re-exports.
    &[""],
];

/// The layer of a module, and the entry of the table that it falls under.
fn layer(module: &str) -> (usize, &'static str) {
    let entries = LAYERS.iter().enumerate();
    let entries = entries.flat_map(|(layer, row)| row.iter().map(move |entry| (layer, *entry)));
    entries
        .filter(|(_, entry)| {
            let below = module.strip_prefix(entry);
            below.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
        .max_by_key(|(_, entry)| entry.len())
        .unwrap_or((LAYERS.len() - 1, ""))
}

/// The imports of `source`, a file of `module`, that do not point down.
fn wrong_imports(module: &str, source: &str) -> Vec<String> {
    let (own_layer, own) = layer(module);
    let imported = paths(source).into_iter().filter_map(|path| {
        let path = absolute(module, &path)?;
        let (layer, entry) = layer(&path);
        let points_down = layer < own_layer || entry == own;
        (!points_down).then(|| format!("{module} imports {path}"))
    });
    imported.collect()
}

/// `path` from the crate's root; `None` if it belongs to another crate.
fn absolute(module: &str, path: &str) -> Option<String> {
    if let Some(path) = path.strip_prefix("crate::") {
        return Some(path.into());
    }
    let mut module: Vec<&str> = module.split("::").collect();
    let mut path = path;
    while let Some(rest) = path.strip_prefix("super::") {
        module.pop();
        path = rest;
    }
    module.push(path);
    Some(module.join("::"))
}

/// The paths in `source` that begin with `crate::` or `super::`, groups in braces expanded. Leaves
/// out comments, unit tests, and what macros write for other crates (`$crate`).
fn paths(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().map(str::trim_start);
    let code: String = lines
        .filter(|line| !line.starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || "_$:".contains(c)) {
                expand(root, &code[at + root.len()..], &mut found);
            }
        }
    }
    found
}

/// Adds each path that `rest` continues `prefix` with. Returns the text after them.
fn expand<'a>(prefix: &str, rest: &'a str, found: &mut Vec<String>) -> &'a str {
    let rest = rest.trim_start();
    if let Some(mut rest) = rest.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            if rest.is_empty() || rest.starts_with('}') {
                return rest.get(1..).unwrap_or_default();
            }
            rest = expand(prefix, rest, found);
        }
    }
    let name = rest
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .next();
    let name = name.unwrap_or_default();
    let rest = &rest[name.len()..];
    match rest.strip_prefix("::") {
        Some(rest) if !name.is_empty() => expand(&format!("{prefix}{name}::"), rest, found),
        _ => {
            found.push(format!("{prefix}{name}"));
            // Text that is not part of a path, like `*` or `as name`, ends at the next separator.
            rest.trim_start_matches(|c| c != ',' && c != '}' && c != ';')
        }
    }
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| match path.is_dir() {
        true => rust_files(&path),
        false => vec![path],
    });
    let rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    files.filter(rust).collect()
}

/// The module that a file below `root` holds.
fn module_of(root: &Path, file: &Path) -> String {
    let path = file.strip_prefix(root).unwrap().with_extension("");
    let names: Vec<_> = path.iter().map(|name| name.to_str().unwrap()).collect();
    match names.as_slice() {
        ["lib"] => String::new(),
        [folders @ .., "mod"] => folders.join("::"),
        names => names.join("::"),
    }
}

#[test]
fn each_module_imports_only_from_the_layers_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&root);
    assert!(files.len() > 50, "the sources are there");
    let wrong: Vec<String> = files
        .iter()
        .filter(|file| {
            !["lib.rs", "tests.rs"]
                .iter()
                .any(|free| file.ends_with(free))
        })
        .flat_map(|file| wrong_imports(&module_of(&root, file), &fs::read_to_string(file).unwrap()))
        .collect();
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn each_entry_of_the_table_is_a_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in LAYERS.iter().copied().flatten() {
        let path = root.join("src").join(entry.replace("::", "/"));
        let is_there = path.is_dir() || path.with_extension("rs").is_file();
        assert!(is_there || *entry == "shims", "{entry}");
    }
}

#[test]
fn an_import_from_the_same_or_a_higher_layer_is_found() {
    let source = "
        use super::spawn::Builder;
        use crate::{
            park::{self, Wait as W, waiters::Waiters},
            shims::net::*, fatal,
        };
        //! [`run`](crate::run)
        fn f() { crate::worker::Worker::drive(); $crate::local::x(); std::fs::read(p); }
        #[cfg(test)] mod tests { use crate::guide; }
    ";
    let found = paths(source);
    let expected = [
        "crate::park::self",
        "crate::park::Wait",
        "crate::park::waiters::Waiters",
        "crate::shims::net::",
        "crate::fatal",
        "crate::worker::Worker::drive",
        "super::spawn::Builder",
    ];
    assert_eq!(found, expected);
    let wrong = wrong_imports("runtime::join::packet", "use super::super::spawn::Builder;");
    assert_eq!(
        wrong,
        ["runtime::join::packet imports runtime::spawn::Builder"]
    );
    assert_eq!(
        wrong_imports("sync::futex", "use crate::park::Wait;"),
        [""; 0]
    );
    assert_eq!(
        wrong_imports("sync::futex", "use super::lot::Bucket;"),
        [""; 0]
    );
    let wrong = wrong_imports("channel::watch", "use crate::sync::Event;");
    assert_eq!(wrong, ["channel::watch imports sync::Event"]);
    let wrong = wrong_imports("sync::futex", "use crate::time::Interval;");
    assert_eq!(wrong, ["sync::futex imports time::Interval"]);
    let wrong = wrong_imports("task", "use crate::park;");
    assert_eq!(wrong, ["task imports park"]);
}
