//! What thread locals promise. The parent module provides `spawn` and `Builder`, which make a thread or a
//! coroutine with values of its own.

use super::{Builder, everywhere, spawn, std};
use ::std::cell::{Cell, RefCell};
use ::std::collections::HashMap;
use ::std::error::Error;
use ::std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use ::std::rc::Rc;
use ::std::sync::Arc;
use ::std::sync::Mutex;
use ::std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::{AccessError, LocalKey};
use std::thread_local;

/// Runs `body` in a new thread or coroutine, which has no values yet. Returns its result or resumes its
/// panic.
fn afresh<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn(body).join() {
        Ok(value) => value,
        Err(payload) => ::std::panic::resume_unwind(payload),
    }
}

/// The events of a test, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Log {
    fn add(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    #[track_caller]
    fn assert_is(&self, wanted: &[&str]) {
        assert_eq!(*self.0.lock().unwrap(), wanted);
    }
}

/// Adds its name to the log when it is dropped.
struct Logs(Log, &'static str);

impl Drop for Logs {
    fn drop(&mut self) {
        self.0.add(self.1);
    }
}

// ---------------------------------------------------------- values

#[test]
fn each_thread_has_a_value_of_its_own() {
    thread_local!(static LAZY: Cell<i32> = Cell::new(1));
    thread_local!(static CONST: Cell<i32> = const { Cell::new(1) });
    fn check(key: &'static LocalKey<Cell<i32>>) {
        afresh(move || {
            key.with(|value| {
                assert_eq!(value.get(), 1);
                value.set(2);
            });
            spawn(move || assert_eq!(key.replace(3), 1)).join().unwrap();
            assert_eq!(key.get(), 2);
        });
    }
    everywhere(|| {
        check(&LAZY);
        check(&CONST);
    });
}

#[test]
fn a_value_is_made_once_by_the_first_access() {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    fn make() -> usize {
        MADE.fetch_add(1, SeqCst)
    }
    thread_local!(static NUMBER: usize = make());
    everywhere(|| {
        MADE.store(0, SeqCst);
        afresh(|| {
            assert_eq!(MADE.load(SeqCst), 0);
            for _ in 0..3 {
                NUMBER.with(|number| assert_eq!(*number, 0));
            }
            spawn(|| NUMBER.with(|number| assert_eq!(*number, 1)))
                .join()
                .unwrap();
            NUMBER.with(|number| assert_eq!(*number, 0));
        });
        afresh(|| ());
        assert_eq!(MADE.load(SeqCst), 2, "who does not ask has none");
    });
}

#[test]
fn a_value_stays_in_its_place() {
    macro_rules! many {
        ($($name:ident)+) => {
            std::thread_local! { $(static $name: Cell<usize> = const { Cell::new(0) };)+ }
            const ALL: &[&LocalKey<Cell<usize>>] = &[$(&$name),+];
        };
    }
    many! { A B C D E F G H I J K L M N O P Q R S T U V W X Y Z }
    everywhere(|| {
        afresh(|| {
            A.with(|a| {
                a.set(100);
                for (n, key) in ALL.iter().enumerate().skip(1) {
                    key.set(n);
                }
                assert_eq!(a.get(), 100);
                let again: *const _ = A.with(::std::ptr::from_ref);
                assert!(::std::ptr::eq(a, again));
            });
            for (n, key) in ALL.iter().enumerate().skip(1) {
                assert_eq!(key.get(), n);
            }
        });
    });
}

#[test]
fn values_need_not_be_send() {
    thread_local!(static SHARED: Rc<RefCell<Vec<u8>>> = Rc::default());
    everywhere(|| {
        afresh(|| {
            let mine = SHARED.with(Rc::clone);
            mine.borrow_mut().push(1);
            SHARED.with(|shared| assert_eq!(*shared.borrow(), [1]));
        });
    });
}

#[test]
fn values_may_be_of_no_size_and_of_much_alignment() {
    #[repr(align(128))]
    struct Aligned(u8);
    thread_local! {
        static NOTHING: () = ();
        static ALIGNED: Aligned = const { Aligned(7) };
    }
    everywhere(|| {
        afresh(|| {
            NOTHING.with(|()| ());
            ALIGNED.with(|aligned| {
                assert_eq!(::std::ptr::from_ref(aligned).addr() % 128, 0);
                assert_eq!(aligned.0, 7);
            });
        });
    });
}

#[test]
fn the_initialiser_may_be_any_expression() {
    fn map() -> RefCell<HashMap<i32, i32>> {
        RefCell::new(HashMap::from([(1, 2)]))
    }
    thread_local! {
        static MAP: RefCell<HashMap<i32, i32>> = map();
        static BLOCK: u8 = { let x = 3; x * x };
        static CLOSURE: fn(u8) -> u8 = |x| x + 1;
        static OTHER: u8 = BLOCK.with(|block| block + 1);
    }
    everywhere(|| {
        afresh(|| {
            MAP.with_borrow(|map| assert_eq!(map[&1], 2));
            CLOSURE.with(|closure| assert_eq!(closure(1), 2));
            OTHER.with(|other| assert_eq!(*other, 10));
        });
    });
}

#[test]
fn an_initialiser_that_panics_leaves_no_value_and_is_tried_again() {
    thread_local! {
        static TRIES: Cell<u32> = const { Cell::new(0) };
        static VALUE: u32 = {
            TRIES.set(TRIES.get() + 1);
            assert!(TRIES.get() > 1, "the first time");
            TRIES.get()
        };
    }
    everywhere(|| {
        afresh(|| {
            assert!(catch_unwind(|| VALUE.with(|value| *value)).is_err());
            assert_eq!(VALUE.try_with(|value| *value), Ok(2));
        });
    });
}

#[test]
fn an_initialiser_may_ask_for_the_value_that_it_makes() {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    struct Recursive(usize, Log);
    impl Recursive {
        fn make() -> Recursive {
            let number = MADE.fetch_add(1, SeqCst);
            if number == 0 {
                VALUE.with(|value| assert_eq!(value.0, 1));
            }
            Recursive(number, LOG.with(Log::clone))
        }
    }
    impl Drop for Recursive {
        fn drop(&mut self) {
            self.1.add(["outer", "inner"][self.0]);
        }
    }
    thread_local! {
        static LOG: Log = Log::default();
        static VALUE: Recursive = Recursive::make();
    }
    everywhere(|| {
        MADE.store(0, SeqCst);
        let log = afresh(|| {
            VALUE.with(|value| assert_eq!(value.0, 0));
            let log = LOG.with(Log::clone);
            log.assert_is(&["inner"]);
            log
        });
        log.assert_is(&["inner", "outer"]);
    });
}

// ---------------------------------------------------------- cells

#[test]
fn a_cell_is_set_without_its_initialiser() {
    thread_local!(static NEVER: Cell<u8> = panic!("not to be called"));
    thread_local!(static CONST: Cell<u8> = const { Cell::new(1) });
    everywhere(|| {
        afresh(|| {
            NEVER.set(5);
            assert_eq!(NEVER.get(), 5);
            NEVER.set(6);
            assert_eq!(NEVER.replace(7), 6);
            assert_eq!(NEVER.take(), 7);
            assert_eq!(NEVER.get(), 0);
            CONST.set(2);
            assert_eq!(CONST.take(), 2);
        });
        afresh(|| assert!(catch_unwind(|| NEVER.get()).is_err()));
    });
}

#[test]
fn a_ref_cell_is_set_without_its_initialiser() {
    thread_local!(static NEVER: RefCell<Vec<u8>> = panic!("not to be called"));
    thread_local!(static NUMBERS: RefCell<Vec<u8>> = RefCell::new(vec![1, 2]));
    everywhere(|| {
        afresh(|| {
            NEVER.set(vec![5]);
            NEVER.with_borrow_mut(|numbers| numbers.push(6));
            NEVER.with_borrow(|numbers| assert_eq!(*numbers, [5, 6]));
            assert_eq!(NEVER.replace(vec![7]), [5, 6]);
            assert_eq!(NEVER.take(), [7]);
            assert_eq!(NEVER.take(), []);
            NUMBERS.set(vec![3]);
            NUMBERS.with_borrow(|numbers| assert_eq!(*numbers, [3]));
        });
        afresh(|| {
            let taken = NUMBERS.with_borrow(|_| catch_unwind(|| NUMBERS.take()));
            assert!(taken.is_err(), "it is borrowed");
            assert_eq!(NUMBERS.take(), [1, 2]);
        });
    });
}

#[test]
fn to_set_the_value_of_a_constant_drops_that() {
    // A constant exists from the start, so `set` drops the constant. For other values, `set` makes the
    // value.
    struct Part;
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    impl Drop for Part {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, SeqCst);
        }
    }
    thread_local! {
        static CONST: RefCell<Part> = const { RefCell::new(Part) };
        static LAZY: RefCell<Part> = RefCell::new(Part);
    }
    everywhere(|| {
        DROPPED.store(0, SeqCst);
        afresh(|| {
            LAZY.set(Part);
            assert_eq!(DROPPED.load(SeqCst), 0);
            CONST.set(Part);
            assert_eq!(DROPPED.load(SeqCst), 1);
        });
        assert_eq!(DROPPED.load(SeqCst), 3);
    });
}

// ---------------------------------------------------------- the end

#[test]
fn destructors_have_run_when_the_thread_is_joined() {
    thread_local!(static LAZY: RefCell<Option<Logs>> = RefCell::new(None));
    thread_local!(static CONST: RefCell<Option<Logs>> = const { RefCell::new(None) });
    everywhere(|| {
        for key in [&LAZY, &CONST] {
            let log = Log::default();
            let logs = Logs(log.clone(), "dropped");
            afresh(move || {
                key.set(Some(logs));
                key.with_borrow(|logs| logs.as_ref().unwrap().0.add("used"));
            });
            log.assert_is(&["used", "dropped"]);
        }
    });
}

#[test]
fn values_are_dropped_in_the_reverse_order_of_their_making() {
    thread_local! {
        static A: Cell<Option<Logs>> = const { Cell::new(None) };
        static B: Cell<Option<Logs>> = Cell::new(None);
        static C: Cell<Option<Logs>> = Cell::new(None);
        static NEEDS_C: Option<Logs> = {
            let c = C.take();
            let log = c.as_ref().map(|logs| logs.0.clone());
            C.set(c);
            log.map(|log| Logs(log, "needs c"))
        };
    }
    everywhere(|| {
        let log = Log::default();
        let logs = log.clone();
        afresh(move || {
            B.set(Some(Logs(logs.clone(), "b")));
            C.set(Some(Logs(logs.clone(), "c")));
            A.set(Some(Logs(logs.clone(), "a")));
            NEEDS_C.with(|_| ());
            B.set(Some(Logs(logs, "b again")));
        });
        log.assert_is(&["b", "needs c", "a", "c", "b again"]);
    });
}

#[test]
fn a_value_cannot_be_used_in_its_own_destructor() {
    struct Own(&'static LocalKey<Own>);
    static REFUSED: AtomicUsize = AtomicUsize::new(0);
    impl Drop for Own {
        fn drop(&mut self) {
            let refused = self.0.try_with(|_| ()).is_err();
            let panics = catch_unwind(AssertUnwindSafe(|| self.0.with(|_| ()))).is_err();
            REFUSED.fetch_add(usize::from(refused && panics), SeqCst);
        }
    }
    thread_local!(static LAZY: Own = Own(&LAZY));
    thread_local!(static CONST: Own = const { Own(&CONST) });
    everywhere(|| {
        for key in [&LAZY, &CONST] {
            REFUSED.store(0, SeqCst);
            afresh(move || assert!(key.try_with(|_| ()).is_ok()));
            assert_eq!(REFUSED.load(SeqCst), 1);
        }
    });
}

#[test]
fn a_destructor_may_make_other_values_which_are_dropped_too() {
    struct MakesNext(Log, &'static str);
    impl Drop for MakesNext {
        fn drop(&mut self) {
            self.0.add(self.1);
            let next = Some(Logs(self.0.clone(), "next"));
            self.0.add(match NEXT.try_with(|slot| slot.set(next)) {
                Ok(()) => "makes next",
                Err(_) => "next is gone",
            });
        }
    }
    thread_local! {
        static FIRST: Cell<Option<MakesNext>> = const { Cell::new(None) };
        static NEXT: Cell<Option<Logs>> = Cell::new(None);
    }
    everywhere(|| {
        let log = Log::default();
        let logs = log.clone();
        afresh(move || FIRST.set(Some(MakesNext(logs, "first"))));
        log.assert_is(&["first", "makes next", "next"]);
    });
}

#[test]
fn what_was_dropped_is_not_made_again() {
    // The destructor of each value makes the other value, until one finds that the other is gone.
    struct A(Log);
    struct B(Log);
    thread_local! {
        static AS: Cell<Option<A>> = Cell::new(None);
        static BS: Cell<Option<B>> = const { Cell::new(None) };
    }
    impl Drop for A {
        fn drop(&mut self) {
            let put = BS.try_with(|slot| slot.set(Some(B(self.0.clone()))));
            self.0.add(if put.is_ok() {
                "a makes b"
            } else {
                "b is gone"
            });
        }
    }
    impl Drop for B {
        fn drop(&mut self) {
            let put = AS.try_with(|slot| slot.set(Some(A(self.0.clone()))));
            self.0.add(if put.is_ok() {
                "b makes a"
            } else {
                "a is gone"
            });
        }
    }
    everywhere(|| {
        let log = Log::default();
        let logs = log.clone();
        afresh(move || drop(A(logs)));
        log.assert_is(&["a makes b", "b makes a", "b is gone"]);
    });
}

#[test]
fn a_value_without_a_destructor_serves_all_destructors() {
    // It is made after the value whose destructor uses it.
    struct Counts(Arc<AtomicUsize>);
    impl Drop for Counts {
        fn drop(&mut self) {
            for key in [&LAZY, &CONST] {
                self.0.fetch_add(key.get(), SeqCst);
                key.set(100);
            }
        }
    }
    thread_local! {
        static FIRST: RefCell<Vec<Counts>> = RefCell::new(Vec::new());
        static LAST: RefCell<Vec<Counts>> = const { RefCell::new(Vec::new()) };
        static LAZY: Cell<usize> = Cell::new("1".parse().unwrap());
        static CONST: Cell<usize> = const { Cell::new(1) };
    }
    everywhere(|| {
        let count = Arc::new(AtomicUsize::new(0));
        let counts = [(); 2].map(|()| Counts(Arc::clone(&count)));
        afresh(move || {
            let [first, last] = counts;
            FIRST.with_borrow_mut(|list| list.push(first));
            LAZY.set(LAZY.get() + 1);
            CONST.set(CONST.get() + 2);
            LAST.with_borrow_mut(|list| list.push(last));
        });
        assert_eq!(count.load(SeqCst), 2 + 3 + 100 + 100);
    });
}

#[test]
fn values_are_dropped_after_a_panic() {
    thread_local!(static VALUE: Cell<Option<Logs>> = Cell::new(None));
    everywhere(|| {
        let log = Log::default();
        let logs = log.clone();
        let ended = spawn(move || {
            let _local = Logs(logs.clone(), "frame");
            VALUE.set(Some(Logs(logs, "value")));
            panic!("on purpose");
        });
        assert!(ended.join().is_err());
        log.assert_is(&["frame", "value"]);
    });
}

#[test]
fn the_name_of_the_thread_is_still_known_in_a_destructor() {
    struct Names(Arc<Mutex<Option<String>>>);
    impl Drop for Names {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = std::thread::current().name().map(str::to_owned);
        }
    }
    struct MakesNames(Arc<Mutex<Option<String>>>);
    impl Drop for MakesNames {
        fn drop(&mut self) {
            NAMES.set(Some(Names(self.0.clone())));
        }
    }
    thread_local! {
        static MAKES: Cell<Option<MakesNames>> = const { Cell::new(None) };
        static NAMES: Cell<Option<Names>> = const { Cell::new(None) };
    }
    everywhere(|| {
        let name = Arc::new(Mutex::new(None));
        let makes = MakesNames(name.clone());
        let builder = Builder::new().name("ada".into());
        builder
            .spawn(move || MAKES.set(Some(makes)))
            .unwrap()
            .join()
            .unwrap();
        assert_eq!(name.lock().unwrap().as_deref(), Some("ada"));
    });
}

#[test]
fn a_result_may_have_been_made_of_values() {
    thread_local!(static PART: RefCell<Vec<u8>> = RefCell::new(vec![1, 2, 3]));
    everywhere(|| {
        assert_eq!(afresh(|| PART.take()), [1, 2, 3]);
    });
}

#[test]
fn an_unwanted_result_is_dropped_before_the_values() {
    thread_local!(static VALUE: RefCell<Option<Logs>> = const { RefCell::new(None) });
    /// Logs, when it is dropped, whether the value is still there.
    struct Unwanted(Log);
    impl Drop for Unwanted {
        fn drop(&mut self) {
            let there = VALUE.try_with(|value| value.borrow().is_some());
            self.0.add(match there {
                Ok(true) => "the result",
                Ok(false) => "the result, which sees another value",
                Err(_) => "the result, which sees none",
            });
        }
    }
    everywhere(|| {
        for panics in [false, true] {
            let log = Log::default();
            let detached = Arc::new(AtomicUsize::new(0));
            let handle = spawn({
                let (logs, result) = (Logs(log.clone(), "the value"), Unwanted(log.clone()));
                let detached = Arc::clone(&detached);
                move || {
                    VALUE.set(Some(logs));
                    crate::util::until("it is detached", || detached.load(SeqCst) == 1);
                    if panics {
                        ::std::panic::resume_unwind(Box::new(result));
                    }
                    result
                }
            });
            drop(handle);
            detached.store(1, SeqCst);
            crate::util::until("it has ended", || log.0.lock().unwrap().len() == 2);
            log.assert_is(&["the result", "the value"]);
        }
    });
}

// ---------------------------------------------------------- form

/// Declarations in all forms.
mod forms {
    use ::std::cell::Cell;

    use super::std;

    std::thread_local! {
        /// A declaration with a doc comment and an attribute.
        #[allow(dead_code)]
        pub(super) static PUBLIC: Cell<u8> = const { Cell::new(1) };
        #[cfg(any())]
        static NOT_THERE: NoSuchType = nothing();
        pub(crate) static LAZY: Cell<u8> = Cell::new(2)
    }
    std::thread_local!();
    std::thread_local!(pub static ONE: Cell<u8> = Cell::new(3));
    std::thread_local! { pub static BRACES: Cell<u8> = const { Cell::new(4) }; }
}

#[test]
fn keys_are_declared_in_all_forms() {
    everywhere(|| {
        let sum = afresh(|| {
            let all = [&forms::PUBLIC, &forms::LAZY, &forms::ONE, &forms::BRACES];
            all.map(LocalKey::get).iter().sum::<u8>()
        });
        assert_eq!(sum, 10);
    });
}

#[test]
fn what_a_declaration_is_made_of_does_not_get_into_its_way() {
    fn make() -> u8 {
        1
    }
    fn init() -> u8 {
        2
    }
    const KEY: u8 = 4;
    const INIT: u8 = 8;
    thread_local!(static SUM: u8 = make() + init() + KEY + INIT);
    thread_local!(static CONST: u8 = const { KEY + INIT });
    thread_local!(static ELIDED: &str = const { "static" });
    everywhere(|| {
        assert_eq!(afresh(|| SUM.with(|sum| *sum)), 15);
        assert_eq!(afresh(|| CONST.with(|sum| *sum)), 12);
        assert_eq!(afresh(|| ELIDED.with(|text| *text)), "static");
    });
}

#[test]
fn keys_and_errors_are_as_stds() {
    const fn as_stds<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}
    as_stds::<LocalKey<Cell<*const u8>>>();
    as_stds::<AccessError>();
    const fn value<T: Copy + Eq + Error>() {}
    value::<AccessError>();

    struct Keeps(Arc<Mutex<Option<AccessError>>>);
    impl Drop for Keeps {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = VALUE.try_with(|_| ()).err();
        }
    }
    thread_local!(static VALUE: Cell<Option<Keeps>> = Cell::new(None));
    assert_eq!(format!("{VALUE:?}"), "LocalKey { .. }");
    everywhere(|| {
        let error = Arc::new(Mutex::new(None));
        let keeps = Keeps(error.clone());
        afresh(move || VALUE.set(Some(keeps)));
        let error = error.lock().unwrap().unwrap();
        assert_eq!(
            format!("{error:?} {error} {error:>18}"),
            "AccessError already destroyed  already destroyed"
        );
        assert!(error.source().is_none());
    });
}
