//! One coroutine, looked for by its id.

use std::fmt;
use std::io;

use super::PATIENCE;
use super::json::{Json, write_frame};
use super::snapshot::{Described, Snapshot, name};
use crate::task::Task;
use crate::worker::Traces;

/// A coroutine that was found.
pub(crate) struct One {
    snapshot: Snapshot,
    id: u64,
}

impl One {
    /// Asks all workers for the coroutine with this id, and for its stack if `with_trace`.
    ///
    /// # Errors
    ///
    /// `NotFound`, if no worker has such a coroutine. That of an interrupt, if interrupts are delivered as errors.
    pub(crate) fn find(id: u64, with_trace: bool) -> io::Result<One> {
        let traces = match with_trace {
            true => Traces::Of(id),
            false => Traces::Nobodys,
        };
        let snapshot = Snapshot::take(traces, PATIENCE)?;
        if snapshot.coroutine(id).is_some() {
            return Ok(One { snapshot, id });
        }
        let is_held = snapshot
            .workers
            .iter()
            .any(|worker| worker.silent.is_some());
        let why = match is_held {
            true => format!("no worker that has answered has a coroutine {id}, but one is held"),
            false => format!("there is no coroutine {id}, or it has ended"),
        };
        Err(io::Error::new(io::ErrorKind::NotFound, why))
    }

    pub(crate) fn task(&self) -> &Task {
        self.described().task()
    }

    /// Writes an object with the id, the state and the frames, which are `null` if the stack was not walked.
    pub(crate) fn write_backtrace(&self, json: &mut Json<'_>) -> fmt::Result {
        let described = self.described();
        let trace = described.trace.map(|trace| &self.snapshot.traces[trace]);
        json.object(|json| {
            json.member("id", |json| json.number(self.id))?;
            json.member("state", |json| json.string(name(described.entry.activity)))?;
            json.member("frames", |json| {
                json.option(trace, |json, trace| {
                    json.array(&trace.frames, |json, frame| {
                        write_frame(&self.snapshot, *frame, json)
                    })
                })
            })
        })
    }

    fn described(&self) -> &Described {
        let described = self.snapshot.coroutine(self.id);
        described.expect("it was found")
    }
}
