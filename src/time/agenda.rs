//! The pending timers of a runtime, and the states of the coroutine that fires them. The protocol is
//! described in `runtime/after.rs`.

use std::collections::BTreeMap;
use std::io;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::park::Waiters;
use crate::sys::fork::Process;
use crate::sys::switches::own_lock;
use crate::task::word::Kind;
use crate::task::{self, AsideGuard, Deadline, Reason};

/// How many timers the keeper examines to find a wake-up that serves several.
const LOOK_AHEAD: usize = 64;

/// The timers of a runtime.
pub(crate) struct Agenda {
    made_by: Process,
    /// Its runtime stops: no other keeper will come.
    is_closed: AtomicBool,
    /// Locked while a keeper is spawned, so that there is only one.
    starting: Mutex<()>,
    state: Mutex<AgendaState>,
    /// The keeper waits here.
    bed: Waiters,
}

/// Locked for a few operations on the queue. No code of the user runs under the lock.
#[derive(Default)]
struct AgendaState {
    queue: BTreeMap<TimerPosition, PendingTimer>,
    /// The order of the next timer to be queued.
    next_order: u64,
    keeper: KeeperState,
}

struct PendingTimer {
    timer: Arc<Timer>,
    /// The timer may fire this much later than its deadline.
    slack: Duration,
}

/// What the keeper is doing. Drawn in `runtime/after.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum KeeperState {
    /// No keeper has been spawned, or spawning it has failed.
    #[default]
    Absent,
    /// A keeper is being spawned, which may fail.
    Starting,
    /// The keeper is about to look at the queue.
    Awake,
    /// The keeper sleeps, and looks at the queue at this moment at the latest.
    Asleep(When),
    /// The keeper sleeps because no timer is pending. It counts as idling.
    Idle,
    /// The keeper has ended with its runtime.
    Gone,
}

/// A moment, or never. Ordered by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum When {
    At(Instant),
    Never,
}

/// The position of a timer in the queue. Ordered by deadline, then by insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerPosition {
    due: When,
    order: u64,
}

impl TimerPosition {
    /// The deadline; `None` if the timer is never due.
    pub(crate) fn deadline(self) -> Option<Instant> {
        match self.due {
            When::At(instant) => Some(instant),
            When::Never => None,
        }
    }
}

/// What the keeper must do next.
pub(crate) enum Next {
    /// Spawn the closure of this timer, which was taken out of the queue.
    Fire(Arc<Timer>),
    /// Sleep until the deadline, or until woken.
    Sleep(Option<Deadline>),
    /// Sleep until woken. Nothing is pending, and the keeper counts as idling.
    Idle,
}

/// The result of adding a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    Pending,
    /// The timer was not added, because there is no keeper.
    Unkept,
    /// The timer was not added, because its runtime has ended.
    TooLate,
}

impl Agenda {
    pub(crate) fn new() -> Agenda {
        Agenda {
            made_by: Process::current(),
            is_closed: AtomicBool::new(false),
            starting: Mutex::new(()),
            state: Mutex::default(),
            bed: Waiters::new(Reason::Timers),
        }
    }

    /// Locks the state. The queue allocates memory under the lock.
    fn lock(&self) -> AsideGuard<'_, AgendaState> {
        task::lock_aside(&self.state)
    }

    /// Unlocks `state`, in which a timer was added that must fire by `latest`, or a timer was removed.
    /// Wakes the keeper if it would sleep for too long.
    fn unlock_and_wake(&self, mut state: AsideGuard<'_, AgendaState>, latest: When) {
        let wakes = match state.keeper {
            KeeperState::Asleep(until) => latest < until || state.queue.is_empty(),
            _ => false,
        };
        if wakes {
            // Nobody else wakes the keeper for the same sleep.
            state.keeper = KeeperState::Awake;
        }
        drop(state);
        if wakes {
            self.bed.wake_all();
        }
    }

    /// Makes sure that there is a keeper. If not, `spawn` must spawn one. The keeper calls
    /// [`take_up`](Agenda::take_up) first of all, and [`end`](Agenda::end) however it ends, even if it
    /// never runs.
    ///
    /// # Errors
    ///
    /// Those of `spawn`.
    pub(crate) fn ensure_keeper(&self, spawn: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.has_keeper() {
            return Ok(());
        }
        // Spawning allocates memory, and does not wait for the keeper to run.
        let _starting = task::lock_aside(&self.starting);
        if self.has_keeper() {
            return Ok(());
        }
        // Not `Awake` yet: other threads must not rely on a keeper that may not come.
        self.lock().keeper = KeeperState::Starting;
        spawn()?;
        // The keeper may have run already, and even ended.
        self.take_up();
        Ok(())
    }

    /// Whether there is a keeper on which a timer can rely. A keeper that is `Gone` counts: no other
    /// will come.
    fn has_keeper(&self) -> bool {
        !matches!(
            self.lock().keeper,
            KeeperState::Absent | KeeperState::Starting
        )
    }

    /// Notes that spawning the keeper has succeeded. Called by the spawner and by the keeper, whichever
    /// is first.
    pub(crate) fn take_up(&self) {
        let mut state = self.lock();
        if state.keeper == KeeperState::Starting {
            state.keeper = KeeperState::Awake;
        }
    }

    /// Adds a timer. If the keeper was idling, calls `end_idling` under the lock.
    pub(crate) fn add(
        &self,
        timer: &Arc<Timer>,
        deadline: Option<Deadline>,
        end_idling: impl FnOnce(),
    ) -> Added {
        let mut state = self.lock();
        match state.keeper {
            KeeperState::Absent | KeeperState::Starting => return Added::Unkept,
            KeeperState::Gone => return Added::TooLate,
            KeeperState::Awake | KeeperState::Asleep(_) => {}
            KeeperState::Idle => {
                // It sleeps without a deadline. Whether it must wake up is decided below.
                state.keeper = KeeperState::Asleep(When::Never);
                end_idling();
            }
        }
        let latest = state.insert(timer, deadline);
        self.unlock_and_wake(state, latest);
        Added::Pending
    }

    /// Tells the keeper, which is awake, what to do at `now`. If nothing is pending, calls
    /// `begin_idling` under the lock.
    pub(crate) fn next(&self, now: Instant, begin_idling: impl FnOnce()) -> Next {
        let mut state = self.lock();
        let Some(first) = state.queue.first_entry() else {
            state.keeper = KeeperState::Idle;
            begin_idling();
            return Next::Idle;
        };
        if first.key().due <= When::At(now) {
            let PendingTimer { timer, .. } = first.remove();
            timer.set_position(None);
            return Next::Fire(timer);
        }
        // Noted under the lock under which the queue was looked at, so that no later change is missed.
        let alarm = state.alarm();
        let until = When::latest(alarm);
        state.keeper = KeeperState::Asleep(until);
        Next::Sleep(alarm)
    }

    /// Parks the keeper until `deadline`, or until it is woken.
    ///
    /// # Unwinding
    ///
    /// If its runtime shuts down.
    pub(crate) fn sleep(&self, deadline: Option<Deadline>) {
        // Evaluated under the lock of `bed`: a waker sets `Awake` before it takes that lock.
        let woken = || self.lock().keeper == KeeperState::Awake;
        loop {
            self.bed.wait(Kind::Event, deadline, woken);
            let mut state = self.lock();
            // A waker may come late: the keeper has seen its `Awake` without it, found nothing pending,
            // and idles. Only a new timer ends that state, since the keeper counts as idling in it.
            if state.keeper != KeeperState::Idle {
                state.keeper = KeeperState::Awake;
                return;
            }
        }
    }

    /// Notes that the runtime stops.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Notes that the keeper has ended, or has not been spawned. If it was idling, calls `end_idling`
    /// under the lock. If the agenda is closed, drops the pending closures. The caller may be a coroutine of
    /// another runtime, which ends this one.
    pub(crate) fn end(&self, end_idling: impl FnOnce()) {
        let for_good = self.is_closed();
        let mut state = self.lock();
        if state.keeper == KeeperState::Idle {
            end_idling();
        }
        state.keeper = match for_good {
            true => KeeperState::Gone,
            false => KeeperState::Absent,
        };
        let pending = match for_good {
            true => std::mem::take(&mut state.queue),
            false => BTreeMap::new(),
        };
        // Under the lock, so that each of them is inactive before any closure is dropped.
        for pending in pending.values() {
            pending.timer.set_position(None);
        }
        // Not under the lock: the destructors may use timers.
        drop(state);
        for pending in pending.into_values() {
            pending.timer.discard_quietly();
        }
    }
}

impl AgendaState {
    /// Queues a timer that is not queued. Returns the latest moment for the timer to fire.
    fn insert(&mut self, timer: &Arc<Timer>, deadline: Option<Deadline>) -> When {
        let position = TimerPosition {
            due: deadline.map_or(When::Never, |deadline| When::At(deadline.at)),
            order: self.next_order,
        };
        self.next_order += 1;
        timer.set_position(Some(position));
        let pending = PendingTimer {
            timer: Arc::clone(timer),
            slack: deadline.map_or(Duration::ZERO, Deadline::slack),
        };
        self.queue.insert(position, pending);
        When::latest(deadline)
    }

    /// When the keeper must wake up. This is the first deadline, or a later one that is within the
    /// slack of all before it: the wake-up then serves all of them.
    fn alarm(&self) -> Option<Deadline> {
        let ahead = self.queue.iter().take(LOOK_AHEAD);
        let mut deadlines = ahead.map_while(|(position, pending)| {
            let at = position.deadline()?;
            Some((at, at.checked_add(pending.slack).unwrap_or(at)))
        });
        let (mut at, mut latest) = deadlines.next()?;
        for (next, next_latest) in deadlines {
            // Waiting for this one would be too late for one before it.
            if next > latest {
                break;
            }
            at = next;
            latest = latest.min(next_latest);
        }
        Some(Deadline::with_slack(at, latest - at))
    }
}

impl When {
    /// The latest moment that `deadline` and its slack allow.
    fn latest(deadline: Option<Deadline>) -> When {
        let latest = deadline.and_then(|deadline| deadline.at.checked_add(deadline.slack()));
        latest.map_or(When::Never, When::At)
    }
}

/// A closure that runs at a deadline.
pub(crate) struct Timer<J: ?Sized = dyn TimerJob> {
    agenda: Arc<Agenda>,
    site: &'static Location<'static>,
    /// The timer's position in the queue, while it is pending. Changes together with the queue, under
    /// the lock of the agenda.
    position: Mutex<Option<TimerPosition>>,
    job: J,
}

/// The closure of a timer, of any type.
pub(crate) trait TimerJob: Send + Sync {
    /// Runs the closure. Called by the coroutine that the timer has fired.
    fn run(&self);

    /// Drops the closure. Called by the canceller.
    fn discard(&self);
}

/// A closure, until it is taken.
struct Closure<F>(Mutex<Option<F>>);

impl<F> Closure<F> {
    /// Takes the closure. A panic cannot leave it half taken, so poisoning is ignored.
    fn take(&self) -> Option<F> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<F: FnOnce() + Send> TimerJob for Closure<F> {
    fn run(&self) {
        // The closure is called without the lock: it may use its own timer.
        let f = self.take();
        f.expect("a timer fires once")();
    }

    fn discard(&self) {
        drop(self.take());
    }
}

impl Timer {
    /// A timer that is not pending yet.
    pub(crate) fn new<F>(agenda: Arc<Agenda>, site: &'static Location<'static>, f: F) -> Arc<Timer>
    where
        F: FnOnce() + Send + 'static,
    {
        Arc::new(Timer {
            agenda,
            site,
            position: Mutex::new(None),
            job: Closure(Mutex::new(Some(f))),
        })
    }

    /// Whether its runtime stops, so that the timer will not fire.
    pub(crate) fn is_given_up(&self) -> bool {
        self.agenda.is_closed()
    }

    /// The call that has set the timer.
    pub(crate) fn site(&self) -> &'static Location<'static> {
        self.site
    }

    fn lock(&self) -> MutexGuard<'_, Option<TimerPosition>> {
        own_lock(&self.position)
    }

    /// Called under the lock of the agenda.
    fn set_position(&self, position: Option<TimerPosition>) {
        *self.lock() = position;
    }

    /// Whether this process is a fork of the process that has set the timer. Threads that are missing
    /// here may hold the timer's locks.
    fn is_left_in_parent(&self) -> bool {
        !self.agenda.made_by.is_current()
    }

    /// The timer's position in the queue, if it is pending.
    pub(crate) fn position(&self) -> Option<TimerPosition> {
        if self.is_left_in_parent() {
            return None;
        }
        *self.lock()
    }

    /// Takes the timer out of the queue. Returns whether it was pending: the closure is then the
    /// caller's.
    fn withdraw(&self) -> bool {
        if self.is_left_in_parent() {
            return false;
        }
        let mut state = self.agenda.lock();
        // Whoever takes the position has the closure.
        let Some(position) = self.lock().take() else {
            return false;
        };
        let pending = state.queue.remove(&position);
        self.agenda.unlock_and_wake(state, When::Never);
        // Not the last reference, since the caller has one. Dropped after the lock all the same.
        drop(pending);
        true
    }

    /// Cancels the timer and drops its closure. Returns false if the timer was not pending.
    pub(crate) fn cancel(&self) -> bool {
        let cancelled = self.withdraw();
        if cancelled {
            self.job.discard();
        }
        cancelled
    }

    /// Gives the timer another deadline. Returns false if the timer was not pending.
    pub(crate) fn reset(self: &Arc<Timer>, deadline: Option<Deadline>) -> bool {
        if self.is_left_in_parent() {
            return false;
        }
        let mut state = self.agenda.lock();
        let Some(position) = self.lock().take() else {
            return false;
        };
        state.queue.remove(&position);
        // At the end of its deadline's timers, like a timer that was just set.
        let latest = state.insert(self, deadline);
        self.agenda.unlock_and_wake(state, latest);
        true
    }

    /// Runs the closure of a timer that has fired.
    pub(crate) fn run(&self) {
        self.job.run();
    }

    /// Drops the closure. Ignores a panic of its destructor, which the panic hook has reported: no
    /// caller could handle it.
    pub(crate) fn discard_quietly(&self) {
        let discard = std::panic::AssertUnwindSafe(|| self.job.discard());
        if let Err(payload) = std::panic::catch_unwind(discard) {
            // Dropping the payload might panic again.
            std::mem::forget(payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// An agenda with a keeper that is awake. The test acts as the keeper.
    fn kept() -> Arc<Agenda> {
        let agenda = Arc::new(Agenda::new());
        agenda.ensure_keeper(|| Ok(())).unwrap();
        agenda
    }

    fn timer(agenda: &Arc<Agenda>) -> Arc<Timer> {
        Timer::new(Arc::clone(agenda), Location::caller(), || ())
    }

    fn add(agenda: &Arc<Agenda>, deadline: Option<Deadline>) -> Arc<Timer> {
        let timer = timer(agenda);
        assert_eq!(agenda.add(&timer, deadline, || ()), Added::Pending);
        timer
    }

    /// The indices in `timers` of the timers that are due at `now`, and when the keeper wakes up next.
    fn due(agenda: &Agenda, timers: &[Arc<Timer>], now: Instant) -> (Vec<usize>, Option<Instant>) {
        let mut order = Vec::new();
        loop {
            match agenda.next(now, || ()) {
                Next::Fire(fired) => {
                    let same = |timer| Arc::ptr_eq(timer, &fired);
                    order.extend(timers.iter().position(same));
                }
                Next::Sleep(alarm) => return (order, alarm.map(|alarm| alarm.at)),
                Next::Idle => return (order, None),
            }
        }
    }

    #[test]
    fn timers_of_equal_deadlines_fire_in_the_order_in_which_they_were_set_or_reset() {
        let agenda = kept();
        let start = Instant::now();
        let at = |millis| Some(Deadline::at(start + Duration::from_millis(millis)));
        let timers = [20, 10, 20, 10, 20, 10].map(|millis| add(&agenda, at(millis)));
        assert!(timers[1].reset(at(10)));
        assert!(timers[0].reset(at(10)));
        assert!(timers[2].cancel());
        let ten = start + Duration::from_millis(10);
        let twenty = start + Duration::from_millis(20);
        assert_eq!(due(&agenda, &timers, start), (vec![], Some(ten)));
        assert_eq!(due(&agenda, &timers, ten), (vec![3, 5, 1, 0], Some(twenty)));
        assert_eq!(due(&agenda, &timers, twenty), (vec![4], None));
    }

    #[test]
    fn a_keeper_does_not_sleep_if_the_queue_changes_before_it_parks() {
        const FAR: Duration = Duration::from_secs(20);
        let agenda = kept();
        type Change = fn(&Arc<Agenda>, &Arc<Timer>);
        let changes: [Change; 3] = [
            |agenda, _| drop(add(agenda, Deadline::after(Duration::ZERO))),
            |_, first| assert!(first.reset(Deadline::after(Duration::ZERO))),
            |_, first| assert!(first.cancel()),
        ];
        for change in changes {
            let first = add(&agenda, Deadline::after(FAR));
            let Next::Sleep(alarm) = agenda.next(Instant::now(), || ()) else {
                panic!("nothing is due");
            };
            change(&agenda, &first);
            let start = Instant::now();
            agenda.sleep(alarm);
            assert!(start.elapsed() < FAR / 2);
            first.cancel();
            while let Next::Fire(_) = agenda.next(Instant::now(), || ()) {}
        }
    }

    #[test]
    fn a_keeper_idles_while_no_timer_is_pending() {
        let idling = Cell::new(0);
        let begin = || idling.set(idling.get() + 1);
        let end = || idling.set(idling.get() - 1);
        let agenda = kept();
        for deadline in [None, Deadline::after(Duration::ZERO)] {
            assert!(matches!(agenda.next(Instant::now(), begin), Next::Idle));
            assert_eq!(idling.get(), 1);
            let timers = [(); 2].map(|()| timer(&agenda));
            for timer in &timers {
                assert_eq!(agenda.add(timer, deadline, end), Added::Pending);
                assert_eq!(idling.get(), 0);
            }
            // A timer that is never due wakes nobody, until it is removed as the last one.
            assert_eq!(
                agenda.lock().keeper == KeeperState::Awake,
                deadline.is_some()
            );
            for timer in timers {
                assert!(timer.cancel());
                assert_eq!(idling.get(), 0);
            }
            assert_eq!(agenda.lock().keeper, KeeperState::Awake);
        }
        agenda.next(Instant::now(), begin);
        agenda.end(end);
        assert_eq!(idling.get(), 0);
    }

    #[test]
    fn a_keeper_that_could_not_start_is_spawned_again_until_its_runtime_ends() {
        let agenda = Arc::new(Agenda::new());
        let pending = timer(&agenda);
        assert_eq!(agenda.add(&pending, None, || ()), Added::Unkept);
        let fails = || {
            agenda.end(|| ());
            Err(io::ErrorKind::OutOfMemory.into())
        };
        assert!(agenda.ensure_keeper(fails).is_err());
        assert_eq!(agenda.add(&pending, None, || ()), Added::Unkept);
        // The spawn succeeds, and the keeper ends before its first turn.
        let ends_early = || {
            agenda.end(|| ());
            Ok(())
        };
        agenda.ensure_keeper(ends_early).unwrap();
        assert_eq!(agenda.add(&pending, None, || ()), Added::Unkept);
        agenda.ensure_keeper(|| Ok(())).unwrap();
        agenda
            .ensure_keeper(|| unreachable!("there is one"))
            .unwrap();
        assert_eq!(agenda.add(&pending, None, || ()), Added::Pending);
        agenda.close();
        agenda.end(|| ());
        assert_eq!(pending.position(), None);
        agenda
            .ensure_keeper(|| unreachable!("none comes any more"))
            .unwrap();
        assert_eq!(agenda.add(&pending, None, || ()), Added::TooLate);
    }

    #[test]
    fn a_deadline_at_the_end_of_the_clock_has_no_slack() {
        let agenda = kept();
        let start = Instant::now();
        let (mut there, mut beyond) = (Duration::ZERO, Duration::MAX);
        while beyond - there > Duration::from_nanos(1) {
            let middle = there + (beyond - there) / 2;
            match start.checked_add(middle) {
                Some(_) => there = middle,
                None => beyond = middle,
            }
        }
        let last = start + there;
        let deadline = Deadline::with_slack(last, Duration::from_nanos(1));
        add(&agenda, Some(deadline));
        assert_eq!(due(&agenda, &[], start), (vec![], Some(last)));
    }

    #[test]
    fn an_alarm_serves_timers_within_their_slack_and_delays_no_other() {
        let agenda = kept();
        let start = Instant::now();
        let at = |micros| start + Duration::from_micros(micros);
        let alarm = || agenda.lock().alarm().map(|alarm| (alarm.at, alarm.slack()));
        let add_at = |micros, slack| {
            let deadline = Deadline::with_slack(at(micros), Duration::from_micros(slack));
            add(&agenda, Some(deadline));
        };
        add(&agenda, None);
        assert_eq!(alarm(), None);
        add_at(1_000, 500);
        assert_eq!(alarm(), Some((at(1_000), Duration::from_micros(500))));
        add_at(1_400, 500);
        add_at(1_600, 500);
        assert_eq!(alarm(), Some((at(1_400), Duration::from_micros(100))));
        add_at(1_200, 0);
        assert_eq!(alarm(), Some((at(1_200), Duration::ZERO)));
    }
}
