//! The comparison of the shims with std.

use std::collections::BTreeSet;
use std::io;

use crate::docs::Docs;
use crate::explained::{Explained, Section};
use crate::item::{Item, Part};
use crate::names::Names;
use crate::page::Entry;
use crate::standing::Standing;
use crate::verdict::Judgement;

/// What was found.
#[derive(Debug)]
pub(crate) struct Surface {
    /// Of std.
    pub(crate) version: String,
    pub(crate) modules: Vec<Module>,
    pub(crate) failures: Vec<String>,
}

/// A module of std, by its path in it; the crate's root, which has macros, is "".
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) path: String,
    /// The sentence about one that is not read item by item.
    pub(crate) whole: Option<String>,
    pub(crate) rows: Vec<Row>,
}

/// An item, or a part of one.
#[derive(Debug)]
pub(crate) struct Row {
    /// The kind of an item; empty for a part.
    pub(crate) kind: String,
    pub(crate) path: String,
    pub(crate) standing: Standing,
    pub(crate) judgement: Judgement,
}

/// Judges each public item of `std`.
pub(crate) fn compare(std: &Docs, shims: &Docs, explained: &Explained) -> io::Result<Surface> {
    let mut comparison = Comparison {
        std,
        shims,
        explained,
        std_names: Names::new(std.root().to_owned()),
        shim_names: names_of_shims(std, shims, explained)?,
        modules: Vec::new(),
        failures: Vec::new(),
        begun: BTreeSet::new(),
    };
    comparison.module("")?;
    for begun in &comparison.begun {
        comparison.failures.push(format!(
            "`{begun}` in [{}] is not so of all items: name what is left",
            Section::NotYetMirrored.name()
        ));
    }
    for module in explained.modules() {
        if !comparison.modules.iter().any(|m| m.path == module) {
            comparison.failures.push(format!(
                "`{module}` is to be read, but std has no such module"
            ));
        }
    }
    for (section, key) in explained.stale() {
        comparison.failures.push(format!(
            "`{key}` in [{}] explains nothing: take it out",
            section.name()
        ));
    }
    comparison.modules.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Surface {
        version: std.version()?,
        modules: comparison.modules,
        failures: comparison.failures,
    })
}

/// Reads which items are greenroom's own.
fn names_of_shims(std: &Docs, shims: &Docs, explained: &Explained) -> io::Result<Names> {
    let mut names = Names::new(std.root().to_owned());
    for module in explained.modules() {
        let Some((entries, source)) = shims.module(module)? else {
            continue;
        };
        if !is_own(&source) {
            continue;
        }
        for entry in entries.iter().filter(|entry| entry.kind != "mod") {
            let path = join(module, &entry.name);
            if let Some(title) = &entry.reexported {
                names.alias(title, &path);
            }
            if is_own(&shims.head(module, entry)?.0) {
                names.mirror(&path);
            }
        }
    }
    Ok(names)
}

struct Comparison<'a> {
    std: &'a Docs,
    shims: &'a Docs,
    explained: &'a Explained,
    std_names: Names,
    shim_names: Names,
    modules: Vec<Module>,
    failures: Vec<String>,
    /// What is said of modules as not being mirrored yet, and is not so of an item.
    begun: BTreeSet<String>,
}

impl Comparison<'_> {
    /// Reads a module, and those in it.
    fn module(&mut self, path: &str) -> io::Result<()> {
        let (of_std, _) = self.std.module(path)?.unwrap_or_default();
        let Some((here, _)) = self.shims.module(path)? else {
            self.failures.push(format!("module `{path}` is missing"));
            return Ok(());
        };
        let mut rows = Vec::new();
        for entry in &of_std {
            match entry.kind.as_str() {
                "mod" if entry.standing.counts() => self.submodule(&join(path, &entry.name))?,
                "mod" | "primitive" | "keyword" => {}
                _ => self.item(path, entry, &here, &mut rows)?,
            }
        }
        for entry in &here {
            if !of_std.iter().any(|e| same_name(e, entry)) {
                self.addition(path, entry, &mut rows)?;
            }
        }
        self.modules.push(Module {
            path: path.to_owned(),
            whole: None,
            rows,
        });
        Ok(())
    }

    /// Reads a module item by item, or says in a line why not.
    fn submodule(&mut self, path: &str) -> io::Result<()> {
        if self.explained.reads(path) {
            return self.module(path);
        }
        let own = matches!(self.shims.module(path)?, Some((_, source)) if is_own(&source));
        let whole = match self.explained.why(Section::Modules, path) {
            _ if own => {
                self.failures.push(format!(
                    "module `{path}` is greenroom's own: let it be read"
                ));
                "**not read**"
            }
            Some(why) => why,
            None => {
                self.failures
                    .push(format!("module `{path}` is neither read nor explained"));
                "**not explained**"
            }
        };
        self.modules.push(Module {
            path: path.to_owned(),
            whole: Some(whole.to_owned()),
            rows: Vec::new(),
        });
        Ok(())
    }

    fn item(
        &mut self,
        module: &str,
        entry: &Entry,
        here: &[Entry],
        rows: &mut Vec<Row>,
    ) -> io::Result<()> {
        let (_, standing) = self.std.head(module, entry)?;
        if !standing.counts() {
            return Ok(());
        }
        let path = path_of(module, entry);
        let Some(namesake) = here.iter().find(|e| same_name(e, entry)) else {
            let std = self.std.item(module, entry, &self.std_names)?;
            let text = &std.declaration.text;
            let judgement = Judgement::of_the_missing(&path, text, self.explained);
            self.row(rows, &entry.kind, path, standing, judgement);
            return Ok(());
        };
        if !is_own(&self.shims.head(module, namesake)?.0) {
            let judgement = Judgement::of_stds_own(&path, self.explained);
            self.row(rows, &entry.kind, path, standing, judgement);
            return Ok(());
        }
        let module_left = join(module, "*");
        if self
            .explained
            .why(Section::NotYetMirrored, &module_left)
            .is_some()
        {
            self.begun.insert(module_left);
        }
        let std = self.std.item(module, entry, &self.std_names)?;
        let here = self.shims.item(module, namesake, &self.shim_names)?;
        self.pair(path, standing, std, here, rows);
        Ok(())
    }

    /// Compares an item of std's with greenroom's own.
    fn pair(
        &mut self,
        path: String,
        standing: Standing,
        mut std: Item,
        mut here: Item,
        rows: &mut Vec<Row>,
    ) {
        std.parts.retain(|part| self.counts(part));
        here.parts.retain(|part| self.counts(part));
        let judgement =
            Judgement::of_a_pair(&path, &std.declaration, &here.declaration, self.explained);
        self.row(rows, &std.kind, path.clone(), standing, judgement);
        for part in &std.parts {
            let path = path_of_part(&path, part);
            let judgement = Judgement::of_a_part(&path, part, &here.parts, self.explained);
            self.row(rows, "", path, part.standing.clone(), judgement);
        }
        for part in &here.parts {
            if !std.parts.iter().any(|p| p.key == part.key) {
                let path = path_of_part(&path, part);
                let text = &part.signature.text;
                let judgement = Judgement::of_an_addition(&path, text, self.explained);
                self.row(rows, "", path, Standing::default(), judgement);
            }
        }
    }

    /// Something of greenroom's own that std does not have.
    fn addition(&mut self, module: &str, entry: &Entry, rows: &mut Vec<Row>) -> io::Result<()> {
        if entry.kind == "mod" {
            let path = join(module, &entry.name);
            if !matches!(self.shims.module(&path)?, Some((_, source)) if is_own(&source)) {
                return Ok(());
            }
            let judgement = Judgement::of_an_addition(&path, "pub mod", self.explained);
            self.row(rows, "mod", path, Standing::default(), judgement);
        } else if is_own(&self.shims.head(module, entry)?.0) {
            let item = self.shims.item(module, entry, &self.shim_names)?;
            let path = path_of(module, entry);
            let text = &item.declaration.text;
            let judgement = Judgement::of_an_addition(&path, text, self.explained);
            self.row(rows, &entry.kind, path, Standing::default(), judgement);
        }
        Ok(())
    }

    /// Whether a program can count on `part`. The implementation of an unstable trait says nothing
    /// of that itself.
    fn counts(&self, part: &Part) -> bool {
        let of_trait = part.of_trait.as_ref();
        part.standing.counts()
            && of_trait.is_none_or(|path| {
                // What a destructor does is an item's own business.
                path != "std::ops::Drop" && self.std.of_trait(path).counts()
            })
    }

    fn row(
        &mut self,
        rows: &mut Vec<Row>,
        kind: &str,
        path: String,
        standing: Standing,
        mut judgement: Judgement,
    ) {
        self.failures.extend(judgement.failure.take());
        rows.push(Row {
            kind: kind.to_owned(),
            path,
            standing,
            judgement,
        });
    }
}

/// Whether a page's source is a file of greenroom's.
fn is_own(source: &str) -> bool {
    source.contains("/src/greenroom/")
}

/// A macro may be called as a function is; whatever else has one name is one item.
fn same_name(a: &Entry, b: &Entry) -> bool {
    a.name == b.name && (a.kind == "mod") == (b.kind == "mod") && macro_like(a) == macro_like(b)
}

fn macro_like(entry: &Entry) -> bool {
    entry.kind == "macro"
}

fn path_of(module: &str, entry: &Entry) -> String {
    join(module, &entry.name) + if macro_like(entry) { "!" } else { "" }
}

fn path_of_part(item: &str, part: &Part) -> String {
    if part.is_implementation() {
        format!("{item}: {}", part.name)
    } else {
        format!("{item}::{}", part.name)
    }
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() {
        name.to_owned()
    } else {
        format!("{module}::{name}")
    }
}
