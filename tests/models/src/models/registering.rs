//! The registration of sources with the polls of workers: `reactor/registration.rs`.
//!
//! The kernel is modelled, with files that hold messages, descriptors that may be duplicates, and a
//! poll with edge-triggered registrations for each worker. A thread stands for a worker and its only
//! coroutine: while the coroutine waits, the worker polls.

use std::io;
use std::ops::BitOr;
use std::os::fd::RawFd;

use super::ready_word::ReadyWord;
use super::registration::{
    self, Kernel, RegisteredBy, Registrable, Registrar, Registration, RegistrationTable, Token,
};
use super::word::{Kind, Outcome, Seq, WaitWord};
use super::{Model, large, small};
use crate::check::atomic::{AtomicUsize, Mutex, Ordering};
use crate::check::{Arc, Signal, thread};

/// The checked file uses std's `Arc`. Its reference counts are no part of the protocol.
type Shared<T> = std::sync::Arc<T>;

pub(super) const MODELS: &[Model] = &[
    small(
        "registering: two workers wait for one source, and leave",
        2,
        two_workers,
    ),
    small(
        "registering: a duplicate is closed while another worker waits",
        2,
        closed_duplicate,
    ),
    small(
        "registering: a registration is undone while another worker waits",
        3,
        undone_registration,
    ),
    small(
        "registering: a number is used anew behind the back of its source",
        3,
        number_used_anew,
    ),
    small(
        "registering: a worker leaves while another closes",
        4,
        closed_while_released,
    ),
    large(
        "registering: duplicates are closed by many workers",
        many_duplicates,
    ),
];

/// Reading, the only interest there is.
#[derive(Clone, Copy)]
struct Read;

impl BitOr for Read {
    type Output = Read;

    fn bitor(self, Read: Read) -> Read {
        Read
    }
}

/// The kernel.
struct Os(Mutex<State>);

struct State {
    /// The file that is open under each number.
    open: Vec<Option<usize>>,
    /// The messages in each file.
    messages: Vec<usize>,
    polls: Vec<OsPoll>,
}

struct OsPoll {
    told: Vec<Told>,
    signal: Shared<Signal>,
}

/// What a poll has registered.
struct Told {
    fd: RawFd,
    file: usize,
    token: Token,
    /// An event is to be taken.
    pending: bool,
}

impl Os {
    /// An operating system with a file that is open under so many numbers, and its workers.
    fn new(workers: usize, duplicates: usize) -> (Shared<Os>, Vec<Worker>) {
        let signals: Vec<_> = (0..workers).map(|_| Shared::new(Signal::new())).collect();
        let polls = signals.iter().map(|signal| OsPoll {
            told: Vec::new(),
            signal: Shared::clone(signal),
        });
        let os = Shared::new(Os(Mutex::new(State {
            open: vec![Some(0); duplicates],
            messages: vec![0],
            polls: polls.collect(),
        })));
        let worker = |(number, signal)| {
            let kernel = OfPoll {
                os: Shared::clone(&os),
                number,
            };
            let table = RegistrationTable::new(kernel);
            Worker {
                os: Shared::clone(&os),
                number,
                signal,
                poll: Shared::new(Poll { table }),
            }
        };
        let workers = signals.into_iter().enumerate().map(worker).collect();
        (os, workers)
    }

    /// A message arrives in `file`. Each registration of the file has an event.
    fn send(&self, file: usize) {
        let mut state = self.0.lock().unwrap();
        state.messages[file] += 1;
        for poll in &mut state.polls {
            for told in poll.told.iter_mut().filter(|told| told.file == file) {
                told.pending = true;
                poll.signal.raise();
            }
        }
    }

    /// Takes a message, if there is one.
    fn read(&self, fd: RawFd) -> bool {
        let mut state = self.0.lock().unwrap();
        let file = state.file(fd).expect("it is open");
        let left = state.messages[file].checked_sub(1);
        state.messages[file] = left.unwrap_or(0);
        left.is_some()
    }

    /// Opens another file under the number `fd`; returns the file.
    fn open_as(&self, fd: RawFd) -> usize {
        let mut state = self.0.lock().unwrap();
        let file = state.messages.len();
        state.messages.push(0);
        let before = state.open[fd as usize].replace(file);
        assert_eq!(before, None);
        file
    }

    /// Closes `fd`. It must not be registered any more: as long as there are duplicates, nobody could
    /// remove the registration.
    fn close(&self, fd: RawFd) {
        let mut state = self.0.lock().unwrap();
        let file = state.file(fd).expect("it is open");
        for poll in &state.polls {
            let told = |told: &Told| told.fd == fd && told.file == file;
            assert!(!poll.told.iter().any(told), "a registration outlives {fd}");
        }
        state.open[fd as usize] = None;
    }

    /// Closes `fd`, which may be registered. A duplicate keeps its file open.
    fn close_behind_the_back(&self, fd: RawFd) {
        let mut state = self.0.lock().unwrap();
        let file = state.open[fd as usize].take();
        assert!(state.open.contains(&file), "there is a duplicate");
    }

    /// Takes the events of a poll. Returns their tokens and files.
    fn events(&self, poll: usize) -> Vec<(Token, usize)> {
        let mut state = self.0.lock().unwrap();
        let pending = state.polls[poll].told.iter_mut();
        pending
            .filter_map(|told| std::mem::take(&mut told.pending).then_some((told.token, told.file)))
            .collect()
    }
}

impl State {
    fn file(&self, fd: RawFd) -> Option<usize> {
        self.open[fd as usize]
    }
}

/// One poll of the kernel, as its table uses it.
struct OfPoll {
    os: Shared<Os>,
    number: usize,
}

impl Kernel for OfPoll {
    type Interest = Read;

    const ALL: Read = Read;

    fn add(&self, fd: RawFd, token: Token, Read: Read) -> io::Result<()> {
        let mut state = self.os.0.lock().unwrap();
        let file = state.file(fd).expect("it is open");
        let pending = state.messages[file] > 0;
        let poll = &mut state.polls[self.number];
        let same = |told: &Told| told.fd == fd && told.file == file;
        assert!(!poll.told.iter().any(same), "it is registered once");
        poll.told.push(Told {
            fd,
            file,
            token,
            pending,
        });
        if pending {
            poll.signal.raise();
        }
        Ok(())
    }

    fn renew(&self, fd: RawFd, token: Token, Read: Read) -> io::Result<bool> {
        let mut state = self.os.0.lock().unwrap();
        let file = state.file(fd).expect("it is open");
        let pending = state.messages[file] > 0;
        let poll = &mut state.polls[self.number];
        let mut told = poll.told.iter_mut();
        let Some(told) = told.find(|told| told.fd == fd && told.file == file) else {
            return Ok(false);
        };
        told.token = token;
        told.pending |= pending;
        if pending {
            poll.signal.raise();
        }
        Ok(true)
    }

    fn remove(&self, fd: RawFd) {
        let mut state = self.os.0.lock().unwrap();
        let file = state.file(fd);
        let poll = &mut state.polls[self.number];
        poll.told
            .retain(|told| told.fd != fd || Some(told.file) != file);
    }
}

struct Poll {
    table: RegistrationTable<Poll>,
}

impl Registrar for Poll {
    type Kernel = OfPoll;
    type Source = Source;
    type Watcher = NoWatcher;

    fn table(&self) -> &RegistrationTable<Poll> {
        &self.table
    }
}

/// No model has any.
enum NoWatcher {}

impl registration::Watcher for NoWatcher {
    fn fire(&self) {
        match *self {}
    }
}

/// A worker, with its coroutine.
struct Worker {
    os: Shared<Os>,
    number: usize,
    /// Raised by events of the worker's poll, and to wake its coroutine.
    signal: Shared<Signal>,
    poll: Shared<Poll>,
}

impl Worker {
    /// Polls until `is_over`, like a worker that has nothing to run.
    fn poll_until(&self, is_over: impl Fn() -> bool) {
        while !is_over() {
            self.signal.wait();
            let events = self.os.events(self.number);
            let rows = self.poll.table.lock();
            for (token, file) in events {
                if let Some(registered) = rows.find(token) {
                    let sources = registered.sources.iter();
                    sources.for_each(|source| source.event(file));
                }
            }
        }
    }

    /// Takes a message from `source` through `fd`, by the loop of `Operation::run_stream`.
    fn read(&self, source: &Shared<Source>, fd: RawFd) {
        loop {
            let seen = source.word.observe();
            if seen.is_ready() {
                if self.os.read(fd) {
                    return source.pass_on();
                }
                source.word.clear(seen);
                if source.word.observe().is_ready() {
                    continue;
                }
            }
            if !source.registered_by.is_this_process() {
                source.register(&self.poll, fd).unwrap();
            }
            source.wait(self);
        }
    }

    /// Closes `fd`, like the drop of a `Descriptor`.
    fn close(&self, source: &Source, fd: RawFd) {
        source.deregister(fd);
        self.os.close(fd);
    }

    /// Ends the driving of the worker: it will not poll any more.
    fn leave(&self) {
        registration::release_sources(&*self.poll);
    }
}

/// The reading half of a source.
struct Source {
    file: usize,
    word: ReadyWord,
    waiters: Mutex<Vec<Arc<Waiter>>>,
    registered_by: RegisteredBy,
    registration: Mutex<Option<Registration<Poll>>>,
}

struct Waiter {
    word: WaitWord,
    seq: Seq,
    /// How often the task was put into its worker's queue.
    queued: AtomicUsize,
    worker: Shared<Signal>,
}

impl Waiter {
    /// Ends the wait, if it has not ended, and has the worker look. Returns whether it did.
    fn wake(&self) -> bool {
        let woken = self.word.wake(self.seq, Outcome::Woken);
        if woken {
            self.queued.fetch_add(1, Ordering::Release);
            self.worker.raise();
        }
        woken
    }
}

impl Source {
    fn new(file: usize) -> Shared<Source> {
        Shared::new(Source {
            file,
            word: ReadyWord::new(),
            waiters: Mutex::new(Vec::new()),
            registered_by: RegisteredBy::new(),
            registration: Mutex::new(None),
        })
    }

    fn event(&self, file: usize) {
        assert_eq!(file, self.file, "an event reaches the wrong source");
        self.set_ready();
    }

    fn set_ready(&self) {
        if self.word.set(0) {
            self.wake_one();
        }
    }

    /// Like `Waiters::wake_one`. Waits do not end otherwise, so the first waiter can be woken.
    fn wake_one(&self) {
        let first = {
            let mut waiters = self.waiters.lock().unwrap();
            if waiters.is_empty() {
                return self.word.no_waiters();
            }
            waiters.remove(0)
        };
        assert!(first.wake());
    }

    fn pass_on(&self) {
        if self.word.is_left_for_a_waiter() {
            self.wake_one();
        }
    }

    fn wait(&self, worker: &Worker) {
        let word = WaitWord::new();
        let seq = word.begin(Kind::Event).unwrap();
        let waiter = Arc::new(Waiter {
            word,
            seq,
            queued: AtomicUsize::new(0),
            worker: Shared::clone(&worker.signal),
        });
        {
            let mut waiters = self.waiters.lock().unwrap();
            if self.word.is_ready_or_awaited() {
                return;
            }
            waiters.push(waiter.clone());
        }
        worker.poll_until(|| waiter.queued.load(Ordering::Acquire) == 1);
    }
}

impl Registrable for Source {
    type Registrar = Poll;

    fn registered_by(&self) -> &RegisteredBy {
        &self.registered_by
    }

    fn registration(&self) -> &Mutex<Option<Registration<Poll>>> {
        &self.registration
    }

    fn is_awaited(&self) -> bool {
        !self.waiters.lock().unwrap().is_empty()
    }

    fn retry_all(&self) {
        self.set_ready();
        let waiters = std::mem::take(&mut *self.waiters.lock().unwrap());
        for waiter in waiters {
            assert!(waiter.wake());
        }
    }
}

/// Both workers read through the same descriptor. The first that is done leaves, and does not poll any
/// more.
fn two_workers() {
    let (os, mut workers) = Os::new(2, 1);
    let source = Source::new(0);
    let other = thread::spawn({
        let (worker, source) = (workers.remove(1), source.clone());
        move || {
            worker.read(&source, 0);
            worker.leave();
        }
    });
    os.send(0);
    os.send(0);
    workers[0].read(&source, 0);
    workers[0].leave();
    other.join().unwrap();
    workers[0].close(&source, 0);
}

/// Each worker reads through a duplicate of its own, and closes it. If the source was registered with
/// that duplicate, the other worker registers it again.
fn closed_duplicate() {
    let (os, mut workers) = Os::new(2, 2);
    let source = Source::new(0);
    let other = thread::spawn({
        let (worker, source) = (workers.remove(1), source.clone());
        move || {
            worker.read(&source, 1);
            worker.close(&source, 1);
            worker.leave();
        }
    });
    os.send(0);
    os.send(0);
    workers[0].read(&source, 0);
    workers[0].close(&source, 0);
    workers[0].leave();
    other.join().unwrap();
}

/// One worker waits for a source that the other has registered, through a duplicate that the other then
/// closes. A message that comes later is noticed only if the first worker has registered the source
/// again.
fn undone_registration() {
    let (os, mut workers) = Os::new(2, 2);
    let source = Source::new(0);
    let other = thread::spawn({
        let (worker, source, os) = (workers.remove(1), source.clone(), os.clone());
        move || {
            source.register(&worker.poll, 1).unwrap();
            worker.close(&source, 1);
            os.send(0);
        }
    });
    workers[0].read(&source, 0);
    workers[0].close(&source, 0);
    workers[0].leave();
    other.join().unwrap();
}

/// The file of the first source stays open under another number, so its events keep coming.
fn number_used_anew() {
    let (os, workers) = Os::new(1, 2);
    let first = Source::new(0);
    first.register(&workers[0].poll, 0).unwrap();
    os.close_behind_the_back(0);
    let file = os.open_as(0);
    let peer = thread::spawn({
        let os = os.clone();
        move || [0, file].into_iter().for_each(|file| os.send(file))
    });
    let second = Source::new(file);
    workers[0].read(&second, 0);
    peer.join().unwrap();
    workers[0].close(&second, 0);
    workers[0].leave();
}

/// One worker releases the source, while the other closes its descriptor.
fn closed_while_released() {
    let (os, mut workers) = Os::new(2, 1);
    let source = Source::new(0);
    source.register(&workers[0].poll, 0).unwrap();
    let other = thread::spawn({
        let (worker, source, os) = (workers.remove(1), source.clone(), os.clone());
        move || {
            worker.close(&source, 0);
            let file = os.open_as(0);
            let next = Source::new(file);
            next.register(&worker.poll, 0).unwrap();
            os.send(file);
            worker.read(&next, 0);
            worker.close(&next, 0);
        }
    });
    workers[0].leave();
    other.join().unwrap();
}

/// Each worker reads twice through a duplicate of its own, closes it, and leaves.
fn many_duplicates() {
    const WORKERS: usize = 3;
    const READS: usize = 2;
    let (os, workers) = Os::new(WORKERS, WORKERS);
    let source = Source::new(0);
    let readers = workers.into_iter().map(|worker| {
        let source = source.clone();
        thread::spawn(move || {
            let fd = worker.number as RawFd;
            for _ in 0..READS {
                worker.read(&source, fd);
            }
            worker.close(&source, fd);
            worker.leave();
        })
    });
    let readers: Vec<_> = readers.collect();
    for _ in 0..WORKERS * READS {
        os.send(0);
    }
    for reader in readers {
        reader.join().unwrap();
    }
}
