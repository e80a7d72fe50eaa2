//! The exporter in `examples/metrics.rs` speaks the text format of Prometheus.

#[path = "../util/prometheus.rs"]
mod prometheus;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serial_test::serial;

use crate::examples::built_example;
use prometheus::{Family, parse};

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
