//! The regex crate, unchanged, on stacks of the default size.

mod util;

use greenroom::shims::thread;
use regex::{Regex, bytes};

fn compile_and_match() {
    let date = Regex::new(r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})").unwrap();
    let text = "from 2024-02-29 to 2025-03-01".repeat(1000);
    assert_eq!(date.find_iter(&text).count(), 2000);
    let turned = date.replace_all(&text, "$day.$month.$year");
    assert!(turned.starts_with("from 29.02.2024 to 01.03.2025"));

    let words = Regex::new(r"(?i)\b(\p{Greek}+|\p{L}{3,20}|[[:^ascii:]]+)\b").unwrap();
    assert_eq!(words.find("no: ΑΒΓ").unwrap().as_str(), "ΑΒΓ");

    let alternatives: Vec<_> = (0..2000).map(|n| format!("word{n}x*")).collect();
    let any = Regex::new(&alternatives.join("|")).unwrap();
    assert!(any.is_match("a word1999xxx"));

    let bytes = bytes::Regex::new(r"(?-u)\xff(.*?)\x00").unwrap();
    assert_eq!(&bytes.captures(b"\xffbinary\x00").unwrap()[1], b"binary");
}

#[test]
fn regular_expressions_fit_on_default_stacks() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let compiling = [(); 8].map(|()| thread::spawn(compile_and_match));
            for compiles in compiling {
                compiles.join().unwrap();
            }
        });
        util::print_mark(&format!("on {workers} workers"));
    }
    util::assert_default_stacks_had_room();
}

/// A pattern with groups in groups, so many deep.
fn nested(depth: usize) -> String {
    format!("{}a{}", "(?:".repeat(depth), "b?)+".repeat(depth))
}

/// regex compiles them by recursion, as deep as its limit lets it: not optimised, that takes more
/// than a stack of the default size, and less than std gives to a thread.
#[test]
fn the_deepest_regular_expressions_need_stacks_like_those_of_threads() {
    let size = 2 << 20;
    util::on_workers(1, || {
        let compile = || {
            let deepest = Regex::new(&nested(80)).unwrap();
            assert!(deepest.is_match("ab"));
            assert!(Regex::new(&nested(100)).is_err());
        };
        let builder = thread::Builder::new().stack_size(size);
        builder.spawn(compile).unwrap().join().unwrap();
    });
    util::print_mark_of(size, "80 groups deep");
}
