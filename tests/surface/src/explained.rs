//! What a comparison of documentation cannot know.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

/// The sentences of `explained.toml`.
#[derive(Debug)]
pub(crate) struct Explained {
    /// The modules that are read item by item.
    modules: BTreeSet<String>,
    sections: BTreeMap<Section, BTreeMap<String, String>>,
    used: RefCell<BTreeSet<(Section, String)>>,
}

/// What is said about an item. The file has a table for each.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Section {
    Modules,
    NeverWaits,
    Blocks,
    NotYetMirrored,
    Differs,
    Added,
}

impl Section {
    const ALL: [Self; 6] = [
        Self::Modules,
        Self::NeverWaits,
        Self::Blocks,
        Self::NotYetMirrored,
        Self::Differs,
        Self::Added,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Modules => "modules",
            Self::NeverWaits => "never-waits",
            Self::Blocks => "blocks",
            Self::NotYetMirrored => "not-yet-mirrored",
            Self::Differs => "differs",
            Self::Added => "added",
        }
    }
}

impl Explained {
    pub(crate) fn parse(toml: &str) -> Result<Self, String> {
        let mut file: Table = toml.parse().map_err(|error| format!("{error}"))?;
        let modules = match file.remove("read") {
            Some(Value::Array(modules)) => modules.into_iter().map(sentence).collect(),
            _ => Err("`read` is to be an array of modules".to_owned()),
        }?;
        let mut sections = BTreeMap::new();
        for section in Section::ALL {
            let entries = match file.remove(section.name()) {
                Some(Value::Table(entries)) => entries
                    .into_iter()
                    .map(|(key, why)| Ok((key, sentence(why)?)))
                    .collect::<Result<_, String>>()?,
                None => BTreeMap::new(),
                Some(_) => return Err(format!("`{}` is to be a table", section.name())),
            };
            sections.insert(section, entries);
        }
        match file.keys().next() {
            Some(key) => Err(format!("`{key}` has no meaning")),
            None => Ok(Self {
                modules,
                sections,
                used: RefCell::default(),
            }),
        }
    }

    /// Whether the items of `module` are compared.
    pub(crate) fn reads(&self, module: &str) -> bool {
        self.modules.contains(module)
    }

    pub(crate) fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules.iter().map(String::as_str)
    }

    /// What `section` says about `path`: in an entry of this very name; in `module::*`, for an item of
    /// that module or a member of that item; or, for an implementation, in one with `*` for
    /// anything.
    pub(crate) fn why(&self, section: Section, path: &str) -> Option<&str> {
        let entries = &self.sections[&section];
        let (key, why) = entries.get_key_value(path).or_else(|| {
            if path.contains(": ") {
                let is_of_one = |key: &str| key.contains(": ") && matches(key, path);
                return entries.iter().find(|(key, _)| is_of_one(key));
            }
            let (module, _) = path.rsplit_once("::")?;
            entries.get_key_value(&format!("{module}::*"))
        })?;
        self.used.borrow_mut().insert((section, key.clone()));
        Some(why)
    }

    /// The entries that nothing has asked for.
    pub(crate) fn stale(&self) -> Vec<(Section, &str)> {
        let used = self.used.borrow();
        self.sections
            .iter()
            .flat_map(|(section, entries)| entries.keys().map(|key| (*section, key)))
            .filter(|(section, key)| !used.contains(&(*section, (*key).clone())))
            .map(|(section, key)| (section, key.as_str()))
            .collect()
    }
}

/// Whether `text` is `pattern`, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern == text;
    };
    text.strip_prefix(before).is_some_and(|rest| {
        let mut tails = rest.char_indices().map(|(at, _)| &rest[at..]).chain([""]);
        tails.any(|tail| matches(after, tail))
    })
}

fn sentence(value: Value) -> Result<String, String> {
    match value {
        Value::String(sentence) if !sentence.trim().is_empty() => Ok(sentence),
        other => Err(format!("{other:?} is no sentence")),
    }
}
