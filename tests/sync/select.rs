//! `select!` and `Select`: one arm is completed, of the others nothing is left; arms of all kinds, from
//! coroutines and OS threads.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use greenroom::channel::{self, RecvError, SendError, TryRecvError, TrySendError};
use greenroom::shims::sync::mpsc;
use greenroom::sync::futex::{self, Waited};
use greenroom::{
    Cancelled, Deadline, Interest, RuntimeBuilder, Select, park_timeout, select, spawn, yield_now,
};

use crate::util::{self, counter, everywhere, ms};

const LONG: Duration = Duration::from_secs(100);

// ---------------------------------------------------------- what is chosen

#[test]
fn an_arm_that_is_ready_is_chosen_and_the_others_stay() {
    everywhere(|| {
        let (sender, receiver) = channel::unbounded();
        let (_other, silent) = channel::unbounded::<u8>();
        let (full, keeps_full) = channel::bounded(1);
        full.send("first").unwrap();
        sender.send(7).unwrap();
        let mut message = Some("second");
        let got = select! {
            recv(silent) -> _ => unreachable!(),
            send(full, message) -> _ => unreachable!(),
            recv(receiver) -> got => got.unwrap(),
        };
        assert_eq!((got, message), (7, Some("second")));
        assert_eq!(keeps_full.recv(), Ok("first"));
        assert_eq!(keeps_full.try_recv(), Err(TryRecvError::Empty));
        select! {
            send(full, message) -> sent => sent.unwrap(),
            recv(receiver) -> _ => unreachable!(),
        }
        assert_eq!((keeps_full.recv(), message), (Ok("second"), None));
    });
}

#[test]
fn an_arm_that_becomes_ready_during_the_wait_is_chosen() {
    everywhere(|| {
        for which in [0, 1, 2, 3, 4] {
            let (sender, receiver) = channel::bounded(0);
            let (one, oneshot) = channel::oneshot();
            let (full, keeps_full) = channel::bounded(1);
            full.send(0).unwrap();
            let word = Arc::new(AtomicU32::new(0));
            let (_old, mut old) = (mpsc::channel::<u8>(), mpsc::channel());
            let old_sender = std::mem::replace(&mut old.0, mpsc::channel().0);
            let has_chosen = Arc::new(AtomicBool::new(false));
            let does = {
                let (word, has_chosen) = (Arc::clone(&word), Arc::clone(&has_chosen));
                let keeps_full = keeps_full.clone();
                spawn(move || {
                    util::settle();
                    match which {
                        0 => sender.send(1).unwrap(),
                        1 => one.send(1).unwrap(),
                        2 => drop(keeps_full.recv().unwrap()),
                        3 => {
                            word.store(1, SeqCst);
                            futex::wake(&word, 1);
                        }
                        _ => old_sender.send(1_u8).unwrap(),
                    }
                    // No end of a channel may go before.
                    util::until("the other has chosen", || has_chosen.load(SeqCst));
                })
            };
            let mut message = Some(1);
            let chosen = select! {
                recv(receiver) -> got => { assert_eq!(got, Ok(1)); 0 }
                recv(oneshot) -> got => { assert_eq!(got, Ok(1)); 1 }
                send(full, message) -> sent => { assert_eq!(sent, Ok(())); 2 }
                futex(word, 0) -> waited => { assert_ne!(waited, Waited::TimedOut); 3 }
                recv(old.1) -> got => { assert_eq!(got, Ok(1)); 4 }
                default(LONG) => 5,
            };
            has_chosen.store(true, SeqCst);
            assert_eq!(chosen, which);
            assert_eq!(message.is_none(), which == 2);
            does.join().unwrap();
        }
    });
}

#[test]
fn the_end_of_a_channel_is_chosen() {
    everywhere(|| {
        for during in [false, true] {
            let (sender, receiver) = channel::unbounded::<u8>();
            let (full, keeps_full) = channel::bounded(0);
            let end = move || drop((sender, keeps_full));
            let ends = match during {
                false => {
                    end();
                    None
                }
                true => Some(spawn(move || {
                    util::settle();
                    end();
                })),
            };
            let mut message = Some(1);
            for _ in 0..2 {
                select! {
                    recv(receiver) -> got => assert_eq!(got, Err(RecvError)),
                    send(full, message) -> sent => assert_eq!(sent, Err(SendError(1))),
                }
            }
            if let Some(ends) = ends {
                ends.join().unwrap();
            }
        }
    });
}

#[test]
fn a_default_is_chosen_if_nothing_else_is_ready() {
    everywhere(|| {
        let (sender, receiver) = channel::bounded(0);
        let mut message = Some(1);
        for _ in 0..100 {
            let chosen = select! {
                recv(receiver) -> _ => "received",
                send(sender, message) -> _ => "sent",
                default => "neither",
            };
            assert_eq!(
                (chosen, message),
                ("neither", Some(1)),
                "it does not meet itself"
            );
        }
        assert_eq!(
            sender.try_send(2),
            Err(TrySendError::Full(2)),
            "no receiver is left"
        );
        assert_eq!(
            receiver.try_recv(),
            Err(TryRecvError::Empty),
            "no sender is left"
        );
    });
}

#[test]
fn a_select_does_not_meet_itself_but_others_do() {
    everywhere(|| {
        let (sender, receiver) = channel::bounded(0);
        let mut message = Some(1);
        let alone = select! {
            recv(receiver) -> _ => "received",
            send(sender, message) -> _ => "sent",
            default(ms(2)) => "neither",
        };
        assert_eq!(alone, "neither");
        let other = {
            let (sender, receiver) = (sender.clone(), receiver.clone());
            spawn(move || {
                let mut message = Some(2);
                select! {
                    recv(receiver) -> got => assert_eq!(got, Ok(1)),
                    send(sender, message) -> sent => sent.unwrap(),
                }
                message.is_some()
            })
        };
        let received = select! {
            recv(receiver) -> got => { assert_eq!(got, Ok(2)); true }
            send(sender, message) -> sent => { sent.unwrap(); false }
        };
        let other_received = other.join().unwrap();
        assert_ne!(other_received, received, "one sends, the other receives");
        assert_eq!(message.is_some(), received);
    });
}

#[test]
fn the_earliest_deadline_is_chosen_and_leaves_no_waiter() {
    everywhere(|| {
        let (sender, receiver) = channel::bounded(0);
        let start = Instant::now();
        let chosen = select! {
            recv(receiver) -> _ => 0,
            default(LONG) => 1,
            deadline(start + ms(5)) => 2,
            deadline(Deadline::NEVER) => 3,
        };
        assert_eq!(chosen, 2);
        assert!(start.elapsed() >= ms(5));
        let passed = select! {
            recv(receiver) -> _ => false,
            deadline(start) => true,
        };
        assert!(passed);
        assert_eq!(
            sender.try_send(1),
            Err(TrySendError::Full(1)),
            "nobody waits"
        );
        drop(spawn(move || sender.send(2)));
        select! {
            recv(receiver) -> got => assert_eq!(got, Ok(2)),
            default(LONG) => unreachable!(),
        }
    });
}

#[test]
fn a_message_that_is_there_comes_before_a_deadline_that_has_passed() {
    let (sender, receiver) = channel::unbounded();
    sender.send(1).unwrap();
    let past = Instant::now();
    for _ in 0..2 {
        select! {
            deadline(past) => assert!(receiver.is_empty()),
            recv(receiver) -> got => assert_eq!(got, Ok(1)),
        }
    }
}

#[test]
fn a_deadline_that_has_passed_comes_before_a_default_and_a_later_one_does_not() {
    everywhere(|| {
        let (sender, receiver) = channel::unbounded();
        let past = Instant::now();
        sender.send(1).unwrap();
        for (at, wanted) in [(past, 1), (past, 2), (past + LONG, 3)] {
            let chosen = select! {
                default => 3,
                deadline(at) => 2,
                recv(receiver) -> got => got.unwrap(),
            };
            assert_eq!(chosen, wanted);
        }
        let mut select = Select::new();
        let later = select.deadline(past + LONG, || "later");
        assert_eq!(select.try_wait(), None);
        select.deadline(past, || "passed");
        assert_eq!(select.try_wait(), Some("passed"));
        select.set_enabled(later, false);
        assert_eq!(select.try_wait(), Some("passed"));
    });
}

#[test]
fn disabled_arms_are_neither_evaluated_nor_chosen() {
    everywhere(|| {
        let (sender, receiver) = channel::unbounded();
        sender.send(1).unwrap();
        let nothing: Vec<channel::Receiver<u8>> = Vec::new();
        let mut empty = None;
        let chosen = select! {
            recv(nothing[0]) -> _ if !nothing.is_empty() => 0,
            recv(receiver) -> _ if false => 1,
            send(sender, empty) -> _ => 2,
            default if false => 3,
            deadline(Instant::now()) if !receiver.is_empty() => 4,
        };
        assert_eq!((chosen, receiver.len()), (4, 1));
        let message = util::message_of(|| {
            select! {
                recv(receiver) -> _ if false => {}
                send(sender, empty) -> _ => {}
            }
        });
        assert!(message.contains("disabled"), "{message}");
    });
}

#[test]
fn code_of_an_arm_may_leave_the_loop_and_the_function_and_use_what_the_others_borrow() {
    fn first_long(receiver: &channel::Receiver<String>) -> Result<String, RecvError> {
        let mut kept = Some(String::new());
        let (sender, _receiver) = channel::bounded(0);
        loop {
            select! {
                recv(receiver) -> word => {
                    let word = word?;
                    if word.is_empty() {
                        continue;
                    }
                    kept = Some(word);
                    let _ = receiver.len();
                }
                send(sender, kept) -> _ => break,
                default => return Ok("nothing".to_owned()),
            }
            if kept.as_ref().is_some_and(|word| word.len() > 3) {
                return Ok(kept.unwrap());
            }
        }
        unreachable!("nobody receives")
    }
    let (sender, receiver) = channel::unbounded();
    for word in ["", "the", "long", "one"] {
        sender.send(word.to_owned()).unwrap();
    }
    assert_eq!(first_long(&receiver).unwrap(), "long");
    assert_eq!(first_long(&receiver).unwrap(), "nothing");
    drop(sender);
    assert_eq!(first_long(&receiver), Err(RecvError));
}

// ---------------------------------------------------------- joins

#[test]
fn coroutines_are_joined_as_they_end() {
    everywhere(|| {
        let (sender, receiver) = channel::oneshot::<()>();
        let mut quick = Some(spawn(|| 1));
        let mut slow = Some(spawn(move || {
            receiver.recv().unwrap();
            2
        }));
        let mut fails = None;
        let mut results = Vec::new();
        let mut sender = Some(sender);
        for _ in 0..3 {
            let result = select! {
                join(quick) -> result => result.unwrap(),
                join(slow) -> result => result.unwrap(),
                join(fails) -> result => {
                    let result: Result<i32, _> = result;
                    assert_eq!(util::message(&*result.unwrap_err()), "on purpose");
                    3
                }
                default(LONG) => unreachable!(),
            };
            results.push(result);
            match result {
                1 => {
                    assert!(quick.is_none() && slow.is_some());
                    fails = Some(spawn(|| -> i32 {
                        util::settle();
                        std::panic::resume_unwind(Box::new("on purpose"))
                    }));
                }
                _ => sender.take().map_or((), |sender| sender.send(()).unwrap()),
            }
        }
        assert_eq!(results, [1, 3, 2]);
    });
}

#[test]
fn a_coroutine_that_is_not_chosen_can_still_be_joined() {
    everywhere(|| {
        let (sender, receiver) = channel::bounded(0);
        let mut handle = Some(spawn(move || {
            sender.send(1).unwrap();
            yield_now();
            2
        }));
        for _ in 0..3 {
            select! {
                join(handle) -> _ => unreachable!(),
                default => {}
            }
        }
        select! {
            join(handle) -> _ => unreachable!("it waits for us"),
            recv(receiver) -> got => assert_eq!(got, Ok(1)),
        }
        assert_eq!(handle.unwrap().join().unwrap(), 2);
    });
}

#[test]
fn a_coroutine_that_selects_its_own_end_panics() {
    util::on_workers(1, || {
        let (sender, receiver) = channel::unbounded::<Option<greenroom::JoinHandle<()>>>();
        let (tell, told) = channel::unbounded();
        let own = spawn(move || {
            let mut own = receiver.recv().unwrap();
            let message = util::message_of(|| {
                select! {
                    join(own) -> _ => {}
                }
            });
            tell.send((message, own.is_some())).unwrap();
        });
        sender.send(Some(own)).unwrap();
        let (message, stays) = told.recv().unwrap();
        assert!(message.contains("waits for itself"), "{message}");
        assert!(stays);
    });
}

// ---------------------------------------------------------- descriptors

#[test]
fn descriptors_and_channels_are_waited_for_together() {
    everywhere(|| {
        for from_the_pipe in [true, false, true] {
            let (mut reader, mut writer) = std::io::pipe().unwrap();
            let (sender, receiver) = channel::unbounded();
            let does = spawn(move || {
                util::settle();
                match from_the_pipe {
                    true => writer.write_all(b"x").unwrap(),
                    false => sender.send(1).unwrap(),
                }
                (sender, writer)
            });
            let ready = select! {
                ready(reader, Interest::READABLE) -> ready => ready.unwrap().is_readable(),
                recv(receiver) -> got => { got.unwrap(); false }
                default(LONG) => unreachable!(),
            };
            assert_eq!(ready, from_the_pipe);
            if ready {
                reader.read_exact(&mut [0]).unwrap();
            }
            drop(does.join().unwrap());
        }
    });
}

#[test]
fn a_ready_descriptor_needs_no_wait_and_a_bad_one_is_an_error() {
    everywhere(|| {
        let (reader, writer) = std::io::pipe().unwrap();
        let (_sender, receiver) = channel::unbounded::<u8>();
        select! {
            recv(receiver) -> _ => unreachable!(),
            ready(writer, Interest::WRITABLE) -> ready => assert!(ready.unwrap().is_writable()),
        }
        select! {
            ready(reader, Interest::READABLE) -> _ => unreachable!(),
            recv(receiver) -> _ => unreachable!(),
            default(ms(2)) => {}
        }
        // The registration is gone: the number may be used for another file.
        let number = reader.as_raw_fd();
        drop(reader);
        let file = std::fs::File::open("/dev/null").unwrap();
        let regular = std::fs::File::open("Cargo.toml").unwrap();
        let error = select! {
            ready(regular, Interest::READABLE) -> ready => ready.unwrap_err(),
            recv(receiver) -> _ => unreachable!(),
        };
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::Unsupported,
            "{number} {file:?}"
        );
    });
}

#[test]
fn one_descriptor_in_two_arms_and_by_many_at_once() {
    everywhere(|| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let reader = Arc::new(reader);
        let waits = |n: u64| {
            let reader = Arc::clone(&reader);
            move || {
                select! {
                    ready(*reader, Interest::READABLE) -> ready => ready.unwrap().is_readable(),
                    ready(*reader, Interest::PRIORITY) -> _ => unreachable!(),
                    default(LONG + ms(n)) => false,
                }
            }
        };
        let coroutines = [0, 1].map(|n| spawn(waits(n)));
        let threads = [2, 3].map(|n| std::thread::spawn(waits(n)));
        util::settle();
        writer.write_all(b"x").unwrap();
        assert!(coroutines.into_iter().all(|one| one.join().unwrap()));
        assert!(threads.into_iter().all(|one| one.join().unwrap()));
    });
}

#[test]
fn a_select_that_ends_leaves_the_descriptors_of_others() {
    everywhere(|| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let (_sender, receiver) = channel::unbounded::<u8>();
        let mut outer = Select::new();
        outer.ready(&reader, Interest::READABLE, |ready| {
            ready.unwrap().is_readable()
        });
        outer.recv(&receiver, |_| unreachable!());
        assert_eq!(outer.wait_timeout(ms(1)), None);
        select! {
            ready(reader, Interest::PRIORITY) -> _ => unreachable!(),
            recv(receiver) -> _ => unreachable!(),
            default(ms(1)) => {}
        }
        let writes = spawn(move || {
            util::settle();
            writer.write_all(b"x").unwrap();
            writer
        });
        assert!(outer.wait());
        drop(writes.join().unwrap());
    });
}

#[test]
fn a_wait_does_not_spin_for_descriptors_that_it_is_not_for() {
    let test = || {
        let (ended, ends) = std::io::pipe().unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        let mut outer = Select::new();
        let end = outer.ready(&ended, Interest::READABLE, |ready| {
            ready.unwrap().is_readable()
        });
        outer.ready(&reader, Interest::READABLE, |_| unreachable!());
        assert_eq!(outer.wait_timeout(ms(1)), None);
        drop(ends);
        assert!(outer.wait());

        let before = util::thread_cpu_time();
        select! {
            ready(reader, Interest::READABLE) -> _ => unreachable!(),
            default(ms(100)) => {}
        }
        outer.set_enabled(end, false);
        assert_eq!(outer.wait_timeout(ms(100)), None);
        let spent = util::thread_cpu_time() - before;
        match spent < ms(50) {
            true => Ok(()),
            false => Err(format!("{spent:?} of 200 ms")),
        }
    };
    util::on_an_os_thread(|| util::in_one_of_ten(test));
    util::on_workers(1, || util::in_one_of_ten(test));
}

// ---------------------------------------------------------- fairness

#[test]
fn all_arms_that_are_ready_get_their_turn() {
    everywhere(|| {
        let channels = [(); 3].map(|()| channel::unbounded());
        let mut counts = [0; 3];
        for _ in 0..300 {
            for (sender, receiver) in &channels {
                if receiver.is_empty() {
                    sender.send(()).unwrap();
                }
            }
            let [(_, a), (_, b), (_, c)] = &channels;
            let chosen = select! {
                recv(a) -> _ => 0,
                recv(b) -> _ => 1,
                recv(c) -> _ => 2,
            };
            counts[chosen] += 1;
        }
        assert!(counts.iter().all(|&count| count > 30), "{counts:?}");
    });
}

#[test]
fn each_arm_that_is_ready_is_as_likely_as_the_others() {
    const WAITS: usize = 3_000;
    for arms in [4, 5, 64] {
        for ready in [
            vec![0, 1, 2],
            vec![0, arms - 1],
            (0..arms).step_by(3).collect(),
        ] {
            let channels: Vec<_> = (0..arms).map(|_| channel::unbounded()).collect();
            let mut select = Select::new();
            for (index, (_, receiver)) in channels.iter().enumerate() {
                select.recv(receiver, move |got| {
                    got.unwrap();
                    index
                });
            }
            for &index in &ready {
                (0..WAITS).for_each(|_| channels[index].0.send(()).unwrap());
            }
            let mut counts = vec![0_usize; arms];
            for _ in 0..WAITS {
                counts[select.wait()] += 1;
            }
            // More than six times the standard deviation.
            let expected = WAITS / ready.len();
            let off = 7 * expected.isqrt();
            let is_fair = |&index: &usize| counts[index].abs_diff(expected) < off;
            assert!(ready.iter().all(is_fair), "{ready:?} of {arms}: {counts:?}");
        }
    }
}

#[test]
fn a_select_that_always_finds_something_lets_others_run() {
    util::on_workers(1, || {
        let (sender, receiver) = channel::unbounded();
        let ticks = counter();
        let ticker = spawn({
            let ticks = Arc::clone(&ticks);
            move || {
                while ticks.fetch_add(1, SeqCst) < 20 {
                    yield_now();
                }
            }
        });
        while ticks.load(SeqCst) < 10 {
            sender.send(1).unwrap();
            select! {
                recv(receiver) -> got => assert_eq!(got, Ok(1)),
                default(LONG) => unreachable!(),
            }
        }
        ticker.join().unwrap();
    });
}

// ---------------------------------------------------------- any number of arms

#[test]
fn any_number_of_channels_is_waited_for() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            const CHANNELS: usize = 64;
            let (senders, receivers): (Vec<_>, Vec<_>) =
                (0..CHANNELS).map(|_| channel::bounded(1)).unzip();
            for (name, sender) in senders.into_iter().enumerate() {
                let sends = move || (0..20).for_each(|n| sender.send((name, n)).unwrap());
                match name % 8 {
                    0 => drop(std::thread::spawn(sends)),
                    _ => drop(spawn(sends)),
                }
            }
            let mut select = Select::new();
            for (index, receiver) in receivers.iter().enumerate() {
                assert_eq!(select.recv(receiver, move |got| (index, got)), index);
            }
            let mut next = [0; CHANNELS];
            let mut open = CHANNELS;
            while open > 0 {
                match select.wait() {
                    (index, Ok((name, n))) => {
                        assert_eq!((name, n), (index, next[index]));
                        next[index] += 1;
                    }
                    (index, Err(RecvError)) => {
                        assert_eq!(next[index], 20, "each message comes once");
                        select.set_enabled(index, false);
                        open -= 1;
                    }
                }
            }
            assert_eq!(select.len(), CHANNELS);
            assert!(select.try_wait().is_none());
        });
    }
}

#[test]
fn a_select_of_arms_of_all_kinds_can_be_waited_for_again() {
    everywhere(|| {
        let (sender, receiver) = channel::unbounded();
        let (to, from) = channel::bounded(0);
        let (reader, mut writer) = std::io::pipe().unwrap();
        let word = AtomicU32::new(0);
        let mut handle = Some(spawn(util::settle));
        let mut other = Some(spawn(|| park_timeout(LONG)));
        let mut message = Some("hello");
        let mut unsent = Some("stays");
        let (quiet, _receives) = channel::bounded(0);
        let mut select = Select::new();
        select.recv(&receiver, |got| got.unwrap());
        select.send(&to, &mut message, |sent| {
            sent.unwrap();
            "sent"
        });
        select.send(&quiet, &mut unsent, |_| unreachable!());
        select.join(&mut handle, |joined| {
            joined.unwrap();
            "joined"
        });
        select.join(&mut other, |_| unreachable!());
        let ready = select.ready(&reader, Interest::READABLE, |ready| {
            assert!(ready.unwrap().is_readable());
            "ready"
        });
        let changed = select.futex(&word, 0, |_| "changed");
        assert_eq!(select.wait(), "joined");
        assert_eq!(select.wait_timeout(ms(2)), None);
        assert_eq!(select.wait_deadline(Instant::now()), None);
        sender.send("received").unwrap();
        assert_eq!(select.wait_timeout(LONG), Some("received"));
        let receives = spawn(move || from.recv());
        assert_eq!(select.wait(), "sent");
        assert_eq!(receives.join().unwrap(), Ok("hello"));
        writer.write_all(b"x").unwrap();
        assert_eq!(select.wait(), "ready");
        select.set_enabled(ready, false);
        word.store(1, SeqCst);
        assert_eq!(select.wait(), "changed");
        select.set_enabled(changed, false);
        let passed = select.deadline(Instant::now(), || "passed");
        assert_eq!(select.wait(), "passed");
        select.set_enabled(passed, false);
        assert_eq!(select.try_wait(), None);
        drop(select);
        assert_eq!((message, unsent), (None, Some("stays")));
        assert!(handle.is_none());
        other.unwrap().cancel();
    });
}

#[test]
fn a_select_without_arms_panics_rather_than_wait_for_ever() {
    let message = util::message_of(|| Select::<()>::new().wait());
    assert!(message.contains("disabled"), "{message}");
    assert_eq!(Select::<()>::new().try_wait(), None);
    assert_eq!(Select::<()>::new().wait_timeout(ms(1)), None);
    assert!(Select::<()>::default().is_empty());
}

// ---------------------------------------------------------- interrupts

#[test]
fn a_select_that_is_cancelled_leaves_nothing() {
    util::on_an_os_thread(|| {
        let (sender, receiver) = channel::bounded(0);
        let (to, from) = channel::bounded(0);
        let (reader, _writer) = std::io::pipe().unwrap();
        let word = Arc::new(AtomicU32::new(0));
        let drops = counter();
        let unwound = counter();
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        runtime.run(|| {
            let waits = {
                let (receiver, to, word) = (receiver.clone(), to.clone(), Arc::clone(&word));
                let mut message = Some(util::Counted(Arc::clone(&drops)));
                let unwound = Arc::clone(&unwound);
                move || {
                    let mut handle = Some(spawn(|| park_timeout(LONG)));
                    let wait = AssertUnwindSafe(|| {
                        select! {
                            recv(receiver) -> _ => unreachable!(),
                            send(to, message) -> _ => unreachable!(),
                            ready(reader, Interest::READABLE) -> _ => unreachable!(),
                            futex(word, 0) -> _ => unreachable!(),
                            join(handle) -> _ => unreachable!(),
                            default(LONG) => unreachable!(),
                        }
                    });
                    let payload = catch_unwind(wait).unwrap_err();
                    assert!(payload.is::<Cancelled>());
                    assert!(
                        message.is_some() && handle.is_some(),
                        "what was not chosen stays"
                    );
                    handle.unwrap().cancel();
                    unwound.fetch_add(1, SeqCst);
                }
            };
            let cancelled = spawn(waits);
            park_timeout(ms(5));
            cancelled.cancel();
            assert!(cancelled.join().is_ok());
        });
        drop(runtime);
        assert_eq!((unwound.load(SeqCst), drops.load(SeqCst)), (1, 1));
        assert_eq!(
            sender.try_send(1),
            Err(TrySendError::Full(1)),
            "no receiver is left"
        );
        assert!(
            matches!(from.try_recv(), Err(TryRecvError::Empty)),
            "no sender is left"
        );
        assert_eq!(futex::wake(&word, 9), 0, "no waiter is left");
    });
}

#[test]
fn a_timeout_around_a_select_ends_it() {
    util::on_workers(1, || {
        let (_sender, receiver) = channel::unbounded::<u8>();
        let late = greenroom::timeout(ms(3), || {
            select! {
                recv(receiver) -> _ => unreachable!(),
                default(LONG) => unreachable!(),
            }
        });
        assert!(late.is_err());
    });
}

// ---------------------------------------------------------- stress

/// Selects and plain operations, of coroutines and OS threads, through several channels at once. No message
/// is lost or doubled, although many wait for several things, and time out at random.
#[test]
fn no_message_is_lost_or_doubled_under_stress() {
    const EACH: usize = 400;
    for workers in [1, 4] {
        for capacity in [0, 1, 5] {
            util::on_workers(workers, || {
                let (a, b) = (channel::bounded(capacity), channel::bounded(capacity));
                let produce = |name: usize| {
                    let (a, b) = (a.0.clone(), b.0.clone());
                    move || {
                        for n in 0..EACH {
                            let mut to_a = Some((name, n));
                            let mut to_b = None;
                            while to_a.is_some() || to_b.is_some() {
                                select! {
                                    send(a, to_a) -> sent => sent.unwrap(),
                                    send(b, to_b) -> sent => sent.unwrap(),
                                    default(Duration::from_micros(n as u64 % 60)) => {
                                        // Tries the other one.
                                        std::mem::swap(&mut to_a, &mut to_b);
                                    }
                                }
                            }
                        }
                    }
                };
                let received = counter();
                let sum = Arc::new(AtomicUsize::new(0));
                let consume = |selects: bool| {
                    let (a, b) = (a.1.clone(), b.1.clone());
                    let (received, sum) = (Arc::clone(&received), Arc::clone(&sum));
                    move || {
                        let take = |(name, n): (usize, usize)| {
                            sum.fetch_add(name * EACH + n, SeqCst);
                            received.fetch_add(1, SeqCst);
                        };
                        if !selects {
                            return a.iter().chain(b.iter()).for_each(take);
                        }
                        let (mut a_open, mut b_open) = (true, true);
                        while a_open || b_open {
                            select! {
                                recv(a) -> got if a_open => match got {
                                    Ok(got) => take(got),
                                    Err(RecvError) => a_open = false,
                                },
                                recv(b) -> got if b_open => match got {
                                    Ok(got) => take(got),
                                    Err(RecvError) => b_open = false,
                                },
                                default(Duration::from_micros(30)) => {}
                            }
                        }
                    }
                };
                let consumers: Vec<_> = [true, true, false].map(|s| spawn(consume(s))).into();
                let threads: Vec<_> = [true, false].map(|s| std::thread::spawn(consume(s))).into();
                let producers: Vec<_> = (0..3).map(|name| spawn(produce(name))).collect();
                let producing: Vec<_> = (3..5)
                    .map(|name| std::thread::spawn(produce(name)))
                    .collect();
                producers.into_iter().for_each(|one| one.join().unwrap());
                util::until("threads have sent", || {
                    producing.iter().all(std::thread::JoinHandle::is_finished)
                });
                drop((a, b));
                consumers.into_iter().for_each(|one| one.join().unwrap());
                threads.into_iter().for_each(|one| one.join().unwrap());
                assert_eq!(received.load(SeqCst), 5 * EACH);
                assert_eq!(sum.load(SeqCst), (0..5 * EACH).sum());
            });
        }
    }
}

/// Two coroutines that each send to and receive from the other, by selects over rendezvous channels.
#[test]
fn selects_that_find_each_other_do_not_go_round_for_ever() {
    for workers in [1, 2, 4] {
        util::on_workers(workers, || {
            const ROUNDS: usize = 2_000;
            let (a, b) = (channel::bounded(0), channel::bounded(0));
            let exchange = |to: channel::Sender<usize>, from: channel::Receiver<usize>| {
                move || {
                    let (mut sent, mut received) = (0, 0);
                    let mut message = Some(0);
                    while sent < ROUNDS || received < ROUNDS {
                        select! {
                            send(to, message) -> done => {
                                done.unwrap();
                                sent += 1;
                                message = (sent < ROUNDS).then_some(sent);
                            }
                            recv(from) -> got if received < ROUNDS => {
                                assert_eq!(got, Ok(received));
                                received += 1;
                            }
                        }
                    }
                }
            };
            let other = spawn(exchange(a.0, b.1));
            exchange(b.0, a.1)();
            other.join().unwrap();
        });
    }
}
