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

/// Reads all lines of standard input in a coroutine. Prints the lines, and the number of ticks of another
/// coroutine of its worker.
fn print_lines_and_ticks() {
    util::on_workers(1, || {
        let (ticks, over) = (AtomicUsize::new(0), AtomicUsize::new(0));
        greenroom::scope(|s| {
            s.spawn(|| {
                while over.load(Ordering::Relaxed) == 0 {
                    shims::thread::sleep(Duration::from_millis(1));
                    ticks.fetch_add(1, Ordering::Relaxed);
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

/// Runs `test` again with the standard input `input`, while `feed` may write to it. Returns the lines
/// that were read, and the ticks.
fn lines_and_ticks(test: &str, input: Stdio, feed: impl FnOnce()) -> (Vec<String>, usize) {
    let child = util::again!(test, "child")
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

#[test]
fn others_run_while_a_pipe_is_read() {
    if util::role().is_some() {
        return print_lines_and_ticks();
    }
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (lines, ticks) = lines_and_ticks("others_run_while_a_pipe_is_read", reader.into(), || {
        for piece in ["o", "ne\ntwo\nthr", "ee"] {
            pause();
            writer.write_all(piece.as_bytes()).unwrap();
        }
        drop(writer);
    });
    assert_eq!(lines, [r#""one\n""#, r#""two""#, r#""three""#]);
    assert!(ticks > 10, "{ticks}");
}

#[test]
fn others_run_while_a_terminal_is_read() {
    if util::role().is_some() {
        return print_lines_and_ticks();
    }
    let mut pty = util::Pty::new();
    let (lines, ticks) = lines_and_ticks(
        "others_run_while_a_terminal_is_read",
        pty.open().into(),
        || {
            for piece in ["typ", "ed\nmore\n", "\x04"] {
                pause();
                pty.user.write_all(piece.as_bytes()).unwrap();
            }
        },
    );
    assert_eq!(lines, [r#""typed\n""#, r#""more""#]);
    assert!(ticks > 10, "{ticks}");
}

#[test]
fn a_regular_file_is_read() {
    if util::role().is_some() {
        return print_lines_and_ticks();
    }
    let dir = util::Scratch::new();
    let path = dir.join("input");
    std::fs::write(&path, "one\ntwo\n").unwrap();
    let input = File::open(path).unwrap().into();
    let (lines, _) = lines_and_ticks("a_regular_file_is_read", input, || {});
    assert_eq!(lines, [r#""one\n""#, r#""two""#]);
}

#[test]
fn standard_input_may_be_empty() {
    if util::role().is_some() {
        return print_lines_and_ticks();
    }
    let (lines, _) = lines_and_ticks("standard_input_may_be_empty", Stdio::null(), || {});
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
    let (lines, _) = lines_and_ticks(test, Stdio::null(), || {});
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
    let (lines, _) = lines_and_ticks(test, reader.into(), || {
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
    let (lines, _) = lines_and_ticks(test, reader.into(), || {});
    assert_eq!(lines, [r#""rest\nof it""#, r#""first\n""#]);
}
