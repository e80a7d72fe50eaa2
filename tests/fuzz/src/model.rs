//! Files over streams, and what they must give: shared by a test and a fuzz target.

use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind, Read, Write};

use greenroom::shims::io::makefile::{Encoding, MakeFile, Newline, Record, SocketFile, TextFile};

/// A stream that gives what it is told to, a piece at a time, and then ends; and keeps what it is
/// given.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) pieces: VecDeque<io::Result<Vec<u8>>>,
    pub(crate) written: Vec<Vec<u8>>,
    /// How much it takes at most in a write, each time and then again; if nothing, that times out.
    pub(crate) takes: Vec<usize>,
    pub(crate) writes: usize,
}

impl Script {
    /// Then it times out.
    pub(crate) fn timeout(mut self) -> Script {
        self.pieces.push_back(Err(ErrorKind::WouldBlock.into()));
        self
    }
}

impl Read for Script {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(next) = self.pieces.pop_front() else {
            return Ok(0);
        };
        let mut piece = next?;
        let read = piece.len().min(buf.len());
        buf[..read].copy_from_slice(&piece[..read]);
        if read < piece.len() {
            self.pieces.push_front(Ok(piece.split_off(read)));
        }
        Ok(read)
    }
}

impl Write for Script {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let takes = self.takes.get(self.writes % self.takes.len().max(1));
        self.writes += 1;
        let taken = takes.map_or(buf.len(), |&most| most.min(buf.len()));
        if taken == 0 && !buf.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.written.push(buf[..taken].to_vec());
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Operations on a file that `choose` chooses, against what they must give: on bytes that come in
/// any pieces, with timeouts in between. `choose` is given how many possibilities there are, and
/// ends it when it knows of no more.
pub(crate) fn compare(choose: impl FnMut(usize) -> Option<usize>) {
    // The end may come anywhere.
    let _ = Choices(choose).compare();
}

struct Choices<F>(F);

const LETTERS: &[u8] = b"ab\r\n\xc3\xbc\xe2\x82\xac\xff";
const DELIMITERS: [&[u8]; 5] = [b"\n", b"\r\n", b"ab", b"aba", b"\xff"];

impl<F: FnMut(usize) -> Option<usize>> Choices<F> {
    fn next(&mut self, below: usize) -> Option<usize> {
        (self.0)(below)
    }

    fn bytes(&mut self, below: usize) -> Option<Vec<u8>> {
        let length = self.next(below)?;
        (0..length)
            .map(|_| Some(LETTERS[self.next(LETTERS.len())?]))
            .collect()
    }

    fn script(&mut self, bytes: &[u8]) -> Option<Script> {
        let mut script = Script::default();
        let mut left = bytes;
        while !left.is_empty() {
            let (piece, rest) = left.split_at(1 + self.next(left.len())?);
            script.pieces.push_back(Ok(piece.to_vec()));
            if self.next(3)? == 0 {
                script = script.timeout();
            }
            left = rest;
        }
        for _ in 0..self.next(4)? {
            script.takes.push(self.next(5)?);
        }
        if script.takes.iter().all(|&takes| takes == 0) {
            script.takes.clear();
        }
        Some(script)
    }

    fn compare(&mut self) -> Option<()> {
        let bytes = self.bytes(60)?;
        let script = self.script(&bytes)?;
        match self.next(2)? {
            0 => self.compare_bytes(&bytes, script),
            _ => self.compare_text(&bytes, script),
        }
    }

    fn compare_bytes(&mut self, bytes: &[u8], script: Script) -> Option<()> {
        let mut options = MakeFile::new().buffer(self.next(10)?);
        if self.next(2)? == 0 {
            options = options.line_buffered();
        }
        let mut file = options.file(script).unwrap();
        let mut left = bytes;
        let mut written = Vec::new();
        for _ in 0..40 {
            match self.next(10) {
                None => break,
                Some(0) => {
                    let more = self.bytes(12)?;
                    write_all(&mut file, &more);
                    written.extend(more);
                }
                Some(1) => patiently(|| file.flush()).unwrap(),
                Some(_) => self.read_bytes(&mut file, &mut left)?,
            }
        }
        let (script, unread, unflushed) = file.into_parts();
        assert!(left.starts_with(&unread));
        assert_eq!(rest(script.pieces), left[unread.len()..]);
        assert_eq!([script.written.concat(), unflushed].concat(), written);
        None
    }

    /// Reads by one of the ways there are.
    fn read_bytes(&mut self, file: &mut SocketFile<Script>, left: &mut &[u8]) -> Option<()> {
        let find = |left: &[u8], delimiter: &[u8]| {
            let mut windows = left.windows(delimiter.len());
            windows
                .position(|window| window == delimiter)
                .map(|at| at + delimiter.len())
        };
        match self.next(8)? {
            0 => {
                let delimiter = DELIMITERS[self.next(DELIMITERS.len())?];
                let wanted = match find(left, delimiter) {
                    Some(length) => Record::Complete(take(left, length)),
                    None => Record::Incomplete(take(left, usize::MAX)),
                };
                let got = patiently(|| file.read_until_seq(delimiter)).unwrap();
                assert_eq!(got, wanted);
            }
            1 => {
                let mut buf = vec![0; self.next(8)?];
                let read = patiently(|| file.read_full(&mut buf)).unwrap();
                assert_eq!(buf[..read], take(left, buf.len()));
            }
            2 => {
                let mut buf = vec![0; self.next(8)?];
                let read = patiently(|| file.read(&mut buf)).unwrap();
                assert_eq!(read == 0, buf.is_empty() || left.is_empty());
                assert_eq!(buf[..read], take(left, read));
            }
            3 => {
                let limit = self.next(8)?;
                let wanted = find(left, b"\n").unwrap_or(usize::MAX).min(limit);
                let got = patiently(|| file.read_line_limit(limit)).unwrap();
                assert_eq!(got, take(left, wanted));
            }
            4 => {
                let mut buf = vec![0; self.next(8)?];
                let enough = buf.len() <= left.len();
                match patiently(|| file.read_exact(&mut buf)) {
                    Ok(()) => assert_eq!(buf, take(left, buf.len())),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
                        assert!(!enough);
                    }
                }
            }
            5 => {
                let consumed = self.next(8)?;
                let there = patiently(|| file.fill_buf().map(<[u8]>::len)).unwrap();
                assert_eq!(there == 0, left.is_empty());
                assert_eq!(file.buffer(), &left[..there]);
                file.consume(consumed.min(there));
                take(left, consumed.min(there));
            }
            6 => {
                let hint = self.next(12)?;
                let (mut wanted, mut length) = (Vec::new(), 0);
                // A timeout ends it, unless there is nothing yet.
                let got = patiently(|| file.read_lines(hint)).unwrap();
                while length < hint && !left.is_empty() && wanted.len() < got.len() {
                    let line = take(left, find(left, b"\n").unwrap_or(usize::MAX));
                    length += line.len();
                    wanted.push(line);
                }
                assert_eq!(got, wanted);
            }
            _ => {
                let mut line = Vec::new();
                let wanted = take(left, find(left, b"\n").unwrap_or(usize::MAX));
                patiently(|| file.read_until(b'\n', &mut line)).unwrap();
                assert_eq!(line, wanted);
            }
        }
        Some(())
    }

    fn compare_text(&mut self, bytes: &[u8], script: Script) -> Option<()> {
        let newline = [
            Newline::Universal,
            Newline::Untranslated,
            Newline::Lf,
            Newline::Cr,
            Newline::CrLf,
        ][self.next(5)?];
        let encoding = [Encoding::Utf8Lossy, Encoding::Latin1][self.next(2)?];
        let options = MakeFile::new().newline(newline).encoding(encoding);
        let mut file = options.buffer(1 + self.next(10)?).text(script).unwrap();
        let mut all = match encoding {
            Encoding::Latin1 => bytes.iter().map(|&byte| char::from(byte)).collect(),
            _ => String::from_utf8_lossy(bytes).into_owned(),
        };
        if newline == Newline::Universal {
            all = all.replace("\r\n", "\n").replace('\r', "\n");
        }
        let mut left = &all[..];
        for _ in 0..30 {
            let Some(way) = self.next(8) else {
                break;
            };
            let mut got = String::new();
            let wanted;
            match way {
                0 => {
                    patiently(|| file.read_to_string(&mut got)).unwrap();
                    (wanted, left) = (left, "");
                }
                1..4 => {
                    let count = self.next(6)?;
                    got = patiently(|| file.read_chars(count)).unwrap();
                    let end = left
                        .char_indices()
                        .nth(count)
                        .map_or(left.len(), |(at, _)| at);
                    (wanted, left) = left.split_at(end);
                }
                _ => {
                    patiently(|| file.read_line(&mut got)).unwrap();
                    (wanted, left) = left.split_at(line_of(left, newline));
                }
            }
            assert_eq!(got, wanted);
        }
        check_rest(&mut file, left);
        None
    }
}

/// How long the first line of `text` is.
fn line_of(text: &str, newline: Newline) -> usize {
    let ends: &[&str] = match newline {
        Newline::Universal | Newline::Lf => &["\n"],
        Newline::Untranslated => &["\r\n", "\n", "\r"],
        Newline::Cr => &["\r"],
        Newline::CrLf => &["\r\n"],
    };
    // Of those that begin at the same place, the longer is the first.
    let found = ends
        .iter()
        .filter_map(|end| Some((text.find(end)?, end.len())));
    let first = found.min_by_key(|&(at, length)| (at, usize::MAX - length));
    first.map_or(text.len(), |(at, length)| at + length)
}

fn check_rest(file: &mut TextFile<Script>, left: &str) {
    let mut got = String::new();
    patiently(|| file.read_to_string(&mut got)).unwrap();
    assert_eq!(got, left);
}

fn rest(pieces: VecDeque<io::Result<Vec<u8>>>) -> Vec<u8> {
    pieces.into_iter().flatten().flatten().collect()
}

fn take(left: &mut &[u8], length: usize) -> Vec<u8> {
    let (taken, rest) = left.split_at(length.min(left.len()));
    *left = rest;
    taken.to_vec()
}

fn write_all(file: &mut SocketFile<Script>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let written = patiently(|| file.write(bytes)).unwrap();
        assert!(written > 0);
        bytes = &bytes[written..];
    }
}

/// Tries again after timeouts.
fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}
