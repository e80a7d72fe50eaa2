//! The list of crates.

use std::fs;
use std::path::Path;

/// A line of the list: a crate, how to test it, and what is known to be different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Taken by continuous integration.
    pub(crate) handful: bool,
    /// Only built: its tests cannot be run from the published package, or need what is not there.
    pub(crate) build_only: bool,
    /// The features to build with, if only built.
    pub(crate) features: Vec<String>,
    /// Whether the default features are among them.
    pub(crate) default_features: bool,
    /// Passed to cargo, both ways.
    pub(crate) cargo_args: Vec<String>,
    /// Passed to the test binaries, both ways.
    pub(crate) test_args: Vec<String>,
    /// Why its tests are not run, if it is only built and that is not just for lack of time.
    pub(crate) untested: Option<String>,
    /// It does not build on greenroom's std.
    pub(crate) fails: bool,
    /// The names of tests that may fail on greenroom's std only.
    pub(crate) lost: Vec<String>,
    /// Why it fails, loses tests, or has tests left out.
    pub(crate) known: Option<String>,
}

/// Reads the list: in each line, the name and version; options in square brackets, separated by
/// semicolons; after a `#`, a comment.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(parse).collect()
}

fn parse(line: &str) -> Result<Entry, String> {
    let (head, options) = match line.split_once('[') {
        Some((head, rest)) => (
            head,
            rest.strip_suffix(']').ok_or(format!("no `]` in: {line}"))?,
        ),
        None => (line, ""),
    };
    let mut words = head.split_whitespace().map(str::to_owned);
    let (Some(name), Some(version), None) = (words.next(), words.next(), words.next()) else {
        return Err(format!("not a name and a version: {line}"));
    };
    let mut entry = Entry {
        name,
        version,
        default_features: true,
        ..Entry::default()
    };
    for option in options
        .split(';')
        .map(str::trim)
        .filter(|option| !option.is_empty())
    {
        let (key, value) = option.split_once(':').unwrap_or((option, ""));
        let words = || value.split_whitespace().map(str::to_owned).collect();
        match key {
            "handful" => entry.handful = true,
            "build" => {
                entry.build_only = true;
                entry.untested = Some(value.trim().into()).filter(|why: &String| !why.is_empty());
            }
            "features" => entry.features = words(),
            "no-default-features" => entry.default_features = false,
            "cargo" => entry.cargo_args = words(),
            "test" => entry.test_args = words(),
            "fails" => entry.fails = true,
            "lost" => entry.lost = words(),
            "known" => entry.known = Some(value.trim().into()),
            _ => return Err(format!("no such option: {key}, in: {line}")),
        }
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_name_a_version_and_options() {
        let entry = parse("ureq 2.12.1 [handful; cargo: --lib -p x; known: it spins]").unwrap();
        assert_eq!(
            (entry.name.as_str(), entry.version.as_str()),
            ("ureq", "2.12.1")
        );
        assert!(entry.handful && !entry.build_only && entry.default_features && !entry.fails);
        assert_eq!(entry.cargo_args, ["--lib", "-p", "x"]);
        assert_eq!(entry.known.as_deref(), Some("it spins"));
        let entry = parse("a 1 [build: needs a server; fails; lost: b c]").unwrap();
        assert!(entry.build_only && entry.fails);
        assert_eq!(entry.untested.as_deref(), Some("needs a server"));
        assert_eq!(entry.lost, ["b", "c"]);
        assert!(
            parse("ureq").is_err() && parse("a 1 [x]").is_err() && parse("a 1 [build").is_err()
        );
    }
}
