//! This program as cargo's compiler wrapper: it tells rustc which crate is `std`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use crate::crates::{PollsBy, Treatment};
use crate::error::{Context, Error, Result};
use crate::session::{Built, Session, program_identity};

/// The program that this process takes the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `RUSTC_WRAPPER`: the arguments are the compiler and its arguments.
    Rustc,
    /// `RUSTDOC`: the arguments are rustdoc's.
    Rustdoc,
}

/// The beginnings of the names under which this program is a wrapper. The identity of the session follows.
pub(crate) const RUSTC_NAME: &str = "greenroom-rustc-";
pub(crate) const RUSTDOC_NAME: &str = "greenroom-rustdoc-";

impl Role {
    /// The role that the name of this process tells. `None` if it is no wrapper.
    pub(crate) fn of_this_process() -> Option<Role> {
        let name = env::args_os().next()?;
        let name = Path::new(&name).file_name()?.to_str()?.to_owned();
        match name {
            name if name.starts_with(RUSTC_NAME) => Some(Role::Rustc),
            name if name.starts_with(RUSTDOC_NAME) => Some(Role::Rustdoc),
            _ => None,
        }
    }
}

pub(crate) fn run(role: Role) -> Result<ExitCode> {
    let session = Session::of_environment()?;
    let mut args: Vec<OsString> = env::args_os().skip(1).collect();
    match role {
        Role::Rustdoc => {
            if let Some(built) = session.libraries(&args)
                && is_of_target(&args)
            {
                treat(&mut args, &session, built);
            }
            Err(exec(Command::new(&session.rustdoc).args(args)))
        }
        Role::Rustc => {
            if args.is_empty() {
                return Err(Error::new(
                    "the compiler wrapper needs a compiler as its first argument",
                ));
            }
            let compiler = args.remove(0);
            let mut command = match &session.chain {
                Some(chain) => {
                    let mut command = Command::new(chain);
                    command.arg(compiler);
                    command
                }
                None => Command::new(compiler),
            };
            // A wrapper for the workspace, such as clippy's, has the compiler as an argument.
            if args.last().is_some_and(|last| last == "-vV") {
                return tell_version(command.args(args), &session);
            }
            match session.libraries(&args) {
                None => compile_for_facade(command, args),
                Some(built) => compile(command, args, &session, built),
            }
        }
    }
}

impl Session {
    /// The facade's libraries for the crate that `args` compile. `None` while the facade itself is built.
    fn libraries(&self, args: &[OsString]) -> Option<&Built> {
        match &self.unwinding {
            Some(built) if !aborts(args) => Some(built),
            _ => self.facade.as_ref(),
        }
    }
}

/// Replaces this process by `command`. Returns only if that fails.
pub(crate) fn exec(command: &mut Command) -> Error {
    let name = command.get_program().display().to_string();
    Error::new(format!("cannot run {name}: {}", command.exec()))
}

/// Prints the compiler's version, and after it what else makes compiled crates stale. cargo takes all of it for
/// the version. So a changed facade is a new compiler for cargo, which compiles everything again.
fn tell_version(command: &mut Command, session: &Session) -> Result<ExitCode> {
    let identity = match &session.facade {
        Some(_) => session.identity()?,
        None => format!("{:016x}", program_identity()?),
    };
    let output = command.output();
    let mut output = output.context(|| "cannot ask the compiler for its version".into())?;
    if output.status.success() {
        output
            .stdout
            .extend(format!("greenroom: {identity}\n").into_bytes());
    }
    let _ = std::io::stderr().write_all(&output.stderr);
    let written = std::io::stdout().write_all(&output.stdout);
    written.context(|| "cannot print the compiler's version".into())?;
    Ok(code_of(output.status))
}

/// Compiles a crate for the facade.
fn compile_for_facade(mut command: Command, args: Vec<OsString>) -> Result<ExitCode> {
    if !is_of_target(&args) {
        return Err(exec(command.args(args)));
    }
    // Leaves out the options for LTO. By default, a library contains both machine code and bitcode, so a
    // program can be linked with LTO or without.
    let mut kept = Vec::new();
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        let is_lto = |value: &OsStr| {
            value.to_str().is_some_and(|value| {
                ["linker-plugin-lto", "embed-bitcode", "lto"]
                    .iter()
                    .any(|name| {
                        value
                            .strip_prefix(name)
                            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
                    })
            })
        };
        if arg == "-C" && args.next_if(|value| is_lto(value)).is_some() {
            continue;
        }
        kept.push(arg);
    }
    // The program may depend on the same versions of the same crates. This keeps the facade's apart.
    kept.extend(["-C", "metadata=greenroom-facade"].map(OsString::from));
    // Coroutines then have stacks of std's size by default.
    kept.extend(["--cfg", "greenroom_whole_program"].map(OsString::from));
    Err(exec(command.args(kept)))
}

/// Compiles a crate of the program.
fn compile(
    mut command: Command,
    mut args: Vec<OsString>,
    session: &Session,
    built: &Built,
) -> Result<ExitCode> {
    if !is_of_target(&args) || treat(&mut args, session, built) == Treatment::Excepted {
        return Err(exec(command.args(args)));
    }
    let outcome = watch(command.args(args))?;
    if outcome.names_greenroom {
        hint(&env::var("CARGO_PKG_NAME").unwrap_or_default());
    }
    Ok(outcome.code)
}

/// Changes the arguments for rustc or rustdoc, as the crate of the program must be treated.
fn treat(args: &mut Vec<OsString>, session: &Session, built: &Built) -> Treatment {
    let package = env::var("CARGO_PKG_NAME").unwrap_or_default();
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let treatment = Treatment::of(&package, &version, &session.except);
    if treatment != Treatment::Excepted {
        match PollsBy::of(&package, &version) {
            Some(PollsBy::Libc) => replace_extern(args, "libc", &built.libc),
            Some(PollsBy::Rustix) => replace_extern(args, "rustix", &built.rustix),
            None => {}
        }
    }
    match treatment {
        // Crates that it depends on may be on the facade.
        Treatment::Excepted => add_dependencies(args, built),
        Treatment::Patched => {
            let runs_main = session.main && is_program(args);
            let library = match &built.patch {
                Some(patch) if session.libc && runs_main => &patch.main_std,
                Some(patch) if session.libc && is_executable(args) => &patch.std,
                _ if runs_main => &built.main_std,
                _ => &built.std,
            };
            add_std(args, library, built);
            if runs_main {
                args.extend(["-C", "link-arg=-Wl,--wrap=main"].map(OsString::from));
            }
        }
        Treatment::OsThreads => add_std(args, &built.threads_std, built),
        Treatment::DropIn(drop_in) => {
            let source = session.drop_ins.join(format!("{}.rs", drop_in.package));
            replace_source(args, &source);
            add_std(args, &built.std, built);
            add_extern(args, "greenroom", &built.greenroom);
        }
        Treatment::Greenroom => {
            replace_source(args, &session.drop_ins.join(format!("{package}.rs")));
            let library = match (package.as_str(), &built.patch) {
                ("greenroom", _) => &built.greenroom,
                ("greenroom-patch", Some(patch)) => &patch.library,
                _ => &built.std,
            };
            add_extern(args, "the_one", library);
            add_dependencies(args, built);
        }
    }
    treatment
}

/// Says that a package does not compile on greenroom's std. cargo prints this after the errors.
fn hint(package: &str) {
    eprintln!(
        "note: {package} does not compile on greenroom's std: an error above names items of greenroom. Most often, \
         {package} exchanges a type of std with a crate that is on the real std.\n      \
         `--except {package}` leaves {package} on the real std. Crates that exchange such types with {package} must \
         then be left out, too. `--explain` lists which crates are on which std.\n"
    );
}

/// How a compilation ended.
struct Outcome {
    code: ExitCode,
    /// The compilation has failed, with an error that names an item of greenroom's.
    names_greenroom: bool,
}

/// Runs the compiler, and passes its messages on to cargo.
fn watch(command: &mut Command) -> Result<Outcome> {
    let name = command.get_program().display().to_string();
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .context(|| format!("cannot run {name}"))?;
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let mut own = std::io::stderr().lock();
    let mut names_greenroom = false;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = stderr.read_until(b'\n', &mut line);
        if read.context(|| format!("cannot read the output of {name}"))? == 0 {
            break;
        }
        names_greenroom |= is_error_about_greenroom(&line);
        // This fails if cargo has ended. Then nobody needs the messages.
        let _ = own.write_all(&line);
    }
    let status = child.wait().context(|| format!("cannot wait for {name}"))?;
    Ok(Outcome {
        names_greenroom: names_greenroom && !status.success(),
        code: code_of(status),
    })
}

/// Whether a line of the compiler, which is JSON, is an error that names a path of greenroom's.
fn is_error_about_greenroom(line: &[u8]) -> bool {
    let contains = |text: &str| {
        line.windows(text.len())
            .any(|window| window == text.as_bytes())
    };
    contains("\"level\":\"error\"") && (contains("greenroom::") || contains("greenroom_std"))
}

fn code_of(status: std::process::ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(u8::try_from(code.unwrap_or(1)).unwrap_or(1))
}

/// Whether `args` compile a crate of the target. Build scripts, proc macros and their dependencies run during
/// the build, and cargo passes no `--target` for them. With the crate name `___`, cargo only asks the
/// compiler for its settings.
fn is_of_target(args: &[OsString]) -> bool {
    let names_target = args.iter().any(|arg| {
        arg.to_str()
            .is_some_and(|arg| arg == "--target" || arg.starts_with("--target="))
    });
    let names_crate = args.iter().any(|arg| arg == "--crate-name");
    names_target
        && names_crate
        && !has_value(args, "--crate-type", "proc-macro")
        && !has_value(args, "--crate-name", "___")
}

/// Whether a panic aborts in the crate that `args` compile.
fn aborts(args: &[OsString]) -> bool {
    has_value(args, "-C", "panic=abort") || args.iter().any(|arg| arg == "-Cpanic=abort")
}

/// Whether `args` compile an executable, other than one with tests: the main function of these is the
/// harness's.
fn is_program(args: &[OsString]) -> bool {
    has_value(args, "--crate-type", "bin") && !is_test(args)
}

/// Whether `args` compile an executable. cargo names no type for a library with tests, which is one.
fn is_executable(args: &[OsString]) -> bool {
    has_value(args, "--crate-type", "bin") || is_test(args)
}

/// Whether the compiler generates a harness of tests.
fn is_test(args: &[OsString]) -> bool {
    args.iter().any(|arg| arg == "--test")
}

fn has_value(args: &[OsString], option: &str, value: &str) -> bool {
    args.windows(2)
        .any(|pair| pair[0] == option && pair[1] == value)
}

/// Makes `library` the crate's `std`. Replaces the `std` that the crate's own manifest may name (a renamed
/// `greenroom-std`).
fn add_std(args: &mut Vec<OsString>, library: &Path, built: &Built) {
    remove_extern(args, "std");
    add_extern(args, "std", library);
    add_dependencies(args, built);
}

/// Takes `library` for the crate that `args` name `name`, if they do.
fn replace_extern(args: &mut Vec<OsString>, name: &str, library: &Path) {
    if remove_extern(args, name) {
        add_extern(args, name, library);
    }
}

/// Removes the options that name the library of the crate `name`. Returns whether there were any.
fn remove_extern(args: &mut Vec<OsString>, name: &str) -> bool {
    let is_it = |value: &OsString| {
        let rest = value.to_str().and_then(|value| value.strip_prefix(name));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    let before = args.len();
    while let Some(position) = args
        .windows(2)
        .position(|pair| pair[0] == "--extern" && is_it(&pair[1]))
    {
        args.drain(position..position + 2);
    }
    args.len() < before
}

fn add_extern(args: &mut Vec<OsString>, name: &str, library: &Path) {
    let mut value = OsString::from(format!("{name}="));
    value.push(library);
    args.push("--extern".into());
    args.push(value);
}

fn add_dependencies(args: &mut Vec<OsString>, built: &Built) {
    let mut value = OsString::from("dependency=");
    value.push(&built.dependencies);
    args.push("-L".into());
    args.push(value);
}

/// Compiles `source` instead of the crate's root file. That is the argument that ends in `.rs` and is not the
/// value of an option.
fn replace_source(args: &mut [OsString], source: &Path) {
    let root = (0..args.len()).find(|&position| {
        let is_value = position > 0
            && args[position - 1].to_str().is_some_and(|option| {
                [
                    "--crate-name",
                    "--cfg",
                    "--check-cfg",
                    "--extern",
                    "-o",
                    "-C",
                    "-L",
                ]
                .contains(&option)
            });
        !is_value && Path::new(&args[position]).extension() == Some(OsStr::new("rs"))
    });
    if let Some(root) = root {
        args[root] = source.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn built() -> Built {
        Built {
            std: "/f/libgreenroom_std.rlib".into(),
            threads_std: "/f/libgreenroom_threads_std.rlib".into(),
            main_std: "/f/libgreenroom_main_std.rlib".into(),
            libc: "/f/libgreenroom_libc.rlib".into(),
            rustix: "/f/libgreenroom_rustix.rlib".into(),
            greenroom: "/f/libgreenroom.rlib".into(),
            patch: None,
            dependencies: "/f/deps".into(),
        }
    }

    #[test]
    fn a_crate_that_aborts_on_panic_gets_libraries_that_abort_and_a_test_others() {
        let session = Session {
            facade: Some(built()),
            unwinding: Some(Built::default()),
            ..Session::default()
        };
        for line in ["-C panic=abort", "-Cpanic=abort"] {
            assert_eq!(session.libraries(&args(line)), Some(&built()));
        }
        assert_eq!(
            session.libraries(&args("--test -C opt-level=3")),
            Some(&Built::default())
        );
        let session = Session {
            unwinding: None,
            ..session
        };
        assert_eq!(session.libraries(&args("--test")), Some(&built()));
    }

    #[test]
    fn crates_of_the_target_are_patched_and_those_that_run_in_the_compiler_are_not() {
        assert!(is_of_target(&args(
            "--crate-name app src/main.rs --target x"
        )));
        assert!(is_of_target(&args(
            "--crate-name app src/main.rs --target=x"
        )));
        assert!(!is_of_target(&args(
            "--crate-name build_script_build build.rs"
        )));
        assert!(!is_of_target(&args("- --crate-name ___ --target x")));
        assert!(!is_of_target(&args(
            "--crate-name derive --crate-type proc-macro --target x"
        )));
        assert!(!is_of_target(&args("--print cfg --target x")));
    }

    #[test]
    fn an_executable_is_a_program_unless_it_has_tests() {
        assert!(is_program(&args("--crate-name a --crate-type bin")));
        assert!(!is_program(&args("--crate-name a --crate-type bin --test")));
        assert!(!is_program(&args("--crate-name a --crate-type lib")));
        assert!(is_executable(&args("--crate-name a --crate-type bin")));
        assert!(is_executable(&args("--crate-name a --test")));
        assert!(!is_executable(&args("--crate-name a --crate-type lib")));
        assert!(!is_executable(&args("--crate-name a --crate-type cdylib")));
    }

    #[test]
    fn the_facade_replaces_one_that_the_program_names_itself() {
        let mut args = args("--crate-name a --extern std=/other.rlib --extern libc=/libc.rlib");
        add_std(&mut args, &built().std, &built());
        let expected = "--crate-name a --extern libc=/libc.rlib --extern std=/f/libgreenroom_std.rlib \
                        -L dependency=/f/deps";
        assert_eq!(args, self::args(expected));
    }

    #[test]
    fn a_library_is_replaced_only_if_it_is_named() {
        let mut args = args("--extern libc=/libc.rlib --extern libc_more=/more.rlib");
        replace_extern(&mut args, "libc", &built().libc);
        replace_extern(&mut args, "rustix", &built().rustix);
        let expected = "--extern libc_more=/more.rlib --extern libc=/f/libgreenroom_libc.rlib";
        assert_eq!(args, self::args(expected));
    }

    #[test]
    fn a_drop_in_is_compiled_instead_of_the_root_file() {
        let mut args = args("--crate-name a.rs --edition=2021 /x/src/lib.rs --cfg y.rs");
        replace_source(&mut args, Path::new("/d/a.rs"));
        assert_eq!(
            args,
            self::args("--crate-name a.rs --edition=2021 /d/a.rs --cfg y.rs")
        );
    }

    #[test]
    fn an_error_that_names_greenroom_is_noticed_and_a_warning_is_not() {
        let line = br#"{"message":"expected `greenroom::shims::net::TcpStream`","level":"error"}"#;
        assert!(is_error_about_greenroom(line));
        let line = br#"{"message":"unused `greenroom::x`","level":"warning"}"#;
        assert!(!is_error_about_greenroom(line));
        assert!(!is_error_about_greenroom(
            br#"{"message":"no `x`","level":"error"}"#
        ));
    }
}
