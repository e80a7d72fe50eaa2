//! The rows of the table: filtered, grouped, sorted.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::sample::{Coroutine, Coroutines};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// In a table of groups: how many coroutines there are.
    Id,
    Name,
    State,
    WaitsFor,
    Since,
    Stack,
    SpawnedAt,
}

impl Column {
    pub(crate) const ALL: [Column; 7] = [
        Column::Id,
        Column::Name,
        Column::State,
        Column::WaitsFor,
        Column::Since,
        Column::Stack,
        Column::SpawnedAt,
    ];

    /// The column that is `steps` to the right, or to the left, in a circle.
    pub(crate) fn neighbour(self, steps: isize) -> Column {
        let at = self as isize + steps;
        Column::ALL[at.rem_euclid(Column::ALL.len() as isize) as usize]
    }
}

/// What is to be seen of the coroutines.
pub(crate) struct Settings {
    pub(crate) filter: String,
    pub(crate) is_grouped: bool,
    pub(crate) column: Column,
    pub(crate) is_descending: bool,
}

/// A coroutine, or several that do the same with the same stack.
pub(crate) struct Row {
    /// The first of them, and of all what is largest.
    pub(crate) coroutine: Coroutine,
    pub(crate) count: usize,
}

/// The rows, in their order.
pub(crate) fn rows(coroutines: &Coroutines, settings: &Settings) -> Vec<Row> {
    let filter = settings.filter.to_lowercase();
    let wanted = coroutines
        .all
        .iter()
        .filter(|coroutine| filter.is_empty() || matches(coroutine, &filter));
    let mut rows = match settings.is_grouped {
        true => groups(wanted),
        false => wanted
            .map(|coroutine| Row {
                coroutine: coroutine.clone(),
                count: 1,
            })
            .collect(),
    };
    // The dump is in the order of ids, which equal rows keep.
    rows.sort_by(|a, b| match settings.is_descending {
        true => compare(b, a, settings),
        false => compare(a, b, settings),
    });
    rows
}

fn matches(coroutine: &Coroutine, filter: &str) -> bool {
    let Coroutine {
        id,
        name,
        state,
        waits_for,
        spawned_at,
        ..
    } = coroutine;
    [&id.to_string(), name, state, waits_for, spawned_at]
        .iter()
        .any(|text| text.to_lowercase().contains(filter))
}

fn groups<'a>(coroutines: impl Iterator<Item = &'a Coroutine>) -> Vec<Row> {
    let mut index = HashMap::new();
    let mut groups: Vec<Row> = Vec::new();
    for coroutine in coroutines {
        let Coroutine {
            trace,
            state,
            reason,
            spawned_at,
            ..
        } = coroutine;
        let new = groups.len();
        let at = *index
            .entry((trace, state, reason, spawned_at))
            .or_insert(new);
        if at == new {
            groups.push(Row {
                coroutine: coroutine.clone(),
                count: 1,
            });
            continue;
        }
        let Row {
            coroutine: all,
            count,
        } = &mut groups[at];
        *count += 1;
        let times = all.since.into_iter().chain(coroutine.since);
        all.since = times.reduce(f64::max);
        all.stack = all.stack.max(coroutine.stack);
        // They wait in the same way, but perhaps for different things.
        if all.waits_for != coroutine.waits_for {
            all.waits_for.clone_from(reason);
        }
        if all.name != coroutine.name {
            all.name = "*".into();
        }
    }
    groups
}

fn compare(a: &Row, b: &Row, settings: &Settings) -> Ordering {
    let (x, y) = (&a.coroutine, &b.coroutine);
    match settings.column {
        Column::Id if settings.is_grouped => a.count.cmp(&b.count),
        Column::Id => x.id.cmp(&y.id),
        Column::Name => x.name.cmp(&y.name),
        Column::State => x.state.cmp(&y.state),
        Column::WaitsFor => x.waits_for.cmp(&y.waits_for),
        Column::Since => x.since.unwrap_or(-1.0).total_cmp(&y.since.unwrap_or(-1.0)),
        Column::Stack => x.stack.cmp(&y.stack),
        Column::SpawnedAt => x.spawned_at.cmp(&y.spawned_at),
    }
}
