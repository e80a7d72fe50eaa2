//! What standard input, output and error promise.

use super::{std, util};
use serial_test::serial;
use std::io::{self, PipeReader, Read, Stderr, StderrLock, Stdout, StdoutLock, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::process::Stdio;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use util::{Replaced, everywhere};

const _: () = {
    const fn unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
    unwind_safe::<Stdout>();
    unwind_safe::<StdoutLock<'_>>();
    unwind_safe::<StdoutLock<'static>>();
    unwind_safe::<Stderr>();
    unwind_safe::<StderrLock<'_>>();
    unwind_safe::<StderrLock<'static>>();

    const fn sent_and_shared<T: Send + Sync + Unpin>() {}
    sent_and_shared::<Stdout>();
    sent_and_shared::<Stderr>();
};

#[test]
#[serial(stdio)]
fn a_panic_leaves_nothing_locked_or_poisoned() {
    everywhere(|| {
        let lock_all = || (io::stdin().lock(), io::stdout().lock(), io::stderr().lock());
        let panics = thread::spawn(move || {
            let _locks = lock_all();
            std::panic::resume_unwind(Box::new("with all locked"));
        });
        assert!(panics.join().is_err());
        drop(lock_all());
    });
}

/// Checks that one thread waits for a lock that another holds.
fn excludes<L: 'static>(lock: fn() -> L) {
    everywhere(|| {
        let log = Arc::new(Mutex::new(Vec::new()));
        let note = move |log: &Mutex<Vec<_>>, what: &'static str| log.lock().unwrap().push(what);
        let (held, is_held) = mpsc::sync_channel(0);
        let (go_on, may_go_on) = mpsc::sync_channel::<()>(0);
        let first = thread::spawn({
            let log = Arc::clone(&log);
            move || {
                let first = lock();
                note(&log, "first has it");
                held.send(()).unwrap();
                may_go_on.recv().unwrap();
                note(&log, "first lets go");
                drop(first);
                may_go_on.recv().unwrap();
                drop(lock());
                note(&log, "first again");
            }
        });
        is_held.recv().unwrap();
        let (go_on_as_well, second_may_go_on) = mpsc::sync_channel::<()>(0);
        let (about_to, is_about_to) = mpsc::sync_channel(0);
        let second = thread::spawn({
            let log = Arc::clone(&log);
            move || {
                about_to.send(()).unwrap();
                let second = lock();
                note(&log, "second has it");
                about_to.send(()).unwrap();
                second_may_go_on.recv().unwrap();
                note(&log, "second lets go");
                drop(second);
            }
        });
        is_about_to.recv().unwrap();
        // The other thread may not wait yet. If the lock did not exclude, the log would show that.
        thread::yield_now();
        go_on.send(()).unwrap();
        is_about_to.recv().unwrap();
        go_on.send(()).unwrap();
        thread::yield_now();
        go_on_as_well.send(()).unwrap();
        second.join().unwrap();
        first.join().unwrap();
        assert_eq!(
            *log.lock().unwrap(),
            [
                "first has it",
                "first lets go",
                "second has it",
                "second lets go",
                "first again"
            ]
        );
    });
}

#[test]
#[serial(stdio)]
fn standard_input_is_locked_by_one_thread() {
    excludes(|| io::stdin().lock());
}

#[test]
#[serial(stdio)]
fn standard_output_is_locked_by_one_thread() {
    excludes(|| io::stdout().lock());
}

#[test]
#[serial(stdio)]
fn standard_error_is_locked_by_one_thread() {
    excludes(|| io::stderr().lock());
}

#[test]
#[serial(stdio)]
fn a_thread_may_lock_again_what_it_has_locked() {
    everywhere(|| {
        let (out, err) = (io::stdout(), io::stderr());
        let locks = (out.lock(), out.lock(), err.lock(), err.lock());
        let is_locked = Arc::new(Mutex::new(true));
        let other = thread::spawn({
            let is_locked = Arc::clone(&is_locked);
            move || {
                let _locks = (io::stdout().lock(), io::stderr().lock());
                *is_locked.lock().unwrap()
            }
        });
        let (out, again, err, err_again) = locks;
        drop((out, err));
        util::settle();
        *is_locked.lock().unwrap() = false;
        drop((again, err_again));
        assert!(
            !other.join().unwrap(),
            "it had the locks while they were held here"
        );
    });
}

#[test]
fn the_handles_are_those_of_descriptors_1_and_2() {
    everywhere(|| {
        let (out, err) = (io::stdout(), io::stderr());
        let (out_lock, err_lock) = (out.lock(), err.lock());
        assert_eq!((out.as_raw_fd(), out_lock.as_raw_fd()), (1, 1));
        assert_eq!((err.as_raw_fd(), err_lock.as_raw_fd()), (2, 2));
        assert_eq!(out.as_fd().as_raw_fd(), 1);
        assert_eq!(err_lock.as_fd().as_raw_fd(), 2);
        assert_eq!(format!("{out:?} {err:?}"), "Stdout { .. } Stderr { .. }");
        assert_eq!(
            format!("{out_lock:?} {err_lock:?}"),
            "StdoutLock { .. } StderrLock { .. }"
        );
    });
}

/// Runs `f` with the writing end of a pipe in the place of descriptor `fd`. `f` gets the reading end.
fn with_pipe<T>(fd: i32, f: impl FnOnce(PipeReader) -> T) -> T {
    let (reader, writer) = io::pipe().unwrap();
    // Drops the pipe's own writer, which would keep the pipe from ending.
    let replaced = Replaced::new(fd, writer.as_raw_fd());
    drop(writer);
    let result = f(reader);
    drop(replaced);
    result
}

/// Reads all bytes that are there, without waiting.
fn there(reader: &mut PipeReader) -> String {
    let mut bytes = vec![0; 100_000];
    let mut len = 0;
    while util::has_something(&*reader) {
        match reader.read(&mut bytes[len..]).unwrap() {
            0 => break,
            read => len += read,
        }
    }
    bytes.truncate(len);
    String::from_utf8(bytes).unwrap()
}

#[test]
#[serial(stdio)]
fn output_is_kept_until_its_line_is_whole() {
    if util::role().is_none() {
        return passes_alone("output_is_kept_until_its_line_is_whole");
    }
    everywhere(|| {
        with_pipe(1, |mut reader| {
            let mut out = io::stdout();
            let mut printed = |text: &str| {
                out.write_all(text.as_bytes()).unwrap();
                there(&mut reader)
            };
            assert_eq!(printed("a line"), "");
            assert_eq!(printed(" of its own\n"), "a line of its own\n");
            assert_eq!(printed("one\ntwo\nthr"), "one\ntwo\n");
            assert_eq!(printed("ee"), "");
            assert_eq!(printed("\n"), "three\n");
            // Longer than the buffer.
            let long = "long ".repeat(1000);
            let some = printed(&long);
            assert!(some.len() >= 3900, "{}", some.len());
            io::stdout().flush().unwrap();
            assert_eq!(some + &there(&mut reader), long);
            (&io::stdout()).write_all(b"flushed").unwrap();
            assert_eq!(there(&mut reader), "");
            io::stdout().lock().flush().unwrap();
            assert_eq!(there(&mut reader), "flushed");
            let pieces = [b"in ".as_slice(), b"pieces\n"].map(io::IoSlice::new);
            assert_eq!(io::stdout().write_vectored(&pieces).unwrap(), 10);
            assert_eq!(there(&mut reader), "in pieces\n");
        });
    });
}

#[test]
#[serial(stdio)]
fn errors_are_written_at_once() {
    if util::role().is_none() {
        return passes_alone("errors_are_written_at_once");
    }
    everywhere(|| {
        with_pipe(2, |mut reader| {
            let mut err = io::stderr();
            err.write_all(b"no ").unwrap();
            assert_eq!(there(&mut reader), "no ");
            write!(err.lock(), "{} {}", "whole", "line").unwrap();
            assert_eq!(there(&mut reader), "whole line");
            let pieces = [b" in ".as_slice(), b"pieces"].map(io::IoSlice::new);
            assert_eq!((&err).write_vectored(&pieces).unwrap(), 10);
            assert_eq!(there(&mut reader), " in pieces");
        });
    });
}

/// Prints while it is being formatted.
struct PrintsItself;

impl std::fmt::Display for PrintsItself {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(io::stdout(), "amid it").unwrap();
        f.write_str("itself")
    }
}

#[test]
#[serial(stdio)]
fn what_is_printed_may_print() {
    if util::role().is_none() {
        return passes_alone("what_is_printed_may_print");
    }
    everywhere(|| {
        with_pipe(1, |mut reader| {
            writeln!(io::stdout(), "prints {PrintsItself}").unwrap();
            assert_eq!(there(&mut reader), "prints amid it\nitself\n");
        });
    });
}

#[test]
#[serial(stdio)]
fn what_is_closed_takes_everything() {
    if util::role().is_none() {
        return passes_alone("what_is_closed_takes_everything");
    }
    everywhere(|| {
        let closed = (Replaced::closed(1), Replaced::closed(2));
        let mut out = io::stdout();
        writeln!(out, "a line").unwrap();
        out.write_all(&[b'x'; 5000]).unwrap();
        assert_eq!(out.write(b"line\n").unwrap(), 5);
        out.flush().unwrap();
        let mut err = io::stderr();
        assert_eq!(err.write(b"line").unwrap(), 4);
        let pieces = [b"two ".as_slice(), b"pieces"].map(io::IoSlice::new);
        assert_eq!(err.write_vectored(&pieces).unwrap(), 10);
        writeln!(err, "a line").unwrap();
        drop(closed);
    });
}

#[test]
#[serial(stdio)]
fn without_a_reader_writing_fails() {
    if util::role().is_none() {
        return passes_alone("without_a_reader_writing_fails");
    }
    everywhere(|| {
        let broken = |fd, write: fn() -> io::Result<()>| {
            with_pipe(fd, |reader| {
                drop(reader);
                write().unwrap_err().kind()
            })
        };
        assert_eq!(
            broken(2, || io::stderr().write_all(b"x")),
            io::ErrorKind::BrokenPipe
        );
        assert_eq!(
            broken(1, || writeln!(io::stdout(), "x")),
            io::ErrorKind::BrokenPipe
        );
        // The buffer keeps the line for another attempt, because the pipe has not taken the line.
        with_pipe(1, |mut reader| {
            io::stdout().flush().unwrap();
            there(&mut reader)
        });
        let said = with_pipe(1, |reader| {
            drop(reader);
            util::message_of(|| std::println!("x"))
        });
        assert!(
            said.starts_with("failed printing to stdout: Broken pipe"),
            "{said}"
        );
        with_pipe(1, |_reader| io::stdout().flush().unwrap());
        let said = with_pipe(2, |reader| {
            drop(reader);
            util::message_of(|| std::eprintln!("x"))
        });
        assert!(
            said.starts_with("failed printing to stderr: Broken pipe"),
            "{said}"
        );
    });
}

#[test]
#[serial(stdio)]
fn the_print_macros_print() {
    if util::role().is_none() {
        return passes_alone("the_print_macros_print");
    }
    everywhere(|| {
        with_pipe(1, |mut reader| {
            let (name, width) = ("name", 6);
            std::print!("");
            std::print!("{} and ", 1);
            std::println!("{name:>width$}, {0:?}, {0:#?}", Some(2), width = width);
            std::println!();
            std::println!("{{}}");
            assert_eq!(
                there(&mut reader),
                "1 and   name, Some(2), Some(\n    2,\n)\n\n{}\n"
            );
            std::print!("no line");
            assert_eq!(there(&mut reader), "");
            io::stdout().flush().unwrap();
            assert_eq!(there(&mut reader), "no line");
        });
        with_pipe(2, |mut reader| {
            let name = "name";
            std::eprint!("{} and ", 1);
            assert_eq!(there(&mut reader), "1 and ");
            std::eprintln!("{name}");
            std::eprintln!();
            assert_eq!(there(&mut reader), "name\n\n");
            #[allow(clippy::dbg_macro, reason = "it is under test")]
            let (line, values) = (line!(), std::dbg!(1 + 1, name.to_owned()));
            assert_eq!(values, (2, String::from("name")));
            let said = there(&mut reader);
            let said: Vec<_> = said
                .lines()
                .map(|line| line.split_once("] ").unwrap())
                .collect();
            assert_eq!(said[0].1, "1 + 1 = 2");
            assert_eq!(said[1].1, "name.to_owned() = \"name\"");
            assert!(
                said[0].0.starts_with(&format!("[{}:{line}:", file!())),
                "{said:?}"
            );
            #[allow(clippy::dbg_macro, reason = "it is under test")]
            let line = (line!(), std::dbg!()).0;
            assert!(there(&mut reader).starts_with(&format!("[{}:{line}:", file!())));
        });
    });
}

#[test]
fn a_child_may_have_the_same_output() {
    if util::role().is_none() {
        return passes_alone("a_child_may_have_the_same_output");
    }
    everywhere(|| {
        with_pipe(1, |mut reader| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", "echo said; echo said >&2"]);
            let status = command
                .stdout(Stdio::from(io::stdout()))
                .stderr(io::stdout())
                .status();
            assert!(status.unwrap().success());
            assert_eq!(there(&mut reader), "said\nsaid\n");
        });
        with_pipe(2, |mut reader| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", "echo said"]).stdout(io::stderr());
            assert!(command.status().unwrap().success());
            assert_eq!(there(&mut reader), "said\n");
        });
    });
}

/// Checks that the end of the process writes the rest of the buffer.
fn is_flushed_at_the_end(test: &str, end: impl Fn()) {
    if util::role().is_none() {
        let output = util::again!(test, "child").output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let told = said.split_once("begin\n").unwrap().1;
        assert!(told.contains("the rest"), "{said}");
        return;
    }
    std::print!("begin\nthe rest");
    end();
}

#[test]
fn the_rest_is_written_when_main_returns() {
    is_flushed_at_the_end("the_rest_is_written_when_main_returns", || {});
}

#[test]
fn the_rest_is_written_at_exit() {
    is_flushed_at_the_end("the_rest_is_written_at_exit", || std::process::exit(0));
}

#[test]
fn the_rest_is_written_at_exit_of_a_thread_that_has_it_locked() {
    let test = "the_rest_is_written_at_exit_of_a_thread_that_has_it_locked";
    is_flushed_at_the_end(test, || {
        let exits = thread::spawn(|| {
            let _lock = io::stdout().lock();
            std::process::exit(0);
        });
        exits.join().unwrap();
    });
}

/// The end of the process does not wait for the lock, which is never released.
#[test]
fn the_process_ends_while_another_thread_has_the_lock() {
    if util::role().is_none() {
        let test = "the_process_ends_while_another_thread_has_the_lock";
        assert!(
            util::again!(test, "child")
                .output()
                .unwrap()
                .status
                .success()
        );
        return;
    }
    let (held, is_held) = mpsc::channel();
    thread::spawn(move || {
        let lock = io::stdout().lock();
        held.send(()).unwrap();
        thread::park();
        drop(lock);
    });
    is_held.recv().unwrap();
    std::process::exit(0);
}

/// Runs `test` in a process of its own, where no test harness writes to the standard streams.
fn passes_alone(test: &str) {
    let output = util::again!(test, "child").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{why}");
    assert!(said.contains("1 passed"), "{said}");
}
