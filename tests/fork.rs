//! What happens to a runtime, and to what its coroutines use, when the process forks.

mod util;

use std::future::{Future, IntoFuture};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::sync::mpsc;
use greenroom::shims::thread;
use greenroom::sync::Semaphore;
use greenroom::{
    Builder, Cancelled, Interest, PinnedThread, RuntimeBuilder, Select, ThreadPool, block_on,
    channel, park, run, spawn, unblock,
};
use serial_test::serial;

const MILLI: Duration = Duration::from_millis(1);

/// How long a child may take before it counts as hung.
const PATIENCE: u32 = 50;

/// A forked child that was not waited for yet.
struct Child(libc::pid_t);

/// Forks. Returns `None` in the child, which is killed if it hangs.
fn fork() -> Option<Child> {
    // SAFETY: the tests decide what the child does, and that is under test. The child needs the locks of
    // the allocator, which libc resets, and the locks of this crate.
    match unsafe { libc::fork() } {
        -1 => panic!("{}", io::Error::last_os_error()),
        0 => {
            // SAFETY: the call has no preconditions. The signal ends the process.
            unsafe { libc::alarm(PATIENCE) };
            None
        }
        child => Some(Child(child)),
    }
}

fn exit(code: i32) -> ! {
    // SAFETY: the call has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Runs `checks` in a forked child. The child exits with 0, or with 1 if they panic.
fn fork_to(checks: impl FnOnce()) -> Child {
    if let Some(child) = fork() {
        return child;
    }
    let Err(payload) = catch_unwind(AssertUnwindSafe(checks)) else {
        exit(0)
    };
    let text = [message(&*payload), "\n".into()].concat();
    // A system call, because the harness would capture the output of `eprint!`.
    // SAFETY: the pointer and the length are those of a live string.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
    exit(1)
}

impl Child {
    /// Waits for the end of the child, and returns its status. A coroutine parks.
    fn wait(self) -> i32 {
        let start = Instant::now();
        loop {
            let mut status = 0;
            // SAFETY: `status` is valid to write to.
            match unsafe { libc::waitpid(self.0, &raw mut status, libc::WNOHANG) } {
                0 => thread::sleep(MILLI),
                -1 => panic!("{}", io::Error::last_os_error()),
                _ => return status,
            }
            assert!(
                start.elapsed().as_secs() < 2 * u64::from(PATIENCE),
                "the child does not even end by its alarm"
            );
        }
    }

    #[track_caller]
    fn succeed(self) {
        let status = self.wait();
        assert!(libc::WIFEXITED(status), "signal {}", libc::WTERMSIG(status));
        assert_eq!(libc::WEXITSTATUS(status), 0);
    }
}

fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic".into())
}

/// The two ends of a connection. Both have been waited on.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut other = listener.accept().unwrap().0;
    let reads = spawn(move || {
        other.read_exact(&mut [0]).unwrap();
        thread::sleep(MILLI);
        other.write_all(b"y").unwrap();
        other
    });
    thread::sleep(MILLI);
    one.write_all(b"x").unwrap();
    one.read_exact(&mut [0]).unwrap();
    (one, reads.join().unwrap())
}

/// Echoes after a short time, so that the other side has to wait.
fn echo_slowly(mut stream: TcpStream) {
    let mut buffer = [0; 100];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        thread::sleep(MILLI);
        stream.write_all(&buffer[..len]).unwrap();
    }
}

fn ask(stream: &mut TcpStream, text: &[u8]) {
    let mut answer = vec![0; text.len()];
    stream.write_all(text).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, text);
}

#[test]
#[serial]
fn a_child_that_uses_its_copies_does_not_disturb_the_parent() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let (mut shared, theirs) = connection();
            let (mut lent, lents) = connection();
            spawn(|| echo_slowly(theirs));
            spawn(|| echo_slowly(lents));
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            spawn(move || {
                for stream in listener.incoming() {
                    let stream = stream.unwrap();
                    spawn(|| echo_slowly(stream));
                }
            });
            let parked = spawn(park);
            let sleeper = spawn(|| thread::sleep(20 * MILLI));
            ask(&mut shared, b"before");
            ask(&mut lent, b"before");

            let clone = shared.try_clone().unwrap();
            let child = spawn(move || {
                // The parent still has what the child takes out.
                let mut handed = Some((clone, lent, parked));
                let child = fork_to(|| {
                    let (clone, mut lent, parked) = handed.take().unwrap();
                    drop(clone);
                    let start = Instant::now();
                    thread::sleep(5 * MILLI);
                    assert!(start.elapsed() >= 5 * MILLI);
                    greenroom::yield_now();
                    assert!(!greenroom::park_timeout(MILLI));
                    let error = Builder::new().spawn(|| ()).unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
                    assert!(error.to_string().contains("fork"), "{error}");
                    let panic = catch_unwind(|| spawn(|| ())).unwrap_err();
                    assert!(message(&*panic).contains("fork"));
                    let error = RuntimeBuilder::new().build().unwrap_err();
                    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
                    assert_eq!(unblock(|| 3), 3);
                    greenroom::wait_idle();
                    parked.thread().unpark();
                    let joined = parked.join().unwrap_err();
                    assert!(joined.is::<Cancelled>());
                    // The child blocks: on a connection that the parent has waited on, and on a new one.
                    ask(&mut lent, b"from the child");
                    let mut again = lent.try_clone().unwrap();
                    drop(lent);
                    ask(&mut again, b"once more");
                    ask(&mut TcpStream::connect(addr).unwrap(), b"afresh");
                    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                    let to = listener.local_addr().unwrap();
                    let peer = std::thread::spawn(move || listener.accept().unwrap());
                    let connected = TcpStream::connect(to).unwrap();
                    drop((peer.join().unwrap(), connected));
                });
                child.succeed();
                thread::sleep(MILLI);
                handed.unwrap()
            });
            // During the child's life, and after it.
            for _ in 0..20 {
                ask(&mut shared, b"meanwhile");
            }
            let (mut clone, mut lent, parked) = child.join().unwrap();
            for _ in 0..5 {
                ask(&mut clone, b"clone");
                ask(&mut lent, b"afterwards");
                ask(&mut shared, b"afterwards");
            }
            sleeper.join().unwrap();
            assert!(!parked.is_finished(), "the child has unparked nobody here");
            parked.thread().unpark();
            parked.join().unwrap();
        });
    }
}

#[test]
#[serial]
fn a_wake_in_the_child_does_not_wake_the_parents_worker() {
    const CHILDREN: u64 = 60;
    util::on_workers(2, || {
        let (tell, told) = std::sync::mpsc::channel();
        let parked = spawn(move || {
            // SAFETY: the call has no preconditions.
            tell.send(unsafe { libc::gettid() }).unwrap();
            park();
        });
        // This worker is busy, so the other one takes that coroutine.
        let worker = told.recv().unwrap();
        std::thread::sleep(5 * MILLI);
        let before = sleeps_of(worker);
        for _ in 0..CHILDREN {
            // SAFETY: as in `fork`, and this child ends soon.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                parked.thread().unpark();
                exit(0);
            }
            let mut status = 0;
            // SAFETY: `status` is valid to write to.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            assert_eq!(status, 0);
        }
        let woken = sleeps_of(worker) - before;
        assert!(woken < CHILDREN / 2, "{woken} wake-ups");
        assert!(!parked.is_finished());
        parked.thread().unpark();
        parked.join().unwrap();
    });
}

/// How often the thread has gone to sleep.
fn sleeps_of(thread: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("voluntary"));
    let count = line.unwrap().split_whitespace().nth(1);
    count.unwrap().parse().unwrap()
}

#[test]
#[serial]
fn a_coroutine_that_returns_in_the_child_ends_it_with_a_message() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            for panics in [false, true] {
                let (reader, writer) = pipe();
                let name = Builder::new().name("forker".into());
                let forker = name.spawn(move || {
                    let child = fork();
                    if child.is_none() {
                        // SAFETY: both descriptors are open.
                        unsafe { libc::dup2(writer.as_raw_fd(), libc::STDERR_FILENO) };
                        if panics {
                            std::panic::resume_unwind(Box::new(()));
                        }
                    }
                    child
                });
                let child = forker.unwrap().join().unwrap();
                let status = child.expect("the child does not come here").wait();
                assert!(libc::WIFSIGNALED(status));
                assert_eq!(libc::WTERMSIG(status), libc::SIGABRT);
                let mut said = String::new();
                std::fs::File::from(reader)
                    .read_to_string(&mut said)
                    .unwrap();
                assert!(
                    said.contains("coroutine 'forker' (spawned at tests"),
                    "{said}"
                );
                assert!(said.contains("returned in a forked process"), "{said}");
            }
        });
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let mut fds = [0; 2];
    // SAFETY: the array has room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: the descriptors are new, and nobody else owns them.
    fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).into()
}

#[test]
#[serial]
fn a_main_coroutine_that_returns_in_the_child_ends_it_too() {
    for panics in [false, true] {
        util::on_an_os_thread(move || {
            let child = run(|| {
                spawn(park);
                let child = fork();
                if child.is_none() && panics {
                    std::panic::resume_unwind(Box::new(5));
                }
                child
            });
            let status = child.expect("the child does not come here").wait();
            assert!(libc::WIFSIGNALED(status));
            assert_eq!(libc::WTERMSIG(status), libc::SIGABRT);
        });
    }
}

#[test]
#[serial]
fn a_child_forked_between_two_runs_has_no_runtime() {
    util::on_an_os_thread(|| {
        let runtime = RuntimeBuilder::new().workers(2).build().unwrap();
        let (ended, over) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (ends, is_over) = (Arc::clone(&ended), Arc::clone(&over));
        let (sleeper, parked) = runtime.run(|| {
            let sleeper = spawn(move || {
                while !is_over.load(SeqCst) {
                    thread::sleep(MILLI);
                }
                ends.fetch_add(1, SeqCst);
            });
            (sleeper, spawn(park))
        });
        let mut handed = Some((runtime, sleeper, parked));
        let child = fork_to(|| {
            let (runtime, sleeper, parked) = handed.take().unwrap();
            over.store(true, SeqCst);
            thread::sleep(20 * MILLI);
            assert_eq!(ended.load(SeqCst), 0, "nobody runs here");
            for refused in [
                catch_unwind(AssertUnwindSafe(|| runtime.run(|| ()))),
                catch_unwind(AssertUnwindSafe(|| drop(runtime.spawn(|| ())))),
                catch_unwind(|| run(|| ())),
                catch_unwind(|| drop(spawn(|| ()))),
            ] {
                assert!(message(&*refused.unwrap_err()).contains("fork"));
            }
            assert!(sleeper.join().unwrap_err().is::<Cancelled>());
            assert!(parked.join().unwrap_err().is::<Cancelled>());
            greenroom::wait_idle();
            drop(runtime);
        });
        child.succeed();
        over.store(true, SeqCst);
        let (runtime, sleeper, parked) = handed.unwrap();
        runtime.run(|| sleeper.join().unwrap());
        parked.thread().unpark();
        runtime.run(|| parked.join().unwrap());
    });
}

/// Uses most features of a runtime.
fn exercise() {
    let handles: Vec<_> = (0..50)
        .map(|n| {
            let builder = Builder::new().stack_size((16 << 10) << (n % 6));
            let sleeps = move || {
                thread::sleep(n as u32 % 3 * MILLI);
                n
            };
            builder.spawn(sleeps).unwrap()
        })
        .collect();
    for (n, handle) in handles.into_iter().enumerate() {
        assert_eq!(handle.join().unwrap(), n);
    }
    let (mut stream, theirs) = connection();
    spawn(|| echo_slowly(theirs));
    ask(&mut stream, b"hello");
    assert_eq!(unblock(|| 3), 3);
}

/// Calls `checks` in a process that has had no runtime: this test, started again.
fn in_a_fresh_process(name: &str, checks: impl FnOnce()) {
    if util::role().is_some() {
        return checks();
    }
    let output = util::again!(name, "child").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
#[serial]
fn processes_that_fork_before_their_first_runtime_can_have_runtimes() {
    let name = "processes_that_fork_before_their_first_runtime_can_have_runtimes";
    in_a_fresh_process(name, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let pool = ThreadPool::new(1);
        let serve = || {
            for workers in [1, 4] {
                let runtime = RuntimeBuilder::new().workers(workers).build().unwrap();
                runtime.run(exercise);
            }
            spawn(exercise).join().unwrap();
            let thread = || std::thread::current().id();
            for _ in 0..2 {
                assert_ne!(run(|| pool.call(thread)), thread());
            }
            run(|| {
                let mut stream = listener.accept().unwrap().0;
                stream.write_all(b"served").unwrap();
            });
        };
        let children = [fork_to(serve), fork_to(serve)];
        for _ in 0..2 {
            let mut answer = [0; 6];
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"served");
        }
        children.into_iter().for_each(Child::succeed);
        util::on_workers(2, exercise);
    });
}

/// The child is forked while other threads are in the panic hook.
#[test]
#[serial]
fn a_child_that_is_forked_while_a_hook_runs_is_told_that_it_has_no_runtime() {
    let name = "a_child_that_is_forked_while_a_hook_runs_is_told_that_it_has_no_runtime";
    in_a_fresh_process(name, || {
        std::panic::set_hook(Box::new(|_| std::thread::sleep(200 * MILLI)));
        util::on_workers(1, || ());
        let panics = std::thread::spawn(|| panic!("a test's panic"));
        std::thread::sleep(50 * MILLI);
        let child = fork_to(|| {
            let error = RuntimeBuilder::new().build().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        });
        child.succeed();
        panics.join().unwrap_err();
    });
}

/// The child is forked while other threads use a channel, in a process without a runtime.
#[test]
#[serial]
fn in_a_forked_child_nobody_waits_at_a_channel_that_others_were_using() {
    let name = "in_a_forked_child_nobody_waits_at_a_channel_that_others_were_using";
    in_a_fresh_process(name, channels_over_forks);
}

fn channels_over_forks() {
    for runtime in [false, true] {
        let _runtime = runtime.then(|| RuntimeBuilder::new().workers(1).build().unwrap());
        let (sender, receiver) = mpsc::channel();
        let another = sender.clone();
        let send = move || _ = another.send([1; 4]);
        let receive = move || _ = receiver.recv_timeout(MILLI);
        fork_beside([Box::new(send), Box::new(receive)], || {
            let _ = sender.send([2; 4]);
            let _ = format!("{sender:?}");
        });

        let (sender, receiver) = mpsc::sync_channel(50);
        let another = sender.clone();
        let send = move || _ = another.try_send([1; 4]);
        let mut ends = Some((sender, receiver));
        fork_beside([Box::new(send), Box::new(std::thread::yield_now)], || {
            let (sender, receiver) = ends.take().unwrap();
            assert!(receiver.try_iter().all(|value| value == [1; 4]));
            let _ = sender.try_send([2; 4]);
            let _ = receiver.recv_timeout(MILLI);
        });
    }
}

#[test]
#[serial]
fn waiters_of_a_channel_in_the_parent_do_not_wait_in_the_child() {
    util::on_workers(2, || {
        type Start = fn(mpsc::SyncSender<u32>);
        let starts: [Start; 2] = [
            |sender| drop(spawn(move || sender.send(2).unwrap())),
            |sender| drop(std::thread::spawn(move || sender.send(2).unwrap())),
        ];
        for start in starts {
            let (sender, receiver) = mpsc::sync_channel(1);
            sender.send(1).unwrap();
            start(sender.clone());
            thread::sleep(10 * MILLI);
            let mut ends = Some((sender, receiver));
            let child = fork_to(|| {
                let (sender, receiver) = ends.take().unwrap();
                assert_eq!(receiver.try_recv(), Ok(1));
                assert_eq!(receiver.try_recv(), Err(mpsc::TryRecvError::Empty));
                sender.send(3).unwrap();
                assert_eq!(receiver.recv(), Ok(3));
            });
            child.succeed();
            let (sender, receiver) = ends.unwrap();
            drop(sender);
            assert!(receiver.into_iter().eq([1, 2]));
        }
    });
}

#[test]
#[serial]
fn waiters_for_a_semaphore_in_the_parent_are_not_in_line_in_the_child() {
    util::on_workers(1, || {
        let semaphore = Arc::new(Semaphore::new(0));
        let waiters = [(); 2].map(|()| {
            let semaphore = Arc::clone(&semaphore);
            util::begin(move || semaphore.acquire_many(2).forget())
        });
        let child = fork_to(|| {
            semaphore.add_permits(1);
            let permit = semaphore.try_acquire().expect("nobody is in line");
            assert!(semaphore.acquire_timeout(MILLI).is_none());
            drop(permit);
            drop(semaphore.acquire());
            semaphore.add_permits(3);
            assert_eq!(semaphore.available_permits(), 4);
        });
        child.succeed();
        assert_eq!(semaphore.available_permits(), 0);
        semaphore.add_permits(4);
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[test]
#[serial]
fn calls_of_the_parents_threads_do_not_wait_in_the_child() {
    util::on_workers(1, || {
        let (pool, pinned) = (ThreadPool::new(1), PinnedThread::new("pinned").unwrap());
        let proxy = pinned.proxy(|| 1);
        assert_eq!(pool.call(|| 2), 2);
        let mut handed = Some((pool, pinned, proxy));
        let child = fork_to(|| {
            let (pool, pinned, proxy) = handed.take().unwrap();
            assert_eq!(pool.call(|| 3), 3);
            for refused in [
                catch_unwind(AssertUnwindSafe(|| pinned.call(|| 4))),
                catch_unwind(AssertUnwindSafe(|| proxy.with(|value| *value))),
            ] {
                assert!(message(&*refused.unwrap_err()).contains("fork"));
            }
        });
        child.succeed();
        let (pool, pinned, proxy) = handed.unwrap();
        assert_eq!(pool.call(|| 5), 5);
        assert_eq!(pinned.call(|| 6), 6);
        assert_eq!(proxy.with(|value| *value), 1);
    });
}

/// Forks many times, and calls `checks` in each child, while other threads repeat `things`.
fn fork_beside(things: [Box<dyn FnMut() + Send>; 2], mut checks: impl FnMut()) {
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        for mut thing in things {
            let over = &over;
            s.spawn(move || {
                while !over.load(SeqCst) {
                    (0..64).for_each(|_| thing());
                    std::thread::yield_now();
                }
            });
        }
        let mut statuses = (0..100).map(|_| fork_to(&mut checks).wait());
        let failure = statuses.find(|&status| status != 0);
        over.store(true, SeqCst);
        assert_eq!(failure, None);
    });
}

#[test]
#[serial]
fn a_child_that_selects_descriptors_takes_no_wake_up_from_the_parent() {
    util::on_an_os_thread(|| {
        let (quiet, _writer) = std::io::pipe().unwrap();
        let (sender, receiver) = channel::unbounded();
        let (ack, acks) = channel::unbounded();
        let mut select = Select::new();
        select.ready(&quiet, Interest::READABLE, |_| unreachable!());
        select.recv(&receiver, |n| n.unwrap());
        assert_eq!(select.wait_timeout(MILLI), None);
        let Some(child) = fork() else {
            loop {
                select.wait_timeout(Duration::from_secs(1));
            }
        };
        let sends = std::thread::spawn(move || {
            for n in 0..200 {
                std::thread::sleep(MILLI);
                sender.send(n).unwrap();
                assert_eq!(acks.recv(), Ok(n));
            }
        });
        for n in 0..200 {
            assert_eq!(select.wait(), n);
            ack.send(n).unwrap();
        }
        sends.join().unwrap();
        // SAFETY: the call has no preconditions, and the child was not waited for.
        unsafe { libc::kill(child.0, libc::SIGKILL) };
        assert!(libc::WIFSIGNALED(child.wait()));
    });
}

#[test]
#[serial]
fn in_a_forked_child_a_scope_does_not_wait_for_coroutines_that_are_not_there() {
    util::on_workers(2, || {
        let mut number = 1;
        let forked = AtomicBool::new(false);
        let child = thread::scope(|s| {
            s.spawn(|| {
                while !forked.load(SeqCst) {
                    thread::sleep(MILLI);
                }
                number += 1;
            });
            let child = fork();
            forked.store(child.is_some(), SeqCst);
            child
        });
        match child {
            None => exit(number - 1),
            Some(child) => child.succeed(),
        }
        assert_eq!(number, 2);
    });
}

#[test]
#[serial]
fn coroutines_may_run_commands() {
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let (mut stream, theirs) = connection();
            spawn(|| echo_slowly(theirs));
            let commands: Vec<_> = (0..8)
                .map(|n| {
                    spawn(move || {
                        let mut command = Command::new("sh");
                        command.args(["-c", &format!("echo {n}")]);
                        if n % 2 == 0 {
                            // With a closure std forks, without one it uses posix_spawn. SAFETY: the
                            // closure does nothing.
                            unsafe { command.pre_exec(|| Ok(())) };
                        }
                        let output = command.output().unwrap();
                        assert!(output.status.success());
                        assert_eq!(output.stdout, format!("{n}\n").as_bytes());
                        let missing = Command::new("/no/such/program").spawn();
                        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
                    })
                })
                .collect();
            for _ in 0..5 {
                ask(&mut stream, b"meanwhile");
            }
            commands
                .into_iter()
                .for_each(|command| command.join().unwrap());
            ask(&mut stream, b"afterwards");
        });
    }
}

#[test]
#[serial]
fn a_future_of_the_parents_coroutine_fails_in_the_child_and_goes_on_in_the_parent() {
    run(|| {
        let parked = spawn(park);
        let thread = parked.thread().clone();
        let mut joined = parked.into_future();
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut joined).poll(&mut context).is_pending());
        let mut handed = Some(joined);
        let child = fork_to(|| {
            let joined = block_on(handed.take().unwrap());
            assert!(joined.unwrap_err().is::<Cancelled>());
        });
        child.succeed();
        thread.unpark();
        block_on(handed.unwrap()).unwrap();
    });
}
