//! What documentation says of the platforms that have an item.

/// Whether 64-bit Linux is among those that `note` names: `Available on Linux or FreeBSD only.`, or
/// as lists of items have it, `Linux or FreeBSD`.
pub(crate) fn on_linux(note: &str) -> bool {
    let note = note.trim().trim_end_matches('.');
    let note = note.strip_prefix("Available on ").unwrap_or(note);
    let note = note.strip_suffix(" only").unwrap_or(note);
    let spaced = note.replace('(', " ( ").replace(')', " ) ");
    Words(spaced.split_whitespace().collect::<Vec<_>>().as_slice()).any()
}

/// What is left to read.
struct Words<'a>(&'a [&'a str]);

impl<'a> Words<'a> {
    /// `A or B and C`, up to a closing parenthesis.
    fn any(&mut self) -> bool {
        let mut holds = self.all();
        while self.take("or") {
            holds |= self.all();
        }
        holds
    }

    /// `A and B`, or `neither A nor B`.
    fn all(&mut self) -> bool {
        if self.take("neither") {
            let mut holds = self.one();
            while self.take("nor") {
                holds |= self.one();
            }
            return !holds;
        }
        let mut holds = self.one();
        while self.take("and") {
            holds &= self.one();
        }
        holds
    }

    /// `A`, `non-A` or what stands in parentheses. A name may be of several words.
    fn one(&mut self) -> bool {
        if self.take("(") {
            let holds = self.any();
            self.take(")");
            return holds;
        }
        let mut name = Vec::new();
        while let Some(word) = self.next_of_a_name() {
            name.push(word);
        }
        let name = name.join(" ").to_lowercase();
        match name.strip_prefix("non-") {
            Some(name) => !is_linux(name),
            None => is_linux(&name),
        }
    }

    fn take(&mut self, wanted: &str) -> bool {
        let found = self.0.first() == Some(&wanted);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn next_of_a_name(&mut self) -> Option<&'a str> {
        let (&word, rest) = self.0.split_first()?;
        if ["or", "and", "nor", "(", ")"].contains(&word) {
            return None;
        }
        self.0 = rest;
        Some(word)
    }
}

fn is_linux(name: &str) -> bool {
    matches!(name, "linux" | "unix" | "64-bit" | "panic=unwind")
        || ["8", "16", "32", "64", "ptr"].iter().any(|width| {
            name.strip_prefix("target_has_atomic")
                .and_then(|rest| rest.split_once('='))
                .is_some_and(|(_, w)| w == *width)
        })
}
