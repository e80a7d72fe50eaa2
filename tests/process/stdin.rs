//! Standard input of coroutines. Each test starts this binary again, with another standard input.

use std::fs::File;
use std::io::{PipeReader, Write};
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenroom::shims;
use shims::io::{BufRead, IsTerminal, Read, stdin};

use crate::util;

/// The role of a process whose ticks nobody waits for.
const CHILD: &str = "/dev/null";

/// Reads all lines of standard input in a coroutine. Prints the lines, and the number of ticks of another
/// coroutine of its worker. After ten ticks, it writes to the file `ticked`.
fn print_lines_and_ticks(ticked: &str) {
    util::on_workers(1, || {
        let (ticks, over) = (AtomicUsize::new(0), AtomicUsize::new(0));
        greenroom::scope(|s| {
            s.spawn(|| {
                while over.load(Ordering::Relaxed) == 0 {
                    shims::thread::sleep(Duration::from_millis(1));
                    if ticks.fetch_add(1, Ordering::Relaxed) == 10 {
                        std::fs::write(ticked, "").unwrap();
                    }
                }
            });
            let mut first = String::new();
            stdin().read_line(&mut first).unwrap();
            println!("line: {first:?}");
            for line in stdin().lines() {
                println!("line: {:?}", line.unwrap());
            }
            // A terminal may go on after an end.
            if !stdin().is_terminal() {
                assert_eq!(
                    stdin().read(&mut [0; 8]).unwrap(),
                    0,
                    "the end stays the end"
                );
            }
            over.store(1, Ordering::Relaxed);
        });
        println!("ticks: {}", ticks.into_inner());
        let flags = rustix::fs::fcntl_getfl(std::io::stdin());
        if let Ok(flags) = flags {
            assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
        }
    });
}

/// Runs `test` again as `role`, with the standard input `input`, while `feed` may write to it. Returns the
/// lines that were read, and the ticks.
fn lines_and_ticks(
    test: &str,
    role: &str,
    input: Stdio,
    feed: impl FnOnce(),
) -> (Vec<String>, usize) {
    let child = util::again!(test, role)
        .stdin(input)
        .stdout(Stdio::piped())
        .spawn();
    let child = child.unwrap();
    feed();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    let told = |what: &str| -> Vec<String> {
        // libtest may print something before it on the same line.
        let found = said.lines().filter_map(|line| line.split_once(what));
        found.map(|(_, rest)| rest.to_owned()).collect()
    };
    (told("line: "), told("ticks: ")[0].parse().unwrap())
}

fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

/// Runs `test` again with the standard input `input`. Writes `pieces` to `writer`, and closes it. Before the last
/// one, other coroutines of the child must have run.
fn feed_while_others_run<W: Write>(
    test: &str,
    input: Stdio,
    mut writer: W,
    pieces: [&str; 3],
) -> Vec<String> {
    let scratch = util::Scratch::new();
    let ticked = scratch.join("ticked");
    let role = ticked.to_str().unwrap();
    let (lines, ticks) = lines_and_ticks(test, role, input, || {
        for (number, piece) in pieces.into_iter().enumerate() {
            pause();
            if number == 2 {
                util::until("others have run", || ticked.exists());
            }
            writer.write_all(piece.as_bytes()).unwrap();
        }
        drop(writer);
    });
    assert!(ticks > 10, "{ticks}");
    lines
}

#[test]
fn others_run_while_a_pipe_is_read() {
    if let Some(ticked) = util::role() {
        return print_lines_and_ticks(&ticked);
    }
    let (reader, writer) = std::io::pipe().unwrap();
    let pieces = ["o", "ne\ntwo\nthr", "ee"];
    let test = "others_run_while_a_pipe_is_read";
    let lines = feed_while_others_run(test, reader.into(), writer, pieces);
    assert_eq!(lines, [r#""one\n""#, r#""two""#, r#""three""#]);
}

#[test]
fn others_run_while_a_terminal_is_read() {
    if let Some(ticked) = util::role() {
        return print_lines_and_ticks(&ticked);
    }
    let pty = util::Pty::new();
    let input = pty.open().into();
    let pieces = ["typ", "ed\nmore\n", "\x04"];
    let test = "others_run_while_a_terminal_is_read";
    let lines = feed_while_others_run(test, input, &pty.user, pieces);
    assert_eq!(lines, [r#""typed\n""#, r#""more""#]);
}

#[test]
fn a_regular_file_is_read() {
    if let Some(ticked) = util::role() {
        return print_lines_and_ticks(&ticked);
    }
    let dir = util::Scratch::new();
    let path = dir.join("input");
    std::fs::write(&path, "one\ntwo\n").unwrap();
    let input = File::open(path).unwrap().into();
    let (lines, _) = lines_and_ticks("a_regular_file_is_read", CHILD, input, || {});
    assert_eq!(lines, [r#""one\n""#, r#""two""#]);
}

#[test]
fn standard_input_may_be_empty() {
    if let Some(ticked) = util::role() {
        return print_lines_and_ticks(&ticked);
    }
    let test = "standard_input_may_be_empty";
    let (lines, _) = lines_and_ticks(test, CHILD, Stdio::null(), || {});
    assert_eq!(lines, [r#""""#]);
}

/// Reads a line from each of two pipes: the second takes the place of the first, which stays open
/// elsewhere. Then reads a line from a pipe in non-blocking mode.
fn print_lines_of_successive_inputs() {
    util::on_workers(1, || {
        // SAFETY: both descriptors are open, and nobody here owns descriptor 0.
        let replace = |by: &PipeReader| unsafe { libc::dup2(by.as_raw_fd(), 0) };
        let mut kept = Vec::new();
        for text in ["one\n", "two\n"] {
            let (reader, mut writer) = std::io::pipe().unwrap();
            assert_eq!(replace(&reader), 0);
            let write = greenroom::spawn(move || {
                shims::thread::sleep(Duration::from_millis(20));
                writer.write_all(text.as_bytes()).unwrap();
                writer
            });
            let mut line = String::new();
            stdin().read_line(&mut line).unwrap();
            println!("line: {line:?}");
            kept.push((reader, write.join().unwrap()));
        }
        rustix::io::ioctl_fionbio(&kept[1].0, true).unwrap();
        let error = stdin().read(&mut [0]).unwrap_err();
        println!("line: {:?}", error.kind());
        println!("ticks: 0");
    });
}

#[test]
fn a_pipe_that_replaces_standard_input_is_read_next() {
    if util::role().is_some() {
        return print_lines_of_successive_inputs();
    }
    let test = "a_pipe_that_replaces_standard_input_is_read_next";
    let (lines, _) = lines_and_ticks(test, CHILD, Stdio::null(), || {});
    assert_eq!(lines, [r#""one\n""#, r#""two\n""#, "WouldBlock"]);
}

/// One wait on the descriptor is a read, the other is not.
#[test]
fn a_read_that_ends_leaves_other_waits_alone() {
    if util::role().is_some() {
        return util::on_workers(1, || {
            let wait = || greenroom::wait_fd(stdin(), greenroom::Interest::READABLE, None);
            let mut line = String::new();
            greenroom::scope(|s| {
                let reader = s.spawn(|| stdin().read_line(&mut line).unwrap());
                let waiter = s.spawn(|| {
                    wait().unwrap();
                    wait().unwrap();
                });
                reader.join().unwrap();
                waiter.join().unwrap();
            });
            println!("line: {line:?}");
            println!("ticks: 0");
        });
    }
    let (reader, mut writer) = std::io::pipe().unwrap();
    let test = "a_read_that_ends_leaves_other_waits_alone";
    let (lines, _) = lines_and_ticks(test, CHILD, reader.into(), || {
        for piece in ["line\n", "more"] {
            pause();
            writer.write_all(piece.as_bytes()).unwrap();
        }
    });
    assert_eq!(lines, [r#""line\n""#]);
}

#[test]
fn a_lock_keeps_others_out_until_it_is_dropped() {
    if util::role().is_some() {
        return util::on_workers(1, || {
            let mut lock = stdin().lock();
            let other = greenroom::spawn(|| {
                let mut rest = String::new();
                stdin().read_to_string(&mut rest).unwrap();
                println!("line: {rest:?}");
            });
            let mut line = String::new();
            lock.read_line(&mut line).unwrap();
            shims::thread::sleep(Duration::from_millis(1));
            assert!(!other.is_finished());
            drop(lock);
            other.join().unwrap();
            println!("line: {line:?}");
            println!("ticks: 0");
        });
    }
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"first\nrest\nof it").unwrap();
    drop(writer);
    let test = "a_lock_keeps_others_out_until_it_is_dropped";
    let (lines, _) = lines_and_ticks(test, CHILD, reader.into(), || {});
    assert_eq!(lines, [r#""rest\nof it""#, r#""first\n""#]);
}
