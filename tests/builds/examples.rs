//! Examples print what they quote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serial_test::serial;

/// The output that an example quotes: the lines below `$ cargo run --example NAME` in its documentation.
fn quoted(source: &str, name: &str) -> Option<String> {
    let command = format!("//! $ cargo run --example {name}");
    let mut lines = source.lines().skip_while(|&line| line != command);
    lines.next()?;
    let quoted = lines.take_while(|&line| line != "//! ```");
    let quoted = quoted.map(|line| line.trim_start_matches("//!").trim_start());
    Some(quoted.flat_map(|line| [line, "\n"]).collect())
}

/// Builds an example as this test was built, and returns the path of the executable.
pub(crate) fn built_example(name: &str) -> PathBuf {
    let profile = if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    };
    let built = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--offline", "--profile", profile])
        .args(["--example", name])
        .status();
    assert!(built.unwrap().success());
    // Beside the folder of this test.
    let exe = std::env::current_exe().unwrap();
    exe.parent().unwrap().with_file_name("examples").join(name)
}

#[test]
#[serial]
fn examples_print_what_they_quote() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let profile = match cfg!(debug_assertions) {
        true => "dev",
        false => "release",
    };
    let mut compared = Vec::new();
    for entry in fs::read_dir(root.join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let source = match path.is_dir() {
            // It has no such file if it is a package of its own.
            true => path.join("main.rs"),
            false => path,
        };
        let source = fs::read_to_string(source).unwrap_or_default();
        let Some(quoted) = quoted(&source, &name) else {
            continue;
        };
        let output = Command::new(env!("CARGO"))
            .current_dir(root)
            .args(["run", "--quiet", "--offline", "--profile", profile])
            .args(["--example", &name])
            .output()
            .unwrap();
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {complaints}");
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed, quoted, "{name}: {complaints}");
        compared.push(name);
    }
    assert!(compared.len() >= 15, "{compared:?}");
}
