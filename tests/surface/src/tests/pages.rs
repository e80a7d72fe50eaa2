use super::{fixture, small_std};
use crate::docs::Docs;
use crate::item::{Item, Part};
use crate::names::Names;

fn door() -> Item {
    let std = small_std();
    let (entries, _) = std.module("room").unwrap().unwrap();
    let entry = entries.iter().find(|e| e.name == "Door").unwrap();
    std.item("room", entry, &Names::new(fixture("std")))
        .unwrap()
}

fn part<'a>(item: &'a Item, name: &str) -> &'a Part {
    let named: Vec<_> = item.parts.iter().filter(|p| p.name == name).collect();
    assert_eq!(named.len(), 1, "{name} in {:?}", item.parts);
    named[0]
}

#[test]
fn a_module_lists_its_items_with_what_is_said_of_them() {
    let (entries, source) = small_std().module("room").unwrap().unwrap();
    let counting: Vec<_> = entries
        .iter()
        .filter(|e| e.standing.counts())
        .map(|e| format!("{} {}", e.kind, e.name))
        .collect();
    assert_eq!(
        counting,
        ["struct Door", "struct Lamp", "fn enter", "fn peek"]
    );
    let said = |name: &str| {
        let entry = entries.iter().find(|e| e.name == name).unwrap();
        (
            entry.standing.unstable,
            entry.standing.elsewhere,
            entry.standing.deprecated,
        )
    };
    assert_eq!(said("Clock"), (true, false, false));
    assert_eq!(said("Blind"), (false, true, false));
    assert_eq!(said("peek"), (false, false, true));
    assert_eq!(source, "../../src/std/room/mod.rs.html#1-9");
}

#[test]
fn a_module_that_is_not_there_is_none() {
    assert!(small_std().module("loft").unwrap().is_none());
}

#[test]
fn a_page_that_nothing_is_found_on_is_an_error() {
    let changed = Docs::at(fixture("changed"));
    let error = changed.module("").unwrap_err().to_string();
    assert!(error.contains("nothing found"), "{error}");

    let (entries, _) = small_std().module("room").unwrap().unwrap();
    let door = entries.iter().find(|e| e.name == "Door").unwrap();
    let names = Names::new(fixture("std"));
    let error = changed.item("", door, &names).unwrap_err().to_string();
    assert!(error.contains("nothing found"), "{error}");
}

#[test]
fn a_reexport_is_known_by_its_name_and_title() {
    let shims = Docs::at(fixture("shims"));
    let (entries, _) = shims.module("room").unwrap().unwrap();
    let door = entries.iter().find(|e| e.name == "Door").unwrap();
    assert_eq!(door.reexported.as_deref(), Some("struct greenroom::Door"));
    let (source, _) = shims.head("room", door).unwrap();
    assert_eq!(source, "../src/greenroom/door.rs.html#7");
}

#[test]
fn a_page_says_since_when_and_that_it_is_unstable_or_deprecated() {
    let door = door();
    assert_eq!(part(&door, "open").standing.since.as_deref(), Some("1.3.0"));
    assert_eq!(part(&door, "new").standing.since.as_deref(), Some("1.2.0"));
    assert!(part(&door, "slam").standing.unstable);
    assert!(!part(&door, "slam").standing.counts());
    assert!(part(&door, "oil").standing.deprecated);
    assert!(part(&door, "oil").standing.counts());
    assert!(part(&door, "bar").standing.elsewhere);
    assert!(
        part(&door, "latch").standing.counts(),
        "it is there on Linux"
    );
    assert!(part(&door, "impl AsLatch for Door<T>").standing.elsewhere);

    let std = small_std();
    let (entries, _) = std.module("room").unwrap().unwrap();
    let head = |name: &str| {
        let entry = entries.iter().find(|e| e.name == name).unwrap();
        std.head("room", entry).unwrap().1
    };
    assert_eq!(head("Door").since.as_deref(), Some("1.2.0"));
    assert!(!head("Door").unstable, "what is unstable in it is not it");
    assert!(head("Clock").unstable);
    assert!(head("Blind").elsewhere);
    assert!(head("peek").deprecated);
}

#[test]
fn a_page_gives_each_part_of_its_item_and_nothing_else() {
    let door = door();
    let names: Vec<_> = door.parts.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "new",
            "open",
            "slam",
            "oil",
            "bar",
            "latch",
            "WIDTH",
            "impl Iterator for Door<T>",
            "impl Squeak for Door<T>",
            "impl AsLatch for Door<T>",
            "impl Send for Door<T>",
            "impl UnwindSafe for Door<T>",
        ]
    );
}

#[test]
fn a_signature_is_shown_on_one_line_without_what_is_not_its_own() {
    let door = door();
    assert_eq!(
        part(&door, "open").signature.text,
        "pub fn open<'a, F>(&'a self, by: F) -> Way<'a, T> where F: FnOnce() -> T + Send,"
    );
    assert_eq!(door.declaration.text, "pub struct Door<T: ?Sized> { }");
    assert_eq!(
        part(&door, "impl Iterator for Door<T>").signature.text,
        "impl<T> Iterator for Door<T> { type Item = T }"
    );
    assert_eq!(
        part(&door, "impl UnwindSafe for Door<T>").signature.text,
        "impl<T> !UnwindSafe for Door<T>"
    );
}

#[test]
fn an_implementation_names_its_trait() {
    let door = door();
    let of_trait = |name| part(&door, name).of_trait.clone();
    assert_eq!(
        of_trait("impl Iterator for Door<T>").as_deref(),
        Some("std::iter::Iterator")
    );
    let squeak = of_trait("impl Squeak for Door<T>").unwrap();
    assert!(small_std().of_trait(&squeak).unstable);
    assert!(small_std().of_trait("std::iter::Iterator").counts());
}

#[test]
fn the_first_page_says_the_version() {
    assert_eq!(small_std().version().unwrap(), "1.95.0");
}

#[test]
fn an_item_goes_by_its_public_path() {
    let mut names = Names::new(fixture("std"));
    let path = |names: &Names, title: &str| names.path(title).unwrap();
    assert_eq!(path(&names, "struct std::room::Door"), "std::room::Door");
    assert_eq!(
        path(&names, "struct std::room::door::Door"),
        "std::room::Door",
        "its page redirects"
    );
    assert_eq!(
        path(&names, "struct core::room::lamp::Lamp"),
        "std::room::Lamp",
        "it has no page"
    );
    assert_eq!(
        path(&names, "struct greenroom::shims::room::Lamp"),
        "std::room::Lamp"
    );
    assert_eq!(path(&names, "struct greenroom::Door"), "greenroom::Door");
    assert_eq!(names.path("method std::room::Door::open"), None);

    names.alias("struct greenroom::Door", "room::Door");
    names.mirror("room::Door");
    assert_eq!(path(&names, "struct greenroom::Door"), "std::room::Door");
    assert_eq!(
        path(&names, "struct std::room::door::Door"),
        "::std::room::Door",
        "std's is another"
    );
}
