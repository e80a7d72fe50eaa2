//! Signals. Each test starts this binary again, because a signal is sent to a whole process.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greenroom::signal::{self, SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, Signals};
use greenroom::{Cancelled, Group, Interest, wait_fd};
use serial_test::parallel;

use crate::util::{self, PATIENCE};

/// Runs `body` in a process that runs nothing else. Returns how that process has ended.
fn alone(test: &str, body: impl FnOnce()) -> ExitStatus {
    if util::role().is_some() {
        body();
        std::process::exit(0);
    }
    util::again!(test, "alone").status().unwrap()
}

/// Runs `body` in a process that runs nothing else. Fails if `body` does.
#[track_caller]
fn passes_alone(test: &str, body: impl FnOnce()) {
    let status = alone(test, body);
    assert!(status.success(), "{status}");
}

/// Starts the process of `test` that has the role `role`. Its standard input and output are pipes.
fn start(test: &str, role: &str) -> Child {
    let mut command = util::again!(test, role);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

fn send(process: u32, signal: i32) {
    // SAFETY: kill has no preconditions.
    let sent = unsafe { libc::kill(process as i32, signal) };
    assert_eq!(sent, 0, "{}", io::Error::last_os_error());
}

/// Sends a signal to this process, which any thread may handle.
fn send_to_self(signal: i32) {
    send(std::process::id(), signal);
}

/// Handles `signal` on the calling thread, before it returns.
fn raise(signal: i32) {
    // SAFETY: raise has no preconditions.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

fn is_invalid<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput)
}

#[test]
#[parallel]
fn a_wait_ends_with_one_of_its_signals_and_no_other() {
    passes_alone("a_wait_ends_with_one_of_its_signals_and_no_other", || {
        // Keeps the default actions away.
        let _all = Signals::new(&[SIGHUP, SIGUSR1, SIGUSR2]).unwrap();
        util::everywhere(|| {
            let waits = || signal::wait(&[SIGUSR1, SIGUSR2]).unwrap();
            let coroutine = greenroom::spawn(waits);
            let thread = std::thread::spawn(waits);
            for _ in 0..5 {
                send_to_self(SIGHUP);
                greenroom::shims::thread::sleep(Duration::from_millis(1));
            }
            assert!(!coroutine.is_finished() && !thread.is_finished());
            // The waits may not have begun. Each signal is handled before the next place begins its waits.
            while !coroutine.is_finished() || !thread.is_finished() {
                raise(SIGUSR2);
                greenroom::shims::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(coroutine.join().unwrap(), SIGUSR2);
            assert_eq!(thread.join().unwrap(), SIGUSR2);
            let mut signals = Signals::new(&[SIGUSR1]).unwrap();
            let sender = std::thread::spawn(|| {
                std::thread::sleep(Duration::from_millis(2));
                send_to_self(SIGUSR1);
            });
            assert_eq!(signals.next().unwrap().unwrap(), SIGUSR1);
            sender.join().unwrap();
        });
    });
}

#[test]
#[parallel]
fn all_that_wait_for_a_signal_see_it() {
    passes_alone("all_that_wait_for_a_signal_see_it", || {
        for workers in [1, 4] {
            util::on_workers(workers, || {
                let signals = [(); 5].map(|()| Signals::new(&[SIGUSR1]).unwrap());
                let waiting = signals.map(|mut signals| {
                    greenroom::spawn(move || {
                        let first = signals.next().unwrap().unwrap();
                        (first, signals.try_next().unwrap())
                    })
                });
                let on_thread = Signals::new(&[SIGUSR1]).unwrap();
                let thread = std::thread::spawn(move || on_thread.next_timeout(PATIENCE).unwrap());
                greenroom::yield_now();
                send_to_self(SIGUSR1);
                for waiter in waiting {
                    assert_eq!(waiter.join().unwrap(), (SIGUSR1, None));
                }
                assert_eq!(greenroom::join_thread(thread).unwrap(), SIGUSR1);
            });
        }
    });
}

#[test]
#[parallel]
fn a_signal_that_comes_often_is_taken_once_and_signals_keep_their_order() {
    let test = "a_signal_that_comes_often_is_taken_once_and_signals_keep_their_order";
    passes_alone(test, || {
        util::everywhere(|| {
            let real_time = libc::SIGRTMIN() + 3;
            let signals = Signals::new(&[SIGUSR1, SIGUSR2, real_time, SIGUSR1]).unwrap();
            let take = || signals.try_next().unwrap();
            assert_eq!(take(), None);
            for _ in 0..100 {
                raise(SIGUSR2);
                raise(real_time);
            }
            raise(SIGUSR1);
            assert_eq!(take(), Some(SIGUSR2));
            raise(SIGUSR2);
            assert_eq!(take(), Some(real_time));
            assert_eq!(take(), Some(SIGUSR1));
            assert_eq!(take(), Some(SIGUSR2));
            assert_eq!(take(), None);
        });
    });
}

#[test]
#[parallel]
fn a_wait_times_out_and_is_cancelled_and_loses_no_signal() {
    passes_alone(
        "a_wait_times_out_and_is_cancelled_and_loses_no_signal",
        || {
            util::everywhere(|| {
                let limit = Duration::from_millis(5);
                let signals = Signals::new(&[SIGUSR1]).unwrap();
                let error = signals.next_timeout(limit).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                let start = Instant::now();
                greenroom::timeout(limit, || signal::wait(&[SIGUSR1])).unwrap_err();
                assert!(start.elapsed() >= limit);
                raise(SIGUSR1);
                // A signal that has come is taken even if there is no time.
                assert_eq!(signals.next_timeout(Duration::ZERO).unwrap(), SIGUSR1);

                let shared = std::sync::Arc::new(signals);
                let waiter = greenroom::spawn({
                    let signals = std::sync::Arc::clone(&shared);
                    move || signals.next_timeout(Duration::MAX)
                });
                greenroom::shims::thread::sleep(limit);
                waiter.cancel();
                assert!(waiter.join().unwrap_err().is::<Cancelled>());
                raise(SIGUSR1);
                assert_eq!(shared.try_next().unwrap(), Some(SIGUSR1));
            });
        },
    );
}

#[test]
#[parallel]
fn the_descriptor_is_readable_until_the_last_signal_is_taken() {
    passes_alone(
        "the_descriptor_is_readable_until_the_last_signal_is_taken",
        || {
            util::everywhere(|| {
                let signals = Signals::new(&[SIGUSR1, SIGUSR2]).unwrap();
                let in_time = || Some(Instant::now() + Duration::from_millis(5));
                let is_ready = || wait_fd(&signals, Interest::READABLE, in_time()).is_ok();
                assert!(!is_ready());
                raise(SIGUSR1);
                raise(SIGUSR2);
                assert!(is_ready());
                assert_eq!(signals.try_next().unwrap(), Some(SIGUSR1));
                assert!(is_ready());
                assert_eq!(signals.try_next().unwrap(), Some(SIGUSR2));
                assert!(!is_ready());

                let (sender, receiver) = greenroom::channel::bounded::<()>(1);
                std::thread::spawn(|| {
                    std::thread::sleep(Duration::from_millis(2));
                    send_to_self(SIGUSR2);
                });
                let chosen = greenroom::select! {
                    recv(receiver) -> received => panic!("{received:?}"),
                    ready(signals, Interest::READABLE) -> ready => {
                        assert!(ready.unwrap().is_readable());
                        signals.try_next().unwrap()
                    }
                };
                assert_eq!(chosen, Some(SIGUSR2));
                drop(sender);
            });
        },
    );
}

#[test]
#[parallel]
fn a_signal_has_its_default_action_until_it_is_asked_for() {
    let test = "a_signal_has_its_default_action_until_it_is_asked_for";
    let status = alone(test, || {
        util::on_workers(2, || {
            let _others = Signals::new(&[SIGUSR1, SIGINT]).unwrap();
            raise(SIGINT);
            raise(SIGTERM);
        });
    });
    assert_eq!(status.signal(), Some(SIGTERM), "{status}");
}

#[test]
#[parallel]
fn a_signal_that_nothing_waits_for_any_more_is_ignored() {
    passes_alone(
        "a_signal_that_nothing_waits_for_any_more_is_ignored",
        || {
            util::on_workers(1, || {
                drop(Signals::new(&[SIGTERM]).unwrap());
                raise(SIGTERM);
                let again = Signals::new(&[SIGTERM]).unwrap();
                assert_eq!(again.try_next().unwrap(), None);
            });
        },
    );
}

#[test]
#[parallel]
fn the_default_action_can_be_restored_and_taken_away_again() {
    let test = "the_default_action_can_be_restored_and_taken_away_again";
    let status = alone(test, || {
        util::on_workers(1, || {
            let first = Signals::new(&[SIGTERM, SIGHUP]).unwrap();
            signal::restore_default(&[SIGTERM, SIGCHLD]).unwrap();
            // Its default action is none.
            raise(SIGCHLD);
            raise(SIGHUP);
            let second = Signals::new(&[SIGTERM]).unwrap();
            raise(SIGTERM);
            assert_eq!(first.try_next().unwrap(), Some(SIGHUP));
            assert_eq!(first.try_next().unwrap(), Some(SIGTERM));
            assert_eq!(second.try_next().unwrap(), Some(SIGTERM));
            signal::restore_default(&[SIGTERM]).unwrap();
            raise(SIGTERM);
        });
    });
    assert_eq!(status.signal(), Some(SIGTERM), "{status}");
}

#[test]
#[parallel]
fn signals_that_cannot_be_waited_for_are_refused_and_nothing_changes() {
    let test = "signals_that_cannot_be_waited_for_are_refused_and_nothing_changes";
    let status = alone(test, || {
        let no_signals = [0, -1, i32::MIN, 32, 33, 65, 128, 1000, i32::MAX];
        let faults = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE];
        let never = [libc::SIGKILL, libc::SIGSTOP];
        for signal in no_signals.into_iter().chain(faults).chain(never) {
            assert!(is_invalid(Signals::new(&[SIGTERM, signal])), "{signal}");
            assert!(is_invalid(signal::wait(&[signal])), "{signal}");
            assert!(
                is_invalid(signal::restore_default(&[SIGTERM, signal])),
                "{signal}"
            );
        }
        assert!(is_invalid(Signals::new(&[])));
        assert!(is_invalid(signal::wait(&[])));
        assert!(is_invalid(signal::restore_default(&[
            SIGTERM,
            libc::SIGRTMIN()
        ])));
        for signal in [libc::SIGRTMIN(), libc::SIGRTMAX()] {
            let signals = Signals::new(&[signal]).unwrap();
            raise(signal);
            assert_eq!(signals.try_next().unwrap(), Some(signal));
        }
        raise(SIGTERM);
    });
    assert_eq!(status.signal(), Some(SIGTERM), "{status}");
}

#[test]
#[parallel]
fn without_descriptors_to_be_had_a_wait_fails_and_nothing_changes() {
    let test = "without_descriptors_to_be_had_a_wait_fails_and_nothing_changes";
    let status = alone(test, || {
        let mut held = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            held.push(file);
        }
        let error = signal::wait(&[SIGTERM]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        raise(SIGTERM);
    });
    assert_eq!(status.signal(), Some(SIGTERM), "{status}");
}

#[test]
#[parallel]
fn a_signal_of_a_forked_child_is_none_of_its_parent() {
    passes_alone("a_signal_of_a_forked_child_is_none_of_its_parent", || {
        let signals = Signals::new(&[SIGUSR1, SIGUSR2]).unwrap();
        // SAFETY: the child only raises a signal, and exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            raise(SIGUSR1);
            // SAFETY: _exit has no preconditions.
            unsafe { libc::_exit(0) };
        }
        let child = rustix::process::Pid::from_raw(child);
        rustix::process::waitpid(child, rustix::process::WaitOptions::empty()).unwrap();
        assert_eq!(signals.try_next().unwrap(), None);
        raise(SIGUSR2);
        raise(SIGUSR1);
        assert_eq!(signals.try_next().unwrap(), Some(SIGUSR2));
        assert_eq!(signals.try_next().unwrap(), Some(SIGUSR1));
    });
}

/// How often the handler was called that the program has installed itself.
static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_signal: i32) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

#[test]
#[parallel]
fn a_handler_of_sigchld_and_waits_for_own_children_work_beside_the_shims() {
    let test = "a_handler_of_sigchld_and_waits_for_own_children_work_beside_the_shims";
    passes_alone(test, || {
        // SAFETY: the handler only counts.
        unsafe { libc::signal(SIGCHLD, count as *const () as libc::sighandler_t) };
        util::everywhere(|| {
            let signals = Signals::new(&[SIGCHLD]).unwrap();
            let before = HANDLED.load(Ordering::SeqCst);
            let shims = |code: usize| {
                greenroom::spawn(move || {
                    let mut command = greenroom::shims::process::Command::new("sh");
                    let mut child = command
                        .arg("-c")
                        .arg(format!("exit {code}"))
                        .spawn()
                        .unwrap();
                    child.wait().unwrap().code()
                })
            };
            let children: Vec<_> = (0..5).map(shims).collect();
            let own: Vec<_> = (10..15)
                .map(|code| {
                    std::thread::spawn(move || {
                        fn start(code: i32) -> Child {
                            let mut command = std::process::Command::new("sh");
                            let command = command.arg("-c").arg(format!("exit {code}"));
                            command.spawn().unwrap()
                        }
                        let id = rustix::process::Pid::from_child(&start(code));
                        let options = rustix::process::WaitOptions::empty();
                        let wait = || rustix::process::waitpid(Some(id), options);
                        let ended = rustix::io::retry_on_intr(wait).unwrap();
                        ended.unwrap().1.exit_status()
                    })
                })
                .collect();
            let codes = children
                .into_iter()
                .map(|child| child.join().unwrap().unwrap());
            assert_eq!(codes.collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
            let codes = own
                .into_iter()
                .map(|own| greenroom::join_thread(own).unwrap().unwrap());
            assert_eq!(codes.collect::<Vec<_>>(), [10, 11, 12, 13, 14]);
            // A signal is handled by any thread, which may take its time.
            assert_eq!(signals.next_timeout(PATIENCE).unwrap(), SIGCHLD);
            assert!(HANDLED.load(Ordering::SeqCst) > before);
        });
    });
}

#[test]
#[parallel]
fn sockets_and_sleeps_go_on_under_a_hail_of_signals() {
    passes_alone("sockets_and_sleeps_go_on_under_a_hail_of_signals", || {
        let signals = Signals::new(&[SIGUSR1]).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    send_to_self(SIGUSR1);
                    std::thread::sleep(Duration::from_micros(100));
                }
            });
            for workers in [1, 4] {
                util::on_workers(workers, || {
                    use greenroom::shims::net::{TcpListener, TcpStream};
                    let listener = TcpListener::bind((util::LOOPBACK, 0)).unwrap();
                    let addr = listener.local_addr().unwrap();
                    let sent = util::noise(1 << 20, 7);
                    greenroom::scope(|s| {
                        s.spawn(|| {
                            let (mut stream, _) = listener.accept().unwrap();
                            stream.write_all(&sent).unwrap();
                        });
                        let mut received = Vec::new();
                        let mut stream = TcpStream::connect(addr).unwrap();
                        let mut chunk = [0; 16 << 10];
                        loop {
                            let read = stream.read(&mut chunk).unwrap();
                            if read == 0 {
                                break;
                            }
                            received.extend_from_slice(&chunk[..read]);
                        }
                        util::assert_same_bytes(&received, &sent);
                    });
                    let start = Instant::now();
                    greenroom::shims::thread::sleep(Duration::from_millis(20));
                    assert!(start.elapsed() >= Duration::from_millis(20));
                });
            }
            over.store(true, Ordering::SeqCst);
        });
        assert_eq!(signals.next_timeout(PATIENCE).unwrap(), SIGUSR1);
    });
}

/// Serves until SIGTERM, then finishes the requests in progress. A request is four bytes, which are sent back.
fn serve_until_sigterm() {
    use greenroom::shims::net::{TcpListener, TcpStream};
    greenroom::run(|| {
        let signals = Signals::new(&[SIGTERM]).unwrap();
        let listener = TcpListener::bind((util::own_loopback(), 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let requests = Group::new();
        let serve = |mut stream: TcpStream| {
            let mut request = [0; 4];
            stream.write_all(b"+").unwrap();
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&request).unwrap();
        };
        greenroom::scope(|s| {
            let accepting = s.spawn(|| {
                for stream in listener.incoming() {
                    let stream = stream.unwrap();
                    requests.spawn(move || serve(stream));
                }
            });
            println!("listens on {addr}");
            assert_eq!(signals.next_timeout(Duration::MAX).unwrap(), SIGTERM);
            signal::restore_default(&[SIGTERM]).unwrap();
            accepting.cancel();
            assert!(accepting.join().unwrap_err().is::<Cancelled>());
        });
        drop(listener);
        println!("draining");
        requests.join().unwrap();
        println!("drained");
    });
    std::process::exit(0);
}

/// Reads lines of `from` until one begins with `wanted`. Returns the rest of that line.
fn line(from: &mut impl io::BufRead, wanted: &str) -> String {
    loop {
        let mut line = String::new();
        assert_ne!(from.read_line(&mut line).unwrap(), 0, "{wanted:?} comes");
        // The harness prints the name of the test without an end of line.
        if let Some((_, rest)) = line.split_once(wanted) {
            return rest.trim().to_owned();
        }
    }
}

#[test]
#[parallel]
fn sigterm_drains_a_server() {
    if util::role().is_some() {
        serve_until_sigterm();
    }
    let mut server = start("sigterm_drains_a_server", "server");
    let mut said = io::BufReader::new(server.stdout.take().unwrap());
    let addr: SocketAddr = line(&mut said, "listens on").parse().unwrap();
    let connect = || TcpStream::connect(addr);
    let mut clients: Vec<_> = (0..50).map(|_| connect().unwrap()).collect();
    for client in &mut clients {
        client.read_exact(&mut [0]).unwrap();
    }
    send(server.id(), SIGTERM);
    line(&mut said, "draining");
    assert_eq!(
        connect().unwrap_err().kind(),
        io::ErrorKind::ConnectionRefused
    );
    for (n, client) in clients.iter_mut().enumerate() {
        let request = (n as u32).to_be_bytes();
        client.write_all(&request).unwrap();
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).unwrap();
        assert_eq!(reply, request);
    }
    line(&mut said, "drained");
    assert!(server.wait().unwrap().success());
}

#[test]
#[parallel]
fn a_second_sigterm_ends_a_server_that_drains() {
    if util::role().is_some() {
        serve_until_sigterm();
    }
    let mut server = start("a_second_sigterm_ends_a_server_that_drains", "server");
    let mut said = io::BufReader::new(server.stdout.take().unwrap());
    let addr: SocketAddr = line(&mut said, "listens on").parse().unwrap();
    let mut client = TcpStream::connect(addr).unwrap();
    client.read_exact(&mut [0]).unwrap();
    send(server.id(), SIGTERM);
    line(&mut said, "draining");
    send(server.id(), SIGTERM);
    assert_eq!(server.wait().unwrap().signal(), Some(SIGTERM));
}

/// Says when it is dropped.
struct Note(&'static str);

impl Drop for Note {
    fn drop(&mut self) {
        println!("dropped {}", self.0);
    }
}

/// Starts `test` again as `role`, sends it `signal` when it says that it is ready, and waits for its end. Returns
/// the names of the notes that it has dropped, in order of the alphabet, and how it has ended.
fn dropped_by(test: &str, role: &str, signal: i32) -> (Vec<String>, ExitStatus) {
    let mut process = start(test, role);
    let mut said = io::BufReader::new(process.stdout.take().unwrap());
    line(&mut said, "ready");
    send(process.id(), signal);
    let lines = io::BufRead::lines(said).map(Result::unwrap);
    // The harness may have begun a line of its own, if it goes on meanwhile.
    let names = lines.filter_map(|line| Some(line.split_once("dropped ")?.1.to_owned()));
    let mut names: Vec<_> = names.collect();
    names.sort();
    (names, process.wait().unwrap())
}

/// Coroutines that wait in various ways, each with a note. Returns when all of them wait.
fn waiters() {
    use greenroom::shims::{net::TcpListener, thread};
    let waiting = std::sync::Arc::new(AtomicUsize::new(0));
    let spawn = |name: &'static str, wait: Box<dyn FnOnce() + Send>| {
        let waiting = std::sync::Arc::clone(&waiting);
        thread::spawn(move || {
            let _note = Note(name);
            waiting.fetch_add(1, Ordering::SeqCst);
            wait();
        })
    };
    let listener = TcpListener::bind((util::LOOPBACK, 0)).unwrap();
    spawn("accept", Box::new(move || drop(listener.accept())));
    let (sender, receiver) = greenroom::channel::unbounded::<()>();
    spawn(
        "channel",
        Box::new(move || {
            let _ = receiver.recv();
            drop(sender);
        }),
    );
    let asleep = spawn("sleep", Box::new(|| thread::sleep(Duration::MAX)));
    spawn("join", Box::new(|| drop(asleep.join())));
    let scoped_waits = std::sync::Arc::clone(&waiting);
    spawn(
        "scope",
        Box::new(|| {
            thread::scope(|s| {
                s.spawn(move || {
                    let _note = Note("scoped");
                    scoped_waits.fetch_add(1, Ordering::SeqCst);
                    thread::sleep(Duration::MAX);
                });
            });
        }),
    );
    spawn("signal", Box::new(|| drop(signal::wait(&[SIGUSR2]))));
    // std never unwinds this.
    spawn("never", Box::new(greenroom::park));
    while waiting.load(Ordering::SeqCst) < 8 {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(10));
}

/// What `waiters` drop if they unwind.
const WAITERS: [&str; 7] = [
    "accept", "channel", "join", "scope", "scoped", "signal", "sleep",
];

/// Is ready for the signal when the runtime ends, and delays that.
struct ReadyInTheEnd;

impl Drop for ReadyInTheEnd {
    fn drop(&mut self) {
        println!("ready");
        greenroom::shims::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
#[parallel]
fn ctrl_c_unwinds_every_coroutine_where_asked_for() {
    let test = "ctrl_c_unwinds_every_coroutine_where_asked_for";
    if let Some(role) = util::role() {
        if role != "default" {
            signal::unwind_on(&[SIGTERM, SIGINT]).unwrap();
            signal::unwind_on(&[SIGINT]).unwrap();
        }
        let workers = if role == "3" { 3 } else { 1 };
        let runtime = greenroom::RuntimeBuilder::new().workers(workers).build();
        let _outside = Note("outside");
        runtime.unwrap().run(|| {
            let _main = Note("a main");
            waiters();
            if role == "returns" {
                util::begin(|| {
                    let _ready = ReadyInTheEnd;
                    greenroom::shims::thread::sleep(Duration::MAX);
                });
                return;
            }
            println!("ready");
            greenroom::shims::thread::sleep(Duration::MAX);
        });
        // Only in the role in which main returns. The end of the runtime is the same as ever.
        std::thread::sleep(Duration::MAX);
    }
    let all: Vec<_> = ["a main"].into_iter().chain(WAITERS).collect();
    for (role, signal, expected) in [
        ("1", SIGINT, &all[..]),
        ("3", SIGINT, &all),
        ("3", SIGTERM, &all),
        // Main has returned before the signal.
        ("returns", SIGINT, &WAITERS),
    ] {
        let (dropped, status) = dropped_by(test, role, signal);
        assert_eq!(dropped, expected, "{role}");
        assert_eq!(status.signal(), Some(signal), "{status}");
    }
    // Other signals, and a program that has not asked.
    for (role, signal) in [("1", SIGHUP), ("default", SIGINT)] {
        let (dropped, status) = dropped_by(test, role, signal);
        assert_eq!(dropped.len(), 0, "{dropped:?}");
        assert_eq!(status.signal(), Some(signal), "{status}");
    }
}

/// Whether the process may end, after [`outlast_the_signal`].
static IS_OVER: AtomicBool = AtomicBool::new(false);

/// Begins a coroutine that keeps the process, which a signal ends, until [`IS_OVER`]. Returns when the signal has come.
fn outlast_the_signal() {
    struct Last(std::sync::mpsc::Sender<()>);

    impl Drop for Last {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
            while !IS_OVER.load(Ordering::SeqCst) {
                greenroom::shims::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    let (unwinds, unwinding) = std::sync::mpsc::channel();
    util::begin(move || {
        let _last = Last(unwinds);
        println!("ready");
        greenroom::shims::thread::sleep(Duration::MAX);
    });
    unwinding.recv().unwrap();
}

#[test]
#[parallel]
fn in_a_runtime_that_is_made_after_the_signal_nothing_runs() {
    let test = "in_a_runtime_that_is_made_after_the_signal_nothing_runs";
    if util::role().is_some() {
        signal::unwind_on(&[SIGINT]).unwrap();
        outlast_the_signal();
        let runtime = greenroom::RuntimeBuilder::new().workers(2).build().unwrap();
        let late = runtime.spawn(|| println!("dropped something"));
        while !late.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        IS_OVER.store(true, Ordering::SeqCst);
        runtime.run(|| println!("dropped main"));
        unreachable!("`run` does not return");
    }
    let (dropped, status) = dropped_by(test, "late", SIGINT);
    assert_eq!(dropped.len(), 0, "{dropped:?}");
    assert_eq!(status.signal(), Some(SIGINT), "{status}");
}

#[test]
#[parallel]
fn a_run_after_the_signal_unwinds_what_an_earlier_one_has_started() {
    let test = "a_run_after_the_signal_unwinds_what_an_earlier_one_has_started";
    if util::role().is_some() {
        signal::unwind_on(&[SIGINT]).unwrap();
        let runtime = greenroom::RuntimeBuilder::new().workers(1).build().unwrap();
        runtime.run(|| {
            let daemon = greenroom::Builder::new().daemon(true);
            let started = daemon.spawn(|| {
                let _over = util::Finally(|| IS_OVER.store(true, Ordering::SeqCst));
                let _note = Note("daemon");
                greenroom::shims::thread::sleep(Duration::MAX);
            });
            drop(started.unwrap());
            greenroom::yield_now();
        });
        outlast_the_signal();
        runtime.run(|| println!("dropped main"));
        unreachable!("`run` does not return");
    }
    let (dropped, status) = dropped_by(test, "late", SIGINT);
    assert_eq!(dropped, ["daemon"]);
    assert_eq!(status.signal(), Some(SIGINT), "{status}");
}

#[test]
#[parallel]
fn ctrl_c_unwinds_all_runtimes_and_holds_threads_that_exit_or_return_from_main() {
    let test = "ctrl_c_unwinds_all_runtimes_and_holds_threads_that_exit_or_return_from_main";
    if let Some(role) = util::role() {
        signal::unwind_on(&[SIGINT]).unwrap();
        let sleeping = util::begin(|| {
            let _note = Note("joined");
            greenroom::shims::thread::sleep(Duration::MAX);
        });
        waiters();
        let (begun, begins) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            greenroom::run(|| {
                let _note = Note("other main");
                begun.send(()).unwrap();
                greenroom::shims::thread::sleep(Duration::MAX);
            });
        });
        // Unwinds last, and slowly.
        let slow = || {
            struct Slow;
            impl Drop for Slow {
                fn drop(&mut self) {
                    greenroom::shims::thread::sleep(Duration::from_millis(50));
                    println!("dropped slow");
                }
            }
            let _slow = Slow;
            greenroom::shims::thread::sleep(Duration::MAX);
        };
        util::begin(slow);
        begins.recv().unwrap();
        std::thread::sleep(Duration::from_millis(10));
        println!("ready");
        assert!(sleeping.join().unwrap_err().is::<Cancelled>());
        if role == "exits" {
            std::process::exit(3);
        }
        // The harness, which has no other test to run, returns from `main`.
        return;
    }
    let mut all: Vec<_> = ["joined", "other main", "slow"]
        .into_iter()
        .chain(WAITERS)
        .collect();
    all.sort_unstable();
    for role in ["exits", "returns from main"] {
        let (dropped, status) = dropped_by(test, role, SIGINT);
        assert_eq!(dropped, all, "{role}");
        assert_eq!(status.signal(), Some(SIGINT), "{role}: {status}");
    }
}

#[test]
#[parallel]
fn a_second_ctrl_c_during_the_unwinding_ends_the_process_at_once() {
    let test = "a_second_ctrl_c_during_the_unwinding_ends_the_process_at_once";
    if util::role().is_some() {
        signal::unwind_on(&[SIGINT, SIGTERM]).unwrap();
        struct Endless;
        impl Drop for Endless {
            fn drop(&mut self) {
                println!("unwinding");
                greenroom::shims::thread::sleep(Duration::MAX);
            }
        }
        let builder = greenroom::RuntimeBuilder::new().workers(2);
        builder.grace(Duration::MAX).build().unwrap().run(|| {
            let _endless = Endless;
            println!("ready");
            greenroom::shims::thread::sleep(Duration::MAX);
        });
    }
    for second in [SIGINT, SIGTERM] {
        let mut process = start(test, "endless");
        let mut said = io::BufReader::new(process.stdout.take().unwrap());
        line(&mut said, "ready");
        send(process.id(), SIGINT);
        line(&mut said, "unwinding");
        assert!(process.try_wait().unwrap().is_none());
        send(process.id(), second);
        assert_eq!(process.wait().unwrap().signal(), Some(second));
    }
}

#[test]
#[parallel]
fn after_the_grace_a_process_ends_by_its_signal_whatever_its_coroutines_do() {
    let test = "after_the_grace_a_process_ends_by_its_signal_whatever_its_coroutines_do";
    if util::role().is_some() {
        signal::unwind_on(&[SIGINT]).unwrap();
        let builder = greenroom::RuntimeBuilder::new().workers(2);
        let runtime = builder.grace(Duration::from_millis(50)).build().unwrap();
        runtime.run(|| {
            greenroom::spawn(|| {
                println!("ready");
                loop {
                    std::hint::spin_loop();
                }
            });
            // Catches the unwind, and goes on.
            loop {
                let _ = greenroom::catch_cancel(|| {
                    greenroom::shims::thread::sleep(Duration::from_millis(1));
                });
            }
        });
    }
    let (dropped, status) = dropped_by(test, "stubborn", SIGINT);
    assert_eq!(dropped.len(), 0, "{dropped:?}");
    assert_eq!(status.signal(), Some(SIGINT), "{status}");
}

#[test]
#[parallel]
fn a_signal_ends_a_process_one_of_whose_workers_no_thread_drives() {
    let test = "a_signal_ends_a_process_one_of_whose_workers_no_thread_drives";
    if util::role().is_some() {
        signal::unwind_on(&[SIGTERM]).unwrap();
        let builder = greenroom::RuntimeBuilder::new().workers(2);
        let runtime = builder.grace(Duration::MAX).build().unwrap();
        let begun = Arc::new(AtomicBool::new(false));
        runtime.run(|| {
            let begins = Arc::clone(&begun);
            // Parks where nothing unwinds it, and on the other worker, since this one is held until then.
            greenroom::spawn(move || {
                begins.store(true, Ordering::SeqCst);
                loop {
                    greenroom::park();
                }
            });
            while !begun.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
        });
        println!("ready");
        std::thread::sleep(Duration::MAX);
    }
    let mut process = start(test, "away");
    let mut said = io::BufReader::new(process.stdout.take().unwrap());
    line(&mut said, "ready");
    send(process.id(), SIGTERM);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > 5 * PATIENCE {
            process.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(status.signal(), Some(SIGTERM), "{status}");
}

#[test]
#[parallel]
fn an_ignored_signal_stays_ignored_where_it_is_to_unwind() {
    passes_alone(
        "an_ignored_signal_stays_ignored_where_it_is_to_unwind",
        || {
            // SAFETY: no handler is installed.
            unsafe { libc::signal(SIGINT, libc::SIG_IGN) };
            signal::unwind_on(&[SIGINT]).unwrap();
            util::on_workers(1, || {
                raise(SIGINT);
                greenroom::shims::thread::sleep(Duration::from_millis(20));
            });
            raise(SIGINT);
        },
    );
}

#[test]
#[parallel]
fn only_signals_that_end_a_process_unwind_it() {
    let status = alone("only_signals_that_end_a_process_unwind_it", || {
        let others = [
            SIGCHLD,
            libc::SIGWINCH,
            libc::SIGTSTP,
            libc::SIGCONT,
            libc::SIGURG,
        ];
        let never = [libc::SIGKILL, libc::SIGSEGV, libc::SIGRTMIN(), 0, -1, 65];
        for signal in others.into_iter().chain(never) {
            assert!(is_invalid(signal::unwind_on(&[SIGINT, signal])), "{signal}");
        }
        assert!(is_invalid(signal::unwind_on(&[])));
        raise(SIGINT);
    });
    assert_eq!(status.signal(), Some(SIGINT), "{status}");
}

#[test]
#[parallel]
fn a_forked_child_of_a_process_to_unwind_ends_at_once() {
    passes_alone("a_forked_child_of_a_process_to_unwind_ends_at_once", || {
        signal::unwind_on(&[SIGINT]).unwrap();
        // SAFETY: the child only raises a signal, and exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            raise(SIGINT);
            // SAFETY: _exit has no preconditions.
            unsafe { libc::_exit(0) };
        }
        let child = rustix::process::Pid::from_raw(child);
        let options = rustix::process::WaitOptions::empty();
        let (_, status) = rustix::process::waitpid(child, options).unwrap().unwrap();
        assert_eq!(status.terminating_signal(), Some(SIGINT));
        // It was not this process.
        std::thread::sleep(Duration::from_millis(20));
    });
}

#[test]
#[parallel]
fn a_child_that_is_forked_during_the_unwinding_can_exit() {
    let test = "a_child_that_is_forked_during_the_unwinding_can_exit";
    if util::role().is_some() {
        struct Forks;
        impl Drop for Forks {
            fn drop(&mut self) {
                // SAFETY: the child only exits.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    // SAFETY: no other thread of the child calls exit.
                    unsafe { libc::exit(7) };
                }
                let child = rustix::process::Pid::from_raw(child);
                let options = rustix::process::WaitOptions::empty();
                let (_, status) = rustix::process::waitpid(child, options).unwrap().unwrap();
                assert_eq!(status.exit_status(), Some(7));
                println!("dropped after the child");
            }
        }
        signal::unwind_on(&[SIGINT]).unwrap();
        greenroom::run(|| {
            let _forks = Forks;
            println!("ready");
            greenroom::shims::thread::sleep(Duration::MAX);
        });
    }
    let (dropped, status) = dropped_by(test, "forks", SIGINT);
    assert_eq!(dropped, ["after the child"]);
    assert_eq!(status.signal(), Some(SIGINT), "{status}");
}
