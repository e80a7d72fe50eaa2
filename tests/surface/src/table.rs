//! The table, as it is written and checked.

use std::fmt::Write;
use std::path::PathBuf;

use crate::docs;
use crate::surface::{Module, Row, Surface};
use crate::verdict::Verdict;

/// Where the table is, in the repository.
pub(crate) const PATH: &str = "shims/SURFACE.md";

pub(crate) fn path() -> PathBuf {
    docs::repository().join(PATH)
}

/// The version of std that a written table is of.
pub(crate) fn version(table: &str) -> Option<&str> {
    let (_, rest) = table.lines().next()?.split_once("std ")?;
    rest.split_whitespace().next()
}

pub(crate) fn render(surface: &Surface) -> String {
    let mut table = format!("# The shims beside std {}\n", surface.version);
    table.push_str(
        "
This table lists each public item of std that is stable and exists on Linux, with its counterpart in
the shims. `cargo run -p greenroom-surface` writes the table by comparing the documentation of both. The
explanations come from `tests/surface/explained.toml`.

- *mirrored*: greenroom's own item, with the same name and signature. Implementations of traits, also of
  auto traits, are compared, too.
- *differs*: greenroom's own item with another signature, or missing for good.
- *std's own*: re-exported, because the item does not wait.
- *blocks*: re-exported, although the item may wait. A wait blocks the worker.
- *not yet mirrored*: re-exported, missing or different so far.
- *added*: std has no such item.

",
    );
    overview(&mut table, surface);
    for module in &surface.modules {
        if !module.rows.is_empty() {
            items(&mut table, module);
        }
    }
    table
}

fn overview(table: &mut String, surface: &Surface) {
    table.push_str("| module | here |\n|---|---|\n");
    for module in &surface.modules {
        let summary = match &module.whole {
            Some(why) => format!("std's own: {}", cell(why)),
            None if module.rows.is_empty() => "nothing but modules".to_owned(),
            None => counts(&module.rows),
        };
        writeln!(table, "| `{}` | {summary} |", full_path(module)).expect("memory");
    }
}

/// `3 mirrored, 1 differs`.
fn counts(rows: &[Row]) -> String {
    let mut counts = Vec::new();
    for verdict in [
        Verdict::Mirrored,
        Verdict::Differs,
        Verdict::StdsOwn,
        Verdict::Blocks,
        Verdict::NotYetMirrored,
        Verdict::Added,
    ] {
        let number = rows
            .iter()
            .filter(|r| r.judgement.verdict == verdict)
            .count();
        if number > 0 {
            counts.push(format!("{number} {verdict}"));
        }
    }
    counts.join(", ")
}

fn items(table: &mut String, module: &Module) {
    writeln!(table, "\n## `{}`\n", full_path(module)).expect("memory");
    table.push_str("| item | since | here | how |\n|---|---|---|---|\n");
    for row in &module.rows {
        let name = row.path.strip_prefix(&format!("{}::", module.path));
        let name = cell(name.unwrap_or(&row.path));
        let kind = if row.kind.is_empty() {
            String::new()
        } else {
            format!("{} ", row.kind)
        };
        let since = row.standing.since.as_deref().unwrap_or_default();
        let deprecated = if row.standing.deprecated {
            " (deprecated)"
        } else {
            ""
        };
        let (verdict, how) = (row.judgement.verdict, cell(&row.judgement.how));
        writeln!(
            table,
            "| {kind}`{name}` | {since}{deprecated} | {verdict} | {how} |"
        )
        .expect("memory");
    }
}

fn full_path(module: &Module) -> String {
    if module.path.is_empty() {
        "std".to_owned()
    } else {
        format!("std::{}", module.path)
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
