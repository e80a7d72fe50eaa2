//! Values that are passed on to spawned coroutines.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use greenroom::context::{Context, ContextKey};
use greenroom::shims::sync::mpsc;
use greenroom::shims::thread::{self, sleep};
use greenroom::{Group, after, every, scope, spawn, spawn_local, unblock, yield_now};

use crate::util::{Finally, everywhere, ms, on_workers};

static REQUEST: ContextKey<u32> = ContextKey::new();
static USER: ContextKey<String> = ContextKey::new();

#[test]
fn a_request_is_known_three_spawns_deep_and_after_waits() {
    everywhere(|| {
        let handles: Vec<_> = (0..20)
            .map(|number| {
                let inner = move || {
                    sleep(ms(1));
                    yield_now();
                    REQUEST.get()
                };
                let middle = move || {
                    sleep(ms(1));
                    let inner = spawn(inner);
                    (REQUEST.get(), inner.join().unwrap())
                };
                let outer = move || (REQUEST.get(), spawn(middle).join().unwrap());
                REQUEST.scope(number, || spawn(outer))
            })
            .collect();
        for (number, handle) in (0..20).zip(handles) {
            let known = Some(number);
            assert_eq!(handle.join().unwrap(), (known, (known, known)));
        }
        assert_eq!(REQUEST.get(), None, "nothing leaks from a request");
        assert_eq!(spawn(|| REQUEST.get()).join().unwrap(), None);
    });
}

#[test]
fn everything_that_is_spawned_inherits() {
    on_workers(2, || {
        REQUEST.scope(3, || {
            assert_eq!(spawn(|| REQUEST.get()).join().unwrap(), Some(3));
            assert_eq!(spawn_local(|| REQUEST.get()).join().unwrap(), Some(3));
            assert_eq!(thread::spawn(|| REQUEST.get()).join().unwrap(), Some(3));
            assert_eq!(unblock(|| REQUEST.get()), Some(3));
            scope(|s| assert_eq!(s.spawn(|| REQUEST.get()).join().unwrap(), Some(3)));
            let group = Group::new();
            assert_eq!(group.spawn(|| REQUEST.get()).join().unwrap(), Some(3));
            let mapped = group.map([()], |()| REQUEST.get());
            assert_eq!(*mapped[0].as_ref().unwrap(), Some(3));
        });
        // Pool threads keep nothing.
        assert_eq!(unblock(|| REQUEST.get()), None);
    });
}

#[test]
fn timers_have_the_context_of_the_code_that_has_set_them() {
    on_workers(1, || {
        let (tell, told) = mpsc::channel();
        let tell = &tell;
        // The first timer makes the coroutine that fires all of them. That one must keep no context.
        for number in [1, 2] {
            let tell = tell.clone();
            REQUEST.scope(number, || {
                after(ms(number.into()), move || tell.send(REQUEST.get()).unwrap())
            });
        }
        let other = tell.clone();
        after(ms(4), move || other.send(REQUEST.get()).unwrap());
        let known: Vec<_> = (0..3).map(|_| told.recv().unwrap()).collect();
        assert_eq!(known, [Some(1), Some(2), None]);
        let tell = tell.clone();
        let ticker = REQUEST.scope(5, || {
            every(ms(1), move |_| {
                let _ = tell.send(REQUEST.get());
            })
        });
        assert_eq!(told.recv().unwrap(), Some(5));
        drop(ticker);
    });
}

#[test]
fn the_main_coroutine_inherits_from_the_code_around_run() {
    REQUEST.scope(9, || {
        assert_eq!(on_workers(1, || REQUEST.get()), Some(9));
    });
}

#[test]
fn scopes_nest_and_restore_what_was_before_also_after_a_panic() {
    everywhere(|| {
        REQUEST.scope(1, || {
            USER.scope("ada".into(), || {
                REQUEST.scope(2, || {
                    let both = (REQUEST.get(), USER.get());
                    assert_eq!(both, (Some(2), Some("ada".into())));
                });
                assert_eq!(REQUEST.get(), Some(1));
                let panicking = || REQUEST.scope(3, || resume_unwind(Box::new(())));
                assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
                assert_eq!(REQUEST.get(), Some(1));
            });
            USER.with(|user| assert_eq!(user, None));
        });
        assert_eq!(REQUEST.get(), None);
    });
}

#[test]
fn coroutines_of_one_worker_do_not_see_the_values_of_each_other() {
    on_workers(1, || {
        let (enter, entered) = mpsc::channel();
        let (leave, left) = mpsc::channel::<()>();
        let inside = spawn(move || {
            REQUEST.scope(1, || {
                enter.send(()).unwrap();
                left.recv().unwrap();
                REQUEST.get()
            })
        });
        entered.recv().unwrap();
        assert_eq!(REQUEST.get(), None);
        REQUEST.scope(2, || {
            leave.send(()).unwrap();
            assert_eq!(inside.join().unwrap(), Some(1));
            assert_eq!(REQUEST.get(), Some(2));
        });
    });
}

#[test]
fn a_context_can_be_carried_elsewhere() {
    everywhere(|| {
        let context = REQUEST.scope(1, || USER.scope("ada".into(), Context::current));
        let here = context.clone();
        let both = || (REQUEST.get(), USER.get());
        REQUEST.scope(2, || {
            let inside = here.enter(both);
            assert_eq!(inside, (Some(1), Some("ada".into())));
            assert_eq!(Context::empty().enter(both), (None, None));
            assert_eq!(both(), (Some(2), None));
        });
        let thread = std::thread::spawn(move || context.enter(both));
        assert_eq!(thread.join().unwrap().0, Some(1));
    });
}

#[test]
fn a_value_lives_as_long_as_something_has_inherited_it() {
    type Drops = Finally<Box<dyn FnMut() + Send + Sync>>;
    static HELD: ContextKey<Arc<Drops>> = ContextKey::new();
    on_workers(1, || {
        let dropped = Arc::new(AtomicBool::new(false));
        let drops: Box<dyn FnMut() + Send + Sync> = Box::new({
            let dropped = Arc::clone(&dropped);
            move || dropped.store(true, Ordering::SeqCst)
        });
        let (leave, left) = mpsc::channel::<()>();
        let heir = HELD.scope(Arc::new(Finally(drops)), || {
            spawn(move || left.recv().unwrap())
        });
        yield_now();
        assert!(!dropped.load(Ordering::SeqCst));
        leave.send(()).unwrap();
        heir.join().unwrap();
        assert!(dropped.load(Ordering::SeqCst));
        // One that is never started drops what it has inherited, too.
        dropped.store(false, Ordering::SeqCst);
        let drops: Box<dyn FnMut() + Send + Sync> = Box::new({
            let dropped = Arc::clone(&dropped);
            move || dropped.store(true, Ordering::SeqCst)
        });
        let heir = HELD.scope(Arc::new(Finally(drops)), || spawn(|| ()));
        heir.cancel();
        assert!(heir.join().is_err());
        assert!(dropped.load(Ordering::SeqCst));
    });
}

#[test]
fn chains_of_spawns_keep_only_the_last_value() {
    static COUNTED: ContextKey<Counted> = ContextKey::new();
    static LIVE: AtomicUsize = AtomicUsize::new(0);

    struct Counted;

    impl Counted {
        fn new() -> Counted {
            LIVE.fetch_add(1, Ordering::SeqCst);
            Counted
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            LIVE.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn next(left: u32, tell: mpsc::Sender<usize>) {
        if left == 0 {
            yield_now();
            return tell.send(LIVE.load(Ordering::SeqCst)).unwrap();
        }
        COUNTED.scope(Counted::new(), || spawn(move || next(left - 1, tell)));
    }

    on_workers(1, || {
        let (tell, told) = mpsc::channel();
        next(1_000, tell);
        assert_eq!(told.recv().unwrap(), 1);
    });
}
