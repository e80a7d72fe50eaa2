//! Standard output and error of coroutines. Each test starts this binary again, with a pipe in the place
//! of one of them.

use std::fmt::Write as _;
use std::io::{PipeReader, Read};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{ChildStdout, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc as std_mpsc;

use greenroom::{shims, shims as std_};
use shims::io::{self, Write};
use shims::sync::mpsc::channel;
use shims::thread;

use crate::util::{self, Replaced, ms, on_workers};

/// More than a pipe holds.
const LINES: usize = 20_000;

/// Runs `test` again as `role`. `read` reads its standard output.
fn printed_by(test: &str, role: &str, read: impl FnOnce(&mut ChildStdout) -> String) -> String {
    let mut command = util::again!(test, role);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let said = read(child.stdout.as_mut().unwrap());
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    let why = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{status}\n{said}\n{why}");
    said
}

fn all(output: &mut ChildStdout) -> String {
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    said
}

/// Runs `test` again, on one worker and on four, and has it call `print`. Returns the two outputs.
fn on_one_and_on_four(test: &str, print: impl FnOnce()) -> Option<[String; 2]> {
    let Some(role) = util::role() else {
        return Some(["1", "4"].map(|workers| printed_by(test, workers, all)));
    };
    on_workers(role.parse().unwrap(), print);
    None
}

/// The rest of each line of `said` that contains `what`.
fn told<'a>(said: &'a str, what: &str) -> Vec<&'a str> {
    let found = said.lines().filter_map(|line| line.split_once(what));
    found.map(|(_, rest)| rest).collect()
}

#[test]
fn a_coroutine_that_waits_with_the_lock_keeps_all_others_out() {
    let print = || {
        let told = Arc::new(AtomicBool::new(false));
        let (began, has_begun) = channel();
        let first = thread::spawn({
            let told = Arc::clone(&told);
            move || {
                let mut out = io::stdout().lock();
                write!(out, "[first ").unwrap();
                began.send(()).unwrap();
                while !told.load(Ordering::Relaxed) {
                    thread::sleep(ms(1));
                }
                thread::sleep(ms(5));
                writeln!(out, "first]").unwrap();
            }
        });
        has_begun.recv().unwrap();
        let others = [(); 8].map(|()| {
            thread::spawn(|| {
                for _ in 0..10 {
                    writeln!(io::stdout().lock(), "[other other]").unwrap();
                }
            })
        });
        for _ in 0..20 {
            thread::yield_now();
        }
        told.store(true, Ordering::Relaxed);
        std_::println!("[main main]");
        for coroutine in others.into_iter().chain([first]) {
            coroutine.join().unwrap();
        }
    };
    let test = "a_coroutine_that_waits_with_the_lock_keeps_all_others_out";
    for said in on_one_and_on_four(test, print).into_iter().flatten() {
        let first = said.find("[first").unwrap();
        assert!(said[first..].starts_with("[first first]\n"), "{said}");
        assert_eq!(said.matches("[other other]\n").count(), 80, "{said}");
        assert_eq!(said.matches("[main main]\n").count(), 1, "{said}");
    }
}

/// The holder of the lock waits for a message. Its sender shares a worker with a coroutine that waits for
/// the lock.
#[test]
fn a_wait_for_the_lock_holds_up_no_worker() {
    let print = || {
        let (held, is_held) = channel();
        let (send, receive) = channel();
        let other = thread::spawn(move || {
            let sender = greenroom::spawn_local(move || {
                thread::sleep(ms(20));
                send.send("message").unwrap();
            });
            is_held.recv().unwrap();
            std_::println!("afterwards");
            sender.join().unwrap();
        });
        let mut out = io::stdout().lock();
        held.send(()).unwrap();
        writeln!(out, "\na {}", receive.recv().unwrap()).unwrap();
        drop(out);
        other.join().unwrap();
    };
    let test = "a_wait_for_the_lock_holds_up_no_worker";
    for said in on_one_and_on_four(test, print).into_iter().flatten() {
        assert!(said.contains("\na message\nafterwards\n"), "{said}");
    }
}

/// How often a coroutine runs while nobody reads what others print.
const TICKS: usize = 20;

/// Prints lines to `output`, which is the standard output of this process, too. Makes the file `ticked` when
/// another coroutine has run `TICKS` times while the pipe was full.
fn print_slowly<W: Write>(ticked: &Path, output: fn() -> W) {
    let (ticks, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (ticks, over) = (&ticks, &over);
    greenroom::scope(|s| {
        s.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                thread::sleep(ms(1));
                let is_full = !util::takes_more(&io::stdout());
                let tick =
                    ticks.fetch_add(is_full.into(), Ordering::Relaxed) + usize::from(is_full);
                if is_full && tick == TICKS {
                    std::fs::write(ticked, "").unwrap();
                }
            }
        });
        let printers = [0, 1].map(|printer| {
            s.spawn(move || {
                for line in 0..LINES / 2 {
                    writeln!(output(), "line {printer} {line}").unwrap();
                }
            })
        });
        for printer in printers {
            printer.join().unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    writeln!(output(), "ticks {}", ticks.load(Ordering::Relaxed)).unwrap();
    // Other processes share the mode of the descriptor.
    let flags = rustix::fs::fcntl_getfl(io::stdout()).unwrap();
    assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
}

/// Reads nothing until the pipe is nearly full, and for a while.
fn late(output: &mut ChildStdout) -> String {
    let held = || rustix::io::ioctl_fionread(&*output).unwrap();
    util::until("the pipe is filled", || held() > 32 << 10);
    std::thread::sleep(ms(300));
    all(output)
}

/// Runs `test` again, and reads nothing until others have run there while the pipe was full.
fn assert_others_run(test: &str) {
    let scratch = util::Scratch::new();
    let ticked = scratch.join("ticked");
    let said = printed_by(test, ticked.to_str().unwrap(), |output| {
        util::until("others have run", || ticked.exists());
        all(output)
    });
    assert_slowly_printed(&said);
}

fn assert_slowly_printed(said: &str) {
    for printer in 0..2 {
        let lines = told(said, &format!("line {printer} "));
        let wanted = (0..LINES / 2).map(|line| line.to_string());
        assert!(lines.into_iter().eq(wanted), "of {printer}");
    }
    let ticks: usize = told(said, "ticks ")[0].parse().unwrap();
    assert!(ticks >= TICKS, "{ticks}: others had to wait for the reader");
}

#[test]
fn others_run_while_nobody_reads_standard_output() {
    if let Some(ticked) = util::role() {
        return on_workers(1, || print_slowly(ticked.as_ref(), io::stdout));
    }
    assert_others_run("others_run_while_nobody_reads_standard_output");
}

#[test]
fn others_run_while_nobody_reads_standard_error() {
    if let Some(ticked) = util::role() {
        return on_workers(1, || {
            let replaced = Replaced::new(2, 1);
            print_slowly(ticked.as_ref(), || LineByLine(io::stderr()));
            drop(replaced);
        });
    }
    assert_others_run("others_run_while_nobody_reads_standard_error");
}

/// Writes whole lines: without a buffer, a formatted line is written in pieces.
struct LineByLine<W>(W);

impl<W: Write> Write for LineByLine<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }

    fn write_fmt(&mut self, args: std::fmt::Arguments<'_>) -> io::Result<()> {
        let mut line = String::new();
        line.write_fmt(args).unwrap();
        self.0.write_all(line.as_bytes())
    }
}

#[test]
fn a_terminal_and_a_file_take_what_is_printed() {
    let test = "a_terminal_and_a_file_take_what_is_printed";
    if util::role().is_some() {
        return on_workers(1, || {
            let printers = [0, 1].map(|n| thread::spawn(move || std_::println!("printer {n}")));
            for printer in printers {
                printer.join().unwrap();
            }
            std_::print!(
                "is a terminal: {}",
                io::IsTerminal::is_terminal(&io::stdout())
            );
        });
    }
    let scratch = util::Scratch::new();
    let path = scratch.join("output");
    let status = util::again!(test, "child")
        .stdout(std::fs::File::create(&path).unwrap())
        .status();
    assert!(status.unwrap().success());
    let said = std::fs::read_to_string(path).unwrap();
    assert!(said.contains("printer 0\nprinter 1\n"), "{said}");
    assert!(said.contains("is a terminal: false"), "{said}");

    let pty = util::Pty::new();
    let status = util::again!(test, "child").stdout(pty.open()).status();
    assert!(status.unwrap().success());
    let mut said = Vec::new();
    let mut user = pty.user;
    // A terminal whose other end is closed gives an error instead of an end.
    assert!(user.read_to_end(&mut said).is_err());
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("printer 0\r\nprinter 1\r\n"), "{said}");
    assert!(said.contains("is a terminal: true"), "{said}");
}

#[test]
fn a_prompt_that_stds_macro_has_printed_is_flushed_too() {
    let print = || {
        print!("\nprompt: ");
        io::stdout().flush().unwrap();
        std_::println!("answer");
        // Whole lines come in the order in which they were written.
        println!("std's");
        std_::println!("ours");
        println!("std's");
        std_::print!("the end of ours");
        print!("the end of std's, ");
    };
    let test = "a_prompt_that_stds_macro_has_printed_is_flushed_too";
    for said in on_one_and_on_four(test, print).into_iter().flatten() {
        let whole = "\nprompt: answer\nstd's\nours\nstd's\nthe end of std's, ";
        assert!(said.contains(whole), "{said}");
        assert!(said.ends_with("the end of ours"), "{said}");
    }
}

#[test]
fn an_imported_macro_needs_no_path() {
    let print = || {
        use std_::println;
        // std's macro would block the worker, which runs the reader, too.
        let (mut reader, writer) = io::pipe().unwrap();
        let replaced = Replaced::new(1, writer.as_raw_fd());
        drop(writer);
        let reads = thread::spawn(move || {
            let mut said = String::new();
            reader.read_to_string(&mut said).unwrap();
            said
        });
        for line in 0..LINES {
            println!("line {line}");
        }
        drop(replaced);
        assert_eq!(reads.join().unwrap().lines().count(), LINES);
    };
    on_one_and_on_four("an_imported_macro_needs_no_path", print);
}

/// Prints during the unwind.
struct PrintsWhenDropped(&'static str);

impl Drop for PrintsWhenDropped {
    fn drop(&mut self) {
        std_::println!("dropped: {}", self.0);
        std_::eprintln!("dropped: {}", self.0);
    }
}

#[test]
fn a_panic_prints_while_another_coroutine_of_its_worker_has_the_locks() {
    let print = || {
        std_::println!();
        let (held, is_held) = channel();
        let (go_on, may_go_on) = channel::<()>();
        let holder = greenroom::spawn_local(move || {
            let mut out = io::stdout().lock();
            let _err = io::stderr().lock();
            write!(out, "in the ").unwrap();
            held.send(()).unwrap();
            may_go_on.recv().unwrap();
            writeln!(out, "buffer").unwrap();
        });
        is_held.recv().unwrap();
        let panics = greenroom::spawn_local(|| {
            let _prints = PrintsWhenDropped("amid a panic");
            panic!("a message");
        });
        panics.join().unwrap_err();
        go_on.send(()).unwrap();
        holder.join().unwrap();
    };
    let test = "a_panic_prints_while_another_coroutine_of_its_worker_has_the_locks";
    for said in on_one_and_on_four(test, print).into_iter().flatten() {
        assert!(
            said.contains("\ndropped: amid a panic\nin the buffer\n"),
            "{said}"
        );
    }
}

#[test]
fn a_panic_prints_when_its_coroutine_or_another_worker_has_the_locks() {
    let print = || {
        std_::println!();
        let panics = thread::spawn(|| {
            let _prints = PrintsWhenDropped("with the locks");
            let _locks = (io::stdout().lock(), io::stderr().lock());
            let _prints_before = PrintsWhenDropped("before");
            panic!("a message");
        });
        panics.join().unwrap_err();
        let (held, is_held) = std_mpsc::channel();
        let holder = std::thread::spawn(move || {
            let locks = (io::stdout().lock(), io::stderr().lock());
            held.send(()).unwrap();
            std::thread::sleep(ms(20));
            drop(locks);
        });
        is_held.recv().unwrap();
        let panics = thread::spawn(|| {
            let _prints = PrintsWhenDropped("afterwards");
            panic!("a message");
        });
        panics.join().unwrap_err();
        holder.join().unwrap();
    };
    let test = "a_panic_prints_when_its_coroutine_or_another_worker_has_the_locks";
    for said in on_one_and_on_four(test, print).into_iter().flatten() {
        let dropped = told(&said, "dropped: ");
        assert_eq!(
            dropped,
            ["before", "with the locks", "afterwards"],
            "{said}"
        );
    }
}

#[test]
fn panics_print_while_others_take_turns_with_the_lock() {
    const ROUNDS: usize = 200;
    let print = || {
        std_::println!();
        let printers = [(); 4].map(|()| {
            thread::spawn(|| {
                for _ in 0..ROUNDS {
                    let mut out = io::stdout().lock();
                    write!(out, "[a ").unwrap();
                    thread::yield_now();
                    writeln!(out, "line]").unwrap();
                }
            })
        });
        let panickers = [(); 4].map(|()| {
            thread::spawn(|| {
                for _ in 0..ROUNDS {
                    let prints = || {
                        let _prints = util::Finally(|| std_::println!("[dropped]"));
                        std::panic::resume_unwind(Box::new("quietly"));
                    };
                    assert!(std::panic::catch_unwind(prints).is_err());
                    thread::yield_now();
                }
            })
        });
        for coroutine in printers.into_iter().chain(panickers) {
            coroutine.join().unwrap();
        }
    };
    let test = "panics_print_while_others_take_turns_with_the_lock";
    for said in on_one_and_on_four(test, print).into_iter().flatten() {
        // A line is buffered until it is whole, so nothing comes in its middle.
        assert_eq!(said.matches("[a line]\n").count(), 4 * ROUNDS);
        assert_eq!(said.matches("[dropped]\n").count(), 4 * ROUNDS);
    }
}

/// The print waits, as std's does. An error would be a panic during a panic.
#[test]
fn a_panic_waits_for_a_slow_reader_of_its_output() {
    let test = "a_panic_waits_for_a_slow_reader_of_its_output";
    if util::role().is_some() {
        return on_workers(1, || {
            let panics = thread::spawn(|| {
                let line = "x".repeat(1000);
                let _prints = util::Finally(|| {
                    for _ in 0..200 {
                        std_::println!("dropped: {line}");
                    }
                });
                panic!("a message");
            });
            panics.join().unwrap_err();
        });
    }
    let said = printed_by(test, "child", late);
    assert_eq!(told(&said, "dropped: x").len(), 200);
}

#[test]
fn a_print_that_waits_for_a_reader_unwinds_at_the_end_of_its_runtime() {
    let test = "a_print_that_waits_for_a_reader_unwinds_at_the_end_of_its_runtime";
    if let Some(role) = util::role() {
        let unwound = util::counter();
        let (reader, writer) = std::io::pipe().unwrap();
        let replaced = Replaced::new(1, writer.as_raw_fd());
        drop(writer);
        on_workers(role.parse().unwrap(), || {
            for _ in 0..3 {
                let unwound = util::Counted(Arc::clone(&unwound));
                thread::spawn(move || {
                    let _unwound = unwound;
                    loop {
                        std_::println!("a line that nobody reads");
                    }
                });
            }
            util::until("it is full", || !util::takes_more(&io::stdout()));
        });
        assert_eq!(unwound.load(Ordering::SeqCst), 3);
        // Each line is whole and comes once, and the lock is free.
        let reads = std::thread::spawn(|| read_all(reader));
        std_::println!("after it");
        io::stdout().flush().unwrap();
        drop(replaced);
        let said = reads.join().unwrap();
        let (lines, last) = said.trim_end().rsplit_once('\n').unwrap();
        assert_eq!(last, "after it");
        assert!(lines.lines().all(|line| line == "a line that nobody reads"));
        return;
    }
    for workers in ["1", "4"] {
        printed_by(test, workers, all);
    }
}

fn read_all(mut reader: PipeReader) -> String {
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    said
}

#[test]
fn exit_writes_the_rest_to_a_slow_reader() {
    let test = "exit_writes_the_rest_to_a_slow_reader";
    if util::role().is_some() {
        return on_workers(1, || {
            // Fills the pipe, and leaves a rest in the buffer.
            let mut size = 0;
            while util::takes_more(&io::stdout()) {
                size += rustix::io::write(io::stdout(), &[b'.'; 4096]).unwrap();
            }
            std_::print!("after {size}, the rest");
            // The exit waits, and no other coroutine of its worker runs meanwhile, because the exit is in
            // the middle of something that runs once in a process.
            greenroom::spawn(|| std::process::abort());
            std::process::exit(0);
        });
    }
    let said = printed_by(test, "child", late);
    let (_, rest) = said.rsplit_once('.').unwrap();
    assert!(
        rest.starts_with("after ") && rest.ends_with(", the rest"),
        "{rest}"
    );
}

#[test]
fn after_a_runtime_and_off_coroutine_the_buffer_is_the_same() {
    let test = "after_a_runtime_and_off_coroutine_the_buffer_is_the_same";
    if util::role().is_some() {
        std_::print!("\none ");
        on_workers(1, || std_::print!("two "));
        std::thread::spawn(|| std_::print!("three "))
            .join()
            .unwrap();
        on_workers(4, || {
            thread::spawn(|| std_::print!("four ")).join().unwrap();
        });
        std_::println!("five");
        return;
    }
    let said = printed_by(test, "child", all);
    assert!(said.contains("\none two three four five\n"), "{said}");
}

/// Runs as a child without standard streams.
#[test]
fn a_closed_stream_is_not_waited_for() {
    let test = "a_closed_stream_is_not_waited_for";
    if util::role().is_some() {
        on_workers(1, || {
            let closed = Replaced::closed(1);
            for _ in 0..LINES {
                std_::println!("a line");
            }
            drop(closed);
        });
        return;
    }
    printed_by(test, "child", all);
}
