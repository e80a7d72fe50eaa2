//! The exporter in `examples/metrics.rs` speaks the text format of Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serial_test::serial;

use crate::examples::built_example;

/// What the text format says of one family of metrics.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: Vec<Sample>,
}

/// The suffix of the name, the labels, and the value.
type Sample = (String, Vec<(String, String)>, f64);

/// Parses the text format, and is as strict as its description:
/// <https://prometheus.io/docs/instrumenting/exposition_formats/>.
fn parse(text: &str) -> Result<BTreeMap<String, Family>, String> {
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

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
#[serial]
fn the_exporter_writes_the_text_format_of_prometheus() {
    let mut child = Command::new(built_example("metrics"));
    let child = child
        .arg("127.0.0.1:0")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut line = String::new();
    let stdout = child.0.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    let address = line
        .trim()
        .strip_prefix("http://")
        .unwrap()
        .strip_suffix("/metrics")
        .unwrap();
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let length = format!("\r\nContent-Length: {}\r\n", body.len());
        assert!(head.contains(&length), "{head}");
        (head.to_owned(), body.to_owned())
    };
    let (head, body) = ask("/metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("Content-Type: text/plain; version=0.0.4"),
        "{head}"
    );
    let first = parse(&body).unwrap();
    let (_, body) = ask("/metrics");
    let second = parse(&body).unwrap();
    for (name, family) in &first {
        let (before, after) = (family.samples[0].2, second[name].samples[0].2);
        assert!(family.kind != "counter" || before <= after, "{name}");
    }
    let spawned =
        |families: &BTreeMap<String, Family>| families["greenroom_spawned_total"].samples[0].2;
    assert_eq!(
        spawned(&second),
        spawned(&first) + 1.0,
        "a coroutine for each request"
    );
    assert!(ask("/").0.starts_with("HTTP/1.1 404 "));
}

#[test]
fn wrong_texts_are_refused() {
    let right = "# HELP a_total b\n# TYPE a_total counter\na_total 1\n";
    parse(right).unwrap();
    for wrong in [
        "# HELP a_total b\n# TYPE a_total counter\na_total 1",
        "# TYPE a_total counter\na_total 1\n",
        "# HELP a b\n# TYPE a counter\na 1\n",
        "# HELP a b\n# TYPE a gauge\na x\n",
        "# HELP a b\n# TYPE a gauge\na 1\na 2\n",
        "# HELP a b\n# TYPE a gauge\n 1\n",
        "# HELP a b\n# TYPE a gauge\nb 1\n",
        "# HELP a b\n# TYPE a gauge\na{x=1} 1\n",
        "# HELP a b\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 1\na_count 1\n",
        "# HELP a b\n# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 2\n",
    ] {
        assert!(parse(wrong).is_err(), "{wrong}");
    }
}
