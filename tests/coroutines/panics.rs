//! What a panic ends, and what it prints. Standard error belongs to the process, so most tests run in a
//! child: this binary again, with one test and a role.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::panic::{self, AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::sync::{self, mpsc};
use greenroom::shims::thread;
use greenroom::{Builder, JoinHandle, RuntimeBuilder, Unparker, park, spawn, yield_now};

use crate::util::{self, Finally};

const MILLI: Duration = Duration::from_millis(1);

/// Runs `child` in a process of its own, where std's panic hook is in place. Returns the status and
/// standard error. `name` is the name of the calling test.
fn in_a_child(name: &str, child: impl FnOnce()) -> (ExitStatus, String) {
    if util::role().is_some() {
        // The test harness may have set a hook.
        drop(panic::take_hook());
        child();
        eprintln!("end of child");
        std::process::exit(0);
    }
    let output = util::again!(name, "child").output().unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

/// The standard error of a child that ends well.
fn stderr_of(name: &str, child: impl FnOnce()) -> String {
    let (status, stderr) = in_a_child(name, child);
    assert!(status.success(), "{status}\n{stderr}");
    assert!(stderr.contains("end of child"), "{stderr}");
    stderr
}

/// The standard error of a child that aborts.
fn stderr_of_abort(name: &str, child: impl FnOnce()) -> String {
    let (status, stderr) = in_a_child(name, child);
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{stderr}");
    stderr
}

fn occurrences(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn a_panic_prints_the_name_of_its_coroutine_and_its_message_once() {
    let name = "a_panic_prints_the_name_of_its_coroutine_and_its_message_once";
    let stderr = stderr_of(name, || {
        for workers in [1, 4] {
            util::on_workers(workers, || {
                let boom = Builder::new().name(format!("boom-{workers}"));
                let boom = boom.spawn(move || {
                    thread::sleep(MILLI);
                    panic!("message on {workers}");
                });
                boom.unwrap().join().map(|(): ()| ()).unwrap_err();
            });
        }
        let boom = Builder::new().name("boom-default".into());
        let boom = boom.spawn(|| panic!("message on default")).unwrap();
        boom.join().map(|(): ()| ()).unwrap_err();
    });
    for place in ["1", "4", "default"] {
        let headline = format!("coroutine 'boom-{place}' panicked at tests/coroutines/panics.rs:");
        assert_eq!(occurrences(&stderr, &headline), 1, "{stderr}");
        let message = format!("message on {place}\n");
        assert_eq!(occurrences(&stderr, &message), 1, "{stderr}");
    }
    assert_eq!(occurrences(&stderr, "panicked at"), 3, "{stderr}");
    assert_eq!(
        occurrences(&stderr, " (spawned at tests/coroutines/panics.rs:"),
        3,
        "{stderr}"
    );
    assert_eq!(occurrences(&stderr, "thread '"), 0, "{stderr}");
}

#[inline(never)]
fn panics_here() {
    panic!("with a backtrace");
}

#[test]
fn a_panic_prints_the_backtrace_that_is_asked_for_as_long_as_std_does() {
    let name = "a_panic_prints_the_backtrace_that_is_asked_for_as_long_as_std_does";
    if util::role().is_some() {
        drop(panic::take_hook());
        return util::on_workers(1, || {
            let boom = Builder::new().name("boom".into());
            boom.spawn(panics_here).unwrap().join().unwrap_err();
            let again = spawn(|| panic!("again")).join();
            again.map(|(): ()| ()).unwrap_err();
        });
    }
    for style in ["0", "1", "full"] {
        let mut child = util::again!(name, "child");
        // The setting for backtraces of libraries does not count.
        let child = child
            .env("RUST_BACKTRACE", style)
            .env("RUST_LIB_BACKTRACE", "0");
        let output = child.output().unwrap();
        assert!(output.status.success());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(occurrences(&stderr, "coroutine 'boom' panicked at "), 1);
        let has_frames = style != "0";
        let hints = occurrences(&stderr, "run with `RUST_BACKTRACE=1`");
        assert_eq!(hints, usize::from(!has_frames), "{stderr}");
        let (stderr, _) = stderr
            .rsplit_once("coroutine '<unnamed>' panicked")
            .unwrap();
        let count = |part| occurrences(stderr, part);
        assert_eq!(count("stack backtrace:\n"), usize::from(has_frames));
        assert_eq!(count("::panics_here"), usize::from(has_frames), "{stderr}");
        // The long form has the addresses.
        assert_eq!(count(" - ") > 0, style == "full", "{stderr}");
        // The short form has the frames of the panic and of the coroutine's closure only, as std's has.
        let is_short = style == "1";
        let details = "note: Some details are omitted, run with `RUST_BACKTRACE=full`";
        assert_eq!(count(details), usize::from(is_short), "{stderr}");
        if is_short {
            assert_eq!(count("\n   0: "), 1, "{stderr}");
            for beyond in ["short_backtrace", "panic_hook", "::root_of_coroutine"] {
                assert_eq!(count(beyond), 0, "{stderr}");
            }
        }
        if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) && style == "full" {
            assert_eq!(count("::root_of_coroutine"), 1, "{stderr}");
            for below in ["corosensei", "stack_init_trampoline", "::run_batch"] {
                assert_eq!(count(below), 0, "{stderr}");
            }
        }
    }
}

#[test]
fn a_backtrace_ends_at_the_root_of_its_coroutine() {
    let backtrace = util::on_workers(2, || {
        let capture = || std::backtrace::Backtrace::force_capture().to_string();
        spawn(move || {
            // After a switch, too.
            thread::sleep(MILLI);
            capture()
        })
        .join()
        .unwrap()
    });
    if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        let (_, beyond) = backtrace.split_once("::root_of_coroutine").unwrap();
        assert_eq!(occurrences(beyond, ": "), 0, "{backtrace}");
    }
}

#[test]
fn panics_without_name_or_message_and_panics_of_main_and_of_threads_differ_in_print() {
    let name = "panics_without_name_or_message_and_panics_of_main_and_of_threads_differ_in_print";
    let stderr = stderr_of(name, || {
        util::on_workers(1, || {
            let unnamed = spawn(|| panic_any(7));
            unnamed.join().map(|(): ()| ()).unwrap_err();
            // Threads of the pool are no coroutines.
            let job = catch_unwind(|| greenroom::unblock(|| panic!("in the pool")));
            job.map(|(): ()| ()).unwrap_err();
            let plain = std::thread::Builder::new().name("plain".into());
            let plain = plain.spawn(|| panic!("on a thread")).unwrap();
            plain.join().map(|(): ()| ()).unwrap_err();
        });
        let main = catch_unwind(|| greenroom::run(|| panic!("of main")));
        main.map(|(): ()| ()).unwrap_err();
    });
    for line in [
        "coroutine '<unnamed>' panicked at ",
        "Box<dyn Any>",
        "thread 'greenroom-pool'",
        "in the pool",
        "thread 'plain'",
        "on a thread",
        "coroutine 'main' panicked at ",
        "of main",
    ] {
        assert_eq!(occurrences(&stderr, line), 1, "{line:?} in\n{stderr}");
    }
    assert_eq!(occurrences(&stderr, "panicked at"), 4, "{stderr}");
}

#[test]
fn a_users_hook_is_called_and_nothing_else_is_printed() {
    let name = "a_users_hook_is_called_and_nothing_else_is_printed";
    let stderr = stderr_of(name, || {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        // One hook is set before the runtime starts, and one afterwards.
        panic::set_hook(Box::new(|_| {
            CALLS.fetch_add(1, SeqCst);
            let thread = thread::current();
            eprintln!("first hook: {:?}", thread.name());
        }));
        let boom = || {
            let boom = Builder::new().name("boom".into());
            let boom = boom.spawn(|| panic!("not to be printed")).unwrap();
            boom.join().map(|(): ()| ()).unwrap_err();
        };
        util::on_workers(1, boom);
        let captured = String::from("second hook");
        panic::set_hook(Box::new(move |_| {
            CALLS.fetch_add(10, SeqCst);
            eprintln!("{captured}");
        }));
        util::on_workers(4, boom);
        assert_eq!(CALLS.load(SeqCst), 11);
    });
    assert_eq!(
        occurrences(&stderr, "first hook: Some(\"boom\")"),
        1,
        "{stderr}"
    );
    assert_eq!(occurrences(&stderr, "second hook"), 1, "{stderr}");
    assert_eq!(occurrences(&stderr, "panicked"), 0, "{stderr}");
    assert_eq!(occurrences(&stderr, "not to be printed"), 0, "{stderr}");
}

#[test]
fn a_hook_without_captures_that_was_set_before_is_left_alone() {
    let name = "a_hook_without_captures_that_was_set_before_is_left_alone";
    let stderr = stderr_of(name, || {
        panic::set_hook(Box::new(|_| {}));
        util::on_workers(1, || {
            let boom = spawn(|| panic!("not to be printed"));
            boom.join().map(|(): ()| ()).unwrap_err();
        });
    });
    assert_eq!(occurrences(&stderr, "printed"), 0, "{stderr}");
}

#[test]
fn the_end_of_a_runtime_prints_nothing() {
    let name = "the_end_of_a_runtime_prints_nothing";
    let stderr = stderr_of(name, || {
        for workers in [1, 4] {
            util::on_workers(workers, || {
                for n in 0..20 {
                    spawn(move || match n % 2 {
                        0 => thread::sleep(Duration::from_secs(1_000)),
                        _ => park(),
                    });
                }
                thread::sleep(5 * MILLI);
                spawn(|| ());
            });
        }
    });
    // Nothing else was printed.
    assert_eq!(stderr, "end of child\n");
}

#[test]
fn a_join_returns_payloads_of_all_kinds() {
    #[derive(Debug, PartialEq)]
    struct Custom {
        number: u64,
        text: String,
    }
    util::everywhere(|| {
        let literal = spawn(|| resume_unwind(Box::new("a literal")));
        let payload = literal.join().map(|(): ()| ()).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"a literal"));
        let string = spawn(|| resume_unwind(Box::new(format!("number {}", 5))));
        let payload = string.join().map(|(): ()| ()).unwrap_err();
        assert_eq!(payload.downcast_ref::<String>().unwrap(), "number 5");
        let custom = || Custom {
            number: u64::MAX,
            text: "custom".into(),
        };
        let handle = spawn(move || resume_unwind(Box::new(custom())));
        let payload = handle.join().map(|(): ()| ()).unwrap_err();
        assert_eq!(*payload.downcast::<Custom>().unwrap(), custom());
        // The payload passes through a second coroutine.
        let outer = spawn(move || {
            let inner = spawn(move || resume_unwind(Box::new(custom())));
            inner
                .join()
                .map(|(): ()| ())
                .unwrap_or_else(|payload| resume_unwind(payload));
        });
        let payload = outer.join().unwrap_err();
        assert_eq!(*payload.downcast::<Custom>().unwrap(), custom());
    });
}

#[test]
fn a_panic_does_not_touch_a_hundred_others() {
    util::everywhere(|| {
        let siblings: Vec<_> = (0..100)
            .map(|n| {
                spawn(move || {
                    for _ in 0..5 {
                        thread::sleep(MILLI);
                        yield_now();
                        assert!(!std::thread::panicking());
                    }
                    n
                })
            })
            .collect();
        for _ in 0..20 {
            let panics = spawn(|| {
                thread::sleep(MILLI);
                resume_unwind(Box::new(()));
            });
            panics.join().map(|(): ()| ()).unwrap_err();
        }
        for (n, sibling) in siblings.into_iter().enumerate() {
            assert_eq!(sibling.join().unwrap(), n);
        }
    });
}

#[test]
fn a_panic_in_the_destructor_of_an_unwanted_result_ends_nothing_else() {
    struct Bomb(Arc<AtomicUsize>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
            resume_unwind(Box::new("bomb"));
        }
    }
    util::everywhere(|| {
        let blasts = Arc::new(AtomicUsize::new(0));
        let sibling = spawn(|| {
            thread::sleep(20 * MILLI);
            8
        });
        // One result is dropped by the end of the coroutine, the other by the drop of the handle.
        let bomb = Bomb(Arc::clone(&blasts));
        drop(spawn(move || {
            thread::sleep(5 * MILLI);
            bomb
        }));
        let bomb = Bomb(Arc::clone(&blasts));
        let ended = spawn(move || bomb);
        while !ended.is_finished() {
            thread::sleep(MILLI);
        }
        drop(ended);
        // The same as the payload of a panic.
        let bomb = Bomb(Arc::clone(&blasts));
        drop(spawn(move || {
            thread::sleep(5 * MILLI);
            resume_unwind(Box::new(bomb));
        }));
        assert_eq!(sibling.join().unwrap(), 8);
        while blasts.load(SeqCst) < 3 {
            thread::sleep(MILLI);
        }
        assert_eq!(spawn(|| 9).join().unwrap(), 9);
    });
}

#[test]
fn a_coroutine_that_catches_its_panic_can_wait_afterwards() {
    util::everywhere(|| {
        let survivors: Vec<_> = (0..20)
            .map(|_| {
                spawn(|| {
                    for round in 0..10 {
                        let result = catch_unwind(AssertUnwindSafe(|| {
                            thread::sleep(MILLI);
                            let nested = catch_unwind(|| resume_unwind(Box::new("inner")));
                            nested.map(|(): ()| ()).unwrap_err();
                            yield_now();
                            resume_unwind(Box::new(round));
                        }));
                        let payload = result.map(|(): ()| ()).unwrap_err();
                        assert_eq!(payload.downcast_ref(), Some(&round));
                        assert!(!std::thread::panicking());
                        let own = Unparker::current();
                        let waker = spawn(move || own.unpark());
                        park();
                        waker.join().unwrap();
                    }
                })
            })
            .collect();
        for survivor in survivors {
            survivor.join().unwrap();
        }
    });
}

#[test]
fn a_destructor_may_sleep_during_an_unwind() {
    util::everywhere(|| {
        let panics: Vec<_> = (0..5_usize)
            .map(|n| {
                spawn(move || {
                    let _sleeps = Finally(|| {
                        let start = Instant::now();
                        assert!(std::thread::panicking());
                        thread::sleep(10 * MILLI);
                        assert!(std::thread::panicking());
                        assert!(start.elapsed() >= 10 * MILLI);
                        yield_now();
                        thread::sleep(Duration::ZERO);
                        greenroom::park_timeout(MILLI);
                    });
                    resume_unwind(Box::new(n));
                })
            })
            .collect();
        let sibling = spawn(|| {
            for _ in 0..20 {
                thread::sleep(MILLI);
                assert!(!std::thread::panicking());
            }
            6
        });
        for (n, panics) in panics.into_iter().enumerate() {
            let payload = panics.join().map(|(): ()| ()).unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&n));
        }
        assert_eq!(sibling.join().unwrap(), 6);
    });
}

#[test]
fn a_destructor_may_park_for_another_thread_during_an_unwind() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let panics = spawn(|| {
                let _parks = Finally(|| {
                    let own = Unparker::current();
                    let waker = std::thread::spawn(move || {
                        std::thread::sleep(5 * MILLI);
                        own.unpark();
                    });
                    park();
                    waker.join().unwrap();
                });
                resume_unwind(Box::new("parked"));
            });
            let payload = panics.join().map(|(): ()| ()).unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&"parked"));
        });
    }
}

#[test]
fn a_read_during_an_unwind_finds_what_came_after_the_last_read() {
    util::on_workers(1, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        far.write_all(b"a").unwrap();
        assert_eq!(near.read(&mut [0; 10]).unwrap(), 1);
        far.write_all(b"b").unwrap();
        let read = Arc::new(AtomicBool::new(false));
        let reads = Arc::clone(&read);
        let panics = spawn(move || {
            let _reads = Finally(|| {
                assert_eq!((&near).read(&mut [0; 10]).unwrap(), 1);
                reads.store(true, SeqCst);
            });
            resume_unwind(Box::new("read"));
        });
        assert!(panics.join().map(|(): ()| ()).is_err());
        assert!(read.load(SeqCst));
    });
}

#[test]
fn a_read_that_would_wait_during_an_unwind_is_an_error() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut far, _) = listener.accept().unwrap();
            far.write_all(b"x").unwrap();
            let looked = Arc::new(AtomicBool::new(false));
            let panics = spawn({
                let looked = Arc::clone(&looked);
                move || {
                    let _reads = Finally(|| {
                        // A read that need not wait works.
                        let mut byte = [0];
                        assert_eq!((&near).write(b"y").unwrap(), 1);
                        (&near).read_exact(&mut byte).unwrap();
                        assert_eq!(&byte, b"x");
                        let error = (&near).read(&mut byte).unwrap_err();
                        assert_eq!(error.kind(), std::io::ErrorKind::Other);
                        assert!(error.to_string().contains("unwinding"), "{error}");
                        looked.store(true, SeqCst);
                    });
                    resume_unwind(Box::new("read"));
                }
            });
            let payload = panics.join().map(|(): ()| ()).unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&"read"));
            assert!(looked.load(SeqCst));
            far.read_exact(&mut [0]).unwrap();
        });
    }
}

#[test]
fn a_join_during_an_unwind_takes_a_result_that_is_there_and_refuses_to_deadlock() {
    let name = "a_join_during_an_unwind_takes_a_result_that_is_there_and_refuses_to_deadlock";
    util::everywhere(|| {
        let panics = spawn(|| {
            let mut ended = Some(spawn(|| 4));
            while !ended.as_ref().unwrap().is_finished() {
                yield_now();
            }
            let _joins = Finally(move || assert_eq!(ended.take().unwrap().join().unwrap(), 4));
            resume_unwind(Box::new("joined"));
        });
        let payload = panics.join().map(|(): ()| ()).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"joined"));
    });
    let stderr = stderr_of_abort(name, || {
        util::on_workers(1, || {
            let joiner = Builder::new().name("joiner".into());
            let joiner = joiner.spawn(|| {
                let joined = Builder::new().name("joined".into());
                let mut joined = Some(joined.spawn(|| ()).unwrap());
                let _joins = Finally(move || joined.take().unwrap().join().unwrap());
                resume_unwind(Box::new(()));
            });
            joiner.unwrap().join().map(|(): ()| ()).unwrap_err();
        });
    });
    for part in ["coroutine 'joiner'", "coroutine 'joined'", "same worker"] {
        assert_eq!(occurrences(&stderr, part), 1, "{stderr}");
    }
}

#[test]
fn a_destructor_that_parks_for_ever_does_not_hold_up_the_end_of_a_runtime() {
    let name = "a_destructor_that_parks_for_ever_does_not_hold_up_the_end_of_a_runtime";
    let stderr = stderr_of(name, || {
        for workers in [1, 4] {
            util::on_workers(workers, || {
                spawn(|| {
                    let _parks = Finally(park);
                    thread::sleep(Duration::from_secs(1_000));
                });
                thread::sleep(5 * MILLI);
            });
        }
    });
    assert_eq!(stderr, "end of child\n");
}

#[test]
fn coroutines_that_unwind_at_the_end_of_a_runtime_do_not_mix_up_their_panics() {
    let name = "coroutines_that_unwind_at_the_end_of_a_runtime_do_not_mix_up_their_panics";
    let stderr = stderr_of(name, || {
        util::on_workers(1, || {
            for _ in 0..5 {
                spawn(|| {
                    let _sleeps = Finally(|| thread::sleep(20 * MILLI));
                    thread::sleep(Duration::from_secs(1_000));
                });
                spawn(|| {
                    thread::sleep(Duration::from_secs(1_000));
                    eprintln!("a sleep returned before its time");
                });
            }
            thread::sleep(5 * MILLI);
        });
    });
    assert_eq!(stderr, "end of child\n");
}

#[test]
fn a_scope_in_a_destructor_during_a_panic_aborts_on_any_number_of_workers() {
    let name = "a_scope_in_a_destructor_during_a_panic_aborts_on_any_number_of_workers";
    for workers in [1, 4] {
        let stderr = stderr_of_abort(name, || {
            util::on_workers(workers, || {
                let scopes = Builder::new().name("scopes".into());
                let scopes = scopes.spawn(|| {
                    let _scopes = Finally(|| {
                        greenroom::scope(|s| drop(s.spawn(|| thread::sleep(50 * MILLI))));
                    });
                    resume_unwind(Box::new(()));
                });
                scopes.unwrap().join().map(|(): ()| ()).unwrap_err();
            });
        });
        for part in ["'scopes'", "a scope's coroutines", "same worker"] {
            assert_eq!(occurrences(&stderr, part), 1, "{stderr}");
        }
    }
}

#[test]
fn a_join_in_a_destructor_during_a_panic_aborts_on_any_worker() {
    let name = "a_join_in_a_destructor_during_a_panic_aborts_on_any_worker";
    let stderr = stderr_of_abort(name, || {
        util::on_workers(2, || {
            static STARTED: AtomicBool = AtomicBool::new(false);
            let elsewhere = Builder::new().name("elsewhere".into());
            let elsewhere = elsewhere.spawn(|| {
                STARTED.store(true, SeqCst);
                thread::sleep(50 * MILLI);
            });
            while !STARTED.load(SeqCst) {
                std::thread::sleep(MILLI); // the other worker runs it
            }
            let mut elsewhere = Some(elsewhere.unwrap());
            let _joins = Finally(move || elsewhere.take().unwrap().join().unwrap());
            resume_unwind(Box::new(()));
        });
    });
    for part in ["coroutine 'main'", "coroutine 'elsewhere'", "same worker"] {
        assert_eq!(occurrences(&stderr, part), 1, "{stderr}");
    }
}

#[test]
fn a_destructor_during_a_panic_may_join_a_coroutine_of_another_runtime() {
    let (sender, handle) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        // The coroutine starts when its runtime is run.
        sender.send(runtime.spawn(|| 7)).unwrap();
        std::thread::sleep(50 * MILLI);
        runtime.run(move || ends.recv().unwrap_err());
    });
    let mut handle = Some(handle.recv().unwrap());
    let joined = Arc::new(AtomicUsize::new(0));
    util::on_workers(1, || {
        let joined = Arc::clone(&joined);
        let panics = spawn(move || {
            let _joins = Finally(move || {
                let handle: JoinHandle<usize> = handle.take().unwrap();
                joined.store(handle.join().unwrap(), SeqCst);
            });
            resume_unwind(Box::new(()));
        });
        panics.join().map(|(): ()| ()).unwrap_err();
    });
    assert_eq!(joined.load(SeqCst), 7);
    drop(end);
    other.join().unwrap();
}

#[test]
fn wait_idle_during_a_panic_aborts() {
    let name = "wait_idle_during_a_panic_aborts";
    let stderr = stderr_of_abort(name, || {
        util::on_workers(1, || {
            spawn(|| thread::sleep(Duration::from_secs(1_000)));
            let idles = Builder::new().name("idles".into());
            let _idles = idles.spawn(|| {
                let _idles = Finally(greenroom::wait_idle);
                resume_unwind(Box::new(()));
            });
            thread::sleep(Duration::from_secs(1_000));
        });
    });
    assert_eq!(occurrences(&stderr, "'idles'"), 1, "{stderr}");
    assert_eq!(occurrences(&stderr, "all other coroutines"), 1, "{stderr}");
}

#[test]
fn a_hook_that_was_set_inside_a_runtime_does_not_hide_which_coroutine_unwinds_at_its_end() {
    let name =
        "a_hook_that_was_set_inside_a_runtime_does_not_hide_which_coroutine_unwinds_at_its_end";
    let stderr = stderr_of(name, || {
        util::on_workers(1, || {
            panic::set_hook(Box::new(|_| eprintln!("the hook")));
            let panics = Arc::new(AtomicBool::new(false));
            spawn({
                let panics = Arc::clone(&panics);
                move || {
                    let _waits = Finally(|| {
                        thread::sleep(MILLI);
                        eprintln!("waited");
                    });
                    while !panics.load(SeqCst) {
                        yield_now();
                    }
                    panic!("a test's panic");
                }
            });
            spawn(move || {
                let _lets_it_panic = Finally(|| {
                    panics.store(true, SeqCst);
                    thread::sleep(50 * MILLI);
                });
                thread::sleep(Duration::from_secs(1_000));
            });
            thread::sleep(5 * MILLI);
        });
    });
    assert_eq!(stderr, "the hook\nwaited\nend of child\n");
}

#[test]
fn a_users_hook_stays_as_it_is_whatever_runtimes_do() {
    let name = "a_users_hook_stays_as_it_is_whatever_runtimes_do";
    let stderr = stderr_of(name, || {
        util::on_workers(1, || ());
        let token = Arc::new(());
        let kept = Arc::clone(&token);
        panic::set_hook(Box::new(move |_| {
            let _ = &kept;
            eprintln!("the hook");
        }));
        for _ in 0..300 {
            util::on_workers(4, || {
                drop(spawn(|| thread::sleep(Duration::from_secs(1_000))))
            });
        }
        let _ = catch_unwind(|| panic!("a test's panic"));
        // If greenroom had wrapped the hook, its part would be left now.
        drop(panic::take_hook());
        assert_eq!(Arc::strong_count(&token), 1);
    });
    assert_eq!(stderr, "the hook\nend of child\n");
}

#[test]
fn no_hook_is_lost_that_is_set_while_runtimes_end() {
    let name = "no_hook_is_lost_that_is_set_while_runtimes_end";
    let stderr = stderr_of(name, || {
        util::on_workers(1, || ());
        let done = Arc::new(AtomicBool::new(false));
        let is_done = Arc::clone(&done);
        let other = std::thread::spawn(move || {
            while !is_done.load(SeqCst) {
                util::on_workers(1, || drop(spawn(park)));
            }
        });
        let called = Arc::new(AtomicUsize::new(0));
        for n in 1..20_000 {
            let called_here = Arc::clone(&called);
            panic::set_hook(Box::new(move |_| called_here.store(n, SeqCst)));
            let _ = catch_unwind(|| panic!("a test's panic"));
            assert_eq!(called.load(SeqCst), n);
        }
        done.store(true, SeqCst);
        other.join().unwrap();
        drop(panic::take_hook());
    });
    assert_eq!(stderr, "end of child\n");
}

#[test]
fn a_hook_may_wait_while_its_runtime_stops_and_nobody_panics_meanwhile() {
    let name = "a_hook_may_wait_while_its_runtime_stops_and_nobody_panics_meanwhile";
    let stderr = stderr_of(name, || {
        static IN_HOOK: AtomicUsize = AtomicUsize::new(0);
        panic::set_hook(Box::new(|_| {
            assert_eq!(IN_HOOK.fetch_add(1, SeqCst), 0);
            thread::sleep(5 * MILLI);
            assert_eq!(IN_HOOK.fetch_sub(1, SeqCst), 1);
            eprintln!("the hook");
        }));
        util::on_workers(1, || {
            // The oldest coroutine. It unwinds while the others are in the hook.
            spawn(|| thread::sleep(Duration::from_secs(1_000)));
            let locks = [(); 2].map(|()| Arc::new(sync::Mutex::new(0)));
            for lock in locks.clone() {
                spawn(move || {
                    thread::sleep(5 * MILLI);
                    *lock.lock().unwrap() += 1; // poisoned by then
                });
            }
            spawn(move || {
                let _guards = locks.each_ref().map(|lock| lock.lock().unwrap());
                thread::sleep(Duration::from_secs(1_000));
            });
            thread::sleep(20 * MILLI);
        });
        assert!(!std::thread::panicking(), "std's count is what it was");
        let lock = std::sync::Mutex::new(());
        let _ = catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _guard = lock.lock();
            resume_unwind(Box::new(()))
        }));
        assert!(lock.is_poisoned(), "std counts a panic as one");
    });
    assert_eq!(stderr, "the hook\nthe hook\nend of child\n");
}

#[test]
fn a_hook_may_wait_for_what_a_coroutine_of_another_worker_holds_until_it_unwinds() {
    let name = "a_hook_may_wait_for_what_a_coroutine_of_another_worker_holds_until_it_unwinds";
    let stderr = stderr_of(name, || {
        let log = Arc::new(sync::Mutex::new(()));
        let locked = Arc::clone(&log);
        panic::set_hook(Box::new(move |_| drop(locked.lock())));
        util::on_workers(2, || {
            let holder = greenroom::spawn_local(move || {
                let _log = log.lock();
                thread::sleep(Duration::from_secs(1_000));
            });
            thread::sleep(5 * MILLI);
            let (here, there) = std::sync::mpsc::channel();
            spawn(move || {
                here.send(()).unwrap();
                panic!("a test's panic");
            });
            there.recv().unwrap(); // keeps this worker, so that the other one takes it
            std::thread::sleep(20 * MILLI);
            drop(holder);
        });
    });
    assert_eq!(stderr, "end of child\n");
}

/// A hook that the user sets after the first runtime replaces the library's. Then the library does not
/// learn that a coroutine panics while others of its thread are suspended during their unwinds.
#[test]
fn a_coroutine_that_may_be_unwinding_is_not_unwound() {
    let name = "a_coroutine_that_may_be_unwinding_is_not_unwound";
    let stderr = stderr_of(name, || {
        let waits = |time: u32| Finally(move || thread::sleep(time * MILLI));
        util::on_workers(1, || {
            panic::set_hook(Box::new(|_| eprintln!("the hook")));
            let lock = Arc::new(sync::Mutex::new(0));
            spawn({
                let lock = Arc::clone(&lock);
                move || {
                    let _waits = waits(10);
                    thread::sleep(MILLI);
                    *lock.lock().unwrap() += 1; // poisoned by then
                }
            });
            spawn(move || {
                let _waits = waits(50);
                let _guard = lock.lock().unwrap();
                thread::sleep(Duration::from_secs(1_000));
            });
            thread::sleep(10 * MILLI);
        });
        util::on_workers(1, || {
            spawn(move || {
                let _waits = waits(10);
                let slept = catch_unwind(|| thread::sleep(Duration::from_secs(1_000)));
                resume_unwind(slept.unwrap_err());
            });
            spawn(move || {
                let _waits = waits(50);
                thread::sleep(Duration::from_secs(1_000));
            });
            thread::sleep(10 * MILLI);
        });
        drop(panic::take_hook());
    });
    assert_eq!(stderr, "the hook\nend of child\n");
}

#[test]
fn a_runtime_may_run_during_a_panic_of_its_thread() {
    for workers in [1, 2] {
        let ran = catch_unwind(|| {
            let _runs = Finally(|| {
                let runtime = RuntimeBuilder::new().workers(workers).build().unwrap();
                runtime.run(|| {
                    assert!(!thread::panicking());
                    let (sender, receiver) = mpsc::channel();
                    spawn(move || sender.send(7).unwrap());
                    assert_eq!(receiver.recv(), Ok(7));
                    assert_eq!(spawn(|| 8).join().unwrap(), 8);
                    let lock = Arc::new(sync::Mutex::new(()));
                    let theirs = Arc::clone(&lock);
                    let panics = spawn(move || {
                        let _guard = theirs.lock();
                        panic::resume_unwind(Box::new(()))
                    });
                    assert!(panics.join().map(|(): ()| ()).is_err());
                });
            });
            resume_unwind(Box::new("on purpose"));
        });
        let payload = ran.map(|(): ()| ()).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"on purpose"));
    }
}

#[test]
fn a_deadline_and_a_waker_may_race_for_a_coroutine_that_waits_during_a_panic() {
    util::on_workers(1, || {
        let waits = spawn(|| {
            let (me, over) = (Unparker::current(), Arc::new(AtomicBool::new(false)));
            let is_over = Arc::clone(&over);
            let waker = std::thread::spawn(move || {
                while !is_over.load(SeqCst) {
                    me.unpark();
                }
            });
            let mut waker = Some(waker);
            let _waits = Finally(|| {
                for _ in 0..20_000 {
                    greenroom::park_timeout(Duration::ZERO);
                }
                over.store(true, SeqCst);
                waker.take().unwrap().join().unwrap();
            });
            resume_unwind(Box::new(()));
        });
        assert!(waits.join().map(|(): ()| ()).is_err());
    });
}
