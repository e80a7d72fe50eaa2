//! Tasks that send each other messages.

use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};
use std::time::Instant;

use greenroom::shims::sync::mpsc as shim;
use may::sync::mpsc as may_mpsc;
use std::sync::mpsc as std_mpsc;
use tokio::sync::{mpsc as tokio_mpsc, oneshot};

use crate::peers::{Blocking, Greenroom, May, Peer, Threads, run_tokio};
use crate::stats::median;

const BOUND: usize = 1_024;
const PRODUCERS: usize = 4;
/// Messages of each producer in a batch.
const MESSAGES: u64 = 100_000;
/// The number of batches that are timed. The first batch warms up.
const BATCHES: usize = 6;

/// Producers that send to one consumer through a bounded channel: `[ns per message]`
///
/// On two workers, all producers are on one worker and the consumer is on the other. For tokio,
/// each worker is a current-thread runtime. may and tokio's multi-thread runtime move tasks between
/// workers, so their tasks are sometimes on one worker and sometimes on both.
pub(crate) fn bounded(peer: Peer, workers: usize) -> Vec<f64> {
    vec![match peer {
        Peer::Greenroom => blocking::<Greenroom, _>(workers, || shim::sync_channel(BOUND)),
        Peer::Threads => blocking::<Threads, _>(workers, || std_mpsc::sync_channel(BOUND)),
        Peer::Tokio | Peer::TokioMt => {
            asynchronous(peer, workers, || tokio_mpsc::channel::<u64>(BOUND))
        }
        Peer::May | Peer::Mio => unreachable!("not a peer of this work"),
    }]
}

/// Like [`bounded`], through an unbounded channel: `[ns per message]`
pub(crate) fn unbounded(peer: Peer, workers: usize) -> Vec<f64> {
    vec![match peer {
        Peer::Greenroom => blocking::<Greenroom, _>(workers, shim::channel),
        Peer::May => blocking::<May, _>(workers, may_mpsc::channel),
        Peer::Threads => blocking::<Threads, _>(workers, std_mpsc::channel),
        Peer::Tokio | Peer::TokioMt => {
            asynchronous(peer, workers, tokio_mpsc::unbounded_channel::<u64>)
        }
        Peer::Mio => unreachable!("not a peer of this work"),
    }]
}

/// Two tasks on one worker, and an unbounded channel in each direction: `[ns per round trip]`
pub(crate) fn ping_pong_on_one_worker(peer: Peer) -> Vec<f64> {
    let trips = if peer == Peer::Threads {
        100_000
    } else {
        1_000_000
    };
    vec![match peer {
        Peer::Greenroom => ping_pong::<Greenroom, _>(1, trips, shim::channel),
        Peer::May => ping_pong::<May, _>(1, trips, may_mpsc::channel),
        Peer::Threads => ping_pong::<Threads, _>(1, trips, std_mpsc::channel),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, async move {
            let (ping, pings) = tokio_mpsc::unbounded_channel();
            let (pong, pongs) = tokio_mpsc::unbounded_channel();
            let other = tokio::spawn(answer(pings, pong));
            let elapsed = ask(ping, pongs, trips).await;
            other.await.expect("a task that does not panic");
            elapsed
        }),
        Peer::Mio => unreachable!("not a peer of this work"),
    }]
}

/// Each task on its own worker: `[ns per round trip]`
///
/// Peers that move tasks between workers are left out, as in
/// [`on_two_workers`](crate::ping_pong::on_two_workers).
pub(crate) fn ping_pong_on_two_workers(peer: Peer) -> Vec<f64> {
    let trips = 20_000;
    vec![match peer {
        Peer::Greenroom => ping_pong::<Greenroom, _>(2, trips, shim::channel),
        Peer::Threads => ping_pong::<Threads, _>(2, trips, std_mpsc::channel),
        Peer::Tokio => {
            let (ping, pings) = tokio_mpsc::unbounded_channel();
            let (pong, pongs) = tokio_mpsc::unbounded_channel();
            let other = thread::spawn(move || run_tokio(peer, 1, answer(pings, pong)));
            let elapsed = run_tokio(peer, 1, ask(ping, pongs, trips));
            other.join().expect("a thread that does not panic");
            elapsed
        }
        _ => unreachable!("not a peer of this work"),
    }]
}

/// The sending end of a channel for blocking tasks.
trait Sender: Clone + Send + 'static {
    type Receiver: IntoIterator<Item = u64> + Send + 'static;
    fn send(&self, message: u64);
}

macro_rules! sender {
    ($sender:ty, $receiver:ty) => {
        impl Sender for $sender {
            type Receiver = $receiver;

            #[inline]
            fn send(&self, message: u64) {
                <$sender>::send(self, message).expect("who receives it");
            }
        }
    };
}

sender!(shim::Sender<u64>, shim::Receiver<u64>);
sender!(shim::SyncSender<u64>, shim::Receiver<u64>);
sender!(may_mpsc::Sender<u64>, may_mpsc::Receiver<u64>);
sender!(std_mpsc::Sender<u64>, std_mpsc::Receiver<u64>);
sender!(std_mpsc::SyncSender<u64>, std_mpsc::Receiver<u64>);

/// The number and the sum of the messages received in a batch.
#[derive(Default)]
struct Received {
    count: u64,
    sum: u64,
}

impl Received {
    fn add(&mut self, message: u64) {
        self.count += 1;
        self.sum += message;
    }

    fn check(self) {
        let count = PRODUCERS as u64 * MESSAGES;
        assert_eq!(self.count, count, "a message was lost or doubled");
        assert_eq!(self.sum, count * (MESSAGES - 1) / 2, "not what was sent");
    }
}

/// The median time per message, without the first batch.
fn per_message(nanoseconds: &[f64]) -> f64 {
    median(&nanoseconds[1..]) / (PRODUCERS as u64 * MESSAGES) as f64
}

fn blocking<P: Blocking, S: Sender>(workers: usize, channel: fn() -> (S, S::Receiver)) -> f64 {
    P::run(workers, move || {
        let batches: Vec<_> = (0..BATCHES)
            .map(|_| batch::<P, S>(workers, channel))
            .collect();
        per_message(&batches)
    })
}

fn batch<P: Blocking, S: Sender>(workers: usize, channel: fn() -> (S, S::Receiver)) -> f64 {
    // may runs a task on the worker that wakes the task. If the producers waited for `go`, this
    // worker would wake all of them, and all tasks would be on one worker.
    let at_once = P::PEER == Peer::May;
    let go = Arc::new(AtomicBool::new(at_once));
    let (sender, receiver) = channel();
    let main = P::unparker();
    let produce = |_| {
        let started = Arc::new(OnceLock::new());
        let place = Arc::clone(&started);
        let (sender, go, main) = (sender.clone(), Arc::clone(&go), main.clone());
        let handle = P::spawn(move || {
            let here = (P::unparker(), thread::current().id());
            place.set(here).ok().expect("set once");
            P::unpark(&main);
            while !go.load(Acquire) {
                P::park();
            }
            (0..MESSAGES).for_each(|message| sender.send(message));
        });
        (started, handle)
    };
    let mut start = Instant::now();
    let producers: Vec<_> = (0..PRODUCERS).map(produce).collect();
    drop(sender);
    if !at_once {
        let place = |started: &OnceLock<(P::Unparker, ThreadId)>| {
            loop {
                match started.get() {
                    Some(place) => break place.clone(),
                    None if workers == 1 => P::park(),
                    // Spinning keeps this worker busy, so that the other worker starts the
                    // producers and keeps them.
                    None => std::hint::spin_loop(),
                }
            }
        };
        let places = producers.iter().map(|(started, _)| place(started));
        let places: Vec<_> = places.collect();
        for (_, thread) in &places {
            let share = *thread == thread::current().id();
            assert_eq!(
                share,
                workers == 1 && P::PEER != Peer::Threads,
                "a task is not where it should be"
            );
        }
        start = Instant::now();
        go.store(true, Release);
        places.iter().for_each(|(unparker, _)| P::unpark(unparker));
    }
    let mut received = Received::default();
    for message in receiver {
        received.add(message);
    }
    let elapsed = start.elapsed();
    received.check();
    producers
        .into_iter()
        .for_each(|(_, handle)| P::join(handle));
    elapsed.as_nanos() as f64
}

fn ping_pong<P: Blocking, S: Sender>(
    workers: usize,
    trips: u64,
    channel: fn() -> (S, S::Receiver),
) -> f64 {
    P::run(workers, move || {
        let (ping, pings) = channel();
        let (pong, pongs) = channel();
        let started = Arc::new(OnceLock::new());
        let place = Arc::clone(&started);
        let other = P::spawn(move || {
            place.set(thread::current().id()).expect("set once");
            for message in pings {
                pong.send(message);
            }
        });
        let mut pongs = pongs.into_iter();
        let mut trip = |message| {
            ping.send(message);
            assert_eq!(pongs.next(), Some(message));
        };
        // Spinning keeps this worker busy, so that the other worker starts and keeps `other`.
        while workers > 1 && started.get().is_none() {
            std::hint::spin_loop();
        }
        trip(0);
        assert_eq!(
            started.get() == Some(&thread::current().id()),
            workers == 1 && P::PEER != Peer::Threads,
            "the tasks are not where they should be"
        );
        let mut start = Instant::now();
        for message in 0..trips {
            if message == trips / 10 {
                start = Instant::now();
            }
            trip(message);
        }
        let elapsed = start.elapsed();
        drop(ping);
        P::join(other);
        elapsed.as_nanos() as f64 / (trips - trips / 10) as f64
    })
}

/// The sending end of a channel of tokio.
trait AsyncSender: Clone + Send + Sync + 'static {
    type Receiver: AsyncReceiver;
    fn send(&self, message: u64) -> impl Future<Output = ()> + Send;
}

trait AsyncReceiver: Send + 'static {
    fn recv(&mut self) -> impl Future<Output = Option<u64>> + Send;
}

impl AsyncSender for tokio_mpsc::Sender<u64> {
    type Receiver = tokio_mpsc::Receiver<u64>;

    async fn send(&self, message: u64) {
        let sent = tokio_mpsc::Sender::send(self, message).await;
        sent.expect("who receives it");
    }
}

impl AsyncSender for tokio_mpsc::UnboundedSender<u64> {
    type Receiver = tokio_mpsc::UnboundedReceiver<u64>;

    async fn send(&self, message: u64) {
        tokio_mpsc::UnboundedSender::send(self, message).expect("who receives it");
    }
}

impl AsyncReceiver for tokio_mpsc::Receiver<u64> {
    fn recv(&mut self) -> impl Future<Output = Option<u64>> + Send {
        tokio_mpsc::Receiver::recv(self)
    }
}

impl AsyncReceiver for tokio_mpsc::UnboundedReceiver<u64> {
    fn recv(&mut self) -> impl Future<Output = Option<u64>> + Send {
        tokio_mpsc::UnboundedReceiver::recv(self)
    }
}

fn asynchronous<S: AsyncSender>(
    peer: Peer,
    workers: usize,
    channel: fn() -> (S, S::Receiver),
) -> f64 {
    run_tokio(peer, workers, async move {
        let mut batches = Vec::new();
        for _ in 0..BATCHES {
            batches.push(match peer {
                Peer::Tokio if workers > 1 => two_runtimes(channel).await,
                _ => one_runtime(channel).await,
            });
        }
        per_message(&batches)
    })
}

async fn one_runtime<S: AsyncSender>(channel: fn() -> (S, S::Receiver)) -> f64 {
    let (sender, receiver) = channel();
    let start = Instant::now();
    let producers = tokio::spawn(produce(sender));
    consume(receiver).await;
    let elapsed = start.elapsed();
    producers.await.expect("a task that does not panic");
    elapsed.as_nanos() as f64
}

async fn two_runtimes<S: AsyncSender>(channel: fn() -> (S, S::Receiver)) -> f64 {
    let (sender, receiver) = channel();
    let (ready, is_ready) = oneshot::channel();
    let (go, may_go) = oneshot::channel();
    let producers = thread::spawn(move || {
        run_tokio(Peer::Tokio, 1, async move {
            ready.send(()).expect("who waits for it");
            may_go.await.expect("who lets it go");
            produce(sender).await;
        });
    });
    is_ready.await.expect("a runtime");
    let start = Instant::now();
    go.send(()).expect("who waits for it");
    consume(receiver).await;
    let elapsed = start.elapsed();
    // `join` blocks this thread. The runtime on this thread has nothing else to run.
    producers.join().expect("a thread that does not panic");
    elapsed.as_nanos() as f64
}

async fn produce<S: AsyncSender>(sender: S) {
    let produce = |_| {
        let sender = sender.clone();
        tokio::spawn(async move {
            for message in 0..MESSAGES {
                sender.send(message).await;
            }
        })
    };
    let producers: Vec<_> = (0..PRODUCERS).map(produce).collect();
    drop(sender);
    for producer in producers {
        producer.await.expect("a task that does not panic");
    }
}

async fn consume<R: AsyncReceiver>(mut receiver: R) {
    let mut received = Received::default();
    while let Some(message) = receiver.recv().await {
        received.add(message);
    }
    received.check();
}

async fn answer(
    mut pings: tokio_mpsc::UnboundedReceiver<u64>,
    pong: tokio_mpsc::UnboundedSender<u64>,
) {
    while let Some(message) = pings.recv().await {
        pong.send(message).expect("who receives it");
    }
}

async fn ask(
    ping: tokio_mpsc::UnboundedSender<u64>,
    mut pongs: tokio_mpsc::UnboundedReceiver<u64>,
    trips: u64,
) -> f64 {
    let mut start = Instant::now();
    for message in 0..trips {
        if message == trips / 10 {
            start = Instant::now();
        }
        ping.send(message).expect("who receives it");
        assert_eq!(pongs.recv().await, Some(message));
    }
    start.elapsed().as_nanos() as f64 / (trips - trips / 10) as f64
}
