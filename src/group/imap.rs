//! The results of a group's members, as iterators.
#![forbid(unsafe_code)]

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::iter::Peekable;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use slab::Slab;

use super::{Group, Reserved};
use crate::channel::{self, Receiver, Sender};
use crate::interrupt::deadline::Deadline;
use crate::interrupt::shield::shield;
use crate::park::Cancelled;
use crate::runtime::join::wait_all;
use crate::runtime::scope::ScopedJoinHandle;
use crate::runtime::spawn::Builder;

/// The items to come, and the function to call with them.
struct Calls<'a, I: Iterator, F> {
    group: &'a Group,
    items: Peekable<I>,
    f: Arc<F>,
}

impl<'a, I: Iterator, F> Calls<'a, I, F> {
    fn new(group: &'a Group, items: I, f: F) -> Self {
        Calls {
            group,
            items: items.peekable(),
            f: Arc::new(f),
        }
    }

    /// The next item, and what its call needs. `None` if there is none, or no room, given that `under_way`
    /// calls are. Waits for room if no call is.
    ///
    /// # Panics
    ///
    /// If there is no stack for the call. The item is then left for the next time.
    #[track_caller]
    fn next(&mut self, under_way: usize) -> Option<Call<'a, I::Item>> {
        if under_way >= self.group.room.limit() || self.items.peek().is_none() {
            return None;
        }
        let room = match under_way {
            0 => self.group.reserve(),
            _ => self.group.try_reserve()?,
        };
        let builder = Builder::new().with_stack();
        let builder = builder.expect("failed to spawn a coroutine");
        let item = self.items.next()?;
        Some(Call {
            item,
            room,
            builder,
        })
    }
}

/// An item, and what its call needs.
struct Call<'a, T> {
    item: T,
    room: Reserved<'a>,
    /// With a stack.
    builder: Builder,
}

impl<T> Call<'_, T> {
    /// Makes the call: `f` is called with the item.
    #[track_caller]
    fn spawn<R>(self, f: impl FnOnce(T) -> R + Send + 'static) -> ScopedJoinHandle<'static, R>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        let Call {
            item,
            room,
            builder,
        } = self;
        let spawned = room.spawn_with(builder, move || f(item));
        spawned.expect("its stack was reserved")
    }
}

/// The results of [`Group::imap`].
#[must_use = "calls are made only when results are asked for"]
pub struct Imap<'a, I: Iterator, F, T> {
    calls: Calls<'a, I, F>,
    /// Those that were made and not asked for.
    under_way: VecDeque<ScopedJoinHandle<'static, T>>,
}

impl<'a, I: Iterator, F, T> Imap<'a, I, F, T> {
    pub(super) fn new(group: &'a Group, items: I, f: F) -> Self {
        Imap {
            calls: Calls::new(group, items, f),
            under_way: VecDeque::new(),
        }
    }
}

impl<I, F, T> Iterator for Imap<'_, I, F, T>
where
    I: Iterator,
    I::Item: Send + 'static,
    F: Fn(I::Item) -> T + Send + Sync + 'static,
    T: Send + 'static,
{
    type Item = std::thread::Result<T>;

    #[track_caller]
    fn next(&mut self) -> Option<std::thread::Result<T>> {
        while let Some(call) = self.calls.next(self.under_way.len()) {
            let f = Arc::clone(&self.calls.f);
            self.under_way.push_back(call.spawn(move |item| f(item)));
        }
        // Waits before it takes the handle, so that an interrupt leaves the result for the next call.
        wait_all(self.under_way.front_mut(), Deadline::NEVER);
        self.under_way.pop_front().map(ScopedJoinHandle::join)
    }
}

impl<I: Iterator, F, T> Drop for Imap<'_, I, F, T> {
    fn drop(&mut self) {
        self.under_way.iter().for_each(ScopedJoinHandle::cancel);
    }
}

impl<I: Iterator, F, T> fmt::Debug for Imap<'_, I, F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap")
            .field("under_way", &self.under_way.len())
            .finish_non_exhaustive()
    }
}

/// The results of [`Group::imap_unordered`].
#[must_use = "calls are made only when results are asked for"]
pub struct ImapUnordered<'a, I: Iterator, F, T> {
    calls: Calls<'a, I, F>,
    /// Those that have not reported, by the number that they report with.
    under_way: Slab<ScopedJoinHandle<'static, ()>>,
    reporter: Sender<Reported<T>>,
    reports: Receiver<Reported<T>>,
}

/// The number of a call, and its result.
type Reported<T> = (usize, std::thread::Result<T>);

impl<'a, I: Iterator, F, T> ImapUnordered<'a, I, F, T> {
    pub(super) fn new(group: &'a Group, items: I, f: F) -> Self {
        let (reporter, reports) = channel::unbounded();
        ImapUnordered {
            calls: Calls::new(group, items, f),
            under_way: Slab::new(),
            reporter,
            reports,
        }
    }
}

impl<I, F, T> Iterator for ImapUnordered<'_, I, F, T>
where
    I: Iterator,
    I::Item: Send + 'static,
    F: Fn(I::Item) -> T + Send + Sync + 'static,
    T: Send + 'static,
{
    type Item = std::thread::Result<T>;

    #[track_caller]
    fn next(&mut self) -> Option<std::thread::Result<T>> {
        while let Some(call) = self.calls.next(self.under_way.len()) {
            let entry = self.under_way.vacant_entry();
            let report = Report {
                number: entry.key(),
                result: None,
                to: self.reporter.clone(),
            };
            let f = Arc::clone(&self.calls.f);
            entry.insert(call.spawn(move |item| report.on(|| f(item))));
        }
        if self.under_way.is_empty() {
            return None;
        }
        let (number, result) = self.reports.recv().ok()?;
        self.under_way.remove(number);
        Some(result)
    }
}

impl<I: Iterator, F, T> Drop for ImapUnordered<'_, I, F, T> {
    fn drop(&mut self) {
        self.under_way.iter().for_each(|(_, call)| call.cancel());
    }
}

impl<I: Iterator, F, T> fmt::Debug for ImapUnordered<'_, I, F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapUnordered")
            .field("under_way", &self.under_way.len())
            .finish_non_exhaustive()
    }
}

/// Reports the result of a call when it is dropped; that it was cancelled, if it has none. Also if the call's
/// coroutine never runs.
struct Report<T> {
    number: usize,
    result: Option<std::thread::Result<T>>,
    to: Sender<Reported<T>>,
}

impl<T> Report<T> {
    /// Calls `f`, and reports its result.
    fn on(mut self, f: impl FnOnce() -> T) {
        self.result = Some(catch_unwind(AssertUnwindSafe(f)));
    }
}

impl<T> Drop for Report<T> {
    fn drop(&mut self) {
        let cancelled = || Err(Box::new(Cancelled) as Box<dyn Any + Send>);
        let result = self.result.take().unwrap_or_else(cancelled);
        // The iterator counts on this report, so a cancellation must not keep it from being sent. If the
        // iterator is gone, nobody wants it.
        drop(shield(|| self.to.send((self.number, result))));
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::Group;
    use crate::coroutine::lacks;
    use crate::runtime::run;

    /// Takes results, of which each third attempt finds no stack.
    fn all_results(results: impl Iterator<Item = std::thread::Result<u32>>) -> Vec<u32> {
        let (mut results, mut taken, mut failures) = (results, Vec::new(), 0);
        for attempt in 0..100 {
            lacks::RESERVATIONS.set(usize::from(attempt % 3 == 0));
            match catch_unwind(AssertUnwindSafe(|| results.next())) {
                Ok(Some(result)) => taken.push(result.unwrap()),
                Ok(None) => break,
                Err(_) => failures += 1,
            }
        }
        lacks::RESERVATIONS.set(0);
        assert!(failures > 0);
        taken
    }

    #[test]
    fn a_call_without_a_stack_is_made_when_the_next_result_is_asked_for() {
        run(|| {
            for group in [Group::bounded(1), Group::bounded(3), Group::new()] {
                let all: Vec<_> = (0..10).collect();
                assert_eq!(all_results(group.imap(0..10, |n| n)), all);
                let mut results = all_results(group.imap_unordered(0..10, |n| n));
                results.sort_unstable();
                assert_eq!(results, all);
            }
        });
    }
}
