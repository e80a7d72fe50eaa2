//! What may live across a wait, and what does not compile.
//!
//! A coroutine stays on its thread, so its stack may hold anything during a wait. What moves into
//! *another* coroutine must be `Send`, and must not borrow, unless the coroutine is scoped.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::{Rc, Weak};
use std::sync::{Mutex, RwLock};
use std::thread::ThreadId;
use std::time::Duration;

use greenroom::shims::io::{Read, Write};
use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::thread;

use crate::util;

/// Runs `body` in a hundred coroutines at once, on one worker and on four.
fn in_a_hundred_coroutines(body: fn(usize)) {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let crowd: Vec<_> = (0..100).map(|n| thread::spawn(move || body(n))).collect();
            for coroutine in crowd {
                coroutine.join().unwrap();
            }
        });
    }
}

/// Waits in every way, so that other coroutines of the worker run. Checks that the thread is the same
/// afterwards.
fn wait_in_all_ways() {
    let before: ThreadId = std::thread::current().id();
    thread::yield_now();
    thread::sleep(Duration::from_millis(1));
    greenroom::park_timeout(Duration::from_millis(1));
    let me = greenroom::Unparker::current();
    thread::spawn(move || me.unpark());
    greenroom::park();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let echo = thread::spawn(move || {
        let (mut far, _) = listener.accept().unwrap();
        let mut byte = [0];
        far.read_exact(&mut byte).unwrap();
        far.write_all(&byte).unwrap();
    });
    near.write_all(b"x").unwrap();
    near.read_exact(&mut [0]).unwrap();
    echo.join().unwrap();
    greenroom::unblock(|| ());
    assert_eq!(std::thread::current().id(), before);
}

#[test]
fn reference_counts_that_are_not_atomic_live_across_a_wait() {
    thread_local! {
        /// All coroutines of the thread clone and drop it.
        static OF_THE_THREAD: Rc<Cell<usize>> = Rc::default();
    }
    in_a_hundred_coroutines(|n| {
        let own = Rc::new(Cell::new(n));
        let shared = OF_THE_THREAD.with(Rc::clone);
        let weak: Weak<Cell<usize>> = Rc::downgrade(&own);
        let seen = shared.get();
        for _ in 0..3 {
            let clone = Rc::clone(&own);
            let of_thread = Rc::clone(&shared);
            wait_in_all_ways();
            clone.set(clone.get() + 1);
            of_thread.set(of_thread.get() + 1);
        }
        assert_eq!(own.get(), n + 3);
        assert!(shared.get() >= seen + 3);
        assert!(OF_THE_THREAD.with(|now| Rc::ptr_eq(now, &shared)));
        assert_eq!(Rc::strong_count(&own), 1);
        drop(own);
        assert!(weak.upgrade().is_none());
    });
}

#[test]
fn borrows_of_a_ref_cell_live_across_a_wait() {
    in_a_hundred_coroutines(|n| {
        let notes = Rc::new(RefCell::new(vec![n]));
        let other = greenroom::spawn_local({
            let notes = Rc::clone(&notes);
            move || notes.try_borrow_mut().map(|_| ()).map_err(|_| ())
        });
        let mut borrowed = notes.borrow_mut();
        wait_in_all_ways();
        borrowed.push(n + 1);
        assert_eq!(other.join().unwrap(), Err(()), "it was borrowed meanwhile");
        drop(borrowed);
        assert_eq!(*notes.borrow(), [n, n + 1]);
    });
}

#[test]
fn guards_of_stds_locks_live_across_a_wait() {
    in_a_hundred_coroutines(|n| {
        let mutex = Mutex::new(n);
        let lock = RwLock::new(n);
        let mut guard = mutex.lock().unwrap();
        let reader = lock.read().unwrap();
        greenroom::scope(|s| {
            let taken = s.spawn(|| mutex.try_lock().is_err() && lock.try_write().is_err());
            assert!(taken.join().unwrap(), "they are locked meanwhile");
        });
        wait_in_all_ways();
        *guard += *reader;
        drop((guard, reader));
        assert_eq!(*mutex.try_lock().unwrap(), 2 * n);
        assert!(!mutex.is_poisoned());
        *lock.try_write().unwrap() += 1;
    });
}

#[test]
fn a_borrow_from_a_thread_local_lives_across_a_wait() {
    thread_local!(static COUNT: Cell<u64> = const { Cell::new(0) });
    in_a_hundred_coroutines(|_| {
        COUNT.with(|count| {
            let address = std::ptr::from_ref(count);
            let before = count.get();
            wait_in_all_ways();
            count.set(count.get() + 1);
            assert!(count.get() > before);
            assert_eq!(COUNT.with(std::ptr::from_ref), address);
        });
    });
}

/// An error of the compiler, or one that is expected: its line, its code, and some words of its text.
///
/// Only names are expected in the text, because the compiler may change the rest.
#[derive(Debug)]
struct Error {
    line: usize,
    code: String,
    text: String,
}

/// The expected errors: lines that end in `//~ CODE WORDS`. The code is `-` for errors without one.
fn demands(source: &str) -> Vec<Error> {
    let mut demands = Vec::new();
    for (index, line) in source.lines().enumerate() {
        if let Some((_, demand)) = line.split_once("//~ ") {
            let (code, text) = demand.split_once(' ').expect("a code and words");
            let code = if code == "-" { "" } else { code };
            let (line, code, text) = (index + 1, code.to_owned(), text.to_owned());
            demands.push(Error { line, code, text });
        }
    }
    demands
}

/// The errors that rustc has printed, in the form `error[CODE]: ...\n --> FILE:LINE:...`.
fn errors(printed: &str) -> Vec<Error> {
    let mut texts: Vec<String> = Vec::new();
    for line in printed.lines() {
        if line.starts_with("error") || line.starts_with("warning") {
            texts.push(String::new());
        }
        if let Some(text) = texts.last_mut() {
            text.push_str(line);
            text.push('\n');
        }
    }
    let parse = |text: String| {
        let rest = text.strip_prefix("error")?;
        let code = match rest.strip_prefix('[') {
            Some(coded) => coded.split_once(']')?.0.to_owned(),
            None => String::new(),
        };
        // The last error, which only counts the others, has no place.
        let (_, place) = text.split_once("--> ")?;
        let line = place.lines().next()?.rsplit(':').nth(1)?.parse().ok()?;
        Some(Error { line, code, text })
    };
    texts.into_iter().filter_map(parse).collect()
}

/// The library that this test is linked with. Only cargo knows for sure which one that is.
fn library() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let directory = std::env::current_exe().unwrap();
    let profile = directory.parent().and_then(Path::parent).unwrap();
    let profile = match profile.file_name().unwrap().to_str().unwrap() {
        "debug" => "test",
        other => other,
    };
    // This is the command that has built this test, so cargo has nothing left to do.
    let output = Command::new(cargo)
        .args(["test", "--no-run", "--offline"])
        .args(["--test", env!("CARGO_CRATE_NAME")])
        .args(["--message-format", "json", "--profile", profile])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let messages = String::from_utf8(output.stdout).unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    let is_library = |name: &&str| name.contains("/libgreenroom-") && name.ends_with(".rlib");
    let library = messages.split('"').find(is_library);
    library
        .unwrap_or_else(|| panic!("no library: {complaints}"))
        .into()
}

/// Compiles `tests/compile/{name}.rs` with this `--cfg`. Checks that exactly the expected errors come.
fn is_refused_as(name: &str, cfg: &str) {
    let library = library();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/compile/{name}.rs"));
    let mut linked = OsString::from("greenroom=");
    linked.push(&library);
    let mut dependencies = OsString::from("dependency=");
    dependencies.push(library.parent().unwrap());
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{cfg}.rmeta"));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args([
            "--edition",
            "2024",
            "--emit",
            "metadata",
            "--cap-lints",
            "allow",
            "--cfg",
            cfg,
            "--extern",
        ])
        .arg(linked)
        .arg("-L")
        .arg(dependencies)
        .arg("-o")
        .arg(out)
        .args(
            std::env::var("RUSTFLAGS")
                .unwrap_or_default()
                .split_whitespace(),
        )
        .arg(&path)
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    let errors = errors(&printed);

    let demands = demands(&fs::read_to_string(path).unwrap());
    let places = |of: &[Error]| -> BTreeSet<(usize, String)> {
        of.iter()
            .map(|error| (error.line, error.code.clone()))
            .collect()
    };
    assert!(!output.status.success(), "{name}.rs compiles");
    assert_eq!(places(&errors), places(&demands), "{printed}");
    for demand in demands {
        let named = |error: &Error| error.line == demand.line && error.text.contains(&demand.text);
        assert!(errors.iter().any(named), "no {} in {printed}", demand.text);
    }
}

/// Compiles `tests/compile/{name}.rs`. Checks that exactly the expected errors come.
fn is_refused(name: &str) {
    is_refused_as(name, "of_shims");
}

#[test]
fn a_value_that_is_not_send_does_not_reach_another_coroutine() {
    is_refused("send");
}

#[test]
fn a_borrow_does_not_outlive_its_owner() {
    is_refused("lifetimes");
}

#[test]
fn the_shims_refuse_what_stds_threads_refuse() {
    for cfg in ["of_std", "of_shims"] {
        is_refused_as("thread", cfg);
    }
}
