//! The pages that rustdoc writes.

use std::path::Path;

use scraper::{ElementRef, Html, Selector};

use crate::item::{Item, Part};
use crate::names::Names;
use crate::signature::Signature;
use crate::standing::Standing;
use crate::text;

/// What a module's page lists.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// `struct`, or `mod`.
    pub(crate) kind: String,
    pub(crate) name: String,
    /// Where its page is, seen from the module's.
    pub(crate) href: String,
    /// What it is and its path, where it is re-exported from a public place: `struct
    /// greenroom::JoinHandle`.
    pub(crate) reexported: Option<String>,
    pub(crate) standing: Standing,
}

/// A page of documentation.
#[derive(Debug)]
pub(crate) struct Page(Html);

impl Page {
    /// The page up to what its item has in common with all others, which is long.
    pub(crate) fn parse(html: &str) -> Self {
        Self::up_to(html, r#"<h2 id="blanket-implementations""#)
    }

    /// The page up to the description of its item, for what is said about the item itself.
    pub(crate) fn parse_head(html: &str) -> Self {
        Self::up_to(html, r#"<details class="toggle top-doc""#)
    }

    fn up_to(html: &str, end: &str) -> Self {
        let end = html.find(end).unwrap_or(html.len());
        Self(Html::parse_document(&html[..end]))
    }

    /// Which version of std, or of greenroom's compiler, it is of.
    pub(crate) fn version(&self) -> Option<String> {
        let meta = self.first(r#"meta[name="rustdoc-vars"]"#)?;
        let version = meta.attr("data-rustdoc-version")?;
        version.split_whitespace().next().map(str::to_owned)
    }

    /// Where its item is defined.
    pub(crate) fn source(&self) -> String {
        self.first(".main-heading a.src")
            .and_then(|link| link.attr("href"))
            .unwrap_or_default()
            .to_owned()
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing::of(self.all(".main-heading, #main-content > .item-info"))
    }

    /// The items of a module.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.all("#main-content > dl.item-table > dt")
            .filter_map(|dt| {
                let link = first(dt, "a[href]:not(.anchor)")?;
                let href = link.attr("href")?.to_owned();
                let kind = link.value().classes().next()?.to_owned();
                let reexport = dt.value().id().and_then(|id| id.strip_prefix("reexport."));
                let name = match reexport {
                    Some(name) => without_number(name).to_owned(),
                    None => name_of_page(&href)?,
                };
                Some(Entry {
                    kind,
                    name,
                    href,
                    reexported: reexport.and(link.attr("title")).map(str::to_owned),
                    standing: Standing::of([dt]),
                })
            })
            .collect()
    }

    /// The item that the page is of.
    pub(crate) fn item(&self, kind: &str, names: &Names) -> Item {
        let declaration = self.first("pre.item-decl").map_or_else(
            || Signature::plain(String::new(), String::new()),
            |pre| Signature::of_item(kind, text::shown(pre, names), &text::qualified(pre, names)),
        );
        let mut parts = Vec::new();
        self.members(kind, names, &mut parts);
        self.implementations(kind, names, &mut parts);
        Item {
            kind: kind.to_owned(),
            declaration,
            parts,
        }
    }

    /// Methods, associated items, variants and fields.
    fn members(&self, kind: &str, names: &Names, parts: &mut Vec<Part>) {
        for block in self.all("#implementations-list > details.implementors-toggle") {
            let Some(head) = first(block, "summary > section.impl") else {
                continue;
            };
            if !standing_of(head).counts() {
                continue;
            }
            let head = qualified_head(head, names);
            for member in all(block, ".impl-items section[id]") {
                parts.extend(member_of(member, &head, names));
            }
        }
        if kind == "trait" {
            let head = self
                .first("pre.item-decl")
                .map(|pre| text::qualified(pre, names))
                .unwrap_or_default();
            let head = head.split('{').next().unwrap_or_default().trim();
            for member in self.all("#main-content > .methods section.method") {
                parts.extend(member_of(member, head, names));
            }
        }
        for part in self.all("#main-content section.variant, #main-content span.structfield") {
            let Some(code) = first(part, "h3.code-header, code") else {
                continue;
            };
            let Some(name) = part.value().id().and_then(|id| id.split_once('.')) else {
                continue;
            };
            parts.push(Part {
                name: name.1.to_owned(),
                key: format!("{} {}", name.0, name.1),
                standing: standing_of(part),
                signature: Signature::plain(text::shown(code, names), text::qualified(code, names)),
                of_trait: None,
            });
        }
    }

    /// Implementations of traits, by the type that the page is of or of the trait that it is of.
    /// Those for every type are not the item's.
    fn implementations(&self, kind: &str, names: &Names, parts: &mut Vec<Part>) {
        let of_a_type = "#trait-implementations-list section.impl, \
                         #synthetic-implementations-list section.impl";
        let of_a_trait = "#main-content section.impl";
        for head in self.all(if kind == "trait" {
            of_a_trait
        } else {
            of_a_type
        }) {
            let Some(header) = first(head, "h3.code-header") else {
                continue;
            };
            let block = head.ancestors().filter_map(ElementRef::wrap).nth(1);
            let types: Vec<_> = block
                .filter(|block| block.value().name() == "details")
                .into_iter()
                .flat_map(|block| all(block, ".impl-items section.associatedtype h4"))
                .collect();
            let shown = text::shown(header, names);
            let with_types = |head: String, types: Vec<String>| match types.as_slice() {
                [] => head,
                types => format!("{head} {{ {} }}", types.join("; ")),
            };
            let (signature, key, of_trait) = Signature::of_implementation(
                with_types(
                    shown.clone(),
                    types.iter().map(|t| text::shown(*t, names)).collect(),
                ),
                &text::qualified(header, names),
                &types
                    .iter()
                    .map(|t| text::qualified(*t, names))
                    .collect::<Vec<_>>(),
            );
            parts.push(Part {
                name: short_name(&shown),
                key,
                standing: standing_of(head),
                signature,
                of_trait,
            });
        }
    }

    fn first(&self, selector: &str) -> Option<ElementRef<'_>> {
        first(self.0.root_element(), selector)
    }

    fn all(&self, selector: &str) -> impl Iterator<Item = ElementRef<'_>> {
        all(self.0.root_element(), selector)
    }
}

fn first<'a>(element: ElementRef<'a>, selector: &str) -> Option<ElementRef<'a>> {
    all(element, selector).next()
}

fn all<'a>(
    element: ElementRef<'a>,
    selector: &str,
) -> impl Iterator<Item = ElementRef<'a>> + use<'a> {
    let selector = Selector::parse(selector).expect("a selector");
    element.select(&selector).collect::<Vec<_>>().into_iter()
}

fn member_of(section: ElementRef<'_>, block: &str, names: &Names) -> Option<Part> {
    let header = first(section, "h4.code-header")?;
    let (_, name) = section.value().id()?.split_once('.')?;
    let name = without_number(name);
    Some(Part {
        name: name.to_owned(),
        key: name.to_owned(),
        standing: standing_of(section),
        signature: Signature::of_member(
            text::shown(header, names),
            &text::qualified(header, names),
            block,
        ),
        of_trait: None,
    })
}

fn qualified_head(section: ElementRef<'_>, names: &Names) -> String {
    first(section, "h3.code-header")
        .map(|head| text::qualified(head, names))
        .unwrap_or_default()
}

/// The badges of a section stand in it or follow it.
fn standing_of(section: ElementRef<'_>) -> Standing {
    let following = section
        .next_siblings()
        .find_map(ElementRef::wrap)
        .filter(|next| next.value().classes().any(|class| class == "item-info"));
    Standing::of([section].into_iter().chain(following))
}

/// `TcpStream` of `struct.TcpStream.html`, `fs` of `fs/index.html`.
fn name_of_page(href: &str) -> Option<String> {
    let path = Path::new(href);
    let file = path.file_name()?.to_str()?;
    if file == "index.html" {
        return Some(path.parent()?.file_name()?.to_str()?.to_owned());
    }
    let (_, name) = file.strip_suffix(".html")?.split_once('.')?;
    Some(name.to_owned())
}

/// rustdoc numbers what would have the same id: `new-1`.
fn without_number(id: &str) -> &str {
    match id.rsplit_once('-') {
        Some((name, number)) if number.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => id,
    }
}

/// `impl<T> !Send for Handle<T> where ..` without its generics, bounds and polarity.
fn short_name(header: &str) -> String {
    let header = header.trim_start_matches("unsafe ");
    let mut rest = header.strip_prefix("impl").unwrap_or(header);
    if rest.starts_with('<') {
        let mut depth = 0;
        let end = rest.char_indices().find_map(|(at, c)| {
            // The arrow of a bound on a function closes nothing.
            depth += match c {
                '<' => 1,
                '>' if !rest[..at].ends_with('-') => -1,
                _ => 0,
            };
            (depth == 0).then_some(at + 1)
        });
        rest = &rest[end.unwrap_or(0)..];
    }
    let rest = rest.split(" where ").next().unwrap_or(rest);
    format!("impl {}", rest.trim_start_matches([' ', '!']).trim_end())
}
