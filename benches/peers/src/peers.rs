//! The peers, and the operations of the peers that the works use.
//!
//! The peers with blocking tasks share one trait. A work is written once for this trait, and once
//! more as futures for tokio.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

/// The address that a server binds: any free port of the loopback interface.
pub(crate) const ANY_PORT: &str = "127.0.0.1:0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Greenroom,
    /// tokio's current-thread runtime.
    Tokio,
    /// tokio's multi-thread runtime, with as many workers as the other peers.
    TokioMt,
    May,
    /// A std thread for each task.
    Threads,
    /// A hand-written loop: a bound that no runtime can beat.
    Mio,
}

impl Peer {
    pub(crate) const ALL: [Peer; 6] = [
        Peer::Greenroom,
        Peer::Tokio,
        Peer::TokioMt,
        Peer::May,
        Peer::Threads,
        Peer::Mio,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Greenroom => "greenroom",
            Peer::Tokio => "tokio",
            Peer::TokioMt => "tokio-mt",
            Peer::May => "may",
            Peer::Threads => "threads",
            Peer::Mio => "mio",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Peer> {
        Peer::ALL.into_iter().find(|peer| peer.name() == name)
    }

    /// The number of tasks that this peer gets in a work of `count` tasks.
    pub(crate) fn capped(self, count: usize) -> usize {
        match self {
            Peer::Threads => count.min(1_000),
            // A stack and its guard take two mappings, and a process may have 65,530 mappings.
            Peer::May => count.min(30_000),
            _ => count,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A peer with blocking tasks.
pub(crate) trait Blocking: 'static {
    const PEER: Peer;

    /// Runs `main` as a task. All tasks share `workers` OS threads, or `workers` CPUs if each task
    /// is a thread.
    fn run<T: Send + 'static>(workers: usize, main: impl FnOnce() -> T + Send + 'static) -> T;

    type Handle<T: Send + 'static>: Send;
    fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Self::Handle<T>;
    fn join<T: Send + 'static>(handle: Self::Handle<T>) -> T;

    fn yield_now();
    fn sleep(duration: Duration);

    type Unparker: Clone + Send + Sync + 'static;
    fn unparker() -> Self::Unparker;
    /// Parks the current task. May return spuriously.
    fn park();
    fn unpark(unparker: &Self::Unparker);

    type Listener;
    type Stream: Read + Write + Send + Sync + 'static;
    fn listen() -> io::Result<(Self::Listener, SocketAddr)>;
    fn accept(listener: &Self::Listener) -> io::Result<Self::Stream>;
    fn connect(addr: SocketAddr) -> io::Result<Self::Stream>;
    fn set_nodelay(stream: &Self::Stream) -> io::Result<()>;
    /// Copies all bytes by the peer's `io::copy`.
    fn copy(from: &Self::Stream, to: &Self::Stream) -> io::Result<u64>;
    /// Tells the other side that no more bytes come.
    fn end(stream: &Self::Stream) -> io::Result<()>;
}

pub(crate) struct Greenroom;

impl Blocking for Greenroom {
    const PEER: Peer = Peer::Greenroom;

    fn run<T: Send + 'static>(workers: usize, main: impl FnOnce() -> T + Send + 'static) -> T {
        let runtime = greenroom::RuntimeBuilder::new().workers(workers).build();
        // The spawned coroutine has a stack of the default size, like a task of the other peers.
        // The main coroutine has a larger stack.
        runtime
            .expect("a runtime")
            .run(|| Self::join(Self::spawn(main)))
    }

    type Handle<T: Send + 'static> = greenroom::JoinHandle<T>;

    fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Self::Handle<T> {
        greenroom::spawn(f)
    }

    fn join<T: Send + 'static>(handle: Self::Handle<T>) -> T {
        handle.join().expect("a task that does not panic")
    }

    #[inline]
    fn yield_now() {
        greenroom::yield_now();
    }

    fn sleep(duration: Duration) {
        greenroom::shims::thread::sleep(duration);
    }

    type Unparker = greenroom::Unparker;

    fn unparker() -> Self::Unparker {
        greenroom::Unparker::current()
    }

    fn park() {
        greenroom::park();
    }

    fn unpark(unparker: &Self::Unparker) {
        unparker.unpark();
    }

    type Listener = greenroom::shims::net::TcpListener;
    type Stream = greenroom::shims::net::TcpStream;

    fn listen() -> io::Result<(Self::Listener, SocketAddr)> {
        let listener = Self::Listener::bind(ANY_PORT)?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    }

    fn accept(listener: &Self::Listener) -> io::Result<Self::Stream> {
        Ok(listener.accept()?.0)
    }

    fn connect(addr: SocketAddr) -> io::Result<Self::Stream> {
        Self::Stream::connect(addr)
    }

    fn set_nodelay(stream: &Self::Stream) -> io::Result<()> {
        stream.set_nodelay(true)
    }

    fn copy(mut from: &Self::Stream, mut to: &Self::Stream) -> io::Result<u64> {
        greenroom::shims::io::copy(&mut from, &mut to)
    }

    fn end(stream: &Self::Stream) -> io::Result<()> {
        stream.shutdown(Shutdown::Write)
    }
}

pub(crate) struct May;

impl Blocking for May {
    const PEER: Peer = Peer::May;

    fn run<T: Send + 'static>(workers: usize, main: impl FnOnce() -> T + Send + 'static) -> T {
        let config = may::config();
        config.set_workers(workers);
        // If another process used a pinned worker's CPU, the worker would wait for this CPU even
        // while another CPU is idle.
        config.set_worker_pin(false);
        Self::join(Self::spawn(main))
    }

    type Handle<T: Send + 'static> = may::coroutine::JoinHandle<T>;

    fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Self::Handle<T> {
        // SAFETY: `spawn` requires that `f` keeps no reference to a thread-local across a wait and
        // does not overflow its stack. No work keeps such a reference or needs a deep stack.
        unsafe { may::coroutine::spawn(f) }
    }

    fn join<T: Send + 'static>(handle: Self::Handle<T>) -> T {
        handle.join().expect("a task that does not panic")
    }

    #[inline]
    fn yield_now() {
        may::coroutine::yield_now();
    }

    fn sleep(duration: Duration) {
        may::coroutine::sleep(duration);
    }

    type Unparker = may::coroutine::Coroutine;

    fn unparker() -> Self::Unparker {
        may::coroutine::current()
    }

    fn park() {
        may::coroutine::park();
    }

    fn unpark(unparker: &Self::Unparker) {
        unparker.unpark();
    }

    type Listener = may::net::TcpListener;
    type Stream = may::net::TcpStream;

    fn listen() -> io::Result<(Self::Listener, SocketAddr)> {
        let listener = Self::Listener::bind(ANY_PORT)?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    }

    fn accept(listener: &Self::Listener) -> io::Result<Self::Stream> {
        Ok(listener.accept()?.0)
    }

    fn connect(addr: SocketAddr) -> io::Result<Self::Stream> {
        Self::Stream::connect(addr)
    }

    fn set_nodelay(stream: &Self::Stream) -> io::Result<()> {
        stream.set_nodelay(true)
    }

    fn copy(from: &Self::Stream, to: &Self::Stream) -> io::Result<u64> {
        io::copy(&mut from.try_clone()?, &mut to.try_clone()?)
    }

    fn end(stream: &Self::Stream) -> io::Result<()> {
        stream.shutdown(Shutdown::Write)
    }
}

pub(crate) struct Threads;

impl Blocking for Threads {
    const PEER: Peer = Peer::Threads;

    fn run<T: Send + 'static>(workers: usize, main: impl FnOnce() -> T + Send + 'static) -> T {
        restrict_to_cpus(workers).expect("CPUs to run on");
        main()
    }

    type Handle<T: Send + 'static> = std::thread::JoinHandle<T>;

    fn spawn<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Self::Handle<T> {
        std::thread::spawn(f)
    }

    fn join<T: Send + 'static>(handle: Self::Handle<T>) -> T {
        handle.join().expect("a task that does not panic")
    }

    #[inline]
    fn yield_now() {
        std::thread::yield_now();
    }

    fn sleep(duration: Duration) {
        std::thread::sleep(duration);
    }

    type Unparker = std::thread::Thread;

    fn unparker() -> Self::Unparker {
        std::thread::current()
    }

    fn park() {
        std::thread::park();
    }

    fn unpark(unparker: &Self::Unparker) {
        unparker.unpark();
    }

    type Listener = std::net::TcpListener;
    type Stream = std::net::TcpStream;

    fn listen() -> io::Result<(Self::Listener, SocketAddr)> {
        let listener = Self::Listener::bind(ANY_PORT)?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    }

    fn accept(listener: &Self::Listener) -> io::Result<Self::Stream> {
        Ok(listener.accept()?.0)
    }

    fn connect(addr: SocketAddr) -> io::Result<Self::Stream> {
        Self::Stream::connect(addr)
    }

    fn set_nodelay(stream: &Self::Stream) -> io::Result<()> {
        stream.set_nodelay(true)
    }

    fn copy(mut from: &Self::Stream, mut to: &Self::Stream) -> io::Result<u64> {
        io::copy(&mut from, &mut to)
    }

    fn end(stream: &Self::Stream) -> io::Result<()> {
        stream.shutdown(Shutdown::Write)
    }
}

/// Restricts this thread, and the threads that it will spawn, to the first `count` of its CPUs.
/// A thread with fewer CPUs keeps all of them.
fn restrict_to_cpus(count: usize) -> io::Result<()> {
    // SAFETY: a `cpu_set_t` is an array of integers, so all zeros are a valid value. The kernel
    // reads and writes at most `size` bytes of `cpus`, and `cpus` has `size` bytes. The CPU numbers
    // given to the macros are below `CPU_SETSIZE`.
    unsafe {
        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        let size = size_of_val(&cpus);
        if libc::sched_getaffinity(0, size, &mut cpus) != 0 {
            return Err(io::Error::last_os_error());
        }
        let mine = (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &cpus));
        for cpu in mine.skip(count).collect::<Vec<_>>() {
            libc::CPU_CLR(cpu, &mut cpus);
        }
        if libc::sched_setaffinity(0, size, &cpus) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Runs `main` as a task on the tokio runtime that `peer` stands for. The current-thread runtime
/// ignores `workers`.
pub(crate) fn run_tokio<T: Send + 'static>(
    peer: Peer,
    workers: usize,
    main: impl Future<Output = T> + Send + 'static,
) -> T {
    let mut builder = match peer {
        Peer::Tokio => tokio::runtime::Builder::new_current_thread(),
        Peer::TokioMt => tokio::runtime::Builder::new_multi_thread(),
        _ => unreachable!("{peer} is not tokio"),
    };
    let runtime = builder.worker_threads(workers).enable_all().build();
    // `main` is spawned because `block_on` polls a future directly, not as a task on a worker.
    runtime.expect("a runtime").block_on(async {
        tokio::spawn(main)
            .await
            .expect("a task that does not panic")
    })
}
