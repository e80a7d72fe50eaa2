//! `top` on a terminal of tmux, which has its screens read. The watched program is this test itself.

#[path = "../../../tests/examples/program.rs"]
mod program;
#[path = "../../../tests/util/mod.rs"]
mod util;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use greenroom::backdoor;
use greenroom::shims;
use greenroom::{Builder, CancelOnDrop, Cancelled};
use serial_test::serial;
use shims::sync::Mutex;
use shims::thread;

use program::{PATIENCE, command, have, succeed};
use util::{Finally, Scratch, until};

/// `top` in a shell, in a terminal of its own.
struct Terminal {
    /// The socket of the server of tmux.
    server: PathBuf,
    /// What the terminal was set to, before and after `top`.
    settings: [PathBuf; 2],
    screen: RefCell<String>,
}

impl Terminal {
    /// Runs `top`, and then tells how it has ended, in a terminal of so many columns and rows.
    fn run(directory: &Path, door: &Path, columns: u16, rows: u16) -> Terminal {
        let settings = ["before", "after"].map(|name| directory.join(name));
        let terminal = Terminal {
            server: directory.join("tmux"),
            settings,
            screen: RefCell::default(),
        };
        let [before, after] = terminal.settings.each_ref().map(|path| path.display());
        let (top, door) = (env!("CARGO_BIN_EXE_top"), door.display());
        let script = format!(
            "echo before; stty -g > {before}; {top} {door}; echo ended with $?; stty -g > {after}; echo told; \
             exec sleep 1000"
        );
        let (columns, rows) = (columns.to_string(), rows.to_string());
        terminal.tmux(&["new-session", "-d", "-x", &columns, "-y", &rows, &script]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut tmux = command("tmux");
        let tmux = tmux.args(["-u", "-f", "/dev/null", "-S"]).arg(&self.server);
        let output = succeed(
            tmux.env("LC_ALL", "C.UTF-8")
                .env_remove("TMUX")
                .args(arguments),
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn look(&self) -> String {
        let screen = self.tmux(&["capture-pane", "-p"]);
        self.screen.replace(screen.clone());
        screen
    }

    /// Waits until the screen is as it should be, and returns it.
    #[track_caller]
    fn wait_for(&self, what: &str, is_right: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        let mut was_right = false;
        loop {
            let screen = self.look();
            let right = is_right(&screen);
            // The first one may be half a screen: the terminal need not get all of it at once.
            if right && was_right {
                return screen;
            }
            was_right = right;
            assert!(start.elapsed() < PATIENCE, "no {what}:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[track_caller]
    fn wait_for_text(&self, text: &str) -> String {
        self.wait_for(text, |screen| screen.contains(text))
    }

    /// Ends `top` by its key, and returns the last screen. The terminal must be as it was.
    #[track_caller]
    fn quit(&self) -> String {
        self.press(&["q"]);
        let screen = self.wait_for_text("told");
        assert!(screen.contains("before\nended with 0\ntold"), "{screen}");
        let flags = "#{cursor_flag} #{alternate_on} #{keypad_cursor_flag} #{mouse_any_flag}";
        assert_eq!(self.tmux(&["display", "-p", flags]), "1 0 0 0\n");
        let [before, after] = self.settings.each_ref().map(|path| fs::read(path).unwrap());
        assert_eq!(before, after);
        screen
    }

    fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the last screen:\n{}", self.screen.borrow());
        }
        let mut tmux = command("tmux");
        let _ = tmux.arg("-S").arg(&self.server).arg("kill-server").output();
    }
}

#[track_caller]
fn named(name: &str, body: impl FnOnce() + Send + 'static) -> CancelOnDrop<()> {
    let handle = Builder::new().name(name.into()).spawn(body);
    handle.unwrap().cancel_on_drop()
}

fn sleep() {
    thread::sleep(Duration::from_secs(10_000));
}

/// Waits until those of earlier tests have ended.
fn wait_for_no_coroutines() {
    until("there is no coroutine", || greenroom::metrics().live == 0);
}

/// The lines of the table about coroutines whose names begin like that.
fn rows<'a>(screen: &'a str, name: &str) -> Vec<&'a str> {
    let lines = screen.lines();
    let has_name = |line: &&str| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.len() > 2 && words[1].starts_with(name) && words[0].parse::<u64>().is_ok()
    };
    lines.filter(has_name).collect()
}

#[inline(never)]
fn reads(mut pipe: shims::io::PipeReader) {
    let _ = std::io::Read::read(&mut pipe, &mut [0]);
    std::hint::black_box(&pipe);
}

/// Coroutines that are parked in several ways.
struct Parked {
    readers: Vec<CancelOnDrop<()>>,
    _others: [CancelOnDrop<()>; 3],
    _writers: Vec<shims::io::PipeWriter>,
}

impl Parked {
    /// Waits until all are parked.
    fn park() -> Parked {
        let (mut readers, mut writers) = (Vec::new(), Vec::new());
        for number in 0..3 {
            let (reader, writer) = shims::io::pipe().unwrap();
            writers.push(writer);
            readers.push(named(&format!("reader-{number}"), move || reads(reader)));
        }
        let sleeper = named("sleeper", sleep);
        let lock = Arc::new(Mutex::new(()));
        let locks = Arc::clone(&lock);
        let owner = named("owner", move || {
            let _guard = locks.lock();
            sleep();
        });
        until("the lock is taken", || lock.try_lock().is_err());
        let locked_out = named("locked-out", move || drop(lock.lock()));
        until("all are parked", || {
            let reasons = greenroom::parked_by_reason().unwrap();
            let expected = [("read", 3), ("sleep", 2), ("mutex", 1)];
            expected.iter().all(|reason| reasons.contains(reason))
        });
        Parked {
            readers,
            _others: [sleeper, owner, locked_out],
            _writers: writers,
        }
    }
}

#[test]
#[serial]
fn the_table_is_filtered_sorted_frozen_and_grouped_and_a_coroutine_is_cancelled() {
    if !have(&["tmux"]) {
        return;
    }
    let directory = Scratch::new();
    let backdoor = backdoor::serve(directory.join("door")).unwrap();
    wait_for_no_coroutines();
    let mut parked = Parked::park();
    let terminal = Terminal::run(&directory, backdoor.path(), 150, 14);

    // The table, and the header.
    let screen = terminal.wait_for_text("6 of 6 coroutines");
    let pid = format!("pid {}  live 6  runnable 0  ", std::process::id());
    assert!(screen.contains(&pid), "{screen}");
    let about = |screen: &str, name: &str| match rows(screen, name)[..] {
        [row] => row.to_owned(),
        _ => panic!("{name}:\n{screen}"),
    };
    for (name, waits_for) in [
        ("reader-0", " parked   reads descriptor "),
        ("sleeper", " parked   sleeps "),
        ("locked-out", " parked   waits for a mutex at 0x"),
    ] {
        let row = about(&screen, name);
        assert!(row.contains(waits_for), "{row}");
    }

    // Sorted by the name, in both directions.
    terminal.press(&[">"]);
    let in_order = |screen: &str, names: &[&str]| {
        let found = names.iter().map(|name| screen.find(&format!(" {name} ")));
        let found: Vec<_> = found.collect();
        found.iter().all(Option::is_some) && found.is_sorted()
    };
    let names = ["locked-out", "owner", "reader-0", "reader-2", "sleeper"];
    terminal.wait_for("order", |screen| {
        screen.contains("name ^") && in_order(screen, &names)
    });
    terminal.press(&["r"]);
    let mut reversed = names;
    reversed.reverse();
    terminal.wait_for("reversed order", |screen| {
        screen.contains("name v") && in_order(screen, &reversed)
    });
    terminal.press(&["r", "<"]);
    terminal.wait_for_text("id ^");

    // Filtered by a text, as it is typed.
    terminal.press(&["/", "READER-"]);
    let screen = terminal.wait_for_text("3 of 6 coroutines  with \"READER-\"");
    assert_eq!(rows(&screen, "reader-").len(), 3, "{screen}");
    assert_eq!(rows(&screen, "sleeper").len(), 0, "{screen}");
    assert!(screen.contains("filter: READER-_"), "{screen}");
    terminal.press(&["BSpace", "BSpace"]);
    terminal.wait_for_text("filter: READE_");
    terminal.press(&["Enter"]);
    terminal.wait_for("keys", |screen| {
        screen.contains("q quit") && !screen.contains("filter: ")
    });

    // The backtrace of the selected one.
    terminal.press(&["Home", "Enter"]);
    let screen = terminal.wait_for_text("screens::reads");
    assert!(screen.contains("coroutine "), "{screen}");
    terminal.press(&["Up"]);
    terminal.wait_for("scrolled backtrace", |now| now != screen);
    terminal.press(&["Escape"]);
    terminal.wait_for_text("3 of 6 coroutines");

    // Frozen: one more coroutine is counted in the header, and comes into the table later.
    terminal.press(&["f"]);
    terminal.wait_for_text("FROZEN");
    let late = named("reader-late", sleep);
    let screen = terminal.wait_for_text("live 7");
    assert!(screen.contains("3 of 6 coroutines"), "{screen}");
    terminal.press(&["f"]);
    let screen = terminal.wait_for_text("4 of 7 coroutines");
    assert!(!screen.contains("FROZEN"), "{screen}");
    assert_eq!(rows(&screen, "reader-late").len(), 1);
    drop(late);
    terminal.wait_for_text("3 of 6 coroutines");

    // Grouped: the readers wait at one place.
    terminal.press(&["g"]);
    let screen = terminal.wait_for_text("1 groups of 6 coroutines");
    assert!(rows(&screen, "*")[0].starts_with("3 "), "{screen}");
    terminal.press(&["Enter"]);
    let screen = terminal.wait_for_text("screens::reads");
    assert!(screen.contains("3 coroutines"), "{screen}");
    terminal.press(&["Escape"]);
    terminal.wait_for_text("1 groups");
    terminal.press(&["k"]);
    terminal.wait_for_text("only single coroutines are cancelled");
    terminal.press(&["g"]);
    terminal.wait_for_text("3 of 6 coroutines");

    // Cancelled after a question, which may be answered with no.
    let last = parked.readers.pop().unwrap();
    terminal.press(&[">"]);
    terminal.wait_for_text("name ^");
    terminal.press(&["End", "k"]);
    terminal.wait_for_text("'reader-2'? y/n");
    terminal.press(&["n"]);
    terminal.wait_for_text("q quit");
    assert!(!last.is_finished());
    terminal.press(&["k"]);
    terminal.wait_for_text("'reader-2'? y/n");
    terminal.press(&["y"]);
    terminal.wait_for_text(" was cancelled");
    let ended = last.into_handle().join();
    assert!(ended.unwrap_err().is::<Cancelled>());
    let screen = terminal.wait_for_text("2 of 5 coroutines");
    assert_eq!(rows(&screen, "reader-2").len(), 0, "{screen}");
    terminal.press(&["Escape"]);
    terminal.wait_for_text("5 of 5 coroutines");

    // Nothing of the table is left.
    let screen = terminal.quit();
    assert_eq!(
        screen.lines().take_while(|line| !line.is_empty()).count(),
        3
    );
}

#[test]
#[serial]
fn a_program_that_ends_is_told_and_waited_for() {
    if !have(&["tmux"]) {
        return;
    }
    let directory = Scratch::new();
    let path = directory.join("door");
    let served = backdoor::serve(&path).unwrap();
    let one = named("first", sleep);
    let terminal = Terminal::run(&directory, &path, 120, 10);
    terminal.wait_for_text("first");

    // A question that is open does not reach the next program.
    terminal.press(&["k"]);
    terminal.wait_for_text("'first'? y/n");
    drop(served);
    let screen = terminal.wait_for_text("LOST: ");
    assert!(
        !screen.contains("y/n") && screen.contains("first"),
        "{screen}"
    );
    terminal.press(&["k"]);
    terminal.wait_for_text("there is no program to ask");
    terminal.press(&["Enter"]);
    terminal.wait_for_text("there is no program to ask");
    let _two = named("second", sleep);
    let served = backdoor::serve(&path).unwrap();
    let screen = terminal.wait_for_text("second");
    assert!(!screen.contains("LOST"), "{screen}");
    assert!(!one.is_finished());

    drop(served);
    terminal.wait_for_text("LOST: ");
    terminal.quit();
}

#[test]
#[serial]
fn a_coroutine_that_holds_its_worker_is_named() {
    if !have(&["tmux"]) {
        return;
    }
    let directory = Scratch::new();
    let backdoor = backdoor::serve(directory.join("door")).unwrap();
    let release = Arc::new(AtomicBool::new(false));
    let is_released = Arc::clone(&release);
    let _release = Finally(|| release.store(true, Ordering::SeqCst));
    let _holder = named("holder", move || {
        while !is_released.load(Ordering::SeqCst) {
            std::hint::spin_loop();
        }
    });
    let terminal = Terminal::run(&directory, backdoor.path(), 120, 10);
    terminal.wait_for_text(" is held by 'holder' (");
    release.store(true, Ordering::SeqCst);
    terminal.wait_for("free workers", |screen| !screen.contains("held"));
    terminal.quit();
}

#[test]
#[serial]
fn it_ends_with_its_terminal() {
    if !have(&["tmux"]) {
        return;
    }
    let directory = Scratch::new();
    let backdoor = backdoor::serve(directory.join("door")).unwrap();
    let is_watched = || {
        let threads = fs::read_dir("/proc/self/task").unwrap();
        let names = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")));
        let of_backdoors = names.filter(|name| {
            name.as_ref()
                .is_ok_and(|name| name.starts_with("greenroom-backd"))
        });
        of_backdoors.count() > 1
    };
    let terminal = Terminal::run(&directory, backdoor.path(), 80, 24);
    terminal.wait_for_text("of 0 coroutines");
    assert!(is_watched());
    drop(terminal);
    until("it has ended", || !is_watched());
}

#[test]
#[serial]
fn any_size_of_the_terminal_will_do() {
    if !have(&["tmux"]) {
        return;
    }
    let directory = Scratch::new();
    let backdoor = backdoor::serve(directory.join("door")).unwrap();
    wait_for_no_coroutines();
    let _parked: Vec<_> = (0..50).map(|_| named("many", sleep)).collect();
    let terminal = Terminal::run(&directory, backdoor.path(), 80, 24);
    terminal.wait_for_text("50 of 50 coroutines");
    let wide = terminal.look();
    assert_eq!(rows(&wide, "many").len(), 20, "{wide}");
    for (columns, rows) in [(20, 5), (1, 1), (2, 3), (200, 2), (3, 60)] {
        terminal.resize(columns, rows);
        // Boxes and questions, too.
        terminal.press(&["?"]);
        terminal.press(&["Escape", "End", "k"]);
        terminal.press(&["n", "Enter"]);
        terminal.press(&["Escape", "Home"]);
    }
    terminal.resize(100, 40);
    let screen = terminal.wait_for("larger table", |screen| {
        // The backtrace may have come after the key that closes it.
        if screen.contains("coroutine ") {
            terminal.press(&["Escape"]);
        }
        rows(screen, "many").len() == 36
    });
    assert!(screen.contains("50 of 50 coroutines"), "{screen}");
    terminal.quit();
}

#[test]
#[serial]
fn what_is_wrong_at_the_start_is_told_before_the_screen_is_taken() {
    let run = |arguments: &[&str]| {
        let mut top = command(env!("CARGO_BIN_EXE_top"));
        let output = top.args(arguments).output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (status, complaint) = run(&[]);
    assert_eq!(status, 2);
    assert!(complaint.starts_with("usage: top PATH"), "{complaint}");
    let (status, complaint) = run(&["/nowhere"]);
    assert_eq!(
        (status, complaint.as_str()),
        (1, "top: there is no terminal\n")
    );
    if !have(&["tmux"]) {
        return;
    }
    let directory = Scratch::new();
    let nothing = directory.join("nothing");
    let terminal = Terminal::run(&directory, &nothing, 120, 10);
    let screen = terminal.wait_for_text("told");
    let complaint = "nothing: No such file or directory (os error 2)\nended with 1";
    assert!(screen.contains(complaint), "{screen}");
}
