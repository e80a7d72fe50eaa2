use super::{fixture, small_std};
use crate::docs::Docs;
use crate::explained::Explained;
use crate::report;
use crate::surface::{self, Surface};
use crate::table;

fn compared(explained: &str) -> Surface {
    let explained = Explained::parse(explained).unwrap();
    surface::compare(&small_std(), &Docs::at(fixture("shims")), &explained).unwrap()
}

/// Each row as `path: verdict`.
fn rows(surface: &Surface, module: &str) -> Vec<String> {
    let module = surface.modules.iter().find(|m| m.path == module).unwrap();
    let row = |row: &surface::Row| format!("{} - {}", row.path, row.judgement.verdict);
    module.rows.iter().map(row).collect()
}

/// All that is to be said about the small std.
const EXPLAINED: &str = r#"
    read = ["room"]
    [modules]
    attic = "values"
    [never-waits]
    "room::Lamp" = "a value"
    [blocks]
    "knock!" = "waits for an answer"
    [not-yet-mirrored]
    "room::Door::latch" = "to do"
    [differs]
    "room::Door: impl UnwindSafe for Door<T>" = "always is"
    "room::Door::new" = "not const"
    "room::enter" = "by a door of std's"
    "room::peek" = "not there"
    [added]
    "room::Door::paint" = "a colour"
    "room::leave" = "the other way"
"#;

#[test]
fn each_item_gets_its_verdict() {
    let surface = compared(EXPLAINED);
    assert_eq!(surface.failures, [""; 0]);
    assert_eq!(rows(&surface, ""), ["knock! - blocks"]);
    assert_eq!(
        rows(&surface, "room"),
        [
            "room::Door - mirrored",
            "room::Door::new - differs",
            "room::Door::open - mirrored",
            "room::Door::oil - mirrored",
            "room::Door::latch - not yet mirrored",
            "room::Door::WIDTH - mirrored",
            "room::Door: impl Iterator for Door<T> - mirrored",
            "room::Door: impl Send for Door<T> - mirrored",
            "room::Door: impl UnwindSafe for Door<T> - differs",
            "room::Door::paint - added",
            "room::Lamp - std's own",
            "room::enter - differs",
            "room::peek - differs",
            "room::leave - added",
        ]
    );
    assert_eq!(rows(&surface, "attic"), [""; 0]);
    let modules: Vec<_> = surface.modules.iter().map(|m| m.path.as_str()).collect();
    assert_eq!(
        modules,
        ["", "attic", "room"],
        "neither unstable nor for Windows"
    );
}

#[test]
fn what_is_not_explained_is_a_failure() {
    let surface = compared("read = ['room']");
    assert_eq!(
        surface.failures,
        [
            "module `attic` is neither read nor explained",
            "`room::Door::new` differs\n  \
             std:  pub const fn new(behind: T) -> Self\n  \
             here: pub fn new(value: U) -> Door<U>",
            "`room::Door::latch` is missing\n  std:  pub fn latch(&self, hard: bool)",
            "`room::Door: impl UnwindSafe for Door<T>` differs\n  \
             std:  impl<T> !UnwindSafe for Door<T>\n  \
             here: impl<U> UnwindSafe for Door<U>",
            "`room::Door::paint` is not std's\n  here: pub fn paint(&self)",
            "`room::Lamp` is std's own, and nothing says whether it waits",
            "`room::enter` differs\n  \
             std:  pub fn enter<T>(by: &Door<T>)\n  \
             here: pub fn enter<T>(by: &::std::room::Door<T>)",
            "`room::peek` is missing\n  std:  pub fn peek()",
            "`room::leave` is not std's\n  here: pub fn leave()",
            "`knock!` is std's own, and nothing says whether it waits",
        ]
    );
}

#[test]
fn what_explains_nothing_is_a_failure() {
    let surface = compared(&EXPLAINED.replace(
        "[blocks]",
        "\"room::Door\" = \"a value\"\n    \"room::gone\" = \"a value\"\n    [blocks]",
    ));
    assert_eq!(
        surface.failures,
        [
            "`room::Door` in [never-waits] explains nothing: take it out",
            "`room::gone` in [never-waits] explains nothing: take it out",
        ]
    );
}

#[test]
fn a_module_that_is_begun_is_no_longer_not_yet_mirrored_as_a_whole() {
    let surface = compared(
        &EXPLAINED
            .replace("\"room::Door::latch\"", "\"room::*\"")
            .replace("\"room::Lamp\" = \"a value\"", ""),
    );
    assert_eq!(
        surface.failures,
        [
            "`room::Door::latch` is missing\n  std:  pub fn latch(&self, hard: bool)",
            "`room::*` in [not-yet-mirrored] is not so of all items: name what is left",
        ]
    );
    assert!(rows(&surface, "room").contains(&"room::Lamp - not yet mirrored".to_owned()));
}

#[test]
fn a_module_of_greenrooms_own_has_to_be_read() {
    let surface = compared("read = []\n[modules]\nattic = 'values'\nroom = 'values'");
    assert_eq!(
        surface.failures[0],
        "module `room` is greenroom's own: let it be read"
    );
}

#[test]
fn a_module_that_std_does_not_have_is_a_failure() {
    let surface = compared(&EXPLAINED.replace("[\"room\"]", "[\"room\", \"loft\"]"));
    assert_eq!(
        surface.failures,
        ["`loft` is to be read, but std has no such module"]
    );
}

#[test]
fn a_table_holds_until_something_changes() {
    let surface = compared(EXPLAINED);
    let table = table::render(&surface);
    assert!(table.starts_with("# The shims beside std 1.95.0\n"));
    assert!(
        table.contains("| `std::attic` | std's own: values |\n"),
        "{table}"
    );
    assert!(
        table.contains("| `Door::open` | 1.3.0 | mirrored |  |\n"),
        "{table}"
    );
    assert!(
        table.contains("| fn `peek` | 1.0.0 (deprecated) | differs | not there |\n"),
        "{table}"
    );
    assert!(!report::compared(&table, &surface).failed);

    let of_before = table.replace("a colour", "a coat");
    let report = report::compared(&of_before, &surface);
    assert!(report.failed);
    assert!(
        report
            .text
            .contains("\n-| `Door::paint` |  | added | a coat |\n"),
        "{}",
        report.text
    );
    assert!(
        report
            .text
            .contains("\n+| `Door::paint` |  | added | a colour |\n"),
        "{}",
        report.text
    );
}

#[test]
fn a_table_that_shows_what_is_not_explained_does_not_hold() {
    let surface = compared("read = ['room']");
    let table = table::render(&surface);
    assert!(
        table.contains("| struct `Lamp` | 1.1.0 | blocks | **not explained** |\n"),
        "{table}"
    );
    assert!(report::compared(&table, &surface).failed);
}

#[test]
fn a_table_of_another_std_is_said_not_to_be_checked() {
    let surface = compared("read = ['room']");
    let table = table::render(&surface).replace("1.95.0", "1.94.0");
    let report = report::compared(&table, &surface);
    assert!(!report.failed);
    assert!(
        report
            .text
            .contains("NOT CHECKED: the table is of std 1.94.0"),
        "{}",
        report.text
    );
    assert!(
        report.text.contains("`room::peek` is missing"),
        "{}",
        report.text
    );
}
