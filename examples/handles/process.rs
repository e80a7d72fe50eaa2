//! Processes: their environment, directory and pipes, and how they end.

use std::io::{self, Read, Write};

use greenroom::shims::process::{Command, Stdio};

pub(crate) fn show() -> io::Result<String> {
    let mut shell = Command::new("sh")
        .args([
            "-c",
            r#"read name; echo "$GREETING, $name, in $PWD"; exit 3"#,
        ])
        .env("GREETING", "hello")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (stdin, stdout) = (shell.stdin.take(), shell.stdout.take());
    stdin.expect("it is piped").write_all(b"child\n")?;
    let mut said = String::new();
    stdout.expect("it is piped").read_to_string(&mut said)?;
    let exit = shell.wait()?;

    let mut sleep = Command::new("sleep").arg("1000").spawn()?;
    sleep.kill()?;
    let killed = sleep.wait()?;
    Ok(format!("{:?}, {exit}; {killed}", said.trim_end()))
}
