//! The works, by name.

use std::time::Duration;

use crate::interrupts::{self, Message};
use crate::load::Load;
use crate::peers::Peer;
use crate::program::Program;
use crate::sleeps::Naps;
use crate::{
    channels, files, foreign_wakes, idle, locks, ping_pong, selects, sleeps, spawns, yields,
};

pub(crate) struct Work {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// The names of a round's figures, in order.
    pub(crate) figures: &'static [&'static str],
    pub(crate) peers: &'static [Peer],
    /// The number of tasks at once. Only compared with the peers' limits ([`Peer::capped`]), so 1
    /// stands for any number within all limits.
    pub(crate) tasks: usize,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    /// One process does the work and returns the figures.
    Alone(fn(Peer) -> Vec<f64>),
    /// A server does the work, under this load from a client.
    Tcp(Load),
    /// An ordinary program does the work.
    Program(Program),
}

const RUNTIMES: &[Peer] = &[
    Peer::Greenroom,
    Peer::Tokio,
    Peer::TokioMt,
    Peer::May,
    Peer::Threads,
];

/// may has no bounded channels.
const WITH_BOUNDED_CHANNELS: &[Peer] =
    &[Peer::Greenroom, Peer::Tokio, Peer::TokioMt, Peer::Threads];

/// The figures of a round of [`locks::mutex`].
const MUTEX_FIGURES: &[&str] = &["ns per lock and unlock", "ns per hand-over to another task"];

/// The other peers have timeouts of single operations, not of a piece of code.
const WITH_TIMEOUTS: &[Peer] = &[Peer::Greenroom, Peer::Tokio, Peer::TokioMt];

/// The figures of a round of [`interrupts::timeout`].
const TIMEOUT_FIGURES: &[&str] = &[
    "ns that the timeout costs",
    "ns to send and receive a message, in a timeout",
];

/// The figures of a round of an [`echo`] work.
const TCP_FIGURES: &[&str] = &[
    "server CPU, ns per message",
    "of it in user space, ns (by ticks: coarse)",
    "messages per second (more is better)",
    "round trip, p99, µs",
];

const fn alone(
    name: &'static str,
    about: &'static str,
    figures: &'static [&'static str],
    run: fn(Peer) -> Vec<f64>,
) -> Work {
    Work {
        name,
        about,
        figures,
        peers: RUNTIMES,
        tasks: 1,
        kind: Kind::Alone(run),
    }
}

const fn program(
    name: &'static str,
    about: &'static str,
    peers: &'static [Peer],
    program: Program,
) -> Work {
    Work {
        name,
        about,
        figures: &["wall, ms", "CPU, ms", "RSS, MiB", "OS threads"],
        peers,
        tasks: 1,
        kind: Kind::Program(program),
    }
}

const fn echo(
    name: &'static str,
    about: &'static str,
    connections: usize,
    size: usize,
    messages: usize,
) -> Work {
    Work {
        name,
        about,
        figures: TCP_FIGURES,
        peers: &Peer::ALL,
        tasks: connections,
        kind: Kind::Tcp(Load {
            connections,
            size,
            requests: 0,
            messages,
            once: false,
            proxied: false,
        }),
    }
}

const fn http(name: &'static str, about: &'static str, requests: usize, messages: usize) -> Work {
    Work {
        name,
        about,
        figures: &[
            "server CPU, ns per request",
            "of it in user space, ns (by ticks: coarse)",
            "requests per second (more is better)",
            "round trip, p99, µs",
        ],
        peers: &[
            Peer::Greenroom,
            Peer::Tokio,
            Peer::TokioMt,
            Peer::May,
            Peer::Mio,
        ],
        tasks: 64,
        kind: Kind::Tcp(Load {
            connections: 64,
            size: 0,
            requests,
            messages,
            once: false,
            proxied: false,
        }),
    }
}

/// An [`echo`] through a proxy, whose CPU time is measured.
const fn proxied(echo: Work) -> Work {
    let Kind::Tcp(load) = echo.kind else {
        panic!("not an echo")
    };
    Work {
        peers: RUNTIMES,
        kind: Kind::Tcp(Load {
            proxied: true,
            ..load
        }),
        ..echo
    }
}

pub(crate) const WORKS: &[Work] = &[
    alone(
        "yield-2",
        "2 tasks that yield to each other, 1 worker",
        &["ns per yield"],
        |peer| yields::run(peer, 2),
    ),
    Work {
        tasks: 10_000,
        ..alone(
            "yield-10000",
            "10,000 tasks that yield in turn, 1 worker",
            &["ns per yield"],
            |peer| yields::run(peer, 10_000),
        )
    },
    alone(
        "spawn-join",
        "spawn and join, one after another",
        &["ns each"],
        spawns::one_by_one,
    ),
    Work {
        tasks: 10_000,
        ..alone(
            "spawn-10000",
            "spawn 10,000, then join all",
            &["ns each, the first time", "ns each, later"],
            |peer| spawns::at_once(peer, 10_000),
        )
    },
    alone(
        "ping-pong-1",
        "2 tasks that unpark each other by turns, 1 worker",
        &["ns per round trip"],
        ping_pong::on_one_worker,
    ),
    Work {
        peers: &[Peer::Greenroom, Peer::Tokio, Peer::Threads],
        ..alone(
            "ping-pong-2",
            "the same on 2 workers; tokio: two current-thread runtimes",
            &["ns per round trip"],
            ping_pong::on_two_workers,
        )
    },
    alone(
        "foreign-wakes",
        "a task that a thread outside of the runtime unparks, 1 worker, asleep",
        &["median, µs", "p99, µs"],
        foreign_wakes::run,
    ),
    alone(
        "mutex-100",
        "100 tasks, one lock, which each holds over a yield, 1 worker",
        MUTEX_FIGURES,
        |peer| locks::mutex(peer, 100),
    ),
    Work {
        tasks: 10_000,
        ..alone(
            "mutex-10000",
            "the same with 10,000 tasks",
            MUTEX_FIGURES,
            |peer| locks::mutex(peer, 10_000),
        )
    },
    alone(
        "barrier-10",
        "10 tasks that meet at a barrier, 1 worker",
        &["ns per wait"],
        |peer| locks::barrier(peer, 10),
    ),
    Work {
        peers: &[Peer::Greenroom, Peer::May, Peer::Threads],
        ..alone(
            "condvar-ping-pong",
            "2 tasks that take turns at a condition variable, 1 worker",
            &["ns per round trip"],
            locks::condvar_ping_pong,
        )
    },
    Work {
        peers: WITH_BOUNDED_CHANNELS,
        ..alone(
            "mpsc-bounded-4",
            "4 tasks that send to one by a channel for 1,024, 1 worker",
            &["ns per message"],
            |peer| channels::bounded(peer, 1),
        )
    },
    Work {
        peers: WITH_BOUNDED_CHANNELS,
        ..alone(
            "mpsc-bounded-4-2",
            "the same on 2 workers; tokio: two current-thread runtimes",
            &["ns per message"],
            |peer| channels::bounded(peer, 2),
        )
    },
    alone(
        "mpsc-unbounded-4",
        "4 tasks that send to one by a channel without a bound, 1 worker",
        &["ns per message"],
        |peer| channels::unbounded(peer, 1),
    ),
    alone(
        "mpsc-unbounded-4-2",
        "the same on 2 workers; tokio: two current-thread runtimes",
        &["ns per message"],
        |peer| channels::unbounded(peer, 2),
    ),
    alone(
        "ping-pong-channels",
        "2 tasks that send each other a message by turns, 1 worker",
        &["ns per round trip"],
        channels::ping_pong_on_one_worker,
    ),
    Work {
        peers: &[Peer::Greenroom, Peer::Tokio, Peer::Threads],
        ..alone(
            "ping-pong-channels-2",
            "the same on 2 workers; tokio: two current-thread runtimes",
            &["ns per round trip"],
            channels::ping_pong_on_two_workers,
        )
    },
    Work {
        peers: WITH_BOUNDED_CHANNELS,
        ..alone(
            "select-2",
            "a task that receives from 2 channels, whichever has a message, 1 worker; threads: crossbeam",
            &["ns per message"],
            selects::two,
        )
    },
    Work {
        peers: WITH_BOUNDED_CHANNELS,
        ..alone(
            "select-64",
            "the same with 64 channels",
            &["ns per message"],
            selects::many,
        )
    },
    Work {
        peers: WITH_TIMEOUTS,
        ..alone(
            "timeout-ready",
            "a timeout around receiving a message that is there, 1 worker",
            TIMEOUT_FIGURES,
            |peer| interrupts::timeout(peer, Message::IsThere),
        )
    },
    Work {
        peers: WITH_TIMEOUTS,
        ..alone(
            "timeout-parks",
            "a timeout around receiving a message that another task is asked for, 1 worker",
            TIMEOUT_FIGURES,
            |peer| interrupts::timeout(peer, Message::IsWaitedFor),
        )
    },
    Work {
        peers: &[Peer::Greenroom, Peer::Tokio, Peer::TokioMt, Peer::May],
        tasks: 10_000,
        ..alone(
            "cancel-10000",
            "10,000 tasks, each waiting for a message, are cancelled and joined, 1 worker",
            &[
                "CPU ns each",
                "CPU ns each, if they are woken instead",
                "the first to the second",
            ],
            |peer| interrupts::cancel(peer, 10_000),
        )
    },
    Work {
        tasks: 10_000,
        ..alone(
            "sleeps",
            "10,000 tasks, a random sleep of 0 to 2 s each",
            &["CPU µs per timer", "lateness, p99, µs"],
            |peer| {
                let naps = Naps {
                    tasks: 10_000,
                    each: 1,
                    longest: Duration::from_secs(2),
                };
                sleeps::many(peer, &naps)
            },
        )
    },
    alone(
        "sleeps-again",
        "500 tasks, 20 random sleeps of 0 to 200 ms each",
        &["CPU µs per timer", "lateness, p99, µs"],
        |peer| {
            let naps = Naps {
                tasks: 500,
                each: 20,
                longest: Duration::from_millis(200),
            };
            sleeps::many(peer, &naps)
        },
    ),
    alone(
        "sleep-1ms",
        "one task that sleeps for 1 ms again and again",
        &["overshoot, median, µs"],
        |peer| sleeps::one(peer, Duration::from_millis(1)),
    ),
    alone(
        "sleep-100us",
        "one task that sleeps for 100 µs again and again",
        &["overshoot, median, µs"],
        |peer| sleeps::one(peer, Duration::from_micros(100)),
    ),
    Work {
        tasks: 10_000,
        ..alone(
            "idle-10000",
            "10,000 parked tasks",
            &["bytes of RSS per task"],
            |peer| idle::run(peer, 10_000),
        )
    },
    Work {
        tasks: 100_000,
        ..alone(
            "idle-100000",
            "100,000 parked tasks",
            &["bytes of RSS per task"],
            |peer| idle::run(peer, 100_000),
        )
    },
    Work {
        peers: &[Peer::Greenroom, Peer::Tokio, Peer::TokioMt, Peer::Threads],
        ..alone(
            "files",
            "a small file that is in memory, 1 worker",
            &[
                "ns per write of 32 bytes",
                "ns per stat",
                "ns per open, read of 1 KiB and close",
            ],
            files::run,
        )
    },
    echo("echo-1-64", "TCP echo, 1 connection, 64 B", 1, 64, 20_000),
    echo("echo-64-64", "64 connections, 64 B", 64, 64, 100_000),
    echo(
        "echo-1000-64",
        "1,000 connections, 64 B",
        1_000,
        64,
        100_000,
    ),
    echo("echo-1-16384", "1 connection, 16 KiB", 1, 16_384, 20_000),
    echo(
        "echo-64-16384",
        "64 connections, 16 KiB",
        64,
        16_384,
        50_000,
    ),
    echo(
        "echo-1000-16384",
        "1,000 connections, 16 KiB",
        1_000,
        16_384,
        50_000,
    ),
    Work {
        name: "short",
        about: "short connections: accept, one message of 64 B, close; 64 at once",
        figures: &[
            "server CPU, ns per connection",
            "of it in user space, ns (by ticks: coarse)",
            "connections per second (more is better)",
            "connect to close, p99, µs",
        ],
        peers: &Peer::ALL,
        tasks: 64,
        kind: Kind::Tcp(Load {
            connections: 64,
            size: 64,
            requests: 0,
            messages: 10_000,
            once: true,
            proxied: false,
        }),
    },
    http(
        "http-keep-alive",
        "HTTP: a short text, 64 connections; greenroom has the server of the examples, tokio hyper, may \
         may_minihttp",
        1,
        100_000,
    ),
    http(
        "http-pipelined",
        "the same, 16 requests at once",
        16,
        50_000,
    ),
    proxied(echo(
        "proxy-64-64",
        "a proxy before a TCP echo, 64 connections, 64 B",
        64,
        64,
        50_000,
    )),
    proxied(echo(
        "proxy-16-65536",
        "16 connections, 64 KiB",
        16,
        65_536,
        10_000,
    )),
    proxied(echo(
        "proxy-4-16777216",
        "4 connections, 16 MiB",
        4,
        16 << 20,
        60,
    )),
    program(
        "program-serve",
        "an unmodified program serves 10,000 connections, a thread each, and 160,000 messages of 64 B",
        &[Peer::Greenroom, Peer::TokioMt, Peer::Threads],
        Program::Serve(Load {
            connections: 10_000,
            size: 64,
            requests: 0,
            messages: 100_000,
            once: false,
            proxied: false,
        }),
    ),
    program(
        "program-gets",
        "it gets a page that takes 100 ms in 1,000 threads at once, by ureq; 1 worker",
        &[Peer::Greenroom, Peer::Threads],
        Program::Run(&["gets", "{url}", "1000"]),
    ),
    program(
        "clients-gets",
        "a page that takes 100 ms, 1,000 times at once: ureq under the patch, 1 worker; tokio has \
         reqwest, tokio-mt ureq in spawn_blocking, may a request by hand",
        &[
            Peer::Greenroom,
            Peer::Tokio,
            Peer::TokioMt,
            Peer::May,
            Peer::Threads,
        ],
        Program::Clients(&["gets", "{peer}", "{url}", "1000"]),
    ),
    program(
        "clients-queries",
        "50 connections to PostgreSQL with 200 queries each: libpq under the patch, 1 worker, and in \
         threads; tokio has tokio-postgres",
        &[Peer::Greenroom, Peer::Tokio, Peer::Threads],
        Program::Clients(&["queries", "{peer}", "{database}", "50", "200"]),
    ),
    program(
        "program-sleeps",
        "it sleeps for 100 ms in 10,000 threads at once",
        &[Peer::Greenroom, Peer::TokioMt, Peer::Threads],
        Program::Run(&["sleeps", "10000", "100"]),
    ),
    program(
        "program-compute",
        "it computes on all CPUs, by rayon",
        &[Peer::Greenroom, Peer::Threads],
        Program::Run(&["compute", "10000000"]),
    ),
];

pub(crate) fn by_name(name: &str) -> Option<&'static Work> {
    WORKS.iter().find(|work| work.name == name)
}
