//! Channels, beyond std's promises: between coroutines and OS threads, at random, and at the end of a
//! runtime.

use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use greenroom::shims::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use greenroom::{Cancelled, Runtime, RuntimeBuilder, spawn, yield_now};

use crate::util::{self, ms};

fn workers(workers: usize) -> Runtime {
    RuntimeBuilder::new().workers(workers).build().unwrap()
}

// ---------------------------------------------------------- coroutines and OS threads

#[test]
fn a_channel_connects_coroutines_and_os_threads() {
    util::on_workers(2, || {
        let (requests, inbox) = sync_channel(0);
        let (replies, answers) = channel();
        let thread = std::thread::spawn(move || {
            for n in inbox {
                replies.send(n + 1).unwrap();
            }
        });
        for n in 0..200 {
            requests.send(n).unwrap();
            assert_eq!(answers.recv(), Ok(n + 1));
        }
        drop(requests);
        assert!(answers.recv().is_err());
        thread.join().unwrap();
    });
}

/// A generator of pseudo-random numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) % bound
    }
}

/// Sends, receives and hangs up at random, from coroutines and OS threads, through channels of all kinds.
/// Prints the seed, which the environment variable `SEED` takes back.
#[test]
fn random_use_loses_nothing_doubles_nothing_and_keeps_the_order() {
    let seed = match std::env::var("SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => RandomState::new().hash_one(0) | 1,
    };
    eprintln!("SEED={seed}");
    let mut random = Random(seed);
    for workers in [1, 4] {
        for _ in 0..15 {
            let bound = [0, 1, 2, 10, usize::MAX][random.below(5) as usize];
            let seeds = [(); 6].map(|()| random.below(u64::MAX >> 32) | 1);
            util::on_workers(workers, || exchange_at_random(bound, seeds));
        }
    }
}

fn exchange_at_random(bound: usize, seeds: [u64; 6]) {
    let live = Arc::new(AtomicUsize::new(0));
    let (sender, receiver) = sync_channel(bound);
    let (others, threads) = (Arc::clone(&live), Arc::clone(&live));
    let coroutines: Vec<_> = [0, 1, 2]
        .map(|name| {
            let (sender, live) = (sender.clone(), Arc::clone(&others));
            spawn(move || send_at_random(name, &sender, &live, Random(seeds[name])))
        })
        .into();
    let threads: Vec<_> = [3, 4]
        .map(|name| {
            let (sender, live) = (sender.clone(), Arc::clone(&threads));
            std::thread::spawn(move || send_at_random(name, &sender, &live, Random(seeds[name])))
        })
        .into();
    drop(sender);
    let received = receive_at_random(receiver, Random(seeds[5]));
    let sent = coroutines.into_iter().map(|one| one.join().unwrap());
    let sent = sent.chain(threads.into_iter().map(|one| one.join().unwrap()));
    for (name, (sent, received)) in sent.zip(received).enumerate() {
        assert!(received <= sent, "{name} has sent {sent}, {received} came");
    }
    assert_eq!(live.load(SeqCst), 0, "each value was dropped once");
}

/// A value with a number, which is counted while it lives.
struct Value {
    name: usize,
    number: u32,
    live: Arc<AtomicUsize>,
}

impl Value {
    fn new(name: usize, number: u32, live: &Arc<AtomicUsize>) -> Value {
        live.fetch_add(1, SeqCst);
        Value {
            name,
            number,
            live: Arc::clone(live),
        }
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.live.fetch_sub(1, SeqCst);
    }
}

/// Returns how many values it has sent.
fn send_at_random(
    name: usize,
    sender: &SyncSender<Value>,
    live: &Arc<AtomicUsize>,
    mut random: Random,
) -> u32 {
    let mut sent = 0;
    for _ in 0..random.below(400) {
        let value = Value::new(name, sent, live);
        let took = match random.below(4) {
            0 => sender.try_send(value).is_ok(),
            _ => sender.send(value).is_ok(),
        };
        sent += u32::from(took);
        match random.below(60) {
            0 => greenroom::shims::thread::sleep(Duration::from_micros(random.below(300))),
            1 => greenroom::shims::thread::yield_now(),
            _ => {}
        }
    }
    sent
}

/// Returns how many values came from each sender, unless it hangs up early.
fn receive_at_random(receiver: Receiver<Value>, mut random: Random) -> [u32; 5] {
    let mut next = [0; 5];
    let hangs_up_after = match random.below(3) {
        0 => random.below(800),
        _ => u64::MAX,
    };
    for _ in 0..hangs_up_after {
        let value = match random.below(4) {
            0 => receiver.try_recv().ok(),
            1 => match receiver.recv_timeout(Duration::from_micros(random.below(200))) {
                Ok(value) => Some(value),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            },
            _ => match receiver.recv() {
                Ok(value) => Some(value),
                Err(_) => break,
            },
        };
        if let Some(value) = value {
            assert_eq!(value.number, next[value.name], "of {}", value.name);
            next[value.name] += 1;
        }
    }
    next
}

#[test]
fn waiters_are_served_in_their_order() {
    util::on_workers(1, || {
        for bound in [0, 1, 3] {
            let (sender, receiver) = sync_channel(bound);
            for n in 0..8 {
                let sender = sender.clone();
                spawn(move || sender.send(n).unwrap());
                yield_now();
            }
            drop(sender);
            assert!(receiver.into_iter().eq(0..8));
        }
    });
}

#[test]
fn a_coroutine_that_always_finds_room_lets_others_run() {
    util::on_workers(1, || {
        let over = Arc::new(AtomicBool::new(false));
        let ticks = Arc::new(AtomicUsize::new(0));
        let ticker = spawn({
            let (over, ticks) = (Arc::clone(&over), Arc::clone(&ticks));
            move || {
                while !over.load(SeqCst) {
                    ticks.fetch_add(1, SeqCst);
                    yield_now();
                }
            }
        });
        let (sender, receiver) = channel();
        while ticks.load(SeqCst) < 10 {
            sender.send(1).unwrap();
            receiver.try_recv().unwrap();
        }
        while ticks.load(SeqCst) < 20 {
            assert!(receiver.try_recv().is_err());
        }
        over.store(true, SeqCst);
        ticker.join().unwrap();
    });
}

#[test]
fn a_producer_and_a_consumer_that_never_wait_leave_time_for_timers() {
    util::on_workers(1, || {
        let (sender, receiver) = sync_channel(4);
        let over = Arc::new(AtomicBool::new(false));
        let producer = spawn({
            let over = Arc::clone(&over);
            move || {
                while !over.load(SeqCst) {
                    sender.send(1).unwrap();
                }
            }
        });
        let consumer = spawn(move || receiver.into_iter().count());
        for _ in 0..5 {
            greenroom::shims::thread::sleep(ms(1));
        }
        over.store(true, SeqCst);
        producer.join().unwrap();
        assert!(consumer.join().unwrap() > 0);
    });
}

// ---------------------------------------------------------- shutting down

/// Sets the flag when dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn waiting_for_a_channel_is_an_interruption_point() {
    let dropped = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
    let (full, keeps_full) = sync_channel(1);
    let (quiet, says_nothing) = channel::<Flag>();
    let rendezvous = sync_channel(0);
    util::on_an_os_thread(|| {
        workers(1).run(|| {
            full.send(Flag(Arc::default())).unwrap();
            let [in_send, in_recv, in_rendezvous] = dropped.clone().map(Flag);
            let sender = full.clone();
            spawn(move || drop(sender.send(in_send)));
            spawn(move || {
                let _in_recv = in_recv;
                says_nothing.recv()
            });
            let sender = rendezvous.0.clone();
            spawn(move || drop(sender.send(in_rendezvous)));
            greenroom::park_timeout(ms(5));
            assert!(dropped.iter().all(|dropped| !dropped.load(SeqCst)));
        });
    });
    assert!(dropped.iter().all(|dropped| dropped.load(SeqCst)));
    // No waiter is left behind: the next one is alone.
    assert!(keeps_full.try_recv().is_ok());
    assert!(keeps_full.try_recv().is_err(), "nobody waited for room");
    assert!(rendezvous.1.try_recv().is_err());
    assert!(quiet.send(Flag(Arc::default())).is_err());
}

#[test]
fn an_interrupted_receiver_leaves_the_values_to_the_next() {
    util::on_an_os_thread(|| {
        let (sender, receiver) = channel();
        let runtime = workers(1);
        let receiver = std::sync::Mutex::new(receiver);
        let receiver = Arc::new(receiver);
        let waits = runtime.run(|| {
            let receiver = Arc::clone(&receiver);
            let waits = spawn(move || {
                // Nobody else in this runtime holds the lock.
                let receiver = receiver.lock().unwrap();
                let unwound = catch_unwind(AssertUnwindSafe(|| receiver.recv()));
                unwound.unwrap_err().is::<Cancelled>()
            });
            greenroom::park_timeout(ms(5));
            waits
        });
        drop(runtime);
        assert!(waits.join().unwrap());
        sender.send(1).unwrap();
        assert_eq!(receiver.lock().unwrap().recv_timeout(ms(1_000)), Ok(1));
    });
}

#[test]
fn an_endless_exchange_ends_with_its_runtime() {
    util::on_an_os_thread(|| {
        let exchanged = Arc::new(AtomicUsize::new(0));
        workers(1).run(|| {
            let (sender, receiver) = sync_channel(1_000);
            let exchanged = Arc::clone(&exchanged);
            spawn(move || {
                loop {
                    sender.send(1).unwrap();
                    receiver.recv().unwrap();
                    exchanged.fetch_add(1, SeqCst);
                }
            });
            greenroom::park_timeout(ms(5));
        });
        assert!(exchanged.load(SeqCst) > 0);
    });
}

#[test]
fn a_wait_in_a_destructor_at_shutdown_neither_fails_nor_holds_it_up() {
    struct Waits<F: FnMut() -> bool>(F, Arc<AtomicUsize>);
    impl<F: FnMut() -> bool> Drop for Waits<F> {
        fn drop(&mut self) {
            let failed = (self.0)();
            self.1.fetch_add(usize::from(failed), SeqCst);
        }
    }
    util::on_an_os_thread(|| {
        let failed = Arc::new(AtomicUsize::new(0));
        let (quiet, says_nothing) = channel::<u8>();
        let (full, keeps_full) = sync_channel(0);
        workers(1).run(|| {
            let receives = Waits(move || says_nothing.recv().is_err(), Arc::clone(&failed));
            spawn(move || {
                let _receives = receives;
                greenroom::shims::thread::sleep(ms(60_000));
            });
            let sends = Waits(move || full.send(1).is_err(), Arc::clone(&failed));
            spawn(move || {
                let _sends = sends;
                greenroom::shims::thread::sleep(ms(60_000));
            });
            greenroom::park_timeout(ms(5));
        });
        assert_eq!(failed.load(SeqCst), 0);
        drop((quiet, keeps_full));
    });
}

// ---------------------------------------------------------- cost

#[test]
fn a_bound_takes_no_memory_in_advance() {
    let (sender, receiver) = sync_channel(usize::MAX - 1);
    sender.send([0u8; 64]).unwrap();
    assert_eq!(receiver.recv(), Ok([0; 64]));
}

// ---------------------------------------------------------- destructors

#[test]
fn a_destructor_that_panics_does_not_keep_the_rest_of_the_queue_from_being_dropped() {
    util::on_workers(1, || {
        let (sender, receiver) = channel();
        let drops = Arc::new(AtomicUsize::new(0));
        for n in 0..100 {
            let drops = Arc::clone(&drops);
            let value = util::Finally(move || {
                drops.fetch_add(1, SeqCst);
                assert_ne!(n, 40, "on purpose");
            });
            assert!(sender.send(value).is_ok());
        }
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(receiver)));
        assert!(dropped.is_err());
        assert_eq!(drops.load(SeqCst), 100);
        drop(sender);
    });
}
