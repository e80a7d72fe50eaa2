//! The end of a runtime, on one of its workers: what is left unwinds.

use std::io::Write;
use std::time::{Duration, Instant};

use super::{Live, Worker};
use crate::fork;
use crate::task::word::WaitWord;
use crate::task::{self, Deadline, Description};

/// The calling coroutine waits for what comes by itself, as long as this is there: for the end of a
/// job on the pool. Then others wait in vain neither.
pub(crate) struct Expecting(());

impl Expecting {
    pub(crate) fn begin() -> Expecting {
        change(1);
        Expecting(())
    }
}

impl Drop for Expecting {
    fn drop(&mut self) {
        change(-1);
    }
}

fn change(by: i32) {
    if task::on_coroutine() {
        Worker::with_current(|worker| {
            if let Some(worker) = worker {
                worker.expecting.set(worker.expecting.get() + by);
            }
        });
    }
}

/// A timer that is farther away keeps nobody from taking the last resort.
const SOON: Duration = Duration::from_secs(1);

/// How often the time between two last resorts is doubled, from a millisecond.
const DOUBLINGS: usize = 6;

impl Worker {
    /// Ends everything that is left on this worker.
    ///
    /// Interrupts coroutines from the youngest to the oldest, each followed by whatever that made
    /// ready, since the younger may borrow from the older.
    ///
    /// Waits that are no interruption points (`park`, locks) go on: others who unwind may end them.
    /// As a last resort they are interrupted too, all at once, when nothing is left on any worker
    /// that could happen by itself. Who waits on all the same, for it is a destructor, is not
    /// interrupted again before some time has passed.
    pub(super) fn wind_down(&self) {
        fork::look_after_hook();
        self.interrupt_all(WaitWord::interrupt);
        let last_resort = &self.scheduler.last_resort;
        let index = self.index();
        let (mut turn, mut taken, mut quiet_since) = (0_u32, 0, None);
        while !self.live.borrow().is_empty() || self.has_work() {
            last_resort.begin_turn(index);
            turn = turn.wrapping_add(1);
            if last_resort.taken() != taken {
                taken = last_resort.taken();
                quiet_since = None;
                self.interrupt_all(WaitWord::interrupt_plain);
            }
            self.run_what_is_ready();
            if self.scheduler.wants_report() {
                self.report_left();
            }
            if self.live.borrow().is_empty() || self.has_work() {
                continue;
            }
            self.remote.attention().fall_asleep_alone();
            let timer = self.timers.borrow_mut().alarm();
            let mut resort = None;
            if self.expects_nothing(timer) {
                last_resort.end_turn(index, turn, taken);
                resort = self.look_for_last_resort(taken, &mut quiet_since);
            }
            let news = last_resort.taken() != taken
                || self.scheduler.wants_report() && self.remote.is_silent();
            if !news && !self.remote.has_mail() {
                let deadlines = timer.into_iter().chain(resort.map(Deadline::at));
                let first = deadlines.min_by_key(|deadline| deadline.at);
                self.poll(|reactor| reactor.wait(first));
            }
            self.remote.attention().wake_up();
        }
        self.scheduler.leave(self);
    }

    /// Whether nothing comes soon that this worker knows of.
    fn expects_nothing(&self, timer: Option<Deadline>) -> bool {
        self.expecting.get() == 0 && timer.is_none_or(|timer| timer.at > Instant::now() + SOON)
    }

    /// Takes the last resort if it is due: at once, if it was not `taken` before. Returns when to look
    /// again.
    fn look_for_last_resort(
        &self,
        taken: usize,
        quiet_since: &mut Option<Instant>,
    ) -> Option<Instant> {
        let last_resort = &self.scheduler.last_resort;
        let any_mail = || {
            self.scheduler
                .workers
                .iter()
                .any(|worker| worker.has_mail())
        };
        if !last_resort.is_due(taken, any_mail) {
            *quiet_since = None;
            return None;
        }
        let pause = match taken.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => Duration::from_millis(1 << doublings.min(DOUBLINGS)),
        };
        let now = Instant::now();
        let at = *quiet_since.get_or_insert(now) + pause;
        if at > now {
            return Some(at);
        }
        if last_resort.take(taken) {
            self.scheduler.kick_all();
        }
        None
    }

    /// Names what is left, once. See `grace`.
    #[cold]
    pub(super) fn report_left(&self) {
        // Under the lock of stderr, lest the names of two workers mix.
        let mut stderr = std::io::stderr().lock();
        if self.remote.has_reported() {
            return;
        }
        for (_, Live { task, .. }) in &*self.live.borrow() {
            // Where stderr is gone there is nothing to do.
            let _ = writeln!(stderr, "  {}", Description(task));
        }
        self.remote.set_reported();
    }

    fn interrupt_all(&self, interrupt: fn(&WaitWord) -> bool) {
        self.run_what_is_ready();
        let mut slots: Vec<_> = self
            .live
            .borrow()
            .iter()
            .map(|(slot, live)| (live.age, slot))
            .collect();
        slots.sort_unstable_by_key(|&(age, _)| std::cmp::Reverse(age));
        for (age, slot) in slots {
            let task = match self.live.borrow().get(slot) {
                Some(live) if live.age == age => live.task.clone(),
                _ => continue,
            };
            if interrupt(&task.word) {
                task.schedule();
            }
            self.run_what_is_ready();
        }
    }

    /// Runs started coroutines until none is ready; ends fresh ones.
    ///
    /// Those that are always ready (they yield, or swallow interrupts) do not keep it for ever.
    fn run_what_is_ready(&self) {
        let enough = 2 * self.live.borrow().len() + 1;
        self.run_batch(u32::try_from(enough).unwrap_or(u32::MAX));
        self.expire_timers();
        self.poll(|reactor| reactor.turn());
    }
}
