//! Building crates by the dozen: each batch is a program that depends on all of its crates.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cargo_metadata::{CrateType, Message};

use crate::crates::Entry;
use crate::outcome::{Row, Step};
use crate::package;
use crate::run::{self, Tools};

/// The number of crates that share a program. With more of them, the features that they ask of their common
/// dependencies differ more from those of a program with one.
const SIZE: usize = 30;

/// Builds `entries` on greenroom's std. Crates that fail are also built one by one, on both, so that one that
/// std does not build either is told apart.
pub(crate) fn build(entries: &[&Entry], tools: &Tools, limit: Duration) -> Vec<Row> {
    let mut rows = Vec::new();
    for (number, batch) in entries.chunks(SIZE).enumerate() {
        eprintln!(
            "[batch {}] {} crates, {} to {}",
            number + 1,
            batch.len(),
            batch[0].name,
            batch[batch.len() - 1].name
        );
        let built = program(&format!("batch-{number}"), batch, tools)
            .and_then(|program| built(&program, tools, limit));
        for entry in batch {
            let is_built = built
                .as_ref()
                .is_ok_and(|built| built.contains(&entry.name));
            let row = match is_built {
                true => Row::built(entry),
                false => alone(entry, tools, limit),
            };
            if row.on_greenroom != Step::Built {
                eprintln!("    {row}");
            }
            rows.push(row);
        }
    }
    rows
}

/// Builds a single crate, both ways.
fn alone(entry: &Entry, tools: &Tools, limit: Duration) -> Row {
    let program = match program(&entry.name, &[entry], tools) {
        Ok(program) => program,
        Err(error) => return Row::unfetched(entry, error),
    };
    let step = |mut command: Command, name: &str| {
        command.arg("build").current_dir(&program);
        let log = tools.log(&entry.name, name);
        run::finish(command, &log, limit)
    };
    let mut row = Row::new(entry);
    let (succeeds, output) = step(tools.greenroom(), "greenroom");
    row.on_greenroom = Step::of_build(succeeds);
    row.details = run::end(&output);
    if row.on_greenroom != Step::Built {
        row.on_std = Step::of_build(step(tools.cargo(), "std").0);
    }
    row
}

/// The names of the crates of a batch that are built, and linked into one program.
fn built(program: &Path, tools: &Tools, limit: Duration) -> Result<BTreeSet<String>, String> {
    let mut command = tools.greenroom();
    command
        .args(["build", "--keep-going", "--message-format=json"])
        .current_dir(program);
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let (_, output) = run::finish(command, &tools.log(&name, "greenroom"), limit);
    let mut crates = BTreeSet::new();
    let mut linked = false;
    for line in output.lines().filter(|line| line.starts_with('{')) {
        let message = serde_json::from_str(line);
        if let Ok(Message::CompilerArtifact(artifact)) = message {
            linked |= artifact.executable.is_some();
            if artifact.target.crate_types.iter().any(is_library) {
                let name = artifact.package_id.repr.rsplit_once('#');
                let name = name.and_then(|(_, name)| name.split('@').next());
                crates.extend(name.map(str::to_owned));
            }
        }
    }
    // With all crates built, the program can still fail to link. It is not known then which crate is to blame.
    let whole = output.contains("\"reason\":\"build-finished\",\"success\":true");
    match linked || !whole {
        true => Ok(crates),
        false => Err("the program is not linked".into()),
    }
}

fn is_library(kind: &CrateType) -> bool {
    matches!(
        kind,
        CrateType::Lib | CrateType::RLib | CrateType::ProcMacro
    )
}

/// Writes a program that has each of `entries` linked. They are renamed, because the name of a library may
/// differ from that of its package.
fn program(name: &str, entries: &[&Entry], tools: &Tools) -> Result<PathBuf, String> {
    let names: Vec<_> = (0..entries.len())
        .map(|number| format!("c{number}"))
        .collect();
    let main: String = names
        .iter()
        .map(|name| format!("use {name} as _;\n"))
        .chain(["fn main() {}\n".into()])
        .collect();
    let named: Vec<_> = names
        .iter()
        .map(String::as_str)
        .zip(entries.iter().copied())
        .collect();
    write_program(name, &named, &main, tools)
}

/// Writes a program that depends on `entries` by the given names.
pub(crate) fn write_program(
    name: &str,
    entries: &[(&str, &Entry)],
    main: &str,
    tools: &Tools,
) -> Result<PathBuf, String> {
    let program = tools.work.join("programs").join(name);
    let mut manifest = format!(
        "[package]\nname = \"{name}-program\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\
         [[bin]]\nname = \"{name}\"\npath = \"main.rs\"\n[workspace]\n[dependencies]\n"
    );
    for (name, entry) in entries {
        let _ = writeln!(
            manifest,
            "{name} = {{ package = \"{}\", version = \"={}\", default-features = {}, features = {:?} }}",
            entry.name, entry.version, entry.default_features, entry.features
        );
    }
    package::write(&program.join("main.rs"), main)?;
    package::write(&program.join("Cargo.toml"), &manifest)?;
    // It may be of another choice of crates.
    let _ = fs::remove_file(program.join("Cargo.lock"));
    Ok(program)
}
