//! Dumps: what each coroutine does, and what it waits for.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::util;
use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::sync::{Condvar, Mutex, RwLock, mpsc};
use greenroom::shims::{process, thread};
use greenroom::sync::{Event, Semaphore};
use greenroom::{
    Builder, Dump, Interest, JoinHandle, Runtime, RuntimeBuilder, channel, dump, select, wait_fd,
};
use serial_test::serial;

/// A dump that waits for the workers of a loaded machine.
fn patient() -> Dump {
    Dump::new().patience(Duration::from_secs(60))
}

fn text() -> String {
    text_of(&patient().listed(usize::MAX))
}

fn text_of(dump: &Dump) -> String {
    let mut text = Vec::new();
    dump.text(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// The lines of the text that begin with a coroutine of that name.
fn lines_of<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let quoted = format!(" '{name}'");
    let lines = text.lines().map(str::trim_start);
    lines
        .filter(|line| {
            let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
            let rest = (rest.len() < line.len())
                .then(|| rest.strip_prefix(&quoted))
                .flatten();
            rest.is_some_and(|rest| !rest.starts_with(" (tests/"))
        })
        .collect()
}

/// The one line about the coroutine of that name, and the text of its group.
fn line_of(text: &str, name: &str) -> (String, String) {
    let groups = text.split("\n\n");
    let mut found = groups.filter_map(|group| match lines_of(group, name)[..] {
        [] => None,
        [line] => Some((line.to_owned(), group.to_owned())),
        _ => panic!("{name} is there twice:\n{group}"),
    });
    let found = found.find(|(_, group)| !group.starts_with("spawned by"));
    found.unwrap_or_else(|| panic!("no {name} in:\n{text}"))
}

fn named(name: &str) -> Builder {
    Builder::new().name(name.into())
}

/// Waits until the text has that many lines about the coroutine, each with `what`.
fn wait_for_lines(name: &str, count: usize, what: &str) -> String {
    let start = Instant::now();
    loop {
        let text = text();
        let lines = lines_of(&text, name);
        if lines.len() == count && lines.iter().all(|line| line.contains(what)) {
            return text;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{what}:\n{text}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A runtime with that many workers, beside those of other tests that left theirs to the process.
fn runtime(workers: usize) -> Runtime {
    RuntimeBuilder::new().workers(workers).build().unwrap()
}

#[test]
#[serial]
fn a_hundred_coroutines_that_are_parked_in_ten_ways_are_told_apart() {
    runtime(2).run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mutex = Arc::new(Mutex::new(()));
        let rwlock = Arc::new(RwLock::new(()));
        let pair = Arc::new((Mutex::new(false), Condvar::new()));
        let event = Arc::new(Event::new());
        let semaphore = Arc::new(Semaphore::new(0));
        let (full, _unread) = mpsc::sync_channel::<u8>(1);
        full.send(0).unwrap();
        let (out, all) = channel::unbounded::<()>();
        let stop = Arc::new(AtomicBool::new(false));
        let target = {
            let event = Arc::clone(&event);
            named("ten-target").spawn(move || event.wait()).unwrap()
        };
        let held = (mutex.lock().unwrap(), rwlock.write().unwrap());
        let mut handles: Vec<JoinHandle<()>> = Vec::new();
        let mut sockets = Vec::new();
        for round in 0..10 {
            let mut spawn = |name: &str, f: Box<dyn FnOnce() + Send>| {
                handles.push(named(name).spawn(f).unwrap());
            };
            let client = TcpStream::connect(addr).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            spawn("ten-read", Box::new(move || drop(peer.read(&mut [0; 8]))));
            sockets.push(client);
            let (lock, word) = (Arc::clone(&mutex), Arc::clone(&rwlock));
            spawn("ten-mutex", Box::new(move || drop(lock.lock().unwrap())));
            spawn("ten-rwlock", Box::new(move || drop(word.read().unwrap())));
            let shared = Arc::clone(&pair);
            spawn(
                "ten-condvar",
                Box::new(move || {
                    let (lock, condvar) = &*shared;
                    let guard = lock.lock().unwrap();
                    drop(condvar.wait_while(guard, |done| !*done).unwrap());
                }),
            );
            let waited = Arc::clone(&event);
            spawn("ten-event", Box::new(move || waited.wait()));
            let permits = Arc::clone(&semaphore);
            spawn("ten-semaphore", Box::new(move || drop(permits.acquire())));
            let all = all.clone();
            spawn(
                "ten-receive",
                Box::new(move || assert!(all.recv().is_err())),
            );
            let sender = full.clone();
            spawn(
                "ten-send",
                Box::new(move || assert!(sender.send(round).is_err())),
            );
            spawn(
                "ten-sleep",
                Box::new(|| thread::sleep(Duration::from_secs(600))),
            );
            let stop = Arc::clone(&stop);
            spawn(
                "ten-park",
                Box::new(move || {
                    while !stop.load(Ordering::Acquire) {
                        thread::park();
                    }
                }),
            );
        }
        let joiner = named("ten-join")
            .spawn(move || target.join().unwrap())
            .unwrap();
        let expected = [
            ("ten-read", "reads descriptor "),
            ("ten-mutex", "waits for a mutex at 0x"),
            ("ten-rwlock", "waits for a reader-writer lock at 0x"),
            ("ten-condvar", "waits for a condition variable at 0x"),
            ("ten-event", "waits for an event at 0x"),
            ("ten-semaphore", "waits for a semaphore at 0x"),
            ("ten-receive", "receives from a channel at 0x"),
            ("ten-send", "sends to a channel at 0x"),
            ("ten-sleep", "sleeps, for "),
            ("ten-park", "waits to be unparked, for "),
        ];
        for (name, what) in expected {
            wait_for_lines(name, 10, what);
        }
        let text = wait_for_lines("ten-join", 1, "joins ");
        let (target_line, _) = line_of(&text, "ten-target");
        let (id, _) = target_line.split_once(' ').unwrap();
        let (join, _) = line_of(&text, "ten-join");
        assert!(join.contains(&format!("joins {id} 'ten-target'")), "{join}");
        // The owners of the locks.
        for name in ["ten-mutex", "ten-rwlock"] {
            for line in lines_of(&text, name) {
                assert!(line.contains(" 'main' has"), "{line}");
            }
        }
        for line in lines_of(&text, "ten-read") {
            assert!(line.contains("connected to 127.0.0.1:"), "{line}");
        }
        for line in lines_of(&text, "ten-sleep") {
            assert!(line.contains(" more at most"), "{line}");
        }
        assert!(
            lines_of(&text, "ten-read")
                .iter()
                .all(|line| line.contains("spawned by "))
        );
        // The same place, the same wait, the same stack: one group.
        for (name, _) in expected {
            let groups = text
                .split("\n\n")
                .filter(|group| !lines_of(group, name).is_empty());
            let groups: Vec<_> = groups
                .filter(|group| !group.starts_with("spawned by"))
                .collect();
            assert_eq!(groups.len(), 1, "{name}: {groups:#?}");
            assert!(
                groups[0].starts_with("10 coroutines, parked"),
                "{}",
                groups[0]
            );
            assert!(
                groups[0].contains("tests/coroutines/dumps.rs:"),
                "{}",
                groups[0]
            );
        }
        let names = expected.map(|(name, _)| name);
        check_json(&names);

        drop(held);
        drop(out);
        stop.store(true, Ordering::Release);
        *pair.0.lock().unwrap() = true;
        pair.1.notify_all();
        event.set();
        semaphore.add_permits(10);
        drop(sockets);
        joiner.join().unwrap();
        for handle in handles {
            handle.thread().unpark();
            handle.cancel();
            let _ = handle.join();
        }
    });
}

#[test]
#[serial]
fn a_pool_whose_threads_are_all_at_work_is_told_with_its_queue() {
    const THREADS: usize = 256;
    const QUEUED: usize = 40;

    util::on_workers(1, || {
        let gate = Arc::new((std::sync::Mutex::new(false), std::sync::Condvar::new()));
        let jobs: Vec<_> = (0..THREADS + QUEUED)
            .map(|_| {
                let gate = Arc::clone(&gate);
                let wait = move || {
                    let (opened, changed) = &*gate;
                    drop(changed.wait_while(opened.lock().unwrap(), |opened| !*opened));
                };
                named("pool-job")
                    .spawn(|| greenroom::unblock(wait))
                    .unwrap()
            })
            .collect();
        // The dump itself needs no thread of these.
        util::until("the dump tells of the queue", || {
            text().contains(&format!("; {QUEUED} jobs wait for a thread\n"))
        });
        let waiting = format!("{} coroutines, parked (job)", THREADS + QUEUED);
        assert!(text().contains(&waiting));
        let mut json = Vec::new();
        patient().json(&mut json).unwrap();
        const SCRIPT: &str = r#"
import json, sys
pool = json.load(sys.stdin)["pool"]
assert pool["threads"] - pool["idle"] == 256 and pool["queued"] == 40, pool
"#;
        check_by_python(SCRIPT, &json, &[]);
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        for job in jobs {
            job.join().unwrap();
        }
    });
}

/// Parses a dump with python3, and compares it with what is known.
fn check_json(names: &[&str]) {
    const SCRIPT: &str = r#"
import json, sys
dump = json.load(sys.stdin)
debug, names = sys.argv[1] == "true", sys.argv[2:]
assert dump["version"] == 1
assert len(dump["workers"]) >= 2
assert all(worker["state"] == "answered" for worker in dump["workers"] if worker["not_described"])
by_id = {c["id"]: c for c in dump["coroutines"]}
assert len(by_id) == len(dump["coroutines"])
for name in names:
    ten = [c for c in dump["coroutines"] if c["name"] == name]
    assert len(ten) == 10, (name, len(ten))
    assert {c["state"] for c in ten} == {"parked"}
    assert {c["wait"]["reason"] for c in ten} == {name[4:]}, ten[0]
    assert len({c["trace"] for c in ten}) == 1
    for c in ten:
        assert by_id[c["parent"]]["name"] == "main"
        assert "dumps.rs:" in c["spawned_at"]
        assert 0 < c["stack"]["depth"] <= c["stack"]["high_water"] <= c["stack"]["size"]
        assert c["parked_for"] >= 0
        assert (c["wakes_in"] is not None) == (name == "ten-sleep")
    frames = dump["traces"][ten[0]["trace"]]
    symbols = [symbol["name"] for frame in frames for symbol in frame["symbols"]]
    # In an optimised build the closure is inlined, and is no frame of its own.
    closure = "a_hundred_coroutines_that_are_parked"
    assert symbols and (not debug or any(closure in name for name in symbols)), symbols
    if name in ("ten-mutex", "ten-rwlock"):
        assert {by_id[c["wait"]["owner"]]["name"] for c in ten} == {"main"}
    if name == "ten-read":
        assert len({c["wait"]["descriptors"][0]["number"] for c in ten}) == 10
main = [c for c in dump["coroutines"] if c["name"] == "main" and c["state"] == "running"]
assert len(main) >= 1
join, = [c for c in dump["coroutines"] if c["name"] == "ten-join"]
assert by_id[join["wait"]["joins"][0]]["name"] == "ten-target"
"#;
    let mut json = Vec::new();
    patient().json(&mut json).unwrap();
    let debug = [if cfg!(debug_assertions) {
        "true"
    } else {
        "false"
    }];
    check_by_python(SCRIPT, &json, &[&debug, names].concat());
}

fn check_by_python(script: &str, json: &[u8], arguments: &[&str]) {
    let python = Command::new("python3")
        .args(["-c", script])
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut python) = python else {
        return eprintln!("skipped, since there is no python3 to parse JSON");
    };
    python.stdin.take().unwrap().write_all(json).unwrap();
    let output = python.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

#[test]
#[serial]
fn the_other_ways_to_wait_are_told_too() {
    runtime(1).run(|| {
        let (out, ins) = channel::unbounded::<()>();
        let event = Arc::new(Event::new());
        let (reader, writer) = io::pipe().unwrap();
        let selecting = {
            let (ins, reader) = (ins.clone(), reader.try_clone().unwrap());
            named("way-select").spawn(move || {
                select! {
                    recv(ins) -> _ => {},
                    ready(reader.as_fd(), Interest::READABLE) -> _ => {},
                }
            })
        };
        let polling = named("way-poll").spawn(move || {
            wait_fd(reader.as_fd(), Interest::READABLE, None).unwrap();
        });
        let child = named("way-child").spawn(|| {
            let mut child = process::Command::new("sleep").arg("600").spawn().unwrap();
            let waited = catch_unwind(AssertUnwindSafe(|| child.wait()));
            child.kill().unwrap();
            waited.map(drop)
        });
        let working = {
            let event = Arc::clone(&event);
            named("way-job").spawn(move || greenroom::unblock(move || event.wait()))
        };
        let scoping = {
            let event = Arc::clone(&event);
            named("way-scope").spawn(move || {
                thread::scope(|scope| drop(scope.spawn(|| event.wait())));
            })
        };
        wait_for_lines("way-select", 1, "waits for the first of several things: ");
        wait_for_lines("way-poll", 1, "waits for descriptors read ");
        wait_for_lines("way-child", 1, "waits for a child process ");
        wait_for_lines("way-job", 1, "waits for a job of a thread pool at 0x");
        let text = wait_for_lines(
            "way-scope",
            1,
            "waits for the coroutines of a scope or group",
        );
        let (select, _) = line_of(&text, "way-select");
        assert!(
            select.contains(": receives from a channel at 0x"),
            "{select}"
        );
        assert!(select.contains("; waits for descriptors read "), "{select}");
        assert!(select.contains("(pipe:["), "{select}");
        let (child_line, _) = line_of(&text, "way-child");
        assert!(child_line.contains("(process "), "{child_line}");
        out.send(()).unwrap();
        drop(writer);
        event.set();
        let child = child.unwrap();
        child.cancel();
        assert!(child.join().unwrap().is_err(), "the wait was cancelled");
        selecting.unwrap().join().unwrap();
        polling.unwrap().join().unwrap();
        working.unwrap().join().unwrap();
        scoping.unwrap().join().unwrap();
    });
}

#[test]
#[serial]
fn the_locals_of_a_coroutine_that_have_a_value_are_named() {
    greenroom::coroutine_local! {
        static COUNT: Cell<u32> = const { Cell::new(0) };
        static TEXT: String = "text".to_owned();
        static UNUSED: String = String::new();
    }
    runtime(1).run(|| {
        let has_some = named("has-locals").spawn(|| {
            COUNT.set(1);
            TEXT.with(|text| assert_eq!(text, "text"));
            thread::park();
        });
        let has_none = named("has-no-locals").spawn(thread::park);
        thread::yield_now();
        let text = text();
        let line = lines_of(&text, "has-locals")[0];
        let here = module_path!();
        let names = format!("; locals {here}::TEXT, {here}::COUNT; spawned by ");
        assert!(line.contains(&names), "{line}");
        let line = lines_of(&text, "has-no-locals")[0];
        assert!(!line.contains("; locals"), "{line}");
        let mut json = Vec::new();
        patient().json(&mut json).unwrap();
        let script = r#"
import json, sys
locals_of = {c["name"]: c["locals"] for c in json.load(sys.stdin)["coroutines"]}
assert locals_of["has-locals"] == [sys.argv[1] + "::TEXT", sys.argv[1] + "::COUNT"], locals_of
assert locals_of["has-no-locals"] == [], locals_of
"#;
        check_by_python(script, &json, &[here]);
        for parked in [has_some, has_none] {
            let parked = parked.unwrap();
            parked.thread().unpark();
            parked.join().unwrap();
        }
    });
}

#[test]
#[serial]
fn fresh_ready_and_running_coroutines_are_told_apart_and_the_spawners_are_named() {
    runtime(1).run(|| {
        let parent = named("state-parent").spawn(|| {
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = Arc::clone(&stop);
            let ready = named("state-ready").spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
            });
            let parked = named("state-parked").spawn(thread::park);
            thread::yield_now();
            // More than the worker starts before it describes its coroutines.
            let fresh = |_| named("state-fresh").spawn(|| ()).unwrap();
            let fresh: Vec<_> = (0..1000).map(fresh).collect();
            let text = text();
            let is_fresh = |group: &&str| group.contains(" coroutines, fresh, spawned at ");
            let group = text.split("\n\n").find(is_fresh).unwrap();
            assert!(!lines_of(group, "state-fresh").is_empty());
            let (running, group) = line_of(&text, "state-parent");
            assert!(group.starts_with("1 coroutine, running"), "{group}");
            let (id, _) = running.split_once(' ').unwrap();
            let by = format!("; spawned by {id} 'state-parent'");
            for (name, state) in [("ready", "ready"), ("parked", "parked (park)")] {
                let (line, group) = line_of(&text, &format!("state-{name}"));
                assert!(
                    group.starts_with(&format!("1 coroutine, {state}, ")),
                    "{group}"
                );
                assert!(line.ends_with(&by), "{line}");
            }
            let tree = text.split("\n\n").last().unwrap();
            assert!(tree.starts_with("spawned by\n"), "{tree}");
            let indent = |name: &str| {
                let line = tree.lines().find(|line| line.contains(name)).unwrap();
                line.len() - line.trim_start().len()
            };
            assert!(indent("'main'") < indent("'state-parent'"), "{tree}");
            assert!(indent("'state-parent'") < indent("'state-ready'"), "{tree}");
            let parked = parked.unwrap();
            parked.thread().unpark();
            stop.store(true, Ordering::Relaxed);
            ready.unwrap().join().unwrap();
            fresh.into_iter().for_each(|fresh| fresh.join().unwrap());
            parked.join().unwrap();
        });
        parent.unwrap().join().unwrap();
    });
}

#[test]
#[serial]
fn coroutines_of_all_workers_are_described_from_a_thread_that_is_none() {
    util::in_one_of_ten(are_described_from_a_thread_that_is_none);
}

fn are_described_from_a_thread_that_is_none() -> Result<(), String> {
    let runtime = runtime(4);
    let event = Arc::new(Event::new());
    let spawned: Vec<_> = (0..400)
        .map(|_| {
            let event = Arc::clone(&event);
            runtime.spawn(move || {
                // Each worker gets some, unless the machine lets only one of them run.
                thread::sleep(Duration::from_millis(1));
                event.wait();
            })
        })
        .collect();
    let all = Arc::clone(&event);
    let dumper = std::thread::spawn(move || {
        loop {
            let text = text_of(&patient().listed(usize::MAX));
            let is_ours = |group: &&str| {
                group.starts_with("400 coroutines, parked (event)") && group.contains("dumps.rs:")
            };
            if let Some(group) = text.split("\n\n").find(is_ours) {
                all.set();
                return group.to_owned();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    runtime.run(|| {
        spawned
            .into_iter()
            .for_each(|handle| handle.join().unwrap())
    });
    let group = dumper.join().unwrap();
    let workers = (0..4).filter(|worker| group.contains(&format!("; worker {worker}\n")));
    let is_by_several = workers.count() >= 2;
    is_by_several.then_some(()).ok_or(group)
}

#[inline(never)]
fn a_function_that_is_parked() {
    thread::park();
    // So that the call above is no jump.
    std::hint::black_box(());
}

#[inline(never)]
fn recurse(depth: u32, until: usize) {
    let frame = std::hint::black_box([depth; 64]);
    let here = &raw const frame as usize;
    if here > until {
        recurse(depth + 1, until);
    } else {
        a_function_that_is_parked();
    }
    std::hint::black_box(frame);
}

#[test]
#[serial]
fn a_coroutine_near_the_end_of_its_stack_is_walked_and_runs_on() {
    runtime(1).run(|| {
        const SIZE: usize = 64 << 10;
        let deep = named("deep").stack_size(SIZE).spawn(|| {
            let here = 0_u8;
            // Less than the unwinder needs.
            recurse(0, &raw const here as usize - SIZE + (12 << 10));
            "it has run on"
        });
        let deep = deep.unwrap();
        thread::yield_now();
        for _ in 0..3 {
            let (line, group) = line_of(&text(), "deep");
            let walked = group.matches("::recurse\n").count();
            assert!(walked > 20, "{walked}:\n{group}");
            assert!(group.contains("a_function_that_is_parked"), "{group}");
            assert!(line.contains(&format!("of {SIZE}")), "{line}");
            let used = line.split("; stack ").nth(1).unwrap();
            let used: usize = used.split(' ').next().unwrap().parse().unwrap();
            assert!(used > SIZE / 2 && used <= SIZE, "{line}");
        }
        deep.thread().unpark();
        assert_eq!(deep.join().unwrap(), "it has run on");
    });
}

#[test]
#[serial]
fn a_backtrace_begins_in_the_coroutine_and_ends_at_its_root() {
    runtime(1).run(|| {
        let parked = named("rooted").spawn(a_function_that_is_parked).unwrap();
        thread::yield_now();
        let (_, group) = line_of(&text(), "rooted");
        assert!(
            group.contains("dumps::a_function_that_is_parked\n"),
            "{group}"
        );
        for inner in [
            "run_batch",
            "drive_main",
            "run_task",
            "be_looked_at",
            "on_parent_stack",
            "corosensei",
            "stack_init",
        ] {
            assert!(!group.contains(inner), "{inner}: {group}");
        }
        let first = group
            .lines()
            .find(|line| line.trim_start().starts_with("0: "))
            .unwrap();
        assert!(
            !first.contains("roll") && !first.contains("frames"),
            "{first}"
        );
        parked.thread().unpark();
        parked.join().unwrap();
    });
}

#[test]
#[serial]
fn locks_whose_owners_wait_for_each_other_are_told_first() {
    runtime(2).run(|| {
        let locks = Arc::new((Mutex::new(()), Mutex::new(())));
        let barrier = Arc::new(greenroom::sync::Barrier::new(2));
        let lock_both = |name: &str, first_is_one: bool| {
            let (locks, barrier) = (Arc::clone(&locks), Arc::clone(&barrier));
            named(name).spawn(move || {
                let (first, second) = match first_is_one {
                    true => (&locks.0, &locks.1),
                    false => (&locks.1, &locks.0),
                };
                let _first = first.lock().unwrap();
                barrier.wait().unwrap();
                let _second = second.lock().unwrap();
            })
        };
        let stuck = [lock_both("cycle-a", true), lock_both("cycle-b", false)];
        let text = wait_for_lines("cycle-a", 2, "waits for a mutex");
        let cycle = text.split("\n\n").nth(1).unwrap();
        assert!(
            cycle.starts_with("these coroutines wait for each other"),
            "{text}"
        );
        assert_eq!(cycle.lines().count(), 3, "{cycle}");
        let has = |waiter: &str, owner: &str| {
            let line = lines_of(cycle, waiter)[0];
            assert!(line.ends_with(&format!(" '{owner}' has")), "{line}");
        };
        has("cycle-a", "cycle-b");
        has("cycle-b", "cycle-a");
        let mut json = Vec::new();
        patient().json(&mut json).unwrap();
        let script = r#"
import json, sys
dump = json.load(sys.stdin)
names = {c["id"]: c["name"] for c in dump["coroutines"]}
cycle, = dump["cycles"]
assert sorted(names[id] for id in cycle) == ["cycle-a", "cycle-b"], dump["cycles"]
"#;
        check_by_python(script, &json, &[]);
        // Nothing can end them. They are left behind.
        std::mem::forget(stuck);
    });
}

#[inline(never)]
fn compute_until(stop: &AtomicBool, computes: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        computes.store(true, Ordering::Relaxed);
        std::hint::spin_loop();
    }
}

#[test]
#[serial]
fn a_worker_that_is_held_is_left_out_and_named() {
    runtime(2).run(|| {
        let (stop, spins) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let holds = {
            let (stop, spins) = (Arc::clone(&stop), Arc::clone(&spins));
            let spin = move || compute_until(&stop, &spins);
            named("spinner").spawn(spin).unwrap()
        };
        // A coroutine has an id from when it is asked for.
        let _ = holds.thread().id();
        let dumper = std::thread::spawn(move || {
            while !spins.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            // A process that is stopped for a moment has workers that do not answer in time, and threads whose
            // stack cannot be copied in time.
            let mut dumps = (0..100).map(|_| {
                let dump = Dump::new().patience(Duration::from_millis(50));
                let mut json = Vec::new();
                dump.json(&mut json).unwrap();
                (text_of(&dump), String::from_utf8(json).unwrap())
            });
            let is_whole = |dump: &str| {
                dump.contains("spinner")
                    && (cfg!(not(all(target_arch = "x86_64", target_env = "gnu")))
                        || dump.contains("compute_until"))
            };
            let found = dumps.find(|(text, json)| is_whole(text) && is_whole(json));
            stop.store(true, Ordering::Relaxed);
            found.expect("a dump that names what holds the worker")
        });
        holds.join().unwrap();
        let (text, json) = greenroom::join_thread(dumper).unwrap();
        let line = text.lines().find(|line| line.contains("'spinner'"));
        let line = line.unwrap();
        assert!(
            line.contains(" has not answered, since coroutine "),
            "{line}"
        );
        assert!(line.contains(" 'spinner', spawned at tests"), "{line}");
        assert!(line.contains(", holds it and computes; it had "), "{line}");
        let script = r#"
import json, sys
dump = json.load(sys.stdin)
holders = [worker["holder"] for worker in dump["workers"] if worker["holder"]]
holder, = [holder for holder in holders if holder["name"] == "spinner"]
assert holder["id"] > 0 and holder["system_call"] is None, holder
"#;
        check_by_python(script, json.as_bytes(), &[]);
    });
}

#[test]
#[serial]
fn coroutines_that_keep_a_runtime_from_ending_are_told() {
    let stop = Arc::new(AtomicBool::new(false));
    let ending = {
        let stop = Arc::clone(&stop);
        move || {
            greenroom::shield(|| {
                while !stop.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
    };
    let dumper = std::thread::spawn(move || {
        loop {
            let text = text_of(&patient());
            if !text.contains("'main'") && !lines_of(&text, "ending").is_empty() {
                stop.store(true, Ordering::Relaxed);
                return text;
            }
        }
    });
    // The end of the runtime waits for the coroutine.
    runtime(1).run(|| {
        drop(named("ending").spawn(ending).unwrap());
        thread::yield_now();
    });
    let text = dumper.join().unwrap();
    let (line, group) = line_of(&text, "ending");
    assert!(group.starts_with("1 coroutine, "), "{group}");
    assert!(
        !group.contains("(sleep)") || line.contains(" sleeps, for "),
        "{line}"
    );
}

#[test]
#[serial]
fn a_writer_that_fails_or_panics_gives_its_error_or_panic_to_the_caller() {
    struct Fails;
    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    struct Panics;
    impl Write for Panics {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            panic!("a writer's panic")
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    runtime(1).run(|| {
        let parked = thread::spawn(thread::park);
        thread::yield_now();
        for _ in 0..2 {
            let error = dump(Fails).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            let error = Dump::new().json(Fails).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            let panic = catch_unwind(|| dump(Panics)).unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"a writer's panic"));
        }
        assert!(text().contains("parked (park)"));
        parked.thread().unpark();
        parked.join().unwrap();
    });
}

#[test]
#[serial]
fn coroutines_may_start_wait_and_end_while_they_are_dumped() {
    runtime(2).run(|| {
        let stop = Arc::new(AtomicBool::new(false));
        let busy: Vec<_> = (0..4)
            .map(|_| {
                let stop = Arc::clone(&stop);
                thread::spawn(move || {
                    let mut done = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        let (send, receive) = mpsc::channel();
                        let workers: Vec<_> = (0..8)
                            .map(|n| {
                                let send = send.clone();
                                thread::spawn(move || {
                                    thread::sleep(Duration::from_micros(n));
                                    send.send(n).unwrap();
                                })
                            })
                            .collect();
                        drop(send);
                        assert_eq!(receive.iter().sum::<u64>(), 28);
                        workers
                            .into_iter()
                            .for_each(|worker| worker.join().unwrap());
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        for round in 0..40 {
            match round % 2 {
                0 => drop(text()),
                _ => patient().json(io::sink()).unwrap(),
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(busy.into_iter().all(|busy| busy.join().unwrap() > 0));
    });
}

#[test]
#[serial]
#[cfg_attr(
    debug_assertions,
    ignore = "for an optimised build: cargo test --release"
)]
fn a_hundred_thousand_coroutines_are_dumped_in_seconds_while_others_run_on() {
    const COUNT: usize = 100_000;
    runtime(2).run(|| {
        let (event, started) = (Arc::new(Event::new()), Arc::new(AtomicUsize::new(0)));
        let parked: Vec<_> = (0..COUNT)
            .map(|_| {
                let (event, started) = (Arc::clone(&event), Arc::clone(&started));
                thread::spawn(move || {
                    started.fetch_add(1, Ordering::Relaxed);
                    event.wait();
                })
            })
            .collect();
        while started.load(Ordering::Relaxed) < COUNT {
            thread::sleep(Duration::from_millis(10));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let longest = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut longest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    let before = Instant::now();
                    thread::sleep(Duration::from_millis(1));
                    longest = longest.max(before.elapsed());
                }
                longest
            })
        };
        let start = Instant::now();
        let text = text_of(&patient());
        let took = start.elapsed();
        let is_group = |group: &&str| group.starts_with("100000 coroutines, parked (event)");
        let group = text.split("\n\n").find(is_group);
        assert!(group.is_some_and(|group| group.contains("and 99984 more")), "{text}");
        let mut json = Vec::new();
        patient().json(&mut json).unwrap();
        stop.store(true, Ordering::Relaxed);
        let longest = longest.join().unwrap();
        println!("{took:?} for the text; the longest sleep of a millisecond took {longest:?}");
        let script = r#"
import json, sys
dump = json.load(sys.stdin)
assert sum(c["state"] == "parked" and c["wait"]["reason"] == "event" for c in dump["coroutines"]) == 100000
"#;
        check_by_python(script, &json, &[]);
        // Far from the quarter of a second that it takes an idle machine, and far from a minute.
        assert!(took < Duration::from_secs(30), "{took:?}");
        event.set();
        parked.into_iter().for_each(|parked| parked.join().unwrap());
    });
}

#[test]
#[serial]
fn a_signal_of_choice_has_a_dump_written_to_standard_error_each_time() {
    const NAME: &str = "a_signal_of_choice_has_a_dump_written_to_standard_error_each_time";
    if util::role().is_some() {
        greenroom::dump_on_signal(greenroom::signal::SIGUSR2).unwrap();
        runtime(1).run(|| {
            let _parked = named("signalled").spawn(thread::park).unwrap();
            for _ in 0..2 {
                // SAFETY: the calls have no preconditions.
                let sent = unsafe { libc::kill(libc::getpid(), libc::SIGUSR2) };
                assert_eq!(sent, 0);
                // Until the test, which reads standard error, writes a line.
                thread::sleep(Duration::from_millis(1));
                let line = greenroom::unblock(|| io::stdin().lines().next());
                assert_eq!(line.unwrap().unwrap(), "read");
            }
        });
        return;
    }
    let mut child = util::again!(NAME, "child")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = io::BufRead::lines(io::BufReader::new(child.stderr.take().unwrap()));
    for _ in 0..2 {
        let mut until = |what: &str| {
            let is_it = |line: &String| {
                // The machine has stood still for a while. The rest of this dump tells nothing.
                if line.contains("has not answered") {
                    // SAFETY: the child has not been waited for.
                    let sent = unsafe { libc::kill(child.id() as i32, libc::SIGUSR2) };
                    assert_eq!(sent, 0);
                }
                line.contains(what)
            };
            let line = lines.by_ref().map(Result::unwrap).find(is_it);
            line.unwrap_or_else(|| panic!("no {what}"))
        };
        until("greenroom: ");
        until("'signalled' waits to be unparked");
        until("spawned by");
        writeln!(child.stdin.as_ref().unwrap(), "read").unwrap();
    }
    let rest: Vec<_> = lines.map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success(), "{rest:#?}");
}

#[test]
#[serial]
fn a_worker_with_many_coroutines_is_waited_for_while_it_describes_them() {
    const COUNT: usize = 20_000;
    // All of them take longer than this.
    let impatient = Dump::new().patience(Duration::from_millis(50)).listed(1);
    let asking = runtime(1).run(|| {
        let parked: Vec<_> = (0..COUNT).map(|_| greenroom::spawn(thread::park)).collect();
        util::until("all are parked", || {
            let reasons = greenroom::parked_by_reason().unwrap();
            reasons.contains(&("park", COUNT))
        });
        // On a busy machine, the worker may be without a processor for so long.
        let asking = std::thread::spawn(move || {
            let all = format!("{COUNT} coroutines, parked (park)");
            util::until("all are described", || text_of(&impatient).contains(&all));
        });
        let asked = greenroom::join_thread(asking);
        for parked in parked {
            parked.thread().unpark();
            parked.join().unwrap();
        }
        asked
    });
    asking.unwrap();
}
