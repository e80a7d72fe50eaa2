//! Files over handles, which pyuv does not have: any code for files and lines takes them, and they wait like
//! the handle below.

use std::io::{self, BufRead, Write};

use greenroom::shims::io::makefile::{MakeFile, Newline, SocketFile};
use greenroom::shims::os::unix::net::UnixStream;
use greenroom::spawn;

use super::tty::pseudo_terminal;

/// Ordinary code, for any file: answers each line with the number of its words.
fn count_words(mut file: impl BufRead + Write) -> io::Result<()> {
    let mut line = String::new();
    while file.read_line(&mut line)? > 0 {
        let words = line.split_whitespace().count();
        writeln!(file, "{words} words")?;
        file.flush()?;
        line.clear();
    }
    Ok(())
}

pub(crate) fn show() -> io::Result<String> {
    let (near, far) = UnixStream::pair()?;
    spawn(move || count_words(far.makefile()));
    let mut pipe = near.maketext(&MakeFile::new().newline(Newline::Universal))?;
    pipe.write_str("a line over a pipe\n")?;
    pipe.flush()?;
    let mut over_pipe = String::new();
    pipe.read_line(&mut over_pipe)?;

    let (user, terminal) = pseudo_terminal()?;
    spawn(move || count_words(SocketFile::new(terminal)));
    let mut user = SocketFile::new(user);
    user.write_all(b"and one at a terminal\n")?;
    user.flush()?;
    let mut screen = user.lines();
    let mut next = || screen.next().expect("the terminal is open");
    let (echo, over_terminal) = (next()?, next()?);
    Ok(format!(
        "{over_pipe:?} over a pipe, {over_terminal:?} at a terminal (below {echo:?})"
    ))
}
