//! The paths that items are known by.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Names an item as std does in public, wherever documentation says it is. An item of std's that
/// greenroom has a namesake of is named `::std::..` by greenroom's documentation.
#[derive(Debug)]
pub(crate) struct Names {
    /// std's documentation.
    std: PathBuf,
    /// Paths of greenroom's that are re-exported among the shims.
    aliases: HashMap<String, String>,
    /// The items of std that greenroom has a namesake of, which another path has to be kept apart
    /// from.
    mirrored: HashSet<String>,
}

impl Names {
    pub(crate) fn new(std: PathBuf) -> Self {
        Self {
            std,
            aliases: HashMap::new(),
            mirrored: HashSet::new(),
        }
    }

    /// Makes the item of a link's `title` known as `path` of std.
    pub(crate) fn alias(&mut self, title: &str, path: &str) {
        if let Some((_, from)) = title.split_once(' ') {
            self.aliases.insert(from.to_owned(), format!("std::{path}"));
        }
    }

    /// Has std's item of this `path` be another than the shims' one.
    pub(crate) fn mirror(&mut self, path: &str) {
        self.mirrored.insert(format!("std::{path}"));
    }

    /// The path in the `title` of a link: `struct std::net::TcpStream`. None, if that is of no item
    /// that has a page.
    pub(crate) fn path(&self, title: &str) -> Option<String> {
        let (kind, path) = title.split_once(' ')?;
        if !["struct", "enum", "union", "trait", "type", "fn", "constant"].contains(&kind) {
            return None;
        }
        if let Some(path) = self.aliases.get(path) {
            return Some(path.clone());
        }
        if let Some(path) = path.strip_prefix("greenroom::shims::") {
            return Some(self.public(kind, path));
        }
        let of_std = ["std::", "core::", "alloc::"];
        let Some(path) = of_std.iter().find_map(|root| path.strip_prefix(root)) else {
            return Some(path.to_owned());
        };
        let path = self.public(kind, path);
        Some(if self.mirrored.contains(&path) {
            format!("::{path}")
        } else {
            path
        })
    }

    /// Documentation of another crate may give the private path that an item is defined at:
    /// `net::tcp::TcpStream`. There std's has a page that redirects to the public one, or, for what
    /// core defines, none.
    fn public(&self, kind: &str, path: &str) -> String {
        let mut parts: Vec<_> = path.split("::").collect();
        let name = parts.pop().unwrap_or_default();
        while !parts.is_empty() {
            let page = self
                .std
                .join(parts.join("/"))
                .join(format!("{kind}.{name}.html"));
            if let Ok(metadata) = page.metadata() {
                let module = (metadata.len() < 1024).then(|| redirected(&page)).flatten();
                let module = module.unwrap_or_else(|| format!("std::{}", parts.join("::")));
                return format!("{module}::{name}");
            }
            parts.pop();
        }
        format!("std::{path}")
    }
}

/// The module that the page at `path` redirects to:
/// `<meta http-equiv="refresh" content="0;URL=../../../std/net/struct.TcpStream.html">`
fn redirected(path: &Path) -> Option<String> {
    let page = fs::read_to_string(path).ok()?;
    let (_, url) = page.split_once("URL=")?;
    let (url, _) = url.split_once('"')?;
    let (module, _) = url.trim_start_matches("../").rsplit_once('/')?;
    Some(module.replace('/', "::"))
}
