//! Documentation on disk, of std and of the shims.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use crate::item::Item;
use crate::names::Names;
use crate::page::{Entry, Page};
use crate::standing::Standing;

/// The pages of a module and of all below it.
#[derive(Debug)]
pub(crate) struct Docs {
    root: PathBuf,
    traits: RefCell<HashMap<String, Standing>>,
}

impl Docs {
    pub(crate) fn at(root: PathBuf) -> Self {
        Self {
            root,
            traits: RefCell::default(),
        }
    }

    /// std's, if the `rust-docs` component is installed.
    pub(crate) fn of_std() -> io::Result<Option<Self>> {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let output = Command::new(rustc).args(["--print", "sysroot"]).output()?;
        let sysroot = String::from_utf8_lossy(&output.stdout);
        let root = Path::new(sysroot.trim()).join("share/doc/rust/html/std");
        Ok(root.join("index.html").exists().then(|| Self::at(root)))
    }

    /// The shims', which are written for that.
    pub(crate) fn of_shims() -> io::Result<Self> {
        let package = repository();
        let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        // One that no other cargo holds the lock of.
        let target = package.join(target).join("surface");
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["doc", "--quiet", "--no-deps", "--package", "greenroom"])
            .arg("--target-dir")
            .arg(&target)
            .current_dir(package)
            .env_remove("RUSTDOCFLAGS")
            .status()?;
        if !status.success() {
            return Err(io::Error::other("cargo doc failed"));
        }
        Ok(Self::at(target.join("doc/greenroom/shims")))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn version(&self) -> io::Result<String> {
        let page = Page::parse_head(&fs::read_to_string(self.root.join("index.html"))?);
        page.version()
            .ok_or_else(|| io::Error::other("no version on the first page"))
    }

    /// What `module`, such as `os::fd`, lists, and where it is defined. None, if there is no such
    /// module.
    pub(crate) fn module(&self, module: &str) -> io::Result<Option<(Vec<Entry>, String)>> {
        let path = self.directory(module).join("index.html");
        if !path.exists() {
            return Ok(None);
        }
        let page = Page::parse(&fs::read_to_string(path)?);
        match page.entries() {
            entries if entries.is_empty() => Err(unreadable(module, "")),
            entries => Ok(Some((entries, page.source()))),
        }
    }

    /// Where an item is defined, and what is said of it.
    pub(crate) fn head(&self, module: &str, entry: &Entry) -> io::Result<(String, Standing)> {
        let page = Page::parse_head(&self.read(module, entry)?);
        Ok((page.source(), page.standing()))
    }

    pub(crate) fn item(&self, module: &str, entry: &Entry, names: &Names) -> io::Result<Item> {
        let item = Page::parse(&self.read(module, entry)?).item(&entry.kind, names);
        if item.declaration.text.is_empty() {
            return Err(unreadable(module, &entry.name));
        }
        Ok(item)
    }

    /// What is said of the trait of this path, if it is one of std's.
    pub(crate) fn of_trait(&self, path: &str) -> Standing {
        let mut traits = self.traits.borrow_mut();
        let read = || {
            let (module, name) = path.strip_prefix("std::")?.rsplit_once("::")?;
            let page = self.directory(module).join(format!("trait.{name}.html"));
            Some(Page::parse_head(&fs::read_to_string(page).ok()?).standing())
        };
        traits
            .entry(path.to_owned())
            .or_insert_with(|| read().unwrap_or_default())
            .clone()
    }

    fn read(&self, module: &str, entry: &Entry) -> io::Result<String> {
        let path = self.directory(module).join(&entry.href);
        fs::read_to_string(&path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    fn directory(&self, module: &str) -> PathBuf {
        self.root.join(module.replace("::", "/"))
    }
}

/// Without this, two pages that nothing was found on would be equal.
fn unreadable(module: &str, name: &str) -> io::Error {
    io::Error::other(format!(
        "nothing found on the page of `{module}::{name}`: does rustdoc write it in another way?"
    ))
}

/// The directory of the package that is documented.
pub(crate) fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
