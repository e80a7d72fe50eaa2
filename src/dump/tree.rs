//! Which coroutine has spawned which, as text.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write};
use std::panic::Location;
use std::vec;

use super::snapshot::{Described, Snapshot, breathe};

/// Lines are indented up to this depth. Below it they tell their depth, so that a long chain of spawns is not a text
/// of quadratic length.
const DEEPEST_INDENT: usize = 32;

/// A coroutine, and those that it has spawned.
type Parent<'a> = (&'a Described, Vec<&'a Described>);

/// Writes the tree of the coroutines. Of the leaves of one place, `listed` are listed.
pub(super) fn write(snapshot: &Snapshot, listed: usize, out: &mut dyn Write) -> fmt::Result {
    writeln!(out, "\nspawned by")?;
    let mut children: HashMap<Option<u64>, Vec<&Described>> = HashMap::new();
    for (index, coroutine) in snapshot.coroutines.iter().enumerate() {
        breathe(index);
        let parent = coroutine.task().parent().map(|parent| parent.get());
        // Those whose spawner has ended are listed like those that no coroutine has spawned.
        let parent = parent.filter(|parent| snapshot.coroutine(*parent).is_some());
        children.entry(parent).or_default().push(coroutine);
    }
    let roots = children.remove(&None).unwrap_or_default();
    let mut tree = Tree {
        snapshot,
        listed,
        children,
        written: 0,
        out,
    };
    // A stack instead of a recursion: chains of spawns may be long. It has the parents of each level that are still to
    // be written.
    let mut levels = vec![tree.write_leaves(0, roots)?];
    while let Some(parents) = levels.last_mut() {
        match parents.next() {
            Some((coroutine, below)) => {
                tree.write_parent(levels.len() - 1, coroutine)?;
                levels.push(tree.write_leaves(levels.len(), below)?);
            }
            None => drop(levels.pop()),
        }
    }
    Ok(())
}

struct Tree<'a> {
    snapshot: &'a Snapshot,
    listed: usize,
    /// The children of each coroutine that has some and was not written yet.
    children: HashMap<Option<u64>, Vec<&'a Described>>,
    /// How many coroutines were looked at.
    written: usize,
    out: &'a mut dyn Write,
}

impl<'a> Tree<'a> {
    /// Writes those of one level that have spawned nothing. Returns the others.
    fn write_leaves(
        &mut self,
        depth: usize,
        level: Vec<&'a Described>,
    ) -> Result<vec::IntoIter<Parent<'a>>, fmt::Error> {
        // Leaves of one place are one line.
        let mut leaves: BTreeMap<&Location<'static>, Vec<&Described>> = BTreeMap::new();
        let mut parents = Vec::new();
        for coroutine in level {
            breathe(self.written);
            self.written += 1;
            match self.children.remove(&Some(coroutine.id)) {
                Some(below) => parents.push((coroutine, below)),
                None => leaves
                    .entry(coroutine.task().spawned_at())
                    .or_default()
                    .push(coroutine),
            }
        }
        for (site, members) in leaves {
            self.indent(depth)?;
            write!(self.out, "{} of {site}:", members.len())?;
            for (index, member) in members.iter().take(self.listed).enumerate() {
                breathe(index);
                write!(self.out, " {}", self.snapshot.named(member.id))?;
            }
            if let Some(more @ 1..) = members.len().checked_sub(self.listed) {
                write!(self.out, " and {more} more")?;
            }
            writeln!(self.out)?;
        }
        Ok(parents.into_iter())
    }

    fn write_parent(&mut self, depth: usize, coroutine: &Described) -> fmt::Result {
        self.indent(depth)?;
        let site = coroutine.task().spawned_at();
        writeln!(self.out, "{} ({site})", self.snapshot.named(coroutine.id))
    }

    /// Begins a line.
    fn indent(&mut self, depth: usize) -> fmt::Result {
        let indent = 2 * depth.min(DEEPEST_INDENT) + 2;
        write!(self.out, "{:indent$}", "")?;
        match depth > DEEPEST_INDENT {
            true => write!(self.out, "at depth {depth}: "),
            false => Ok(()),
        }
    }
}
