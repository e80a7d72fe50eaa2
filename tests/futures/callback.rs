//! Callbacks that a coroutine or OS thread waits for: when they come, how often, and what they leave behind.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, SendError, Sender, channel};
use std::sync::{Arc, Mutex};

use greenroom::{
    Cancelled, Done, JoinHandle, NeverCalled, from_callback, from_callback_or, interruption_point,
    spawn, timeout, yield_now,
};

use crate::util::{begin_cancelled, everywhere, message, ms, on_workers, until};
use crate::{Tells, flag, is_cancelled, is_set};

#[test]
fn a_callback_may_be_called_before_the_api_returns() {
    everywhere(|| {
        assert_eq!(from_callback(|done| done.call(7).unwrap()), Ok(7));
    });
}

#[test]
fn a_callback_may_be_called_later_by_a_coroutine() {
    everywhere(|| {
        let mut caller = None;
        let value = from_callback(|done| {
            caller = Some(spawn(move || {
                yield_now();
                done.call(7)
            }));
        });
        assert_eq!(value, Ok(7));
        assert_eq!(caller.unwrap().join().unwrap(), Ok(()));
    });
}

#[test]
fn a_callback_may_be_called_by_an_os_thread() {
    everywhere(|| {
        let start = |done: Done<_>| {
            std::thread::spawn(move || done.call(std::thread::current().id()).unwrap())
        };
        let caller = from_callback(start).unwrap();
        assert_ne!(caller, std::thread::current().id());
    });
}

#[test]
fn a_value_need_not_be_send() {
    everywhere(|| {
        let value = std::rc::Rc::new(7);
        let got = from_callback(|done| done.call(value.clone()).unwrap());
        assert!(std::rc::Rc::ptr_eq(&got.unwrap(), &value));
    });
}

#[test]
fn a_callback_that_is_dropped_ends_the_wait_with_an_error() {
    everywhere(|| {
        assert_eq!(from_callback(drop::<Done<()>>), Err(NeverCalled));
        let later = |done: Done<()>| std::thread::spawn(move || drop(done));
        assert_eq!(from_callback(later).unwrap_err(), NeverCalled);
    });
}

#[test]
fn a_wait_goes_on_until_the_last_clone_is_dropped() {
    everywhere(|| {
        let (keep, kept) = channel();
        let value = from_callback(|done| {
            keep.send(done.clone()).unwrap();
            drop(done);
            std::thread::spawn(move || kept.recv().unwrap().call(7).unwrap())
        });
        assert_eq!(value, Ok(7));
    });
}

#[test]
fn a_callback_that_panics_ends_the_wait_with_an_error() {
    everywhere(|| {
        let waited = from_callback(|done: Done<()>| {
            std::thread::spawn(move || {
                let _done = done;
                resume_unwind(Box::new("a callback that panics"));
            })
        });
        assert_eq!(waited, Err(NeverCalled));
    });
}

#[test]
fn the_second_call_gets_its_value_back() {
    everywhere(|| {
        let (keep, kept) = channel();
        let value = from_callback(|done| {
            assert_eq!(done.call(1), Ok(()));
            assert_eq!(done.call(2), Err(SendError(2)));
            keep.send(done).unwrap();
        });
        assert_eq!(value, Ok(1));
        assert_eq!(kept.recv().unwrap().call(3), Err(SendError(3)));
    });
}

/// Two callbacks, of which the API calls one.
#[test]
fn clones_serve_success_and_failure() {
    fn api(succeed: bool, success: impl FnOnce(u8), failure: impl FnOnce(&'static str)) {
        match succeed {
            true => success(7),
            false => failure("no luck"),
        }
    }
    everywhere(|| {
        for (succeed, outcome) in [(true, Ok(7)), (false, Err("no luck"))] {
            let got = from_callback(|done| {
                let other = done.clone();
                let success = move |value| done.call(Ok(value)).unwrap();
                api(succeed, success, move |error| {
                    other.call(Err(error)).unwrap()
                });
            });
            assert_eq!(got, Ok(outcome));
        }
    });
}

#[test]
fn a_panic_of_the_api_goes_to_the_caller() {
    everywhere(|| {
        let call = || from_callback(|_: Done<()>| resume_unwind(Box::new("the api")));
        let payload = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
        assert_eq!(message(&*payload), "the api");
    });
}

#[test]
fn what_the_api_returns_is_kept_until_the_wait_is_over() {
    everywhere(|| {
        let withdrawn = flag();
        let value = from_callback(|done| {
            let withdrawn = Arc::clone(&withdrawn);
            let seen = Arc::clone(&withdrawn);
            spawn(move || {
                yield_now();
                done.call(is_set(&seen)).unwrap();
            });
            Tells(withdrawn)
        });
        assert_eq!(value, Ok(false));
        assert!(is_set(&withdrawn));

        let withdrawn = flag();
        let waited = timeout(ms(1), || {
            let mut kept = None;
            from_callback(|done: Done<()>| {
                kept = Some(done);
                Tells(Arc::clone(&withdrawn))
            })
        });
        assert!(waited.is_err());
        assert!(is_set(&withdrawn), "a timeout withdraws the request");
    });
}

#[test]
fn a_value_after_a_timeout_is_given_back() {
    everywhere(|| {
        let mut late = None;
        let waited = timeout(ms(1), || from_callback(|done| late = Some(done)));
        assert!(waited.is_err());
        assert_eq!(late.unwrap().call(7), Err(SendError(7)));
    });
}

/// Spawns a coroutine that waits for a callback, with a hook. Returns when it waits: the coroutine, the callback,
/// and the values that the hook got.
fn abandonable() -> (
    JoinHandle<Result<u32, NeverCalled>>,
    Done<u32>,
    Receiver<u32>,
) {
    let (give, given) = channel();
    let (hook, hooked) = channel();
    let waiter = spawn(move || {
        let hook = move |value| hook.send(value).unwrap();
        from_callback_or(hook, |done| give.send(done).unwrap())
    });
    let mut done = None;
    until("the callback is there", || {
        done = given.try_recv().ok();
        done.is_some()
    });
    (waiter, done.unwrap(), hooked)
}

#[test]
fn a_value_after_a_cancellation_goes_to_the_hook_once() {
    everywhere(|| {
        let (waiter, done, hooked) = abandonable();
        waiter.cancel();
        assert!(is_cancelled(waiter.join()));
        assert_eq!(done.call(7), Ok(()));
        assert_eq!(done.call(8), Err(SendError(8)));
        assert_eq!(hooked.iter().collect::<Vec<_>>(), [7]);
    });
}

#[test]
fn a_value_that_is_returned_does_not_go_to_the_hook() {
    everywhere(|| {
        let (waiter, done, hooked) = abandonable();
        assert_eq!(done.call(7), Ok(()));
        assert_eq!(waiter.join().unwrap(), Ok(7));
        drop(done);
        assert_eq!(hooked.iter().count(), 0);
    });
}

#[test]
fn a_value_goes_to_the_hook_if_the_api_panics_after_the_call() {
    everywhere(|| {
        let (hook, hooked) = channel();
        let call = || {
            let hook = move |value| hook.send(value).unwrap();
            from_callback_or(hook, |done| {
                done.call(7).unwrap();
                resume_unwind(Box::new("the api"));
            })
        };
        let payload = catch_unwind(AssertUnwindSafe(call)).unwrap_err();
        assert_eq!(message(&*payload), "the api");
        assert_eq!(hooked.iter().collect::<Vec<_>>(), [7]);
    });
}

#[test]
fn a_value_goes_to_the_hook_if_what_the_api_has_returned_unwinds_when_it_is_dropped() {
    struct CallsOnDrop(fn());
    impl Drop for CallsOnDrop {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    everywhere(|| {
        let call = |on_drop| {
            let (hook, hooked) = channel();
            let call = move || {
                let hook = move |value| hook.send(value).unwrap();
                from_callback_or(hook, |done| {
                    done.call(7).unwrap();
                    CallsOnDrop(on_drop)
                })
            };
            (call, hooked)
        };
        let (interrupted, hooked) = call(interruption_point);
        assert!(is_cancelled(begin_cancelled(interrupted).join()));
        assert_eq!(hooked.iter().collect::<Vec<_>>(), [7]);

        let (panics, hooked) = call(|| resume_unwind(Box::new("the guard")));
        let payload = catch_unwind(AssertUnwindSafe(panics)).unwrap_err();
        assert_eq!(message(&*payload), "the guard");
        assert_eq!(hooked.iter().collect::<Vec<_>>(), [7]);
    });
}

/// Either the waiter returns the value, or the hook has it: never both, never neither.
#[test]
fn a_value_that_races_with_a_cancellation_is_not_lost() {
    on_workers(2, || {
        let (mut returned, mut abandoned) = (0, 0);
        for round in 0..2_000 {
            let (waiter, done, hooked) = abandonable();
            let canceller = waiter.canceller();
            let caller = std::thread::spawn(move || {
                (0..round % 50).for_each(|_| std::hint::spin_loop());
                done.call(round).unwrap();
            });
            canceller.cancel();
            let waited = waiter.join();
            caller.join().unwrap();
            let hooked: Vec<_> = hooked.iter().collect();
            match waited {
                Ok(value) => {
                    assert_eq!((value, &*hooked), (Ok(round), &[][..]));
                    returned += 1;
                }
                Err(payload) => {
                    assert!(payload.is::<Cancelled>());
                    assert_eq!(hooked, [round]);
                    abandoned += 1;
                }
            }
        }
        eprintln!("{returned} were returned, and {abandoned} abandoned");
    });
}

/// Destructors may wait for callbacks of OS threads while their coroutine unwinds.
#[test]
fn a_callback_is_awaited_amid_a_panic() {
    struct Waits(Arc<Mutex<Option<u32>>>);
    impl Drop for Waits {
        fn drop(&mut self) {
            let start = |done: Done<u32>| std::thread::spawn(move || done.call(7).unwrap());
            *self.0.lock().unwrap() = from_callback(start).ok();
        }
    }
    everywhere(|| {
        let got = Arc::default();
        let waits = Waits(Arc::clone(&got));
        let panics = spawn(move || {
            let _waits = waits;
            resume_unwind(Box::new("amid a panic"));
        });
        assert_eq!(message(&*panics.join().unwrap_err()), "amid a panic");
        assert_eq!(*got.lock().unwrap(), Some(7));
    });
}

/// A key-value client as many libraries have it: requests go to a thread of its own, which calls back.
#[derive(Clone)]
struct Store(Sender<Request>);

type Reply = Box<dyn FnOnce(Option<String>) + Send>;

enum Request {
    Get(String, Reply),
    Set(String, String, Reply),
}

impl Store {
    fn new() -> Store {
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            let mut items = HashMap::new();
            for request in requests {
                match request {
                    Request::Get(key, reply) => reply(items.get(&key).cloned()),
                    Request::Set(key, value, reply) => reply(items.insert(key, value)),
                }
            }
        });
        Store(sender)
    }

    fn get(&self, key: &str, reply: impl FnOnce(Option<String>) + Send + 'static) {
        let request = Request::Get(key.into(), Box::new(reply));
        self.0.send(request).unwrap();
    }

    fn set(&self, key: &str, value: &str, reply: impl FnOnce(Option<String>) + Send + 'static) {
        let request = Request::Set(key.into(), value.into(), Box::new(reply));
        self.0.send(request).unwrap();
    }
}

#[test]
fn a_key_value_client_with_callbacks_is_written_sequentially() {
    fn append(store: &Store, key: &str, suffix: &str) -> Option<String> {
        let before = from_callback(|done| store.get(key, move |value| done.call(value).unwrap()));
        let value = before.unwrap().unwrap_or_default() + suffix;
        let set = |done: Done<_>| store.set(key, &value, move |before| done.call(before).unwrap());
        from_callback(set).unwrap()
    }
    on_workers(1, || {
        let store = Store::new();
        greenroom::scope(|s| {
            for client in 0..20 {
                let store = store.clone();
                s.spawn(move || {
                    let key = format!("key {client}");
                    assert_eq!(append(&store, &key, "a"), None);
                    assert_eq!(append(&store, &key, "b").as_deref(), Some("a"));
                    assert_eq!(append(&store, &key, "c").as_deref(), Some("ab"));
                });
            }
        });
        let last =
            from_callback(|done| store.get("key 19", move |value| done.call(value).unwrap()));
        assert_eq!(last.unwrap().as_deref(), Some("abc"));
    });
}
