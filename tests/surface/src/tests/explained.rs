use crate::explained::{Explained, Section};

const FILE: &str = r#"
    read = ["room"]
    [never-waits]
    "room::*" = "all of it"
    "room::Lamp" = "a value"
    [differs]
    "room::Door: impl Send for Door<T>" = "it is not"
"#;

#[test]
fn an_entry_of_the_very_name_comes_before_one_of_the_module() {
    let explained = Explained::parse(FILE).unwrap();
    let why = |path| explained.why(Section::NeverWaits, path);
    assert_eq!(why("room::Lamp"), Some("a value"));
    assert_eq!(why("room::Door"), Some("all of it"));
}

#[test]
fn an_entry_of_a_module_is_for_its_items_alone() {
    let explained = Explained::parse(FILE).unwrap();
    for other in [
        "room::inner::Lamp",
        "room::Door: impl a::B for Door",
        "roomy::Lamp",
        "Lamp",
    ] {
        assert_eq!(explained.why(Section::NeverWaits, other), None, "{other}");
    }
    assert_eq!(explained.why(Section::Blocks, "room::Lamp"), None);
}

#[test]
fn an_entry_of_an_implementation_may_be_for_any_item() {
    let file = "read = []\n[added]\n'*: impl From<::std::*> for *' = 'to take one over'";
    let explained = Explained::parse(file).unwrap();
    let why = |path| explained.why(Section::Added, path);
    let path = "net::TcpStream: impl From<::std::net::TcpStream> for TcpStream";
    assert_eq!(why(path), Some("to take one over"));
    assert_eq!(
        why("net::TcpStream: impl From<TcpStream> for ::std::net::TcpStream"),
        None
    );
    assert_eq!(why("net::TcpStream"), None);

    let file =
        "read = []\n[differs]\n'io::Tell: impl Tell for *' = 'for all that has a descriptor'";
    let explained = Explained::parse(file).unwrap();
    let why = |path| explained.why(Section::Differs, path);
    assert!(why("io::Tell: impl Tell for Stdin").is_some());
    assert!(why("io::Told: impl Tell for Stdin").is_none());
}

#[test]
fn what_nothing_asked_for_is_stale() {
    let explained = Explained::parse(FILE).unwrap();
    explained.why(Section::NeverWaits, "room::Door");
    assert_eq!(
        explained.stale(),
        [
            (Section::NeverWaits, "room::Lamp"),
            (Section::Differs, "room::Door: impl Send for Door<T>"),
        ]
    );
}

#[test]
fn what_has_no_meaning_is_an_error() {
    for (file, error) in [
        ("", "`read` is to be"),
        ("read = []\n[never-wiats]", "`never-wiats` has no meaning"),
        ("read = []\n[blocks]\na = ''", "no sentence"),
        ("read = []\n[blocks]\na = 1", "no sentence"),
        ("read = []\nblocks = 'a'", "`blocks` is to be a table"),
    ] {
        let found = Explained::parse(file).unwrap_err();
        assert!(found.contains(error), "{file}: {found}");
    }
}
