//! The names of frames.
//!
//! std resolves the addresses of a backtrace when that is displayed, and has no other interface for it. So the
//! display is read: in its long form, each line of a frame has the address.
#![forbid(unsafe_code)]

use std::backtrace::Backtrace;
use std::collections::HashMap;

/// A function that a frame is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub(crate) name: String,
    /// The file, line and column, if they are known.
    pub(crate) at: Option<String>,
}

/// Symbols by the address of their frame. A frame has several if functions are inlined into each other, innermost
/// first.
#[derive(Debug, Default)]
pub(crate) struct Symbols(HashMap<usize, Vec<Symbol>>);

/// How the names of functions begin that are at the root of each coroutine. What calls the closure is not among them:
/// the closure may be inlined there.
const ROOT: [&str; 12] = [
    // See `perf_map`: the frame by which perf knows the coroutine.
    "<unknown>",
    "stack_init_trampoline",
    "corosensei::",
    "greenroom::coroutine::",
    "greenroom::runtime::Runtime::run",
    "greenroom::task::",
    "greenroom::worker::",
    "__rust_try",
    "std::panic::",
    "std::panicking::",
    "core::panic::",
    "<core::panic::",
];

impl Symbols {
    /// Resolves the addresses of a backtrace. This takes milliseconds, and for the first time more.
    pub(crate) fn resolve(&mut self, backtrace: &Backtrace) {
        self.read(&format!("{backtrace:#}"));
    }

    pub(crate) fn of(&self, address: usize) -> &[Symbol] {
        self.0.get(&address).map_or(&[], Vec::as_slice)
    }

    /// The frames without those at the coroutine's root.
    pub(crate) fn without_root<'a>(&self, mut frames: &'a [usize]) -> &'a [usize] {
        while let [rest @ .., last] = frames {
            let symbols = self.of(*last);
            let of_root = |name: &str| ROOT.iter().any(|start| name.starts_with(start));
            if symbols.is_empty() || !symbols.iter().all(|symbol| of_root(&symbol.name)) {
                break;
            }
            frames = rest;
        }
        frames
    }

    fn read(&mut self, text: &str) {
        let mut found: HashMap<usize, Vec<Symbol>> = HashMap::new();
        let mut last = None;
        for line in text.lines().map(str::trim) {
            if let (Some(at), Some(address)) = (line.strip_prefix("at "), last) {
                let symbol = found.get_mut(&address).and_then(|of| of.last_mut());
                if let Some(symbol) = symbol {
                    symbol.at = Some(at.into());
                }
            } else if let Some((address, name)) = frame(line) {
                last = Some(address);
                found.entry(address).or_default().push(Symbol {
                    name: name.into(),
                    at: None,
                });
            }
        }
        // A recursive function is there several times, and known after the first.
        for (address, mut symbols) in found {
            let again = |symbol: &Symbol| *symbol == symbols[0];
            if let Some(period) = symbols[1..].iter().position(again) {
                symbols.truncate(period + 1);
            }
            self.0.entry(address).or_insert(symbols);
        }
    }
}

/// The address and the name in a line like `3:     0x55d0c0ffee - name::of::function::h0123456789abcdef`.
fn frame(line: &str) -> Option<(usize, &str)> {
    let (number, rest) = line.split_once(':')?;
    number.parse::<u32>().ok()?;
    let (address, name) = rest.trim_start().split_once(" - ")?;
    let address = usize::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
    Some((address, without_hash(name)))
}

/// The name of a function without the hash that tells instances apart.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((name, hash))
            if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            name
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_read_with_their_places_and_those_inlined() {
        let text = "   0:     0x1000 - a::inner::h0123456789abcdef
                               at /src/a.rs:3:5
   1:     0x1000 - a::outer
                               at /src/a.rs:9:1
   2:     0x2000 - <unknown>
   3:     0x1000 - a::inner::h0123456789abcdef
                               at /src/a.rs:3:5
   4:     0x1000 - a::outer
                               at /src/a.rs:9:1
";
        let mut symbols = Symbols::default();
        symbols.read(text);
        let symbol = |name: &str, at: &str| Symbol {
            name: name.into(),
            at: Some(at.into()),
        };
        assert_eq!(
            symbols.of(0x1000),
            [
                symbol("a::inner", "/src/a.rs:3:5"),
                symbol("a::outer", "/src/a.rs:9:1")
            ]
        );
        assert_eq!(symbols.of(0x2000)[0].name, "<unknown>");
        assert_eq!(symbols.of(0x3000), []);
    }

    #[test]
    fn std_displays_a_backtrace_in_the_form_that_is_read() {
        let mut symbols = Symbols::default();
        symbols.resolve(&Backtrace::force_capture());
        let here = "std_displays_a_backtrace_in_the_form_that_is_read";
        let all = symbols.0.values().flatten();
        let found: Vec<_> = all.filter(|symbol| symbol.name.contains(here)).collect();
        assert!(!found.is_empty());
        let is_here = |at: &String| at.contains("symbols.rs");
        let has_place = found
            .iter()
            .any(|symbol| symbol.at.as_ref().is_some_and(is_here));
        // An optimised build has no line numbers.
        assert!(has_place || cfg!(not(debug_assertions)));
    }
}
