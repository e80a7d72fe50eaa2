//! What unbounded channels promise, and what the receivers of all channels promise.

use super::{std, util};
use ::std::cell::Cell;
use ::std::error::Error;
use ::std::fmt::Debug;
use ::std::panic::{RefUnwindSafe, UnwindSafe};
use ::std::rc::Rc;
use ::std::sync::Arc;
use ::std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{
    Receiver, RecvError, RecvTimeoutError, SendError, Sender, SyncSender, TryRecvError,
    TrySendError, channel, sync_channel,
};
use std::thread;
use std::time::{Duration, Instant};
use util::{Counted, counter, everywhere, ms};

// ---------------------------------------------------------- types

#[test]
fn the_handles_may_cross_threads_and_unwinds_as_stds_may() {
    const fn send<T: Send>() {}
    const fn sync<T: Sync>() {}
    const fn unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
    const fn unpin<T: Unpin>() {}
    // Messages may be `!Sync`.
    send::<Sender<Cell<u8>>>();
    sync::<Sender<Cell<u8>>>();
    send::<SyncSender<Cell<u8>>>();
    sync::<SyncSender<Cell<u8>>>();
    send::<Receiver<Cell<u8>>>();
    send::<std::sync::mpsc::IntoIter<Cell<u8>>>();
    unwind_safe::<Sender<Cell<u8>>>();
    unwind_safe::<SyncSender<Cell<u8>>>();
    unwind_safe::<Receiver<Cell<u8>>>();
    unpin::<Sender<Cell<u8>>>();
    unpin::<SyncSender<Cell<u8>>>();
    unpin::<Receiver<Cell<u8>>>();
}

#[test]
fn values_of_any_size_and_alignment_come_as_they_were_sent() {
    #[derive(Debug, PartialEq)]
    #[repr(align(256))]
    struct Aligned(u8);

    fn check<T: Debug + PartialEq>(value: fn(u8) -> T) {
        let (sender, receiver) = channel();
        for round in [0, 100] {
            (round..round + 100).for_each(|n| sender.send(value(n)).unwrap());
            (round..round + 100).for_each(|n| assert_eq!(receiver.recv(), Ok(value(n))));
        }
    }

    everywhere(|| {
        check(|_| ());
        check(|n| n);
        check(|n| [u64::from(n); 15]);
        check(|n| [n; 1_025]);
        check(|n| [n; 5_000]);
        check(Aligned);
    });
}

/// Compiles only if no `$t` implements `$trait`: otherwise the call of `ambiguous` would be ambiguous.
macro_rules! assert_not {
    ($trait:ident: $($t:ty),+) => {$(
        const _: fn() = || {
            trait Ambiguous<A> {
                fn ambiguous() {}
            }
            impl<T: ?Sized> Ambiguous<()> for T {}
            impl<T: ?Sized + $trait> Ambiguous<u8> for T {}
            let _ = <$t as Ambiguous<_>>::ambiguous;
        };
    )+};
}

assert_not!(Sync: Receiver<u8>, std::sync::mpsc::IntoIter<u8>, Sender<Rc<u8>>, SyncSender<Rc<u8>>);
assert_not!(Send: Receiver<Rc<u8>>, Sender<Rc<u8>>, std::sync::mpsc::Iter<'static, u8>);

#[test]
fn debug_shows_the_kind_and_nothing_of_the_values() {
    let (sender, receiver) = channel::<u8>();
    let (sync_sender, _sync_receiver) = sync_channel::<u8>(1);
    assert_eq!(format!("{sender:?}"), "Sender { .. }");
    assert_eq!(format!("{sync_sender:?}"), "SyncSender { .. }");
    assert_eq!(format!("{receiver:?}"), "Receiver { .. }");
    assert_eq!(
        format!("{:?}", receiver.iter()),
        "Iter { rx: Receiver { .. } }"
    );
    assert_eq!(
        format!("{:?}", receiver.try_iter()),
        "TryIter { rx: Receiver { .. } }"
    );
    assert_eq!(
        format!("{:?}", receiver.into_iter()),
        "IntoIter { rx: Receiver { .. } }"
    );
}

#[test]
fn the_errors_are_stds_own() {
    let (sender, receiver) = channel::<u8>();
    let empty: ::std::sync::mpsc::TryRecvError = receiver.try_recv().unwrap_err();
    assert_eq!(empty.to_string(), "receiving on an empty channel");
    drop(receiver);
    let error: ::std::sync::mpsc::SendError<u8> = sender.send(7).unwrap_err();
    assert_eq!(error.to_string(), "sending on a closed channel");
    assert_eq!(TrySendError::from(error), TrySendError::Disconnected(7));
    let error: Box<dyn Error> = Box::new(RecvError);
    assert_eq!(error.to_string(), "receiving on a closed channel");
    assert_eq!(TryRecvError::from(RecvError), TryRecvError::Disconnected);
    assert_eq!(
        RecvTimeoutError::from(RecvError),
        RecvTimeoutError::Disconnected
    );
}

// ---------------------------------------------------------- order, disconnection

#[test]
fn values_come_in_the_order_they_were_sent() {
    everywhere(|| {
        let (sender, receiver) = channel();
        let producer = thread::spawn(move || (0..10_000).for_each(|n| sender.send(n).unwrap()));
        assert!((0..10_000).all(|n| receiver.recv() == Ok(n)));
        assert_eq!(receiver.recv(), Err(RecvError));
        producer.join().unwrap();
    });
}

#[test]
fn of_several_senders_each_keeps_its_order() {
    everywhere(|| {
        const EACH: u32 = 2_000;
        let (sender, receiver) = channel();
        for name in 0..8usize {
            let sender = sender.clone();
            thread::spawn(move || (0..EACH).for_each(|n| sender.send((name, n)).unwrap()));
        }
        drop(sender);
        let mut next = [0; 8];
        for (name, n) in &receiver {
            assert_eq!(n, next[name]);
            next[name] += 1;
        }
        assert_eq!(next, [EACH; 8]);
    });
}

#[test]
fn what_is_queued_is_received_before_the_disconnection() {
    everywhere(|| {
        let (sender, receiver) = channel();
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        drop(sender);
        assert_eq!(receiver.recv(), Ok(1));
        assert_eq!(receiver.try_recv(), Ok(2));
        assert_eq!(receiver.recv(), Err(RecvError));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(
            receiver.recv_timeout(ms(0)),
            Err(RecvTimeoutError::Disconnected)
        );
        assert_eq!(receiver.iter().next(), None);
    });
}

#[test]
fn a_channel_is_disconnected_by_the_last_of_its_senders() {
    everywhere(|| {
        let (sender, receiver) = channel::<u8>();
        let other = sender.clone();
        drop(sender);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        other.send(1).unwrap();
        drop(other);
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    });
}

#[test]
fn a_receiver_that_waits_is_told_of_the_disconnection() {
    everywhere(|| {
        let (sender, receiver) = channel::<u8>();
        let other = sender.clone();
        let waits = thread::spawn(move || receiver.recv());
        thread::sleep(ms(10));
        drop(sender);
        thread::sleep(ms(10));
        assert!(!waits.is_finished());
        drop(other);
        assert_eq!(waits.join().unwrap(), Err(RecvError));
    });
}

#[test]
fn without_a_receiver_a_value_is_given_back() {
    everywhere(|| {
        let (sender, receiver) = channel();
        let other = sender.clone();
        drop(receiver);
        assert_eq!(
            sender.send(String::from("back")),
            Err(SendError("back".into()))
        );
        assert_eq!(other.send(String::from("too")).unwrap_err().0, "too");
    });
}

#[test]
fn a_sender_learns_that_the_receiver_goes() {
    everywhere(|| {
        let (sender, receiver) = channel();
        let (other, first) = (sender.clone(), thread::spawn(move || receiver.recv()));
        while sender.send(1).is_ok() && other.send(2).is_ok() {}
        assert_eq!(first.join().unwrap(), Ok(1));
    });
}

#[test]
fn a_receiver_may_move_to_another_thread_between_values() {
    everywhere(|| {
        let (sender, mut receiver) = channel();
        let producer = thread::spawn(move || {
            for n in 0..50 {
                sender.send(Box::new(n)).unwrap();
                thread::yield_now();
            }
        });
        for n in 0..50 {
            receiver = thread::spawn(move || {
                assert_eq!(*receiver.recv().unwrap(), n);
                receiver
            })
            .join()
            .unwrap();
        }
        producer.join().unwrap();
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    });
}

#[test]
fn both_ends_may_go_at_the_same_time() {
    everywhere(|| {
        for _ in 0..200 {
            let (sender, receiver) = channel::<Box<u8>>();
            let sends = thread::spawn(move || drop(sender.send(Box::new(1))));
            let receives = thread::spawn(move || drop(receiver));
            sends.join().unwrap();
            receives.join().unwrap();
        }
    });
}

#[test]
fn a_channel_may_be_sent_through_a_channel() {
    everywhere(|| {
        let (requests, inbox) = channel::<(u32, Sender<u32>)>();
        let server = thread::spawn(move || {
            for (n, reply) in inbox {
                reply.send(n * n).unwrap();
            }
        });
        let client = |n| {
            let requests = requests.clone();
            thread::spawn(move || {
                let (reply, answer) = channel();
                requests.send((n, reply)).unwrap();
                answer.recv().unwrap()
            })
        };
        let clients: Vec<_> = (0..20).map(client).collect();
        for (n, client) in (0..).zip(clients) {
            assert_eq!(client.join().unwrap(), n * n);
        }
        drop(requests);
        server.join().unwrap();
    });
}

#[test]
fn what_was_done_before_a_send_is_seen_after_its_receipt() {
    everywhere(|| {
        let (sender, receiver) = channel();
        let value = Arc::new(AtomicUsize::new(0));
        let writer = thread::spawn({
            let value = Arc::clone(&value);
            move || {
                for n in 1..=1_000 {
                    value.store(n, ::std::sync::atomic::Ordering::Relaxed);
                    sender.send(n).unwrap();
                }
            }
        });
        for n in receiver {
            assert!(value.load(::std::sync::atomic::Ordering::Relaxed) >= n);
        }
        writer.join().unwrap();
    });
}

// ---------------------------------------------------------- drops

#[test]
fn a_queued_value_is_dropped_once_and_with_the_receiver() {
    everywhere(|| {
        let drops = counter();
        let (sender, receiver) = channel();
        for _ in 0..100 {
            sender.send(Counted(Arc::clone(&drops))).unwrap();
        }
        drop(receiver.recv().unwrap());
        assert_eq!(drops.load(SeqCst), 1);
        drop(receiver);
        assert_eq!(drops.load(SeqCst), 100, "not only when the senders go");
        assert!(sender.send(Counted(Arc::clone(&drops))).is_err());
        assert_eq!(drops.load(SeqCst), 101);
        drop(sender);
        assert_eq!(drops.load(SeqCst), 101);
    });
}

#[test]
fn values_that_outlive_their_sender_are_dropped_with_the_receiver() {
    everywhere(|| {
        let drops = counter();
        let (sender, receiver) = channel();
        sender.send(Counted(Arc::clone(&drops))).unwrap();
        drop(sender);
        assert_eq!(drops.load(SeqCst), 0);
        drop(receiver);
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn values_are_dropped_once_whichever_end_goes_first() {
    everywhere(|| {
        for round in 0..50 {
            let (made, drops) = (counter(), counter());
            let (sender, receiver) = channel();
            let senders: Vec<_> = (0..3)
                .map(|_| {
                    let (sender, made, drops) = (sender.clone(), made.clone(), drops.clone());
                    thread::spawn(move || {
                        loop {
                            made.fetch_add(1, SeqCst);
                            if sender.send(Counted(drops.clone())).is_err() {
                                return;
                            }
                            thread::yield_now();
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
    });
}

#[test]
fn a_value_may_use_its_own_channel_when_it_is_dropped() {
    struct SendsWhenDropped(Sender<SendsWhenDropped>, Arc<AtomicUsize>);
    impl Drop for SendsWhenDropped {
        fn drop(&mut self) {
            self.1.fetch_add(1, SeqCst);
            if let Err(SendError(refused)) = self
                .0
                .send(SendsWhenDropped(self.0.clone(), self.1.clone()))
            {
                // Dropping the refused value would send again, without end.
                ::std::mem::forget(refused);
            }
        }
    }
    everywhere(|| {
        let drops = counter();
        let (sender, receiver) = channel();
        sender
            .send(SendsWhenDropped(sender.clone(), drops.clone()))
            .unwrap();
        drop(receiver);
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn values_of_no_size_and_large_ones_are_delivered() {
    everywhere(|| {
        let (sender, receiver) = channel();
        (0..1_000).for_each(|_| sender.send(()).unwrap());
        drop(sender);
        assert_eq!(receiver.iter().count(), 1_000);

        let (sender, receiver) = channel();
        let producer = thread::spawn(move || (0..50).for_each(|n| sender.send([n; 500]).unwrap()));
        for (n, block) in receiver.iter().enumerate() {
            assert_eq!(block, [n; 500]);
        }
        producer.join().unwrap();
    });
}

// ---------------------------------------------------------- time

#[test]
fn recv_timeout_gives_up_when_its_time_is_over() {
    everywhere(|| {
        let (sender, receiver) = channel();
        let start = Instant::now();
        assert_eq!(
            receiver.recv_timeout(ms(20)),
            Err(RecvTimeoutError::Timeout)
        );
        assert!(start.elapsed() >= ms(20));
        sender.send(1).unwrap();
        assert_eq!(receiver.recv_timeout(ms(20)), Ok(1));
        assert_eq!(receiver.recv_timeout(ms(1)), Err(RecvTimeoutError::Timeout));
    });
}

#[test]
fn recv_timeout_of_no_time_takes_what_is_there() {
    everywhere(|| {
        let (sender, receiver) = channel();
        assert_eq!(receiver.recv_timeout(ms(0)), Err(RecvTimeoutError::Timeout));
        sender.send(1).unwrap();
        assert_eq!(receiver.recv_timeout(ms(0)), Ok(1));
        sender.send(2).unwrap();
        drop(sender);
        assert_eq!(receiver.recv_timeout(ms(0)), Ok(2));
        assert_eq!(
            receiver.recv_timeout(ms(0)),
            Err(RecvTimeoutError::Disconnected)
        );
    });
}

#[test]
fn recv_timeout_beyond_the_clock_waits_for_a_value() {
    everywhere(|| {
        for forever in [Duration::MAX, Duration::from_secs(u64::MAX)] {
            let (sender, receiver) = channel();
            let waits = thread::spawn(move || receiver.recv_timeout(forever));
            thread::sleep(ms(20));
            sender.send(1).unwrap();
            assert_eq!(waits.join().unwrap(), Ok(1));
        }
    });
}

#[test]
fn recv_timeout_is_ended_by_a_value_and_by_the_disconnection() {
    everywhere(|| {
        let (sender, receiver) = channel();
        let waits = thread::spawn(move || {
            let value = receiver.recv_timeout(ms(60_000));
            (value, receiver.recv_timeout(ms(60_000)))
        });
        thread::sleep(ms(10));
        sender.send(1).unwrap();
        thread::sleep(ms(10));
        drop(sender);
        assert_eq!(
            waits.join().unwrap(),
            (Ok(1), Err(RecvTimeoutError::Disconnected))
        );
    });
}

#[test]
fn a_receiver_that_times_out_again_and_again_misses_nothing() {
    everywhere(|| {
        const VALUES: u32 = 100;
        let (sender, receiver) = channel();
        for n in 0..VALUES {
            let sender = sender.clone();
            thread::spawn(move || {
                thread::sleep(Duration::from_micros(u64::from(n) * 200));
                sender.send(1).unwrap();
            });
        }
        drop(sender);
        let mut received = 0;
        loop {
            match receiver.recv_timeout(Duration::from_micros(200)) {
                Ok(n) => received += n,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        assert_eq!(received, VALUES);
    });
}

// ---------------------------------------------------------- iterators

#[test]
fn iter_waits_for_values_and_ends_with_the_senders() {
    everywhere(|| {
        let (sender, receiver) = channel();
        let producer = thread::spawn(move || {
            for n in 1..=4 {
                thread::sleep(ms(2));
                sender.send(n).unwrap();
            }
        });
        assert_eq!(receiver.iter().take(2).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(
            IntoIterator::into_iter(&receiver).sum::<u32>(),
            7,
            "the first iterator has left them"
        );
        producer.join().unwrap();
    });
}

#[test]
fn try_iter_takes_what_is_there_and_does_not_wait() {
    everywhere(|| {
        let (sender, receiver) = channel();
        assert_eq!(receiver.try_iter().next(), None);
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1, 2]);
        sender.send(3).unwrap();
        drop(sender);
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [3]);
        assert_eq!(receiver.try_iter().next(), None);
    });
}

#[test]
fn a_thread_that_only_tries_is_served_all_the_same() {
    everywhere(|| {
        let (asks, questions) = channel();
        let (answers, answered) = channel();
        let asker = thread::spawn(move || {
            let mut sum = 0;
            while sum < 6 {
                // The receiver may be gone by the last round.
                let _ = asks.send(());
                sum += answered.try_iter().sum::<u32>();
            }
            sum
        });
        for () in questions {
            if answers.send(2).is_err() {
                break;
            }
        }
        assert!(asker.join().unwrap() >= 6);
    });
}

#[test]
fn an_iterator_that_owns_its_receiver_closes_the_channel() {
    everywhere(|| {
        let (sender, receiver) = channel();
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        let mut values = receiver.into_iter();
        assert_eq!(values.next(), Some(1));
        sender.send(3).unwrap();
        drop(values);
        assert_eq!(sender.send(4), Err(SendError(4)));
    });
}

// ---------------------------------------------------------- many

#[test]
fn ten_thousand_values_may_be_queued() {
    everywhere(|| {
        let (sender, receiver) = channel();
        (0..10_000).for_each(|n| sender.send(n).unwrap());
        assert!((0..10_000).all(|n| receiver.recv() == Ok(n)));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    });
}

#[test]
fn a_ring_of_threads_passes_a_token_on() {
    everywhere(|| {
        let (first, mut last) = channel::<u32>();
        for _ in 0..100 {
            let (sender, receiver) = channel();
            let before = ::std::mem::replace(&mut last, receiver);
            thread::spawn(move || before.into_iter().for_each(|n| sender.send(n + 1).unwrap()));
        }
        for n in 0..20 {
            first.send(n).unwrap();
            assert_eq!(last.recv(), Ok(n + 100));
        }
        drop(first);
        assert_eq!(last.recv(), Err(RecvError), "it goes through all of them");
    });
}
