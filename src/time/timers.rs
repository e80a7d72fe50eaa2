//! The deadlines of one worker's coroutines.
//!
//! # Arming and disarming are cheap
//!
//! Nearly every deadline belongs to a socket timeout that never expires. Such a deadline is armed,
//! disarmed and armed again a little later. So disarming leaves the queue alone, and the queue may hold
//! an entry that is out of date. Arming a later deadline keeps that entry too: it stands in for the new
//! deadline. Both operations are a few stores. An entry is checked when it becomes the first in the
//! queue: it is then dropped, or replaced by the deadline that it stood in for.
//!
//! ```text
//! invariant: if a slot has an armed deadline, the queue has an entry for the slot that is due no later
//! ```
//!
//! By this invariant no deadline is missed: no armed deadline is earlier than the first entry in the queue, and
//! when that entry is in force, it is the first armed deadline.
//!
//! A busy worker looks at its timers thousands of times before one of them is due. So the first entry is looked at
//! alone, in force or not, until its moment has come, and a wake-up that is set already stays.
//!
//! # Deadlines share wake-ups
//!
//! A deadline may allow for some slack: how late the wake-up may be. [`Timers::alarm`] delays the
//! wake-up for the first deadline within its slack, so that it serves later ones as well.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::queue::{Moment, MomentQueue, Timed};
use crate::sys::memory;
use crate::task::Deadline;
use crate::task::word::Seq;

/// Deadlines by coroutine slot. A coroutine has at most one.
#[derive(Debug)]
pub(crate) struct Timers {
    /// Moments are counted from here.
    origin: Instant,
    queue: MomentQueue<QueuedDeadline>,
    slots: Vec<SlotDeadline>,
    /// The number of armed deadlines.
    armed: usize,
    /// The number of entries in the queue that a slot refers to. The others are orphans.
    referred: usize,
    /// The order of the next deadline to be armed.
    next_order: NonZeroU64,
    /// The latest result of `alarm`: the moment of the wake-up, and its latest moment. A deadline that
    /// is armed before the latter makes the result invalid.
    alarm: Option<(Moment, Moment)>,
    /// A buffer for entries that `alarm` and `expire` take out of the queue. Empty between calls.
    taken: Vec<QueuedDeadline>,
    /// The latest result of `expire`. A field, so that its memory is reused.
    expired: Vec<(u32, Seq)>,
}

/// A deadline in the queue. Ordered by deadline, then by insertion.
///
/// Small, so that many fit into the processor's caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct QueuedDeadline {
    deadline: Moment,
    order: NonZeroU64,
    slot: u32,
    /// In nanoseconds.
    slack: u32,
}

impl QueuedDeadline {
    /// The latest moment at which the wake-up is still in time.
    fn latest(&self) -> Moment {
        self.deadline.saturating_add(self.slack.into())
    }

    /// A wake-up may wait for other deadlines up to this moment. One tenth of the slack is left for the
    /// operating system, since its clock may be coarse.
    fn joined_until(&self) -> Moment {
        self.deadline
            .saturating_add((self.slack - self.slack / 10).into())
    }
}

impl Timed for QueuedDeadline {
    fn moment(self) -> Moment {
        self.deadline
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct SlotDeadline {
    /// The deadline in force, and the wait that it ends.
    armed: Option<(QueuedDeadline, Seq)>,
    /// The entry in the queue that stands in for `armed`, or is `armed` itself. Due no later than it.
    queued: Option<QueuedDeadline>,
}

impl Timers {
    pub(crate) fn new() -> Timers {
        Timers {
            origin: Instant::now(),
            queue: MomentQueue::new(),
            slots: Vec::new(),
            armed: 0,
            referred: 0,
            next_order: NonZeroU64::MIN,
            alarm: None,
            taken: Vec::new(),
            expired: Vec::new(),
        }
    }

    /// `instant` as a moment. An instant before the origin becomes the origin.
    fn moment(&self, instant: Instant) -> Moment {
        nanos(instant.saturating_duration_since(self.origin))
    }

    /// Arms `deadline` for wait `seq` of the coroutine in `slot`. Replaces the slot's deadline.
    pub(crate) fn arm(&mut self, slot: u32, deadline: Deadline, seq: Seq) {
        let index = slot as usize;
        if self.slots.len() <= index {
            self.slots.resize(index + 1, SlotDeadline::default());
        }
        let armed = QueuedDeadline {
            deadline: self.moment(deadline.at),
            order: self.next_order,
            slot,
            slack: deadline.slack_nanos(),
        };
        // An earlier result of `alarm` stands, unless this deadline would have been part of it.
        self.alarm.take_if(|(_, latest)| armed.deadline <= *latest);
        self.next_order = self.next_order.saturating_add(1);
        let state = &mut self.slots[index];
        if state.armed.replace((armed, seq)).is_none() {
            self.armed += 1;
        }
        // A queued entry that is due first stands in for the new deadline.
        if state.queued.is_none_or(|queued| queued > armed) {
            if state.queued.replace(armed).is_none() {
                self.referred += 1;
            }
            self.queue.push(armed);
            self.drop_orphans();
        }
    }

    /// Disarms the deadline of `slot`, if there is one. Its entry stays in the queue.
    pub(crate) fn disarm(&mut self, slot: u32) {
        let state = self.slots.get_mut(slot as usize);
        if state.is_some_and(|state| state.armed.take().is_some()) {
            self.armed -= 1;
        }
    }

    /// The deadline that is armed for `slot`.
    pub(crate) fn deadline(&self, slot: u32) -> Option<Instant> {
        let (armed, _) = self.slots.get(slot as usize)?.armed?;
        self.origin
            .checked_add(Duration::from_nanos(armed.deadline))
    }

    /// Gives back the memory that a burst has left unused.
    pub(crate) fn shrink(&mut self) {
        for slot in &mut self.slots {
            slot.queued.take_if(|_| slot.armed.is_none());
        }
        self.referred = self.armed;
        self.retain_referred();
        self.queue.shrink();
        // A slot without an entry in the queue has no armed deadline, by the invariant.
        let last = self.slots.iter().rposition(|slot| slot.queued.is_some());
        self.slots.truncate(last.map_or(0, |last| last + 1));
        self.slots.shrink_to_fit();
        self.taken = Vec::new();
        self.expired = Vec::new();
    }

    /// Whether no deadline is armed.
    pub(crate) fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Whether a deadline has passed at `now`.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let now = self.moment(now);
        // Most often the first entry is far away, and it does not matter whether it is in force.
        while let Some(first) = self.queue.peek().filter(|first| first.deadline <= now) {
            if self.is_in_force(first) {
                return true;
            }
            self.queue.pop();
            self.replace(first);
        }
        false
    }

    /// When the worker is to wake up, and with how much slack.
    ///
    /// This is the first deadline, or a later one that is within the slack of all before it: the
    /// wake-up then serves all of them.
    ///
    /// `set` is the wake-up that is set already. If that is the latest result, and no deadline was armed that it
    /// would be too late for, it is returned again, even if the deadline that it is for was disarmed. So the worker may
    /// wake up once for nothing; more than once only if thousands of deadlines were put off.
    pub(crate) fn alarm(&mut self, set: Option<Instant>) -> Option<Deadline> {
        if self.is_empty() {
            return None;
        }
        if let Some(alarm) = self.alarm {
            let alarm = self.wake_up(alarm);
            if Some(alarm.at) == set {
                return Some(alarm);
            }
        }
        let first = self.first()?;
        // The earlier result stands if it still serves the first deadline in time.
        let alarm = self
            .alarm
            .filter(|(alarm, _)| (first.deadline..=first.latest()).contains(alarm))
            .unwrap_or_else(|| self.find_alarm(first));
        self.alarm = Some(alarm);
        Some(self.wake_up(alarm))
    }

    /// The wake-up at a moment that has another moment as its latest.
    fn wake_up(&self, (alarm, latest): (Moment, Moment)) -> Deadline {
        let at = self.origin + Duration::from_nanos(alarm);
        Deadline::with_slack(at, Duration::from_nanos(latest - alarm))
    }

    /// Finds the wake-up that serves `first` and as many of its successors as possible. Returns its
    /// moment, and the latest moment that is in time for all of them.
    fn find_alarm(&mut self, first: QueuedDeadline) -> (Moment, Moment) {
        /// A wake-up that serves this many is cheap enough.
        const ENOUGH: usize = 128;
        let (mut alarm, mut latest) = (first.deadline, first.latest());
        let mut joined_until = first.joined_until();
        while self.taken.len() < ENOUGH
            && let Some(next) = self.queue.pop_until(joined_until)
        {
            // An entry that is out of date does not delay the wake-up, nor is it served.
            if !self.is_in_force(next) {
                self.replace(next);
                continue;
            }
            alarm = next.deadline;
            latest = latest.min(next.latest());
            joined_until = joined_until.min(next.joined_until());
            self.taken.push(next);
        }
        // They were only looked at.
        for entry in self.taken.drain(..) {
            self.queue.push(entry);
        }
        (alarm, latest)
    }

    /// The first entry in the queue, which no armed deadline comes before. It is in force, unless very many deadlines
    /// were put off: then the rest is replaced another time, so that this takes microseconds.
    fn first(&mut self) -> Option<QueuedDeadline> {
        const REPLACED_AT_ONCE: usize = 1_000;
        for _ in 0..REPLACED_AT_ONCE {
            let top = self.queue.peek()?;
            if self.is_in_force(top) {
                return Some(top);
            }
            self.queue.pop();
            self.replace(top);
        }
        self.queue.peek()
    }

    /// Whether `entry` is the armed deadline of its slot. Otherwise it is out of date, and may stand in
    /// for a later deadline.
    fn is_in_force(&self, entry: QueuedDeadline) -> bool {
        let armed = self.slots[entry.slot as usize].armed;
        armed.is_some_and(|(armed, _)| armed == entry)
    }

    /// Queues the deadline that `entry` stood in for, if there is one. `entry` was taken out of the
    /// queue and is not in force.
    fn replace(&mut self, entry: QueuedDeadline) {
        let state = &mut self.slots[entry.slot as usize];
        if state.queued != Some(entry) {
            // An orphan: the slot has another entry.
            return;
        }
        state.queued = state.armed.map(|(armed, _)| armed);
        match state.queued {
            Some(armed) => self.queue.push(armed),
            None => self.referred -= 1,
        }
    }

    /// Takes some of the deadlines that have passed at `now`, the first ones. Returns the slot of each,
    /// and the wait to end; nothing if no deadline has passed.
    ///
    /// The caller has to touch the memory of each coroutine, which is in no cache. Taking several
    /// at once lets the caller prefetch all of them, as this does with their slots.
    pub(crate) fn expire(&mut self, now: Instant) -> &[(u32, Seq)] {
        let now = self.moment(now);
        self.expired.clear();
        while self.expired.is_empty() && self.pop_passed(now) {
            self.take_expired(now);
        }
        &self.expired
    }

    /// Moves the first few entries that have passed at `now` from the queue to `taken`. Returns whether
    /// there are any.
    fn pop_passed(&mut self, now: Moment) -> bool {
        const POPPED_AT_ONCE: usize = 16;
        while self.taken.len() < POPPED_AT_ONCE
            && let Some(entry) = self.queue.pop_until(now)
        {
            memory::prefetch_all(&self.slots[entry.slot as usize]);
            self.taken.push(entry);
        }
        !self.taken.is_empty()
    }

    /// Moves the deadlines in `taken` that are in force to `expired`, in order.
    fn take_expired(&mut self, now: Moment) {
        // Becomes false when a deadline has been queued that may come before the rest of `taken`. The
        // rest then goes back to the queue.
        let mut in_order = true;
        for entry in self.taken.drain(..) {
            let state = &mut self.slots[entry.slot as usize];
            if !in_order {
                self.queue.push(entry);
            } else if state.queued == Some(entry) {
                state.queued = state
                    .armed
                    .map(|(armed, _)| armed)
                    .filter(|armed| *armed != entry);
                match state.queued {
                    // The entry has stood in for a later deadline.
                    Some(later) => {
                        self.queue.push(later);
                        in_order = later.deadline > now;
                    }
                    // The entry is the armed deadline, or nothing is armed.
                    None => {
                        self.referred -= 1;
                        if let Some((_, seq)) = state.armed.take() {
                            self.armed -= 1;
                            self.expired.push((entry.slot, seq));
                        }
                    }
                }
            }
        }
    }

    /// Removes the orphans if they are more than half of a long queue. A slot that alternates between
    /// near and far deadlines leaves an orphan each time. The cost is constant per arming.
    fn drop_orphans(&mut self) {
        if self.queue.len() > 2 * self.referred + 64 {
            self.retain_referred();
        }
    }

    /// Removes the orphans.
    fn retain_referred(&mut self) {
        let slots = &self.slots;
        self.queue
            .retain(|&entry| slots[entry.slot as usize].queued == Some(entry));
    }
}

/// `duration` in nanoseconds; the largest number if it is longer than that.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::word::{Kind, WaitWord};
    use std::time::Duration;

    fn seqs() -> impl FnMut() -> Seq {
        let word = WaitWord::new();
        move || word.begin(Kind::Plain).unwrap()
    }

    fn expired(timers: &mut Timers, now: Instant) -> Vec<u32> {
        let mut slots = Vec::new();
        while let expired @ [_, ..] = timers.expire(now) {
            slots.extend(expired.iter().map(|&(slot, _)| slot));
        }
        slots
    }

    fn alarm(timers: &mut Timers) -> Option<Instant> {
        timers.alarm(None).map(|alarm| alarm.at)
    }

    #[test]
    fn deadlines_expire_in_their_order_then_in_the_order_of_arming() {
        let (mut timers, mut seq, start) = (Timers::new(), seqs(), Instant::now());
        for (slot, millis) in [(0, 30), (1, 10), (2, 20), (3, 10)] {
            timers.arm(
                slot,
                Deadline::at(start + Duration::from_millis(millis)),
                seq(),
            );
        }
        assert_eq!(expired(&mut timers, start), []);
        assert_eq!(
            expired(&mut timers, start + Duration::from_millis(20)),
            [1, 3, 2]
        );
        assert_eq!(expired(&mut timers, start + Duration::from_secs(1)), [0]);
        assert_eq!(alarm(&mut timers), None);
    }

    #[test]
    fn arming_again_replaces_the_deadline_in_either_direction() {
        let (mut timers, mut seq, start) = (Timers::new(), seqs(), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        timers.arm(0, Deadline::at(at(10)), seq());
        timers.arm(0, Deadline::at(at(20)), seq());
        assert_eq!(alarm(&mut timers), Some(at(20)));
        let last = seq();
        timers.arm(0, Deadline::at(at(5)), last);
        assert_eq!(alarm(&mut timers), Some(at(5)));
        assert_eq!(timers.expire(at(30)), [(0, last)]);
        assert_eq!(timers.expire(at(30)), []);
    }

    #[test]
    fn a_disarmed_deadline_neither_expires_nor_causes_an_alarm() {
        let (mut timers, mut seq, start) = (Timers::new(), seqs(), Instant::now());
        timers.arm(0, Deadline::at(start), seq());
        timers.arm(1, Deadline::at(start + Duration::from_secs(1)), seq());
        timers.disarm(0);
        assert_eq!(alarm(&mut timers), Some(start + Duration::from_secs(1)));
        timers.disarm(1);
        assert_eq!(alarm(&mut timers), None);
    }

    #[test]
    fn a_deadline_that_was_put_off_expires_in_its_new_order_even_if_both_have_passed() {
        let (mut timers, mut seq, start) = (Timers::new(), seqs(), Instant::now());
        let at = |secs| Deadline::at(start + Duration::from_secs(secs));
        for (slot, secs) in [(0, 10), (1, 20), (2, 30), (0, 25)] {
            timers.arm(slot, at(secs), seq());
        }
        let later = start + Duration::from_secs(40);
        assert_eq!(expired(&mut timers, later), [1, 0, 2]);
        assert!(timers.is_empty());
    }

    #[test]
    fn many_cancelled_deadlines_do_not_hide_later_ones() {
        let (mut timers, mut seq, start) = (Timers::new(), seqs(), Instant::now());
        for slot in 0..100 {
            let at = start + Duration::from_millis(slot.into());
            timers.arm(slot, Deadline::at(at), seq());
        }
        (1..90).for_each(|slot| timers.disarm(slot));
        let now = start + Duration::from_millis(94);
        assert_eq!(expired(&mut timers, now), [0, 90, 91, 92, 93, 94]);
        assert_eq!(timers.referred, 5);
    }

    #[test]
    fn an_alarm_serves_all_deadlines_within_the_slack_of_those_before_them() {
        let (mut timers, mut seq, start) = (Timers::new(), seqs(), Instant::now());
        let at = |micros| start + Duration::from_micros(micros);
        let slack = |micros, slack| Deadline::with_slack(at(micros), Duration::from_micros(slack));
        timers.arm(0, slack(1_000, 500), seq());
        assert_eq!(alarm(&mut timers), Some(at(1_000)), "alone, it is exact");
        timers.arm(1, slack(1_400, 500), seq());
        timers.arm(2, slack(1_600, 500), seq());
        assert_eq!(alarm(&mut timers), Some(at(1_400)));
        timers.arm(3, slack(1_200, 0), seq());
        assert_eq!(
            alarm(&mut timers),
            Some(at(1_200)),
            "this one must not be late"
        );
        assert_eq!(expired(&mut timers, at(1_200)), [0, 3]);
        assert_eq!(alarm(&mut timers), Some(at(1_600)));
        assert_eq!(expired(&mut timers, at(1_600)), [1, 2]);
        assert_eq!(alarm(&mut timers), None);
    }

    #[test]
    fn an_alarm_is_not_late_for_an_exact_deadline_behind_an_old_entry_with_slack() {
        let (mut timers, mut seq, start) = (Timers::new(), seqs(), Instant::now());
        let at = |micros| start + Duration::from_micros(micros);
        let millis = |micros| Deadline::with_slack(at(micros), Duration::from_millis(1));
        timers.arm(0, millis(99_900), seq());
        timers.arm(1, millis(100_000), seq());
        timers.disarm(1);
        timers.arm(2, millis(100_700), seq());
        timers.arm(1, Deadline::at(at(100_100)), seq());
        let alarm = timers.alarm(None).unwrap();
        assert_eq!(alarm.at, at(100_100));
        assert!(alarm.slack().is_zero());
        assert_eq!(expired(&mut timers, at(100_100)), [0, 1]);
        assert_eq!(timers.alarm(None).unwrap().at, at(100_700));
        assert_eq!(timers.referred, 1);
        assert_eq!(timers.queue.len(), 1, "nothing is queued twice");
    }

    #[test]
    fn a_cancelled_deadline_has_no_part_in_an_alarm() {
        let (mut timers, mut seq, start) = (Timers::new(), seqs(), Instant::now());
        let at = |micros| start + Duration::from_micros(micros);
        let slack = |micros| Deadline::with_slack(at(micros), Duration::from_micros(500));
        for (slot, micros) in [(0, 1_000), (1, 1_100), (2, 1_200), (1, 9_000)] {
            timers.arm(slot, slack(micros), seq());
        }
        timers.disarm(2);
        assert_eq!(alarm(&mut timers), Some(at(1_000)));
    }

    #[test]
    fn a_wake_up_that_is_set_stays_until_it_comes_or_would_be_too_late() {
        let (mut timers, mut seq, start) = (Timers::new(), seqs(), Instant::now());
        let at = |secs| start + Duration::from_secs(secs);
        timers.arm(0, Deadline::at(at(10)), seq());
        timers.arm(1, Deadline::at(at(30)), seq());
        let set = alarm(&mut timers);
        timers.arm(0, Deadline::at(at(20)), seq());
        assert_eq!(timers.alarm(set).unwrap().at, at(10));
        assert!(!timers.is_due(at(10)), "it comes, for nothing");
        assert_eq!(timers.alarm(None).unwrap().at, at(20));
        let set = Some(at(20));
        timers.arm(2, Deadline::at(at(15)), seq());
        assert_eq!(timers.alarm(set).unwrap().at, at(15));
        (0..3).for_each(|slot| timers.disarm(slot));
        assert_eq!(timers.alarm(Some(at(15))).map(|alarm| alarm.at), None);
    }

    #[test]
    fn an_alarm_comes_soon_however_many_deadlines_were_put_off() {
        const COUNT: u32 = 100_000;
        let (mut timers, mut seq, start) = (Timers::new(), seqs(), Instant::now());
        for first in [10_000_000, 20_000_000] {
            for slot in 0..COUNT {
                let at = start + Duration::from_micros(first + u64::from(slot));
                timers.arm(slot, Deadline::at(at), seq());
            }
        }
        let mut alarms = 0;
        let exact = start + Duration::from_secs(20);
        loop {
            match alarm(&mut timers) {
                Some(at) if at < exact => alarms += 1,
                at => break assert_eq!(at, Some(exact)),
            }
        }
        assert!(alarms > 10, "each has replaced a part");
        let due = start + Duration::from_micros(10_000_000 + u64::from(COUNT));
        assert!(!timers.is_due(due));
    }

    #[test]
    fn no_alarm_is_late_and_each_deadline_expires_once() {
        let (mut timers, mut seq, start) = (Timers::new(), seqs(), Instant::now());
        let mut random = {
            let mut state = 7_u64;
            move |below: u64| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 33) % below
            }
        };
        // What is armed: the deadline of each slot, and the latest wake-up that is in time for it.
        let mut armed = std::collections::BTreeMap::<u32, (Instant, Instant)>::new();
        let (mut now, mut set) = (start, None);
        for step in 0..200_000 {
            let slot = random(40) as u32;
            match random(10) {
                0..6 => {
                    let at = now + Duration::from_micros(random(50_000));
                    let slack = Duration::from_micros(random(2) * random(2_000));
                    timers.arm(slot, Deadline::with_slack(at, slack), seq());
                    armed.insert(slot, (at, at + slack));
                }
                6..9 => {
                    timers.disarm(slot);
                    armed.remove(&slot);
                }
                _ => {
                    now += Duration::from_micros(random(3_000));
                    let is_due = armed.values().any(|&(at, _)| at <= now);
                    assert_eq!(timers.is_due(now), is_due, "step {step}");
                    for slot in expired(&mut timers, now) {
                        let (at, _) = armed.remove(&slot).expect("it was armed");
                        assert!(at <= now);
                    }
                    assert!(armed.values().all(|&(at, _)| at > now), "step {step}");
                    set = set.filter(|&at| at > now);
                }
            }
            assert_eq!(timers.is_empty(), armed.is_empty());
            let alarm = timers.alarm(set).map(|alarm| alarm.at);
            let latest = armed.values().map(|&(_, latest)| latest).min();
            assert_eq!(alarm.is_some(), latest.is_some(), "step {step}");
            assert!(alarm <= latest, "step {step}");
            let exact = alarm != set;
            let earliest = armed.values().map(|&(at, _)| at).min();
            assert!(!exact || alarm >= earliest, "step {step}");
            set = alarm;
            if random(1_000) == 0 {
                timers.shrink();
            }
        }
    }

    #[test]
    fn a_million_at_once_expire_in_order() {
        let (mut timers, mut seq, start) = (Timers::new(), seqs(), Instant::now());
        let after =
            |slot: u32| Duration::from_micros(u64::from(slot.wrapping_mul(2_654_435_761) >> 8));
        for slot in 0..1_000_000 {
            timers.arm(slot, Deadline::at(start + after(slot)), seq());
        }
        let order = expired(&mut timers, start + Duration::from_secs(100));
        assert_eq!(order.len(), 1_000_000);
        assert!(order.is_sorted_by_key(|&slot| (after(slot), slot)));
    }

    #[test]
    fn a_million_armings_and_cancellations_keep_the_queue_small() {
        let (mut timers, mut seq, start) = (Timers::new(), seqs(), Instant::now());
        for round in 0..1_000_000_u64 {
            let slot = (round % 100) as u32;
            let millis = if round % 2 == 0 { 1 } else { 100_000 };
            timers.arm(
                slot,
                Deadline::at(start + Duration::from_millis(millis + round % 7)),
                seq(),
            );
            if round % 3 != 0 {
                timers.disarm(slot);
            }
            assert!(timers.queue.len() <= 264);
        }
    }
}
