//! What became of an item of std's among the shims.

use std::fmt;

use crate::explained::{Explained, Section};
use crate::item::Part;
use crate::signature::Signature;

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Verdict {
    /// greenroom's own, of the same name and signature.
    Mirrored,
    /// greenroom's own, of another signature; or not there.
    Differs,
    /// std's own, which waits for nothing.
    StdsOwn,
    /// std's own, though it may wait.
    Blocks,
    /// To be mirrored, and std's own, missing or different so far.
    NotYetMirrored,
    /// Something that std does not have.
    Added,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mirrored => "mirrored",
            Self::Differs => "differs",
            Self::StdsOwn => "std's own",
            Self::Blocks => "blocks",
            Self::NotYetMirrored => "not yet mirrored",
            Self::Added => "added",
        })
    }
}

/// A verdict, and what is to be said about it.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) verdict: Verdict,
    /// Why, or how; empty where there is nothing to say.
    pub(crate) how: String,
    /// What is wrong with it, unless it is explained.
    pub(crate) failure: Option<String>,
}

const DIFFERS: [(Section, Verdict); 2] = [
    (Section::Differs, Verdict::Differs),
    (Section::NotYetMirrored, Verdict::NotYetMirrored),
];

impl Judgement {
    fn mirrored() -> Self {
        Self {
            verdict: Verdict::Mirrored,
            how: String::new(),
            failure: None,
        }
    }

    /// The verdict that one of `sections` explains; else the first, as a failure.
    fn of(
        sections: &[(Section, Verdict)],
        path: &str,
        explained: &Explained,
        wrong: impl FnOnce() -> String,
    ) -> Self {
        for &(section, verdict) in sections {
            if let Some(why) = explained.why(section, path) {
                return Self {
                    verdict,
                    how: why.to_owned(),
                    failure: None,
                };
            }
        }
        Self {
            verdict: sections[0].1,
            how: "**not explained**".to_owned(),
            failure: Some(format!("`{path}` {}", wrong())),
        }
    }

    /// Of an item of greenroom's own, or of a part of one.
    pub(crate) fn of_a_pair(
        path: &str,
        std: &Signature,
        here: &Signature,
        explained: &Explained,
    ) -> Self {
        if std == here {
            return Self::mirrored();
        }
        Self::of(&DIFFERS, path, explained, || {
            format!("differs\n  std:  {}\n  here: {}", std.text, here.text)
        })
    }

    /// Of a part of std's, among those of an item of greenroom's own.
    pub(crate) fn of_a_part(path: &str, std: &Part, here: &[Part], explained: &Explained) -> Self {
        let namesakes = || here.iter().filter(|part| part.key == std.key);
        if namesakes().any(|part| part.signature == std.signature) {
            return Self::mirrored();
        }
        match namesakes().next() {
            Some(part) => Self::of_a_pair(path, &std.signature, &part.signature, explained),
            None => Self::of_the_missing(path, &std.signature.text, explained),
        }
    }

    pub(crate) fn of_the_missing(path: &str, text: &str, explained: &Explained) -> Self {
        Self::of(&DIFFERS, path, explained, || {
            format!("is missing\n  std:  {text}")
        })
    }

    /// Of an item that is re-exported.
    pub(crate) fn of_stds_own(path: &str, explained: &Explained) -> Self {
        let sections = [
            (Section::Blocks, Verdict::Blocks),
            (Section::NeverWaits, Verdict::StdsOwn),
            (Section::NotYetMirrored, Verdict::NotYetMirrored),
        ];
        Self::of(&sections, path, explained, || {
            "is std's own, and nothing says whether it waits".to_owned()
        })
    }

    pub(crate) fn of_an_addition(path: &str, text: &str, explained: &Explained) -> Self {
        Self::of(&[(Section::Added, Verdict::Added)], path, explained, || {
            format!("is not std's\n  here: {text}")
        })
    }
}
