//! Commands.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::{self, CommandArgs, CommandEnvs, ExitStatus, Output, Stdio};

use super::Child;

/// Like [`std::process::Command`], but waiting for the child parks the coroutine.
///
/// Starting a child blocks the worker until the new program has been loaded. std's call blocks for as
/// long.
pub struct Command {
    command: process::Command,
    /// The streams that the user has set.
    set: Streams,
}

/// A set of standard streams.
#[derive(Clone, Copy, Default)]
struct Streams {
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

impl Command {
    /// Like [`std::process::Command::new`].
    pub fn new<S: AsRef<OsStr>>(program: S) -> Command {
        Command {
            command: process::Command::new(program),
            set: Streams::default(),
        }
    }

    /// Like [`std::process::Command::arg`].
    pub fn arg<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Command {
        self.command.arg(arg);
        self
    }

    /// Like [`std::process::Command::args`].
    pub fn args<I, S>(&mut self, args: I) -> &mut Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.command.args(args);
        self
    }

    /// Like [`std::process::Command::env`].
    pub fn env<K, V>(&mut self, key: K, val: V) -> &mut Command
    where
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        self.command.env(key, val);
        self
    }

    /// Like [`std::process::Command::envs`].
    pub fn envs<I, K, V>(&mut self, vars: I) -> &mut Command
    where
        I: IntoIterator<Item = (K, V)>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        self.command.envs(vars);
        self
    }

    /// Like [`std::process::Command::env_remove`].
    pub fn env_remove<K: AsRef<OsStr>>(&mut self, key: K) -> &mut Command {
        self.command.env_remove(key);
        self
    }

    /// Like [`std::process::Command::env_clear`].
    pub fn env_clear(&mut self) -> &mut Command {
        self.command.env_clear();
        self
    }

    /// Like [`std::process::Command::current_dir`].
    pub fn current_dir<P: AsRef<Path>>(&mut self, dir: P) -> &mut Command {
        self.command.current_dir(dir);
        self
    }

    /// Like [`std::process::Command::stdin`].
    pub fn stdin<T: Into<Stdio>>(&mut self, cfg: T) -> &mut Command {
        self.command.stdin(cfg);
        self.set.stdin = true;
        self
    }

    /// Like [`std::process::Command::stdout`].
    pub fn stdout<T: Into<Stdio>>(&mut self, cfg: T) -> &mut Command {
        self.command.stdout(cfg);
        self.set.stdout = true;
        self
    }

    /// Like [`std::process::Command::stderr`].
    pub fn stderr<T: Into<Stdio>>(&mut self, cfg: T) -> &mut Command {
        self.command.stderr(cfg);
        self.set.stderr = true;
        self
    }

    /// Like [`std::process::Command::spawn`].
    ///
    /// # Errors
    ///
    /// As std: the errors of making the process and of loading the program.
    pub fn spawn(&mut self) -> io::Result<Child> {
        self.command.spawn().map(Child::from)
    }

    /// Like [`std::process::Command::output`].
    ///
    /// # Errors
    ///
    /// As std.
    ///
    /// # Unwinding
    ///
    /// An interruption point. The child keeps running.
    pub fn output(&mut self) -> io::Result<Output> {
        // The defaults of `output` differ from those of `spawn`, but only for this call: streams that the
        // user has not set are set for the call, and set back afterwards.
        let Streams {
            stdin,
            stdout,
            stderr,
        } = self.set;
        let set_others =
            |command: &mut process::Command, input: fn() -> Stdio, output: fn() -> Stdio| {
                if !stdin {
                    command.stdin(input());
                }
                if !stdout {
                    command.stdout(output());
                }
                if !stderr {
                    command.stderr(output());
                }
            };
        set_others(&mut self.command, Stdio::null, Stdio::piped);
        let child = self.command.spawn();
        set_others(&mut self.command, Stdio::inherit, Stdio::inherit);
        Child::from(child?).wait_with_output()
    }

    /// Like [`std::process::Command::status`].
    ///
    /// # Errors
    ///
    /// As std.
    ///
    /// # Unwinding
    ///
    /// An interruption point. The child keeps running.
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        self.spawn()?.wait()
    }

    /// Like [`std::process::Command::get_program`].
    #[must_use]
    pub fn get_program(&self) -> &OsStr {
        self.command.get_program()
    }

    /// Like [`std::process::Command::get_args`].
    pub fn get_args(&self) -> CommandArgs<'_> {
        self.command.get_args()
    }

    /// Like [`std::process::Command::get_envs`].
    pub fn get_envs(&self) -> CommandEnvs<'_> {
        self.command.get_envs()
    }

    /// Like [`std::process::Command::get_current_dir`].
    #[must_use]
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.command.get_current_dir()
    }
}

/// Like [`std::os::unix::process::CommandExt`], which only std can implement.
pub trait CommandExt: sealed::Sealed {
    /// Like [`std::os::unix::process::CommandExt::uid`].
    fn uid(&mut self, id: u32) -> &mut Command;

    /// Like [`std::os::unix::process::CommandExt::gid`].
    fn gid(&mut self, id: u32) -> &mut Command;

    /// Like [`std::os::unix::process::CommandExt::pre_exec`].
    ///
    /// # Safety
    ///
    /// As std's: `f` runs in the forked child, before `exec`, and may call async-signal-safe functions
    /// only. `f` must not use this crate.
    unsafe fn pre_exec<F>(&mut self, f: F) -> &mut Command
    where
        F: FnMut() -> io::Result<()> + Send + Sync + 'static;

    /// Like [`std::os::unix::process::CommandExt::before_exec`].
    ///
    /// # Safety
    ///
    /// The contract of [`pre_exec`](CommandExt::pre_exec).
    #[deprecated(note = "replaced by `pre_exec`")]
    unsafe fn before_exec<F>(&mut self, f: F) -> &mut Command
    where
        F: FnMut() -> io::Result<()> + Send + Sync + 'static,
    {
        // SAFETY: the contract of `before_exec` is that of `pre_exec`.
        unsafe { self.pre_exec(f) }
    }

    /// Like [`std::os::unix::process::CommandExt::exec`]: returns only on failure, and runs no
    /// destructor of any coroutine.
    #[must_use]
    fn exec(&mut self) -> io::Error;

    /// Like [`std::os::unix::process::CommandExt::arg0`].
    fn arg0<S>(&mut self, arg: S) -> &mut Command
    where
        S: AsRef<OsStr>;

    /// Like [`std::os::unix::process::CommandExt::process_group`].
    fn process_group(&mut self, pgroup: i32) -> &mut Command;
}

mod sealed {
    /// Lets this crate add methods to the trait, as std may to its own.
    pub trait Sealed {}

    impl Sealed for super::Command {}
}

impl CommandExt for Command {
    fn uid(&mut self, id: u32) -> &mut Command {
        std::os::unix::process::CommandExt::uid(&mut self.command, id);
        self
    }

    fn gid(&mut self, id: u32) -> &mut Command {
        std::os::unix::process::CommandExt::gid(&mut self.command, id);
        self
    }

    unsafe fn pre_exec<F>(&mut self, f: F) -> &mut Command
    where
        F: FnMut() -> io::Result<()> + Send + Sync + 'static,
    {
        // SAFETY: the contract of this method includes that of std's: `f` calls only what a forked child
        // may call before `exec`.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut self.command, f) };
        self
    }

    fn exec(&mut self) -> io::Error {
        std::os::unix::process::CommandExt::exec(&mut self.command)
    }

    fn arg0<S>(&mut self, arg: S) -> &mut Command
    where
        S: AsRef<OsStr>,
    {
        std::os::unix::process::CommandExt::arg0(&mut self.command, arg);
        self
    }

    fn process_group(&mut self, pgroup: i32) -> &mut Command {
        std::os::unix::process::CommandExt::process_group(&mut self.command, pgroup);
        self
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.command.fmt(f)
    }
}
