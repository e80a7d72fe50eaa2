//! What the service tells of itself: metrics, the plot, the log, dumps.

use rustix::process::Signal;

use crate::client::{Client, post, start};
use crate::program::Directory;
use crate::prometheus::{self, Family};
use crate::util::until;

fn sum(family: &Family) -> f64 {
    family.samples.iter().map(|sample| sample.2).sum()
}

fn sample(family: &Family, suffix: &str) -> f64 {
    let mut samples = family.samples.iter();
    samples.find(|sample| sample.0 == suffix).unwrap().2
}

#[test]
fn metrics_are_in_the_format_of_prometheus_and_add_up() {
    let directory = Directory::new();
    let server = start(&directory.join("links"), &[]);
    let mut clients: Vec<_> = (0..5).map(|_| Client::new(&server)).collect();
    for client in &mut clients {
        for _ in 0..4 {
            assert_eq!(client.shorten("https://example.com/").status, 201);
        }
        assert_eq!(client.get("/l/1").status, 302);
        assert_eq!(client.get("/absent").status, 404);
    }
    let answer = clients[0].get("/metrics");
    let content_type = "Content-Type: text/plain; version=0.0.4";
    assert!(answer.head.contains(content_type), "{}", answer.head);
    let families = prometheus::parse(&answer.content).unwrap();
    let requests = &families["service_requests_total"];
    let counts: Vec<_> = requests.samples.iter().map(|sample| sample.2).collect();
    // The request for the metrics is not answered yet.
    assert_eq!(counts, [20.0, 5.0, 5.0, 0.0]);
    let latency = &families["service_request_seconds"];
    assert_eq!(sample(latency, "_count"), sum(requests));
    assert!(sample(latency, "_sum") > 0.0);
    assert_eq!(sum(&families["service_links"]), 20.0);
    assert_eq!(sum(&families["service_connections"]), 5.0);
    assert_eq!(sum(&families["service_connections_total"]), 5.0);
    // Beside the connections: the main coroutine, the acceptor and the ticks of the plot.
    assert_eq!(sum(&families["greenroom_coroutines"]), 8.0);

    let again = prometheus::parse(&clients[0].get("/metrics").content).unwrap();
    for (name, family) in &families {
        if family.kind == "counter" {
            assert!(sum(family) <= sum(&again[name]), "{name}");
        }
    }
    assert_eq!(sum(&again["service_requests_total"]), 31.0);
    clients.truncate(1);
    until("the connections have ended", || {
        let families = prometheus::parse(&clients[0].get("/metrics").content).unwrap();
        sum(&families["service_connections"]) == 1.0
    });
}

#[test]
fn the_plot_is_streamed_to_each_page_from_its_beginning() {
    let directory = Directory::new();
    let server = start(&directory.join("links"), &[]);
    let mut client = Client::new(&server);
    let page = client.get("/");
    assert!(
        page.head.contains("Content-Type: text/html"),
        "{}",
        page.head
    );
    for outside in ["src=", "@import", "url(", "href=\"http", "import("] {
        assert!(!page.content.contains(outside), "{outside}");
    }

    // Of a page that opens later, too, the first point is that of the first second.
    let mut last = Vec::new();
    for opened in 1..=2 {
        let mut page = Client::new(&server);
        page.send("GET /plot HTTP/1.0\r\n\r\n").unwrap();
        let (status, head) = page.head().unwrap().unwrap();
        assert_eq!(status, 200);
        assert!(
            head.contains("Content-Type: text/event-stream\r\n"),
            "{head}"
        );
        let mut points = Vec::new();
        while points.len() <= opened {
            if opened == 1 {
                client.get("/absent");
            }
            let line = page.line().unwrap();
            assert!(!line.is_empty(), "the stream has ended");
            points.extend(line.trim_end().strip_prefix("data: ").map(str::to_owned));
        }
        for point in &points {
            let members = ["{\"connections\":", ",\"rate\":", ",\"p50\":", ",\"p99\":"];
            assert!(
                members.iter().all(|member| point.contains(member)),
                "{point}"
            );
            assert!(point.ends_with('}') && !point.contains("NaN"), "{point}");
        }
        assert!(points.starts_with(&last), "{points:?}, {last:?}");
        last = points;
    }
    assert!(
        last.iter()
            .any(|point| point.contains("\"connections\":2,")),
        "{last:?}"
    );
}

#[test]
fn a_page_that_is_closed_leaves_nothing() {
    let directory = Directory::new();
    let server = start(&directory.join("links"), &[]);
    Client::new(&server).get("/");
    let before = server.open_descriptors();
    for _ in 0..20 {
        let mut page = Client::new(&server);
        page.send("GET /plot HTTP/1.0\r\n\r\n").unwrap();
        assert_eq!(page.head().unwrap().unwrap().0, 200);
    }
    until("all are closed", || server.open_descriptors() <= before);
}

#[test]
fn the_log_names_the_connection_and_the_request() {
    let directory = Directory::new();
    let server = start(&directory.join("links"), &[]);
    let mut clients = [Client::new(&server), Client::new(&server)];
    // Both in the middle of a request at the same time.
    let requests = [post("https://example.com/"), post("no address")];
    for (client, request) in clients.iter_mut().zip(&requests) {
        client.send(&request[..request.len() - 1]).unwrap();
        let waits = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        server.ask(waits.as_bytes());
    }
    for (client, request) in clients.iter_mut().zip(&requests) {
        client.send(&request[request.len() - 1..]).unwrap();
        client.answer().unwrap().unwrap();
    }
    let peers = clients
        .each_ref()
        .map(|client| format!(" peer={}}}", client.address()));
    let lines = [
        (&peers[0], "status=\"201 Created\""),
        (&peers[1], "error=an address begins with"),
        (&peers[1], "status=\"400 Bad Request\""),
    ];
    until("the log has all lines", || {
        let log = server.log();
        lines.iter().all(|(peer, what)| {
            let mut of_what = log.lines().filter(|line| line.contains(what));
            let line = of_what.next();
            let request = "request{method=\"POST\" path=\"/links\"}";
            line.is_some_and(|line| {
                assert!(line.contains(*peer) && line.contains(request), "{line}");
                assert!(of_what.next().is_none(), "{log}");
                true
            })
        })
    });
}

#[test]
fn sigusr1_has_the_service_tell_what_its_handlers_do() {
    let directory = Directory::new();
    let mut server = start(&directory.join("links"), &[]);
    let mut client = Client::new(&server);
    let request = post("https://example.com/");
    client.send(&request[..request.len() - 1]).unwrap();
    let mut other = Client::new(&server);
    // The acceptor, and the handler of the first client.
    let reading = "greenroom_coroutines_parked{reason=\"read\"} 2\n";
    until("the handler waits for the body", || {
        other.get("/metrics").content.contains(reading)
    });
    server.signal(Signal::USR1);
    until("the dump is complete", || {
        server.log().contains("spawned by\n")
    });
    let dump = server.log();
    assert!(
        dump.contains("'connection accept' reads descriptor"),
        "{dump}"
    );
    assert!(dump.contains("'main' waits for descriptors"), "{dump}");
    assert!(dump.contains("'connection' reads descriptor"), "{dump}");
    assert!(dump.contains("service::service::Service::"), "{dump}");
    client.send(&request[request.len() - 1..]).unwrap();
    assert_eq!(client.answer().unwrap().unwrap().status, 201);
    server.assert_alive();
}
