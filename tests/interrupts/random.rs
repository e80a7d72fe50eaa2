//! Cancellations and timeouts at random moments, with every destructor, message, permit and descriptor counted.
//!
//! `GREENROOM_INTERRUPTS` is the number of rounds. `GREENROOM_SEED` is the seed of the first one.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use greenroom::channel::{self, oneshot, watch};
use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::os::unix::net::UnixStream;
use greenroom::shims::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use greenroom::shims::sync::{Condvar, Mutex};
use greenroom::shims::thread::sleep;
use greenroom::sync::Semaphore;
use greenroom::{
    Builder, Cancelled, Canceller, Elapsed, Group, Interrupts, JoinHandle, ResourcePool, scope,
    select, shield, spawn, timeout,
};

use crate::util::{self, on_workers, until};

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

/// How many permits and resources there are.
const FEW: usize = 2;

struct Shared {
    sent: AtomicUsize,
    received: AtomicUsize,
    lock: Mutex<usize>,
    changed: Condvar,
    sender: SyncSender<Token>,
    receiver: Mutex<Receiver<Token>>,
    messages: (channel::Sender<Token>, channel::Receiver<Token>),
    permits: Semaphore,
    resources: ResourcePool<Token, ()>,
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

impl Shared {
    fn count_sent<E>(&self, sent: Result<(), E>) {
        self.sent.fetch_add(usize::from(sent.is_ok()), SeqCst);
    }

    fn count_received<E>(&self, received: Result<Token, E>) {
        self.received
            .fetch_add(usize::from(received.is_ok()), SeqCst);
    }

    /// The messages that nobody has received.
    fn queued(&self) -> usize {
        let receiver = self.receiver.lock();
        let receiver = receiver.unwrap_or_else(PoisonError::into_inner);
        let mut queued = self.messages.1.try_iter().count();
        loop {
            match receiver.try_recv() {
                Ok(_) => queued += 1,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return queued,
            }
        }
    }
}

fn do_something(shared: &Arc<Shared>, tokens: &Arc<AtomicUsize>, random: &mut Random, depth: u32) {
    let _token = Token::new(tokens);
    match random.below(26) {
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
            shared.count_sent(shared.sender.send(Token::new(tokens)));
        }
        6 | 7 => {
            let receiver = shared.receiver.lock();
            let receiver = receiver.unwrap_or_else(PoisonError::into_inner);
            shared.count_received(receiver.recv());
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
        18 => shared.count_sent(shared.messages.0.send(Token::new(tokens))),
        19 => shared.count_received(shared.messages.1.recv()),
        20 => {
            let (sender, receiver) = shared.messages.clone();
            let mut message = Some(Token::new(tokens));
            let mut child = (depth > 0).then(|| start(shared, tokens, random, depth - 1));
            for _ in 0..3 {
                select! {
                    send(sender, message) -> sent => shared.count_sent(sent),
                    recv(receiver) -> received => shared.count_received(received),
                    join(child) -> ended => drop(ended),
                    default(random.micros(400)) => {}
                }
            }
        }
        21 => {
            let (sender, receiver) = oneshot();
            let message = Token::new(tokens);
            let pause = random.micros(200);
            let sends = spawn(move || {
                sleep(pause);
                sender.send(message).map_err(drop)
            });
            let received = receiver.recv();
            drop(receiver);
            assert!(received.is_ok());
            assert_eq!(sends.join().unwrap(), Ok(()));
        }
        22 => {
            let (sender, mut receiver) = watch(Token::new(tokens));
            let (tokens, pause) = (Arc::clone(tokens), random.micros(200));
            let sends = spawn(move || {
                sleep(pause);
                sender.send(Token::new(&tokens)).map_err(drop)
            });
            assert_eq!(receiver.changed(), Ok(()));
            drop(sends);
        }
        23 => {
            let _permits = shared.permits.acquire_many(1 + random.below(2) as usize);
            sleep(random.micros(100));
        }
        24 => {
            let _resource = shared.resources.get().unwrap();
            sleep(random.micros(100));
        }
        25 => {
            // Cancels its members when it is dropped.
            let group = Group::bounded(FEW);
            for _ in 0..4 {
                let (token, pause) = (Token::new(tokens), random.micros(200));
                drop(group.spawn(move || {
                    let _token = token;
                    sleep(pause);
                }));
            }
            let _ = group.join();
        }
        _ => {}
    }
}

/// Does something where interrupts are errors. They end only I/O, so all other waits are short.
fn do_something_short(shared: &Shared, tokens: &Arc<AtomicUsize>, random: &mut Random) {
    /// `None` after an interrupt.
    fn interrupted<T>(limit: Duration, f: impl FnOnce() -> io::Result<T>) -> Option<T> {
        match timeout(limit, f).expect("an error instead of an unwind") {
            Ok(value) => Some(value),
            Err(error) => {
                let inner = error.get_ref().expect("an interrupt's");
                assert!(inner.is::<Cancelled>() || inner.is::<Elapsed>(), "{error}");
                None
            }
        }
    }

    const BYTES: usize = 300_000;
    let _token = Token::new(tokens);
    let (mut one, mut other) = UnixStream::pair().unwrap();
    match random.below(6) {
        0 => sleep(random.micros(200)),
        1 => {
            // What an interrupted read has not taken is still there.
            let pauses = [(); 3].map(|()| random.micros(200));
            let writes = spawn(move || {
                for pause in pauses {
                    sleep(pause);
                    other.write_all(b"x").unwrap();
                }
            });
            let mut read = 0;
            loop {
                match interrupted(random.micros(300), || one.read(&mut [0; 2])) {
                    Some(0) => break,
                    some => read += some.unwrap_or(0),
                }
            }
            assert_eq!(read, pauses.len());
            writes.join().unwrap();
        }
        2 => {
            // What an interrupted write has not counted was not written.
            let reads = spawn(move || other.read_to_end(&mut Vec::new()).unwrap());
            let mut written = 0;
            while written < BYTES {
                let left = vec![0; BYTES - written];
                written += interrupted(random.micros(300), || one.write(&left)).unwrap_or(0);
            }
            drop(one);
            assert_eq!(reads.join().unwrap(), BYTES);
        }
        3 => {
            let addr = shared.listener.local_addr().unwrap();
            drop(interrupted(random.micros(300), || TcpStream::connect(addr)));
        }
        4 => {
            let message = Token::new(tokens);
            let limit = random.micros(200);
            shared.count_sent(shared.messages.0.send_timeout(message, limit));
        }
        _ => shared.count_received(shared.messages.1.recv_timeout(random.micros(200))),
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
    let captured = Token::new(tokens);
    let coroutine = Builder::new().interrupts(how).spawn({
        let (shared, tokens) = (Arc::clone(shared), Arc::clone(tokens));
        move || {
            let _captured = captured;
            for _ in 0..own.below(6) {
                match how == Interrupts::Errors {
                    true => do_something_short(&shared, &tokens, &mut own),
                    false => do_something(&shared, &tokens, &mut own, depth),
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
        messages: channel::bounded(random.below(4) as usize),
        permits: Semaphore::new(FEW),
        resources: ResourcePool::new(FEW, {
            let tokens = Arc::clone(&tokens);
            move || Ok(Token::new(&tokens))
        }),
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
    let queued = shared.queued();
    let (sent, received) = (shared.sent.load(SeqCst), shared.received.load(SeqCst));
    assert_eq!(sent, received + queued, "seed {seed}: a message was lost");
    let permits = shared.permits.available_permits();
    assert_eq!(permits, FEW, "seed {seed}: a permit was lost");
    let all = [(); FEW].map(|()| shared.resources.get_timeout(util::PATIENCE));
    assert!(
        all.iter().all(Result::is_ok),
        "seed {seed}: a place was lost"
    );
    drop(all);
    drop(shared);
    // Jobs of the pool that were left end by themselves.
    until(&format!("seed {seed}: all values are dropped"), || {
        tokens.load(SeqCst) == 0
    });
}

/// Uses what a runtime makes or registers when it is first used.
fn warm_up() {
    let (mut one, mut other) = UnixStream::pair().unwrap();
    let peer = spawn(move || other.write_all(b"x"));
    one.read_exact(&mut [0]).unwrap();
    peer.join().unwrap().unwrap();
    greenroom::unblock(|| ());
    sleep(Duration::from_millis(1));
}

#[test]
fn random_cancellations_and_timeouts_lose_nothing() {
    if util::role().is_none() {
        // In a process of its own, because the descriptors of other tests would be counted.
        let status =
            util::again!("random_cancellations_and_timeouts_lose_nothing", "alone").status();
        return assert!(status.unwrap().success());
    }
    let rounds = setting("GREENROOM_INTERRUPTS", 60);
    let first = setting("GREENROOM_SEED", 1);
    for seed in first..first + rounds {
        let workers = [1, 2, 4][seed as usize % 3];
        on_workers(workers, || {
            warm_up();
            let open = || (util::open_descriptors(), util::registrations());
            let before = open();
            round(seed);
            until(&format!("seed {seed}: all descriptors are closed"), || {
                let now = open();
                // What was there before may be closed meanwhile.
                now.0 <= before.0 && now.1 <= before.1
            });
        });
    }
}
