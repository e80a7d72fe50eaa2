//! Crates from the registry, with the shims under the name of std: fetched when a test runs, and but for
//! that dependency as they were published.

use std::fs::{self, File};
use std::io::{self, Write};

use super::ported::{RENAME, Run, Workspace, run};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A crate of the registry.
pub(crate) struct Published {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// Its features; all those that it has by default, if there are none here.
    pub(crate) features: Option<&'static [&'static str]>,
}

impl Published {
    /// A dependency on it, from `place`.
    fn dependency(&self, place: &str) -> String {
        let Published { name, features, .. } = self;
        let features = match features {
            None => String::new(),
            Some(features) => format!("default-features = false\nfeatures = {features:?}\n"),
        };
        format!("[dependencies.{name}]\n{place}\n{features}")
    }

    fn as_published(&self) -> String {
        self.dependency(&format!("version = \"={}\"", self.version))
    }
}

/// Has cargo fetch the crates, and returns their copies that have the rename, as dependencies; none
/// if no registry can be reached.
fn renamed(workspace: &Workspace, crates: &[Published], rename: &str) -> Option<String> {
    let _ = fs::remove_dir_all(workspace.directory.join("vendor"));
    if let Err(complaint) = workspace.try_cargo(&["vendor", "--quiet", "vendor"])
        // What cargo has fetched before may do.
        && let Err(_) = workspace.try_cargo(&["vendor", "--quiet", "--offline", "vendor"])
    {
        // Past the harness, which keeps to itself what a test prints.
        let _ = writeln!(
            io::stderr(),
            "NOT TESTED, for want of a registry: {complaint}"
        );
        return None;
    }
    let mut dependencies = String::new();
    for published in crates {
        let directory = workspace.directory.join("vendor").join(published.name);
        let manifest = File::options()
            .append(true)
            .open(directory.join("Cargo.toml"));
        let rename = workspace.filled_in(rename);
        write!(manifest.unwrap(), "\n{rename}").unwrap();
        dependencies += &published.dependency(&format!("path = {directory:?}"));
    }
    Some(dependencies + rename)
}

/// That a program, in `tests/fixtures/ported`, which uses these crates and greenroom says this, with the rename.
#[allow(dead_code, reason = "each binary uses its part")]
pub(crate) fn says(program: &str, crates: &[Published], said: &str) {
    let mut as_published = Workspace::new(ROOT, program);
    let dependencies: String = crates.iter().map(Published::as_published).collect();
    // Never built, but tells cargo what to fetch.
    let manifest = "edition = \"2021\"\n[lib]\npath = \"{sources}/everywhere/foreign.rs\"\n";
    as_published.add("plain", &(manifest.to_owned() + &dependencies));
    let Some(renamed) = renamed(&as_published, crates, RENAME) else {
        return;
    };
    let mut with_rename = Workspace::new(ROOT, &format!("{program}-renamed"));
    let manifest = format!(
        "edition = \"2021\"\n\
        [[bin]]\nname = \"{program}\"\npath = \"{{sources}}/{program}/main.rs\"\n\
        [dependencies.greenroom]\npath = \"{{root}}\"\n"
    );
    with_rename.add("renamed", &(manifest + &renamed));
    with_rename.cargo(&["build", "--offline"]);
    for workers in [1, 2] {
        assert_eq!(run(program, workers).transcript, said);
    }
}

/// That a program, in `tests/fixtures/ported`, which uses these crates says the same whether its threads
/// are the system's or coroutines, of which the latter have no OS threads but main's and the workers.
///
/// With the rename, the shims have these features. `threads` is the number of threads that it has at
/// least when it is ready.
pub(crate) fn comes_out_the_same(
    program: &str,
    crates: &[Published],
    features: &[&str],
    threads: usize,
) {
    let manifest = |kind: &str, dependencies: &str| {
        format!(
            "edition = \"2021\"\n\
            [[bin]]\nname = \"{kind}-{program}\"\npath = \"{{sources}}/{program}/main.rs\"\n\
            {dependencies}"
        )
    };
    let mut as_published = Workspace::new(ROOT, program);
    let dependencies: String = crates.iter().map(Published::as_published).collect();
    as_published.add("plain", &manifest("plain", &dependencies));
    let rename = format!("{RENAME}features = {features:?}\n");
    let Some(renamed) = renamed(&as_published, crates, &rename) else {
        return;
    };
    as_published.cargo(&["build", "--offline"]);
    let mut with_rename = Workspace::new(ROOT, &format!("{program}-renamed"));
    with_rename.add("renamed", &manifest("renamed", &renamed));
    with_rename.cargo(&["build", "--offline"]);

    let Run {
        threads: plain,
        transcript,
    } = run(&format!("plain-{program}"), 1);
    assert!(plain >= threads, "{plain}: {transcript}");
    for workers in [1, 2] {
        let renamed = run(&format!("renamed-{program}"), workers);
        assert_eq!(renamed.transcript, transcript);
        assert_eq!(renamed.threads, 1 + workers, "main and workers");
    }
}
