//! Timeouts around waits, and tasks that are cancelled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use greenroom::shims::sync::mpsc as shim;
use may::sync::mpsc as may_mpsc;
use tokio::sync::{mpsc as tokio_mpsc, oneshot};

use crate::peers::{Blocking, Greenroom, May, Peer, run_tokio};
use crate::stats::median;
use crate::usage::Usage;

/// A limit that no wait reaches.
const LIMIT: Duration = Duration::from_secs(60);
/// Receptions in a batch.
const MESSAGES: u64 = 20_000;
/// The number of batches with a timeout, and of those without. The first of each warms up.
const BATCHES: usize = 21;

/// Whether the message has come before the receiver asks for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    IsThere,
    IsWaitedFor,
}

/// A timeout around each reception of a message: `[ns more than without a timeout, ns with it]`
pub(crate) fn timeout(peer: Peer, message: Message) -> Vec<f64> {
    match peer {
        Peer::Greenroom => Greenroom::run(1, move || receive(message)),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, receive_async(message)),
        _ => unreachable!("not a peer of this work"),
    }
}

/// The batches without and with a timeout, which alternate.
#[derive(Default)]
struct Batches {
    without: Vec<f64>,
    with: Vec<f64>,
}

impl Batches {
    fn are_complete(&self) -> bool {
        self.with.len() == BATCHES
    }

    /// Whether the next batch is one with a timeout.
    fn next_has_timeout(&self) -> bool {
        self.with.len() < self.without.len()
    }

    fn add(&mut self, elapsed: Duration) {
        let column = match self.next_has_timeout() {
            true => &mut self.with,
            false => &mut self.without,
        };
        column.push(elapsed.as_nanos() as f64 / MESSAGES as f64);
    }

    fn figures(&self) -> Vec<f64> {
        let with = median(&self.with[1..]);
        vec![with - median(&self.without[1..]), with]
    }
}

fn receive(message: Message) -> Vec<f64> {
    let (ask, asked) = shim::channel::<u64>();
    let (answer, answers) = shim::channel::<u64>();
    let answer_here = answer.clone();
    let other = Greenroom::spawn(move || asked.iter().for_each(|number| send(&answer, number)));

    let mut batches = Batches::default();
    while !batches.are_complete() {
        let in_timeout = batches.next_has_timeout();
        let start = Instant::now();
        for number in 0..MESSAGES {
            match message {
                Message::IsThere => send(&answer_here, number),
                Message::IsWaitedFor => send(&ask, number),
            }
            let received = match in_timeout {
                true => greenroom::timeout(LIMIT, || answers.recv()).expect("in time"),
                false => answers.recv(),
            };
            assert_eq!(received, Ok(number));
        }
        batches.add(start.elapsed());
    }
    drop(ask);
    Greenroom::join(other);
    batches.figures()
}

#[inline]
fn send(sender: &shim::Sender<u64>, number: u64) {
    sender.send(number).expect("the receiver is there");
}

async fn receive_async(message: Message) -> Vec<f64> {
    let (ask, mut asked) = tokio_mpsc::unbounded_channel::<u64>();
    let (answer, mut answers) = tokio_mpsc::unbounded_channel::<u64>();
    let answer_here = answer.clone();
    let other = tokio::spawn(async move {
        while let Some(number) = asked.recv().await {
            answer.send(number).expect("the receiver is there");
        }
    });

    let mut batches = Batches::default();
    while !batches.are_complete() {
        let in_timeout = batches.next_has_timeout();
        let start = Instant::now();
        for number in 0..MESSAGES {
            let sent = match message {
                Message::IsThere => answer_here.send(number),
                Message::IsWaitedFor => ask.send(number),
            };
            sent.expect("the receiver is there");
            let received = match in_timeout {
                true => {
                    let received = tokio::time::timeout(LIMIT, answers.recv()).await;
                    received.expect("in time")
                }
                false => answers.recv().await,
            };
            assert_eq!(received, Some(number));
        }
        batches.add(start.elapsed());
    }
    drop(ask);
    other.await.expect("a task that does not panic");
    batches.figures()
}

/// How the waits of the tasks end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Each gets the message that it waits for.
    Woken,
    Cancelled,
}

/// The number of waves of tasks that are woken, and of those that are cancelled. The first of each
/// warms up.
const WAVES: usize = 6;

/// `tasks` tasks that wait for a message each, until all are cancelled and joined: `[CPU ns per
/// task, the same if they are woken instead, the ratio of the two]`
pub(crate) fn cancel(peer: Peer, tasks: usize) -> Vec<f64> {
    let waves = |wave: &dyn Fn(End) -> f64| {
        let (mut woken, mut cancelled) = (Vec::new(), Vec::new());
        for _ in 0..WAVES {
            woken.push(wave(End::Woken));
            cancelled.push(wave(End::Cancelled));
        }
        figures(&woken, &cancelled)
    };
    match peer {
        Peer::Greenroom => Greenroom::run(1, move || waves(&|end| wave::<Greenroom>(tasks, end))),
        Peer::May => May::run(1, move || waves(&|end| wave::<May>(tasks, end))),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, async move {
            let (mut woken, mut cancelled) = (Vec::new(), Vec::new());
            for _ in 0..WAVES {
                woken.push(wave_async(tasks, End::Woken).await);
                cancelled.push(wave_async(tasks, End::Cancelled).await);
            }
            figures(&woken, &cancelled)
        }),
        _ => unreachable!("not a peer of this work"),
    }
}

fn figures(woken: &[f64], cancelled: &[f64]) -> Vec<f64> {
    let (woken, cancelled) = (median(&woken[1..]), median(&cancelled[1..]));
    vec![cancelled, woken, cancelled / woken]
}

/// The interrupts of a peer with blocking tasks.
trait Interrupts: Blocking {
    type Sender: Send + 'static;
    type Receiver: Send + 'static;
    fn channel() -> (Self::Sender, Self::Receiver);
    fn send(sender: &Self::Sender);
    fn receive(receiver: &Self::Receiver);

    fn cancel(handle: &Self::Handle<()>);
    /// Returns whether the task was cancelled.
    fn join_or_cancelled(handle: Self::Handle<()>) -> bool;
}

impl Interrupts for Greenroom {
    type Sender = shim::Sender<()>;
    type Receiver = shim::Receiver<()>;

    fn channel() -> (Self::Sender, Self::Receiver) {
        shim::channel()
    }

    fn send(sender: &Self::Sender) {
        sender.send(()).expect("the receiver is there");
    }

    #[inline]
    fn receive(receiver: &Self::Receiver) {
        receiver.recv().expect("a message");
    }

    fn cancel(handle: &Self::Handle<()>) {
        handle.cancel();
    }

    fn join_or_cancelled(handle: Self::Handle<()>) -> bool {
        handle
            .join()
            .is_err_and(|why| why.is::<greenroom::Cancelled>())
    }
}

impl Interrupts for May {
    type Sender = may_mpsc::Sender<()>;
    type Receiver = may_mpsc::Receiver<()>;

    fn channel() -> (Self::Sender, Self::Receiver) {
        may_mpsc::channel()
    }

    fn send(sender: &Self::Sender) {
        sender.send(()).expect("the receiver is there");
    }

    #[inline]
    fn receive(receiver: &Self::Receiver) {
        receiver.recv().expect("a message");
    }

    fn cancel(handle: &Self::Handle<()>) {
        // SAFETY: `cancel` requires that the task tolerates an unwind out of its wait. The tasks of
        // `wave` hold nothing but a channel.
        unsafe { handle.coroutine().cancel() };
    }

    fn join_or_cancelled(handle: Self::Handle<()>) -> bool {
        handle.join().is_err()
    }
}

/// How long the tasks that started last get to wait for their messages.
const SETTLE: Duration = Duration::from_millis(20);

fn wave<P: Interrupts>(tasks: usize, end: End) -> f64 {
    let started = Arc::new(AtomicUsize::new(0));
    let spawn = |_| {
        let started = Arc::clone(&started);
        let (sender, receiver) = P::channel();
        let handle = P::spawn(move || {
            started.fetch_add(1, Relaxed);
            P::receive(&receiver);
        });
        (sender, handle)
    };
    let (senders, handles): (Vec<_>, Vec<_>) = (0..tasks).map(spawn).unzip();
    while started.load(Relaxed) < tasks {
        P::sleep(SETTLE);
    }
    P::sleep(SETTLE);

    let start = Usage::own();
    match end {
        End::Woken => senders.iter().for_each(P::send),
        End::Cancelled => handles.iter().for_each(P::cancel),
    }
    let cancelled = handles.into_iter().map(P::join_or_cancelled);
    let cancelled = cancelled.filter(|&cancelled| cancelled).count();
    let used = Usage::own() - start;
    check(tasks, end, cancelled);
    used.total() / tasks as f64
}

async fn wave_async(tasks: usize, end: End) -> f64 {
    let started = Arc::new(AtomicUsize::new(0));
    let spawn = |_| {
        let started = Arc::clone(&started);
        let (sender, receiver) = oneshot::channel::<()>();
        let handle = tokio::spawn(async move {
            started.fetch_add(1, Relaxed);
            receiver.await.expect("a message");
        });
        (sender, handle)
    };
    let (senders, handles): (Vec<_>, Vec<_>) = (0..tasks).map(spawn).unzip();
    while started.load(Relaxed) < tasks {
        tokio::time::sleep(SETTLE).await;
    }
    tokio::time::sleep(SETTLE).await;

    let start = Usage::own();
    // The senders live as long as those of the other peers, unless they are used up.
    let mut unused = Vec::new();
    match end {
        End::Woken => {
            for sender in senders {
                sender.send(()).expect("the receiver is there");
            }
        }
        End::Cancelled => {
            handles.iter().for_each(tokio::task::JoinHandle::abort);
            unused = senders;
        }
    }
    let mut cancelled = 0;
    for handle in handles {
        cancelled += usize::from(handle.await.is_err_and(|why| why.is_cancelled()));
    }
    let used = Usage::own() - start;
    drop(unused);
    check(tasks, end, cancelled);
    used.total() / tasks as f64
}

fn check(tasks: usize, end: End, cancelled: usize) {
    let expected = match end {
        End::Woken => 0,
        End::Cancelled => tasks,
    };
    assert_eq!(cancelled, expected, "not the end that they were to have");
}
