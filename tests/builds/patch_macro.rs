//! Programs with the patch of the C library by its macro, linked in several ways, beside one without it.

use std::path::Path;
use std::process::Command;

use serial_test::serial;

use crate::ported::Workspace;

/// The workspace: a program with the macro, the same without it, a library with it, and a program that loads that.
fn workspace() -> Workspace {
    let mut workspace = Workspace::new(env!("CARGO_MANIFEST_DIR"), "patch-macro");
    let greenroom = "[dependencies.greenroom]\npath = \"{root}\"\n";
    for (name, kind, source, dependency) in [
        ("with-macro", "[[bin]]", "patched", greenroom),
        ("without-macro", "[[bin]]", "program", greenroom),
        (
            "library",
            "[lib]\ncrate-type = [\"cdylib\"]",
            "library",
            greenroom,
        ),
        ("loader", "[[bin]]", "loader", ""),
    ] {
        let source = format!("{{root}}/tests/fixtures/patched/{source}.rs");
        workspace.add(
            name,
            &format!(
                "edition = \"2024\"\n{kind}\nname = \"{name}\"\npath = \"{source}\"\n{dependency}"
            ),
        );
    }
    workspace
}

/// Builds everything in the profile for development.
fn built() -> Workspace {
    let workspace = workspace();
    workspace.cargo(&["build", "--workspace", "--offline"]);
    workspace
}

/// What a program prints.
fn printed(program: &Path, argument: &Path) -> String {
    let output = Command::new(program).arg(argument).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Checks that the patch is in force in a program.
#[track_caller]
fn assert_patched(program: &Path) {
    let printed = printed(program, Path::new(""));
    let (status, rest) = printed.split_once('\n').unwrap();
    assert!(status.contains("is in force"), "{printed}");
    assert!(rest.ends_with("parks: true\n"), "{printed}");
}

/// Profiles besides cargo's own.
const PROFILES: [&str; 10] = [
    "--config",
    "profile.lto.inherits=\"release\"",
    "--config",
    "profile.lto.lto=\"fat\"",
    "--config",
    "profile.abort.inherits=\"lto\"",
    "--config",
    "profile.abort.panic=\"abort\"",
    "--config",
    "profile.abort.strip=true",
];

/// Builds the program in a profile, with more arguments for the compiler of its crate. Checks it, and its neighbour
/// without the macro.
#[track_caller]
fn builds(profile: &str, for_compiler: &[&str]) {
    let workspace = workspace();
    for package in ["with-macro", "without-macro"] {
        let build = ["rustc", "--offline", "--profile", profile, "-p", package];
        workspace.cargo(&[&build, &PROFILES[..], &["--"], for_compiler].concat());
    }
    let programs = workspace.target().join(profile.replace("dev", "debug"));
    assert_patched(&programs.join("with-macro"));
    assert_plain(&programs.join("without-macro"));
}

#[track_caller]
fn assert_plain(program: &Path) {
    let printed = printed(program, Path::new(""));
    assert!(printed.contains("is not in force"), "{printed}");
    let rest = printed.split_once('\n').unwrap().1;
    assert_eq!(rest, "linked: 0\ndynamic: 0\nparks: false\n");
}

#[test]
#[serial]
fn a_program_is_patched_and_its_neighbour_is_not() {
    let built = built();
    assert_patched(&built.target().join("debug/with-macro"));
    assert_plain(&built.target().join("debug/without-macro"));
}

/// The linkers that this machine has, besides the compiler's own.
fn other_linkers() -> impl Iterator<Item = &'static str> {
    let is_there = |linker: &&str| {
        let asked = Command::new(format!("ld.{linker}"))
            .arg("--version")
            .output();
        asked.is_ok_and(|asked| asked.status.success())
    };
    let linkers = ["-Clink-arg=-fuse-ld=bfd", "-Clink-arg=-fuse-ld=gold"];
    linkers
        .into_iter()
        .filter(move |argument| is_there(&argument.rsplit('=').next().unwrap()))
}

#[test]
#[serial]
#[cfg_attr(not(debug_assertions), ignore = "builds the same as in debug builds")]
fn other_linkers_link_the_patch() {
    for linker in other_linkers() {
        builds("dev", &[linker]);
        if linker.ends_with("bfd") {
            builds("lto", &[linker]);
        }
    }
}

#[test]
#[serial]
#[cfg_attr(not(debug_assertions), ignore = "builds the same as in debug builds")]
fn optimising_the_whole_program_leaves_the_patch_in_force() {
    for profile in ["release", "lto", "abort"] {
        builds(profile, &[]);
    }
}

#[test]
#[serial]
fn a_static_c_library_is_refused_by_the_compiler() {
    let complaint = workspace()
        .try_cargo(&[
            "rustc",
            "--offline",
            "-p",
            "with-macro",
            "--",
            "-Ctarget-feature=+crt-static",
        ])
        .unwrap_err();
    let wanted =
        "greenroom::patch! needs the C library as a shared library: build without `crt-static`";
    assert!(complaint.contains(wanted), "{complaint}");
}

#[test]
#[serial]
fn no_runtime_starts_in_a_library_that_another_program_has_loaded() {
    let built = built();
    let library = built.target().join("debug/liblibrary.so");
    let printed = printed(&built.target().join("debug/loader"), &library);
    assert!(
        printed.starts_with("Unsupported: the patch of the C library is "),
        "{printed}"
    );
}
