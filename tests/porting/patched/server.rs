//! tiny_http, a server.

use std::thread::sleep;
use std::time::{Duration, Instant};

use tiny_http::{Request, Response, Server};

use crate::alone::{alone, on_one_worker};
use crate::crowd::CLIENTS;
use crate::http::page;
use crate::threads::os_threads;
use crate::ticker::Ticker;

/// The time that a handler takes.
const HANDLED_AFTER: Duration = Duration::from_secs(1);

/// The threads that tiny_http starts for itself, with no name: one that accepts, and one for each connection. When
/// many connections come at once, a thread may get a second one, after its first.
const MOST_OF_TINY_HTTP: usize = 1 + CLIENTS;

fn handle(request: Request) {
    let number = request.url().trim_start_matches('/').parse().unwrap();
    sleep(HANDLED_AFTER);
    request
        .respond(Response::from_string(page(number)))
        .unwrap();
}

#[test]
fn a_coroutine_for_each_request_answers_at_tiny_http() {
    alone(|| {
        let server = Server::http("127.0.0.1:0").unwrap();
        let address = server.server_addr().to_ip().unwrap();
        let (took, gap, threads) = on_one_worker(|| {
            let ticker = Ticker::start();
            let start = Instant::now();
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    greenroom::spawn(move || {
                        let response = minreq::get(format!("http://{address}/{number}")).send();
                        assert!(response.unwrap().as_str().unwrap() == page(number));
                    })
                })
                .collect();
            let handling: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    // It waits for a condition variable of std.
                    let request = server.recv().unwrap();
                    greenroom::spawn(move || handle(request))
                })
                .collect();
            let threads = os_threads();
            greenroom::join_all(clients)
                .into_iter()
                .for_each(Result::unwrap);
            greenroom::join_all(handling)
                .into_iter()
                .for_each(Result::unwrap);
            (start.elapsed(), ticker.largest_gap(), threads)
        });
        eprintln!(
            "tiny_http: {CLIENTS} requests of {HANDLED_AFTER:?} in {took:.1?}; the ticker's largest gap: \
            {gap:.1?}; OS threads besides the worker: {threads:?}"
        );
        let all = HANDLED_AFTER * u32::try_from(CLIENTS).unwrap();
        assert!(took >= HANDLED_AFTER && took < all / 4, "{took:?}");
        let of_tiny_http = threads[""];
        assert!(
            (CLIENTS / 2..=MOST_OF_TINY_HTTP).contains(&of_tiny_http),
            "{threads:?}"
        );
        assert_eq!(threads.len(), 2, "{threads:?}");
        assert_eq!(threads["watchdog"], 1);
    });
}
