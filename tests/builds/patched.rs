//! Programs with the patch of the C library by the crate `greenroom-patch`.

use serial_test::serial;

use crate::ported::Workspace;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const IN_FORCE: &str = "the patch of the C library is in force, for";
const NOT_IN_FORCE: &str = "the patch of the C library is not in force";

/// Fat link-time optimisation, as a profile.
const LTO: [&str; 4] = [
    "--config",
    "profile.lto.inherits=\"release\"",
    "--config",
    "profile.lto.lto=\"fat\"",
];

/// A workspace of programs in `tests/fixtures/patched`, a package for each.
fn workspace(name: &str, programs: &[&str]) -> Workspace {
    let mut workspace = Workspace::new(ROOT, name);
    for name in programs {
        let manifest = format!(
            "edition = \"2024\"\n\
            [[bin]]\nname = \"patched-{name}\"\n\
            path = \"{{root}}/tests/fixtures/patched/{name}.rs\"\n\
            [dependencies]\n\
            greenroom = {{ path = \"{{root}}\" }}\n\
            greenroom-patch = {{ path = \"{{root}}/shims/patch\" }}\n"
        );
        workspace.add(&format!("patched-{name}"), &manifest);
    }
    workspace
}

/// What cargo and the program print if cargo runs the program in `profile`.
fn run(workspace: &Workspace, name: &str, profile: &str) -> Result<String, String> {
    let package = format!("patched-{name}");
    let run = ["run", "--offline", "--quiet", "--profile", profile, "-p"];
    workspace.try_cargo(&[&run[..], &[&package], &LTO].concat())
}

#[test]
#[serial]
fn a_program_that_forbids_unsafe_code_gets_the_patch_from_a_crate() {
    let workspace = workspace("patched", &["forbids", "plain"]);
    for profile in ["dev", "release", "lto"] {
        let printed = run(&workspace, "forbids", profile);
        let printed = printed.unwrap_or_else(|error| panic!("{profile}: {error}"));
        let mut lines = printed.lines();
        let status = lines.next().unwrap_or_default();
        assert!(status.starts_with(IN_FORCE), "{profile}: {printed}");
        assert_eq!(lines.next(), Some("sleeps overlap: true"), "{profile}");
    }
}

#[test]
#[serial]
fn a_program_of_the_same_workspace_that_does_not_name_the_crate_is_not_patched() {
    let workspace = workspace("patched", &["forbids", "plain"]);
    // All at once, so that the programs share what cargo builds for them.
    workspace.cargo(&[&["build", "--offline", "--workspace"][..], &LTO].concat());
    let printed = run(&workspace, "forbids", "dev").unwrap();
    assert!(printed.starts_with(IN_FORCE), "{printed}");
    let printed = run(&workspace, "plain", "dev").unwrap();
    assert!(printed.starts_with(NOT_IN_FORCE), "{printed}");
}

#[test]
#[serial]
fn the_crate_and_the_macro_in_one_program_clash() {
    let workspace = workspace("patched-twice", &["twice"]);
    let error = run(&workspace, "twice", "dev").unwrap_err();
    let is_clash = ["duplicate symbol: accept", "multiple definition of `accept"];
    assert!(is_clash.iter().any(|text| error.contains(text)), "{error}");
}
