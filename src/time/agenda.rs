//! What is pending in a runtime. Knows nothing of schedulers, which have one each.

use std::collections::BTreeMap;
use std::io;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::park::Waiters;
use crate::sys::fork::Process;
use crate::sys::switches::own_lock;
use crate::task::word::Kind;
use crate::task::{self, AsideGuard, Deadline};

/// How many timers the keeper looks ahead for those that may share a wake-up.
const LOOK_AHEAD: usize = 64;

/// The timers of a runtime.
pub(crate) struct Agenda {
    made_by: Process,
    /// Held while a keeper is spawned, so that there is one.
    starting: Mutex<()>,
    state: Mutex<State>,
    /// Where the keeper sleeps.
    bed: Waiters,
}

/// Held for a few operations on the queue; never while anything of the user's runs.
#[derive(Default)]
struct State {
    queue: BTreeMap<Place, Entry>,
    next_order: u64,
    keeper: Keeper,
}

struct Entry {
    timer: Arc<Timer>,
    /// How much later than its deadline will do.
    slack: Duration,
}

/// What the keeper is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Keeper {
    /// No timer has been set yet, or no keeper could be spawned so far.
    #[default]
    Absent,
    /// It is being spawned, which may fail.
    Starting,
    /// It is about to look at the queue.
    Awake,
    /// It sleeps, and looks again at this moment at the latest.
    Asleep(When),
    /// It sleeps because no timer is pending, and counts as idling.
    Idle,
    /// It has ended with its runtime.
    Gone,
}

/// Ordered by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum When {
    At(Instant),
    Never,
}

/// The place of a timer in the queue: by deadline, then by insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    due: When,
    order: u64,
}

impl Place {
    pub(crate) fn instant(self) -> Option<Instant> {
        match self.due {
            When::At(instant) => Some(instant),
            When::Never => None,
        }
    }
}

/// What the keeper is to do next.
pub(crate) enum Next {
    /// Spawn this timer's closure, which was taken from the queue.
    Fire(Arc<Timer>),
    /// Sleep until then, unless woken.
    Sleep(Option<Deadline>),
    /// Sleep until woken: nothing is pending, and the keeper has begun to idle.
    Idle,
}

/// What has become of a timer that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    Pending,
    /// It was not added, because there is no keeper.
    Unkept,
    /// It was not added, because its runtime has ended.
    TooLate,
}

impl Agenda {
    pub(crate) fn new() -> Agenda {
        Agenda {
            made_by: Process::current(),
            starting: Mutex::new(()),
            state: Mutex::default(),
            bed: Waiters::new(),
        }
    }

    fn lock(&self) -> AsideGuard<'_, State> {
        task::lock_aside(&self.state)
    }

    /// Wakes the keeper, if the change that was made under `state` concerns it.
    fn unlock_and_wake(&self, mut state: AsideGuard<'_, State>, latest: When) {
        let wakes = match state.keeper {
            Keeper::Asleep(until) => latest < until || state.queue.is_empty(),
            _ => false,
        };
        if wakes {
            state.keeper = Keeper::Awake;
        }
        drop(state);
        if wakes {
            self.bed.wake_all();
        }
    }

    /// Makes sure that there is a keeper: if not, `spawn` spawns one, which calls
    /// [`take_up`](Agenda::take_up) first of all, and [`end`](Agenda::end) in any case.
    ///
    /// # Errors
    ///
    /// Those of `spawn`.
    pub(crate) fn ensure_keeper(&self, spawn: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if self.has_keeper() {
            return Ok(());
        }
        // Spawning allocates, and does not wait for the keeper.
        let _starting = task::lock_aside(&self.starting);
        if self.has_keeper() {
            return Ok(());
        }
        self.lock().keeper = Keeper::Starting;
        spawn()?;
        self.take_up();
        Ok(())
    }

    fn has_keeper(&self) -> bool {
        !matches!(self.lock().keeper, Keeper::Absent | Keeper::Starting)
    }

    /// The keeper that was being spawned is there: to be called when the spawn has succeeded, and by
    /// the keeper itself, which may be faster.
    pub(crate) fn take_up(&self) {
        let mut state = self.lock();
        if state.keeper == Keeper::Starting {
            state.keeper = Keeper::Awake;
        }
    }

    /// Adds a timer. Calls `end_idling`, under the lock, if the keeper idles no more.
    pub(crate) fn add(
        &self,
        timer: &Arc<Timer>,
        deadline: Option<Deadline>,
        end_idling: impl FnOnce(),
    ) -> Added {
        let mut state = self.lock();
        match state.keeper {
            Keeper::Absent | Keeper::Starting => return Added::Unkept,
            Keeper::Gone => return Added::TooLate,
            Keeper::Awake | Keeper::Asleep(_) => {}
            Keeper::Idle => {
                state.keeper = Keeper::Asleep(When::Never);
                end_idling();
            }
        }
        let latest = state.insert(timer, deadline);
        self.unlock_and_wake(state, latest);
        Added::Pending
    }

    /// For the keeper, which is awake: what comes next at `now`. Calls `begin_idling`, under the lock,
    /// if nothing is pending.
    pub(crate) fn next(&self, now: Instant, begin_idling: impl FnOnce()) -> Next {
        let mut state = self.lock();
        let Some(first) = state.queue.first_entry() else {
            state.keeper = Keeper::Idle;
            begin_idling();
            return Next::Idle;
        };
        if first.key().due <= When::At(now) {
            let Entry { timer, .. } = first.remove();
            timer.set_place(None);
            return Next::Fire(timer);
        }
        let alarm = state.alarm();
        let until = When::latest(alarm);
        state.keeper = Keeper::Asleep(until);
        Next::Sleep(alarm)
    }

    /// Has the calling keeper sleep until `deadline`, or until it is woken.
    ///
    /// # Unwinding
    ///
    /// If its runtime shuts down.
    pub(crate) fn sleep(&self, deadline: Option<Deadline>) {
        let woken = || self.lock().keeper == Keeper::Awake;
        self.bed.wait(Kind::Event, deadline, woken);
        let mut state = self.lock();
        debug_assert_ne!(state.keeper, Keeper::Idle, "a timer ends that");
        state.keeper = Keeper::Awake;
    }

    /// The keeper ends, or was spawned in vain. Where that is `for_good`, because its runtime stops, this
    /// drops what is pending: nobody comes for it any more. Calls `end_idling`, under the lock, if the
    /// keeper idled.
    pub(crate) fn end(&self, for_good: bool, end_idling: impl FnOnce()) {
        let mut state = self.lock();
        if state.keeper == Keeper::Idle {
            end_idling();
        }
        state.keeper = match for_good {
            true => Keeper::Gone,
            false => Keeper::Absent,
        };
        let pending = match for_good {
            true => std::mem::take(&mut state.queue),
            false => BTreeMap::new(),
        };
        for entry in pending.values() {
            entry.timer.set_place(None);
        }
        drop(state);
        for entry in pending.into_values() {
            entry.timer.discard_quietly();
        }
    }
}

impl State {
    /// Puts a timer that is in no place into the queue; returns when it is late.
    fn insert(&mut self, timer: &Arc<Timer>, deadline: Option<Deadline>) -> When {
        let place = Place {
            due: deadline.map_or(When::Never, |deadline| When::At(deadline.at)),
            order: self.next_order,
        };
        self.next_order += 1;
        timer.set_place(Some(place));
        let entry = Entry {
            timer: Arc::clone(timer),
            slack: deadline.map_or(Duration::ZERO, Deadline::slack),
        };
        self.queue.insert(place, entry);
        When::latest(deadline)
    }

    /// When to wake up: at the first deadline, or as much later as its slack allows where more are
    /// due by then, whose slack allows it too.
    fn alarm(&self) -> Option<Deadline> {
        let ahead = self.queue.iter().take(LOOK_AHEAD);
        let mut deadlines = ahead.map_while(|(place, entry)| {
            let at = place.instant()?;
            Some((at, at.checked_add(entry.slack).unwrap_or(at)))
        });
        let (mut at, mut latest) = deadlines.next()?;
        for (next, next_latest) in deadlines {
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
    /// The moment at which `deadline` is late.
    fn latest(deadline: Option<Deadline>) -> When {
        let latest = deadline.and_then(|deadline| deadline.at.checked_add(deadline.slack()));
        latest.map_or(When::Never, When::At)
    }
}

/// A closure, and when it is to run.
pub(crate) struct Timer<J: ?Sized = dyn Job> {
    agenda: Arc<Agenda>,
    site: &'static Location<'static>,
    /// Its place in the queue, while it is pending. Changed under the lock of the agenda, together
    /// with the queue.
    place: Mutex<Option<Place>>,
    job: J,
}

/// What a timer runs.
pub(crate) trait Job: Send + Sync {
    /// Runs the closure, for the one that fires the timer.
    fn run(&self);

    /// Drops the closure, for the one that cancels the timer.
    fn discard(&self);
}

/// A closure, until it is taken.
struct Closure<F>(Mutex<Option<F>>);

impl<F> Closure<F> {
    fn take(&self) -> Option<F> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<F: FnOnce() + Send> Job for Closure<F> {
    fn run(&self) {
        // No guard lives in the call: the closure may look at its own timer.
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
            place: Mutex::new(None),
            job: Closure(Mutex::new(Some(f))),
        })
    }

    /// The call that set it.
    pub(crate) fn site(&self) -> &'static Location<'static> {
        self.site
    }

    fn lock(&self) -> MutexGuard<'_, Option<Place>> {
        own_lock(&self.place)
    }

    fn set_place(&self, place: Option<Place>) {
        *self.lock() = place;
    }

    /// Whether it was set before this process was forked, where its locks may be held by threads
    /// that are not here.
    fn is_left_in_parent(&self) -> bool {
        !self.agenda.made_by.is_current()
    }

    /// Its place in the queue, if it is pending.
    pub(crate) fn place(&self) -> Option<Place> {
        if self.is_left_in_parent() {
            return None;
        }
        *self.lock()
    }

    /// Takes it from the queue; returns whether it was there, so that its closure is the caller's.
    fn withdraw(&self) -> bool {
        if self.is_left_in_parent() {
            return false;
        }
        let mut state = self.agenda.lock();
        let Some(place) = self.lock().take() else {
            return false;
        };
        let entry = state.queue.remove(&place);
        self.agenda.unlock_and_wake(state, When::Never);
        // Not the last reference, for the caller has one; but not under the lock either.
        drop(entry);
        true
    }

    pub(crate) fn cancel(&self) -> bool {
        let cancelled = self.withdraw();
        if cancelled {
            self.job.discard();
        }
        cancelled
    }

    pub(crate) fn reset(self: &Arc<Timer>, deadline: Option<Deadline>) -> bool {
        if self.is_left_in_parent() {
            return false;
        }
        let mut state = self.agenda.lock();
        let Some(place) = self.lock().take() else {
            return false;
        };
        state.queue.remove(&place);
        let latest = state.insert(self, deadline);
        self.agenda.unlock_and_wake(state, latest);
        true
    }

    pub(crate) fn run(&self) {
        self.job.run();
    }

    /// Drops the closure, whose destructor has nobody to panic to: the hook has reported it.
    pub(crate) fn discard_quietly(&self) {
        let discard = std::panic::AssertUnwindSafe(|| self.job.discard());
        if let Err(payload) = std::panic::catch_unwind(discard) {
            std::mem::forget(payload);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// An agenda with a keeper that is awake, which the test plays.
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

    /// The timers that are due at `now`, as numbers; and until when the keeper then sleeps.
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
    fn equal_deadlines_are_due_in_the_order_of_insertion_and_a_reset_is_one() {
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
    fn a_keeper_does_not_fall_asleep_over_a_change_that_came_before() {
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
    fn a_keeper_idles_from_when_nothing_is_pending_until_a_timer_is_added() {
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
            // Only a timer that is due some day is worth a wake-up, and the removal of the last one.
            assert_eq!(agenda.lock().keeper == Keeper::Awake, deadline.is_some());
            for timer in timers {
                assert!(timer.cancel());
                assert_eq!(idling.get(), 0);
            }
            assert_eq!(agenda.lock().keeper, Keeper::Awake);
        }
        agenda.next(Instant::now(), begin);
        agenda.end(true, end);
        assert_eq!(idling.get(), 0);
    }

    #[test]
    fn a_keeper_that_is_spawned_in_vain_is_spawned_anew_until_its_runtime_ends() {
        let agenda = Arc::new(Agenda::new());
        let pending = timer(&agenda);
        assert_eq!(agenda.add(&pending, None, || ()), Added::Unkept);
        let fails = || {
            agenda.end(false, || ());
            Err(io::ErrorKind::OutOfMemory.into())
        };
        assert!(agenda.ensure_keeper(fails).is_err());
        assert_eq!(agenda.add(&pending, None, || ()), Added::Unkept);
        // It has its stack in the end and takes it up; or has it not, after all.
        let ends_early = || {
            agenda.end(false, || ());
            Ok(())
        };
        agenda.ensure_keeper(ends_early).unwrap();
        assert_eq!(agenda.add(&pending, None, || ()), Added::Unkept);
        agenda.ensure_keeper(|| Ok(())).unwrap();
        agenda
            .ensure_keeper(|| unreachable!("there is one"))
            .unwrap();
        assert_eq!(agenda.add(&pending, None, || ()), Added::Pending);
        agenda.end(true, || ());
        assert_eq!(pending.place(), None);
        agenda
            .ensure_keeper(|| unreachable!("none comes any more"))
            .unwrap();
        assert_eq!(agenda.add(&pending, None, || ()), Added::TooLate);
    }

    #[test]
    fn the_last_moment_of_the_clock_has_no_room_for_slack() {
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
    fn an_alarm_serves_those_whose_slack_allows_it_and_delays_no_other() {
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
