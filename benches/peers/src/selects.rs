//! A task that waits for several channels at once.

use std::task::Poll;
use std::thread;
use std::time::Instant;

use crossbeam_channel as crossbeam;
use greenroom::{Select, channel, select};
use tokio::sync::mpsc;

use crate::peers::{Blocking, Greenroom, Peer, Threads, run_tokio};

/// Two senders, each with a channel with room for one message, and one receiver that waits for both by a
/// `select!`. The senders and the receiver are on one worker: `[ns per message]`
///
/// The threads use crossbeam's channels, since std's have no select.
pub(crate) fn two(peer: Peer) -> Vec<f64> {
    vec![match peer {
        Peer::Greenroom => Greenroom::run(1, || {
            let [a, b] = senders(|count| {
                let (sender, receiver) = channel::bounded(1);
                greenroom::spawn(move || (0..count).try_for_each(|n| sender.send(n)));
                receiver
            });
            per_message(|| {
                select! {
                    recv(a) -> got => got.is_ok(),
                    recv(b) -> got => got.is_ok(),
                }
            })
        }),
        Peer::Threads => Threads::run(1, || {
            let [a, b] = senders(crossbeam_sender);
            per_message(|| {
                crossbeam::select! {
                    recv(a) -> got => got.is_ok(),
                    recv(b) -> got => got.is_ok(),
                }
            })
        }),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, async {
            let [mut a, mut b] = senders(tokio_sender);
            let start = Instant::now();
            for _ in 0..MESSAGES {
                let got = tokio::select! {
                    got = a.recv() => got,
                    got = b.recv() => got,
                };
                assert!(got.is_some());
            }
            start.elapsed().as_nanos() as f64 / MESSAGES as f64
        }),
        Peer::May | Peer::Mio => unreachable!("not a peer of this work"),
    }]
}

/// As [`two`], with 64 senders and channels.
///
/// Tokio's tasks poll all channels in turn: it has no select over a number of them that is not known before.
pub(crate) fn many(peer: Peer) -> Vec<f64> {
    vec![match peer {
        Peer::Greenroom => Greenroom::run(1, || {
            let receivers: [_; MANY] = senders(|count| {
                let (sender, receiver) = channel::bounded(1);
                greenroom::spawn(move || (0..count).try_for_each(|n| sender.send(n)));
                receiver
            });
            let mut select = Select::new();
            for receiver in &receivers {
                select.recv(receiver, |got| got.is_ok());
            }
            per_message(|| select.wait())
        }),
        Peer::Threads => Threads::run(1, || {
            let receivers: [_; MANY] = senders(crossbeam_sender);
            let mut select = crossbeam::Select::new();
            for receiver in &receivers {
                select.recv(receiver);
            }
            per_message(|| {
                let chosen = select.select();
                let receiver = &receivers[chosen.index()];
                chosen.recv(receiver).is_ok()
            })
        }),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, async {
            let mut receivers: [_; MANY] = senders(tokio_sender);
            let start = Instant::now();
            for n in 0..MESSAGES as usize {
                let any = std::future::poll_fn(|context| {
                    let mut all = (0..MANY).map(|step| (n + step) % MANY);
                    let ready = all.find_map(|index| match receivers[index].poll_recv(context) {
                        Poll::Ready(Some(_)) => Some(()),
                        Poll::Ready(None) | Poll::Pending => None,
                    });
                    ready.map_or(Poll::Pending, Poll::Ready)
                });
                any.await;
            }
            start.elapsed().as_nanos() as f64 / MESSAGES as f64
        }),
        Peer::May | Peer::Mio => unreachable!("not a peer of this work"),
    }]
}

const MANY: usize = 64;
/// How many messages the receiver takes. The senders have as many for each of them, so that none ends before.
const MESSAGES: u64 = 100_000;

/// Starts `N` senders of that many messages each, more than the receiver takes in all.
fn senders<R, const N: usize>(start: impl Fn(u64) -> R) -> [R; N] {
    std::array::from_fn(|_| start(MESSAGES + 2))
}

fn crossbeam_sender(count: u64) -> crossbeam::Receiver<u64> {
    let (sender, receiver) = crossbeam::bounded(1);
    // Ends when the receiver is gone.
    thread::spawn(move || (0..count).try_for_each(|n| sender.send(n)));
    receiver
}

fn tokio_sender(count: u64) -> mpsc::Receiver<u64> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        for n in 0..count {
            // The receiver goes first.
            if sender.send(n).await.is_err() {
                break;
            }
        }
    });
    receiver
}

/// The time that each of the messages takes that `receive` receives.
fn per_message(mut receive: impl FnMut() -> bool) -> f64 {
    let start = Instant::now();
    for _ in 0..MESSAGES {
        assert!(receive(), "a message comes");
    }
    start.elapsed().as_nanos() as f64 / MESSAGES as f64
}
