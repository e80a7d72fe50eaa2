//! A dump as JSON.

use std::fmt::{self, Display, Write};
use std::time::Instant;

use super::snapshot::{Described, Snapshot, WorkerHolder, breathe, name};
use crate::coroutine::Seen;
use crate::task::{Awaits, Role};
use crate::worker::Started;

/// Writes the dump.
pub(super) fn write(snapshot: &Snapshot, out: &mut dyn Write) -> fmt::Result {
    let mut json = Json::new(out);
    json.object(|json| {
        json.member("version", |json| json.number(1))?;
        json.member("workers", |json| {
            json.array(&snapshot.workers, |json, worker| {
                json.object(|json| {
                    json.member("runtime", |json| json.number(worker.runtime))?;
                    json.member("worker", |json| json.number(worker.index))?;
                    let state = worker
                        .silent
                        .as_ref()
                        .map_or("answered", |silent| silent.why);
                    json.member("state", |json| json.string(state))?;
                    let silent = worker.silent.as_ref();
                    json.member("not_described", |json| {
                        json.number(silent.map_or(0, |silent| silent.coroutines))
                    })?;
                    let holder = silent.and_then(|silent| silent.holder.as_ref());
                    json.member("holder", |json| json.option(holder, write_holder))
                })
            })
        })?;
        json.member("pool", |json| {
            let pool = snapshot.pool;
            json.object(|json| {
                json.member("threads", |json| json.number(pool.threads))?;
                json.member("idle", |json| json.number(pool.idle))?;
                json.member("queued", |json| json.number(pool.queued))
            })
        })?;
        json.member("cycles", |json| {
            json.array(&snapshot.cycles, |json, cycle| {
                json.array(cycle, |json, id| json.number(id))
            })
        })?;
        json.member("coroutines", |json| {
            let mut written = 0;
            json.array(&snapshot.coroutines, |json, coroutine| {
                breathe(written);
                written += 1;
                json.object(|json| write_coroutine(snapshot, coroutine, json))
            })
        })?;
        json.member("traces", |json| {
            json.array(&snapshot.traces, |json, trace| {
                json.array(&trace.frames, |json, frame| {
                    write_frame(snapshot, *frame, json)
                })
            })
        })
    })?;
    json.out.write_char('\n')
}

fn write_holder(json: &mut Json<'_>, holder: &WorkerHolder) -> fmt::Result {
    let WorkerHolder { identity, seen } = holder;
    json.object(|json| {
        json.member("id", |json| json.option(identity.id, Json::number))?;
        json.member("name", |json| {
            json.option(identity.name.as_deref(), Json::string)
        })?;
        json.member("spawned_at", |json| {
            json.string(&identity.spawned_at.to_string())
        })?;
        let call = seen.as_ref().and_then(Seen::call_name);
        json.member("system_call", |json| json.option(call, Json::string))?;
        let backtrace = seen.as_ref().and_then(|seen| seen.backtrace.as_deref());
        json.member("backtrace", |json| json.option(backtrace, Json::string))
    })
}

fn write_coroutine(snapshot: &Snapshot, coroutine: &Described, json: &mut Json<'_>) -> fmt::Result {
    let task = coroutine.task();
    json.member("id", |json| json.number(coroutine.id))?;
    json.member("name", |json| json.option(task.name(), Json::string))?;
    json.member("state", |json| json.string(name(coroutine.entry.activity)))?;
    json.member("runtime", |json| json.number(task.runtime()))?;
    json.member("daemon", |json| json.number(task.role() == Role::Daemon))?;
    json.member("parent", |json| json.option(task.parent(), Json::number))?;
    json.member("spawned_at", |json| {
        json.string(&task.spawned_at().to_string())
    })?;
    json.member("trace", |json| json.option(coroutine.trace, Json::number))?;
    match coroutine.started() {
        Some(started) => write_started(snapshot, started, json),
        None => Ok(()),
    }
}

fn write_started(snapshot: &Snapshot, started: &Started, json: &mut Json<'_>) -> fmt::Result {
    json.member("worker", |json| json.number(started.worker))?;
    json.member("stack", |json| {
        json.object(|json| {
            json.member("size", |json| json.number(started.stack))?;
            json.member("depth", |json| json.number(started.depth))?;
            json.member("high_water", |json| json.number(started.high_water))
        })
    })?;
    json.member("locals", |json| {
        json.array(&started.locals, |json, name| json.string(name))
    })?;
    let Some(awaits) = &started.awaits else {
        return Ok(());
    };
    json.member("parked_for", |json| json.number(started.idle.as_secs_f64()))?;
    let left = |deadline: Instant| {
        deadline
            .saturating_duration_since(snapshot.at)
            .as_secs_f64()
    };
    json.member("wakes_in", |json| {
        json.option(started.deadline.map(left), Json::number)
    })?;
    json.member("wait", |json| {
        json.object(|json| write_wait(snapshot, awaits, json))
    })
}

fn write_wait(snapshot: &Snapshot, awaits: &Awaits, json: &mut Json<'_>) -> fmt::Result {
    json.member("reason", |json| json.string(awaits.reason.name()))?;
    json.member("text", |json| {
        json.string(&snapshot.wait(awaits).to_string())
    })?;
    if awaits.address != 0 {
        json.member("address", |json| {
            json.string(&format!("{:#x}", awaits.address))
        })?;
    }
    if let Some(number) = awaits.holder {
        json.member("owner", |json| {
            json.option(snapshot.holder(number), Json::number)
        })?;
    }
    if !awaits.tasks.is_empty() {
        json.member("joins", |json| {
            json.array(&awaits.tasks, |json, id| json.number(id))
        })?;
    }
    if !awaits.descriptors.is_empty() {
        json.member("descriptors", |json| {
            json.array(&awaits.descriptors, |json, descriptor| {
                json.object(|json| {
                    json.member("number", |json| json.number(descriptor.number))?;
                    json.member("interest", |json| json.string(descriptor.interest))?;
                    let object = descriptor.object.as_deref();
                    json.member("object", |json| json.option(object, Json::string))
                })
            })
        })?;
    }
    if !awaits.arms.is_empty() {
        json.member("arms", |json| {
            json.array(&awaits.arms, |json, arm| {
                json.object(|json| write_wait(snapshot, arm, json))
            })
        })?;
    }
    Ok(())
}

pub(super) fn write_frame(snapshot: &Snapshot, frame: usize, json: &mut Json<'_>) -> fmt::Result {
    json.object(|json| {
        json.member("address", |json| json.string(&format!("{frame:#x}")))?;
        json.member("symbols", |json| {
            json.array(snapshot.symbols(frame), |json, symbol| {
                json.object(|json| {
                    json.member("name", |json| json.string(&symbol.name))?;
                    json.member("at", |json| json.option(symbol.at.as_deref(), Json::string))
                })
            })
        })
    })
}

/// Writes JSON (RFC 8259).
pub(crate) struct Json<'a> {
    out: &'a mut dyn Write,
    /// Whether the next member or element is the first one.
    is_first: bool,
}

impl<'a> Json<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Json<'a> {
        Json {
            out,
            is_first: true,
        }
    }

    /// Writes an object, with the members that `members` writes.
    pub(crate) fn object(&mut self, members: impl FnOnce(&mut Self) -> fmt::Result) -> fmt::Result {
        self.out.write_char('{')?;
        self.is_first = true;
        members(self)?;
        self.is_first = false;
        self.out.write_char('}')
    }

    /// Writes a member of an object, with the value that `value` writes.
    pub(crate) fn member(
        &mut self,
        name: &str,
        value: impl FnOnce(&mut Self) -> fmt::Result,
    ) -> fmt::Result {
        self.separate()?;
        self.string(name)?;
        self.out.write_char(':')?;
        value(self)
    }

    /// Writes an array, each of whose elements `element` writes.
    pub(crate) fn array<T>(
        &mut self,
        elements: impl IntoIterator<Item = T>,
        mut element: impl FnMut(&mut Self, T) -> fmt::Result,
    ) -> fmt::Result {
        self.out.write_char('[')?;
        self.is_first = true;
        for each in elements {
            self.separate()?;
            element(self, each)?;
        }
        self.is_first = false;
        self.out.write_char(']')
    }

    fn separate(&mut self) -> fmt::Result {
        match std::mem::replace(&mut self.is_first, false) {
            true => Ok(()),
            false => self.out.write_char(','),
        }
    }

    /// Writes a number, `true` or `false`. A number must be finite.
    pub(crate) fn number(&mut self, number: impl Display) -> fmt::Result {
        write!(self.out, "{number}")
    }

    pub(crate) fn string(&mut self, text: &str) -> fmt::Result {
        self.out.write_char('"')?;
        for c in text.chars() {
            match c {
                '"' => self.out.write_str("\\\"")?,
                '\\' => self.out.write_str("\\\\")?,
                c if c < ' ' => write!(self.out, "\\u{:04x}", u32::from(c))?,
                c => self.out.write_char(c)?,
            }
        }
        self.out.write_char('"')
    }

    /// Writes what `value` writes of it, or `null`.
    pub(crate) fn option<T>(
        &mut self,
        option: Option<T>,
        value: impl FnOnce(&mut Self, T) -> fmt::Result,
    ) -> fmt::Result {
        match option {
            Some(some) => value(self, some),
            None => self.out.write_str("null"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_and_commas_are_between() {
        let mut text = String::new();
        let mut json = Json::new(&mut text);
        json.object(|json| {
            json.member("a\"\\\n\u{1}é", |json| json.string("\t"))?;
            json.member("b", |json| {
                json.array([Some(1), None], |json, each| {
                    json.option(each, Json::number)
                })
            })?;
            json.member("c", |json| json.object(|_| Ok(())))?;
            json.member("d", |json| json.array([0; 0], Json::number))?;
            json.member("e", |json| json.number(true))
        })
        .unwrap();
        let expected = r#"{"a\"\\\u000a\u0001é":"\u0009","b":[1,null],"c":{},"d":[],"e":true}"#;
        assert_eq!(text, expected);
    }
}
