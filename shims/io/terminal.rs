//! Terminals.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use rustix::termios::{self, OptionalActions, Termios};

/// Like [`std::io::IsTerminal`], which only std can implement. All types with a descriptor implement this
/// trait.
pub trait IsTerminal {
    /// Like [`std::io::IsTerminal::is_terminal`].
    fn is_terminal(&self) -> bool;
}

impl<T: AsFd> IsTerminal for T {
    fn is_terminal(&self) -> bool {
        termios::isatty(self)
    }
}

/// Methods of terminals that std does not have.
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
/// drop(raw); // restores the mode
/// # Ok(())
/// # }
/// ```
pub trait TerminalExt: AsFd {
    /// Puts the terminal into raw mode: reads return each key at once, without echo, line editing and
    /// signals. Dropping the guard restores the mode, also during a panic. Input that was typed before
    /// and not read is kept.
    ///
    /// The mode belongs to the terminal, so other descriptors of the terminal are affected, too.
    ///
    /// # Errors
    ///
    /// The operating system's. If the descriptor is not a terminal, an error with the code `ENOTTY`.
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

/// The size of a terminal's window. Zeros if the terminal does not know its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// The height in characters.
    pub rows: u16,
    /// The width in characters.
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
        // Fails only if the terminal is gone, and its mode with it.
        let _ = termios::tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}

impl<T: AsFd + ?Sized> fmt::Debug for RawMode<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawMode").finish_non_exhaustive()
    }
}
