//! Forks, execs and signals, on coroutines. Each test has a process of its own: a fork has the descriptors of all
//! tests, and a signal may come to any thread.

use std::cell::UnsafeCell;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::mem;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use libc::{EPIPE, MSG_NOSIGNAL, c_int, c_void};

use crate::calls::{alike, call, later, on_coroutine, patched, pause};
use crate::util::{ms, noise, on_an_os_thread, on_workers, until_full};

/// Runs `test` in a process of its own, which is a child with this test alone.
macro_rules! alone {
    ($test:ident, $body:block) => {
        #[test]
        fn $test() {
            if $crate::util::role().is_none() {
                let mut again = $crate::util::again!(stringify!($test), "alone");
                let output = again.output().unwrap();
                let (out, err) = (output.stdout, output.stderr);
                let said = String::from_utf8_lossy(&out) + String::from_utf8_lossy(&err);
                return assert!(output.status.success(), "{}: {said}", output.status);
            }
            $body
        }
    };
}
pub(crate) use alone;

/// How a child has ended.
fn exit_code(child: libc::pid_t) -> c_int {
    let mut status = 0;
    // SAFETY: the pointer is to a number.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "{status:#x}");
    libc::WEXITSTATUS(status)
}

#[test]
fn a_wait_for_the_children_of_this_thread_alone_parks() {
    on_coroutine(|c| {
        let ticks = AtomicUsize::new(0);
        greenroom::scope(|s| {
            let mut cat = Command::new("cat");
            let mut child = cat.stdin(Stdio::piped()).spawn().unwrap();
            let input = child.stdin.take();
            s.spawn(|| {
                ticks.fetch_add(1, Ordering::Relaxed);
                drop(input);
            });
            let waited = call!(c.waitpid(-1, null_mut(), libc::__WNOTHREAD));
            assert_eq!(waited, Ok(child.id().into()));
            assert_eq!(ticks.load(Ordering::Relaxed), 1);
            let waited = call!(c.waitpid(-1, null_mut(), libc::__WNOTHREAD));
            assert_eq!(waited, Err(libc::ECHILD));
            child.wait().unwrap_err();
        });
    });
}

alone!(
    a_child_of_a_coroutine_blocks_instead_of_running_the_others,
    {
        on_coroutine(|c| {
            let (mut reader, writer) = io::pipe().unwrap();
            let (input, mut to_child) = io::pipe().unwrap();
            let pid_of_writer = writer.try_clone().unwrap();
            // It runs while the child waits, but in the parent only.
            let other = greenroom::spawn(move || {
                for _ in 0..3 {
                    pause();
                    (&pid_of_writer)
                        .write_all(&std::process::id().to_ne_bytes())
                        .unwrap();
                }
            });
            // SAFETY: the child calls functions that are async-signal-safe, and then `_exit`.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let mut byte = 0u8;
                let to = (&raw mut byte).cast();
                let mut entry = libc::pollfd {
                    fd: input.as_raw_fd(),
                    events: libc::POLLIN,
                    revents: 0,
                };
                let results = [
                    call!(c.usleep(50_000)),
                    call!(c.poll(null_mut(), 0, 50)),
                    call!(c.poll(&raw mut entry, 1, -1)),
                    call!(c.read(input.as_raw_fd(), to, 1)),
                    call!(c.close(input.as_raw_fd())),
                    call!(c.write(writer.as_raw_fd(), [0u8; 4].as_ptr().cast(), 4)),
                ];
                let code = match results == [Ok(0), Ok(0), Ok(1), Ok(1), Ok(0), Ok(4)] {
                    true => 7,
                    false => 1,
                };
                // SAFETY: the process ends.
                unsafe { libc::_exit(code) };
            }
            pause();
            to_child.write_all(b"x").unwrap();
            assert_eq!(exit_code(child), 7);
            other.join().unwrap();
            drop(writer);
            let mut pids = Vec::new();
            reader.read_to_end(&mut pids).unwrap();
            let mut pids: Vec<_> = pids
                .chunks(4)
                .map(|pid| u32::from_ne_bytes(pid.try_into().unwrap()))
                .collect();
            pids.sort_unstable();
            assert_eq!(pids, [&[0], &[std::process::id(); 3][..]].concat());
        });
    }
);

/// A child that accepts connections on a coroutine, and answers on another one of the same worker.
struct Acceptor {
    ask: PipeWriter,
    answers: PipeReader,
}

impl Acceptor {
    fn fork(listener: &TcpListener) -> Acceptor {
        let (asked, ask) = io::pipe().unwrap();
        let (answers, answer) = io::pipe().unwrap();
        // SAFETY: the process has had no runtime, and its other threads hold no locks that are not held over forks.
        if unsafe { libc::fork() } != 0 {
            return Acceptor { ask, answers };
        }
        drop((ask, answers));
        let serve = || -> io::Result<()> {
            let listener = listener.try_clone()?;
            on_workers(1, move || {
                greenroom::spawn(move || while listener.accept().is_ok() {});
                loop {
                    (&asked).read_exact(&mut [0])?;
                    (&answer).write_all(b"y")?;
                }
            })
        };
        // The parent has gone.
        drop(serve());
        // SAFETY: the process ends.
        unsafe { libc::_exit(0) };
    }

    fn answers(&mut self) {
        self.ask.write_all(b"?").unwrap();
        self.answers.read_exact(&mut [0]).unwrap();
    }
}

alone!(
    processes_that_were_forked_before_their_runtimes_accept_from_one_listener,
    {
        on_an_os_thread(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let mut acceptors = [(); 2].map(|()| Acceptor::fork(&listener));
            acceptors.iter_mut().for_each(Acceptor::answers);
            for _ in 0..200 {
                drop(TcpStream::connect(addr).unwrap());
                acceptors.iter_mut().for_each(Acceptor::answers);
            }
        });
    }
);

alone!(a_closure_before_an_exec_may_wait, {
    on_coroutine(|_| {
        let (mut tick, ticks) = io::pipe().unwrap();
        let ticker = greenroom::spawn(move || {
            for _ in 0..5 {
                pause();
                (&ticks).write_all(b"t").unwrap();
            }
        });
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 0.05; echo $0 $ADDED; exec cat"]);
        command.arg("zero").env("ADDED", "added");
        command
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped());
        // SAFETY: the closure only calls functions that are async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::usleep(50_000);
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"input").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"zero added\ninput");
        ticker.join().unwrap();
        let mut ticks = Vec::new();
        tick.read_to_end(&mut ticks).unwrap();
        assert_eq!(ticks, b"ttttt", "the child runs nothing of the parent's");
        let failed = {
            let mut command = Command::new("true");
            // SAFETY: as above.
            unsafe { command.pre_exec(|| Err(io::Error::from_raw_os_error(libc::EXDEV))) };
            command.spawn().unwrap_err()
        };
        assert_eq!(failed.raw_os_error(), Some(libc::EXDEV));
    });
});

alone!(a_spawn_by_posix_spawn_works, {
    on_coroutine(|_| {
        let (mut reader, writer) = io::pipe().unwrap();
        let argv = [
            c"sh".as_ptr(),
            c"-c".as_ptr(),
            c"echo spawned; exit 3".as_ptr(),
            null(),
        ];
        let mut child = 0;
        // SAFETY: the pointers are valid, and the lists end by null.
        unsafe {
            let mut actions = mem::zeroed();
            libc::posix_spawn_file_actions_init(&raw mut actions);
            libc::posix_spawn_file_actions_adddup2(&raw mut actions, writer.as_raw_fd(), 1);
            libc::posix_spawn_file_actions_addclose(&raw mut actions, reader.as_raw_fd());
            let argv = argv.as_ptr().cast();
            let error = libc::posix_spawnp(
                &raw mut child,
                c"sh".as_ptr(),
                &raw const actions,
                null(),
                argv,
                [null_mut()].as_ptr(),
            );
            assert_eq!(error, 0);
            libc::posix_spawn_file_actions_destroy(&raw mut actions);
        }
        drop(writer);
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "spawned\n");
        assert_eq!(exit_code(child), 3);
    });
});

/// What the child of a vfork does: it closes a descriptor, writes, and waits.
extern "C" fn in_vfork(fds: *mut c_void) -> c_int {
    // SAFETY: the parent passes these, and does not run meanwhile.
    let [closed, written, read] = unsafe { *fds.cast::<[c_int; 3]>() };
    let (c, mut byte) = (patched(), 0u8);
    let done = [
        call!(c.close(closed)),
        call!(c.write(written, b"x".as_ptr().cast(), 1)),
        call!(c.read(read, (&raw mut byte).cast(), 1)),
        call!(c.usleep(10_000)),
    ];
    // SAFETY: the process ends.
    unsafe {
        libc::_exit(if done == [Ok(0), Ok(1), Ok(1), Ok(0)] {
            9
        } else {
            1
        })
    }
}

alone!(a_child_that_shares_the_memory_ends_no_waits, {
    on_coroutine(|_| {
        let (stream, mut end) = UnixStream::pair().unwrap();
        let fd = stream.as_raw_fd();
        let receiver = greenroom::spawn(move || {
            let (c, mut buf) = (patched(), [0u8; 9]);
            call!(c.recv(fd, buf.as_mut_ptr().cast(), 9, 0))
        });
        pause();
        let (reader, writer) = io::pipe().unwrap();
        let (for_child, to_child) = io::pipe().unwrap();
        let feeder = std::thread::spawn(move || {
            std::thread::sleep(ms(30));
            (&to_child).write_all(b"x").unwrap();
        });
        let mut fds = [fd, writer.as_raw_fd(), for_child.as_raw_fd()];
        let mut stack = vec![0u128; 1 << 14];
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the stack is the child's alone until it ends, before which the caller does not go on. Its
        // end is aligned.
        let child = unsafe {
            let top = stack.as_mut_ptr_range().end.cast();
            libc::clone(in_vfork, top, flags, fds.as_mut_ptr().cast())
        };
        assert_eq!(exit_code(child), 9);
        feeder.join().unwrap();
        (&reader).read_exact(&mut [0]).unwrap();
        end.write_all(b"still there").unwrap();
        assert_eq!(receiver.join().unwrap(), Ok(9));
    });
});

/// Where the handler writes.
static SELF_PIPE: AtomicI32 = AtomicI32::new(-1);
static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn write_to_pipe(_: c_int) {
    let (c, errno) = (patched(), crate::calls::errno());
    let written = call!(c.write(SELF_PIPE.load(Ordering::SeqCst), b"s".as_ptr().cast(), 1));
    assert_eq!(written, Ok(1));
    HANDLED.fetch_add(1, Ordering::SeqCst);
    crate::calls::set_errno(errno);
}

fn handle_by(signal: c_int, handler: extern "C" fn(c_int), flags: c_int) {
    // SAFETY: the handlers of these tests are async-signal-safe. All-zero is a valid action.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &raw const action, null_mut()), 0);
    }
}

alone!(a_handler_writes_to_a_pipe_while_coroutines_run, {
    for flags in [0, libc::SA_RESTART] {
        handle_by(libc::SIGUSR1, write_to_pipe, flags);
        HANDLED.store(0, Ordering::SeqCst);
        on_workers(1, || {
            let (mut reader, writer) = io::pipe().unwrap();
            SELF_PIPE.store(writer.as_raw_fd(), Ordering::SeqCst);
            let counter = greenroom::spawn(move || {
                let mut got = Vec::new();
                reader.read_to_end(&mut got).unwrap();
                got.len()
            });
            let echoes: Vec<_> = (0..4)
                .map(|i| {
                    let (one, mut other) = UnixStream::pair().unwrap();
                    greenroom::spawn(move || {
                        let mut byte = [0];
                        while other.read(&mut byte).unwrap() > 0 {
                            other.write_all(&byte).unwrap();
                        }
                    });
                    greenroom::spawn(move || {
                        let c = patched();
                        let fd = one.as_raw_fd();
                        for i in (0..2000u32).map(|n| (n + i) as u8) {
                            let mut back = 0u8;
                            let from = (&raw const i).cast();
                            assert_eq!(call!(c.send(fd, from, 1, 0)), Ok(1));
                            assert_eq!(call!(c.recv(fd, (&raw mut back).cast(), 1, 0)), Ok(1));
                            assert_eq!(back, i);
                            if i % 64 == 0 {
                                assert_eq!(call!(c.usleep(100)), Ok(0));
                                assert_eq!(call!(c.poll(null_mut(), 0, 1)), Ok(0));
                            }
                        }
                    })
                })
                .collect();
            // SAFETY: the thread waits below for the one that sends signals to it.
            let worker = unsafe { libc::pthread_self() } as usize;
            let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            let sender = std::thread::spawn({
                let stop = stop.clone();
                move || {
                    while !stop.load(Ordering::SeqCst) {
                        // SAFETY: as above.
                        unsafe { libc::pthread_kill(worker as _, libc::SIGUSR1) };
                        std::thread::sleep(ms(1) / 5);
                    }
                }
            });
            for echo in echoes {
                echo.join().unwrap();
            }
            stop.store(true, Ordering::SeqCst);
            sender.join().unwrap();
            pause();
            drop(writer);
            let handled = HANDLED.load(Ordering::SeqCst);
            assert!(handled > 0);
            assert_eq!(counter.join().unwrap(), handled);
        });
    }
});

thread_local! {
    static BROKEN_PIPES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

extern "C" fn count(_: c_int) {
    BROKEN_PIPES.set(BROKEN_PIPES.get() + 1);
}

alone!(a_write_without_a_reader_raises_a_signal, {
    handle_by(libc::SIGPIPE, count, 0);
    alike(|c| {
        let signals = |f: &dyn Fn() -> Result<i64, c_int>| {
            BROKEN_PIPES.set(0);
            (f(), BROKEN_PIPES.get())
        };
        let (reader, writer) = io::pipe().unwrap();
        let (stream, end) = UnixStream::pair().unwrap();
        let (pipe, socket) = (writer.as_raw_fd(), stream.as_raw_fd());
        let bytes = noise(4 << 20, 1);
        let (from, len) = (bytes.as_ptr().cast(), bytes.len());
        // They break in the midst. Of a socket, that is no error of this call.
        let copy = writer.try_clone().unwrap();
        let closer = later(move || {
            until_full(&copy);
            drop(reader);
        });
        assert_eq!(
            signals(&|| call!(c.write(pipe, from, len))),
            (Ok(1 << 16), 1)
        );
        closer.join().unwrap();
        let copy = stream.try_clone().unwrap();
        let closer = later(move || {
            until_full(&copy);
            drop(end);
        });
        let (sent, raised) = signals(&|| call!(c.write(socket, from, len)));
        assert!(sent.is_ok_and(|sent| sent > 0 && sent < len as i64));
        assert_eq!(raised, 0);
        closer.join().unwrap();

        let broken = [
            signals(&|| call!(c.write(pipe, from, len))),
            signals(&|| call!(c.write(socket, from, 1))),
            signals(&|| call!(c.send(socket, from, 1, 0))),
        ];
        assert_eq!(broken, [(Err(EPIPE), 1); 3]);
        let quiet = signals(&|| call!(c.send(socket, from, 1, MSG_NOSIGNAL)));
        assert_eq!(quiet, (Err(EPIPE), 0));
        let closed = writer.into_raw_fd();
        assert_eq!(call!(c.close(closed)), Ok(0));
    });
});

/// A mutex that is held over forks, as allocators and others hold theirs.
struct HeldOverForks(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a mutex is for use by several threads.
unsafe impl Sync for HeldOverForks {}

static HELD: HeldOverForks = HeldOverForks(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

unsafe extern "C" fn lock_held() {
    // SAFETY: the mutex is initialised.
    unsafe { libc::pthread_mutex_lock(HELD.0.get()) };
}

unsafe extern "C" fn unlock_held() {
    // SAFETY: the thread, or what it was in the parent, has locked it.
    unsafe { libc::pthread_mutex_unlock(HELD.0.get()) };
}

unsafe extern "C" fn unlock_held_in_child() {
    // SAFETY: the call takes any number. A deadlock ends this process, too.
    unsafe { libc::alarm(30) };
    // SAFETY: as for the parent.
    unsafe { unlock_held() };
}

alone!(
    a_library_unlocks_its_mutex_after_a_fork_while_coroutines_wait,
    {
        // SAFETY: the call takes any number. The functions only lock and unlock.
        unsafe {
            // A deadlock ends the process.
            libc::alarm(30);
            // Before the first runtime, so that they run while the runtime's own locks are held.
            let handlers = libc::pthread_atfork(
                Some(lock_held),
                Some(unlock_held),
                Some(unlock_held_in_child),
            );
            assert_eq!(handlers, 0);
        }
        static SHARED: HeldOverForks =
            HeldOverForks(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));
        on_coroutine(|_| {
            let lock = || {
                // SAFETY: the mutex is initialised.
                assert_eq!(unsafe { libc::pthread_mutex_lock(SHARED.0.get()) }, 0);
            };
            let unlock = || {
                // SAFETY: the caller has locked it.
                assert_eq!(unsafe { libc::pthread_mutex_unlock(SHARED.0.get()) }, 0);
            };
            lock();
            let waiter = greenroom::spawn(move || {
                lock();
                unlock();
            });
            pause();
            // SAFETY: the child ends at once.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: the process ends.
                unsafe { libc::_exit(5) };
            }
            assert_eq!(exit_code(child), 5);
            unlock();
            waiter.join().unwrap();
        });
    }
);
