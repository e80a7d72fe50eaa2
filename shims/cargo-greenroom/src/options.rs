//! The command line.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::several_targets;
use crate::error::{Error, Result};

pub(crate) const HELP: &str = "\
Runs cargo on an unmodified program with its threads on green threads

Usage: cargo greenroom <COMMAND> [OPTIONS] [-- ARGS]

Commands:
  build, run, test, check, clippy, bench, doc    as cargo's, with its options, for one target at a time

Options of this command:
      --except <CRATE>  Leave a crate of the dependency graph on the real std (repeatable)
      --main            Run the main function as a coroutine, too (build and run only)
      --libc            Let calls of the C library park, too: those of C libraries, and of crates
                        that call it themselves
      --explain         List which crates are patched, which are not, and which can still block
  -h, --help            Print this
  -V, --version         Print the version

The program is built in `target/greenroom`. `GREENROOM_WORKERS` sets the number of OS threads that
run coroutines, and `GREENROOM_STACK_SIZE` or `RUST_MIN_STACK` the size of their stacks.
";

/// The commands of cargo that `cargo greenroom` accepts.
const COMMANDS: [&str; 7] = ["build", "run", "test", "check", "clippy", "bench", "doc"];

/// A command line without errors.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Help,
    Version,
    Cargo(Options),
}

/// What to have cargo do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// cargo's command.
    pub(crate) command: String,
    /// The arguments to pass on to cargo. From `--` on they are unchanged.
    pub(crate) cargo_args: Vec<OsString>,
    /// Crates that keep the real std.
    pub(crate) except: Vec<String>,
    pub(crate) explain: bool,
    /// The main functions of executables run as coroutines.
    pub(crate) main: bool,
    /// Executables have the patch of the C library.
    pub(crate) libc: bool,
    pub(crate) target: Option<String>,
    /// cargo's profile, by its name on the command line.
    pub(crate) profile: Option<String>,
    pub(crate) target_dir: Option<PathBuf>,
    pub(crate) offline: bool,
    pub(crate) quiet: bool,
    /// Values of cargo's configuration.
    pub(crate) config: Vec<String>,
    /// cargo may build tests or benches.
    pub(crate) with_tests: bool,
    /// The options that `cargo metadata` must get as well.
    pub(crate) metadata_args: Vec<String>,
}

impl Options {
    /// The profile that cargo builds the facade in.
    pub(crate) fn facade_profile(&self) -> &str {
        match &self.profile {
            Some(profile) => profile,
            None if self.command == "bench" => "release",
            None => "dev",
        }
    }
}

/// Reads the arguments after the name of the program. cargo passes `greenroom` as the first.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Request> {
    let mut args = VecDeque::from(args);
    if args.front().is_some_and(|first| first == "greenroom") {
        args.pop_front();
    }
    let mut options = Options::default();
    while let Some(arg) = args.pop_front() {
        if arg == "--" {
            options.cargo_args.push(arg);
            options.cargo_args.extend(args);
            break;
        }
        let Some(text) = arg.to_str().map(str::to_owned) else {
            options.cargo_args.push(arg);
            continue;
        };
        // Short options may follow each other in one argument, and the last one may be followed by its value.
        if let Some((short, rest)) = text.split_at_checked(2)
            && !rest.is_empty()
        {
            if ["-r", "-q", "-v"].contains(&short) {
                args.push_front(format!("-{rest}").into());
                args.push_front(short.into());
                continue;
            }
            if short == "-F" {
                args.push_front(rest.strip_prefix('=').unwrap_or(rest).into());
                args.push_front(short.into());
                continue;
            }
        }
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
            _ => (text.as_str(), None),
        };
        let is_given = inline.is_some();
        let mut value = || -> Result<String> {
            let next = || args.pop_front().and_then(|value| value.into_string().ok());
            let value = inline.clone().or_else(next);
            value.ok_or_else(|| Error::new(format!("{name} needs a value")))
        };
        match name {
            "-h" | "--help" if options.command.is_empty() => return Ok(Request::Help),
            "-V" | "--version" if options.command.is_empty() => return Ok(Request::Version),
            "--except" => options.except.push(value()?.replace('_', "-")),
            "--explain" if !is_given => options.explain = true,
            "--main" if !is_given => options.main = true,
            "--libc" if !is_given => options.libc = true,
            "--target" => {
                let target = value()?;
                if options.target.is_some() {
                    return Err(several_targets());
                }
                options.pass(name, &target);
                options.target = Some(target);
            }
            // Not passed on: this command has cargo build in a directory below this one.
            "--target-dir" => options.target_dir = Some(value()?.into()),
            "--profile" => {
                let profile = value()?;
                options.pass(name, &profile);
                options.profile = Some(profile);
            }
            "-r" | "--release" if !is_given => {
                options.profile = Some("release".into());
                options.cargo_args.push(arg);
            }
            "--manifest-path" => {
                let path = value()?;
                options.pass(name, &path);
                options.pass_to_metadata(name, Some(&path));
            }
            "--config" => {
                let config = value()?;
                options.pass(name, &config);
                options.pass_to_metadata(name, Some(&config));
                options.config.push(config);
            }
            "-F" | "--features" => {
                let features = value()?;
                options.pass(name, &features);
                options.pass_to_metadata(name, Some(&features));
            }
            "--all-features" | "--no-default-features" if !is_given => {
                options.pass_to_metadata(name, None);
                options.cargo_args.push(arg);
            }
            "-q" | "--quiet" if !is_given => {
                options.quiet = true;
                options.cargo_args.push(arg);
            }
            "--offline" | "--frozen" | "--locked" if !is_given => {
                options.offline |= name != "--locked";
                options.pass_to_metadata(name, None);
                options.cargo_args.push(arg);
            }
            // Those of cargo's options that have a value and may come before its command.
            "--color" | "-Z" => {
                let value = value()?;
                options.pass(name, &value);
            }
            _ if options.command.is_empty() && !text.starts_with('-') => {
                options.command = command(&text)?;
            }
            "--tests" | "--test" | "--benches" | "--bench" | "--all-targets" => {
                options.with_tests = true;
                options.cargo_args.push(arg);
            }
            _ => options.cargo_args.push(arg),
        }
    }
    if options.command.is_empty() {
        return Ok(Request::Help);
    }
    if options.main && !["build", "run"].contains(&options.command.as_str()) {
        return Err(Error::new(format!(
            "--main works with `build` and `run`, not with `{}`",
            options.command
        )));
    }
    options.with_tests |= ["test", "bench"].contains(&options.command.as_str());
    Ok(Request::Cargo(options))
}

fn command(name: &str) -> Result<String> {
    let full = match name {
        "b" => "build",
        "r" => "run",
        "t" => "test",
        "c" => "check",
        "d" => "doc",
        name => name,
    };
    match COMMANDS.contains(&full) {
        true => Ok(full.into()),
        false => Err(Error::new(format!(
            "no such command: `{name}`; `cargo greenroom` knows {}",
            COMMANDS.join(", ")
        ))),
    }
}

impl Options {
    fn pass(&mut self, name: &str, value: &str) {
        self.cargo_args.push(name.into());
        self.cargo_args.push(value.into());
    }

    fn pass_to_metadata(&mut self, name: &str, value: Option<&str>) {
        self.metadata_args.push(name.into());
        self.metadata_args.extend(value.map(str::to_owned));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Request> {
        super::parse(line.split(' ').map(OsString::from).collect())
    }

    fn options(line: &str) -> Options {
        match parse(line) {
            Ok(Request::Cargo(options)) => options,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn options_of_this_command_are_taken_out_and_the_rest_goes_to_cargo() {
        let options = options(
            "greenroom run --explain -p app --except=a_b --except c --libc --bin x -- --except d --libc",
        );
        assert_eq!(options.command, "run");
        assert!(options.explain && options.libc && !options.main);
        assert_eq!(options.except, ["a-b", "c"]);
        let passed = ["-p", "app", "--bin", "x", "--", "--except", "d", "--libc"];
        assert_eq!(options.cargo_args, passed);
    }

    #[test]
    fn the_profile_is_that_of_the_command_unless_one_is_named() {
        assert_eq!(options("build").facade_profile(), "dev");
        assert_eq!(options("test").facade_profile(), "dev");
        assert_eq!(options("bench").facade_profile(), "release");
        assert_eq!(options("run -r").facade_profile(), "release");
        assert_eq!(options("run --release").cargo_args, ["--release"]);
        assert_eq!(options("run --profile=tiny").facade_profile(), "tiny");
    }

    #[test]
    fn what_selects_the_dependency_graph_also_goes_to_cargo_metadata() {
        let options = options(
            "check --manifest-path a/Cargo.toml --offline --config x.y=1 --features a -F b --all-features",
        );
        let expected = [
            "--manifest-path",
            "a/Cargo.toml",
            "--offline",
            "--config",
            "x.y=1",
            "--features",
            "a",
            "-F",
            "b",
            "--all-features",
        ];
        assert_eq!(options.metadata_args, expected);
        assert_eq!(options.cargo_args, expected);
        assert_eq!(options.config, ["x.y=1"]);
        assert!(options.offline);
    }

    #[test]
    fn short_options_may_be_in_one_argument() {
        let options = options("run -qrvFa -F=b -p -x -- -rFc");
        assert!(options.quiet);
        assert_eq!(options.facade_profile(), "release");
        assert_eq!(options.metadata_args, ["-F", "a", "-F", "b"]);
        let expected = "-q -r -v -F a -F b -p -x -- -rFc";
        assert_eq!(options.cargo_args, expected.split(' ').collect::<Vec<_>>());
    }

    #[test]
    fn options_may_come_before_the_command() {
        let options = options("greenroom -v --explain --color always -r run x");
        assert_eq!(options.command, "run");
        assert!(options.explain);
        let passed = ["-v", "--color", "always", "-r", "x"];
        assert_eq!(options.cargo_args, passed);
    }

    #[test]
    fn tests_may_be_built_by_other_commands() {
        for line in [
            "test",
            "bench",
            "check --tests",
            "build --test=a",
            "clippy --all-targets",
        ] {
            assert!(options(line).with_tests, "{line}");
        }
        assert!(!options("build --example a").with_tests);
    }

    #[test]
    fn a_bad_command_line_is_an_error_that_says_why() {
        let error = |line| parse(line).unwrap_err().to_string();
        assert!(error("greenroom fly").contains("no such command: `fly`"));
        assert!(error("run --except").contains("--except needs a value"));
        assert!(error("test --main").contains("--main works with `build` and `run`"));
        assert!(error("build --target a --target b").contains("one target at a time"));
    }

    #[test]
    fn without_a_command_there_is_help() {
        assert_eq!(parse("greenroom").unwrap(), Request::Help);
        assert_eq!(parse("greenroom --help").unwrap(), Request::Help);
        assert_eq!(parse("greenroom -V").unwrap(), Request::Version);
        assert_eq!(options("run --help").cargo_args, ["--help"]);
    }
}
