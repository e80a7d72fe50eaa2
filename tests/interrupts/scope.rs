//! A scope takes its coroutines along, and never returns before they have ended.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use greenroom::shims::thread::sleep;
use greenroom::{Cancelled, scope, spawn, timeout};

use crate::util::{message, ms, on_workers};

/// Counts the coroutines that use what they borrow.
struct Using<'a>(&'a AtomicUsize);

impl<'a> Using<'a> {
    fn begin(count: &'a AtomicUsize) -> Using<'a> {
        count.fetch_add(1, Ordering::SeqCst);
        Using(count)
    }
}

impl Drop for Using<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn a_timeout_of_a_scope_cancels_its_coroutines_and_waits_for_them() {
    for workers in [1, 4] {
        on_workers(workers, || {
            let using = AtomicUsize::new(0);
            // While the scope waits at its end.
            let result = timeout(ms(5), || {
                scope(|s| {
                    for _ in 0..10 {
                        s.spawn(|| {
                            let _using = Using::begin(&using);
                            sleep(Duration::MAX);
                        });
                    }
                })
            });
            assert!(result.is_err());
            assert_eq!(using.load(Ordering::SeqCst), 0);
            // While its closure runs.
            let result = timeout(ms(5), || {
                scope(|s| {
                    s.spawn(|| {
                        let _using = Using::begin(&using);
                        sleep(Duration::MAX);
                    });
                    sleep(Duration::MAX);
                })
            });
            assert!(result.is_err());
            assert_eq!(using.load(Ordering::SeqCst), 0);
        });
    }
}

#[test]
fn a_cancellation_of_the_coroutine_of_a_scope_cancels_those_of_the_scope() {
    for workers in [1, 4] {
        on_workers(workers, || {
            let using = AtomicUsize::new(0);
            scope(|outer| {
                let parent = outer.spawn(|| {
                    scope(|inner| {
                        for _ in 0..10 {
                            inner.spawn(|| {
                                let _using = Using::begin(&using);
                                sleep(Duration::MAX);
                            });
                        }
                    });
                });
                sleep(ms(5));
                parent.cancel();
                assert!(parent.join().unwrap_err().is::<Cancelled>());
                assert_eq!(using.load(Ordering::SeqCst), 0);
            });
        });
    }
}

#[test]
fn a_scope_waits_for_coroutines_that_finish_their_shielded_work() {
    on_workers(1, || {
        let mut done = false;
        // On a busy machine, a shorter timeout could pass before the coroutine has begun.
        let result = timeout(ms(50), || {
            scope(|s| {
                s.spawn(|| {
                    greenroom::shield(|| {
                        sleep(ms(100));
                        done = true;
                    });
                });
            });
        });
        assert!(result.is_err());
        assert!(done);
    });
}

#[test]
fn a_coroutine_that_is_spawned_in_a_cancelled_scope_never_runs() {
    on_workers(1, || {
        let ran = AtomicUsize::new(0);
        let result = timeout(ms(2), || {
            scope(|s| {
                s.spawn(|| {
                    let unwound = catch_unwind(AssertUnwindSafe(|| sleep(Duration::MAX)));
                    assert!(unwound.is_err());
                    s.spawn(|| ran.fetch_add(1, Ordering::Relaxed));
                });
            });
        });
        assert!(result.is_err());
        assert_eq!(ran.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_scoped_coroutine_that_was_cancelled_does_not_end_its_scope() {
    on_workers(1, || {
        let value = scope(|s| {
            let one = s.spawn(|| sleep(Duration::MAX));
            one.cancel();
            drop(one);
            "the scope returns"
        });
        assert_eq!(value, "the scope returns");
    });
}

/// As in std: a panic of the closure waits for the coroutines, and does not end them.
#[test]
fn a_panic_in_a_scope_does_not_cancel() {
    on_workers(1, || {
        let mut done = false;
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                s.spawn(|| {
                    sleep(ms(5));
                    done = true;
                });
                resume_unwind(Box::new("a panic"));
            })
        }));
        assert_eq!(message(&*panicked.unwrap_err()), "a panic");
        assert!(done);
    });
}

#[test]
fn nested_scopes_end_from_the_inside() {
    on_workers(2, || {
        let using = AtomicUsize::new(0);
        fn nest(depth: u32, using: &AtomicUsize) {
            let _using = Using::begin(using);
            match depth {
                0 => sleep(Duration::MAX),
                _ => scope(|s| {
                    s.spawn(|| nest(depth - 1, using));
                    s.spawn(|| nest(depth - 1, using));
                }),
            }
        }
        let result = timeout(ms(5), || nest(5, &using));
        assert!(result.is_err());
        assert_eq!(using.load(Ordering::SeqCst), 0);
        spawn(|| ()).join().unwrap();
    });
}
