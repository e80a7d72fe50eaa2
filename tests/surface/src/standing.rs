//! Whether a program may count on an item, and since when.

use scraper::{ElementRef, Selector};

use crate::{availability, text};

/// What stands beside an item's name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) since: Option<String>,
    pub(crate) deprecated: bool,
    pub(crate) unstable: bool,
    /// For platforms other than Linux alone.
    pub(crate) elsewhere: bool,
}

impl Standing {
    /// What the badges below `elements` say.
    pub(crate) fn of<'a>(elements: impl IntoIterator<Item = ElementRef<'a>>) -> Self {
        let badges = Selector::parse(".stab, .since").expect("a selector");
        let mut standing = Self::default();
        for badge in elements
            .into_iter()
            .flat_map(|e| e.select(&badges).collect::<Vec<_>>())
        {
            let class = |wanted| badge.value().classes().any(|class| class == wanted);
            let text = text::plain(badge);
            if class("since") {
                // "1.7.0 (const: 1.50.0)"
                standing.since = text.split_whitespace().next().map(str::to_owned);
            }
            standing.deprecated |= class("deprecated");
            standing.unstable |= class("unstable");
            standing.elsewhere |= class("portability") && !availability::on_linux(&text);
        }
        standing
    }

    /// Whether a program for Linux that keeps to stable Rust sees it.
    pub(crate) fn counts(&self) -> bool {
        !self.unstable && !self.elsewhere
    }
}
