//! `shims/lints/clippy.toml`, the list of what blocks in std: it finds what it should, nothing else, and
//! is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serial_test::serial;

const LIST: &str = include_str!("../../shims/lints/clippy.toml");

const OFFENCES: &str = include_str!("../fixtures/offences/main.rs");

/// The functions and types of std's modules that are not in the list.
const LEFT_OUT: &[(&str, &str)] = &[
    // These do not wait.
    ("thread", "available_parallelism current panicking"),
    ("thread", "AccessError LocalKey Thread ThreadId"),
    (
        "net",
        "AddrParseError Ipv4Addr Ipv6Addr SocketAddrV4 SocketAddrV6",
    ),
    ("os/unix/net", "SocketAddr"),
    ("os/unix/process", "parent_id"),
    (
        "sync",
        "Arc Weak BarrierWaitResult OnceState PoisonError WaitTimeoutResult",
    ),
    ("sync/mpsc", "RecvError SendError"),
    ("process", "abort exit id"),
    (
        "process",
        "CommandArgs CommandEnvs ExitCode ExitStatus Output Stdio",
    ),
    ("fs", "FileTimes FileType Metadata Permissions"),
    (
        "io",
        "Error IntoInnerError WriterPanicked IoSlice IoSliceMut",
    ),
    ("io", "empty repeat sink Cursor Empty Repeat Sink"),
    (
        "env",
        "args args_os current_dir current_exe home_dir join_paths remove_var set_var",
    ),
    ("env", "split_paths temp_dir var var_os vars vars_os"),
    ("env", "Args ArgsOs JoinPathsError SplitPaths Vars VarsOs"),
    ("path", "absolute is_separator"),
    (
        "path",
        "Ancestors Components Display Iter Path PathBuf PrefixComponent StripPrefixError",
    ),
    // These wait only if the values they are given do.
    ("io", "copy read_to_string"),
    (
        "io",
        "BufReader BufWriter Bytes Chain LineWriter Lines Split Take",
    ),
];

/// Whether clippy is installed. Says so if not.
fn has_clippy() -> bool {
    let version = Command::new(env!("CARGO"))
        .args(["clippy", "--version"])
        .output();
    let is_there = version.is_ok_and(|output| output.status.success());
    if !is_there {
        eprintln!("NOT TESTED: clippy is not installed");
    }
    is_there
}

/// Runs clippy with the list on a package made from `source`. Returns a line for each lint.
fn clippy(name: &str, source: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clippy_list");
    let package = scratch.join(name);
    fs::create_dir_all(package.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = {name:?}\nedition = \"2024\"\n\
         [dependencies]\ngreenroom.path = {root:?}\n\
         [workspace]\n"
    );
    fs::write(package.join("Cargo.toml"), manifest).unwrap();
    fs::write(package.join("clippy.toml"), LIST).unwrap();
    fs::write(package.join("src/main.rs"), source).unwrap();
    // Uses the locked versions, so that nothing is downloaded.
    let _ = fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock"));
    let output = Command::new(env!("CARGO"))
        .current_dir(&package)
        .args([
            "clippy",
            "--quiet",
            "--offline",
            "--message-format=short",
            "--target-dir",
        ])
        .arg(scratch.join("target"))
        .env_remove("CLIPPY_CONF_DIR")
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    // The last line, in which cargo counts the warnings.
    let is_count = |line: &str| line.contains("generated") && line.contains(&format!("`{name}`"));
    stderr
        .lines()
        .filter(|line| !is_count(line))
        .map(str::to_owned)
        .collect()
}

#[test]
#[serial]
fn each_offence_gives_one_lint() {
    if !has_clippy() {
        return;
    }
    let lines = OFFENCES.lines().zip(1_usize..);
    let offences: Vec<_> = lines
        .filter(|(line, _)| line.ends_with("// offence"))
        .collect();
    assert_eq!(offences.len(), 13);
    let said = clippy("offences", OFFENCES);
    for (line, number) in &offences {
        let place = format!("src/main.rs:{number}:");
        let here: Vec<_> = said
            .iter()
            .filter(|said| said.starts_with(&place))
            .collect();
        assert_eq!(here.len(), 1, "{line}\n{said:#?}");
        assert!(
            here[0].contains("warning: use of a disallowed "),
            "{said:#?}"
        );
    }
    assert_eq!(said.len(), 13, "{said:#?}");
}

#[test]
#[serial]
fn the_same_code_under_the_shims_gives_no_lint() {
    if !has_clippy() {
        return;
    }
    let source = format!(
        "#![allow(unfulfilled_lint_expectations)]\nuse greenroom::shims as std;\n{OFFENCES}"
    );
    assert_eq!(clippy("ported", &source), [""; 0]);
}

#[test]
#[serial]
fn each_type_of_the_list_is_found() {
    if !has_clippy() {
        return;
    }
    let types = listed("disallowed-types");
    let mut source = String::from("#![allow(unused_imports)]\nfn main() {}\n");
    for (path, n) in types.iter().zip(1..) {
        source += &format!("use {path} as Type{n};\n");
    }
    let said = clippy("types", &source);
    for path in &types {
        let lint = format!("use of a disallowed type `{path}`");
        assert_eq!(
            said.iter().filter(|said| said.contains(&lint)).count(),
            1,
            "{path}: {said:#?}"
        );
    }
    assert_eq!(said.len(), types.len(), "{said:#?}");
}

#[test]
#[serial]
fn the_recommended_items_exist_and_are_no_offences() {
    if !has_clippy() {
        return;
    }
    let recommended = LIST.split("greenroom::").skip(1);
    let paths: BTreeSet<_> = recommended
        .filter_map(|rest| rest.split(['"', ' ', ';', '`']).next())
        .collect();
    assert!(paths.len() > 60, "{paths:#?}");
    let mut source = String::from("#![allow(deprecated, unused_imports)]\nfn main() {}\n");
    for (path, n) in paths.iter().zip(1..) {
        source += &format!("use greenroom::{path} as Item{n};\n");
    }
    assert_eq!(clippy("recommended", &source), [""; 0]);
}

/// The paths in one of the two arrays of the list.
fn listed(array: &str) -> BTreeSet<String> {
    let (_, entries) = LIST.split_once(&format!("{array} = [")).unwrap();
    let (entries, _) = entries.split_once("\n]").unwrap();
    let paths: Vec<_> = entries.split("path = \"").skip(1).collect();
    let set: BTreeSet<_> = paths
        .iter()
        .map(|p| p[..p.find('"').unwrap()].to_owned())
        .collect();
    assert_eq!(set.len(), paths.len(), "something is listed twice");
    set
}

/// The paths of the stable functions and structs of these modules, from std's own documentation. `None`,
/// if that is not installed.
fn documented<'a>(
    modules: impl Iterator<Item = &'a str>,
) -> Option<(BTreeSet<String>, BTreeSet<String>)> {
    let sysroot = Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .ok()?;
    let sysroot = PathBuf::from(String::from_utf8(sysroot.stdout).ok()?.trim());
    let docs = sysroot.join("share/doc/rust/html/std");
    let all = fs::read_to_string(docs.join("all.html")).ok()?;
    let (mut functions, mut types) = (BTreeSet::new(), BTreeSet::new());
    for module in modules {
        let index = fs::read_to_string(docs.join(module).join("index.html")).unwrap();
        for (kind, found) in [("fn", &mut functions), ("struct", &mut types)] {
            let link = format!("href=\"{module}/{kind}.");
            let names = all
                .split(&link)
                .skip(1)
                .map(|rest| rest.split_once(".html").unwrap().0);
            let stable = names.filter(|name| {
                let entry = index.split_once(&format!("href=\"{kind}.{name}.html\""));
                // Deprecated items have a page, but no entry.
                entry.is_none_or(|(_, rest)| {
                    !rest.split("</dt>").next().unwrap().contains("Experimental")
                })
            });
            found.extend(stable.map(|name| format!("std::{}::{name}", module.replace('/', "::"))));
        }
    }
    Some((functions, types))
}

#[test]
fn every_item_of_std_is_listed_or_left_out_for_a_reason() {
    let mut left_out: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (module, names) in LEFT_OUT {
        left_out.entry(module).or_default().extend(names.split(' '));
    }
    // Nothing in these modules is left out.
    let modules = left_out.keys().copied().chain(["os/unix/fs"]);
    let Some((functions, types)) = documented(modules) else {
        eprintln!("NOT TESTED: the documentation of std is not installed");
        return;
    };
    let left_out: BTreeSet<_> = left_out
        .into_iter()
        .flat_map(|(module, names)| names.into_iter().map(move |name| (module, name)))
        .map(|(module, name)| format!("std::{}::{name}", module.replace('/', "::")))
        .collect();
    let mut methods = listed("disallowed-methods");
    // This is no function of a module.
    assert!(methods.remove("std::net::ToSocketAddrs::to_socket_addrs"));
    methods.retain(|path| !path.starts_with("std::path::Path::"));
    let listed: BTreeSet<_> = methods
        .into_iter()
        .chain(listed("disallowed-types"))
        .collect();
    let there: BTreeSet<_> = functions.into_iter().chain(types).collect();

    let both: Vec<_> = listed.intersection(&left_out).collect();
    assert!(both.is_empty(), "listed and left out: {both:#?}");
    let known: BTreeSet<_> = listed.union(&left_out).cloned().collect();
    let unknown: Vec<_> = there.difference(&known).collect();
    assert!(
        unknown.is_empty(),
        "neither listed nor left out: {unknown:#?}"
    );
    let stale: Vec<_> = known.difference(&there).collect();
    assert!(stale.is_empty(), "not in std: {stale:#?}");
}
