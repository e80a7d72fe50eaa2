//! Keys, from the bytes that a terminal sends for them.
//!
//! crossterm's own reader needs a thread to itself: it does not return while the terminal is gone. A coroutine that
//! reads standard input parks, and is told the end.

use std::io::{self, Read};

use greenroom::shims;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Char(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    Right,
    Left,
    Home,
    End,
    PageUp,
    PageDown,
    /// Ctrl-C.
    Interrupt,
}

/// Calls `press` with each key, until the terminal is gone.
pub(crate) fn read(mut press: impl FnMut(Key)) -> io::Result<()> {
    let mut stdin = shims::io::stdin().lock();
    let mut bytes = [0; 1024];
    loop {
        match stdin.read(&mut bytes)? {
            0 => return Ok(()),
            read => keys(&bytes[..read]).into_iter().for_each(&mut press),
        }
    }
}

/// The keys in what was read at once. A terminal sends the bytes of a key at once, so ESC with nothing after it is the
/// key of that name.
fn keys(bytes: &[u8]) -> Vec<Key> {
    let text = String::from_utf8_lossy(bytes);
    let (mut keys, mut rest) = (Vec::new(), &*text);
    while let Some(first) = rest.chars().next() {
        let (key, len) = match first {
            '\x1b' => escape_sequence(rest),
            '\r' | '\n' => (Some(Key::Enter), 1),
            '\x7f' | '\x08' => (Some(Key::Backspace), 1),
            '\x03' => (Some(Key::Interrupt), 1),
            c if c.is_control() => (None, c.len_utf8()),
            c => (Some(Key::Char(c)), c.len_utf8()),
        };
        keys.extend(key);
        rest = &rest[len..];
    }
    keys
}

/// The key at the beginning of `text`, which begins with ESC, and its length. `None` for keys without a use here.
fn escape_sequence(text: &str) -> (Option<Key>, usize) {
    let is_sequence = text[1..].starts_with(['[', 'O']);
    let Some(end) = text
        .find(|c: char| c.is_ascii_alphabetic() && c != 'O' || c == '~')
        .filter(|_| is_sequence)
    else {
        return (Some(Key::Escape), 1);
    };
    let key = match &text[2..=end] {
        "A" => Some(Key::Up),
        "B" => Some(Key::Down),
        "C" => Some(Key::Right),
        "D" => Some(Key::Left),
        "H" | "1~" | "7~" => Some(Key::Home),
        "F" | "4~" | "8~" => Some(Key::End),
        "5~" => Some(Key::PageUp),
        "6~" => Some(Key::PageDown),
        _ => None,
    };
    (key, end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart() {
        assert_eq!(keys(b"q"), [Key::Char('q')]);
        assert_eq!(
            keys("/é\r".as_bytes()),
            "/é"
                .chars()
                .map(Key::Char)
                .chain([Key::Enter])
                .collect::<Vec<_>>()
        );
        assert_eq!(keys(b"\x7f\x03\x01"), [Key::Backspace, Key::Interrupt]);
        assert_eq!(keys(b"\x1b"), [Key::Escape]);
        assert_eq!(keys(b"\x1b\x1b[A"), [Key::Escape, Key::Up]);
        assert_eq!(
            keys(b"\x1bOB\x1b[6~\x1b[1~k"),
            [Key::Down, Key::PageDown, Key::Home, Key::Char('k')]
        );
        // With a modifier, and a key without a use.
        assert_eq!(keys(b"\x1b[1;5A\x1b[15~x"), [Key::Char('x')]);
        assert_eq!(keys(b"\x1bq"), [Key::Escape, Key::Char('q')]);
        assert_eq!(keys(b"\x1b["), [Key::Escape, Key::Char('[')]);
        assert_eq!(keys(b"\xff\x1b[Z"), [Key::Char('\u{fffd}')]);
    }
}
