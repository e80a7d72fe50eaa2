//! The stop of a runtime from anywhere, and the hooks of its end.

use std::mem::MaybeUninit;
use std::os::unix::thread::JoinHandleExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use greenroom::shims::thread::sleep;
use greenroom::{
    Cancelled, Handle, Runtime, RuntimeBuilder, Turn, catch_cancel, channel, shield, spawn,
    wait_idle, yield_now,
};

use crate::util::{message, ms, on_an_os_thread, settle};

const LONG: Duration = Duration::from_secs(1_000);

fn runtime(workers: usize) -> Runtime {
    RuntimeBuilder::new().workers(workers).build().unwrap()
}

/// Runs `test` with a runtime of one worker, and with one of four. Aborts if that hangs.
fn with_runtimes(test: impl Fn(Runtime)) {
    for workers in [1, 4] {
        on_an_os_thread(|| test(runtime(workers)));
    }
}

/// What happens, in its order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, what: &str) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Notes its drop.
struct Noted(Log, &'static str);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.note(self.1);
    }
}

fn is_cancelled<T>(result: std::thread::Result<T>) -> bool {
    result.is_err_and(|payload| payload.is::<Cancelled>())
}

#[test]
fn a_stop_by_a_coroutine_cancels_the_main_coroutine() {
    with_runtimes(|runtime| {
        let log = Log::default();
        let run = || {
            runtime.run(|| {
                let _main = Noted(log.clone(), "main");
                let log = log.clone();
                spawn(move || {
                    let _other = Noted(log, "other");
                    Handle::current().unwrap().stop();
                    sleep(LONG);
                });
                sleep(LONG);
            });
        };
        assert!(is_cancelled(catch_unwind(AssertUnwindSafe(run))));
        assert_eq!(log.take(), ["main", "other"]);
    });
}

#[test]
fn a_stop_by_the_main_coroutine_itself_ends_its_next_wait() {
    with_runtimes(|runtime| {
        let stopped = runtime.run(|| {
            Handle::current().unwrap().stop();
            catch_cancel(|| sleep(LONG))
        });
        assert_eq!(stopped, Err(Cancelled));
    });
}

#[test]
fn a_stop_by_an_os_thread_ends_a_run() {
    with_runtimes(|runtime| {
        let handle = runtime.handle();
        assert!(!handle.is_stopping());
        let thread = std::thread::spawn(move || {
            settle();
            handle.stop();
            handle
        });
        assert_eq!(runtime.run(|| catch_cancel(|| sleep(LONG))), Err(Cancelled));
        assert!(thread.join().unwrap().is_stopping());
    });
}

#[test]
fn a_stop_by_an_os_thread_ends_a_turn() {
    with_runtimes(|runtime| {
        let log = Log::default();
        let sleeper = Noted(log.clone(), "sleeper");
        runtime.spawn(move || {
            let _sleeper = sleeper;
            sleep(LONG);
        });
        let handle = runtime.handle();
        let thread = std::thread::spawn(move || {
            settle();
            handle.stop();
        });
        while runtime.turn(None) != Turn::Stopped {}
        assert_eq!(runtime.turn(None), Turn::Stopped, "it does not wait");
        thread.join().unwrap();
        assert_eq!(log.take(), [""; 0]);
        drop(runtime);
        assert_eq!(log.take(), ["sleeper"]);
    });
}

/// The thread that waits for signals blocks this one for itself alone, and the signal is sent to it.
#[test]
fn a_stop_by_a_thread_that_waits_for_signals_ends_a_run() {
    with_runtimes(|runtime| {
        let handle = runtime.handle();
        let (tell, told) = mpsc::channel();
        let waits = std::thread::spawn(move || {
            let mut set = MaybeUninit::uninit();
            let mut signal = 0;
            // SAFETY: the set is initialised by the first call, and all pointers are valid.
            unsafe {
                libc::sigemptyset(set.as_mut_ptr());
                libc::sigaddset(set.as_mut_ptr(), libc::SIGUSR2);
                libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
                tell.send(()).unwrap();
                libc::sigwait(set.as_ptr(), &raw mut signal);
            }
            handle.stop();
            signal
        });
        told.recv().unwrap();
        let stopped = runtime.run(|| {
            // SAFETY: the thread is not joined yet, and blocks the signal.
            let sent = unsafe { libc::pthread_kill(waits.as_pthread_t(), libc::SIGUSR2) };
            assert_eq!(sent, 0);
            catch_cancel(|| sleep(LONG))
        });
        assert_eq!(stopped, Err(Cancelled));
        assert_eq!(waits.join().unwrap(), libc::SIGUSR2);
    });
}

#[test]
fn a_run_after_the_stop_does_not_call_its_function() {
    with_runtimes(|runtime| {
        runtime.handle().stop();
        let run = || runtime.run(|| unreachable!("it was stopped before"));
        assert!(is_cancelled(catch_unwind(AssertUnwindSafe(run))));
    });
}

#[test]
fn a_stop_that_races_with_the_beginning_of_a_run_is_not_lost() {
    for _ in 0..200 {
        let runtime = runtime(1);
        let handle = runtime.handle();
        let thread = std::thread::spawn(move || handle.stop());
        let run = || runtime.run(|| sleep(LONG));
        assert!(on_an_os_thread(|| is_cancelled(catch_unwind(
            AssertUnwindSafe(run)
        ))));
        thread.join().unwrap();
    }
}

#[test]
fn a_stop_of_a_runtime_that_has_ended_does_nothing() {
    with_runtimes(|runtime| {
        let handle = runtime.handle();
        drop(runtime);
        assert!(handle.is_stopping());
        handle.stop();
        let late = handle.spawn(|| unreachable!("the runtime has ended"));
        assert!(is_cancelled(late.join()));
    });
}

#[test]
fn the_end_calls_hooks_before_and_after_all_coroutines_unwind() {
    with_runtimes(|runtime| {
        let log = Log::default();
        let handle = runtime.handle();
        for (name, hook) in [
            ("after 1", false),
            ("before 1", true),
            ("before 2", true),
            ("after 2", false),
        ] {
            let log = log.clone();
            let call = move || {
                assert_eq!(Handle::current().is_some(), hook, "before on a coroutine");
                log.note(name);
            };
            match hook {
                true => handle.before_shutdown(call),
                false => handle.after_shutdown(call),
            }
        }
        let sleeper = Noted(log.clone(), "during");
        runtime.run(|| {
            let sleeper = spawn(move || {
                let _sleeper = sleeper;
                sleep(LONG);
            });
            yield_now();
            drop(sleeper);
            log.note("run");
        });
        drop(runtime);
        assert_eq!(
            log.take(),
            [
                "run", "before 1", "before 2", "during", "after 1", "after 2"
            ]
        );
    });
}

#[test]
fn hooks_are_called_after_a_stop_and_after_a_panic_of_the_main_coroutine() {
    for panics in [false, true] {
        with_runtimes(|runtime| {
            let log = Log::default();
            let (before, after) = (log.clone(), log.clone());
            runtime
                .handle()
                .before_shutdown(move || before.note("before"));
            runtime.handle().after_shutdown(move || after.note("after"));
            let run = || {
                runtime.run(|| match panics {
                    true => resume_unwind(Box::new("main")),
                    false => {
                        Handle::current().unwrap().stop();
                        sleep(LONG);
                    }
                })
            };
            let payload = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(payload.is::<Cancelled>(), !panics);
            assert_eq!(log.take(), ["before", "after"]);
            drop(runtime);
            assert_eq!(log.take(), [""; 0], "once");
        });
    }
}

#[test]
fn a_hook_before_the_end_waits_for_coroutines_that_still_run() {
    with_runtimes(|runtime| {
        let (finish, finished) = mpsc::channel();
        let (stop, stopped) = channel::oneshot::<()>();
        runtime.run(|| {
            let server = spawn(move || {
                stopped.recv().unwrap();
                sleep(ms(20));
                finish.send("drained").unwrap();
            });
            Handle::current().unwrap().before_shutdown(move || {
                stop.send(()).unwrap();
                server.join().unwrap();
                let more = spawn(|| sleep(ms(1)));
                more.join().unwrap();
                wait_idle();
            });
        });
        drop(runtime);
        assert_eq!(finished.recv(), Ok("drained"));
    });
}

#[test]
fn hooks_may_add_hooks() {
    with_runtimes(|runtime| {
        let log = Log::default();
        let handle = runtime.handle();
        let (inner, noted) = (handle.clone(), log.clone());
        handle.before_shutdown(move || {
            let (log, again) = (noted.clone(), inner.clone());
            inner.before_shutdown(move || {
                log.note("before");
                let (log, last) = (log.clone(), again.clone());
                again.after_shutdown(move || {
                    log.note("after");
                    let log = log.clone();
                    last.after_shutdown(move || log.note("last"));
                });
            });
        });
        drop(runtime);
        assert_eq!(log.take(), ["before", "after", "last"]);
    });
}

#[test]
fn a_panic_of_a_hook_ends_there() {
    with_runtimes(|runtime| {
        let log = Log::default();
        let handle = runtime.handle();
        for _ in 0..2 {
            let (before, after) = (log.clone(), log.clone());
            handle.before_shutdown(move || {
                before.note("before");
                resume_unwind(Box::new("a hook"));
            });
            handle.after_shutdown(move || {
                after.note("after");
                resume_unwind(Box::new("a hook"));
            });
        }
        drop(runtime);
        assert_eq!(log.take(), ["before", "before", "after", "after"]);
    });
}

#[test]
fn a_hook_that_waits_beyond_the_grace_is_timed_out() {
    on_an_os_thread(|| {
        let log = Log::default();
        let builder = RuntimeBuilder::new().workers(1).grace(ms(50));
        let runtime = builder.build().unwrap();
        for name in ["one", "two"] {
            let noted = Noted(log.clone(), name);
            runtime.handle().before_shutdown(move || {
                let _noted = noted;
                sleep(LONG);
            });
        }
        let after = log.clone();
        runtime.handle().after_shutdown(move || after.note("after"));
        let begun = Instant::now();
        drop(runtime);
        assert!(begun.elapsed() < LONG);
        assert_eq!(log.take(), ["one", "two", "after"]);
    });
}

#[test]
fn a_runtime_that_a_coroutine_of_another_drops_calls_its_hooks() {
    on_an_os_thread(|| {
        let log = Log::default();
        let inner = runtime(1);
        let (before, after) = (log.clone(), log.clone());
        inner.handle().before_shutdown(move || {
            sleep(ms(1));
            before.note("before");
        });
        inner.handle().after_shutdown(move || after.note("after"));
        runtime(1).run(|| drop(inner));
        assert_eq!(log.take(), ["before", "after"]);
    });
}

/// A main coroutine under a shield is not interrupted, and its runtime does not spin meanwhile.
#[test]
fn a_main_coroutine_may_finish_what_it_does_after_the_stop() {
    with_runtimes(|runtime| {
        let handle = runtime.handle();
        let answer = runtime.run(|| {
            handle.stop();
            shield(|| sleep(ms(20)));
            42
        });
        assert_eq!(answer, 42);
    });
}

#[test]
fn a_handle_spawns_from_any_thread() {
    with_runtimes(|runtime| {
        assert!(Handle::current().is_none());
        let handle = runtime.handle();
        let (give, given) = channel::unbounded();
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (handle, give) = (handle.clone(), give.clone());
                std::thread::spawn(move || {
                    for n in 0..100 {
                        let give = give.clone();
                        drop(handle.spawn(move || give.send(thread * 100 + n).unwrap()));
                    }
                    handle.spawn(|| resume_unwind(Box::new("told to the joiner")))
                })
            })
            .collect();
        drop(give);
        runtime.run(|| {
            let mut all: Vec<i32> = given.into_iter().collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..400));
            for thread in threads {
                let failed: greenroom::JoinHandle<()> = thread.join().unwrap();
                assert_eq!(message(&*failed.join().unwrap_err()), "told to the joiner");
            }
        });
    });
}
