//! The deadlines of one worker's coroutines.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::queue::{Moment, Queue, Timed};
use crate::sys::memory;
use crate::task::Deadline;
use crate::task::word::Seq;

/// Deadlines by coroutine slot; a coroutine has at most one.
///
/// Nearly every deadline is that of a socket timeout which never passes: it is armed, cancelled,
/// and armed again a little later. So disarming leaves the queue alone, and arming finds the
/// slot's old entry there and, if that is due first, lets it stand for the new deadline: both are a
/// few stores. What an entry stands for is looked up when it comes to be the first.
///
/// Deadlines that allow for it share a wake-up: see [`alarm`](Timers::alarm).
#[derive(Debug)]
pub(crate) struct Timers {
    /// What moments count from.
    origin: Instant,
    queue: Queue<Entry>,
    slots: Vec<Slot>,
    /// Entries in the queue that a slot refers to; the rest are orphans.
    referred: usize,
    next_order: NonZeroU64,
    /// What `alarm` returned last: the moment, and the one up to which another deadline would have
    /// changed that.
    alarm: Option<(Moment, Moment)>,
    /// Where `alarm` and `expire` keep entries for a moment.
    neighbours: Vec<Entry>,
    /// What `expire` has returned.
    expired: Vec<(u32, Seq)>,
}

/// Ordered by deadline, then by insertion. Small, because of many only a few fit into a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    deadline: Moment,
    order: NonZeroU64,
    slot: u32,
    /// In nanoseconds.
    slack: u32,
}

impl Entry {
    /// The moment at which it is late.
    fn latest(&self) -> Moment {
        self.deadline.saturating_add(self.slack.into())
    }

    /// Up to which moment others may be due that it waits for. A part of the slack is left to who
    /// waits for the alarm, whose clock may be coarse.
    fn joined_until(&self) -> Moment {
        self.deadline
            .saturating_add((self.slack - self.slack / 10).into())
    }
}

impl Timed for Entry {
    fn moment(self) -> Moment {
        self.deadline
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// The deadline in force, and the wait that it ends.
    armed: Option<(Entry, Seq)>,
    /// The entry in the queue that stands for this slot, due no later than `armed`.
    queued: Option<Entry>,
}

impl Timers {
    pub(crate) fn new() -> Timers {
        Timers {
            origin: Instant::now(),
            queue: Queue::new(),
            slots: Vec::new(),
            referred: 0,
            next_order: NonZeroU64::MIN,
            alarm: None,
            neighbours: Vec::new(),
            expired: Vec::new(),
        }
    }

    /// `instant`, or the origin if that is later.
    fn moment(&self, instant: Instant) -> Moment {
        nanos(instant.saturating_duration_since(self.origin))
    }

    /// Arms the deadline of `slot`'s wait `seq`, instead of any before it.
    pub(crate) fn arm(&mut self, slot: u32, deadline: Deadline, seq: Seq) {
        let index = slot as usize;
        if self.slots.len() <= index {
            self.slots.resize(index + 1, Slot::default());
        }
        let entry = Entry {
            deadline: self.moment(deadline.at),
            order: self.next_order,
            slot,
            slack: deadline.slack_nanos(),
        };
        self.alarm.take_if(|(_, latest)| entry.deadline <= *latest);
        self.next_order = self.next_order.saturating_add(1);
        let state = &mut self.slots[index];
        state.armed = Some((entry, seq));
        if state.queued.is_none_or(|queued| queued > entry) {
            if state.queued.replace(entry).is_none() {
                self.referred += 1;
            }
            self.queue.push(entry);
            self.drop_orphans();
        }
    }

    /// Cancels the deadline of `slot`, if it is armed.
    pub(crate) fn disarm(&mut self, slot: u32) {
        if let Some(state) = self.slots.get_mut(slot as usize) {
            state.armed = None;
        }
    }

    /// Gives memory back that a burst has left.
    pub(crate) fn shrink(&mut self) {
        let slots = &self.slots;
        self.queue
            .retain(|&entry| slots[entry.slot as usize].queued == Some(entry));
        self.queue.shrink();
        // Where nothing is queued, nothing is armed.
        let last = self.slots.iter().rposition(|slot| slot.queued.is_some());
        self.slots.truncate(last.map_or(0, |last| last + 1));
        self.slots.shrink_to_fit();
        self.neighbours = Vec::new();
        self.expired = Vec::new();
    }

    /// Whether no deadline is in force.
    pub(crate) fn is_empty(&mut self) -> bool {
        self.first().is_none()
    }

    /// Whether a deadline has passed at `now`.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let now = self.moment(now);
        self.first().is_some_and(|first| first.deadline <= now)
    }

    /// When to wake up, if nothing else happens: at the first deadline, or as much later as its
    /// slack allows where more are due by then, whose slack allows it too.
    pub(crate) fn alarm(&mut self) -> Option<Deadline> {
        let first = self.first()?;
        let (alarm, latest) = self
            .alarm
            .filter(|(alarm, _)| (first.deadline..=first.latest()).contains(alarm))
            .unwrap_or_else(|| self.find_alarm(first));
        self.alarm = Some((alarm, latest));
        let at = self.origin + Duration::from_nanos(alarm);
        Some(Deadline::with_slack(
            at,
            Duration::from_nanos(latest - alarm),
        ))
    }

    /// When to serve `first`, and those that may join it; and up to which moment.
    fn find_alarm(&mut self, first: Entry) -> (Moment, Moment) {
        /// Among so many a wake-up more does not matter.
        const ENOUGH: usize = 128;
        let (mut alarm, mut latest) = (first.deadline, first.latest());
        let mut joined_until = first.joined_until();
        while self.neighbours.len() < ENOUGH
            && let Some(next) = self.queue.pop_until(joined_until)
        {
            if !self.is_in_force(next) {
                self.replace(next);
                continue;
            }
            alarm = next.deadline;
            latest = latest.min(next.latest());
            joined_until = joined_until.min(next.joined_until());
            self.neighbours.push(next);
        }
        for neighbour in self.neighbours.drain(..) {
            self.queue.push(neighbour);
        }
        (alarm, latest)
    }

    /// The first deadline in force, which is then the first in the queue.
    fn first(&mut self) -> Option<Entry> {
        loop {
            let top = self.queue.peek()?;
            if self.is_in_force(top) {
                return Some(top);
            }
            self.queue.pop();
            self.replace(top);
        }
    }

    /// Whether `entry`, which is or was in the queue, is the deadline of its slot, and does not just
    /// stand for that.
    fn is_in_force(&self, entry: Entry) -> bool {
        let armed = self.slots[entry.slot as usize].armed;
        armed.is_some_and(|(armed, _)| armed == entry)
    }

    /// Queues what `entry` stands for, if anything, which has been taken out of the queue and is not
    /// in force.
    fn replace(&mut self, entry: Entry) {
        let state = &mut self.slots[entry.slot as usize];
        if state.queued != Some(entry) {
            return;
        }
        state.queued = state.armed.map(|(armed, _)| armed);
        match state.queued {
            Some(armed) => self.queue.push(armed),
            None => self.referred -= 1,
        }
    }

    /// Takes deadlines that have passed at `now`: the first few, or none if none has. Of each the
    /// slot, and the wait to end.
    ///
    /// A few at once, so that what the caller does for each, and is in no cache, can be fetched
    /// for all of them at the same time; as here is done for their slots.
    pub(crate) fn expire(&mut self, now: Instant) -> &[(u32, Seq)] {
        let now = self.moment(now);
        self.expired.clear();
        while self.expired.is_empty() && self.pop_passed(now) {
            self.take_expired(now);
        }
        &self.expired
    }

    /// Moves the first few entries that have passed at `now` to `neighbours`, if there are any.
    fn pop_passed(&mut self, now: Moment) -> bool {
        const AT_ONCE: usize = 16;
        while self.neighbours.len() < AT_ONCE
            && let Some(entry) = self.queue.pop_until(now)
        {
            memory::prefetch_all(&self.slots[entry.slot as usize]);
            self.neighbours.push(entry);
        }
        !self.neighbours.is_empty()
    }

    /// Looks up what those entries stand for.
    fn take_expired(&mut self, now: Moment) {
        let mut in_order = true;
        for entry in self.neighbours.drain(..) {
            let state = &mut self.slots[entry.slot as usize];
            if !in_order {
                self.queue.push(entry);
            } else if state.queued == Some(entry) {
                state.queued = state
                    .armed
                    .map(|(armed, _)| armed)
                    .filter(|armed| *armed != entry);
                match state.queued {
                    Some(later) => {
                        self.queue.push(later);
                        // It may be due before what follows.
                        in_order = later.deadline > now;
                    }
                    None => {
                        self.referred -= 1;
                        let seq = state.armed.take().map(|(_, seq)| seq);
                        self.expired.extend(seq.map(|seq| (entry.slot, seq)));
                    }
                }
            }
        }
    }

    /// Keeps the queue within twice what is referred to, at a constant cost per arming: a slot
    /// that alternates between near and far deadlines leaves an orphan each time.
    fn drop_orphans(&mut self) {
        if self.queue.len() > 2 * self.referred + 64 {
            let slots = &self.slots;
            self.queue
                .retain(|&entry| slots[entry.slot as usize].queued == Some(entry));
        }
    }
}

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
        timers.alarm().map(|alarm| alarm.at)
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
    fn a_cancelled_deadline_never_expires_nor_delays_a_sleep() {
        let (mut timers, mut seq, start) = (Timers::new(), seqs(), Instant::now());
        timers.arm(0, Deadline::at(start), seq());
        timers.arm(1, Deadline::at(start + Duration::from_secs(1)), seq());
        timers.disarm(0);
        assert_eq!(alarm(&mut timers), Some(start + Duration::from_secs(1)));
        timers.disarm(1);
        assert_eq!(alarm(&mut timers), None);
    }

    #[test]
    fn a_deadline_that_was_put_off_takes_its_new_place_even_if_both_have_passed() {
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
    fn any_number_of_cancelled_deadlines_hides_none_after_them() {
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
    fn an_alarm_serves_all_that_are_due_within_the_slack_of_each_before_them() {
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
    fn an_alarm_is_not_late_for_an_exact_deadline_that_an_entry_of_more_slack_stands_for() {
        let (mut timers, mut seq, start) = (Timers::new(), seqs(), Instant::now());
        let at = |micros| start + Duration::from_micros(micros);
        let millis = |micros| Deadline::with_slack(at(micros), Duration::from_millis(1));
        timers.arm(0, millis(99_900), seq());
        timers.arm(1, millis(100_000), seq());
        timers.disarm(1);
        timers.arm(2, millis(100_700), seq());
        timers.arm(1, Deadline::at(at(100_100)), seq());
        let alarm = timers.alarm().unwrap();
        assert_eq!(alarm.at, at(100_100));
        assert!(alarm.slack().is_zero());
        assert_eq!(expired(&mut timers, at(100_100)), [0, 1]);
        assert_eq!(timers.alarm().unwrap().at, at(100_700));
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
