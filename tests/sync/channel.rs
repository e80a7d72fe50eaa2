//! `greenroom::channel`: many producers and consumers, timeouts, closing, and the small forms. What channels
//! have in common with `mpsc` is in `mpsc.rs`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use greenroom::channel::{
    self, RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
use greenroom::{
    Cancelled, RuntimeBuilder, Unparker, assert_switches, park, park_timeout, spawn, yield_now,
};

use crate::util::{self, counter, everywhere, ms};

const LONG: Duration = Duration::from_secs(100);

/// Fewer without optimisation, where each takes longer.
const MANY: usize = if cfg!(debug_assertions) {
    250_000
} else {
    1_000_000
};

// ---------------------------------------------------------- many producers, many consumers

#[test]
fn each_message_goes_to_one_of_many_receivers() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            for capacity in [Some(0), Some(1), Some(7), None] {
                exchange(capacity);
            }
        });
    }
}

/// Coroutines and OS threads send 4 times 300 numbers, and coroutines and OS threads receive them.
fn exchange(capacity: Option<usize>) {
    const EACH: usize = 300;
    let (sender, receiver) = match capacity {
        Some(capacity) => channel::bounded(capacity),
        None => channel::unbounded(),
    };
    assert_eq!(sender.capacity(), capacity);
    let produce = |name: usize| {
        let sender = sender.clone();
        move || (0..EACH).for_each(|n| sender.send((name, n)).unwrap())
    };
    let consume = || {
        let receiver = receiver.clone();
        move || receiver.into_iter().collect::<Vec<_>>()
    };
    let consumers = [spawn(consume()), spawn(consume())];
    let threads = [std::thread::spawn(consume()), std::thread::spawn(consume())];
    let producing = [
        std::thread::spawn(produce(0)),
        std::thread::spawn(produce(1)),
    ];
    spawn(produce(2));
    spawn(produce(3));
    drop((sender, receiver));
    let mut received: Vec<_> = consumers
        .into_iter()
        .map(|one| one.join().unwrap())
        .chain(threads.into_iter().map(|one| one.join().unwrap()))
        .inspect(|of_one| {
            for name in 0..4 {
                let numbers = of_one.iter().filter(|message| message.0 == name);
                assert!(numbers.is_sorted(), "messages of one sender come in order");
            }
        })
        .flatten()
        .collect();
    producing.into_iter().for_each(|one| one.join().unwrap());
    received.sort_unstable();
    let sent = (0..4).flat_map(|name| (0..EACH).map(move |n| (name, n)));
    assert!(received.into_iter().eq(sent), "each message comes once");
}

/// The receiver is woken for each message that it waits for, however many threads send at once; and not
/// more often.
#[test]
fn no_wake_up_from_many_os_threads_is_lost() {
    const THREADS: usize = 8;
    const FEW: usize = 20_000;
    // In a debug build, senders that wait for room take 15 s for all of them.
    const MANY_THAT_WAIT: usize = if cfg!(debug_assertions) { FEW } else { MANY };
    for (capacity, each) in [(None, MANY), (Some(1024), MANY_THAT_WAIT), (Some(16), FEW)] {
        util::on_workers(1, || {
            let (sender, receiver) = match capacity {
                Some(capacity) => channel::bounded(capacity),
                None => channel::unbounded(),
            };
            let threads: Vec<_> = (0..THREADS)
                .map(|name| {
                    let sender = sender.clone();
                    std::thread::spawn(move || {
                        (0..each).for_each(|n| sender.send((name, n)).unwrap());
                    })
                })
                .collect();
            drop(sender);
            let mut next = [0; THREADS];
            assert_switches(THREADS * each, || {
                for (name, n) in receiver {
                    assert_eq!(n, next[name], "in order, and once");
                    next[name] += 1;
                }
            });
            assert_eq!(next, [each; THREADS]);
            threads.into_iter().for_each(|one| one.join().unwrap());
        });
    }
}

/// After every thousandth message, a thread parks until the receiver has got that message, which carries
/// the thread's unparker. Often all threads are parked at once, and then no later message makes up for a
/// wake-up that was lost.
#[test]
fn an_unparker_that_was_sent_wakes_the_os_thread_that_has_sent_it() {
    const THREADS: usize = 8;
    const EACH: usize = MANY;
    const UNTIL_AN_ANSWER: usize = 1_000;
    util::on_workers(1, || {
        let (sender, receiver) = channel::unbounded();
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    for n in 1..=EACH {
                        let asks = n % UNTIL_AN_ANSWER == 0;
                        sender.send(asks.then(Unparker::current)).unwrap();
                        if asks {
                            park();
                        }
                    }
                })
            })
            .collect();
        drop(sender);
        let (mut messages, mut answers) = (0, 0);
        for asks in receiver {
            messages += 1;
            if let Some(sender) = asks {
                sender.unpark();
                answers += 1;
            }
        }
        assert_eq!(messages, THREADS * EACH);
        assert_eq!(answers, THREADS * EACH / UNTIL_AN_ANSWER);
        threads.into_iter().for_each(|one| one.join().unwrap());
    });
}

#[test]
fn receivers_that_wait_are_served_in_their_order() {
    util::on_workers(1, || {
        let (sender, receiver) = channel::bounded(2);
        let receivers: Vec<_> = (0..5)
            .map(|_| {
                let receiver = receiver.clone();
                let waits = spawn(move || receiver.recv().unwrap());
                yield_now();
                waits
            })
            .collect();
        (0..5).for_each(|n| sender.send(n).unwrap());
        let got = receivers.into_iter().map(|waits| waits.join().unwrap());
        assert!(got.eq(0..5));
    });
}

#[test]
fn handles_know_their_channel() {
    let (sender, receiver) = channel::bounded(2);
    let (other_sender, other_receiver) = channel::bounded::<u8>(2);
    assert!(sender.same_channel(&sender.clone()) && receiver.same_channel(&receiver.clone()));
    assert!(!sender.same_channel(&other_sender) && !receiver.same_channel(&other_receiver));
    assert_eq!(
        (sender.len(), sender.is_empty(), sender.is_full()),
        (0, true, false)
    );
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    assert_eq!(
        (receiver.len(), receiver.is_empty(), receiver.is_full()),
        (2, false, true)
    );
    assert_eq!(receiver.capacity(), Some(2));
    let (_sender, rendezvous) = channel::bounded::<u8>(0);
    assert!(rendezvous.is_empty() && rendezvous.is_full());
    let (unbounded, _receiver) = channel::unbounded::<u8>();
    assert!(unbounded.capacity().is_none() && !unbounded.is_full());
    assert_eq!(
        format!("{sender:?} {receiver:?}"),
        "Sender { .. } Receiver { .. }"
    );
}

// ---------------------------------------------------------- timeouts

#[test]
fn a_message_that_finds_no_room_in_time_comes_back() {
    everywhere(|| {
        for capacity in [0, 1] {
            let (sender, receiver) = channel::bounded(capacity);
            (0..capacity).for_each(|n| sender.send(n.to_string()).unwrap());
            let message = "late".to_owned();
            let late = sender.send_timeout(message, ms(5)).unwrap_err();
            assert_eq!(late, SendTimeoutError::Timeout("late".to_owned()));
            let late = sender.send_deadline(late.into_inner(), Instant::now());
            assert!(late.as_ref().unwrap_err().is_timeout());
            // No sender is left in the queue: the next receiver finds what was queued, or nothing.
            for n in 0..capacity {
                assert_eq!(receiver.try_recv(), Ok(n.to_string()));
            }
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        }
    });
}

#[test]
fn a_message_that_finds_room_in_time_is_sent() {
    everywhere(|| {
        for capacity in [0, 1] {
            let (sender, receiver) = channel::bounded(capacity);
            (0..capacity).for_each(|n| sender.send(n).unwrap());
            let receives = spawn(move || {
                util::settle();
                receiver.iter().collect::<Vec<_>>()
            });
            sender.send_timeout(7, LONG).unwrap();
            sender.send_deadline(8, Instant::now() + LONG).unwrap();
            drop(sender);
            let received = receives.join().unwrap();
            assert_eq!(received[capacity..], [7, 8]);
        }
    });
}

#[test]
fn a_receiver_that_times_out_has_taken_no_message() {
    everywhere(|| {
        let (sender, receiver) = channel::bounded(0);
        assert_eq!(receiver.recv_timeout(ms(2)), Err(RecvTimeoutError::Timeout));
        let past = Instant::now();
        assert_eq!(receiver.recv_deadline(past), Err(RecvTimeoutError::Timeout));
        assert_eq!(
            sender.try_send(1),
            Err(TrySendError::Full(1)),
            "nobody waits any more"
        );
        let sends = spawn(move || sender.send(2));
        assert_eq!(receiver.recv_timeout(LONG), Ok(2));
        sends.join().unwrap().unwrap();
        assert_eq!(
            receiver.recv_timeout(LONG),
            Err(RecvTimeoutError::Disconnected)
        );
    });
}

#[test]
fn a_message_that_is_there_is_received_whatever_the_deadline() {
    everywhere(|| {
        let (sender, receiver) = channel::unbounded();
        sender.send(1).unwrap();
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Ok(1));
        sender.send(2).unwrap();
        assert_eq!(receiver.recv_timeout(Duration::MAX), Ok(2));
    });
}

// ---------------------------------------------------------- the end

#[test]
fn closing_wakes_all_and_leaves_what_is_queued() {
    everywhere(|| {
        for capacity in [0, 2] {
            for from_the_receiver in [false, true] {
                let (sender, receiver) = channel::bounded(capacity);
                (0..capacity).for_each(|n| sender.send(n).unwrap());
                let senders = [10, 11].map(|n| {
                    let sender = sender.clone();
                    spawn(move || sender.send(n))
                });
                let timed = {
                    let sender = sender.clone();
                    spawn(move || sender.send_timeout(12, LONG))
                };
                util::settle();
                match from_the_receiver {
                    true => receiver.close(),
                    false => sender.close(),
                }
                for (n, sends) in [10, 11].into_iter().zip(senders) {
                    assert_eq!(sends.join().unwrap(), Err(SendError(n)), "it comes back");
                }
                let timed = timed.join().unwrap();
                assert_eq!(timed, Err(SendTimeoutError::Disconnected(12)));
                assert!(sender.is_closed() && receiver.is_closed());
                assert_eq!(sender.try_send(9), Err(TrySendError::Disconnected(9)));
                assert_eq!(receiver.len(), capacity);
                assert!(receiver.iter().eq(0..capacity), "queued before");
                assert_eq!(receiver.recv(), Err(RecvError));
                assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
                sender.close();
            }
        }
    });
}

#[test]
fn closing_wakes_receivers() {
    everywhere(|| {
        for capacity in [0, 2] {
            let (sender, receiver) = channel::bounded::<u8>(capacity);
            let receivers = [(); 3].map(|()| {
                let receiver = receiver.clone();
                spawn(move || receiver.recv())
            });
            util::settle();
            receiver.close();
            for receives in receivers {
                assert_eq!(receives.join().unwrap(), Err(RecvError));
            }
            drop(sender);
        }
    });
}

#[test]
fn a_channel_ends_with_the_last_handle_of_an_end() {
    let drops = counter();
    let (sender, receiver) = channel::unbounded();
    sender.send(util::Counted(Arc::clone(&drops))).unwrap();
    let other = receiver.clone();
    drop(receiver);
    assert!(!sender.is_closed());
    drop(other);
    assert!(sender.is_closed());
    assert_eq!(drops.load(SeqCst), 1, "queued messages are dropped");
    let back = sender.send(util::Counted(Arc::clone(&drops)));
    drop(back.unwrap_err().0);
    assert_eq!(drops.load(SeqCst), 2);
}

#[test]
fn waiting_with_a_deadline_is_an_interruption_point() {
    util::on_an_os_thread(|| {
        let (sender, receiver) = channel::bounded(0);
        let (quiet, says_nothing) = channel::bounded::<u8>(1);
        let unwound = counter();
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        runtime.run(|| {
            let (sender, says_nothing) = (sender.clone(), says_nothing.clone());
            let waits: [Box<dyn FnOnce() + Send>; 2] = [
                Box::new(move || sender.send_timeout(1, LONG).unwrap()),
                Box::new(move || assert!(says_nothing.recv_timeout(LONG).is_ok())),
            ];
            for wait in waits {
                let unwound = Arc::clone(&unwound);
                spawn(move || {
                    let payload = catch_unwind(AssertUnwindSafe(wait)).unwrap_err();
                    unwound.fetch_add(usize::from(payload.is::<Cancelled>()), SeqCst);
                });
            }
            park_timeout(ms(5));
        });
        drop(runtime);
        assert_eq!(unwound.load(SeqCst), 2);
        assert_eq!(
            receiver.try_recv(),
            Err(TryRecvError::Empty),
            "no sender is left"
        );
        quiet.send(7).unwrap();
        assert_eq!(says_nothing.try_recv(), Ok(7), "no receiver has taken it");
    });
}

// ---------------------------------------------------------- one message

#[test]
fn a_oneshot_delivers_its_message_before_and_during_the_wait() {
    everywhere(|| {
        let (sender, receiver) = channel::oneshot();
        sender.send("before").unwrap();
        assert_eq!(receiver.recv(), Ok("before"));
        assert_eq!(receiver.recv(), Err(RecvError), "it comes once");

        let (sender, receiver) = channel::oneshot();
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(receiver.recv_timeout(ms(1)), Err(RecvTimeoutError::Timeout));
        spawn(move || {
            util::settle();
            sender.send("during")
        });
        assert_eq!(receiver.recv_timeout(LONG), Ok("during"));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    });
}

#[test]
fn a_oneshot_ends_with_either_end() {
    everywhere(|| {
        let (sender, receiver) = channel::oneshot::<u8>();
        let waits = spawn(move || receiver.recv());
        util::settle();
        drop(sender);
        assert_eq!(waits.join().unwrap(), Err(RecvError));

        let (sender, receiver) = channel::oneshot();
        assert!(!sender.is_closed());
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send(1), Err(SendError(1)));

        let drops = counter();
        let (sender, receiver) = channel::oneshot();
        assert!(sender.send(util::Counted(Arc::clone(&drops))).is_ok());
        drop(receiver);
        assert_eq!(drops.load(SeqCst), 1, "nobody received it");
    });
}

// ---------------------------------------------------------- the latest value

#[test]
fn all_receivers_of_a_watch_see_the_latest_value() {
    everywhere(|| {
        let (sender, receiver) = channel::watch(0);
        assert!(!receiver.has_changed());
        let followers = [(); 3].map(|()| {
            let mut receiver = receiver.clone();
            spawn(move || {
                let mut seen = vec![receiver.get()];
                while receiver.changed().is_ok() {
                    seen.push(*receiver.borrow());
                }
                seen
            })
        });
        util::settle();
        (1..=20).for_each(|n| sender.send(n).unwrap());
        drop(sender);
        for follower in followers {
            let seen = follower.join().unwrap();
            assert!(
                seen.is_sorted() && seen[0] <= 20,
                "no older value after a newer one"
            );
            assert_eq!(seen.last(), Some(&20), "the last value is seen");
        }
        assert!(receiver.has_changed());
    });
}

#[test]
fn a_watch_tells_new_values_from_seen_ones() {
    everywhere(|| {
        let (sender, mut receiver) = channel::watch('a');
        let timeout = Err(RecvTimeoutError::Timeout);
        assert_eq!(receiver.changed_timeout(ms(1)), timeout);
        sender.send('b').unwrap();
        sender.send('c').unwrap();
        assert_eq!(receiver.changed(), Ok(()));
        assert_eq!(receiver.get(), 'c');
        assert_eq!(
            receiver.changed_deadline(Instant::now()),
            timeout,
            "it is seen"
        );
        sender.send('d').unwrap();
        let snapshot = receiver.borrow_and_update();
        assert_eq!(receiver.changed_timeout(ms(1)), timeout, "it is seen");
        sender.send('e').unwrap();
        assert_eq!(
            (*snapshot, *sender.borrow()),
            ('d', 'e'),
            "a snapshot stays"
        );
        let mut late = sender.subscribe();
        assert_eq!(
            late.changed_timeout(ms(1)),
            timeout,
            "the present value is not new"
        );
        drop(sender);
        assert_eq!(late.changed(), Err(RecvError));
        assert_eq!(
            receiver.changed(),
            Ok(()),
            "a new value comes before the end"
        );
        assert_eq!(receiver.changed(), Err(RecvError));
    });
}

#[test]
fn a_watch_without_receivers_gives_the_value_back_unless_it_is_set() {
    let (sender, receiver) = channel::watch("old".to_owned());
    drop(receiver);
    assert!(sender.is_closed());
    let back = sender.send("new".to_owned()).unwrap_err().0;
    assert_eq!((back.as_str(), sender.borrow().as_str()), ("new", "old"));
    sender.set(back);
    assert_eq!(sender.subscribe().get(), "new");
}

#[test]
fn a_watch_runs_no_code_of_the_user_under_its_lock() {
    /// Uses the channel when it is dropped.
    struct Uses(Option<channel::watch::Sender<Uses>>, Arc<AtomicUsize>);
    impl Drop for Uses {
        fn drop(&mut self) {
            if let Some(sender) = self.0.take() {
                drop(sender.borrow());
            }
            self.1.fetch_add(1, SeqCst);
        }
    }
    let drops = counter();
    let (sender, receiver) = channel::watch(Uses(None, Arc::clone(&drops)));
    sender.set(Uses(Some(sender.clone()), Arc::clone(&drops)));
    sender.set(Uses(None, Arc::clone(&drops)));
    assert_eq!(drops.load(SeqCst), 2);
    drop((sender, receiver));
    assert_eq!(drops.load(SeqCst), 3);
}
