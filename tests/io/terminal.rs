//! Terminals.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use greenroom::shims;
use rustix::termios::{self, LocalModes, SpecialCodeIndex};
use shims::io::{BufRead, IsTerminal, TerminalExt, WindowSize};

use crate::util;

fn edits_lines(terminal: impl AsFd) -> bool {
    let modes = termios::tcgetattr(terminal).unwrap().local_modes;
    modes.contains(LocalModes::ICANON) && modes.contains(LocalModes::ECHO)
}

#[test]
fn a_terminal_is_raw_until_the_guard_is_dropped_even_by_a_panic() {
    util::everywhere(|| {
        let pty = util::Pty::new();
        let terminal = shims::fs::File::from(pty.open());
        assert!(terminal.is_terminal());
        assert!(edits_lines(&terminal));
        let raw = terminal.raw_mode().unwrap();
        assert!(!edits_lines(&terminal));
        drop(raw);
        assert!(edits_lines(&terminal));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _raw = terminal.raw_mode().unwrap();
            assert!(!edits_lines(&terminal));
            panic!("with the terminal raw");
        }));
        assert!(panicked.is_err());
        assert!(edits_lines(&terminal));
    });
}

#[test]
fn a_terminal_tells_the_size_of_its_window() {
    let pty = util::Pty::new();
    let size = termios::Winsize {
        ws_row: 25,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    termios::tcsetwinsize(&pty.user, size).unwrap();
    let (rows, columns) = (25, 80);
    assert_eq!(
        pty.open().window_size().unwrap(),
        WindowSize { rows, columns }
    );
}

#[test]
fn terminal_calls_on_other_files_are_errors() {
    let dir = util::Scratch::new();
    let file = shims::fs::File::create(dir.join("file")).unwrap();
    assert!(!file.is_terminal());
    let enotty = Some(libc::ENOTTY);
    assert_eq!(file.raw_mode().unwrap_err().raw_os_error(), enotty);
    assert_eq!(file.window_size().unwrap_err().raw_os_error(), enotty);
}

#[test]
fn others_run_while_a_coroutine_reads_a_terminal() {
    util::on_workers(1, || {
        let mut pty = util::Pty::new();
        let terminal = shims::fs::File::from(pty.open());
        let read = AtomicBool::new(false);
        greenroom::scope(|s| {
            s.spawn(|| {
                let mut line = String::new();
                let mut lines = std::io::BufReader::new(&terminal);
                lines.read_line(&mut line).unwrap();
                assert_eq!(line, "typed\n");
                read.store(true, Ordering::Relaxed);
            });
            for byte in b"typed" {
                pty.user.write_all(&[*byte]).unwrap();
                shims::thread::sleep(Duration::from_millis(1));
                assert!(!read.load(Ordering::Relaxed));
            }
            pty.user.write_all(b"\n").unwrap();
        });
        assert!(read.load(Ordering::Relaxed));
        let flags = rustix::fs::fcntl_getfl(&terminal).unwrap();
        assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    });
}

#[test]
fn input_typed_before_raw_mode_is_still_read() {
    util::everywhere(|| {
        let mut pty = util::Pty::new();
        let terminal = shims::fs::File::from(pty.open());
        pty.user.write_all(b"ab").unwrap();
        let raw = terminal.raw_mode().unwrap();
        let mut one = [0];
        (&terminal).read_exact(&mut one).unwrap();
        assert_eq!(&one, b"a");
        drop(raw);
        pty.user.write_all(b"\n").unwrap();
        let mut rest = [0; 2];
        (&terminal).read_exact(&mut rest).unwrap();
        assert_eq!(&rest, b"b\n");
    });
}

/// A terminal in non-canonical mode: a read returns after `least` bytes, or after a pause of `tenths` of
/// a second.
fn by_the_byte(least: u8, tenths: u8) -> (util::Pty, shims::fs::File) {
    let pty = util::Pty::new();
    let terminal = pty.open();
    let mut modes = termios::tcgetattr(&terminal).unwrap();
    modes.make_raw();
    modes.special_codes[SpecialCodeIndex::VMIN] = least;
    modes.special_codes[SpecialCodeIndex::VTIME] = tenths;
    termios::tcsetattr(&terminal, termios::OptionalActions::Now, &modes).unwrap();
    (pty, terminal.into())
}

#[test]
fn a_terminal_that_waits_for_several_bytes_holds_up_nobody() {
    util::on_workers(1, || {
        // The terminal polls as readable after the first byte.
        let (mut pty, mut terminal) = by_the_byte(2, u8::MAX);
        pty.user.write_all(b"a").unwrap();
        let reading = greenroom::spawn(move || {
            let mut typed = [0; 4];
            let length = terminal.read(&mut typed).unwrap();
            typed[..length].to_vec()
        });
        util::settle();
        pty.user.write_all(b"b").unwrap();
        assert_eq!(reading.join().unwrap(), b"ab");

        // The end of the runtime interrupts this read.
        let (mut pty, mut terminal) = by_the_byte(2, u8::MAX);
        pty.user.write_all(b"a").unwrap();
        greenroom::spawn(move || terminal.read(&mut [0; 4]));
        util::settle();
    });
}

#[test]
fn a_read_of_a_terminal_with_a_pause_returns_without_bytes() {
    util::everywhere(|| {
        for tenths in [0, 1] {
            let (mut pty, mut terminal) = by_the_byte(0, tenths);
            let start = Instant::now();
            for _ in 0..2 {
                assert_eq!(terminal.read(&mut [0; 4]).unwrap(), 0);
            }
            assert!(start.elapsed() >= u32::from(tenths) * Duration::from_millis(150));
            pty.user.write_all(b"a").unwrap();
            assert_eq!(terminal.read(&mut [0; 4]).unwrap(), 1);
        }
    });
}

#[test]
fn others_run_while_a_coroutine_writes_more_than_a_terminal_takes() {
    util::on_workers(1, || {
        let pty = util::Pty::new();
        let mut terminal = shims::fs::File::from(pty.open());
        let mut user = shims::fs::File::from(pty.user);
        let text = b"0123456789abcde\n".repeat(20_000);
        greenroom::scope(|s| {
            s.spawn(|| terminal.write_all(&text).unwrap());
            let mut shown = Vec::new();
            let mut chunk = [0; 1000];
            while shown.len() < text.len() / 16 * 17 {
                let read = user.read(&mut chunk).unwrap();
                shown.extend_from_slice(&chunk[..read]);
            }
            // The terminal adds a carriage return to each newline.
            shown.retain(|&byte| byte != b'\r');
            util::assert_same_bytes(&shown, &text);
        });
    });
}

#[test]
fn the_end_of_a_runtime_interrupts_a_write_to_a_full_terminal() {
    let pty = util::Pty::new();
    util::on_workers(1, || {
        let mut terminal = shims::fs::File::from(pty.open());
        // There is room for the start of one write.
        let write = move || (0..100).try_for_each(|_| terminal.write_all(&[b'x'; 4000]));
        let writing = greenroom::spawn(write);
        util::settle();
        assert!(!writing.is_finished());
    });
}
