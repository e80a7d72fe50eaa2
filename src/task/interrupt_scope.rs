//! What can interrupt a task at the point where its code is, and how.
//!
//! A call can set a deadline for the code that it runs (`timeout`), keep cancellation away from that code
//! (`shield`), or choose how interrupts are delivered to it. Each such call enters an [`InterruptScope`],
//! which lies in the frame of the call. The task points to the innermost one, which leads to the outer
//! ones:
//!
//! ```text
//!   task ──▶ timeout 1 s ──▶ shield ──▶ timeout 5 s ──▶ none
//!            the innermost                              the coroutine's root
//! ```
//!
//! A scope has no timer and no waiter of its own: a wait inside it asks for the earliest deadline, and
//! waits no longer. So a scope that was left cannot interrupt anything, and costs nothing but its frame.
//! A bit of the task's wait word says whether there may be a scope, and each wait looks at that word anyway.
//! So a task without scopes pays for one load more in each wait. The first wait after the last scope was
//! left clears the bit. So a scope in which nothing waits costs no atomic operation but the first.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::word::WaitWord;
use super::{Current, Deadline, Task};

/// How a coroutine is interrupted. See [`Builder::interrupts`](crate::Builder::interrupts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interrupts {
    /// The wait unwinds. Under `panic = "abort"`, where nothing can unwind, this is like
    /// [`Errors`](Interrupts::Errors).
    #[default]
    Unwind,
    /// An operation that returns an [`io::Result`](std::io::Result), and would have to wait, fails
    /// instead. A cancellation is told only once: later operations wait again, so that the code can say
    /// goodbye. The end of the runtime is told once, too, even after a cancellation. All other waits go on
    /// to their end.
    Errors,
}

/// How interrupts reach the code at one point.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    /// The earliest of the deadlines that hold there.
    pub(crate) earliest: Option<Deadline>,
    /// Which cancellations are delivered there.
    pub(crate) cancel: Cancellations,
    /// How they are delivered.
    pub(crate) how: Interrupts,
}

/// Which cancellations are delivered at one point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancellations {
    All,
    /// That by the end of the runtime, when nothing else happens in it.
    OfRuntime,
    None,
}

impl Reach {
    /// Outside of all scopes.
    const ROOT: Reach = Reach {
        earliest: None,
        cancel: Cancellations::All,
        how: HOW_BY_DEFAULT,
    };
}

/// Without a panic strategy that unwinds, nothing can be unwound.
const HOW_BY_DEFAULT: Interrupts = match cfg!(panic = "abort") {
    true => Interrupts::Errors,
    false => Interrupts::Unwind,
};

/// Without a panic strategy that unwinds, the root itself is like a scope with errors.
const IS_ALWAYS_SCOPED: bool = cfg!(panic = "abort");

/// What a scope changes for the code inside it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    /// The code must not wait beyond this.
    Deadline(Deadline),
    /// Neither a cancellation nor the deadline of an outer scope reaches the code.
    Shield,
    /// The task has come to its end, and runs the destructors of what it leaves. A cancellation has nothing
    /// left to end.
    End,
    /// How interrupts are delivered.
    Interrupts(Interrupts),
}

/// A call that changes how interrupts reach the code inside it.
///
/// Only its own task uses it. The fields that change are atomic so that the roots below can be statics.
pub(crate) struct InterruptScope {
    /// The deadline that this scope has set.
    own: Option<Deadline>,
    /// Whether the deadlines of outer scopes hold inside.
    is_shield: bool,
    inside: Reach,
    outer: AtomicPtr<InterruptScope>,
    /// The number of the unwinds that this scope's deadline causes. Zero before the first. All of them have
    /// the same one: code that has caught several may go on with any of their payloads.
    unwind: AtomicU64,
}

/// The root of a coroutine that is set to errors.
static ERRORS: InterruptScope = InterruptScope {
    own: None,
    is_shield: false,
    inside: Reach {
        how: Interrupts::Errors,
        ..Reach::ROOT
    },
    outer: AtomicPtr::new(ptr::null_mut()),
    unwind: AtomicU64::new(0),
};

/// The innermost scope of a task; null for none.
pub(super) struct Innermost(AtomicPtr<InterruptScope>);

impl Innermost {
    /// That of a task which has entered no scope yet.
    #[inline]
    pub(super) fn root(how: Interrupts) -> Innermost {
        Innermost(AtomicPtr::new(match how {
            Interrupts::Unwind => ptr::null_mut(),
            Interrupts::Errors => ptr::from_ref(&ERRORS).cast_mut(),
        }))
    }

    /// The wait word of a task that begins with this scope.
    #[inline]
    pub(super) fn word(&self) -> WaitWord {
        WaitWord::of_scoped(IS_ALWAYS_SCOPED || !self.is_none())
    }

    /// Whether there is none.
    #[inline(always)]
    pub(super) fn is_none(&self) -> bool {
        self.get().is_null()
    }

    #[inline(always)]
    fn get(&self) -> *mut InterruptScope {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, scope: *mut InterruptScope) {
        self.0.store(scope, Ordering::Relaxed);
    }

    /// The scopes, from the innermost to the outermost. To be called by the task itself, and to be used up
    /// before the task enters or leaves a scope.
    fn scopes(&self) -> impl Iterator<Item = &InterruptScope> {
        // SAFETY: `enter` has set the pointer to a scope in its frame, and takes the pointer back before it
        // leaves the frame, on the only thread that follows it. The other scopes are statics.
        let at = |scope: *mut InterruptScope| unsafe { scope.as_ref() };
        std::iter::successors(at(self.get()), move |scope| {
            at(scope.outer.load(Ordering::Relaxed))
        })
    }

    fn reach(&self) -> Reach {
        self.scopes()
            .next()
            .map_or(Reach::ROOT, |scope| scope.inside)
    }
}

impl InterruptScope {
    fn new(change: Change, outside: Reach) -> InterruptScope {
        let mut inside = outside;
        match change {
            Change::Deadline(own) => inside.earliest = Some(earlier(own, outside.earliest)),
            Change::Shield => (inside.earliest, inside.cancel) = (None, Cancellations::None),
            Change::End => inside.cancel = Cancellations::OfRuntime,
            Change::Interrupts(Interrupts::Unwind) => inside.how = HOW_BY_DEFAULT,
            Change::Interrupts(Interrupts::Errors) => inside.how = Interrupts::Errors,
        }
        InterruptScope {
            own: match change {
                Change::Deadline(own) => Some(own),
                _ => None,
            },
            is_shield: matches!(change, Change::Shield),
            inside,
            outer: AtomicPtr::default(),
            unwind: AtomicU64::new(0),
        }
    }

    /// Calls `f` in a scope of its own, which makes `change`. Passes the scope to `f`.
    #[inline]
    pub(crate) fn enter<R>(change: Change, f: impl FnOnce(&InterruptScope) -> R) -> R {
        /// Leaves the scope when dropped, also by an unwind.
        struct Leave<'a>(&'a InterruptScope, Current);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                let Leave(scope, task) = self;
                task.innermost.set(scope.outer.load(Ordering::Relaxed));
            }
        }

        let task = Current::get();
        let scope = InterruptScope::new(change, task.innermost.reach());
        task.word.enter_scope();
        scope.outer.store(task.innermost.get(), Ordering::Relaxed);
        task.innermost.set((&raw const scope).cast_mut());
        let left = Leave(&scope, task);
        f(left.0)
    }

    /// Whether the unwind with this number was caused by this scope's deadline.
    pub(crate) fn has_caused(&self, unwind: u64) -> bool {
        self.unwind.load(Ordering::Relaxed) == unwind
    }
}

/// The earlier of two deadlines.
pub(crate) fn earlier(one: Deadline, other: Option<Deadline>) -> Deadline {
    match other {
        Some(other) if other.at <= one.at => other,
        _ => one,
    }
}

impl Task {
    /// Notes in the wait word of this task, which is the calling one, that it is in no scope, if that is so.
    pub(crate) fn forget_scopes_left(&self) {
        if self.innermost.is_none() && !IS_ALWAYS_SCOPED {
            self.word.leave_scopes();
        }
    }

    /// Whether the task has entered no scope, and is not set to errors.
    #[inline(always)]
    pub(crate) fn is_outside_scopes(&self) -> bool {
        self.innermost.is_none()
    }

    /// How interrupts reach the task, which is the calling one.
    pub(crate) fn reach(&self) -> Reach {
        self.innermost.reach()
    }

    /// Notes that the earliest deadline has caused an unwind, in the scope that it belongs to; in the
    /// outermost one, if it belongs to several. Returns the number of that scope's unwinds, which is not
    /// zero and no other scope's. To be called by the task itself, inside of a scope with a deadline.
    pub(crate) fn begin_unwind_of_earliest(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let earliest = self.reach().earliest;
        let mut hit = None;
        for scope in self.innermost.scopes() {
            if scope.own.map(|own| own.at) == earliest.map(|earliest| earliest.at) {
                hit = Some(scope);
            }
            if scope.is_shield {
                break;
            }
        }
        let hit = hit.expect("the earliest deadline belongs to a scope");
        match hit.unwind.load(Ordering::Relaxed) {
            0 => {
                let unwind = NEXT.fetch_add(1, Ordering::Relaxed);
                hit.unwind.store(unwind, Ordering::Relaxed);
                unwind
            }
            unwind => unwind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn deadline(in_seconds: u64) -> Deadline {
        Deadline::at(Instant::now() + Duration::from_secs(in_seconds))
    }

    fn reach() -> Reach {
        Current::get().reach()
    }

    #[test]
    fn the_earliest_deadline_holds_and_a_scope_that_was_left_does_not() {
        let (near, far) = (deadline(10), deadline(20));
        InterruptScope::enter(Change::Deadline(near), |outer| {
            InterruptScope::enter(Change::Deadline(far), |inner| {
                assert_eq!(reach().earliest.unwrap().at, near.at);
                let unwind = Current::get().begin_unwind_of_earliest();
                assert!(outer.has_caused(unwind) && !inner.has_caused(unwind));
            });
            let nearer = deadline(5);
            InterruptScope::enter(Change::Deadline(nearer), |inner| {
                assert_eq!(reach().earliest.unwrap().at, nearer.at);
                let unwind = Current::get().begin_unwind_of_earliest();
                assert!(inner.has_caused(unwind) && !outer.has_caused(unwind));
            });
            assert_eq!(reach().earliest.unwrap().at, near.at);
        });
        assert!(reach().earliest.is_none());
    }

    #[test]
    fn a_deadline_of_two_scopes_is_that_of_the_outer_one() {
        let same = Change::Deadline(deadline(10));
        InterruptScope::enter(same, |outer| {
            InterruptScope::enter(same, |_| {
                let unwind = Current::get().begin_unwind_of_earliest();
                assert!(outer.has_caused(unwind));
            });
        });
    }

    #[test]
    fn a_shield_keeps_outer_interrupts_away_but_not_inner_ones() {
        let (near, far) = (deadline(10), deadline(20));
        InterruptScope::enter(Change::Deadline(near), |_| {
            InterruptScope::enter(Change::Shield, |_| {
                assert!(reach().earliest.is_none());
                assert_eq!(reach().cancel, Cancellations::None);
                InterruptScope::enter(Change::Deadline(far), |inner| {
                    assert_eq!(reach().earliest.unwrap().at, far.at);
                    let unwind = Current::get().begin_unwind_of_earliest();
                    assert!(inner.has_caused(unwind));
                });
            });
            assert_eq!(reach().cancel, Cancellations::All);
        });
    }

    #[test]
    fn a_scope_is_left_by_a_panic_too() {
        let result = std::panic::catch_unwind(|| {
            InterruptScope::enter(Change::Shield, |_| {
                std::panic::resume_unwind(Box::new(()));
            });
        });
        assert!(result.is_err());
        assert_eq!(reach().cancel, Cancellations::All);
    }
}
