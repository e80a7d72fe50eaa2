//! The end of a runtime, on one of its workers: what is left unwinds.

use std::io::Write;

use super::{Live, Worker};
use crate::task::Description;
use crate::task::word::WaitWord;

impl Worker {
    /// Ends everything that is left on this worker.
    ///
    /// Interrupts coroutines from the youngest to the oldest, each followed by whatever that made
    /// ready, since the younger may borrow from the older. Coroutines in waits that cannot be
    /// interrupted (`park`, locks) are unwound when all workers have come that far, so that
    /// nothing is left which could wake them.
    pub(super) fn wind_down(&self) {
        self.interrupt_all(WaitWord::interrupt);
        self.scheduler.note_unwound();
        while !self.live.borrow().is_empty() || self.has_work() {
            let everywhere = self.scheduler.is_unwound_everywhere();
            let interrupted = everywhere && self.interrupt_all(WaitWord::interrupt_plain);
            self.run_what_is_ready();
            if self.scheduler.wants_report() {
                self.report_left();
            }
            // Who was interrupted may be in the next such wait: of a destructor, say.
            if interrupted || self.live.borrow().is_empty() || self.has_work() {
                continue;
            }
            self.remote.attention().fall_asleep_alone();
            let news = self.scheduler.is_unwound_everywhere() != everywhere
                || self.scheduler.wants_report() && self.remote.is_silent();
            if !news && !self.remote.has_mail() {
                let deadline = self.timers.borrow_mut().alarm();
                self.poll(|reactor| reactor.wait(deadline));
            }
            self.remote.attention().wake_up();
        }
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

    /// Returns whether that has ended any wait.
    fn interrupt_all(&self, interrupt: fn(&WaitWord) -> bool) -> bool {
        self.run_what_is_ready();
        let mut slots: Vec<_> = self
            .live
            .borrow()
            .iter()
            .map(|(slot, live)| (live.age, slot))
            .collect();
        slots.sort_unstable_by_key(|&(age, _)| std::cmp::Reverse(age));
        let mut any = false;
        for (age, slot) in slots {
            let task = match self.live.borrow().get(slot) {
                Some(live) if live.age == age => live.task.clone(),
                _ => continue,
            };
            if interrupt(&task.word) {
                any = true;
                task.schedule();
            }
            self.run_what_is_ready();
        }
        any
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
