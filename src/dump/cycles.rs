//! Coroutines that wait for each other: each for a lock that the next one has, or for the end of the next one.
//!
//! # A cycle is told only if it lasts
//!
//! The coroutines of a snapshot are described one after the other, so a cycle in it may never have existed: a lock
//! may have changed hands in between. So the coroutines are described twice, and a cycle counts if all of its
//! coroutines are in the same waits both times, for the same owners. (Each wait has a number.)
//!
//! Take a moment after the first descriptions and before the second ones. All coroutines of the cycle were parked
//! then. The owner of each lock had it when its waiter was described the first time, and the second time. In between
//! the owner was parked, but for the time before its own first description or after its own second one. So it has not
//! unlocked since the moment, nor locked: it had the lock at that moment. And a parked coroutine unlocks nothing, so
//! the cycle lasts, unless something else ends one of the waits. Waits with deadlines do not count, for that reason. A
//! cancellation can end a join.

use std::collections::{HashMap, HashSet};

use super::snapshot::{Described, Snapshot};

/// The coroutines of a cycle by their ids. Each waits for the next one, and the last one for the first.
pub(super) type Cycle = Vec<u64>;

/// The cycles among the coroutines that wait for one other coroutine.
pub(super) fn find(snapshot: &Snapshot) -> Vec<Cycle> {
    let waits = snapshot.coroutines.iter();
    let waits: HashMap<u64, u64> = waits
        .filter_map(|waiter| Some((waiter.id, waits_for(snapshot, waiter)?.0)))
        .collect();
    let mut seen = HashSet::new();
    let mut cycles = Vec::new();
    // By id, so that the same program gives the same dump.
    for first in snapshot.coroutines.iter().map(|coroutine| coroutine.id) {
        let (mut path, mut at) = (Vec::new(), Some(first));
        while let Some(id) = at.filter(|id| seen.insert(*id)) {
            path.push(id);
            at = waits.get(&id).copied();
        }
        // The path has come to a coroutine that was seen: it closes a cycle if it is in this path.
        if let Some(start) = at.and_then(|id| path.iter().position(|on_path| *on_path == id)) {
            cycles.push(path.split_off(start));
        }
    }
    cycles
}

/// Keeps the cycles of `first` that are also in `second`, which was taken later.
pub(super) fn retain_lasting(cycles: &mut Vec<Cycle>, first: &Snapshot, second: &Snapshot) {
    let edge = |snapshot: &Snapshot, id: &u64| waits_for(snapshot, snapshot.coroutine(*id)?);
    cycles.retain(|cycle| cycle.iter().all(|id| edge(first, id) == edge(second, id)));
}

/// The coroutine without which the wait of `waiter` does not end, and the number of that wait. `None` if there may be
/// another way.
fn waits_for(snapshot: &Snapshot, waiter: &Described) -> Option<(u64, u64)> {
    let started = waiter.started()?;
    if started.deadline.is_some() {
        return None;
    }
    let awaits = waiter.awaits()?;
    let other = match (awaits.holder, awaits.tasks.as_slice()) {
        (Some(holder), _) => snapshot.holder(holder),
        (None, &[joined]) => Some(joined),
        _ => None,
    };
    Some((other?, started.wait))
}
