//! In debug builds, coroutines that block their worker are reported by name.

#[cfg(not(debug_assertions))]
#[test]
fn release_builds_report_nothing() {
    use std::sync::{Arc, Mutex, PoisonError};
    use std::time::Duration;

    use crate::util;

    assert!(!greenroom::deny_blocking());
    let told = Arc::new(Mutex::new(0));
    let hook = Arc::clone(&told);
    assert!(!greenroom::deny_blocking_with(move |_| {
        *hook.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }));
    assert_eq!(Arc::strong_count(&told), 1, "the hook is dropped");
    util::on_workers(2, || {
        let sleeper = greenroom::spawn(|| std::thread::sleep(Duration::from_millis(1)));
        sleeper.join().unwrap();
    });
    assert_eq!(*told.lock().unwrap(), 0);
}

#[cfg(debug_assertions)]
mod watched {
    use std::io::{Read, Write};
    use std::panic::Location;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
    use std::time::{Duration, Instant};

    use greenroom::{BlockingReport, Builder, JoinHandle, shims, spawn};
    use serial_test::serial;

    use crate::util;

    const MOMENT: Duration = Duration::from_millis(5);

    /// The content of a report.
    #[derive(Clone, Debug)]
    struct Finding {
        name: String,
        spawned_at: &'static Location<'static>,
        turns: u64,
        text: String,
    }

    /// The reports that come from now on.
    #[derive(Clone, Default)]
    struct Findings(Arc<Mutex<Vec<Finding>>>);

    impl Findings {
        fn new() -> Findings {
            let findings = Findings::default();
            let noted = findings.clone();
            assert!(greenroom::deny_blocking_with(
                move |report| noted.note(report)
            ));
            findings
        }

        fn note(&self, report: &BlockingReport<'_>) {
            assert!(report.times() > 0 || report.waits_in_initialiser());
            self.lock().push(Finding {
                name: report.name().unwrap_or("").to_owned(),
                spawned_at: report.spawned_at(),
                turns: report.turns(),
                text: report.to_string(),
            });
        }

        fn lock(&self) -> MutexGuard<'_, Vec<Finding>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        fn take(&self) -> Vec<Finding> {
            std::mem::take(&mut *self.lock())
        }

        /// The reports about coroutines with that name. On a busy machine there may be reports about
        /// others: any access to memory may have to wait for a page, or for a lock in the kernel.
        fn take_of(&self, name: &str) -> Vec<Finding> {
            let all = self.take().into_iter();
            all.filter(|finding| finding.name == name).collect()
        }
    }

    /// Checks that the reports of `f` satisfy `is_right`, in one of twenty attempts. Reports that the
    /// machine causes are rare, and wrong reports would come each time.
    fn undisturbed(f: impl Fn(), is_right: impl Fn(&[Finding]) -> bool) {
        let attempt = || {
            let findings = Findings::new();
            f();
            findings.take()
        };
        let mut found = attempt();
        for _ in 0..19 {
            if is_right(&found) {
                return;
            }
            found = attempt();
        }
        assert!(is_right(&found), "{found:?}");
    }

    fn assert_nobody_is_blamed(f: impl Fn()) {
        undisturbed(f, <[Finding]>::is_empty);
    }

    /// Has four workers contend for every lock that they share.
    fn hammer(rounds: usize) {
        util::on_workers(4, || {
            let stop = Arc::new(AtomicBool::new(false));
            let listener = shims::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let server = spawn(move || {
                for _ in 0..8 {
                    let (mut stream, _) = listener.accept().unwrap();
                    spawn(move || {
                        let mut bytes = [0; 64];
                        while stream.read(&mut bytes).unwrap() > 0 {
                            stream.write_all(&bytes).unwrap();
                        }
                    });
                }
            });
            let clients: Vec<_> = (0..8)
                .map(|_| {
                    spawn(move || {
                        let mut stream = shims::net::TcpStream::connect(addr).unwrap();
                        let mut bytes = [7; 64];
                        for _ in 0..rounds {
                            stream.write_all(&bytes).unwrap();
                            stream.read_exact(&mut bytes).unwrap();
                        }
                    })
                })
                .collect();
            let spawners: Vec<_> = (0..8)
                .map(|_| {
                    spawn(move || {
                        for n in 0..rounds {
                            let text = format!("{n}");
                            let other = spawn(move || text + "!");
                            assert!(other.join().unwrap().ends_with('!'));
                        }
                    })
                })
                .collect();
            let waiters: Vec<_> = (0..4)
                .map(|_| {
                    let stop = Arc::clone(&stop);
                    spawn(move || {
                        while !stop.load(SeqCst) {
                            greenroom::park();
                        }
                    })
                })
                .collect();
            let wakers: Vec<_> = (0..4)
                .map(|n| {
                    let thread = waiters[n].thread().clone();
                    spawn(move || {
                        for _ in 0..rounds * 4 {
                            thread.unpark();
                            greenroom::yield_now();
                        }
                    })
                })
                .collect();
            let sleepers: Vec<_> = (0..4)
                .map(|_| {
                    spawn(move || {
                        for _ in 0..rounds / 20 {
                            shims::thread::sleep(Duration::from_micros(50));
                            greenroom::unblock(|| std::thread::sleep(Duration::from_micros(20)));
                        }
                    })
                })
                .collect();
            let counter = Arc::new(shims::sync::Mutex::new(0));
            let (sender, receiver) = shims::sync::mpsc::channel();
            let lockers: Vec<_> = (0..8)
                .map(|_| {
                    let (counter, sender) = (Arc::clone(&counter), sender.clone());
                    spawn(move || {
                        for _ in 0..rounds {
                            let mut count = counter.lock().unwrap();
                            greenroom::yield_now();
                            *count += 1;
                            drop(count);
                            sender.send(()).unwrap();
                        }
                    })
                })
                .collect();
            drop(sender);
            assert_eq!(receiver.iter().count(), 8 * rounds);
            let all = [clients, spawners, wakers, sleepers, lockers];
            all.into_iter().flatten().for_each(|h| h.join().unwrap());
            stop.store(true, SeqCst);
            for waiter in waiters {
                waiter.thread().unpark();
                waiter.join().unwrap();
            }
            server.join().unwrap();
        });
    }

    fn named(name: &str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
        Builder::new().name(name.to_owned()).spawn(body).unwrap()
    }

    fn sleep_in_c() {
        let moment = libc::timespec {
            tv_sec: 0,
            tv_nsec: MOMENT.as_nanos() as libc::c_long,
        };
        // SAFETY: the first pointer is to a `timespec`, and the second may be null.
        unsafe { libc::nanosleep(&moment, std::ptr::null_mut()) };
    }

    /// The calling thread, for `until_blocked`.
    fn thread_id() -> libc::pid_t {
        // SAFETY: the call has no preconditions.
        unsafe { libc::gettid() }
    }

    /// Waits until the thread blocks.
    fn until_blocked(thread: libc::pid_t) {
        let is_blocked = || {
            let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('S')
        };
        while !is_blocked() {
            std::thread::yield_now();
        }
    }

    /// Takes a lock that another thread holds until this thread blocks.
    fn contend() {
        let lock = Arc::new(Mutex::new(()));
        let is_locked = Arc::new(AtomicBool::new(false));
        let (about_to_lock, who) = mpsc::channel();
        let holder = std::thread::spawn({
            let (lock, is_locked) = (Arc::clone(&lock), Arc::clone(&is_locked));
            move || {
                let _guard = lock.lock().unwrap();
                is_locked.store(true, SeqCst);
                until_blocked(who.recv().unwrap());
            }
        });
        while !is_locked.load(SeqCst) {
            greenroom::yield_now();
        }
        about_to_lock.send(thread_id()).unwrap();
        drop(lock.lock().unwrap());
        until_finished(&holder);
    }

    /// Reads a pipe to which another thread writes once this thread blocks.
    fn read_a_pipe() {
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let (about_to_read, who) = mpsc::channel();
        let writing = std::thread::spawn(move || {
            until_blocked(who.recv().unwrap());
            writer.write_all(b"x").unwrap();
        });
        about_to_read.send(thread_id()).unwrap();
        reader.read_exact(&mut [0]).unwrap();
        until_finished(&writing);
    }

    fn until_finished(thread: &std::thread::JoinHandle<()>) {
        while !thread.is_finished() {
            greenroom::yield_now();
        }
    }

    #[test]
    #[serial]
    fn a_coroutine_that_blocks_is_named_with_its_spawn_site() {
        let findings = Findings::new();
        for workers in [1, 2] {
            for (name, offend) in [
                ("sleeps", (|| std::thread::sleep(MOMENT)) as fn()),
                ("locks", contend),
                ("reads", read_a_pipe),
                ("sleeps in C", sleep_in_c),
            ] {
                let line = util::on_workers(workers, || {
                    spawn(|| shims::thread::sleep(MOMENT)).join().unwrap();
                    let (line, offender) =
                        (line!(), Builder::new().name(name.to_owned()).spawn(offend));
                    offender.unwrap().join().unwrap();
                    line
                });
                let found = findings.take_of(name);
                assert!(!found.is_empty(), "{name}");
                for Finding {
                    spawned_at, text, ..
                } in found
                {
                    assert_eq!(spawned_at.file(), file!());
                    assert_eq!(spawned_at.line(), line);
                    let says = format!("coroutine '{name}' (spawned at {}:{line}:", file!());
                    assert!(text.starts_with(&says), "{text}");
                    assert!(text.contains("has blocked its worker: "), "{text}");
                }
            }
        }
    }

    #[test]
    #[serial]
    fn blocking_turns_are_counted_by_spawn_site() {
        let findings = Findings::new();
        util::on_workers(2, || {
            for name in ["one", "two"] {
                named(name, || {
                    for n in 0..3 {
                        if n > 0 {
                            greenroom::yield_now();
                        }
                        sleep_in_c();
                    }
                })
                .join()
                .unwrap();
            }
            let elsewhere = Builder::new().name("elsewhere".into());
            elsewhere.spawn(sleep_in_c).unwrap().join().unwrap();
        });
        let found = findings.take();
        let found = found.iter().map(|f| (&*f.name, f.turns));
        let is_an_offender = |name| ["one", "two", "elsewhere"].contains(&name);
        let found: Vec<_> = found.filter(|(name, _)| is_an_offender(*name)).collect();
        let wanted = [
            ("one", 1),
            ("one", 2),
            ("one", 3),
            ("two", 4),
            ("two", 5),
            ("two", 6),
            ("elsewhere", 1),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    #[serial]
    fn a_turn_that_blocks_often_says_how_often() {
        let sleep_thrice = || {
            util::on_workers(1, || {
                spawn(|| (0..3).for_each(|_| sleep_in_c())).join().unwrap();
            });
        };
        let says = "has blocked its worker: 3 times, in a turn of ";
        undisturbed(
            sleep_thrice,
            |found| matches!(found, [one] if one.text.contains(says)),
        );
    }

    #[test]
    #[serial]
    fn a_park_is_not_reported() {
        for workers in [1, 2] {
            assert_nobody_is_blamed(|| {
                util::on_workers(workers, || {
                    shims::thread::sleep(MOMENT);
                    greenroom::unblock(|| std::thread::sleep(MOMENT));
                    let parked = spawn(greenroom::park);
                    parked.thread().unpark();
                    parked.join().unwrap();

                    let listener = shims::net::TcpListener::bind("127.0.0.1:0").unwrap();
                    let addr = listener.local_addr().unwrap();
                    let writer = spawn(move || {
                        let mut stream = shims::net::TcpStream::connect(addr).unwrap();
                        shims::thread::sleep(MOMENT);
                        stream.write_all(b"x").unwrap();
                    });
                    let (mut reader, _) = listener.accept().unwrap();
                    reader.read_exact(&mut [0]).unwrap();
                    writer.join().unwrap();

                    let (mut reader, mut writer) = shims::io::pipe().unwrap();
                    let writing = spawn(move || {
                        shims::thread::sleep(MOMENT);
                        writer.write_all(b"x").unwrap();
                    });
                    reader.read_exact(&mut [0]).unwrap();
                    writing.join().unwrap();
                    assert!(shims::fs::read(file!()).unwrap().len() > 1_000);

                    let lock = Arc::new(shims::sync::Mutex::new(()));
                    let (told, is_told) = shims::sync::mpsc::channel();
                    let holder = std::thread::spawn({
                        let lock = Arc::clone(&lock);
                        move || {
                            let _guard = lock.lock().unwrap();
                            told.send(()).unwrap();
                            std::thread::sleep(MOMENT);
                        }
                    });
                    is_told.recv().unwrap();
                    drop(lock.lock().unwrap());
                    until_finished(&holder);
                })
            });
        }
    }

    #[test]
    #[serial]
    fn computing_and_yielding_the_processor_are_not_reported() {
        assert_nobody_is_blamed(|| {
            util::on_workers(2, || {
                let start = Instant::now();
                while start.elapsed() < 4 * MOMENT {
                    std::thread::yield_now();
                }
            });
        });
    }

    #[test]
    #[serial]
    fn an_idle_runtime_has_nothing_to_report() {
        for workers in [1, 2] {
            assert_nobody_is_blamed(|| {
                util::on_workers(workers, || {
                    let idle: Vec<_> = (0..20).map(|_| spawn(greenroom::park)).collect();
                    // The workers sleep meanwhile.
                    greenroom::park_timeout(Duration::from_millis(50));
                    for idle in idle {
                        idle.thread().unpark();
                        idle.join().unwrap();
                    }
                })
            });
        }
    }

    #[test]
    #[serial]
    fn four_contending_workers_are_not_reported() {
        assert_nobody_is_blamed(|| hammer(300));
    }

    #[test]
    #[serial]
    fn a_hook_that_panics_costs_no_worker() {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        assert!(greenroom::deny_blocking_with(|report| {
            CALLS.fetch_add(u64::from(report.name() == Some("sleeper")), SeqCst);
            panic!("on purpose");
        }));
        let sleeper = || Builder::new().name("sleeper".into());
        let joined = util::on_workers(1, || {
            [0, 1].map(|n| {
                let sleeper = sleeper().spawn(move || (sleep_in_c(), n).1);
                sleeper.unwrap().join().unwrap()
            })
        });
        assert_eq!(joined, [0, 1]);
        assert_eq!(CALLS.load(SeqCst), 2);
    }

    #[test]
    #[serial]
    fn a_wait_in_the_initialiser_of_a_thread_local_is_named() {
        thread_local! {
            static PARKS: u8 = {
                shims::thread::sleep(MOMENT);
                1
            };
            static PARKS_LATER: u8 = const { 2 };
        }
        let findings = Findings::new();
        util::on_workers(1, || {
            // All are spawned here, because turns are counted by spawn site.
            let named = |name: &str, body: fn()| {
                let builder = Builder::new().name(name.to_owned());
                builder.spawn(body).unwrap()
            };
            let parks = || {
                let parks = named("parks", || PARKS.with(|value| assert_eq!(*value, 1)));
                parks.join().unwrap();
            };
            // The second call finds the value.
            parks();
            parks();
            let later = named("parks later", || {
                PARKS_LATER.with(|value| {
                    shims::thread::sleep(MOMENT);
                    assert_eq!(*value, 2);
                });
            });
            later.join().unwrap();
        });
        let mut found = findings.take();
        found.retain(|finding| finding.text.contains("initialiser"));
        let names: Vec<_> = found.iter().map(|finding| &*finding.name).collect();
        assert_eq!(names, ["parks"]);
    }

    #[test]
    #[serial]
    fn by_default_each_place_is_written_once_to_standard_error() {
        const NAME: &str = "by_default_each_place_is_written_once_to_standard_error";
        if util::role().is_some() {
            util::on_workers(2, || {
                named("before the call", sleep_in_c).join().unwrap();
                assert!(greenroom::deny_blocking());
                let together: Vec<_> = (0..4).map(|_| named("offender", sleep_in_c)).collect();
                together.into_iter().for_each(|h| h.join().unwrap());
                spawn(sleep_in_c).join().unwrap();
                let parks = named("parks", || shims::thread::sleep(MOMENT));
                parks.join().unwrap();
            });
            return;
        }
        let output = util::again!(NAME, "child").output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{stderr}");
        assert!(!stderr.contains("before the call"), "{stderr}");
        let lines = stderr.lines();
        let is_an_offence =
            |line: &&str| line.contains("'offender'") || line.contains("'<unnamed>'");
        let lines: Vec<_> = lines.filter(is_an_offence).collect();
        let here = file!();
        assert_eq!(lines.len(), 2, "{stderr}");
        let first = format!("greenroom: coroutine 'offender' (spawned at {here}:");
        assert!(lines[0].starts_with(&first), "{stderr}");
        let second = format!("greenroom: coroutine '<unnamed>' (spawned at {here}:");
        assert!(lines[1].starts_with(&second), "{stderr}");
        for line in lines {
            assert!(line.contains(") has blocked its worker: "), "{line}");
            assert!(line.ends_with("ms") || line.ends_with('s'), "{line}");
        }
    }
}
