//! The threads of a pool and the jobs for them: the bookkeeping, which the caller keeps under one lock.
//!
//! ```text
//! submitter:  lock
//!             wake an idle thread, or make one, or neither  (`needs`)
//!             add the job
//!             unlock
//!
//! thread:     lock
//!             while there is a job: take it; unlock; do it; lock; leave if it was one beyond the limit
//!             become idle; wait (unlocked) for a job, for a time; idle no more
//!             if there is no job and the time has passed: leave
//!             otherwise from the start
//! ```
//!
//! # No job is left without a thread
//!
//! When a submitter unlocks, one of three things holds for its job:
//!
//! - *It woke an idle thread.* It does so only if there are more idle threads than queued jobs, so at
//!   least one idle thread was not woken for an earlier job. (A thread that was woken counts as idle
//!   until it has the lock again.) If the time of the woken thread passes at that moment, the thread
//!   still looks at the queue under the lock, finds the job, and does not leave.
//! - *It made a thread.* A new thread looks at the queue before it becomes idle.
//! - *There are as many threads as there may be,* and no idle one to spare. Each thread at work looks at
//!   the queue, under the lock, after its job.
//!
//! Threads at work come back in the third case unless their jobs wait for the queued job. Jobs that may
//! do that are submitted as [`Purpose::Waiting`], and each of them raises the limit by one thread.
//!
//! # Jobs that wait are not held up by others
//!
//! They are queued in front of those that do not, so the next thread takes them: the one that was made for
//! them, if no other comes first. When such a job is done, the limit is lower by one. If there is one thread
//! too many then, the one that has done the job leaves. So there are never more jobs under way that do not wait
//! than there may be. A queued job loses nothing by that: of the threads that are left, which are as many as there
//! may be, none is idle without having been woken, because the queue was not empty since the job was added.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

/// Whether a job counts against the limit of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The job's thread is one of the limited number. The job must not wait for another job.
    Limited,
    /// The job waits for others, perhaps for another job. It raises the limit by one thread for as long
    /// as it is queued or under way.
    Waiting,
}

/// What has to be done for a job before it is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Wake an idle thread.
    Wake,
    /// Make a thread.
    Thread,
    /// Nothing. A thread that is at work will take the job.
    Nothing,
}

/// The numbers of threads and jobs of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) threads: usize,
    /// The threads that have no job.
    pub(crate) idle: usize,
    /// The jobs that wait for a thread.
    pub(crate) queued: usize,
}

/// The jobs and threads of a pool.
pub(super) struct Crew<J> {
    /// The queued jobs: first those for [`Purpose::Waiting`]. First in, first out among either kind.
    jobs: VecDeque<(J, Purpose)>,
    /// The number of threads, idle and at work.
    threads: usize,
    /// The number of threads that wait for a job, or were woken and have not locked yet.
    idle: usize,
    /// The number of jobs for [`Purpose::Waiting`], queued or under way.
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

    /// What one more job of `purpose` needs. The limit is `most` threads, plus one for each job for
    /// [`Purpose::Waiting`].
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

    /// Counts a thread that was made.
    pub(super) fn count_in(&mut self) {
        self.threads += 1;
    }

    /// Whether the pool has any thread, which would take a job sooner or later.
    pub(super) fn has_threads(&self) -> bool {
        self.threads > 0
    }

    /// The number of jobs for [`Purpose::Waiting`], queued or under way.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Queues a job.
    pub(super) fn add(&mut self, job: J, purpose: Purpose) {
        let place = match purpose {
            Purpose::Limited => self.jobs.len(),
            Purpose::Waiting => {
                self.waiting += 1;
                let is_waiting = |(_, purpose): &(J, Purpose)| *purpose == Purpose::Waiting;
                self.jobs.partition_point(is_waiting)
            }
        };
        self.jobs.insert(place, (job, purpose));
    }

    /// Takes a job for the calling thread, which calls [`done`](Crew::done) after it.
    pub(super) fn next(&mut self) -> Option<(J, Purpose)> {
        self.jobs.pop_front()
    }

    /// Counts a job as done. Returns whether the calling thread must leave, because it is one beyond the limit;
    /// then it is not counted as a thread any more.
    pub(super) fn done(&mut self, purpose: Purpose, most: usize) -> bool {
        if purpose == Purpose::Limited {
            return false;
        }
        // Saturating, because of forks: a child may have been forked by a job, and have another
        // count than the job was added to.
        self.waiting = self.waiting.saturating_sub(1);
        let leaves = self.threads > most + self.waiting;
        self.threads -= usize::from(leaves);
        leaves
    }

    /// Counts the calling thread, which has found no job, as idle: it is about to wait for one. After a
    /// burst, gives back the queue's memory beyond room for `kept` jobs.
    pub(super) fn begin_idle(&mut self, kept: usize) {
        self.jobs.shrink_to(kept);
        self.idle += 1;
    }

    /// The number of jobs that wait for a thread.
    pub(super) fn queued(&self) -> usize {
        self.jobs.len()
    }

    /// The numbers of threads and jobs.
    pub(super) fn size(&self) -> Size {
        Size {
            threads: self.threads,
            idle: self.idle,
            queued: self.jobs.len(),
        }
    }

    /// Whether a job is queued.
    pub(super) fn has_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Counts the calling thread as idle no more. Returns whether it must leave, because its time has
    /// passed and there is no job; then it is not counted as a thread any more either.
    pub(super) fn end_idle(&mut self, time_is_over: bool) -> bool {
        self.idle -= 1;
        let leaves = time_is_over && self.jobs.is_empty();
        if leaves {
            // Saturating, because of forks: a child may have been forked by a job, and have another
            // count than the thread was added to.
            self.threads = self.threads.saturating_sub(1);
        }
        leaves
    }
}
