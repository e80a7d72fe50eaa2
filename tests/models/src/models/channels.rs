//! Channels: all of `channel`, and its queue alone, with short blocks.

use std::sync::Arc as Live;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError, TrySendError};

use super::chain::{Head, Popped, Pushed, SpareBlocks, Tail};
use super::channel::{Receiver, SendTimeoutError, Sender, channel};
use super::park::Canceller;
use super::task::Deadline;
use super::{Model, large, small};
use crate::check::{Arc, UnsafeCell, thread};

pub(super) const MODELS: &[Model] = &[
    small("channels: a queue in blocks of one", 3, || queue::<1>(5, 0)),
    small("channels: a queue in blocks of two", 2, || queue::<2>(7, 0)),
    small("channels: a queue that is shrunk", 3, || queue::<1>(4, 2)),
    large("channels: a long queue", || queue::<4>(30, 3)),
    small("channels: values against a waiting receiver", 3, || {
        exchange(usize::MAX, &[2], 1)
    }),
    small("channels: room against a waiting sender", 3, || {
        exchange(1, &[3], 1)
    }),
    small("channels: a rendezvous", 3, || exchange(0, &[2], 1)),
    // For loom, two of three spinning threads could take turns for ever.
    large("channels: two senders, little room", || {
        exchange(1, &[1, 2], 1);
    }),
    large("channels: a rendezvous of two with one", || {
        exchange(0, &[1, 1], 1);
    }),
    large("channels: two receivers", || {
        exchange(usize::MAX, &[2], 2);
    }),
    large("channels: two receivers and little room", || {
        exchange(1, &[3], 2);
    }),
    large("channels: many senders, little room, two receivers", || {
        exchange(3, &[9, 5, 7], 2);
    }),
    large("channels: a rendezvous of many", || {
        exchange(0, &[3, 5, 4], 3);
    }),
    large("channels: many values beyond a block", || {
        exchange(usize::MAX, &[20, 20], 2);
    }),
    small("channels: a deadline against a value", 2, || {
        deadline(usize::MAX)
    }),
    small("channels: a deadline against a rendezvous", 2, || {
        deadline(0)
    }),
    small("channels: a sender's deadline against room", 2, || {
        sender_deadline(1)
    }),
    small(
        "channels: a sender's deadline against a rendezvous",
        2,
        || sender_deadline(0),
    ),
    small("channels: a cancellation against a value", 2, || {
        cancellation(usize::MAX)
    }),
    small("channels: a cancellation against a rendezvous", 2, || {
        cancellation(0)
    }),
    small("channels: a sender's cancellation against room", 2, || {
        sender_cancellation(1)
    }),
    small(
        "channels: a sender's cancellation against a rendezvous",
        2,
        || sender_cancellation(0),
    ),
    large("channels: a receiver behind one that is cancelled", || {
        behind_cancelled(0);
    }),
    large("channels: cancellations against many", || {
        cancellations_of_many(2);
    }),
    large(
        "channels: cancellations against a rendezvous of many",
        || {
            cancellations_of_many(0);
        },
    ),
    small("channels: trying against the full queue", 2, trying),
    small("channels: closing against a sender that waits", 2, closing),
    large("channels: closing against a rendezvous of many", || {
        closing_of_many(0);
    }),
    large("channels: closing against many and little room", || {
        closing_of_many(2);
    }),
    small("channels: the receiver goes", 3, || receiver_goes(1)),
    small("channels: the receiver of a rendezvous goes", 3, || {
        receiver_goes(0)
    }),
];

/// A queue with its ends. Each end belongs to one thread.
struct Queue<const N: usize> {
    pushed: Pushed<usize, N>,
    popped: Popped,
    back: UnsafeCell<Tail<usize, N>>,
    front: UnsafeCell<Head<usize, N>>,
}

// SAFETY: the cells panic if two threads use an end at the same time.
unsafe impl<const N: usize> Sync for Queue<N> {}
// SAFETY: the values are numbers, which may be sent to other threads.
unsafe impl<const N: usize> Send for Queue<N> {}

/// One thread pushes `count` values and another pops them: they come in order. If `capacity` is not
/// zero, the queue holds no more values than that, and gives back its spare blocks.
fn queue<const N: usize>(count: usize, capacity: usize) {
    let queue = Arc::new(Queue::<N> {
        pushed: Pushed::new(),
        popped: Popped::new(),
        back: UnsafeCell::new(Tail::new(0)),
        front: UnsafeCell::new(Head::new()),
    });
    let pushing = thread::spawn({
        let queue = queue.clone();
        move || {
            let mut spare = SpareBlocks::new();
            for value in 0..count {
                let mut push = |back: *mut Tail<usize, N>| {
                    // SAFETY: the cell has checked that no other access is under way.
                    let back = unsafe { &mut *back };
                    if capacity > 0 {
                        if !back.has_room(capacity, &queue.pushed, &queue.popped) {
                            return false;
                        }
                        back.shrink_to_nothing(&queue.popped, &mut spare);
                    }
                    if back
                        .prepare(&queue.pushed, &queue.popped, &mut spare)
                        .is_err()
                    {
                        spare.fill();
                        return false;
                    }
                    back.push(value, &queue.pushed);
                    true
                };
                while !queue.back.with_mut(&mut push) {
                    thread::yield_now();
                }
            }
        }
    });
    let pop = |front: *mut Head<usize, N>| {
        // SAFETY: the cell has checked that no other access is under way.
        unsafe { (*front).pop(&queue.pushed, &queue.popped) }
    };
    for value in 0..count {
        let popped = loop {
            match queue.front.with_mut(pop) {
                Some(popped) => break popped,
                None => thread::yield_now(),
            }
        };
        assert_eq!(popped, value, "each value comes once, in order");
    }
    pushing.join().unwrap();
    assert_eq!(queue.front.with_mut(pop), None);
    // SAFETY: the other thread has ended, and the queue is empty.
    queue.back.with_mut(|back| unsafe { (*back).free() });
}

/// A value: the number of its sender, its own number there, and a reference that shows whether it was
/// dropped.
type Value = (usize, usize, Live<()>);

/// One sender for each number in `each` sends that many values. `receivers` receive until all senders
/// are gone.
fn exchange(capacity: usize, each: &'static [usize], receivers: usize) {
    let live = Live::new(());
    let (sender, receiver) = channel(capacity);
    let senders: Vec<_> = each
        .iter()
        .enumerate()
        .map(|(name, &count)| {
            let (sender, live) = (Sender::clone(&sender), live.clone());
            thread::spawn(move || {
                for number in 0..count {
                    sender.send((name, number, live.clone())).unwrap();
                }
            })
        })
        .collect();
    drop(sender);
    let others: Vec<_> = (1..receivers)
        .map(|_| {
            let receiver = Receiver::clone(&receiver);
            thread::spawn(move || receive(&receiver))
        })
        .collect();
    let mut received = receive(&receiver);
    for other in others {
        received.extend(other.join().unwrap());
    }
    for sender in senders {
        sender.join().unwrap();
    }
    received.sort_unstable();
    let sent = each.iter().enumerate();
    let sent = sent.flat_map(|(name, &count)| (0..count).map(move |number| (name, number)));
    assert!(received.into_iter().eq(sent), "each value comes once");
    drop(receiver);
    assert_eq!(Live::strong_count(&live), 1, "each value is dropped");
}

/// Receives all values that come to this receiver. Those of each sender come in order.
fn receive(receiver: &Receiver<Value>) -> Vec<(usize, usize)> {
    let mut received = Vec::new();
    loop {
        match receiver.recv(|| None) {
            Ok((name, number, _)) => {
                let before = |&(other, earlier): &(usize, usize)| other != name || earlier < number;
                assert!(received.iter().all(before), "overtaken");
                received.push((name, number));
            }
            Err(error) => {
                assert_eq!(error, RecvTimeoutError::Disconnected);
                return received;
            }
        }
    }
}

/// A value that comes after the deadline is received by the next call.
fn deadline(capacity: usize) {
    let (sender, receiver) = channel(capacity);
    let sending = thread::spawn(move || sender.send(1).unwrap());
    let value = receiver.recv(|| Some(Deadline::Later)).or_else(|error| {
        assert_eq!(error, RecvTimeoutError::Timeout);
        receiver.recv(|| None)
    });
    assert_eq!(value, Ok(1));
    sending.join().unwrap();
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
}

/// A value that was not sent in time comes back, and one that was sent comes out.
fn sender_deadline(capacity: usize) {
    let (sender, receiver) = channel(capacity);
    (0..capacity).for_each(|value| sender.send(value).unwrap());
    let receiving = thread::spawn(move || {
        let mut received = Vec::new();
        while let Ok(value) = receiver.recv(|| None) {
            received.push(value);
        }
        received
    });
    let sent = match sender.send_until(7, || Some(Deadline::Later)) {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error, SendTimeoutError::Timeout(7));
            false
        }
    };
    drop(sender);
    let received = receiving.join().unwrap();
    assert_eq!(received.len(), capacity + usize::from(sent));
    assert_eq!(received.last() == Some(&7), sent);
}

/// A value that comes after the cancellation is received by the next call.
fn cancellation(capacity: usize) {
    let (sender, receiver) = channel(capacity);
    let canceller = Canceller::new();
    let sending = thread::spawn(move || sender.send(1).unwrap());
    let cancels = thread::spawn({
        let canceller = canceller.clone();
        move || canceller.cancel()
    });
    let value = canceller.catch(|| receiver.recv(|| None));
    assert_eq!(value.unwrap_or_else(|| receiver.recv(|| None)), Ok(1));
    sending.join().unwrap();
    cancels.join().unwrap();
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
}

/// A value whose sender was cancelled is dropped, and one that was sent comes out.
fn sender_cancellation(capacity: usize) {
    let live = Live::new(());
    let (sender, receiver) = channel(capacity);
    (0..capacity).for_each(|_| sender.send(Live::clone(&live)).unwrap());
    let canceller = Canceller::new();
    let receiving = thread::spawn(move || {
        let mut count = 0;
        while receiver.recv(|| None).is_ok() {
            count += 1;
        }
        count
    });
    let cancels = thread::spawn({
        let canceller = canceller.clone();
        move || canceller.cancel()
    });
    let sent = canceller.catch(|| sender.send(Live::clone(&live)).unwrap());
    drop(sender);
    assert_eq!(
        receiving.join().unwrap(),
        capacity + usize::from(sent.is_some())
    );
    cancels.join().unwrap();
    assert_eq!(Live::strong_count(&live), 1, "all values are dropped");
}

/// One of two receivers is cancelled. The other one gets the value that the first has not got.
fn behind_cancelled(capacity: usize) {
    let (sender, receiver) = channel(capacity);
    let canceller = Canceller::new();
    let [patient, cancelled] = [Canceller::new(), canceller.clone()].map(|canceller| {
        let receiver = Receiver::clone(&receiver);
        thread::spawn(move || canceller.catch(|| receiver.recv(|| None).unwrap()))
    });
    let cancels = thread::spawn(move || canceller.cancel());
    sender.send(1).unwrap();
    if let Some(value) = cancelled.join().unwrap() {
        assert_eq!(value, 1);
        sender.send(1).unwrap();
    }
    assert_eq!(patient.join().unwrap(), Some(1));
    cancels.join().unwrap();
}

/// Senders and receivers, of which some are cancelled. What was sent is received, or stays in the queue.
fn cancellations_of_many(capacity: usize) {
    let live = Live::new(());
    let (sender, receiver) = channel(capacity);
    let cancellers = [(); 2].map(|()| Canceller::new());
    let senders = [cancellers[0].clone(), Canceller::new()].map(|canceller| {
        let (sender, live) = (Sender::clone(&sender), Live::clone(&live));
        thread::spawn(move || {
            let mut sent = 0;
            canceller.catch(|| {
                while sent < 4 && sender.send(Live::clone(&live)).is_ok() {
                    sent += 1;
                }
            });
            sent
        })
    });
    drop(sender);
    let receivers = [cancellers[1].clone(), Canceller::new()].map(|canceller| {
        let receiver = Receiver::clone(&receiver);
        thread::spawn(move || {
            let mut received = 0;
            canceller.catch(|| {
                while receiver.recv(|| None).is_ok() {
                    received += 1;
                }
            });
            received
        })
    });
    drop(receiver);
    cancellers.iter().for_each(Canceller::cancel);
    let sent: usize = senders.map(|one| one.join().unwrap()).iter().sum();
    let received: usize = receivers.map(|one| one.join().unwrap()).iter().sum();
    assert_eq!(received, sent);
    assert_eq!(Live::strong_count(&live), 1, "all values are dropped");
}

/// A sender that waits when the channel is closed gets its value back, or has sent it before. What was
/// sent can be received.
fn closing() {
    let (sender, receiver) = channel(1);
    let sending = thread::spawn(move || (0..3).take_while(|&n| sender.send(n).is_ok()).count());
    let received = receiver.try_recv().is_ok();
    receiver.channel().close();
    let mut count = usize::from(received);
    while receiver.recv(|| None).is_ok() {
        count += 1;
    }
    assert_eq!(count, sending.join().unwrap());
}

/// Senders and receivers, until another thread closes the channel. What was sent is received, and nothing
/// else.
fn closing_of_many(capacity: usize) {
    let (sender, receiver) = channel(capacity);
    let senders = [0, 1].map(|name| {
        let sender = Sender::clone(&sender);
        let send = move |n: &usize| sender.send((name, *n, Live::new(()))).is_ok();
        thread::spawn(move || (0..4).take_while(send).count())
    });
    let receivers = [(); 2].map(|()| {
        let receiver = Receiver::clone(&receiver);
        thread::spawn(move || receive(&receiver).len())
    });
    let closing = thread::spawn(move || sender.channel().close());
    let sent: usize = senders.into_iter().map(|one| one.join().unwrap()).sum();
    closing.join().unwrap();
    let received = receivers.into_iter().map(|one| one.join().unwrap());
    assert_eq!(received.sum::<usize>(), sent);
    drop(receiver);
}

/// A sender that finds the queue full finds room after a value was received.
fn trying() {
    let (sender, receiver) = channel(1);
    sender.send(0).unwrap();
    let receiving = thread::spawn(move || {
        assert_eq!(receiver.try_recv(), Ok(0));
        receiver
    });
    let first = sender.try_send(1);
    let receiver = receiving.join().unwrap();
    match first {
        Ok(()) => {
            assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
            assert_eq!(receiver.try_recv(), Ok(1));
        }
        Err(error) => assert_eq!(error, TrySendError::Full(1)),
    }
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(sender.try_send(3), Ok(()));
    drop(receiver);
    assert_eq!(sender.try_send(4), Err(TrySendError::Disconnected(4)));
}

/// The sender that waits gets its value back. Queued values are dropped.
fn receiver_goes(capacity: usize) {
    let live = Live::new(());
    let (sender, receiver) = channel(capacity);
    let sending = thread::spawn({
        let live = live.clone();
        move || {
            let mut sent = 0;
            while sender.send((0, sent, live.clone())).is_ok() {
                sent += 1;
            }
            sent
        }
    });
    let received = receiver.try_recv().is_ok();
    drop(receiver);
    let sent = sending.join().unwrap();
    assert!((usize::from(received)..=usize::from(received) + capacity).contains(&sent));
    assert_eq!(Live::strong_count(&live), 1, "all values are dropped");
}
