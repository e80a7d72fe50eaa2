//! The text of a documented declaration.

use scraper::{ElementRef, Node};

use crate::names::Names;

/// As a reader sees it, on one line.
pub(crate) fn plain(element: ElementRef<'_>) -> String {
    collect(element, &|_| None)
}

/// As [`plain`], but for the full paths of items that greenroom has a namesake of.
pub(crate) fn shown(element: ElementRef<'_>, names: &Names) -> String {
    collect(element, &|link| {
        linked(link, names).filter(|path| path.starts_with("::"))
    })
}

/// As [`plain`], with the full path of each item that is linked.
pub(crate) fn qualified(element: ElementRef<'_>, names: &Names) -> String {
    collect(element, &|link| linked(link, names))
}

/// What stands for a link.
type Link<'a> = &'a dyn Fn(ElementRef<'_>) -> Option<String>;

fn collect(element: ElementRef<'_>, link: Link<'_>) -> String {
    let mut text = String::new();
    append(&mut text, element, link);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn append(text: &mut String, element: ElementRef<'_>, link: Link<'_>) {
    for child in element.children() {
        if let Node::Text(words) = child.value() {
            text.push_str(words);
        }
        let Some(child) = ElementRef::wrap(child) else {
            continue;
        };
        let class = |wanted| child.value().classes().any(|class| class == wanted);
        match child.value().name() {
            "a" if class("anchor") || class("src") || class("tooltip") => {}
            "span" if class("comment") || class("item-info") => {}
            "a" => match link(child) {
                Some(path) => text.push_str(&path),
                None => append(text, child, link),
            },
            "div" | "br" => {
                text.push(' ');
                append(text, child, link);
                text.push(' ');
            }
            _ => append(text, child, link),
        }
    }
}

/// The path of the item that `link` leads to, if its text is the item's name.
fn linked(link: ElementRef<'_>, names: &Names) -> Option<String> {
    let path = names.path(link.attr("title")?)?;
    (path.rsplit("::").next() == Some(plain(link).as_str())).then_some(path)
}
