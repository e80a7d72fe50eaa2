//! A reader of the text format of Prometheus.

use std::collections::{BTreeMap, BTreeSet};

/// What the text format says of one family of metrics.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) samples: Vec<Sample>,
}

/// The suffix of the name, the labels, and the value.
pub(crate) type Sample = (String, Vec<(String, String)>, f64);

/// Parses the text format, and is as strict as its description:
/// <https://prometheus.io/docs/instrumenting/exposition_formats/>.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, Family>, String> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut helped = BTreeSet::new();
    let mut current = String::new();
    if !text.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    for line in text.lines() {
        if line != line.trim() || line.is_empty() {
            return Err(format!("spaces around {line:?}"));
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or("no text")?;
            if help.is_empty() || !helped.insert(name.to_owned()) {
                return Err(format!("a second HELP, or none: {line}"));
            }
            check_name(name)?;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or("no type")?;
            check_name(name)?;
            if !["counter", "gauge", "histogram"].contains(&kind) || !helped.contains(name) {
                return Err(line.to_owned());
            }
            let kind = kind.to_owned();
            let family = Family {
                kind,
                ..Family::default()
            };
            if families.insert(name.to_owned(), family).is_some() {
                return Err(format!("a second TYPE of {name}"));
            }
            current = name.to_owned();
        } else if line.starts_with('#') {
            return Err(format!("a comment: {line}"));
        } else {
            let (series, value) = line.rsplit_once(' ').ok_or("no value")?;
            let (name, labels) = match series.split_once('{') {
                None => (series, Vec::new()),
                Some((name, rest)) => (name, parse_labels(rest)?),
            };
            check_name(name)?;
            let suffix = name
                .strip_prefix(&current)
                .ok_or("a sample of another family")?;
            let family = families
                .get_mut(&current)
                .ok_or("a sample before its TYPE")?;
            let allowed: &[&str] = match family.kind.as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            let value = value.parse().map_err(|_| format!("a value: {line}"))?;
            if !allowed.contains(&suffix) {
                return Err(format!("{line} in a {}", family.kind));
            }
            let sample = (suffix.to_owned(), labels, value);
            if family
                .samples
                .iter()
                .any(|other| (&other.0, &other.1) == (&sample.0, &sample.1))
            {
                return Err(format!("twice: {line}"));
            }
            family.samples.push(sample);
        }
    }
    for (name, family) in &families {
        check_family(name, family)?;
    }
    Ok(families)
}

fn check_name(name: &str) -> Result<(), String> {
    let is_first = |c: char| c.is_ascii_alphabetic() || "_:".contains(c);
    let is_other = |c: char| is_first(c) || c.is_ascii_digit();
    match name.starts_with(is_first) && name.chars().all(is_other) {
        true => Ok(()),
        false => Err(format!("a name: {name}")),
    }
}

fn parse_labels(text: &str) -> Result<Vec<(String, String)>, String> {
    let inside = text.strip_suffix('}').ok_or("no brace")?;
    let labels = inside.split(',').map(|label| {
        let (name, value) = label.split_once('=').ok_or("no value of a label")?;
        let value = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'));
        let value = value.ok_or("no quotes")?;
        check_name(name)?;
        match value.contains(['"', '\\', '\n']) {
            true => Err(format!("an escape, which is not expected: {label}")),
            false => Ok((name.to_owned(), value.to_owned())),
        }
    });
    labels.collect()
}

fn check_family(name: &str, family: &Family) -> Result<(), String> {
    let is_counter = family.kind == "counter";
    if is_counter != name.ends_with("_total") || family.samples.is_empty() {
        return Err(format!("{name} is a {}", family.kind));
    }
    if family.samples.iter().any(|(_, _, value)| *value < 0.0) {
        return Err(format!("{name} is negative"));
    }
    if family.kind != "histogram" {
        return Ok(());
    }
    let buckets: Vec<_> = family
        .samples
        .iter()
        .filter(|sample| sample.0 == "_bucket")
        .collect();
    let bounds = buckets.iter().map(|(_, labels, _)| match &labels[..] {
        [(name, bound)] if name == "le" => bound.parse().ok(),
        _ => None,
    });
    let bounds: Option<Vec<f64>> = bounds.collect();
    let bounds = bounds.ok_or("buckets have one label, le")?;
    let counts: Vec<f64> = buckets.iter().map(|bucket| bucket.2).collect();
    let single = |suffix: &str| {
        let mut of = family.samples.iter().filter(|sample| sample.0 == suffix);
        of.next()
            .map(|sample| sample.2)
            .ok_or(format!("no {suffix}"))
    };
    single("_sum")?;
    let is_right = bounds.is_sorted()
        && counts.is_sorted()
        && bounds.last() == Some(&f64::INFINITY)
        && counts.last() == Some(&single("_count")?);
    if is_right {
        Ok(())
    } else {
        Err(format!("the buckets of {name}"))
    }
}
