//! The end of a runtime, as its workers share it. What each worker does is in `ending`.

mod ending;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub(super) use ending::NOTHING_UNWINDS;

use crate::sys::switches::own_lock;

/// How long nothing must happen in a runtime that stops, before coroutines that wait for each other are
/// left behind.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Whether a runtime is stopping, and what its workers tell each other meanwhile.
pub(super) struct Shutdown {
    stopping: AtomicBool,
    grace: Duration,
    /// When the grace ends. `None` if that is beyond the clock's range. Set before `stopping`.
    ends: OnceLock<Option<Instant>>,
    /// How many batches of coroutines have run since the runtime began to stop.
    turns: AtomicUsize,
    /// For each worker, whether it had nothing to run and expected no event when it last looked, or has left.
    quiet: Box<[AtomicBool]>,
    leaving: Mutex<()>,
    /// Notified when a thread stops to drive a worker.
    left: Condvar,
}

impl Shutdown {
    pub(super) fn new(workers: usize, grace: Duration) -> Shutdown {
        Shutdown {
            stopping: AtomicBool::new(false),
            grace,
            ends: OnceLock::new(),
            turns: AtomicUsize::new(0),
            quiet: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            leaving: Mutex::new(()),
            left: Condvar::new(),
        }
    }

    #[inline]
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Stops the runtime. Coroutines that have not ended after the grace will be left behind.
    pub(super) fn begin(&self) {
        self.ends
            .get_or_init(|| Instant::now().checked_add(self.grace));
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub(super) fn grace(&self) -> Duration {
        self.grace
    }

    /// When the grace ends. `None` if that is beyond the clock's range, or the runtime does not stop.
    pub(super) fn grace_ends(&self) -> Option<Instant> {
        self.ends.get().copied().flatten()
    }

    /// The grace, if it is over.
    pub(super) fn grace_over(&self) -> Option<Duration> {
        let ends = self.grace_ends()?;
        (ends <= Instant::now()).then_some(self.grace)
    }

    /// Notes that a thread has stopped to drive a worker.
    pub(super) fn note_left(&self) {
        if self.is_stopping() {
            drop(own_lock(&self.leaving));
            self.left.notify_all();
        }
    }

    /// Blocks the calling thread until `all_left`, but not for long after the end of the grace.
    pub(super) fn wait_until(&self, all_left: impl Fn() -> bool) {
        let mut leaving = own_lock(&self.leaving);
        while !all_left() {
            let until = self.grace_ends().map(|ends| ends + 2 * PAUSE);
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            leaving = match left {
                Some(Duration::ZERO) => return,
                Some(left) => {
                    let waited = self.left.wait_timeout(leaving, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .left
                    .wait(leaving)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// The number of batches so far, if each worker is quiet or away.
    fn quiet_since_turn(&self, is_away: impl Fn(usize) -> bool) -> Option<usize> {
        let mut workers = self.quiet.iter().enumerate();
        let quiet = workers.all(|(index, quiet)| quiet.load(Ordering::SeqCst) || is_away(index));
        // After the look at the workers: see `Lookout`.
        quiet.then(|| self.turns.load(Ordering::SeqCst))
    }
}

/// One worker's look at whether anything still happens in the runtime.
///
/// This decides by time and not by proof. A thread outside of the runtime may be about to wake a
/// coroutine, which no worker can know. Such a thread has [`PAUSE`] to do so, counted from the last event
/// in the runtime.
///
/// *No batch is overlooked.* A worker is not quiet from before each of its batches until it looks again. It
/// counts the batch in between, when the batch is over. A look reads first which are quiet, then the count. So
/// if two looks find all workers quiet and the same count, no batch has run between them.
///
/// *Nobody waits for a worker that is away*, because nothing runs there until a thread drives the worker. From
/// then on the worker is not away, and not quiet before it has looked itself. A thread that is about to end the
/// runtime says so before the others can look (`announce_end`).
pub(super) struct Lookout<'a> {
    shutdown: &'a Shutdown,
    /// The number of this worker in the runtime.
    index: usize,
    /// When this worker first saw that all workers were quiet, and how many batches had run by then. `None`
    /// if a worker was not quiet at the last look.
    all_quiet: Option<(Instant, usize)>,
}

impl<'a> Lookout<'a> {
    pub(super) fn new(shutdown: &'a Shutdown, index: usize) -> Lookout<'a> {
        Lookout {
            shutdown,
            index,
            all_quiet: None,
        }
    }

    /// Runs a batch of this worker's coroutines. They may compute for long, and then wake others.
    pub(super) fn watch_batch(&self, batch: impl FnOnce()) {
        self.set_quiet(false);
        batch();
        self.shutdown.turns.fetch_add(1, Ordering::SeqCst);
    }

    /// Called by a worker that has nothing to run, and perhaps expects an event. `is_away` tells which workers
    /// no thread drives. Returns when to look again, or `None` if nothing has happened on any worker for
    /// [`PAUSE`].
    pub(super) fn look(
        &mut self,
        expects_something: bool,
        is_away: impl Fn(usize) -> bool,
    ) -> Option<Instant> {
        self.set_quiet(!expects_something);
        let now = Instant::now();
        let turn = self.shutdown.quiet_since_turn(is_away);
        let (since, _) = match (turn, self.all_quiet) {
            (Some(turn), Some(known)) if known.1 == turn => known,
            (turn, _) => {
                self.all_quiet = turn.map(|turn| (now, turn));
                (now, 0)
            }
        };
        let enough = since + PAUSE;
        (enough > now).then_some(enough)
    }

    fn set_quiet(&self, quiet: bool) {
        self.shutdown.quiet[self.index].store(quiet, Ordering::SeqCst);
    }
}

impl Drop for Lookout<'_> {
    /// Nothing will happen on this worker any more, so it counts as quiet.
    fn drop(&mut self) {
        self.set_quiet(true);
    }
}
