//! Terminals: lines that the user edits, the size of the window, and single keys.

use std::io::{self, BufRead, BufReader, Read, Write};

use greenroom::shims::fs::File;
use greenroom::shims::io::{TerminalExt, WindowSize};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

pub(crate) fn show() -> io::Result<String> {
    let (mut user, terminal) = pseudo_terminal()?;
    let WindowSize { rows, columns } = terminal.window_size()?;

    user.write_all(b"helo\x7flo\n")?; // The user corrects a mistake.
    let mut line = String::new();
    BufReader::new(&terminal).read_line(&mut line)?;

    // Until this guard is dropped.
    let _raw = terminal.raw_mode()?;
    user.write_all(b"q")?;
    let mut key = [0];
    (&terminal).read_exact(&mut key)?;
    Ok(format!(
        "{columns} x {rows}, the line {line:?}, the key {:?}",
        char::from(key[0])
    ))
}

/// A user's keyboard and screen, and the terminal that a program has.
pub(crate) fn pseudo_terminal() -> io::Result<(File, File)> {
    // It shall not control this process, whatever started it.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let user = openpt(flags)?;
    unlockpt(&user)?;
    let size = Winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&user, size)?;
    let terminal = ioctl_tiocgptpeer(&user, flags)?;
    Ok((user.into(), terminal.into()))
}
