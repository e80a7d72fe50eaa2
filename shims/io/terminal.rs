//! Terminals.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use rustix::termios::{self, OptionalActions, Termios};

/// Like [`std::io::IsTerminal`], which is std's to implement: for whatever has a descriptor.
pub trait IsTerminal {
    /// Like [`std::io::IsTerminal::is_terminal`].
    fn is_terminal(&self) -> bool;
}

impl<T: AsFd> IsTerminal for T {
    fn is_terminal(&self) -> bool {
        termios::isatty(self)
    }
}

/// What terminals can do that std has no name for.
///
/// ```no_run
/// use greenroom::shims as std;
/// use std::io::{Read, TerminalExt, stdin};
///
/// # fn main() -> std::io::Result<()> {
/// let input = stdin();
/// let raw = input.raw_mode()?;
/// let mut key = [0];
/// stdin().read_exact(&mut key)?; // does not wait for the end of the line
/// drop(raw); // as it was before
/// # Ok(())
/// # }
/// ```
pub trait TerminalExt: AsFd {
    /// Has the terminal hand over what is typed as it comes, without echo, line editing and
    /// signals, until the guard is dropped: also if that is by a panic. What was typed before, and not
    /// read, stays.
    ///
    /// The mode belongs to the terminal, not to this descriptor of it.
    ///
    /// # Errors
    ///
    /// The operating system's; for what is no terminal, `Uncategorized` with the code `ENOTTY`.
    fn raw_mode(&self) -> io::Result<RawMode<'_, Self>> {
        let before = termios::tcgetattr(self)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(self, OptionalActions::Now, &raw)?;
        Ok(RawMode {
            terminal: self,
            before,
        })
    }

    /// The size of the terminal's window.
    ///
    /// # Errors
    ///
    /// As [`raw_mode`](TerminalExt::raw_mode).
    fn window_size(&self) -> io::Result<WindowSize> {
        let size = termios::tcgetwinsize(self)?;
        Ok(WindowSize {
            rows: size.ws_row,
            columns: size.ws_col,
        })
    }
}

impl<T: AsFd> TerminalExt for T {}

/// How much text a window shows. Zeros, where the terminal does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// In characters.
    pub rows: u16,
    /// In characters.
    pub columns: u16,
}

/// A terminal in raw mode: see [`TerminalExt::raw_mode`].
#[must_use = "the terminal is in raw mode until this is dropped"]
pub struct RawMode<'a, T: AsFd + ?Sized> {
    terminal: &'a T,
    before: Termios,
}

impl<T: AsFd + ?Sized> Drop for RawMode<'_, T> {
    fn drop(&mut self) {
        // Fails where the terminal has gone, and with it its mode.
        let _ = termios::tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

impl<T: AsFd + ?Sized> fmt::Debug for RawMode<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawMode").finish_non_exhaustive()
    }
}
