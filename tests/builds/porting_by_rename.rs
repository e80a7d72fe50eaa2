//! Crates that get the shims as their `std` by a renamed dependency, without a change in the sources.

use std::fmt::Write;
use std::sync::Once;

use serial_test::serial;

use crate::ported::{RENAME, Workspace, run};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Builds the programs in `tests/fixtures/ported`, as they are and with the rename.
fn build() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let mut workspace = Workspace::new(ROOT, "programs");
        for (kind, dependency) in [("plain", ""), ("renamed", RENAME)] {
            let mut manifest = String::from("edition = \"2021\"\n");
            for (name, source) in [
                ("echo", "echo.rs"),
                ("chat", "chat/main.rs"),
                ("udp_query", "udp_query.rs"),
                ("http", "http/main.rs"),
                ("pipeline", "pipeline.rs"),
            ] {
                writeln!(manifest, "[[bin]]\nname = \"{kind}-{name}\"").unwrap();
                writeln!(manifest, "path = \"{{sources}}/{source}\"").unwrap();
            }
            workspace.add(kind, &(manifest + dependency));
        }
        let mixed = "edition = \"2021\"\n\
            [[bin]]\nname = \"mixed\"\npath = \"{sources}/mixed/main.rs\"\n\
            [dependencies.greenroom]\npath = \"{root}\"\n";
        workspace.add("mixed", &(mixed.to_owned() + RENAME));
        workspace.cargo(&["build", "--workspace", "--offline"]);
    });
}

/// Checks that a program prints the same with OS threads and with coroutines, and that it has no OS
/// threads but main and the workers in the second case. The two builds are `plain-{name}` and
/// `renamed-{name}`.
///
/// `threads` is the number of threads, including main, when the plain program is ready.
fn comes_out_the_same(name: &str, threads: usize) {
    let plain = run(&format!("plain-{name}"), 1);
    assert_eq!(plain.threads, threads, "{}", plain.transcript);
    assert!(plain.transcript.contains("ready\n"));
    for workers in [1, 2] {
        let renamed = run(&format!("renamed-{name}"), workers);
        assert_eq!(renamed.transcript, plain.transcript);
        assert_eq!(renamed.threads, 1 + workers, "{name}: main and workers");
    }
}

#[test]
#[serial]
fn an_echo_server_and_its_clients() {
    build();
    comes_out_the_same("echo", 1 + 1 + 20);
}

#[test]
#[serial]
fn a_line_chat_with_a_thread_for_each_reader() {
    build();
    comes_out_the_same("chat", 1 + 1 + 12);
}

#[test]
#[serial]
fn udp_queries_with_timeouts() {
    build();
    comes_out_the_same("udp_query", 1 + 20);
}

#[test]
#[serial]
fn an_http_client_and_its_server() {
    build();
    // The listener, the first connection, and both ends of the waiting connections.
    comes_out_the_same("http", 1 + 1 + 1 + 2 * 20);
}

#[test]
#[serial]
fn a_pipeline_of_threads_and_channels() {
    build();
    comes_out_the_same("pipeline", 1 + 1 + 1 + 16);
}

#[test]
#[serial]
fn a_line_and_a_rename_and_the_real_std_in_one_program() {
    build();
    let mixed = run("mixed", 1);
    assert_eq!(
        mixed.transcript,
        "an OS thread\nwho is there?\na coroutine\n"
    );
}

#[test]
#[serial]
fn every_file_of_a_crate_in_every_edition() {
    let mut workspace = Workspace::new(ROOT, "everywhere");
    let foreign = "edition = \"2021\"\n[lib]\npath = \"{sources}/everywhere/foreign.rs\"\n";
    workspace.add("foreign", foreign);
    let mut packages = 0;
    for edition in ["2015", "2018", "2021", "2024"] {
        for (kind, dependency) in [("plain", ""), ("renamed", RENAME)] {
            let manifest = format!(
                "edition = \"{edition}\"\n\
                build = \"{{sources}}/everywhere/build.rs\"\n\
                [lib]\npath = \"{{sources}}/everywhere/lib.rs\"\n\
                [[test]]\nname = \"{kind}-outside-{edition}\"\n\
                path = \"{{sources}}/everywhere/outside.rs\"\n\
                [[test]]\nname = \"{kind}-no_std-{edition}\"\n\
                path = \"{{sources}}/everywhere/no_std.rs\"\n\
                [features]\ndefault = [\"{kind}\"]\nplain = []\nrenamed = []\n\
                # Of the dependency's name, as crates often have it.\n\
                std = []\n\
                [dependencies.foreign]\npath = \"../foreign\"\n"
            );
            workspace.add(&format!("{kind}-{edition}"), &(manifest + dependency));
            packages += 1;
        }
    }
    let printed = workspace.cargo(&["test", "--workspace", "--offline"]);
    let passed = |number: usize| printed.matches(&format!("ok. {number} passed")).count();
    assert_eq!(passed(6), packages, "the unit tests: {printed}");
    assert_eq!(passed(1), packages * 3, "the others: {printed}");
}
