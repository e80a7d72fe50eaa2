//! The threads of a pool and the jobs they are for: what is to be done, under one lock.
//!
//! ```text
//! submit: lock ; add a job ; wake an idle thread, or make one ; unlock
//! thread: lock ; while there is a job: unlock, do it, lock
//!         be idle: wait for a job, for a time ; be it no more
//!         there is none, and the time is over: leave, under the same lock
//! ```
//!
//! *No job is left without a thread.* A thread counts as idle, or there is one for each job that is
//! queued, or there are as many as there may be: each of which looks at the queue before it leaves. An
//! idle thread is woken only for a job that no other was woken for: there are more idle threads than jobs
//! queued then, and threads that were woken count as idle until they have the lock. One whose time is
//! over as it is woken finds the job, since it looks under the lock; then it does not leave.

use std::collections::VecDeque;

/// What a job does with its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is one of the limited number.
    Limited,
    /// It waits there, and adds one to them meanwhile.
    Waiting,
}

/// What a job needs, before it is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// One of the idle threads is to be woken.
    Wake,
    /// A thread is to be made.
    Thread,
    /// Nothing: threads that are at work will come to it.
    Nothing,
}

pub(super) struct Crew<J> {
    jobs: VecDeque<(J, Purpose)>,
    threads: usize,
    /// Threads that wait for a job, or were woken for one and have not come to it.
    idle: usize,
    /// Jobs, queued or under way, that wait for others.
    waiting: usize,
}

impl<J> Crew<J> {
    pub(super) const fn new() -> Crew<J> {
        Crew {
            jobs: VecDeque::new(),
            threads: 0,
            idle: 0,
            waiting: 0,
        }
    }

    /// What one job more of `purpose` needs, if there may be `most` threads besides those whose jobs wait.
    pub(super) fn needs(&self, purpose: Purpose, most: usize) -> Needs {
        let waiting = self.waiting + usize::from(purpose == Purpose::Waiting);
        if self.idle > self.jobs.len() {
            Needs::Wake
        } else if self.threads < most + waiting {
            Needs::Thread
        } else {
            Needs::Nothing
        }
    }

    /// A thread was made.
    pub(super) fn count_in(&mut self) {
        self.threads += 1;
    }

    pub(super) fn has_threads(&self) -> bool {
        self.threads > 0
    }

    /// Jobs, queued or under way, that wait for others.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn add(&mut self, job: J, purpose: Purpose) {
        self.waiting += usize::from(purpose == Purpose::Waiting);
        self.jobs.push_back((job, purpose));
    }

    /// A job for the calling thread, which has to tell when it is done.
    pub(super) fn next(&mut self) -> Option<(J, Purpose)> {
        self.jobs.pop_front()
    }

    /// A job is done. (In a process that was forked from it, it is not counted.)
    pub(super) fn done(&mut self, purpose: Purpose) {
        if purpose == Purpose::Waiting {
            self.waiting = self.waiting.saturating_sub(1);
        }
    }

    /// The calling thread has found no job, and waits until there is one, or for a time. Keeps room for
    /// no more than `kept` jobs.
    pub(super) fn begin_idle(&mut self, kept: usize) {
        self.jobs.shrink_to(kept);
        self.idle += 1;
    }

    pub(super) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// The calling thread has waited; returns whether it is to leave, because its time is over and there
    /// still is no job.
    pub(super) fn end_idle(&mut self, time_is_over: bool) -> bool {
        self.idle -= 1;
        let leaves = time_is_over && self.jobs.is_empty();
        if leaves {
            // In a process that was forked from a job, the thread is not counted.
            self.threads = self.threads.saturating_sub(1);
        }
        leaves
    }
}
