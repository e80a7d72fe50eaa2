//! What the two commands have to say.

use std::{fs, io};

use similar::TextDiff;

use crate::docs::Docs;
use crate::explained::Explained;
use crate::surface::{self, Surface};
use crate::table;

const NOT_INSTALLED: &str =
    "std's documentation is not installed (`rustup component add rust-docs`)";

/// What there is to say, and whether it is bad.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) failed: bool,
}

/// Writes the table, even if something in it is not explained.
pub(crate) fn write() -> io::Result<Report> {
    let surface = found()?.ok_or_else(|| io::Error::other(NOT_INSTALLED))?;
    fs::write(table::path(), table::render(&surface))?;
    Ok(Report {
        text: format!(
            "{}wrote {} for std {}",
            listed(&surface.failures),
            table::PATH,
            surface.version
        ),
        failed: !surface.failures.is_empty(),
    })
}

/// Compares the table that is checked in with what would be written.
pub(crate) fn check() -> io::Result<Report> {
    match found()? {
        Some(surface) => Ok(compared(&fs::read_to_string(table::path())?, &surface)),
        None => Ok(Report {
            text: format!("NOT CHECKED: {NOT_INSTALLED}"),
            failed: false,
        }),
    }
}

/// Of a written table and what was found.
pub(crate) fn compared(table: &str, surface: &Surface) -> Report {
    let of = table::version(table).unwrap_or("an unknown version");
    if of != surface.version {
        // A new std has items that nobody has judged.
        return Report {
            text: format!(
                "{}NOT CHECKED: the table is of std {of}, and this is std {}, of which the lines above \
                 would be explained or wrong",
                listed(&surface.failures),
                surface.version
            ),
            failed: false,
        };
    }
    let now = table::render(surface);
    let diff = TextDiff::from_lines(table, &now);
    let changed = if table == now {
        String::new()
    } else {
        format!(
            "{}\n{} is not of these sources: `cargo run -p greenroom-surface` writes it\n",
            diff.unified_diff()
                .context_radius(0)
                .header("checked in", "now"),
            table::PATH
        )
    };
    let failed = !surface.failures.is_empty() || !changed.is_empty();
    let holds = if failed { "" } else { "the table holds" };
    Report {
        text: format!("{}{changed}{holds}", listed(&surface.failures)),
        failed,
    }
}

/// Compares, if std's documentation is there.
fn found() -> io::Result<Option<Surface>> {
    let explained =
        Explained::parse(include_str!("../explained.toml")).map_err(io::Error::other)?;
    let Some(std) = Docs::of_std()? else {
        return Ok(None);
    };
    surface::compare(&std, &Docs::of_shims()?, &explained).map(Some)
}

fn listed(failures: &[String]) -> String {
    let mut list: String = failures.iter().map(|f| format!("{f}\n")).collect();
    if !failures.is_empty() {
        list += &format!(
            "{} to be explained in tests/surface/explained.toml\n",
            failures.len()
        );
    }
    list
}
