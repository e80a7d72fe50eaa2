//! What bounded channels promise, including rendezvous channels.

use super::{std, util};
use ::std::sync::Arc;
use ::std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{
    RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError, channel, sync_channel,
};
use std::thread;
use std::time::{Duration, Instant};
use util::{Counted, PATIENCE, counter, everywhere, ms, until};

// ---------------------------------------------------------- the bound

#[test]
fn as_many_values_as_the_bound_are_sent_without_waiting() {
    everywhere(|| {
        for bound in [1, 2, 7, 1_000] {
            let (sender, receiver) = sync_channel(bound);
            for n in 0..bound {
                sender.send(n).unwrap();
            }
            assert_eq!(sender.try_send(bound), Err(TrySendError::Full(bound)));
            assert_eq!(receiver.recv(), Ok(0));
            assert_eq!(sender.try_send(bound), Ok(()), "there is room again");
            assert_eq!(sender.try_send(0), Err(TrySendError::Full(0)));
            drop(sender);
            assert!(receiver.iter().eq(1..=bound));
        }
    });
}

#[test]
fn a_sender_waits_for_room_and_not_longer() {
    everywhere(|| {
        let (sender, receiver) = sync_channel(1);
        let sent = counter();
        let producer = thread::spawn({
            let sent = Arc::clone(&sent);
            move || {
                for n in 0..4 {
                    sender.send(n).unwrap();
                    sent.fetch_add(1, SeqCst);
                }
            }
        });
        for n in 0..4 {
            let room = usize::min(n + 1, 4);
            until("there is no room left", || sent.load(SeqCst) == room);
            thread::sleep(ms(5));
            assert_eq!(sent.load(SeqCst), room);
            assert_eq!(receiver.recv(), Ok(n));
        }
        producer.join().unwrap();
    });
}

#[test]
fn what_is_queued_is_received_before_the_disconnection() {
    everywhere(|| {
        let (sender, receiver) = sync_channel(2);
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        drop(sender);
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(receiver.recv(), Ok(2));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(receiver.recv(), Err(RecvError));
    });
}

#[test]
fn values_come_in_the_order_they_were_sent() {
    everywhere(|| {
        for bound in [0, 1, 3, 64] {
            let (sender, receiver) = sync_channel(bound);
            let producer = thread::spawn(move || (0..2_000).for_each(|n| sender.send(n).unwrap()));
            assert!((0..2_000).all(|n| receiver.recv() == Ok(n)));
            producer.join().unwrap();
            assert_eq!(receiver.recv(), Err(RecvError));
        }
    });
}

#[test]
fn of_several_senders_each_keeps_its_order() {
    everywhere(|| {
        const EACH: u32 = 300;
        for bound in [0, 1, 5] {
            let (sender, receiver) = sync_channel(bound);
            for name in 0..8usize {
                let sender = sender.clone();
                thread::spawn(move || (0..EACH).for_each(|n| sender.send((name, n)).unwrap()));
            }
            drop(sender);
            let mut next = [0; 8];
            for (name, n) in receiver {
                assert_eq!(n, next[name]);
                next[name] += 1;
            }
            assert_eq!(next, [EACH; 8]);
        }
    });
}

#[test]
fn a_large_bound_is_kept() {
    everywhere(|| {
        let (sender, receiver) = sync_channel(100_000);
        (0..100_000).for_each(|n| sender.send(n).unwrap());
        assert_eq!(sender.try_send(0), Err(TrySendError::Full(0)));
        assert_eq!(receiver.try_iter().sum::<u64>(), 99_999 * 50_000);
    });
}

// ---------------------------------------------------------- no bound but zero

#[test]
fn a_rendezvous_channel_takes_a_value_only_when_a_receiver_waits() {
    everywhere(|| {
        let (sender, receiver) = sync_channel(0);
        assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        let sends = thread::spawn(move || {
            sender.send(2).unwrap();
            sender
        });
        thread::sleep(ms(20));
        assert!(!sends.is_finished(), "nobody has received it");
        assert_eq!(receiver.recv(), Ok(2));
        drop(sends.join().unwrap());
        assert_eq!(receiver.recv(), Err(RecvError));
    });
}

#[test]
fn a_try_operation_meets_a_waiting_one() {
    everywhere(|| {
        // The sender waits.
        let (sender, receiver) = sync_channel(0);
        let sends = thread::spawn(move || sender.send(1).unwrap());
        let start = Instant::now();
        let received = loop {
            match receiver.try_recv() {
                Ok(value) => break value,
                Err(_) => thread::sleep(ms(1)),
            }
            assert!(start.elapsed() < PATIENCE);
        };
        assert_eq!(received, 1);
        sends.join().unwrap();

        // The receiver waits.
        let (sender, receiver) = sync_channel(0);
        let receives = thread::spawn(move || receiver.recv());
        until("the receiver waits", || sender.try_send(2).is_ok());
        assert_eq!(receives.join().unwrap(), Ok(2));
    });
}

#[test]
fn a_rendezvous_with_a_receiver_that_has_given_up_does_not_happen() {
    everywhere(|| {
        let (sender, receiver) = sync_channel(0);
        assert_eq!(receiver.recv_timeout(ms(5)), Err(RecvTimeoutError::Timeout));
        assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
        let sends = thread::spawn(move || sender.send(2));
        thread::sleep(ms(5));
        drop(receiver);
        assert_eq!(sends.join().unwrap(), Err(SendError(2)));
    });
}

#[test]
fn a_rendezvous_misses_nothing_though_its_receiver_gives_up_again_and_again() {
    everywhere(|| {
        const EACH: u32 = 100;
        let (sender, receiver) = sync_channel(0);
        for _ in 0..4 {
            let sender = sender.clone();
            thread::spawn(move || (0..EACH).for_each(|_| sender.send(1).unwrap()));
        }
        drop(sender);
        let mut received = 0;
        loop {
            match receiver.recv_timeout(Duration::from_micros(50)) {
                Ok(n) => received += n,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        assert_eq!(received, 4 * EACH);
    });
}

// ---------------------------------------------------------- disconnection

#[test]
fn a_sender_that_waits_gets_its_value_back_when_the_receiver_goes() {
    everywhere(|| {
        for bound in [0, 1] {
            let (sender, receiver) = sync_channel(bound);
            (0..bound).for_each(|_| sender.send("queued").unwrap());
            let waiting: Vec<_> = (0..3)
                .map(|_| {
                    let sender = sender.clone();
                    thread::spawn(move || sender.send("waiting"))
                })
                .collect();
            thread::sleep(ms(10));
            assert!(waiting.iter().all(|waits| !waits.is_finished()));
            drop(receiver);
            for waits in waiting {
                assert_eq!(waits.join().unwrap(), Err(SendError("waiting")));
            }
            assert_eq!(sender.send("late"), Err(SendError("late")));
            assert_eq!(
                sender.try_send("later"),
                Err(TrySendError::Disconnected("later"))
            );
        }
    });
}

#[test]
fn a_full_channel_without_a_receiver_is_disconnected_not_full() {
    everywhere(|| {
        for bound in [0, 1] {
            let (sender, receiver) = sync_channel(bound);
            (0..bound).for_each(|_| sender.send(1).unwrap());
            drop(receiver);
            assert_eq!(sender.try_send(2), Err(TrySendError::Disconnected(2)));
        }
    });
}

#[test]
fn a_receiver_that_waits_is_told_of_the_disconnection() {
    everywhere(|| {
        for bound in [0, 1] {
            let (sender, receiver) = sync_channel::<u8>(bound);
            let waits = thread::spawn(move || receiver.recv());
            thread::sleep(ms(5));
            drop(sender);
            assert_eq!(waits.join().unwrap(), Err(RecvError));
        }
    });
}

// ---------------------------------------------------------- drops

#[test]
fn a_queued_value_is_dropped_with_the_receiver_while_the_senders_stay() {
    everywhere(|| {
        let drops = counter();
        let (sender, receiver) = sync_channel(2);
        sender.send(Counted(drops.clone())).unwrap();
        sender.send(Counted(drops.clone())).unwrap();
        assert_eq!(drops.load(SeqCst), 0);
        drop(receiver);
        assert_eq!(drops.load(SeqCst), 2);
        drop(sender.send(Counted(drops.clone())));
        drop(sender.try_send(Counted(drops.clone())));
        drop(sender);
        assert_eq!(drops.load(SeqCst), 4);
    });
}

#[test]
fn values_are_dropped_once_whichever_end_goes_first() {
    everywhere(|| {
        for bound in [0, 1, 4] {
            for round in 0..20 {
                let (made, drops) = (counter(), counter());
                let (sender, receiver) = sync_channel(bound);
                let senders: Vec<_> = (0..3)
                    .map(|_| {
                        let (sender, made, drops) = (sender.clone(), made.clone(), drops.clone());
                        thread::spawn(move || {
                            loop {
                                made.fetch_add(1, SeqCst);
                                if sender.send(Counted(drops.clone())).is_err() {
                                    return;
                                }
                            }
                        })
                    })
                    .collect();
                for _ in 0..round {
                    receiver.recv().unwrap();
                }
                drop(receiver);
                for sender in senders {
                    sender.join().unwrap();
                }
                assert_eq!(drops.load(SeqCst), made.load(SeqCst));
            }
        }
    });
}

// ---------------------------------------------------------- both kinds

#[test]
fn stages_with_bounds_work_on_at_their_own_pace() {
    everywhere(|| {
        let (numbers, squares) = (sync_channel(2), sync_channel(0));
        let (sums, sum) = channel();
        thread::spawn(move || (1..=100u64).for_each(|n| numbers.0.send(n).unwrap()));
        thread::spawn(move || {
            numbers
                .1
                .iter()
                .for_each(|n| squares.0.send(n * n).unwrap())
        });
        thread::spawn(move || sums.send(squares.1.iter().sum::<u64>()).unwrap());
        assert_eq!(sum.recv(), Ok(338_350));
    });
}
