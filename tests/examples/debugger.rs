//! gdb and coroutines: the commands of `src/gdb.py`, which gdb finds in the executable.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

use crate::program::{Directory, command, example, have, succeed};

/// `tests/fixtures/parked.rs`, running. It ends when this is dropped.
struct Parked {
    child: Child,
    _output: BufReader<ChildStdout>,
}

impl Parked {
    /// Returns when all coroutines are where they stay.
    fn start() -> Parked {
        let mut command = command(example("parked"));
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Parked {
            child,
            _output: output,
        }
    }

    /// What gdb prints when it runs these commands in the process.
    fn debug(&self, commands: &[&str]) -> String {
        gdb(&["-p", &self.child.id().to_string()], commands)
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gdb(target: &[&str], commands: &[&str]) -> String {
    let mut gdb = command("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set debuginfod enabled off"]);
    let trust = format!("add-auto-load-safe-path {}", example("parked").display());
    gdb.args(["-iex", &trust, "-ex", "set width 0"])
        .args(target);
    gdb.args(["-ex", "echo begin\\n"]);
    for command in commands {
        gdb.args(["-ex", command]);
    }
    let output = succeed(gdb.env("LC_ALL", "C"));
    let printed = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    // Before, gdb prints where the process is.
    let (_, printed) = printed.split_once("begin\n").unwrap();
    format!("{printed}\n{complaints}")
}

/// Whether there is a gdb, and the program is built with debug information.
fn can_debug() -> bool {
    have(&["gdb"]) && cfg!(debug_assertions)
}

/// The line of `info coroutines` about a coroutine.
#[track_caller]
fn line_of<'a>(list: &'a str, name: &str) -> &'a str {
    let quoted = format!(" '{name}' ");
    let mut lines = list.lines();
    let found = lines.find(|line| line.contains(&quoted));
    found.unwrap_or_else(|| panic!("{name}: {list}"))
}

/// How the commands name a coroutine.
#[track_caller]
fn place_of<'a>(list: &'a str, name: &str) -> &'a str {
    line_of(list, name).split(' ').next().unwrap()
}

/// The frames that were printed, innermost first.
fn frames(backtrace: &str) -> Vec<&str> {
    let lines = backtrace.lines();
    lines.filter(|line| line.starts_with('#')).collect()
}

#[track_caller]
fn assert_lists_all(list: &str) {
    let expect = |name, what: &str| {
        let line = line_of(list, name);
        assert!(line.contains(what), "{what}: {list}");
        assert!(
            line.contains(", spawned at tests/fixtures/parked.rs:"),
            "{list}"
        );
    };
    expect("main", "");
    expect("deep", "parked (park), in parked::waits_to_be_unparked (");
    expect(
        "locked out",
        "parked (mutex), in parked::waits_for_the_lock (",
    );
    expect("reader", "parked (read or write), in parked::reads (");
    expect("holder", "running on thread ");
    expect("holder", ", in parked::holds_its_worker (");
    assert!(list.contains("5 started coroutines"), "{list}");
}

/// The stack of 'deep' is complete, and nothing else is printed.
#[track_caller]
fn assert_is_deep(backtrace: &str) {
    assert_ends_well(backtrace);
    let frames = frames(backtrace);
    let of_program = frames
        .iter()
        .copied()
        .filter(|frame| frame.contains(" parked::"))
        .filter(|frame| !frame.contains("catch_unwind") && !frame.contains("call_once"))
        .filter(|frame| frame.contains("tests/fixtures/parked.rs:"));
    let of_program: Vec<_> = of_program
        .map(|frame| frame.split(" parked::").nth(1).unwrap())
        .map(|frame| frame.split(" at ").next().unwrap())
        .collect();
    assert_eq!(
        of_program,
        [
            "waits_to_be_unparked (marker=48879)",
            "outermost (depth=0)",
            "outermost (depth=1)",
            "outermost (depth=2)",
            "outermost (depth=3)",
            "main::{closure#1}::{closure#0} ()",
        ],
        "{backtrace}"
    );
    assert!(frames[0].starts_with("#1 "), "{backtrace}");
    assert!(frames[0].contains("switch_yield"), "{backtrace}");
    assert_is_root(frames.last().unwrap());
}

/// A frame at which the backtraces of coroutines end.
#[track_caller]
fn assert_is_root(frame: &str) {
    assert!(frame.contains("::root_of_coroutine"), "{frame}");
}

#[track_caller]
fn assert_ends_well(backtrace: &str) {
    for complaint in ["corrupt", "Backtrace stopped", "Python Exception", " ?? "] {
        assert!(!backtrace.contains(complaint), "{backtrace}");
    }
}

#[test]
fn gdb_lists_the_coroutines_of_a_process_and_walks_their_stacks() {
    if !can_debug() {
        return;
    }
    let parked = Parked::start();
    let list = parked.debug(&["info coroutines"]);
    assert_lists_all(&list);
    let deep = place_of(&list, "deep");
    assert_is_deep(&parked.debug(&[&format!("coroutine {deep} bt")]));

    // A number of frames is one of the coroutine's.
    let two = parked.debug(&[&format!("coroutine {deep} bt 2")]);
    assert_eq!(frames(&two).len(), 2, "{two}");
    // The selected frame stays.
    let selected = parked.debug(&["up", "info coroutines", "frame"]);
    assert!(
        frames(&selected).last().unwrap().starts_with("#1 "),
        "{selected}"
    );
    let arguments = parked.debug(&[&format!(
        "coroutine {deep} frame function parked::outermost"
    )]);
    assert!(arguments.contains("(depth=0)"), "{arguments}");

    let all = parked.debug(&["coroutine apply all bt"]);
    assert_ends_well(&all);
    for name in ["main", "deep", "locked out", "reader", "holder"] {
        assert!(all.contains(&format!(" '{name}' (")), "{all}");
    }
    let roots = all.matches("::root_of_coroutine").count();
    assert_eq!(roots, 5, "{all}");

    // gdb has changed nothing: the process goes on.
    drop(parked);
}

#[test]
fn gdb_lists_the_coroutines_of_a_core_file_and_walks_their_stacks() {
    if !can_debug() {
        return;
    }
    let directory = Directory::new();
    let core = directory.join("core");
    let core = core.to_str().unwrap();
    let parked = Parked::start();
    parked.debug(&[&format!("coroutine gcore {core}")]);
    drop(parked);
    let exe = example("parked");
    let target = [exe.to_str().unwrap(), core];
    let list = gdb(&target, &["info coroutines"]);
    assert_lists_all(&list);
    let deep = format!("coroutine {} bt", place_of(&list, "deep"));
    assert_is_deep(&gdb(&target, &[&deep]));
}

#[test]
fn gdb_ends_at_the_root_of_the_coroutine_that_a_thread_runs() {
    if !can_debug() {
        return;
    }
    let threads = Parked::start().debug(&["thread apply all bt"]);
    assert_ends_well(&threads);
    let mut threads = threads.split("\nThread ");
    let holds = threads.find(|thread| thread.contains("parked::holds_its_worker"));
    let holds = holds.unwrap();
    assert_is_root(frames(holds).last().unwrap());
    assert!(!holds.contains("::run_batch"), "{holds}");
}

#[test]
fn gdb_says_what_is_missing() {
    if !have(&["gdb"]) {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gdb.py");
    let source = format!("source {}", script.display());
    let complaint = |target: &[&str]| {
        let mut gdb = command("gdb");
        gdb.args(["-nx", "-batch", "-iex", "set auto-load off"]);
        gdb.args(["-ex", &source]).args(target);
        let output = gdb.args(["-ex", "info coroutines"]).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let complaints = complaint(&[]);
    let wanted = "There is neither a process nor a core file.";
    assert!(complaints.contains(wanted), "{complaints}");
    if !cfg!(debug_assertions) {
        let parked = Parked::start();
        let complaints = complaint(&["-p", &parked.child.id().to_string()]);
        let wanted = "The program has no debug information of greenroom";
        assert!(complaints.contains(wanted), "{complaints}");
    }
}
