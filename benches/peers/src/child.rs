//! Child processes.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::usage::Usage;

/// A command that runs this program again, with `args`.
pub(crate) fn own(args: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(args);
    Ok(command)
}

/// A child process that we exchange lines with. Dropping this value kills the process.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> io::Result<Process> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                let program = command.get_program().display();
                io::Error::new(error.kind(), format!("{program}: {error}"))
            })?;
        let stdout = child.stdout.take().expect("piped");
        Ok(Process {
            stdin: child.stdin.take(),
            stdout: BufReader::new(stdout),
            child,
        })
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends an empty line.
    pub(crate) fn say(&mut self) -> io::Result<()> {
        self.stdin.as_mut().expect("not ended yet").write_all(b"\n")
    }

    /// Receives a line.
    pub(crate) fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            let status = self.child.wait()?;
            return Err(io::Error::other(format!("its process ended with {status}")));
        }
        Ok(line.trim().to_owned())
    }

    /// Receives a line of numbers.
    pub(crate) fn numbers(&mut self) -> io::Result<Vec<f64>> {
        let line = self.line()?;
        let numbers: Result<_, _> = line.split_whitespace().map(str::parse).collect();
        numbers.map_err(|_| io::Error::other(format!("not numbers: {line:?}")))
    }

    /// The CPU time that the process, a server, has used so far.
    pub(crate) fn usage(&mut self) -> io::Result<Usage> {
        self.say()?;
        match self.numbers()?[..] {
            [user, system] => Ok(Usage { user, system }),
            _ => Err(io::Error::other("not the CPU time of a server")),
        }
    }

    /// Closes the child's standard input, which tells the child to end, and waits for its exit.
    pub(crate) fn end(mut self) -> io::Result<()> {
        drop(self.stdin.take());
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both calls can only fail after a `wait`, and then the child has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
