//! Coroutines that have started on a thread, and not ended when that does.
//!
//! They may have lent others what lies in a thread-local of the thread:
//! `LOCAL.with(|value| std::thread::scope(|s| { s.spawn(|| use_it(value)); park() }))` is safe code,
//! and the scoped thread goes on. While the thread lives so does the value. But the runtime may have
//! been forgotten by then, or dropped where its coroutines cannot unwind, or be kept in a
//! thread-local itself: and then the thread must not drop its thread-locals. Nor can it wait, since
//! nothing may ever end them. So that ends the process.
//!
//! *In time.* What is lent was there when the coroutine was left, and the destructor that tells us of
//! the end of the thread is registered after that, so it is called before. It cannot be registered
//! for each of any number of calls of `run`, for each time takes memory until the thread ends. After
//! the first of them it is when their number has doubled: a thread-local that was first used since,
//! and is lent, may be dropped just before the process ends.
//!
//! *The main thread* ends with the process, and drops its thread-locals then, whoever else still
//! uses them; so does a thread that calls `exit`. That is std's, and its exit status stays: there the
//! coroutines end where they are. `exit` is known from the end of a thread where a coroutine calls
//! it, but not where a thread does between two `run`s, which is taken for its end.
//!
//! Under `panic = "abort"` it is usual that a runtime ends with coroutines left, and a hazard which
//! the crate docs tell of.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::rc::{Rc, Weak};

use crate::fatal;
use crate::scheduler::Worker;
use crate::sys::thread_end;

/// How many times the destructor is registered before that takes a doubling.
const EACH: u32 = 64;

thread_local! {
    /// The coroutines that are left on this thread. Without a destructor: it is looked at amid those.
    static LEFT: ManuallyDrop<RefCell<Vec<Left>>> = const { ManuallyDrop::new(RefCell::new(Vec::new())) };

    /// How often some were left.
    static TIMES: Cell<u32> = const { Cell::new(0) };

    /// Thread-locals that the coroutines may use are dropped, because the process ends.
    static GOING: Cell<bool> = const { Cell::new(false) };
}

enum Left {
    /// Those of a worker that can be driven again.
    On(Weak<Worker>),
    /// Those that a worker has given up, by their descriptions.
    GivenUp(Vec<String>),
}

impl Left {
    fn is_on(&self, worker: &Rc<Worker>) -> bool {
        matches!(self, Left::On(other) if other.as_ptr() == Rc::as_ptr(worker))
    }

    fn descriptions(&self) -> Vec<String> {
        match self {
            Left::On(worker) => worker
                .upgrade()
                .map_or_else(Vec::new, |worker| worker.describe_started()),
            Left::GivenUp(descriptions) => descriptions.clone(),
        }
    }
}

/// The coroutines of `worker` are left, or none are.
pub(super) fn note(worker: &Rc<Worker>) {
    let some = worker.has_started();
    LEFT.with(|left| {
        let mut left = left.borrow_mut();
        let known = left.iter().rposition(|left| left.is_on(worker));
        match (some, known) {
            (true, None) => left.push(Left::On(Rc::downgrade(worker))),
            (false, Some(position)) => drop(left.swap_remove(position)),
            _ => {}
        }
        if left.is_empty() {
            // Nobody else would free it.
            left.shrink_to_fit();
        }
    });
    if some {
        register();
    }
}

/// `worker` gives its coroutines up, which have these descriptions.
pub(super) fn note_given_up(worker: &Rc<Worker>, descriptions: Vec<String>) {
    LEFT.with(|left| {
        let mut left = left.borrow_mut();
        left.retain(|left| !left.is_on(worker));
        left.push(Left::GivenUp(descriptions));
    });
    register();
}

/// Whether the thread-locals of the calling thread are dropped, because the process ends.
pub(super) fn are_locals_going() -> bool {
    GOING.get()
}

fn register() {
    let times = TIMES.get().saturating_add(1);
    TIMES.set(times);
    if !cfg!(panic = "abort") && (times <= EACH || times.is_power_of_two()) {
        thread_end::call_before_locals_go(before_locals_go);
    }
}

extern "C" fn before_locals_go(_: *mut c_void) {
    if LEFT.with(|left| left.borrow().is_empty()) {
        return;
    }
    if thread_end::is_first_thread() || Worker::is_driven_here() {
        GOING.set(true);
        return;
    }
    let named = LEFT.with(|left| {
        let left = left.borrow();
        let lines = left.iter().flat_map(Left::descriptions);
        lines.fold(String::new(), |lines, line| lines + "\n  " + &line)
    });
    fatal::abort(format_args!(
        "a thread ends whose thread-locals may be used by coroutines that have started there and \
         not ended:{named}"
    ));
}
