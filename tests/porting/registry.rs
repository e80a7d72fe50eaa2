//! Crates from the registry, with the shims under the name of std: fetched when this test runs, and
//! but for that dependency as they were published.

#[path = "../util/ported.rs"]
mod ported;

use std::fs::{self, File};
use std::io::{self, Write};

use ported::{RENAME, Workspace, run};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// A blocking HTTP client and a blocking HTTP server.
const CRATES: [(&str, &str); 2] = [("minreq", "2.14.1"), ("tiny_http", "0.12.0")];

/// What the program that uses them has from the registry.
fn published() -> String {
    let dependency = |(name, version)| format!("[dependencies.{name}]\nversion = \"={version}\"\n");
    CRATES.map(dependency).concat()
}

/// Has cargo fetch the crates, and returns their copies that have the rename, as dependencies; none
/// if no registry can be reached.
fn renamed(workspace: &Workspace) -> Option<String> {
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
    for (name, _) in CRATES {
        let directory = workspace.directory.join("vendor").join(name);
        let manifest = File::options()
            .append(true)
            .open(directory.join("Cargo.toml"));
        let rename = workspace.filled_in(RENAME);
        write!(manifest.unwrap(), "\n{rename}").unwrap();
        dependencies += &format!("[dependencies.{name}]\npath = {directory:?}\n");
    }
    Some(dependencies + RENAME)
}

#[test]
fn an_http_client_and_an_http_server_from_the_registry() {
    let manifest = |kind: &str, dependencies: &str| {
        format!(
            "edition = \"2021\"\n\
            [[bin]]\nname = \"{kind}-registry\"\npath = \"{{sources}}/registry/main.rs\"\n\
            {dependencies}"
        )
    };
    let mut as_published = Workspace::new(ROOT, "registry");
    as_published.add("plain", &manifest("plain", &published()));
    let Some(renamed) = renamed(&as_published) else {
        return;
    };
    as_published.cargo(&["build", "--offline"]);
    let mut with_rename = Workspace::new(ROOT, "registry-renamed");
    with_rename.add("renamed", &manifest("renamed", &renamed));
    with_rename.cargo(&["build", "--offline"]);

    let plain = run("plain-registry", 1);
    assert!(plain.threads > 50, "{plain:?}");
    for workers in [1, 2] {
        let renamed = run("renamed-registry", workers);
        assert_eq!(renamed.transcript, plain.transcript);
        assert_eq!(renamed.threads, 1 + workers, "main and workers");
    }
}
