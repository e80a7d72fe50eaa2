//! Cancellations and timeouts at random moments, with every destructor and every message counted.
//!
//! `GREENROOM_INTERRUPTS` is the number of rounds. `GREENROOM_SEED` is the seed of the first one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::os::unix::net::UnixStream;
use greenroom::shims::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use greenroom::shims::sync::{Condvar, Mutex};
use greenroom::shims::thread::sleep;
use greenroom::{Builder, Canceller, Interrupts, JoinHandle, scope, shield, spawn, timeout};
use std::io::{Read, Write};

use crate::util::{on_workers, until};

fn setting(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name);
    value.map_or(otherwise, |value| value.parse().expect("a number"))
}

/// Numbers that a seed determines (xorshift64*).
struct Random(u64);

impl Random {
    fn of(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    fn another(&mut self) -> Random {
        Random::of(self.below(1 << 30))
    }

    fn micros(&mut self, n: u64) -> Duration {
        Duration::from_micros(self.below(n))
    }
}

const LONG: Duration = Duration::from_secs(1_000);

struct Shared {
    sent: AtomicUsize,
    received: AtomicUsize,
    lock: Mutex<usize>,
    changed: Condvar,
    sender: SyncSender<Token>,
    receiver: Mutex<Receiver<Token>>,
    listener: TcpListener,
    cancellers: Mutex<Vec<Canceller>>,
}

/// A value with a destructor.
struct Token(Arc<AtomicUsize>);

impl Token {
    fn new(tokens: &Arc<AtomicUsize>) -> Token {
        tokens.fetch_add(1, SeqCst);
        Token(Arc::clone(tokens))
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

fn do_something(shared: &Arc<Shared>, tokens: &Arc<AtomicUsize>, random: &mut Random, depth: u32) {
    let _token = Token::new(tokens);
    match random.below(18) {
        0 => sleep(random.micros(300)),
        1 => sleep(LONG),
        2 => greenroom::interruption_point(),
        3 => {
            let mut held = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            *held += 1;
            shared.changed.notify_all();
            sleep(random.micros(50));
        }
        4 | 5 => {
            let sent = shared.sender.send(Token::new(tokens)).is_ok();
            shared.sent.fetch_add(usize::from(sent), SeqCst);
        }
        6 | 7 => {
            let receiver = shared.receiver.lock();
            let receiver = receiver.unwrap_or_else(PoisonError::into_inner);
            if receiver.recv().is_ok() {
                shared.received.fetch_add(1, SeqCst);
            }
        }
        8 => {
            let held = shared.lock.lock().unwrap_or_else(PoisonError::into_inner);
            drop(shared.changed.wait_timeout(held, random.micros(500)));
        }
        9 => _ = greenroom::park_timeout(random.micros(300)),
        10 => {
            let token = Token::new(tokens);
            greenroom::unblock(move || {
                std::thread::sleep(Duration::from_micros(50));
                drop(token);
            });
        }
        11 if depth > 0 => {
            let child = start(shared, tokens, random, depth - 1);
            if random.below(2) == 0 {
                child.cancel();
            }
            drop(child.join());
        }
        12 if depth > 0 => scope(|s| {
            for _ in 0..2 {
                let mut random = random.another();
                s.spawn(move || do_something(shared, tokens, &mut random, depth - 1));
            }
        }),
        13 if depth > 0 => {
            let limit = random.micros(400);
            let _ = timeout(limit, || do_something(shared, tokens, random, depth - 1));
        }
        14 if depth > 0 => {
            // A shield of its own would make the rounds wait for their longest sleeps.
            let limit = random.micros(400);
            let _ = shield(|| timeout(limit, || do_something(shared, tokens, random, depth - 1)));
        }
        15 => {
            let (mut one, mut other) = UnixStream::pair().unwrap();
            let peer = spawn(move || other.write_all(b"x"));
            let _ = one.read(&mut [0; 4]);
            let _ = one.read(&mut [0; 4]);
            drop(peer);
        }
        16 => {
            let addr = shared.listener.local_addr().unwrap();
            let _stream = TcpStream::connect(addr);
            drop(shared.listener.accept());
        }
        17 => {
            // Catches the unwind, and goes on for a while.
            let sleeps = || sleep(random.micros(300));
            let _ = catch_unwind(AssertUnwindSafe(sleeps));
            sleep(random.micros(100));
        }
        _ => {}
    }
}

fn start(
    shared: &Arc<Shared>,
    tokens: &Arc<AtomicUsize>,
    random: &mut Random,
    depth: u32,
) -> JoinHandle<()> {
    let mut own = random.another();
    let how = match random.below(8) {
        0 => Interrupts::Errors,
        _ => Interrupts::Unwind,
    };
    // Where interrupts are errors, a sleep goes on to its end, which may be far.
    let limit = (how == Interrupts::Errors).then(|| random.micros(800));
    let captured = Token::new(tokens);
    let coroutine = Builder::new().interrupts(how).spawn({
        let (shared, tokens) = (Arc::clone(shared), Arc::clone(tokens));
        move || {
            let _captured = captured;
            for _ in 0..own.below(6) {
                match limit {
                    Some(limit) => sleep(limit / 4),
                    None => do_something(&shared, &tokens, &mut own, depth),
                }
            }
        }
    });
    let coroutine = coroutine.unwrap();
    let mut cancellers = shared
        .cancellers
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    cancellers.push(coroutine.canceller());
    coroutine
}

fn round(seed: u64) {
    let mut random = Random::of(seed);
    let tokens = Arc::new(AtomicUsize::new(0));
    let (sender, receiver) = sync_channel(random.below(4) as usize);
    let shared = Arc::new(Shared {
        sent: AtomicUsize::new(0),
        received: AtomicUsize::new(0),
        lock: Mutex::new(0),
        changed: Condvar::new(),
        sender,
        receiver: Mutex::new(receiver),
        listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        cancellers: Mutex::new(Vec::new()),
    });
    let coroutines: Vec<_> = (0..20)
        .map(|_| start(&shared, &tokens, &mut random, 2))
        .collect();
    // From a thread of its own, so that cancellations come at any moment.
    let canceller = std::thread::spawn({
        let shared = Arc::clone(&shared);
        let mut random = random.another();
        move || {
            for _ in 0..30 {
                std::thread::sleep(random.micros(100));
                let cancellers = shared
                    .cancellers
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if let Some(some) = cancellers.get(random.below(cancellers.len() as u64) as usize) {
                    some.cancel();
                }
            }
            for _ in 0..20_000 {
                let cancellers = || {
                    shared
                        .cancellers
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                };
                let all = cancellers().clone();
                all.iter().for_each(Canceller::cancel);
                // One of them may have spawned another after the list was copied.
                if all.iter().all(Canceller::is_finished) && cancellers().len() == all.len() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            panic!("seed {seed}: not all coroutines have ended");
        }
    });
    for coroutine in coroutines {
        drop(coroutine.join());
    }
    greenroom::unblock(move || canceller.join().unwrap());
    let queued = {
        let receiver = shared.receiver.lock();
        let receiver = receiver.unwrap_or_else(PoisonError::into_inner);
        let mut queued = 0;
        loop {
            match receiver.try_recv() {
                Ok(_) => queued += 1,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break queued,
            }
        }
    };
    let (sent, received) = (shared.sent.load(SeqCst), shared.received.load(SeqCst));
    assert_eq!(sent, received + queued, "seed {seed}: a message was lost");
    // Jobs of the pool that were left end by themselves.
    until(&format!("seed {seed}: all values are dropped"), || {
        tokens.load(SeqCst) == 0
    });
}

#[test]
fn random_cancellations_and_timeouts_lose_no_destructor_and_no_message() {
    let rounds = setting("GREENROOM_INTERRUPTS", 60);
    let first = setting("GREENROOM_SEED", 1);
    for seed in first..first + rounds {
        let workers = [1, 2, 4][seed as usize % 3];
        on_workers(workers, || round(seed));
    }
}
