//! The end of a runtime, as its workers share it. What each worker does is in `ending`.

mod ending;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(super) use ending::NOTHING_UNWINDS;

/// How long nothing must happen in a runtime that stops, before coroutines that wait for each other are
/// left behind.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Whether a runtime is stopping, and what its workers tell each other meanwhile.
pub(super) struct Shutdown {
    stopping: AtomicBool,
    /// When the grace ends, and how long it is. `None` if it ends beyond the clock's range. Set before
    /// `stopping`.
    grace: OnceLock<(Option<Instant>, Duration)>,
    /// How many batches of coroutines have run since the runtime began to stop.
    turns: AtomicUsize,
    /// How many workers had nothing to run and expected no event when they last looked, or have left.
    quiet: AtomicUsize,
    /// How many workers there are.
    workers: usize,
}

impl Shutdown {
    pub(super) fn new(workers: usize) -> Shutdown {
        Shutdown {
            stopping: AtomicBool::new(false),
            grace: OnceLock::new(),
            turns: AtomicUsize::new(0),
            quiet: AtomicUsize::new(0),
            workers,
        }
    }

    #[inline]
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Stops the runtime. Coroutines that have not ended after `grace` will be left behind.
    pub(super) fn begin(&self, grace: Duration) {
        self.grace
            .get_or_init(|| (Instant::now().checked_add(grace), grace));
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// When the grace ends. `None` if that is beyond the clock's range, or the runtime does not stop.
    pub(super) fn grace_ends(&self) -> Option<Instant> {
        self.grace.get().and_then(|(ends, _)| *ends)
    }

    /// The grace, if it is over.
    pub(super) fn grace_over(&self) -> Option<Duration> {
        let (ends, grace) = *self.grace.get()?;
        ends.is_some_and(|ends| ends <= Instant::now())
            .then_some(grace)
    }

    /// Notes that a worker has run a batch of coroutines.
    fn count_turn(&self) {
        self.turns.fetch_add(1, Ordering::SeqCst);
    }

    /// The number of batches so far, if all workers are quiet.
    fn quiet_since_turn(&self) -> Option<usize> {
        let quiet = self.quiet.load(Ordering::SeqCst) == self.workers;
        quiet.then(|| self.turns.load(Ordering::SeqCst))
    }
}

/// One worker's look at whether anything still happens in the runtime.
///
/// This decides by time and not by proof. A thread outside of the runtime may be about to wake a
/// coroutine, which no worker can know. Such a thread has [`PAUSE`] to do so, counted from the last event
/// in the runtime.
pub(super) struct Lookout<'a> {
    shutdown: &'a Shutdown,
    /// Whether this worker counts as quiet.
    is_quiet: bool,
    /// When this worker first saw that all workers were quiet, and how many batches had run by then. `None`
    /// if a worker was not quiet at the last look.
    all_quiet: Option<(Instant, usize)>,
}

impl<'a> Lookout<'a> {
    pub(super) fn new(shutdown: &'a Shutdown) -> Lookout<'a> {
        Lookout {
            shutdown,
            is_quiet: false,
            all_quiet: None,
        }
    }

    /// Notes that this worker has run a batch of coroutines.
    pub(super) fn note_turn(&mut self) {
        self.set_quiet(false);
        self.shutdown.count_turn();
    }

    /// Called by a worker that has nothing to run, and perhaps expects an event. Returns when to look again,
    /// or `None` if nothing has happened on any worker for [`PAUSE`].
    pub(super) fn look(&mut self, expects_something: bool) -> Option<Instant> {
        self.set_quiet(!expects_something);
        let now = Instant::now();
        let turn = self.shutdown.quiet_since_turn();
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

    fn set_quiet(&mut self, quiet: bool) {
        if quiet != self.is_quiet {
            self.is_quiet = quiet;
            match quiet {
                true => self.shutdown.quiet.fetch_add(1, Ordering::SeqCst),
                false => self.shutdown.quiet.fetch_sub(1, Ordering::SeqCst),
            };
        }
    }
}

impl Drop for Lookout<'_> {
    /// Nothing will happen on this worker any more, so it counts as quiet.
    fn drop(&mut self) {
        self.set_quiet(true);
    }
}
