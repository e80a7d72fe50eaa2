//! Thread-locals and coroutine-locals.

#![allow(clippy::duplicate_mod, reason = "once for std, once for the shims")]

mod util;

/// The real std: shows that the tests ask for nothing that std does not do.
#[path = "behaviour"]
#[allow(
    clippy::missing_const_for_thread_local,
    reason = "both kinds are tested"
)]
mod of_std {
    use ::std;
    use ::std::thread::{Builder, spawn};

    use crate::util::of_std::everywhere;

    mod thread_local;
}

#[path = "behaviour"]
mod of_shims {
    use greenroom::shims as std;
    use std::thread::{Builder, spawn};

    use crate::util::everywhere;

    mod thread_local;
}

/// Off-coroutine, the values belong to the thread.
#[path = "behaviour"]
mod of_shims_on_os_threads {
    use ::std::thread::{Builder, spawn};
    use greenroom::shims as std;

    use crate::util::on_an_os_thread as everywhere;

    mod thread_local;
}

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use greenroom::shims::thread::sleep;
use greenroom::{Cancelled, RuntimeBuilder, coroutine_local, spawn, spawn_local, yield_now};
use util::Counted;

/// The system's allocator, which counts the bytes of the calling thread.
struct Counting;

thread_local! {
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work. This only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.set(BYTES.get() + layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        BYTES.set(BYTES.get() - layout.size() as isize);
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

// ---------------------------------------------------------- coroutines of one worker

#[test]
fn coroutines_of_one_worker_have_separate_values() {
    coroutine_local!(static NAME: Cell<Option<u32>> = const { Cell::new(None) });
    util::on_workers(1, || {
        let one = |name| {
            spawn(move || {
                for _ in 0..20 {
                    assert_eq!(NAME.replace(Some(name)).unwrap_or(name), name);
                    NAME.with(|mine| {
                        yield_now();
                        assert_eq!(mine.get(), Some(name), "across a wait");
                    });
                }
            })
        };
        let all: Vec<_> = (0..100).map(one).collect();
        for one in all {
            one.join().unwrap();
        }
        assert_eq!(NAME.get(), None, "the main one has none");
    });
}

#[test]
fn a_coroutine_on_a_reused_stack_does_not_find_old_values() {
    coroutine_local!(static VALUE: Cell<u32> = const { Cell::new(0) });
    util::on_workers(1, || {
        for n in 1..100 {
            let before = spawn(move || VALUE.replace(n)).join().unwrap();
            assert_eq!(before, 0);
        }
    });
}

#[test]
fn an_initialiser_may_park() {
    coroutine_local!(static SLOW: u32 = {
        sleep(Duration::from_millis(5));
        NEXT.fetch_add(1, SeqCst) as u32
    });
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    util::on_workers(1, || {
        let all: Vec<_> = (0..10)
            .map(|_| spawn(|| SLOW.with(|mine| (*mine, SLOW.with(|again| *again)))))
            .collect();
        let mut made: Vec<_> = all.into_iter().map(|one| one.join().unwrap()).collect();
        made.sort_unstable();
        assert!(made.into_iter().eq((0..10).map(|n| (n, n))));
    });
}

#[test]
fn a_thread_and_its_coroutines_have_separate_values() {
    coroutine_local!(static VALUE: Cell<u32> = const { Cell::new(0) });
    std::thread::spawn(|| {
        VALUE.set(1);
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        runtime.run(|| {
            assert_eq!(VALUE.get(), 0);
            VALUE.set(2);
        });
        assert_eq!(VALUE.get(), 1);
        runtime.run(|| assert_eq!(VALUE.get(), 0));
    })
    .join()
    .unwrap();
}

#[test]
fn a_local_coroutine_has_values_of_its_own() {
    coroutine_local!(static LIST: RefCell<Vec<Rc<u8>>> = const { RefCell::new(Vec::new()) });
    util::on_workers(1, || {
        let shared = Rc::new(1);
        let other = Rc::clone(&shared);
        let local = spawn_local(move || LIST.with_borrow_mut(|list| list.push(other)));
        local.join().unwrap();
        assert_eq!(
            Rc::strong_count(&shared),
            1,
            "it was dropped with the coroutine"
        );
        LIST.with_borrow(|list| assert!(list.is_empty()));
    });
}

#[test]
fn coroutines_that_end_leave_no_memory() {
    coroutine_local! {
        static TEXT: RefCell<String> = RefCell::new("x".repeat(100));
        static NUMBER: Cell<u64> = const { Cell::new(7) };
        static LIST: RefCell<Vec<u64>> = RefCell::new(vec![1, 2, 3]);
        static LARGE: [u8; 1_000] = [0; 1_000];
        static MORE: Cell<u8> = Cell::new(1);
    }
    fn work() {
        TEXT.with_borrow_mut(|text| text.push('y'));
        NUMBER.set(8);
        yield_now();
        LIST.with_borrow_mut(|list| list.push(4));
        LARGE.with(|large| assert_eq!(large.len(), 1_000));
        MORE.set(2);
    }
    util::on_workers(1, || {
        let burst = || {
            let all: Vec<_> = (0..10_000).map(|_| spawn(work)).collect();
            for one in all {
                one.join().unwrap();
            }
        };
        burst();
        // Queues may grow, or be freed on another thread. But a leak would show each time, and one value
        // of each coroutine would be more than 10,000 bytes.
        let grown = [(); 5].map(|()| {
            let before = BYTES.get();
            burst();
            BYTES.get() - before
        });
        assert!(grown.iter().any(|&bytes| bytes < 10_000), "{grown:?}");
    });
}

#[test]
fn the_memory_of_a_coroutine_does_not_depend_on_how_many_keys_there_are() {
    const COROUTINES: usize = 1_000;
    macro_rules! many {
        ($($name:ident)+) => {
            coroutine_local! { $(static $name: Cell<u64> = const { Cell::new(1) };)+ }
            /// Makes a value of each key.
            fn use_all() -> u64 {
                [$($name.get()),+].iter().sum()
            }
        };
    }
    many! {
        A0 A1 A2 A3 A4 A5 A6 A7 A8 A9 B0 B1 B2 B3 B4 B5 B6 B7 B8 B9 C0 C1 C2 C3 C4 C5 C6 C7 C8 C9
        D0 D1 D2 D3 D4 D5 D6 D7 D8 D9 E0 E1 E2 E3 E4 E5 E6 E7 E8 E9 F0 F1 F2 F3 F4 F5 F6 F7 F8 F9
        G0 G1 G2 G3 G4 G5 G6 G7 G8 G9 H0 H1 H2 H3 H4 H5 H6 H7 H8 H9 I0 I1 I2 I3 I4 I5 I6 I7 I8 I9
    }
    util::on_workers(1, || {
        let all = use_all();
        // The bytes that parked coroutines hold while each of them uses something.
        static PARKED: AtomicUsize = AtomicUsize::new(0);
        let held = |uses: fn()| {
            PARKED.store(0, SeqCst);
            let before = BYTES.get();
            let parked: Vec<_> = (0..COROUTINES)
                .map(|_| {
                    spawn(move || {
                        uses();
                        PARKED.fetch_add(1, SeqCst);
                        greenroom::park();
                    })
                })
                .collect();
            while PARKED.load(SeqCst) < COROUTINES {
                yield_now();
            }
            let bytes = BYTES.get() - before;
            for one in parked {
                one.thread().unpark();
                one.join().unwrap();
            }
            bytes
        };
        held(|| ()); // so that the queues have grown
        let nothing = held(|| ());
        let each = (held(|| I9.set(3)) - nothing) / COROUTINES as isize;
        // A pointer for each of the keys would be more.
        assert!((1..300).contains(&each), "{each} bytes");
        assert_eq!(use_all(), all);
    });
}

// ---------------------------------------------------------- the end

#[test]
fn a_destructor_may_wait() {
    struct Waits(Arc<AtomicUsize>);
    impl Drop for Waits {
        fn drop(&mut self) {
            sleep(Duration::from_millis(5));
            self.0.fetch_add(1, SeqCst);
        }
    }
    coroutine_local!(static VALUE: Cell<Option<Waits>> = const { Cell::new(None) });
    util::on_workers(1, || {
        let waited = Arc::new(AtomicUsize::new(0));
        let all: Vec<_> = (0..10)
            .map(|_| {
                let waits = Waits(Arc::clone(&waited));
                spawn(move || VALUE.set(Some(waits)))
            })
            .collect();
        for one in all {
            one.join().unwrap();
        }
        assert_eq!(waited.load(SeqCst), 10);
    });
}

#[test]
fn values_are_dropped_when_the_runtime_shuts_down() {
    coroutine_local!(static VALUE: Cell<Option<Counted>> = const { Cell::new(None) });
    let drops = Arc::new(AtomicUsize::new(0));
    util::on_an_os_thread(|| {
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        let (parked, fresh) = runtime.run(|| {
            let value = Counted(Arc::clone(&drops));
            let parked = spawn(move || {
                VALUE.set(Some(value));
                sleep(Duration::MAX);
            });
            greenroom::park_timeout(Duration::from_millis(5));
            assert_eq!(drops.load(SeqCst), 0);
            // This coroutine will not run. But its captures are dropped in a coroutine, and may make
            // values there.
            let sets_when_dropped = SetsWhenDropped(Some(Counted(Arc::clone(&drops))));
            (parked, spawn(move || drop(sets_when_dropped)))
        });
        drop(runtime);
        assert!(parked.join().unwrap_err().is::<Cancelled>());
        assert!(fresh.join().unwrap_err().is::<Cancelled>());
        assert_eq!(drops.load(SeqCst), 2);
    });

    struct SetsWhenDropped(Option<Counted>);
    impl Drop for SetsWhenDropped {
        fn drop(&mut self) {
            VALUE.set(self.0.take());
        }
    }
}

#[test]
fn an_interrupt_ends_a_destructor_and_nothing_else() {
    struct Sleeps(#[allow(dead_code)] Counted);
    impl Drop for Sleeps {
        fn drop(&mut self) {
            sleep(Duration::MAX);
        }
    }
    coroutine_local! {
        static FIRST: Cell<Option<Counted>> = const { Cell::new(None) };
        static SECOND: Cell<Option<Sleeps>> = const { Cell::new(None) };
    }
    let drops = Arc::new(AtomicUsize::new(0));
    util::on_an_os_thread(|| {
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        let ended = runtime.run(|| {
            let values = [(); 2].map(|()| Counted(Arc::clone(&drops)));
            let ended = spawn(move || {
                let [first, second] = values;
                FIRST.set(Some(first));
                SECOND.set(Some(Sleeps(second)));
                "ended"
            });
            greenroom::park_timeout(Duration::from_millis(5));
            assert!(!ended.is_finished());
            ended
        });
        drop(runtime);
        assert_eq!(ended.join().unwrap(), "ended");
        assert_eq!(drops.load(SeqCst), 2);
    });
}

#[test]
fn an_unwanted_result_may_use_values_when_it_is_dropped() {
    coroutine_local!(static VALUE: RefCell<Vec<Counted>> = const { RefCell::new(Vec::new()) });
    struct Uses(Arc<AtomicUsize>);
    impl Drop for Uses {
        fn drop(&mut self) {
            VALUE.with_borrow_mut(|list| list.push(Counted(Arc::clone(&self.0))));
        }
    }
    util::on_workers(1, || {
        let drops = Arc::new(AtomicUsize::new(0));
        let uses = Uses(Arc::clone(&drops));
        drop(spawn(move || uses));
        while drops.load(SeqCst) == 0 {
            yield_now();
        }
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn a_panic_in_a_destructor_aborts() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    coroutine_local!(static VALUE: Cell<Option<Panics>> = const { Cell::new(None) });
    if util::role().is_some() {
        return util::on_workers(1, || {
            let builder = greenroom::Builder::new().name("ada".into());
            let ended = builder.spawn(|| VALUE.set(Some(Panics))).unwrap().join();
            eprintln!("joined: {}", ended.is_ok());
        });
    }
    let output = util::again!("a_panic_in_a_destructor_aborts", "child")
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(stderr.contains("in a destructor"), "{stderr}");
    assert!(
        stderr.contains("a coroutine local of coroutine 'ada'"),
        "{stderr}"
    );
    assert!(!stderr.contains("joined"), "{stderr}");
}

#[test]
fn a_forked_child_keeps_the_values_of_its_coroutine() {
    coroutine_local!(static VALUE: Cell<u32> = const { Cell::new(0) });
    if util::role().is_none() {
        let output = util::again!("a_forked_child_keeps_the_values_of_its_coroutine", "child",)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    util::on_workers(1, || {
        let forks = spawn(|| {
            VALUE.set(7);
            // SAFETY: the child only looks at its memory, and ends.
            match unsafe { libc::fork() } {
                0 => {
                    let kept = VALUE.replace(8) == 7 && VALUE.get() == 8;
                    // SAFETY: the call has no preconditions.
                    unsafe { libc::_exit(if kept { 33 } else { 1 }) }
                }
                child => {
                    let mut status = 0;
                    // SAFETY: `status` is valid to write to, and the child was started here.
                    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                    libc::WEXITSTATUS(status)
                }
            }
        });
        assert_eq!(forks.join().unwrap(), 33);
    });
}
