//! What came of a crate, and the table of all.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Write};
use std::path::Path;
use std::{fs, io};

use crate::crates::Entry;
use crate::run::End;

/// What came of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It was not done.
    Left,
    /// It has failed: it does not compile, say.
    Failed,
    /// It was not over in time.
    TooLong,
    Built,
    Tested(Tests),
    /// Some tests were run and passed, and others could not be run.
    Broken(Tests),
}

impl Step {
    pub(crate) fn of_build(end: End) -> Step {
        match end {
            End::Success => Step::Built,
            End::Failure => Step::Failed,
            End::TooLate => Step::TooLong,
        }
    }

    pub(crate) fn of_tests(end: End, tests: Tests) -> Step {
        match end {
            End::TooLate => Step::TooLong,
            End::Failure if tests.passed.is_empty() => Step::Failed,
            // One of the test binaries does not build, or has crashed, and so has no results.
            End::Failure if tests.failed.is_empty() => Step::Broken(tests),
            End::Success | End::Failure => Step::Tested(tests),
        }
    }

    /// Whether there is nothing to find out.
    pub(crate) fn is_good(&self) -> bool {
        match self {
            Step::Built => true,
            Step::Tested(tests) => tests.failed.is_empty(),
            _ => false,
        }
    }

    /// What came of it in two attempts: of each test, the better result.
    pub(crate) fn or(self, again: Step) -> Step {
        match (self, again) {
            (Step::Tested(mut first), Step::Tested(second)) => {
                first.passed.extend(second.passed);
                first.failed.extend(second.failed);
                first.failed.retain(|name| !first.passed.contains(name));
                Step::Tested(first)
            }
            (_, again) => again,
        }
    }
}

/// The tests of a crate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tests {
    pub(crate) passed: BTreeSet<String>,
    pub(crate) failed: BTreeSet<String>,
}

impl Tests {
    /// Reads what test harnesses have written. The tests of one binary are told from those of another by
    /// the line that cargo writes before.
    pub(crate) fn read(output: &str) -> Tests {
        let mut tests = Tests::default();
        let mut binary = "";
        for line in output.lines() {
            let line = line.trim();
            if let Some(rest) = line
                .strip_prefix("Running ")
                .or(line.strip_prefix("Doc-tests "))
            {
                binary = rest.split(" (").next().unwrap_or(rest);
            } else if let Some(rest) = line.strip_prefix("test ")
                && let Some((name, result)) = rest.rsplit_once(" ... ")
            {
                let name = format!("{binary}: {name}");
                match result {
                    "ok" => drop(tests.passed.insert(name)),
                    "FAILED" => drop(tests.failed.insert(name)),
                    _ => {}
                }
            }
        }
        tests
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Left => f.write_str("-"),
            Step::Failed => f.write_str("fails"),
            Step::TooLong => f.write_str("hangs"),
            Step::Built => f.write_str("builds"),
            Step::Broken(tests) => write!(f, "{} pass, others break", tests.passed.len()),
            Step::Tested(tests) if tests.failed.is_empty() => {
                write!(f, "{} pass", tests.passed.len())
            }
            Step::Tested(tests) => {
                write!(
                    f,
                    "{} pass, {} fail",
                    tests.passed.len(),
                    tests.failed.len()
                )
            }
        }
    }
}

/// A crate, both ways.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    name: String,
    version: String,
    /// It is known not to build on greenroom's std.
    fails: bool,
    /// The names of tests that are known to fail there.
    known_lost: Vec<String>,
    pub(crate) on_std: Step,
    pub(crate) on_greenroom: Step,
    /// The end of what was written where it is worse on greenroom's std.
    pub(crate) details: String,
}

impl Row {
    pub(crate) fn new(entry: &Entry) -> Row {
        Row {
            name: entry.name.clone(),
            version: entry.version.clone(),
            fails: entry.fails,
            known_lost: entry.lost.clone(),
            on_std: Step::Left,
            on_greenroom: Step::Left,
            details: String::new(),
        }
    }

    pub(crate) fn built(entry: &Entry) -> Row {
        Row {
            on_greenroom: Step::Built,
            ..Row::new(entry)
        }
    }

    pub(crate) fn unfetched(entry: &Entry, error: String) -> Row {
        Row {
            details: error,
            on_greenroom: Step::Failed,
            on_std: Step::Built,
            ..Row::new(entry)
        }
    }

    /// The tests that pass on std and not on greenroom's.
    fn lost(&self) -> Vec<&str> {
        match (&self.on_std, &self.on_greenroom) {
            (
                Step::Tested(std) | Step::Broken(std),
                Step::Tested(greenroom) | Step::Broken(greenroom),
            ) => std
                .passed
                .difference(&greenroom.passed)
                .map(String::as_str)
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Whether it fares worse on greenroom's std than is known.
    pub(crate) fn is_surprise(&self) -> bool {
        match (&self.on_std, &self.on_greenroom) {
            (Step::Failed | Step::TooLong | Step::Left, _) => false,
            (Step::Built, Step::Failed) => !self.fails,
            (Step::Built, other) => *other != Step::Built,
            (Step::Broken(_), Step::Tested(_)) => false,
            (Step::Tested(_) | Step::Broken(_), Step::Tested(_) | Step::Broken(_)) => {
                self.lost().iter().any(|test| !self.is_known(test))
            }
            (Step::Tested(_) | Step::Broken(_), _) => true,
        }
    }

    /// Whether a test, named with its binary and modules, is known to be lost.
    fn is_known(&self, test: &str) -> bool {
        let name = test.rsplit([':', ' ']).next();
        self.known_lost.iter().any(|known| Some(&**known) == name)
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row {
            name,
            version,
            on_std,
            on_greenroom,
            ..
        } = self;
        write!(
            f,
            "{name} {version}: std {on_std}; greenroom {on_greenroom}"
        )?;
        for lost in self.lost().iter().take(20) {
            write!(f, "\n      lost: {lost}")?;
        }
        Ok(())
    }
}

/// What came of a crate, as it is written into the table.
#[derive(Clone, Debug)]
pub(crate) struct Result {
    on_greenroom: String,
    on_std: String,
}

impl Row {
    /// Keeps the result for [`Result::read`], so that the table can be made of several runs.
    pub(crate) fn keep(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let text = format!("{}\n{}\n{}\n", self.version, self.on_greenroom, self.on_std);
        fs::write(dir.join(&self.name), text)
    }
}

impl Result {
    /// The result of `entry` that was kept last, if it is of this version.
    pub(crate) fn read(dir: &Path, entry: &Entry) -> Result {
        Result::kept(dir, entry).unwrap_or_else(|| Result {
            on_greenroom: "not run yet".into(),
            on_std: "-".into(),
        })
    }

    fn kept(dir: &Path, entry: &Entry) -> Option<Result> {
        let text = fs::read_to_string(dir.join(&entry.name)).ok()?;
        let mut lines = text.lines().map(str::to_owned);
        (lines.next()? == entry.version).then_some(())?;
        Some(Result {
            on_greenroom: lines.next()?,
            on_std: lines.next()?,
        })
    }
}

/// The tables that are checked in.
pub(crate) fn tables(results: &[(&Entry, Result)]) -> String {
    let mut text = String::from(
        "# Crates on greenroom's std\n\n\
         Published crates, unmodified, by `cargo greenroom`.\n\
         Written by `cargo run --release -p greenroom-survey -- --write`.\n\n\
         ## Their own tests\n\n\
         By `cargo greenroom test`, with 4 workers. If some fail, also by `cargo test`.\n\n\
         | crate | on greenroom's std | on std | why they differ, or what is left out |\n\
         |---|---|---|---|\n",
    );
    let known = |entry: &Entry| entry.known.clone().unwrap_or_default();
    for (entry, result) in results.iter().filter(|(entry, _)| !entry.build_only) {
        let _ = writeln!(
            text,
            "| {} {} | {} | {} | {} |",
            entry.name,
            entry.version,
            result.on_greenroom,
            result.on_std,
            known(entry)
        );
    }
    text += "\n## Builds\n\n\
             By `cargo greenroom build`, and linked into a program. Their tests are not run. Where no reason \
             stands, that would just take more time.\n\n\
             | crate | on greenroom's std | why it fails | why its tests are not run |\n|---|---|---|---|\n";
    for (entry, result) in results.iter().filter(|(entry, _)| entry.build_only) {
        let _ = writeln!(
            text,
            "| {} {} | {} | {} | {} |",
            entry.name,
            entry.version,
            result.on_greenroom,
            known(entry),
            entry.untested.as_deref().unwrap_or_default()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tested(output: &str) -> Step {
        Step::Tested(Tests::read(output))
    }

    #[test]
    fn tests_are_told_apart_by_their_binaries() {
        let output = "     Running unittests src/lib.rs (target/x)\ntest a ... ok\ntest b ... FAILED\n\
                      test c ... ignored\n   Doc-tests x\ntest a ... ok\n";
        let tests = Tests::read(output);
        let expected = ["unittests src/lib.rs: a", "x: a"].map(String::from);
        assert_eq!(tests.passed, BTreeSet::from(expected));
        assert_eq!(tests.failed.len(), 1);
    }

    #[test]
    fn of_two_attempts_each_test_has_the_better_result() {
        let both = tested("test a ... ok\ntest b ... FAILED\ntest c ... FAILED\n").or(tested(
            "test a ... FAILED\ntest b ... ok\ntest c ... FAILED\n",
        ));
        assert_eq!(
            both,
            tested("test a ... ok\ntest b ... ok\ntest c ... FAILED\n")
        );
        assert_eq!(Step::TooLong.or(Step::Built), Step::Built);
    }

    #[test]
    fn what_is_lost_for_no_known_reason_is_a_surprise() {
        let mut row = Row::new(&Entry::default());
        row.on_std = tested("test a ... ok\ntest b ... FAILED\n");
        row.on_greenroom = tested("test a ... ok\ntest b ... FAILED\n");
        assert!(!row.is_surprise());
        row.on_greenroom = tested("test a ... FAILED\n");
        assert!(row.is_surprise());
        row.known_lost = vec!["a".into()];
        assert!(!row.is_surprise());
        row.on_std = tested("test a ... ok\ntest b::a ... ok\ntest b::aa ... ok\n");
        row.on_greenroom = tested("test b::aa ... ok\n");
        assert!(!row.is_surprise());
        row.on_greenroom = tested("test a ... ok\n");
        assert!(row.is_surprise());
        // What is known of a test is no reason for all to fail.
        for other in [Step::TooLong, Step::Failed, Step::Left] {
            row.on_greenroom = other;
            assert!(row.is_surprise());
        }
        row.on_std = Step::Failed;
        assert!(!row.is_surprise());
    }

    #[test]
    fn a_crate_that_does_not_build_is_a_surprise_unless_it_is_known_to() {
        let mut row = Row::built(&Entry::default());
        row.on_std = Step::Built;
        assert!(!row.is_surprise());
        row.on_greenroom = Step::Failed;
        assert!(row.is_surprise());
        row.fails = true;
        assert!(!row.is_surprise());
        row.on_greenroom = Step::TooLong;
        assert!(row.is_surprise());
    }

    #[test]
    fn a_test_binary_that_crashes_is_not_taken_for_one_that_passes() {
        let tests = || Tests::read("test a ... ok\n");
        assert!(Step::of_tests(End::Success, tests()).is_good());
        let mut row = Row::new(&Entry::default());
        row.on_greenroom = Step::of_tests(End::Failure, tests());
        assert!(!row.on_greenroom.is_good());
        row.on_std = tested("test a ... ok\ntest b ... ok\n");
        assert!(row.is_surprise());
    }
}
