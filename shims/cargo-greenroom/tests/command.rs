//! `cargo greenroom` on a program with one of each kind of crate.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use serial_test::serial;

/// A copy of the program, in which the manifests have their real names. All tests share it, and its target
/// directory.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| fixture("program", "program"))
}

/// The same for a program in other forms.
fn forms() -> &'static Path {
    static FORMS: OnceLock<PathBuf> = OnceLock::new();
    FORMS.get_or_init(|| fixture("forms", "a program"))
}

fn fixture(name: &str, dir: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(dir);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    copy(&fixtures.join(name), &dir);
    dir
}

/// Copies a directory. Leaves files alone that have not changed, because cargo rebuilds when a file is newer.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        if from.is_dir() {
            copy(&from, &to);
            continue;
        }
        let mut text = fs::read_to_string(&from).unwrap();
        let to = match to.extension() {
            Some(extension) if extension == "in" => to.with_extension(""),
            _ => to,
        };
        text = text.replace("@GREENROOM@", &checkout().display().to_string());
        if fs::read_to_string(&to).ok().as_ref() != Some(&text) {
            fs::write(to, text).unwrap();
        }
    }
}

fn checkout() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    path.canonicalize().unwrap()
}

fn clean(command: &mut Command) -> &mut Command {
    for variable in [
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_RUSTC_WRAPPER",
        "RUSTDOC",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
        "GREENROOM_PATH",
    ] {
        command.env_remove(variable);
    }
    // Without debug information the facade is built sooner. Without colours and backtraces the output can
    // be compared.
    command
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_TERM_COLOR", "never")
        .env("RUST_BACKTRACE", "0")
        .current_dir(program())
}

fn green(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-greenroom"));
    command.arg("greenroom").args(line.split(' '));
    clean(&mut command);
    command
}

fn plain(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(line.split(' '));
    clean(&mut command);
    command
}

fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn stdout(command: &mut Command) -> String {
    let output = output(command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{stderr}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The standard error of a command that must fail.
fn failure(command: &mut Command) -> String {
    let output = output(command);
    assert!(!output.status.success(), "{command:?} succeeds");
    String::from_utf8(output.stderr).unwrap()
}

const GREEN: &str = "on greenroom: true\nfew OS threads: true\nmade: 42, script: 7, quiet: true\n";

#[test]
#[serial]
fn an_unmodified_program_runs_its_threads_on_few_os_threads() {
    let on_std = stdout(&mut plain("run -q"));
    assert_eq!(on_std, GREEN.replacen("true", "false", 2));
    assert_eq!(stdout(&mut green("run -q")), GREEN);
}

/// Runs the example `crowd` of this repository, by the command in its header. Returns the number of its OS
/// threads.
fn crowd(mut command: Command) -> usize {
    let target = program().join("target");
    command
        .arg("--target-dir")
        .arg(target)
        .args(["-p", "crowd", "--", "300"]);
    let written = stdout(command.current_dir(checkout()));
    let threads = written.strip_prefix("300 clients were served, by ");
    let threads = threads.and_then(|rest| rest.strip_suffix(" OS threads\n"));
    threads
        .and_then(|count| count.parse().ok())
        .unwrap_or_else(|| panic!("{written}"))
}

#[test]
#[serial]
fn a_thread_for_each_connection_and_client_takes_few_os_threads() {
    assert!(crowd(plain("run -q")) > 300);
    assert!(crowd(green("run -q")) < 30);
}

#[test]
#[serial]
fn what_a_program_writes_and_how_it_ends_are_the_same() {
    for arguments in ["lines", "panic", "exit", "abort"] {
        let line = format!("run -q -- {arguments}");
        let (on_std, on_greenroom) = (output(&mut plain(&line)), output(&mut green(&line)));
        assert_eq!(on_std.stdout, on_greenroom.stdout, "{arguments}");
        assert_eq!(on_std.status, on_greenroom.status, "{arguments}");
        let (on_std, on_greenroom) = (said(on_std.stderr), said(on_greenroom.stderr));
        assert_eq!(on_std, on_greenroom, "{arguments}");
    }
}

#[test]
#[serial]
fn the_program_has_the_process_of_the_command() {
    // So signals to the command reach the program.
    let mut command = green("run -q -- id");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped());
    let child = child.spawn().unwrap();
    let id = child.id();
    let written = child.wait_with_output().unwrap().stdout;
    assert_eq!(String::from_utf8(written).unwrap(), format!("{id}\n"));
}

#[test]
#[serial]
fn one_worker_runs_all_threads_and_main_stays_an_os_thread() {
    let written = stdout(green("run -q -- main").env("GREENROOM_WORKERS", "1"));
    let mut parts = written.trim().split(", ");
    assert_eq!(parts.next(), Some("main"));
    assert_eq!(parts.next(), Some("5 ticks"));
}

/// The example `main_thread`, built by `command` in `profile`. Returns the executable below `dir`.
fn main_thread(mut command: Command, profile: &str, dir: &Path) -> PathBuf {
    stdout(command.args(["--example", "main_thread", "--profile", profile]));
    let folder = if profile == "dev" { "debug" } else { profile };
    dir.join(folder).join("examples/main_thread")
}

fn main_thread_on_std(profile: &str) -> PathBuf {
    main_thread(plain("build -q"), profile, &program().join("target"))
}

fn main_thread_on_greenroom(options: &str, profile: &str) -> PathBuf {
    let host = stdout(Command::new("rustc").args(["--print", "host-tuple"]));
    let dir = program().join("target/greenroom/program").join(host.trim());
    main_thread(green(&format!("build -q {options}")), profile, &dir)
}

/// What a program has written to standard error, without the thread's number in a panic's report.
fn said(stderr: Vec<u8>) -> String {
    let text = String::from_utf8(stderr).unwrap();
    let is_number = |word: &&str| word.starts_with('(') && word.ends_with(')');
    let words: Vec<_> = text.split(' ').filter(|word| !is_number(word)).collect();
    words.join(" ")
}

/// What a program has written and how it has ended, without the thread's number in a panic's report.
fn ending(program: &Path, argument: &str) -> (String, String, Option<i32>) {
    let mut command = Command::new(program);
    command
        .args([argument, "a b"])
        .env("GREENROOM_WORKERS", "1")
        .env("RUST_BACKTRACE", "0")
        .env("SET_OUTSIDE", "here");
    let output = output(&mut command);
    let written = String::from_utf8(output.stdout).unwrap();
    (written, said(output.stderr), output.status.code())
}

#[test]
#[serial]
fn a_main_function_that_is_a_coroutine_does_what_the_main_thread_does() {
    for profile in ["dev", "lto", "abort"] {
        let on_std = main_thread_on_std(profile);
        let on_greenroom = main_thread_on_greenroom("--main", profile);
        for argument in [
            "arguments",
            "code",
            "error",
            "panic",
            "panic-under-catch",
            "exit",
            "thread-local",
            "unfinished-line",
            "deep",
            "stdin",
            "wait",
        ] {
            let expected = ending(&on_std, argument);
            assert_eq!(
                expected,
                ending(&on_greenroom, argument),
                "{profile}: {argument}"
            );
        }
    }
}

#[test]
#[serial]
fn with_one_worker_a_program_whose_main_function_is_a_coroutine_has_one_os_thread() {
    let threads = |options: &str| {
        let mut child = Command::new(main_thread_on_greenroom(options, "dev"))
            .arg("stay")
            .env("GREENROOM_WORKERS", "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let addr = lines.by_ref().map(Result::unwrap).nth(1).unwrap();
        let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
        let count = tasks.count();
        // The program ends when a connection does.
        drop(TcpStream::connect(addr).unwrap());
        lines.for_each(drop);
        assert!(child.wait().unwrap().success());
        count
    };
    assert_eq!(threads("--main"), 1);
    assert!(threads("--offline") > 1);
}

#[test]
#[serial]
fn os_threads_spawn_onto_the_runtime_of_the_main_function() {
    let program = main_thread_on_greenroom("--main --features names-greenroom", "dev");
    let (stdout, ..) = ending(&program, "foreign");
    // The main thread, and the one that the program has started.
    assert!(stdout.contains("Threads:\t2\n"), "{stdout}");
}

#[test]
#[serial]
fn closed_descriptors_and_bad_settings_are_noticed_before_the_main_function() {
    let program = main_thread_on_greenroom("--main", "dev");
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" stdin 0<&-"]).arg(&program);
    assert!(stdout(&mut shell).contains("read: \"\"\n"));
    let output = output(Command::new(&program).env("GREENROOM_WORKERS", "many"));
    assert_eq!(output.status.code(), Some(101));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("no runtime: GREENROOM_WORKERS is \"many\""),
        "{said}"
    );
}

#[test]
#[serial]
fn a_thread_that_waits_in_a_poll_of_mio_or_polling_lets_others_go_on() {
    let mut command = green("run -q --explain --features polls --example polls");
    let output = output(command.env("GREENROOM_WORKERS", "1"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.stdout, b"mio: true\npolling: true\n", "{said}");
    let section = said
        .split("waiting in their polls parks")
        .nth(1)
        .unwrap_or_default();
    assert!(
        section.contains("\n  mio 1.") && section.contains("\n  polling 3."),
        "{said}"
    );
}

#[test]
#[serial]
fn threads_that_wait_by_code_that_tells_os_threads_apart_are_waiters_of_their_own() {
    let run = "run -q --features waiters --example waiters";
    let on_std = stdout(&mut plain(run));
    assert!(on_std.starts_with("on greenroom: false\n"), "{on_std}");
    for options in ["", "--libc", "--main --libc"] {
        let mut command = green(format!("{run} {options}").trim_end());
        let on_greenroom = stdout(command.env("GREENROOM_WORKERS", "1"));
        let expected = on_std.replacen("false", "true", 1);
        assert_eq!(on_greenroom, expected, "{options}");
    }
}

/// What the threads of the program's module `calls` say if all of them wait at the same time, and if each keeps
/// the worker.
const AT_THE_SAME_TIME: &str = "((()))\npoll: [1, 1, 1]\nrecv: [1, 1, 1]\nsocket2: [1, 1, 1]\n";
const IN_TURN: &str = "()()()\npoll: [0, 0, 0]\nrecv: [-1, -1, -1]\nsocket2: [-1, -1, -1]\n";

fn calls(options: &str) -> Command {
    let mut command = green(&format!("run -q {options} -- calls"));
    command.env("GREENROOM_WORKERS", "1");
    command
}

#[test]
#[serial]
fn calls_of_the_c_library_park_in_a_program_with_its_patch() {
    let mut in_turn = calls("--features calls-libc");
    assert_eq!(stdout(in_turn.env("LONG", "300")), IN_TURN);
    for options in [
        "",
        "--profile lto",
        "--profile abort",
        "--main",
        "--main --profile lto",
    ] {
        let options = format!("--features calls-libc --libc {options}");
        let said = stdout(&mut calls(options.trim_end()));
        assert_eq!(said, AT_THE_SAME_TIME, "{options}");
    }
}

#[test]
#[serial]
fn a_program_that_names_the_crate_with_the_patch_has_it_in_any_case() {
    for options in ["", "--libc", "--libc --profile lto"] {
        let options = format!("--features calls-libc,names-patch {options}");
        let said = stdout(&mut calls(options.trim_end()));
        assert_eq!(said, AT_THE_SAME_TIME, "{options}");
    }
}

#[test]
#[serial]
fn explain_tells_which_crates_the_patch_of_the_c_library_reaches() {
    let explain = |options: &str| {
        let line = format!("check -q --features calls-libc,names-greenroom --explain {options}");
        let output = output(&mut green(line.trim_end()));
        String::from_utf8(output.stderr).unwrap()
    };
    // The line of a crate in a section.
    let line = |said: &str, section: &str, name: &str| {
        let lines = said.lines().skip_while(|line| !line.starts_with(section));
        let mut lines = lines.skip(1).take_while(|line| line.starts_with("  "));
        let found = lines.find(|line| line.trim_start().starts_with(name));
        found.map(str::to_owned)
    };
    let blocks = "can still block a worker";
    let said = explain("");
    let found = line(&said, blocks, "socket2 ").unwrap_or_default();
    assert!(found.ends_with("(not with --libc)"), "{said}");
    // It makes its system calls itself.
    let found = line(&said, blocks, "rustix ").unwrap_or_default();
    assert!(!found.is_empty() && !found.contains("--libc"), "{said}");
    let said = explain("--libc");
    let parks = "waiting in their calls of the C library parks";
    assert!(line(&said, parks, "socket2 ").is_some(), "{said}");
    assert_eq!(line(&said, blocks, "socket2 "), None, "{said}");
    assert!(line(&said, blocks, "rustix ").is_some(), "{said}");
}

#[test]
#[serial]
fn tests_of_all_kinds_have_the_patch_of_the_c_library() {
    let run = |options: &str| {
        let line = format!("test --features calls-libc {options}");
        let mut command = green(line.trim_end());
        command.env("GREENROOM_WORKERS", "1");
        command
    };
    let passed = output(&mut run("--libc"));
    let written = String::from_utf8(passed.stdout).unwrap();
    assert!(passed.status.success(), "{written}");
    for name in [
        "test calls::tests::threads_wait_at_the_same_time ... ok",
        "test threads_of_an_integration_test_wait_at_the_same_time ... ok",
        "test src/calls.rs - calls (line 3) ... ok",
    ] {
        assert!(written.contains(name), "{name}: {written}");
    }
    let failed = output(run("--no-fail-fast").env("LONG", "300"));
    let written = String::from_utf8(failed.stdout).unwrap();
    assert_eq!(
        written.matches("test result: FAILED").count(),
        3,
        "{written}"
    );
}

/// Whether a file defines `recv`, for the dynamic linker.
fn defines_recv(file: &Path) -> bool {
    let mut nm = Command::new("nm");
    let symbols = stdout(nm.args(["--dynamic", "--defined-only"]).arg(file));
    symbols.lines().any(|line| line.ends_with(" recv"))
}

#[test]
#[serial]
fn only_executables_have_the_patch_of_the_c_library() {
    stdout(&mut green("build -q --workspace --libc"));
    let base = program().join("target/greenroom/program");
    let host = stdout(Command::new("rustc").args(["--print", "host-tuple"]));
    let built = base.join(host.trim()).join("debug");
    assert!(defines_recv(&built.join("program")));
    assert!(!defines_recv(&built.join("libshared.so")));
    let of_build = base.join("debug");
    let scripts = fs::read_dir(of_build.join("build")).unwrap();
    let scripts = scripts.map(|entry| entry.unwrap().path().join("build-script-build"));
    let macros = fs::read_dir(of_build.join("deps")).unwrap();
    let macros = macros.map(|entry| entry.unwrap().path());
    let macros = macros.filter(|path| path.extension().is_some_and(|extension| extension == "so"));
    let all: Vec<_> = scripts.filter(|path| path.exists()).chain(macros).collect();
    assert!(all.len() >= 2, "{all:?}");
    for path in all {
        assert!(!defines_recv(&path), "{}", path.display());
    }
}

#[test]
#[serial]
fn unit_integration_and_documentation_tests_pass() {
    let written = stdout(&mut green("test"));
    let passed = written.matches("test result: ok. 1 passed").count();
    assert_eq!(passed, 3, "{written}");
}

#[test]
#[serial]
fn a_program_with_link_time_optimisation_runs() {
    assert_eq!(stdout(&mut green("run -q --profile lto")), GREEN);
}

#[test]
#[serial]
fn a_program_that_aborts_on_panic_runs() {
    assert_eq!(stdout(&mut green("run -q --profile abort")), GREEN);
}

#[test]
#[serial]
fn checks_lints_and_documentation_work() {
    for line in ["check -q", "clippy -q", "doc -q --no-deps"] {
        stdout(&mut green(line));
    }
}

#[test]
#[serial]
fn a_library_for_other_languages_has_greenroom_in_it() {
    stdout(&mut green("build -q -p shared"));
    let host = stdout(Command::new("rustc").args(["--print", "host-tuple"]));
    let dir = program().join("target/greenroom/program").join(host.trim());
    let library = fs::read(dir.join("debug/libshared.so")).unwrap();
    let text = b"greenroom-";
    assert!(library.windows(text.len()).any(|window| window == text));
}

#[test]
#[serial]
fn a_program_that_names_greenroom_gets_the_one_below_its_std() {
    let written = stdout(&mut green("run -q --features names-greenroom -- named"));
    assert_eq!(written, "5\n");
}

#[test]
#[serial]
fn a_wrapper_of_the_users_is_called_in_turn() {
    let log = program().join("wrapped");
    let wrapper = program().join("wrapper");
    let script = format!(
        "#!/bin/sh\necho \"$*\" >> '{}'\nexec \"$@\"\n",
        log.display()
    );
    fs::write(&wrapper, script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&wrapper, executable).unwrap();
    let mut by_variable = green("build -q");
    by_variable.env("RUSTC_WRAPPER", "../wrapper");
    let by_config = green("build -q --config build.rustc-wrapper='../wrapper'");
    for mut command in [by_variable, by_config] {
        let _ = fs::remove_file(&log);
        // So that there is something to compile.
        let source = program().join("quiet/src/lib.rs");
        let source = fs::File::options().append(true).open(source).unwrap();
        source.set_modified(SystemTime::now()).unwrap();
        // Both paths are relative to the working directory. cargo calls the wrapper in another one.
        stdout(command.current_dir(program().join("quiet")));
        let calls = fs::read_to_string(&log).unwrap_or_default();
        let patched =
            |line: &str| line.contains("--crate-name quiet") && line.contains("--extern std=");
        assert!(calls.lines().any(patched), "{command:?}: {calls}");
    }
}

#[test]
#[serial]
fn a_crate_that_is_left_out_keeps_std_and_explain_says_so() {
    let output = output(&mut green("check --except quiet --explain"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let section = |title: &str| {
        let from = said
            .find(title)
            .unwrap_or_else(|| panic!("{title}: {said}"));
        let lines = said[from..].lines().skip(1);
        // cargo's own lines are indented further.
        let is_name = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
        lines.take_while(is_name).collect::<Vec<_>>()
    };
    assert_eq!(
        section("on the real std, because of --except:"),
        ["  quiet 0.0.0"]
    );
    assert_eq!(
        section("not patched: proc macros, and the dependencies of proc macros and build scripts:"),
        ["  made"]
    );
    assert!(section("on greenroom's std:").contains(&"  program 0.0.0"));
}

#[test]
#[serial]
fn documentation_of_a_crate_that_is_left_out_is_tested_on_std() {
    let written = stdout(&mut green("test --doc -p quiet --except quiet"));
    assert!(written.contains("1 passed"), "{written}");
}

#[test]
#[serial]
fn documentation_of_a_greenroom_that_the_program_names_is_that_of_the_one_below_its_std() {
    stdout(&mut green(
        "doc -q --features names-greenroom --no-deps -p program -p greenroom",
    ));
    let host = stdout(Command::new("rustc").args(["--print", "host-tuple"]));
    let dir = program().join("target/greenroom/program").join(host.trim());
    assert!(dir.join("doc/greenroom/fn.spawn.html").exists());
}

#[test]
#[serial]
fn a_type_that_clashes_is_an_error_that_names_the_way_out() {
    let said = failure(&mut green("check --features gives-type --except quiet"));
    assert!(said.contains("mismatched types"), "{said}");
    assert!(
        said.contains("note: program does not compile on greenroom's std"),
        "{said}"
    );
    assert!(said.contains("--except program"), "{said}");
}

#[test]
#[serial]
fn a_broken_program_gives_the_compilers_own_errors() {
    let said = failure(&mut green("check --features broken"));
    assert!(said.contains("error[E0308]: mismatched types"), "{said}");
    assert!(!said.contains("greenroom's std"), "{said}");
}

#[test]
#[serial]
fn what_cannot_work_is_said_at_once() {
    let said = |command: &mut Command| failure(command);
    assert!(said(&mut green("check --except nothing")).contains("no such crate"));
    assert!(said(&mut green("check --manifest-path nothing")).contains("nothing"));
    assert!(said(green("check").env("RUSTC", "/no/compiler")).contains("/no/compiler"));
    assert!(said(green("check").env("CARGO_GREENROOM_SESSION", "x")).contains("runs this already"));
    assert!(
        said(green("check").env("GREENROOM_PATH", "/nowhere")).contains("there is no greenroom")
    );
    let file = program().join("Cargo.toml");
    let line = format!("check --target-dir {}", file.display());
    assert!(said(&mut green(&line)).contains("cannot create"));
    // There is no greenroom for this target, whether it is installed or not.
    let line = "check --config build.target='wasm32-unknown-unknown'";
    let words = "greenroom's std cannot be built for wasm32-unknown-unknown";
    assert!(said(&mut green(line)).contains(words));
}

/// `cargo greenroom` on the program in other forms.
fn green_form(line: &str) -> Command {
    let mut command = green(line);
    command.current_dir(forms());
    command
}

/// Whether cargo compiles something.
fn compiles(command: &mut Command) -> bool {
    let output = output(command);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said.contains("Compiling")
}

#[test]
#[serial]
fn an_ordinary_build_stays_as_it_is_and_flags_change_the_other_one() {
    let ordinary = || {
        let mut command = plain("build");
        command.current_dir(forms());
        command
    };
    compiles(&mut ordinary());
    let line = "run -qr";
    let form = "on greenroom: true, aborts: true, changed: ";
    assert_eq!(stdout(&mut green_form(line)), format!("{form}false\n"));
    let mut changed = green_form(line);
    changed.env("RUSTFLAGS", "--cfg changed");
    assert_eq!(stdout(&mut changed), format!("{form}true\n"));
    assert_eq!(stdout(&mut green_form(line)), format!("{form}false\n"));
    assert!(!compiles(&mut ordinary()));
}

#[test]
#[serial]
fn tests_and_benches_of_a_program_that_aborts_on_panic_unwind() {
    let written = stdout(&mut green_form("test --release"));
    let passed = written.matches("test result: ok. 1 passed").count();
    assert_eq!(passed, 3, "{written}");
    let written = stdout(&mut green_form("bench -q --bench bench"));
    assert!(
        written.ends_with("benched on greenroom: true, aborts: false, changed: false\n"),
        "{written}"
    );
    // A command without tests leaves theirs alone.
    compiles(&mut green_form("build --release"));
    assert!(!compiles(&mut green_form("test --release")));
    assert!(!compiles(&mut green_form("build --release")));
}

#[test]
#[serial]
fn values_of_the_configuration_hold_for_greenrooms_std_too() {
    let line = "run -q --release --config profile.release.panic='unwind'";
    let expected = "on greenroom: true, aborts: false, changed: false\n";
    assert_eq!(stdout(&mut green_form(line)), expected);
}

#[test]
#[serial]
fn a_source_that_lacks_what_greenroom_depends_on_is_an_error_that_names_the_way_out() {
    let empty = program().join("empty");
    fs::create_dir_all(&empty).unwrap();
    let line = format!(
        "check --config source.crates-io.replace-with='vendored' --config source.vendored.directory='{}'",
        empty.display()
    );
    let said = failure(&mut green_form(&line));
    assert!(
        said.contains("takes crates from vendored") && said.contains("cargo vendor --sync"),
        "{said}"
    );
}

#[test]
#[serial]
fn what_was_built_is_not_built_again_and_another_choice_is_another_program() {
    stdout(&mut green("build -q"));
    let again = output(&mut green("build"));
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(!said.contains("Compiling"), "{said}");
    let other = stdout(&mut green("run -q --except program"));
    assert!(other.starts_with("on greenroom: false\n"), "{other}");
    assert_eq!(stdout(&mut green("run -q")), GREEN);
}

#[test]
#[serial]
fn sessions_whose_libraries_were_built_again_are_removed() {
    let base = program().join("target/greenroom");
    let names = |folder: &str| {
        let entries = fs::read_dir(base.join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<BTreeSet<_>>()
    };
    stdout(&mut green("check -q"));
    let kept = names("sessions");
    let wrappers = names("bin");
    for name in &kept {
        assert!(
            wrappers.contains(&format!("greenroom-rustc-{name}")),
            "{name}"
        );
    }
    // A session of other libraries, with its wrapper. A build that has begun with them may still run.
    let path = base.join("sessions/0123");
    fs::write(&path, "std=/gone\n").unwrap();
    fs::write(base.join("bin/greenroom-rustc-0123"), "").unwrap();
    let recent = names("sessions");
    stdout(&mut green("check -q"));
    assert_eq!(names("sessions"), recent);
    let session = fs::File::options().append(true).open(path).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(48 * 60 * 60);
    session.set_modified(long_ago).unwrap();
    stdout(&mut green("check -q"));
    assert_eq!((names("sessions"), names("bin")), (kept, wrappers));
}
