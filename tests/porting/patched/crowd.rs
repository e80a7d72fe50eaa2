//! Many clients at once, at slow peers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::alone::on_one_worker;
use crate::gate::{ANSWERS_AFTER, Gate};
use crate::peers::{self, Serve};
use crate::ticker::{TICK, Ticker};
use crate::util::{self, Idlers};

pub(crate) const CLIENTS: usize = 200;

/// A worker that does nothing for so long while the ticker wants to run is blocked: the disk does not take longer.
const BLOCKED: Duration = Duration::from_secs(3);

/// Runs 200 clients on coroutines of one worker. All wait at the same time, and each gets the answer `expected`.
///
/// Returns the OS threads there were meanwhile, by their names, without the peers' and the test's own.
#[track_caller]
pub(crate) fn ask_at_once(
    what: &str,
    serve: Serve,
    ask: impl Fn(SocketAddr, usize) -> Outcome<String> + Sync,
    expected: impl Fn(usize) -> String,
) -> BTreeMap<String, usize> {
    let gate = Arc::new(Gate::new(CLIENTS));
    let address = peers::start(serve, &gate).unwrap();
    let idlers = Idlers::start(TICK);
    let (answers, took, gap) = on_one_worker(|| {
        let ticker = Ticker::start();
        let start = Instant::now();
        let ask = &ask;
        let answers: Vec<Outcome<String>> = greenroom::scope(|s| {
            let asking: Vec<_> = (0..CLIENTS)
                .map(|number| s.spawn(move || ask(address, number)))
                .collect();
            asking.into_iter().map(|one| one.join().unwrap()).collect()
        });
        (answers, start.elapsed(), ticker.largest_gap())
    });
    let of_the_machine = idlers.longest();
    let threads = gate.threads();
    eprintln!(
        "{what}: {CLIENTS} answers, each after {ANSWERS_AFTER:?}, in {took:.1?}; the ticker's largest gap: \
        {gap:.1?}; OS threads besides the worker: {threads:?}"
    );
    for (number, answer) in answers.into_iter().enumerate() {
        assert!(answer.unwrap() == expected(number), "client {number}");
    }
    let mut threads = threads.expect("all clients wait at once");
    assert!(took >= ANSWERS_AFTER, "{took:?}");
    let blocked = gap.saturating_sub(of_the_machine);
    assert!(blocked < BLOCKED, "the worker was blocked for {blocked:?}");
    threads.remove(util::IDLER);
    assert_eq!(threads.remove(peers::NAME), Some(CLIENTS + 1));
    assert_eq!(threads.remove(util::WATCHDOG), Some(1));
    threads
}
