//! A runtime inside the event loop of other code: its turns, and the descriptor that tells when one is due.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use std::{io, iter};

use greenroom::shims::os::unix::net::UnixStream as Stream;
use greenroom::shims::sync::Mutex;
use greenroom::shims::thread::sleep;
use greenroom::{
    Runtime, RuntimeBuilder, Turn, Unparker, channel, interruption_point, join_all, park, spawn,
    spawn_local, yield_now, yield_until_idle,
};

use crate::util::{has_something, message_of, ms, on_an_os_thread, settle};

/// Longer than any step takes.
const LONG: Duration = Duration::from_secs(60);

const NO_WAIT: Option<Duration> = Some(Duration::ZERO);

fn runtime(workers: usize) -> Runtime {
    RuntimeBuilder::new().workers(workers).build().unwrap()
}

/// Runs `test` with a runtime of one worker, and with one of three. Aborts if that hangs.
fn with_runtimes(test: impl Fn(Runtime)) {
    for workers in [1, 3] {
        on_an_os_thread(|| test(runtime(workers)));
    }
}

/// The loop of other code: it waits for an epoll descriptor, in which the runtime's is one of several.
struct Loop {
    epoll: OwnedFd,
    /// How often the runtime was reported.
    wakes: Cell<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Trigger {
    Level,
    Edge,
}

impl Loop {
    fn new(runtime: &Runtime, trigger: Trigger) -> Loop {
        // SAFETY: the call takes no pointers.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        assert!(epoll >= 0, "{}", io::Error::last_os_error());
        // SAFETY: the descriptor was just made, and nothing else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let edge = match trigger {
            Trigger::Level => 0,
            Trigger::Edge => libc::EPOLLET,
        };
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | edge) as u32,
            u64: 1,
        };
        let fd = runtime.as_fd().as_raw_fd();
        // SAFETY: the event is valid, and outlives the call.
        let added =
            unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        assert_eq!(added, 0, "{}", io::Error::last_os_error());
        Loop {
            epoll,
            wakes: Cell::new(0),
        }
    }

    /// Waits until the runtime's descriptor is reported, and returns whether it was in time.
    fn wait(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let millis = left.as_millis().try_into().unwrap();
            let mut event = libc::epoll_event { events: 0, u64: 0 };
            let epoll = self.epoll.as_raw_fd();
            // SAFETY: there is room for one event, which is valid.
            let events = unsafe { libc::epoll_wait(epoll, &raw mut event, 1, millis) };
            match events {
                1 => {
                    self.wakes.set(self.wakes.get() + 1);
                    return true;
                }
                // A signal has interrupted the call.
                -1 => {}
                _ if left.is_zero() => return false,
                _ => {}
            }
        }
    }

    /// Gives `runtime` a turn whenever it asks for one, until `done`.
    fn serve(&self, runtime: &Runtime, mut done: impl FnMut() -> bool) {
        while !done() {
            assert!(self.wait(LONG), "the descriptor does not become readable");
            let _ = runtime.turn(NO_WAIT);
        }
    }
}

/// Runs `test` with each kind of runtime and of loop.
fn with_loops(test: impl Fn(Runtime, Loop)) {
    with_runtimes(|runtime| {
        let other = Loop::new(&runtime, Trigger::Level);
        test(runtime, other);
    });
    with_runtimes(|runtime| {
        let other = Loop::new(&runtime, Trigger::Edge);
        test(runtime, other);
    });
}

/// Gives turns without waiting until nothing is left to run.
fn exhaust(runtime: &Runtime) {
    while runtime.turn(NO_WAIT) == Turn::More {}
}

#[test]
fn a_turn_with_nothing_to_do_lasts_as_long_as_it_may() {
    with_runtimes(|runtime| {
        // The system ends a turn early if it stops the process meanwhile, so one of several is enough.
        let lasts = |left| {
            (0..10).any(|_| {
                let begun = Instant::now();
                assert_eq!(runtime.turn(Some(ms(50))), left);
                begun.elapsed() >= ms(50)
            })
        };
        assert!(lasts(Turn::Done));
        let sleeper = runtime.spawn_local(|| sleep(LONG));
        exhaust(&runtime);
        assert!(lasts(Turn::Waiting));
        sleeper.cancel();
    });
}

#[test]
fn a_turn_ends_early_when_another_thread_has_something_to_run() {
    with_runtimes(|runtime| {
        let (give, given) = mpsc::channel();
        let parked = runtime.spawn_local(move || {
            give.send(Unparker::current()).unwrap();
            park();
        });
        exhaust(&runtime);
        let unparker = given.recv().unwrap();
        let begun = Instant::now();
        let thread = std::thread::spawn(move || {
            settle();
            unparker.unpark();
        });
        while !parked.is_finished() {
            let _ = runtime.turn(Some(2 * LONG));
        }
        assert!(begun.elapsed() < LONG);
        thread.join().unwrap();
    });
}

#[test]
fn one_turn_takes_an_event_and_runs_what_waits_for_it() {
    with_runtimes(|runtime| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours = Stream::from(OwnedFd::from(ours));
        let reader = runtime.spawn_local(move || ours.read(&mut [0; 8]).unwrap());
        exhaust(&runtime);
        assert!(!reader.is_finished());
        theirs.write_all(b"hello").unwrap();
        let _ = runtime.turn(None);
        assert!(reader.is_finished());
        assert_eq!(runtime.run(|| reader.join().unwrap()), 5);
    });
}

#[test]
fn a_turn_says_what_it_has_left() {
    on_an_os_thread(|| {
        let runtime = runtime(1);
        assert_eq!(runtime.turn(NO_WAIT), Turn::Done);
        let yields = runtime.spawn_local(|| {
            for _ in 0..10_000 {
                yield_now();
            }
        });
        assert_eq!(runtime.turn(None), Turn::More);
        exhaust(&runtime);
        assert!(yields.is_finished());

        let (stop, stopped) = channel::oneshot();
        let waits = runtime.spawn(move || stopped.recv());
        assert_eq!(runtime.turn(NO_WAIT), Turn::Waiting);
        stop.send(()).unwrap();
        exhaust(&runtime);
        assert!(waits.is_finished());
        assert_eq!(runtime.turn(NO_WAIT), Turn::Done);

        runtime.handle().stop();
        assert_eq!(runtime.turn(None), Turn::Stopped);
    });
}

#[test]
fn a_daemon_does_not_keep_turns_from_being_done() {
    on_an_os_thread(|| {
        let runtime = runtime(1);
        runtime.spawn(|| greenroom::spawn_daemon(|| sleep(LONG)));
        exhaust(&runtime);
        assert_eq!(runtime.turn(NO_WAIT), Turn::Done);
        runtime.spawn(|| greenroom::after(ms(1), || ()));
        while runtime.turn(Some(LONG)) != Turn::Done {}
    });
}

#[test]
fn a_turn_is_bounded_while_coroutines_are_always_ready() {
    on_an_os_thread(|| {
        let runtime = runtime(1);
        let turns = Rc::new(Cell::new(0_u64));
        for _ in 0..3 {
            let turns = Rc::clone(&turns);
            runtime.spawn_local(move || {
                loop {
                    turns.set(turns.get() + 1);
                    yield_now();
                    interruption_point();
                }
            });
        }
        let mut before = 0;
        for _ in 0..50 {
            assert_eq!(runtime.turn(Some(LONG)), Turn::More);
            assert!(turns.get() > before, "each turn runs some");
            assert!(turns.get() <= before + 300, "no turn runs all");
            before = turns.get();
        }
    });
}

#[test]
fn coroutines_of_turns_use_what_belongs_to_the_thread() {
    with_runtimes(|runtime| {
        let order = Rc::new(Cell::new(Vec::new()));
        for n in 0..3 {
            let order = Rc::clone(&order);
            runtime.spawn_local(move || {
                sleep(ms(3 - n));
                let mut before = order.take();
                before.push(n);
                order.set(before);
            });
        }
        let mut frames = 0;
        while runtime.turn(Some(ms(1))) != Turn::Done {
            frames += 1;
        }
        let order = order.take();
        assert_eq!(order.len(), 3, "{order:?}");
        assert!(frames > 0);
    });
}

#[test]
fn turns_and_runs_take_turns() {
    with_runtimes(|runtime| {
        let count = Rc::new(Cell::new(0));
        let counter = {
            let count = Rc::clone(&count);
            runtime.spawn_local(move || {
                loop {
                    count.set(count.get() + 1);
                    sleep(ms(1));
                }
            })
        };
        for round in 1..5 {
            while count.get() < round * 10 {
                let _ = runtime.turn(Some(ms(5)));
            }
            while count.get() < round * 10 + 5 {
                runtime.run(|| sleep(ms(1)));
            }
        }
        counter.cancel();
        exhaust(&runtime);
        assert!(counter.is_finished());
    });
}

#[test]
fn a_turn_inside_a_coroutine_is_refused() {
    on_an_os_thread(|| {
        let runtime = runtime(1);
        let message = runtime.run(|| message_of(|| runtime.turn(NO_WAIT)));
        assert!(message.contains("inside a coroutine"), "{message}");
    });
}

#[test]
fn dropping_the_runtime_unwinds_what_turns_have_left() {
    with_runtimes(|runtime| {
        let drops = Arc::new(AtomicUsize::new(0));
        struct Counts(Arc<AtomicUsize>);
        impl Drop for Counts {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let _fd = runtime.as_fd();
        for _ in 0..10 {
            let (local, spawned) = (Counts(Arc::clone(&drops)), Counts(Arc::clone(&drops)));
            runtime.spawn_local(move || {
                let _local = local;
                sleep(LONG);
            });
            runtime.spawn(move || {
                let _spawned = spawned;
                sleep(LONG);
            });
        }
        exhaust(&runtime);
        drop(runtime);
        assert_eq!(drops.load(Ordering::SeqCst), 20);
    });
}

#[test]
fn the_descriptor_is_not_readable_while_nothing_happens() {
    with_loops(|runtime, other| {
        let (_keep, waits) = channel::oneshot::<()>();
        let waiter = runtime.spawn_local(move || waits.recv().is_ok());
        let sleeper = runtime.spawn_local(|| sleep(LONG));
        while other.wait(ms(100)) {
            // The memory of ended coroutines is given back once, a while after the burst.
            exhaust(&runtime);
        }
        assert!(!has_something(&runtime));
        assert!(!waiter.is_finished() && !sleeper.is_finished());
    });
}

/// In a runtime of several workers, another one runs what is spawned.
#[test]
fn the_descriptor_becomes_readable_when_another_thread_spawns() {
    for trigger in [Trigger::Level, Trigger::Edge] {
        on_an_os_thread(|| {
            let runtime = runtime(1);
            let other = Loop::new(&runtime, trigger);
            let handle = runtime.handle();
            let (give, given) = mpsc::channel();
            let thread = std::thread::spawn(move || {
                for n in 0..100 {
                    let give = give.clone();
                    handle.spawn(move || give.send(n).unwrap());
                }
            });
            let mut all = Vec::new();
            other.serve(&runtime, || {
                all.extend(given.try_iter());
                all.len() == 100
            });
            all.sort_unstable();
            assert!(all.into_iter().eq(0..100));
            thread.join().unwrap();
        });
    }
}

#[test]
fn the_descriptor_becomes_readable_when_another_thread_wakes_a_coroutine() {
    with_loops(|runtime, other| {
        let (give, given) = mpsc::channel();
        let rounds = runtime.spawn_local(move || {
            for _ in 0..200 {
                give.send(Unparker::current()).unwrap();
                park();
            }
        });
        let thread = std::thread::spawn(move || {
            for unparker in given {
                unparker.unpark();
            }
        });
        other.serve(&runtime, || rounds.is_finished());
        thread.join().unwrap();
    });
}

#[test]
fn the_descriptor_becomes_readable_when_its_own_thread_wakes_or_spawns_between_turns() {
    with_loops(|runtime, other| {
        let (send, messages) = channel::unbounded();
        let sum = runtime.spawn_local(move || messages.iter().sum::<u32>());
        while other.wait(ms(20)) {
            exhaust(&runtime);
        }
        for n in 1..=3 {
            send.send(n).unwrap();
            assert!(other.wait(LONG), "a wake");
            exhaust(&runtime);
        }
        drop(send);
        let mut spawned = runtime.spawn_local(|| 1);
        other.serve(&runtime, || spawned.is_finished() && sum.is_finished());
        for _ in 0..3 {
            while other.wait(ms(20)) {
                exhaust(&runtime);
            }
            spawned = runtime.spawn_local(|| 2);
            other.serve(&runtime, || spawned.is_finished());
        }
        assert_eq!(runtime.run(|| sum.join().unwrap()), 6);
    });
}

#[test]
fn the_descriptor_becomes_readable_at_a_deadline_and_at_no_other_time() {
    with_loops(|runtime, other| {
        let begun = Instant::now();
        let sleeps = runtime.spawn_local(|| (0..5).for_each(|_| sleep(ms(20))));
        other.serve(&runtime, || sleeps.is_finished());
        assert!(begun.elapsed() >= ms(100));
        // One for the spawn, one for each deadline, and some to spare for late ones.
        let wakes = other.wakes.get();
        assert!(wakes < 20, "{wakes}");
    });
}

/// A far deadline is put off before it passes, and a near one comes before it.
#[test]
fn the_descriptor_becomes_readable_at_the_nearest_of_changing_deadlines() {
    with_loops(|runtime, other| {
        let far = runtime.spawn_local(|| sleep(LONG));
        while other.wait(ms(20)) {
            exhaust(&runtime);
        }
        let near = runtime.spawn_local(|| {
            for millis in [30, 1, 20, 1] {
                assert!(greenroom::timeout(ms(millis), || sleep(LONG)).is_err());
            }
        });
        other.serve(&runtime, || near.is_finished());
        far.cancel();
        other.serve(&runtime, || far.is_finished());
    });
}

#[test]
fn the_descriptor_becomes_readable_at_an_event() {
    with_loops(|runtime, other| {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours = Stream::from(OwnedFd::from(ours));
        let echo = runtime.spawn_local(move || {
            let mut buffer = [0; 16];
            loop {
                let read = ours.read(&mut buffer).unwrap();
                if read == 0 {
                    break;
                }
                ours.write_all(&buffer[..read]).unwrap();
            }
        });
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 16];
            for n in 0..100 {
                theirs.write_all(&[n]).unwrap();
                assert_eq!(theirs.read(&mut buffer).unwrap(), 1);
                assert_eq!(buffer[0], n);
            }
        });
        other.serve(&runtime, || echo.is_finished());
        thread.join().unwrap();
    });
}

/// More events than the reactor takes at once.
#[test]
fn the_descriptor_stays_readable_until_all_events_are_taken() {
    with_loops(|runtime, other| {
        let (mut writers, readers): (Vec<_>, Vec<_>) = iter::repeat_with(|| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let mut ours = Stream::from(OwnedFd::from(ours));
            let reader = runtime.spawn_local(move || ours.read(&mut [0; 8]).unwrap());
            (theirs, reader)
        })
        .take(200)
        .unzip();
        while other.wait(ms(50)) {
            exhaust(&runtime);
        }
        for writer in &mut writers {
            writer.write_all(b"!").unwrap();
        }
        other.serve(&runtime, || {
            readers.iter().all(|reader| reader.is_finished())
        });
    });
}

#[test]
fn the_descriptor_stays_readable_while_there_is_more_to_run() {
    with_loops(|runtime, other| {
        let yields = runtime.spawn_local(|| (0..5_000).for_each(|_| yield_now()));
        other.serve(&runtime, || yields.is_finished());
        let idles = runtime.spawn_local(|| (0..100).for_each(|_| yield_until_idle()));
        other.serve(&runtime, || idles.is_finished());
    });
}

/// A spawn between turns counts on the search of the next turn.
#[test]
fn a_spawn_is_told_by_a_descriptor_that_was_first_asked_for_after_an_earlier_spawn() {
    on_an_os_thread(|| {
        let runtime = runtime(1);
        assert_eq!(runtime.turn(NO_WAIT), Turn::Done);
        runtime.spawn(|| ());
        assert!(has_something(&runtime.as_fd()));
        exhaust(&runtime);
        assert!(!has_something(&runtime.as_fd()));
        runtime.spawn(|| ());
        assert!(has_something(&runtime.as_fd()));
    });
}

/// The coroutine that is first in the queue of the lock needs the thread that is second.
#[test]
fn a_lock_goes_to_the_thread_of_the_loop_before_a_coroutine_that_has_no_turn() {
    on_an_os_thread(|| {
        let runtime = runtime(1);
        let lock = Arc::new(Mutex::new(()));
        let (tell_locked, locked) = mpsc::channel();
        let (tell_waiting, waiting) = mpsc::channel();
        let holder = std::thread::spawn({
            let lock = Arc::clone(&lock);
            move || {
                let _guard = lock.lock();
                tell_locked.send(()).unwrap();
                waiting.recv().unwrap();
                settle();
            }
        });
        locked.recv().unwrap();
        let coroutine = runtime.spawn_local({
            let lock = Arc::clone(&lock);
            move || drop(lock.lock().unwrap())
        });
        exhaust(&runtime);
        tell_waiting.send(()).unwrap();
        drop(lock.lock().unwrap());
        while !coroutine.is_finished() {
            assert_ne!(runtime.turn(None), Turn::Stopped);
        }
        holder.join().unwrap();
    });
}

#[test]
fn the_descriptor_becomes_readable_when_another_thread_asks_for_the_stop() {
    with_loops(|runtime, other| {
        runtime.spawn_local(|| sleep(LONG));
        while other.wait(ms(20)) {
            exhaust(&runtime);
        }
        let handle = runtime.handle();
        let thread = std::thread::spawn(move || {
            settle();
            handle.stop();
        });
        loop {
            assert!(other.wait(LONG));
            if runtime.turn(NO_WAIT) == Turn::Stopped {
                break;
            }
        }
        assert!(other.wait(LONG), "it stays readable");
        thread.join().unwrap();
    });
}

#[test]
fn the_descriptor_works_after_a_run() {
    with_loops(|runtime, other| {
        let (send, messages) = channel::unbounded();
        let sum = runtime.spawn_local(move || messages.iter().sum::<u32>());
        runtime.run(|| sleep(ms(1)));
        while other.wait(ms(20)) {
            exhaust(&runtime);
        }
        let thread = std::thread::spawn(move || (1..=3).for_each(|n| send.send(n).unwrap()));
        other.serve(&runtime, || sum.is_finished());
        thread.join().unwrap();
    });
}

/// Coroutines of all kinds of waits, with OS threads beside.
#[test]
fn a_loop_of_other_code_serves_mixed_work() {
    with_loops(|runtime, other| {
        let done = Arc::new(AtomicUsize::new(0));
        let all = 40;
        for n in 0..all {
            let done = Arc::clone(&done);
            let work = move || {
                let (ours, theirs) = UnixStream::pair().unwrap();
                let mut ours = Stream::from(OwnedFd::from(ours));
                let mut theirs = Stream::from(OwnedFd::from(theirs));
                let peer = spawn(move || {
                    sleep(ms(n % 7));
                    theirs.write_all(&[n as u8]).unwrap();
                });
                let mut byte = [0];
                ours.read_exact(&mut byte).unwrap();
                assert_eq!(u64::from(byte[0]), n);
                let locals: Vec<_> = (0..3).map(|n| spawn_local(move || n)).collect();
                peer.join().unwrap();
                assert_eq!(join_all(locals).into_iter().flatten().sum::<u32>(), 3);
                assert_eq!(greenroom::unblock(move || n * 2), n * 2);
                done.fetch_add(1, Ordering::SeqCst);
            };
            match n % 2 {
                0 => drop(runtime.spawn(work)),
                _ => drop(runtime.spawn_local(work)),
            }
        }
        let is_done = || done.load(Ordering::SeqCst) == all as usize;
        while !is_done() {
            // The last one may end on another worker.
            let _ = other.wait(ms(10));
            exhaust(&runtime);
        }
    });
}

/// The other workers do not wait for a loop that gives no turns.
#[test]
fn other_workers_go_on_between_turns() {
    on_an_os_thread(|| {
        for watched in [false, true] {
            let runtime = runtime(2);
            if watched {
                let _ = runtime.as_fd();
            }
            exhaust(&runtime);
            for _ in 0..200 {
                let several: Vec<_> = (0..5).map(|n| runtime.spawn(move || n)).collect();
                let sum: i32 = several.into_iter().map(|one| one.join().unwrap()).sum();
                assert_eq!(sum, 10);
            }
            // Coroutines that spawn on.
            let handle = runtime.handle();
            let grown = handle.spawn(|| {
                let children = (0..300).map(|n| spawn(move || n)).collect::<Vec<_>>();
                join_all(children).into_iter().flatten().sum::<i32>()
            });
            assert_eq!(grown.join().unwrap(), 44_850);
        }
    });
}

/// A callback of the other loop hands work to coroutines, and these hand results to the other loop.
#[test]
fn the_other_loop_and_coroutines_share_what_is_not_send() {
    with_loops(|runtime, other| {
        let inbox: Rc<RefCell<VecDeque<u32>>> = Rc::default();
        let (ask, asked) = channel::unbounded::<u32>();
        let answers = Rc::clone(&inbox);
        let squares = runtime.spawn_local(move || {
            for n in asked {
                sleep(ms(1));
                answers.borrow_mut().push_back(n * n);
            }
        });
        for n in 0..10 {
            ask.send(n).unwrap();
            other.serve(&runtime, || !inbox.borrow().is_empty());
            assert_eq!(inbox.borrow_mut().pop_front(), Some(n * n));
        }
        drop(ask);
        other.serve(&runtime, || squares.is_finished());
    });
}
