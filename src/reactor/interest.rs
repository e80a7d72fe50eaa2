//! The states of a descriptor: which to wait for, and which were found.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use mio::event::Event;
use rustix::event::PollFlags;

/// The states of a descriptor to wait for. Any of them ends the wait.
///
/// Errors and hang-ups of both directions also end the wait, always, as with `poll(2)`.
///
/// ```
/// use greenroom::Interest;
///
/// let both = Interest::READABLE | Interest::WRITABLE;
/// assert!(both.contains(Interest::WRITABLE));
/// assert_eq!(format!("{both:?}"), "READABLE | WRITABLE");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interest(PollFlags);

impl Interest {
    /// Only errors and hang-ups.
    pub const NONE: Interest = Interest(PollFlags::empty());

    /// There is data to read, a connection to accept, or the end of the stream.
    pub const READABLE: Interest = Interest(PollFlags::IN.union(PollFlags::RDHUP));

    /// There is room to write, or a connection was established.
    pub const WRITABLE: Interest = Interest(PollFlags::OUT);

    /// There is an exceptional condition, such as urgent (out-of-band) data.
    pub const PRIORITY: Interest = Interest(PollFlags::PRI);

    /// The peer of a stream socket will write no more. There may still be data to read.
    pub const READ_CLOSED: Interest = Interest(PollFlags::RDHUP);

    /// Whether this interest contains all states in `other`.
    pub const fn contains(self, other: Interest) -> bool {
        self.0.contains(other.0)
    }

    /// That of a poll(2) which asks for `events`.
    pub(crate) fn of_events(events: i16) -> Interest {
        let events = PollFlags::from_bits_retain(events as u16);
        let normal = [
            (PollFlags::RDNORM | PollFlags::RDBAND, PollFlags::IN),
            (PollFlags::WRNORM | PollFlags::WRBAND, PollFlags::OUT),
        ];
        let normal = normal
            .into_iter()
            .filter(|(asked, _)| events.intersects(*asked));
        Interest(events | normal.map(|(_, event)| event).collect())
    }

    /// A word for the interest, for a dump.
    pub(super) fn name(self) -> &'static str {
        let read = self.0.intersects(PollFlags::IN | PollFlags::RDHUP);
        let write = self.0.intersects(PollFlags::OUT);
        match (read, write) {
            (true, true) => "read or write",
            (true, false) => "read",
            (false, true) => "write",
            (false, false) if self.0.intersects(PollFlags::PRI) => "priority",
            (false, false) => "hang-up",
        }
    }

    pub(crate) fn flags(self) -> PollFlags {
        self.0
    }

    /// What mio must register so that all these states are reported.
    pub(super) fn to_register(self) -> mio::Interest {
        let read = PollFlags::IN | PollFlags::RDHUP;
        [
            (read, mio::Interest::READABLE),
            (PollFlags::OUT, mio::Interest::WRITABLE),
            (PollFlags::PRI, mio::Interest::PRIORITY),
        ]
        .into_iter()
        .filter_map(|(flags, interest)| self.0.intersects(flags).then_some(interest))
        .reduce(|all, interest| all | interest)
        // mio has no empty interest. Errors and hang-ups are reported with any.
        .unwrap_or(mio::Interest::PRIORITY)
    }

    /// Whether `event` may report one of these states.
    pub(super) fn may_be(self, event: &Event) -> bool {
        let read = PollFlags::IN | PollFlags::RDHUP;
        // `is_write_closed` is also true for hang-ups, and for some kinds of errors.
        event.is_error()
            || event.is_write_closed()
            || self.0.intersects(read) && (event.is_readable() || event.is_read_closed())
            || self.0.intersects(PollFlags::OUT) && event.is_writable()
            || self.0.intersects(PollFlags::PRI) && event.is_priority()
    }
}

impl BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
}

impl BitOrAssign for Interest {
    fn bitor_assign(&mut self, other: Interest) {
        *self = *self | other;
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read_closed = self.contains(Interest::READ_CLOSED);
        let readable = self.contains(Interest::READABLE);
        let names = [
            (readable, "READABLE"),
            (self.contains(Interest::WRITABLE), "WRITABLE"),
            (self.contains(Interest::PRIORITY), "PRIORITY"),
            (read_closed && !readable, "READ_CLOSED"),
        ];
        write_names(f, &names)
    }
}

/// The states of a descriptor that were found.
///
/// Of the states that were not in the interest, only errors and hang-ups are reported.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Readiness(Bits);

/// `PollFlags` with a default value.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Bits(PollFlags);

impl Default for Bits {
    fn default() -> Bits {
        Bits(PollFlags::empty())
    }
}

impl Readiness {
    /// The part of `state` to report to a waiter for `interest`.
    pub(crate) fn of(state: PollFlags, interest: Interest) -> Readiness {
        let always = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        Readiness(Bits(state & (interest.0 | always)))
    }

    fn has(self, flags: PollFlags) -> bool {
        self.0.0.intersects(flags)
    }

    /// Whether no state was found.
    pub fn is_empty(self) -> bool {
        self.0.0.is_empty()
    }

    /// Whether a read (or accept) does not block: there is data, the end of the stream, or an error.
    /// This is the definition of `select(2)`; `POLLIN` alone does not report the end of a pipe.
    pub fn is_readable(self) -> bool {
        self.has(PollFlags::IN | PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
    }

    /// Whether a write does not block: there is room, or an error. This is the definition of
    /// `select(2)`.
    pub fn is_writable(self) -> bool {
        self.has(PollFlags::OUT | PollFlags::ERR)
    }

    /// Whether there is an exceptional condition, such as urgent data (`POLLPRI`).
    pub fn is_priority(self) -> bool {
        self.has(PollFlags::PRI)
    }

    /// Whether the peer will write no more (`POLLRDHUP` or `POLLHUP`). There may still be data to read.
    pub fn is_read_closed(self) -> bool {
        self.has(PollFlags::RDHUP | PollFlags::HUP)
    }

    /// Whether the other end is closed, or both directions are shut down (`POLLHUP`).
    pub fn is_hung_up(self) -> bool {
        self.has(PollFlags::HUP)
    }

    /// Whether there is an error, which the next operation returns, or the reading end of a pipe is
    /// closed (`POLLERR`).
    pub fn is_error(self) -> bool {
        self.has(PollFlags::ERR)
    }

    /// Whether the descriptor is not open (`POLLNVAL`).
    pub fn is_invalid(self) -> bool {
        self.has(PollFlags::NVAL)
    }

    /// The `POLL*` bits, as `poll(2)` returns them.
    pub fn bits(self) -> i16 {
        self.0.0.bits() as i16
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (self.has(PollFlags::IN), "READABLE"),
            (self.has(PollFlags::OUT), "WRITABLE"),
            (self.has(PollFlags::PRI), "PRIORITY"),
            (self.has(PollFlags::RDHUP), "READ_CLOSED"),
            (self.has(PollFlags::HUP), "HUNG_UP"),
            (self.has(PollFlags::ERR), "ERROR"),
            (self.has(PollFlags::NVAL), "INVALID"),
        ];
        write_names(f, &names)
    }
}

/// Writes the names of the states that are there.
fn write_names(f: &mut fmt::Formatter<'_>, names: &[(bool, &str)]) -> fmt::Result {
    let there: Vec<&str> = names
        .iter()
        .filter_map(|&(there, name)| there.then_some(name))
        .collect();
    match there.is_empty() {
        true => f.write_str("NONE"),
        false => f.write_str(&there.join(" | ")),
    }
}
