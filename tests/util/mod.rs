//! What the tests share.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "each binary uses its part"
)]

use std::any::Any;
use std::ffi::CString;
use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Deref;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use greenroom::RuntimeBuilder;
use greenroom::shims::thread;

/// Whether std itself is under test, on coroutines, by the patch of the C library.
pub(crate) const IS_PATCH: bool = false;

/// Longer than any step of a test takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// How long a test may take before it counts as hung.
const HUNG: Duration = Duration::from_secs(100);

/// Runs `test` in all places where the result must be the same: on an OS thread, alone and beside a busy
/// runtime, and in a coroutine, on one worker and on four.
#[track_caller]
pub(crate) fn everywhere(test: impl Fn()) {
    on_an_os_thread(&test);
    beside_a_runtime(&test);
    on_workers(1, &test);
    on_workers(4, &test);
}

/// Runs `test` on the calling OS thread. Aborts the process if the test hangs.
pub(crate) fn on_an_os_thread<T>(test: impl FnOnce() -> T) -> T {
    watched("on an OS thread", test)
}

/// Runs `test` on a thread that never ends, because coroutines that are left behind there never end.
pub(crate) fn on_a_thread_that_stays(test: impl FnOnce() + Send + 'static) {
    let (tell, result) = mpsc::channel();
    std::thread::spawn(move || {
        tell.send(catch_unwind(AssertUnwindSafe(test))).unwrap();
        loop {
            std::thread::park();
        }
    });
    let result = on_an_os_thread(|| result.recv().unwrap());
    result.unwrap_or_else(|payload| resume_unwind(payload));
}

/// Runs `test` on the calling OS thread, beside an unrelated runtime.
fn beside_a_runtime(test: impl Fn()) {
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
            runtime.run(|| {
                while !over.load(Ordering::Acquire) {
                    greenroom::park_timeout(Duration::from_millis(1));
                }
            });
        });
        let result = catch_unwind(AssertUnwindSafe(|| watched("beside a runtime", test)));
        over.store(true, Ordering::Release);
        result.unwrap_or_else(|payload| resume_unwind(payload));
    });
}

/// Runs `test` as the main coroutine of a runtime with `workers` workers. Aborts the process if the test
/// hangs.
pub(crate) fn on_workers<T>(workers: usize, test: impl FnOnce() -> T) -> T {
    let place = format!("on {workers} workers");
    watched(&place, || {
        let runtime = RuntimeBuilder::new().workers(workers).build().unwrap();
        runtime.run(test)
    })
}

/// Runs `test`. Says where it failed, and aborts the process if it hangs.
fn watched<T>(place: &str, test: impl FnOnce() -> T) -> T {
    let over = Arc::new(AtomicBool::new(false));
    let watchdog = std::thread::spawn({
        let (over, place) = (Arc::clone(&over), place.to_owned());
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        move || {
            let start = Instant::now();
            while !over.load(Ordering::Acquire) {
                if start.elapsed() > HUNG {
                    eprintln!("{test} hangs {place}");
                    std::process::abort();
                }
                std::thread::park_timeout(HUNG);
            }
        }
    });
    let result = catch_unwind(AssertUnwindSafe(test));
    over.store(true, Ordering::Release);
    watchdog.thread().unpark();
    watchdog.join().unwrap();
    result.unwrap_or_else(|payload| {
        eprintln!("failed {place}");
        resume_unwind(payload)
    })
}

/// Sets SO_LINGER to zero seconds: a close then sends a reset.
pub(crate) fn reset_on_close(socket: &impl AsRawFd) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the option takes a `linger`, and the length is that of `linger`.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of_val(&linger) as libc::socklen_t,
        )
    };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// A TCP port of 127.0.0.1 that is bound, so that nobody else can get it, but does not listen: connects
/// to it are refused.
pub(crate) struct ClosedPort {
    socket: OwnedFd,
    pub(crate) addr: SocketAddr,
}

impl ClosedPort {
    pub(crate) fn new() -> ClosedPort {
        // SAFETY: socket has no preconditions, and a new descriptor is ours.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd)
        };
        // SAFETY: all-zero is a valid `sockaddr_in`.
        let mut name: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        name.sin_family = libc::AF_INET as libc::sa_family_t;
        name.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
        let mut len = size_of_val(&name) as libc::socklen_t;
        // SAFETY: the descriptor is open, and the address is valid and has the given length.
        unsafe {
            let fd = socket.as_raw_fd();
            assert_eq!(libc::bind(fd, (&raw const name).cast(), len), 0);
            let got = libc::getsockname(fd, (&raw mut name).cast(), &mut len);
            assert_eq!(got, 0);
        }
        let addr = SocketAddr::from(([127, 0, 0, 1], u16::from_be(name.sin_port)));
        ClosedPort { socket, addr }
    }

    /// Starts to listen with the shortest queue, and never accepts. After one or two connections, further
    /// connects get no answer.
    pub(crate) fn listen_without_accepting(&self) {
        // SAFETY: the descriptor is open.
        let done = unsafe { libc::listen(self.socket.as_raw_fd(), 0) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
    }
}

/// Pseudo-random bytes, in which a loss, a repetition or a wrong order shows.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

/// Compares the bytes; reports the first difference instead of all of them.
#[track_caller]
pub(crate) fn assert_same_bytes(got: &[u8], wanted: &[u8]) {
    if let Some(at) = got.iter().zip(wanted).position(|(a, b)| a != b) {
        panic!("byte {at} differs: {} instead of {}", got[at], wanted[at]);
    }
    assert_eq!(got.len(), wanted.len(), "the length differs");
}

/// An address of the loopback interface that no other test listens on, unless it listens on all addresses. For
/// tests in which a port is closed: elsewhere, another test could get the port and open it again.
pub(crate) fn own_loopback() -> Ipv4Addr {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % 250;
    Ipv4Addr::new(127, high | 0x80, low, 2 + number as u8)
}

/// Waits until the peer's kernel has all that was written to this TCP socket. The calling worker runs nothing
/// else meanwhile.
pub(crate) fn until_delivered(socket: &impl AsRawFd) {
    let start = Instant::now();
    loop {
        let mut left: libc::c_int = 0;
        // SAFETY: the request writes an integer.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut left) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        if left == 0 {
            return;
        }
        assert!(start.elapsed() < HUNG / 2, "{left} bytes are not delivered");
        std::thread::yield_now();
    }
}

/// Spawns a coroutine, and returns when it has begun. If it has the same worker as the caller, it is in its first
/// wait then.
pub(crate) fn begin<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> greenroom::JoinHandle<T> {
    let has_begun = Arc::new(AtomicBool::new(false));
    let begins = Arc::clone(&has_begun);
    let coroutine = greenroom::spawn(move || {
        begins.store(true, Ordering::Release);
        body()
    });
    until("it has begun", || has_begun.load(Ordering::Acquire));
    coroutine
}

/// Spawns a coroutine that was cancelled when it begins with `body`, and has not unwound yet.
pub(crate) fn begin_cancelled<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> greenroom::JoinHandle<T> {
    let (go_on, may_go_on) = greenroom::channel::oneshot();
    let coroutine = begin(move || {
        greenroom::shield(|| may_go_on.recv()).unwrap();
        body()
    });
    coroutine.cancel();
    go_on.send(()).unwrap();
    coroutine
}

/// The number of descriptors that this process has open.
pub(crate) fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Fails if more descriptors are open than `before`. There may be fewer: threads that earlier tests have used end at
/// any time, and close theirs.
#[track_caller]
pub(crate) fn assert_no_more_descriptors(before: usize) {
    let now = open_descriptors();
    assert!(now <= before, "{now} descriptors instead of {before}");
}

/// The number of descriptors that are registered with all polls of this process.
pub(crate) fn registrations() -> usize {
    let fdinfo = std::fs::read_dir("/proc/self/fdinfo").unwrap();
    fdinfo
        .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok())
        .map(|info| info.lines().filter(|line| line.starts_with("tfd:")).count())
        .sum()
}

/// The environment variable that tells a child process its part in a test.
const ROLE: &str = "GREENROOM_TEST_ROLE";

/// The command that starts this test binary again and runs only `$test`, a test of the calling module. In
/// the new process, [`role`] returns `$role`.
macro_rules! again {
    ($test:expr, $role:expr $(,)?) => {
        $crate::util::again_in(module_path!(), $test, $role)
    };
}
pub(crate) use again;

pub(crate) fn again_in(module: &str, test: &str, role: &str) -> Command {
    // The harness leaves out the name of the crate.
    let test = match module.split_once("::") {
        Some((_, module)) => format!("{module}::{test}"),
        None => test.to_owned(),
    };
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test.as_str(), "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env("RUST_BACKTRACE", "0");
    // A shell has its background jobs ignore SIGINT, and nohup has its program ignore SIGHUP.
    let heed_signals = || {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: this sets no handler.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: `signal` is async-signal-safe.
    unsafe { command.pre_exec(heed_signals) };
    command
}

/// Fails if a test could run beside a serial test, in a module that the file `root` in `tests` declares.
#[track_caller]
pub(crate) fn assert_serial(root: &str) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let root = tests.join(root);
    let declared = std::fs::read_to_string(&root).unwrap();
    let modules = declared
        .lines()
        .filter_map(|line| line.strip_prefix("mod "));
    for module in modules.filter(|&module| module != "util;") {
        let path = root.with_file_name(module.replace(';', ".rs"));
        let source = std::fs::read_to_string(&path).unwrap();
        let mut lines = source.lines().map(str::trim_start);
        while lines.by_ref().any(|line| line == "#[test]") {
            let next = lines.next().unwrap_or_default();
            let annotated = next.starts_with("#[serial") || next.starts_with("#[parallel");
            assert!(annotated, "{next:?} in {}", path.display());
        }
    }
}

/// The role of this process, if a test has started it by `again!`.
pub(crate) fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// For tests of std itself, which can run on OS threads only.
pub(crate) mod of_std {
    pub(crate) use super::*;

    pub(crate) fn everywhere(test: impl Fn()) {
        on_an_os_thread(test);
    }
}

/// The address on which tests listen.
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// For tests that are repeated on IPv6. Only the address differs, so one place is enough.
pub(crate) mod on_v6 {
    pub(crate) use super::*;

    pub(crate) const LOOPBACK: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    pub(crate) fn everywhere(test: impl Fn()) {
        match std::net::UdpSocket::bind((LOOPBACK, 0)) {
            Ok(_) => on_workers(1, test),
            Err(error) => eprintln!("skipped, no IPv6 on the loopback: {error}"),
        }
    }
}

/// An IPv6 address of this machine that is valid only together with its interface, and that interface.
pub(crate) fn link_local() -> Option<(Ipv6Addr, u32)> {
    let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let found = table.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let ip = u128::from_str_radix(fields.next()?, 16).ok()?;
        let interface = u32::from_str_radix(fields.next()?, 16).ok()?;
        let ip = Ipv6Addr::from(ip);
        let usable =
            std::net::UdpSocket::bind(std::net::SocketAddrV6::new(ip, 0, 0, interface)).is_ok();
        (ip.is_unicast_link_local() && usable).then_some((ip, interface))
    });
    if found.is_none() {
        eprintln!("skipped, no link-local address");
    }
    found
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Gives another task the time to begin its wait. If the time is too short, a test is weaker, but not
/// wrong.
pub(crate) fn settle() {
    thread::sleep(ms(50));
}

/// Waits until `done` returns true. The caller may be a coroutine or an OS thread.
#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < HUNG / 2, "waited in vain until {what}");
        thread::sleep(ms(1));
    }
}

/// How long the calling thread has had a processor so far.
pub(crate) fn thread_cpu_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

/// A busy machine may stretch any time. One attempt of ten must succeed.
#[track_caller]
pub(crate) fn in_one_of_ten(mut attempt: impl FnMut() -> Result<(), String>) {
    let mut failures = Vec::new();
    for _ in 0..10 {
        match attempt() {
            Ok(()) => return,
            Err(why) => failures.push(why),
        }
    }
    panic!("{failures:#?}");
}

pub(crate) fn is_timeout(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Calls `operation` until it ends otherwise than by an interrupt: Linux interrupts a socket call with a
/// timeout also when the process is stopped for a moment, as by a debugger.
pub(crate) fn uninterrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

#[track_caller]
pub(crate) fn assert_times_out<T: Debug>(operation: impl FnMut() -> io::Result<T>) {
    let kind = uninterrupted(operation)
        .expect_err("this should have timed out")
        .kind();
    assert!(is_timeout(kind), "{kind:?}");
}

/// Counts how often it is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Counted(pub(crate) Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

pub(crate) fn counter() -> Arc<AtomicUsize> {
    Arc::new(AtomicUsize::new(0))
}

/// Calls a function when it is dropped.
pub(crate) struct Finally<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The message of a panic.
pub(crate) fn message(payload: &(dyn Any + Send)) -> &str {
    match payload.downcast_ref::<String>() {
        Some(text) => text,
        None => payload.downcast_ref::<&str>().expect("a message"),
    }
}

/// A descriptor of the process that is replaced by another until this is dropped.
pub(crate) struct Replaced {
    fd: RawFd,
    before: RawFd,
}

impl Replaced {
    /// The number is in use at all times, so nothing that is opened meanwhile gets it.
    pub(crate) fn new(fd: RawFd, by: RawFd) -> Replaced {
        // SAFETY: the caller passes a standard descriptor, which is open for the whole process.
        let before = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 10) };
        assert!(before >= 0);
        // SAFETY: both numbers are open, and nobody owns the second one.
        assert_eq!(unsafe { libc::dup2(by, fd) }, fd);
        Replaced { fd, before }
    }

    /// Replaces it by a descriptor that cannot be written to, as if it were closed.
    pub(crate) fn closed(fd: RawFd) -> Replaced {
        let unwritable = std::fs::File::open("/dev/null").unwrap();
        Replaced::new(fd, unwritable.as_raw_fd())
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        // SAFETY: this owns the duplicate, and closes it once.
        unsafe {
            assert_eq!(libc::dup2(self.before, self.fd), self.fd);
            libc::close(self.before);
        }
    }
}

/// Whether a read of `fd` would not wait.
pub(crate) fn has_something(fd: &impl AsRawFd) -> bool {
    is_ready(fd, libc::POLLIN)
}

/// Whether a write to `fd` would not wait.
pub(crate) fn takes_more(fd: &impl AsRawFd) -> bool {
    is_ready(fd, libc::POLLOUT)
}

fn is_ready(fd: &impl AsRawFd, events: i16) -> bool {
    let mut look = libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    // SAFETY: there is one entry, which is valid.
    let ready = unsafe { libc::poll(&raw mut look, 1, 0) };
    assert!(ready >= 0, "{}", io::Error::last_os_error());
    ready > 0
}

/// The message of the panic in `f`.
pub(crate) fn message_of<T>(f: impl FnOnce() -> T) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).map(drop).unwrap_err();
    message(&*payload).to_owned()
}

/// A directory for one test, removed with its content when this is dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch::within(&std::env::temp_dir())
    }

    pub(crate) fn within(parent: &Path) -> Scratch {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("greenroom-test-{}-{number}", std::process::id());
            let path = parent.join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => return Scratch(path),
                // An earlier process of the same number was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

pub(crate) fn make_named_pipe(path: &Path) {
    let path = CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    // SAFETY: the path ends with a null byte.
    let made = unsafe { libc::mkfifo(path.as_ptr(), 0o600) };
    assert_eq!(made, 0, "{}", io::Error::last_os_error());
}

/// Gives the calling thread, and threads that it starts, a mount namespace of their own.
pub(crate) fn own_mounts() -> io::Result<()> {
    // SAFETY: the call has no preconditions.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    mount_with(
        "none",
        Path::new("/"),
        "none",
        libc::MS_REC | libc::MS_PRIVATE,
        "",
    )
}

/// Mounts a file system at `at`, for threads that see the same mounts as the caller.
pub(crate) fn mount(source: &str, at: &Path, kind: &str, options: &str) -> io::Result<()> {
    mount_with(source, at, kind, 0, options)
}

fn mount_with(
    source: &str,
    at: &Path,
    kind: &str,
    flags: libc::c_ulong,
    options: &str,
) -> io::Result<()> {
    let at = CString::new(at.as_os_str().as_encoded_bytes())?;
    let [source, kind, options] = [source, kind, options].map(|text| CString::new(text).unwrap());
    // SAFETY: the strings end with a null byte.
    let done = unsafe {
        libc::mount(
            source.as_ptr(),
            at.as_ptr(),
            kind.as_ptr(),
            flags,
            options.as_ptr().cast(),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Unmounts the file system at `at` as soon as nobody uses it.
pub(crate) fn unmount(at: &Path) -> io::Result<()> {
    let at = CString::new(at.as_os_str().as_encoded_bytes())?;
    // SAFETY: the string ends with a null byte.
    match unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A pseudo-terminal. The test is its user.
pub(crate) struct Pty {
    pub(crate) user: std::fs::File,
    path: PathBuf,
}

impl Pty {
    pub(crate) fn new() -> Pty {
        // SAFETY: the call has no preconditions, and nobody else owns a new descriptor.
        let user = unsafe {
            let fd = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            assert_eq!(libc::grantpt(fd), 0);
            assert_eq!(libc::unlockpt(fd), 0);
            OwnedFd::from_raw_fd(fd)
        };
        let name = rustix::pty::ptsname(&user, Vec::new()).unwrap();
        Pty {
            user: user.into(),
            path: name.to_str().unwrap().into(),
        }
    }

    pub(crate) fn open(&self) -> std::fs::File {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true);
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOCTTY);
        options.open(&self.path).unwrap()
    }
}

/// The kind of the error with this code. Some kinds have no stable name.
pub(crate) fn kind_of_code(code: i32) -> io::ErrorKind {
    io::Error::from_raw_os_error(code).kind()
}
