//! Waiting for the first of several things: `park/several.rs`, with arms that receive and send.

use std::sync::Arc as Live;
use std::sync::mpsc::RecvError;

use super::channel::{Receiver, RecvArm, SendArm, Sender, channel};
use super::park::Canceller;
use super::several::{Arm, Arms, Patience, wait_for_one};
use super::task::Deadline;
use super::word::Kind;
use super::{Model, large, small};
use crate::check::thread;

pub(super) const MODELS: &[Model] = &[
    small("choosing: two channels against two senders", 2, || {
        two_senders(1, 1)
    }),
    small("choosing: two rendezvous against two senders", 2, || {
        two_senders(0, 1)
    }),
    large("choosing: two channels against many messages", || {
        two_senders(1, 4);
    }),
    large("choosing: two rendezvous against many messages", || {
        two_senders(0, 4);
    }),
    small(
        "choosing: a message against the end of the other channel",
        2,
        || end(usize::MAX),
    ),
    small(
        "choosing: a rendezvous against the end of the other one",
        2,
        || end(0),
    ),
    small("choosing: a deadline against a message", 2, || {
        deadline(usize::MAX)
    }),
    small("choosing: a deadline against a rendezvous", 2, || {
        deadline(0)
    }),
    small("choosing: a cancellation against a message", 2, || {
        cancellation(usize::MAX)
    }),
    small("choosing: a cancellation against a rendezvous", 2, || {
        cancellation(0)
    }),
    small("choosing: room in one of two channels", 2, || {
        room(1, false)
    }),
    small("choosing: a receiver at one of two rendezvous", 2, || {
        room(0, false)
    }),
    large(
        "choosing: a cancellation against room in one of two",
        || {
            room(1, true);
        },
    ),
    large(
        "choosing: a cancellation against a receiver at one of two",
        || room(0, true),
    ),
    small(
        "choosing: to send and to receive against the same",
        2,
        || facing(1),
    ),
    large(
        "choosing: to send and to receive against the same, often",
        || {
            facing(4);
        },
    ),
    large("choosing: at one rendezvous, both ends", || same_channel(3)),
    large("choosing: selects and plain operations", mixed),
];

/// Two arms, and how long to wait for them.
struct Two<'a>([Option<&'a dyn Arm>; 2], Option<Deadline>);

impl Arms for Two<'_> {
    fn len(&self) -> usize {
        2
    }

    fn arm(&self, index: usize) -> Option<&dyn Arm> {
        self.0[index]
    }

    fn patience(&self) -> Patience {
        Patience::Until(Kind::Peer, self.1)
    }
}

/// Waits for one of two arms. `start` says which is tried first.
fn wait_for_either(two: &Two<'_>, start: usize) -> Option<usize> {
    wait_for_one(two, &mut [0, 1], |left| start % left)
}

/// Waits for a message of either channel. Returns which it was, and the message; `None` after the deadline.
fn recv_either<T>(
    receivers: [&Receiver<T>; 2],
    deadline: Option<Deadline>,
    start: usize,
) -> Option<(usize, Result<T, RecvError>)> {
    let arms = receivers.map(RecvArm::new);
    let chosen = wait_for_either(&Two([Some(&arms[0]), Some(&arms[1])], deadline), start);
    let results = arms.each_ref().map(RecvArm::take);
    let count = results.iter().flatten().count();
    assert_eq!(count, usize::from(chosen.is_some()), "one arm is completed");
    let chosen = chosen?;
    let [a, b] = results;
    Some((chosen, [a, b].into_iter().nth(chosen)??))
}

/// A sender for each of two channels sends `count` messages. A receiver waits for both. Each comes once, in
/// order.
fn two_senders(capacity: usize, count: usize) {
    let (a, b) = (channel(capacity), channel(capacity));
    let senders = [a.0, b.0]
        .map(|sender| thread::spawn(move || (0..count).for_each(|n| sender.send(n).unwrap())));
    let mut next = [0; 2];
    let mut start = 0;
    while next[0] < count || next[1] < count {
        // A channel that has ended is not waited for.
        let (from, got) = match next {
            [n, _] if n == count => (1, b.1.recv(|| None).map_err(|_| RecvError)),
            [_, n] if n == count => (0, a.1.recv(|| None).map_err(|_| RecvError)),
            _ => recv_either([&a.1, &b.1], None, start).unwrap(),
        };
        assert_eq!(got, Ok(next[from]));
        next[from] += 1;
        start += 3;
    }
    for sender in senders {
        sender.join().unwrap();
    }
}

/// One channel ends, and the other gets a message. The waiter finds the message, or the end and then the
/// message.
fn end(capacity: usize) {
    let (a, b) = (channel::<usize>(capacity), channel(capacity));
    let ends = thread::spawn(move || drop(a.0));
    let sends = thread::spawn(move || b.0.send(7).unwrap());
    let got = match recv_either([&a.1, &b.1], None, 0).unwrap() {
        (0, ended) => {
            assert_eq!(ended, Err(RecvError));
            b.1.recv(|| None).unwrap()
        }
        (_, got) => got.unwrap(),
    };
    assert_eq!(got, 7);
    ends.join().unwrap();
    sends.join().unwrap();
}

/// A message that comes after the deadline is received by the next call.
fn deadline(capacity: usize) {
    let (a, b) = (channel::<usize>(capacity), channel(capacity));
    let sends = thread::spawn(move || b.0.send(7).unwrap());
    let got = match recv_either([&a.1, &b.1], Some(Deadline::Later), 0) {
        Some((1, got)) => got.unwrap(),
        Some(_) => unreachable!("nobody has sent to the other"),
        None => b.1.recv(|| None).unwrap(),
    };
    assert_eq!(got, 7);
    sends.join().unwrap();
    drop(a.0);
}

/// A message that comes after the cancellation is received by the next call.
fn cancellation(capacity: usize) {
    let (a, b) = (channel::<usize>(capacity), channel(capacity));
    let canceller = Canceller::new();
    let sends = thread::spawn(move || b.0.send(7).unwrap());
    let cancels = thread::spawn({
        let canceller = canceller.clone();
        move || canceller.cancel()
    });
    let got = match canceller.catch(|| recv_either([&a.1, &b.1], None, 0)) {
        Some(Some((1, got))) => got.unwrap(),
        Some(_) => unreachable!("nobody has sent to the other"),
        None => b.1.recv(|| None).unwrap(),
    };
    assert_eq!(got, 7);
    sends.join().unwrap();
    cancels.join().unwrap();
    drop(a.0);
}

/// Waits for room in either channel. The message is sent to one of them, or stays; also if the wait is cancelled.
fn room(capacity: usize, cancel: bool) {
    let live = Live::new(());
    let (a, b) = (channel(capacity), channel(capacity));
    if capacity > 0 {
        a.0.send(Live::clone(&live)).unwrap();
        b.0.send(Live::clone(&live)).unwrap();
    }
    // Each receiver takes what was there, and one more, if there is one.
    let receivers = [a.1, b.1].map(|receiver| {
        thread::spawn(move || {
            let mut count = 0;
            while receiver.recv(|| None).is_ok() {
                count += 1;
            }
            count
        })
    });
    let canceller = Canceller::new();
    let cancels = cancel.then(|| {
        let canceller = canceller.clone();
        thread::spawn(move || canceller.cancel())
    });
    let chosen = {
        let arms = [
            SendArm::new(&a.0, Live::clone(&live)),
            SendArm::new(&b.0, Live::clone(&live)),
        ];
        let two = Two([Some(&arms[0]), Some(&arms[1])], None);
        let chosen = canceller.catch(|| wait_for_either(&two, 0).unwrap());
        for (index, arm) in arms.iter().enumerate() {
            let is_chosen = chosen == Some(index);
            assert_eq!(arm.take(), is_chosen.then_some(Ok(())));
            assert_eq!(arm.take_unsent().is_none(), is_chosen, "it stays");
        }
        chosen
    };
    if let Some(cancels) = cancels {
        cancels.join().unwrap();
    }
    drop((a.0, b.0));
    let received: usize = receivers.map(|one| one.join().unwrap()).iter().sum();
    assert_eq!(received, 2 * capacity + usize::from(chosen.is_some()));
    assert_eq!(Live::strong_count(&live), 1, "each is dropped once");
}

/// Sends `count` numbers to `to`, and receives as many from `from`, whatever goes first.
fn exchange(to: &Sender<usize>, from: &Receiver<usize>, count: usize, mut start: usize) {
    let (mut sent, mut received) = (0, 0);
    while sent < count || received < count {
        let send = (sent < count).then(|| SendArm::new(to, sent));
        let recv = (received < count).then(|| RecvArm::new(from));
        let arms = [
            send.as_ref().map(|arm| arm as &dyn Arm),
            recv.as_ref().map(|arm| arm as &dyn Arm),
        ];
        wait_for_either(&Two(arms, None), start).unwrap();
        start += 3;
        if let Some(done) = send.as_ref().and_then(SendArm::take) {
            done.unwrap();
            sent += 1;
        } else {
            let got = recv.as_ref().and_then(RecvArm::take).unwrap();
            assert_eq!(got, Ok(received));
            received += 1;
        }
    }
}

/// Two tasks that each send to and receive from the other, without a queue.
fn facing(count: usize) {
    let (a, b) = (channel(0), channel(0));
    let other = thread::spawn(move || exchange(&a.0, &b.1, count, 0));
    exchange(&b.0, &a.1, count, 1);
    other.join().unwrap();
}

/// Three tasks that each send and receive `count` numbers, all at one rendezvous.
fn same_channel(count: usize) {
    let (sender, receiver) = channel(0);
    let tasks: Vec<_> = (0..3)
        .map(|name| {
            let (sender, receiver) = (Sender::clone(&sender), Receiver::clone(&receiver));
            thread::spawn(move || {
                let (mut sent, mut received) = (0, 0);
                let mut start = name;
                // The last ones may have nobody left to meet.
                while sent < count && received < count {
                    let (send, recv) = (SendArm::new(&sender, name), RecvArm::new(&receiver));
                    let two = Two([Some(&send), Some(&recv)], Some(Deadline::Later));
                    let chosen = wait_for_either(&two, start);
                    start += 3;
                    match chosen {
                        Some(0) => sent += 1,
                        Some(_) => {
                            assert_ne!(recv.take(), Some(Ok(name)), "it does not meet itself");
                            received += 1;
                        }
                        None => break,
                    }
                }
                (sent, received)
            })
        })
        .collect();
    let counts = tasks.into_iter().map(|task| task.join().unwrap());
    let (sent, received) = counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert_eq!(sent, received);
}

/// Plain senders and receivers, and two that wait for two channels each.
fn mixed() {
    let (a, b) = (channel(0), channel(2));
    let producers: Vec<_> = [&a.0, &b.0, &a.0]
        .into_iter()
        .map(|sender| {
            let sender = Sender::clone(sender);
            thread::spawn(move || (0..4).for_each(|n| sender.send(n).unwrap()))
        })
        .collect();
    let choosers: Vec<_> = (0..2)
        .map(|n| {
            let (a, b) = (Receiver::clone(&a.1), Receiver::clone(&b.1));
            thread::spawn(move || {
                let (mut count, mut start) = (0, n);
                loop {
                    start += 3;
                    match recv_either([&a, &b], None, start).unwrap() {
                        (_, Ok(_)) => count += 1,
                        // The other one may have more.
                        (0, Err(_)) => break count + receive(&b),
                        (_, Err(_)) => break count + receive(&a),
                    }
                }
            })
        })
        .collect();
    let plain = thread::spawn({
        let a = Receiver::clone(&a.1);
        move || receive(&a)
    });
    drop((a.0, b.0));
    for producer in producers {
        producer.join().unwrap();
    }
    let chosen: usize = choosers.into_iter().map(|one| one.join().unwrap()).sum();
    assert_eq!(chosen + plain.join().unwrap(), 12);
}

fn receive(receiver: &Receiver<usize>) -> usize {
    let mut count = 0;
    while receiver.recv(|| None).is_ok() {
        count += 1;
    }
    count
}
