//! In all builds, the monitor reports a coroutine that holds its worker, while it does.

use std::hint::black_box;
use std::io::{Read, Write};
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use greenroom::{BlockingReport, Builder, JoinHandle, shims};
use serial_test::serial;

use crate::util;

/// The threshold of these tests.
const MAX: Duration = Duration::from_millis(100);

/// The content of a report.
#[derive(Clone, Debug)]
struct Finding {
    name: String,
    spawned_at: &'static Location<'static>,
    turns: u64,
    took: Duration,
    call: Option<String>,
    backtrace: Option<String>,
    text: String,
}

/// The reports that come from now on, until this is dropped.
#[derive(Clone)]
struct Findings(Arc<Mutex<Vec<Finding>>>);

impl Findings {
    fn new() -> Findings {
        let findings = Findings(Arc::default());
        let noted = findings.clone();
        greenroom::monitor_with(MAX, move |report| noted.note(report)).unwrap();
        findings
    }

    fn note(&self, report: &BlockingReport<'_>) {
        assert!(report.goes_on());
        assert_eq!(report.times(), 0);
        self.lock().push(Finding {
            name: report.name().unwrap_or("").to_owned(),
            spawned_at: report.spawned_at(),
            turns: report.turns(),
            took: report.took(),
            call: report.system_call().map(str::to_owned),
            backtrace: report.backtrace().map(str::to_owned),
            text: report.to_string(),
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Finding>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, name: &str) -> Vec<Finding> {
        let all = self.lock();
        all.iter()
            .filter(|finding| finding.name == name)
            .cloned()
            .collect()
    }

    /// Spins until there are `count` reports about coroutines with that name.
    fn spin_until_reported(&self, name: &str, count: usize) {
        let start = Instant::now();
        while self.of(name).len() < count {
            assert!(start.elapsed() < util::PATIENCE, "{name} was not reported");
        }
    }

    /// Waits for a report about a coroutine with that name.
    #[track_caller]
    fn wait_for(&self, name: &str) -> Finding {
        let start = Instant::now();
        loop {
            if let [found] = &self.of(name)[..] {
                return found.clone();
            }
            assert!(start.elapsed() < util::PATIENCE, "{name} was not reported");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn named(name: &str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    Builder::new().name(name.to_owned()).spawn(body).unwrap()
}

/// How a coroutine holds its worker until it is told to stop. Not inlined, so that backtraces have the names.
type Hold = fn(&Stop);

/// Tells a coroutine to stop, which cannot wait for it as a coroutine.
#[derive(Default)]
struct Stop {
    told: AtomicBool,
    lock: Mutex<()>,
    pipe: Mutex<Option<std::io::PipeReader>>,
}

#[inline(never)]
fn spins(stop: &Stop) {
    while !stop.told.load(SeqCst) {
        black_box(());
    }
}

#[inline(never)]
fn sleeps(stop: &Stop) {
    while !stop.told.load(SeqCst) {
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[inline(never)]
fn locks(stop: &Stop) {
    drop(stop.lock.lock().unwrap());
}

/// Waits in C, and fails if the call returns before its time.
#[inline(never)]
fn calls_c(stop: &Stop) {
    while !stop.told.load(SeqCst) {
        // SAFETY: poll takes no descriptors here.
        let polled = unsafe { libc::poll(std::ptr::null_mut(), 0, 1_000) };
        assert_eq!(polled, 0, "{}", std::io::Error::last_os_error());
    }
}

#[inline(never)]
fn reads(stop: &Stop) {
    let mut pipe = stop.pipe.lock().unwrap();
    let read = pipe.as_mut().unwrap().read(&mut [0]);
    assert_eq!(read.unwrap(), 1);
}

/// The ways to hold a worker: a name, what the backtrace names, and the system call.
const WAYS: [(&str, Hold, Option<&str>); 5] = [
    ("spins", spins, None),
    ("sleeps", sleeps, Some("clock_nanosleep")),
    ("locks", locks, Some("futex")),
    ("calls_c", calls_c, Some("poll")),
    ("reads", reads, Some("read")),
];

/// A machine that stands still for a while may cause a wrong report, or the right one too early: the turn seems
/// to take long. Wrong reports of the monitor would come in each of a few attempts.
fn in_one_of_a_few(mut attempt: impl FnMut() -> Result<(), String>) {
    let failures: Vec<_> = (0..4).map_while(|_| attempt().err()).collect();
    assert!(failures.len() < 4, "{failures:#?}");
}

#[test]
#[serial]
fn a_coroutine_that_holds_its_worker_is_reported_once_while_it_does() {
    for workers in [1, 2] {
        for (name, hold, call) in WAYS {
            in_one_of_a_few(|| holds_and_is_reported(workers, name, hold, call));
        }
    }
}

fn holds_and_is_reported(
    workers: usize,
    name: &str,
    hold: Hold,
    call: Option<&str>,
) -> Result<(), String> {
    let findings = Findings::new();
    let stop = Arc::new(Stop::default());
    let (reader, mut writer) = std::io::pipe().unwrap();
    *stop.pipe.lock().unwrap() = Some(reader);
    let reported = Arc::new(Mutex::new(None));
    // Watches from outside, since the coroutine may hold the only worker.
    let outside = {
        let (findings, stop) = (findings.clone(), Arc::clone(&stop));
        let reported = Arc::clone(&reported);
        let name = name.to_owned();
        let (tell, is_locked) = mpsc::channel();
        let thread = move || {
            let guard = stop.lock.lock().unwrap();
            tell.send(()).unwrap();
            let found = findings.wait_for(&name);
            *reported.lock().unwrap() = Some(found);
            // Time for more reports, which would be wrong.
            std::thread::sleep(3 * MAX);
            stop.told.store(true, SeqCst);
            drop(guard);
            writer.write_all(b"x").unwrap();
        };
        let thread = std::thread::spawn(thread);
        is_locked.recv().unwrap();
        thread
    };
    let line = util::on_workers(workers, || {
        let builder = Builder::new().name(name.to_owned());
        let (line, holder) = (line!(), builder.spawn(move || hold(&stop)));
        holder.unwrap().join().unwrap();
        line
    });
    outside.join().unwrap();
    let found = reported.lock().unwrap().take().unwrap();
    assert_eq!(findings.of(name).len(), 1, "{name} is reported once");
    assert_eq!(found.spawned_at.file(), file!());
    assert_eq!(found.spawned_at.line(), line);
    assert!(found.took >= MAX, "{found:?}");
    let says = format!("coroutine '{name}' (spawned at {}:{line}:", file!());
    assert!(found.text.starts_with(&says), "{}", found.text);
    // The turn may have taken long before the coroutine has called anything.
    if found.call.as_deref() != call {
        return Err(format!("{name}: {found:?}"));
    }
    if cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        let backtrace = found.backtrace.unwrap();
        if !backtrace.contains(&format!("::{name}")) {
            return Err(format!("{name}: {backtrace}"));
        }
        // The first function of every coroutine, to which the walk must come.
        assert!(backtrace.contains("root_of_coroutine"), "{backtrace}");
    }
    Ok(())
}

/// Waits until the monitor has looked at something that it reports, so that it has looked at all before.
fn until_something_is_reported(findings: &Findings) {
    let found = findings.clone();
    let marker = named("marker", move || found.spin_until_reported("marker", 1));
    marker.join().unwrap();
}

#[test]
#[serial]
fn coroutines_that_wait_or_yield_are_not_reported() {
    for workers in [1, 2] {
        in_one_of_a_few(|| reports_nothing(workers));
    }
}

fn reports_nothing(workers: usize) -> Result<(), String> {
    let findings = Findings::new();
    util::on_workers(workers, || {
        let over = Arc::new(AtomicBool::new(false));
        let yields = named("yields", {
            let over = Arc::clone(&over);
            move || {
                while !over.load(SeqCst) {
                    greenroom::yield_now();
                }
            }
        });
        let parks = named("parks", greenroom::park);
        let sleeps = named("sleeps", || shims::thread::sleep(4 * MAX));
        let unblocks = named("unblocks", || {
            greenroom::unblock(|| std::thread::sleep(4 * MAX));
        });
        let lock = Arc::new(shims::sync::Mutex::new(()));
        let locks = named("locks", {
            let lock = Arc::clone(&lock);
            move || {
                let _guard = lock.lock().unwrap();
                shims::thread::sleep(4 * MAX);
            }
        });
        let contends = named("contends", move || drop(lock.lock().unwrap()));
        let ready = named("ready", || {
            for _ in 0..40 {
                shims::thread::sleep(MAX / 10);
            }
        });
        for waits in [sleeps, unblocks, locks, contends, ready] {
            waits.join().unwrap();
        }
        over.store(true, SeqCst);
        yields.join().unwrap();
        parks.thread().unpark();
        parks.join().unwrap();
        until_something_is_reported(&findings);
    });
    let others: Vec<_> = findings
        .lock()
        .iter()
        .map(|found| found.name.clone())
        .collect();
    match &others[..] {
        [marker] if marker == "marker" => Ok(()),
        _ => Err(format!("{others:?}")),
    }
}

#[test]
#[serial]
fn a_coroutine_is_reported_once_for_each_turn_that_is_too_long() {
    let findings = Findings::new();
    let spins = findings.clone();
    let hold = move || {
        for turn in 1..=3 {
            spins.spin_until_reported("often", turn);
            greenroom::yield_now();
        }
    };
    util::on_workers(2, || named("often", hold).join().unwrap());
    let turns: Vec<_> = findings
        .of("often")
        .iter()
        .map(|found| found.turns)
        .collect();
    assert_eq!(turns, [1, 2, 3]);
}

#[test]
#[serial]
fn deep_stacks_are_walked_to_their_root() {
    #[inline(never)]
    fn recurses(depth: u32, stop: &AtomicBool) -> u32 {
        let local = black_box([depth; 64]);
        match depth {
            0 => {
                while !stop.load(SeqCst) {
                    black_box(());
                }
                0
            }
            _ => recurses(depth - 1, stop) + black_box(local)[depth as usize % 64],
        }
    }
    let findings = Findings::new();
    let stop = Arc::new(AtomicBool::new(false));
    let outside = std::thread::spawn({
        let (findings, stop) = (findings.clone(), Arc::clone(&stop));
        move || {
            let found = findings.wait_for("deep");
            stop.store(true, SeqCst);
            found
        }
    });
    util::on_workers(1, || {
        let builder = Builder::new().name("deep".into()).stack_size(4 << 20);
        let deep = builder.spawn(move || recurses(500, &stop)).unwrap();
        deep.join().unwrap();
    });
    let found = outside.join().unwrap();
    if cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        let backtrace = found.backtrace.unwrap();
        let frames = backtrace
            .lines()
            .filter(|line| line.ends_with("::recurses"))
            .count();
        assert_eq!(frames, 501);
    }
}

#[test]
#[serial]
fn a_panic_of_the_hook_is_ignored() {
    let told = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&told);
    greenroom::monitor_with(MAX, move |_| {
        noted.store(true, SeqCst);
        panic!("this is expected");
    })
    .unwrap();
    util::on_workers(1, || {
        named("first", move || {
            while !told.load(SeqCst) {
                black_box(());
            }
        })
        .join()
        .unwrap();
        until_something_is_reported(&Findings::new());
    });
}

#[test]
#[serial]
fn a_handler_of_the_program_still_gets_its_signals() {
    const NAME: &str = "a_handler_of_the_program_still_gets_its_signals";
    static GOT: AtomicBool = AtomicBool::new(false);
    extern "C" fn handle(_: libc::c_int) {
        GOT.store(true, SeqCst);
    }
    // The monitor installs its handler once in a process.
    if util::role().is_none() {
        assert!(util::again!(NAME, "child").status().unwrap().success());
        return;
    }
    let handler: extern "C" fn(libc::c_int) = handle;
    // SAFETY: the handler stores to an atomic, which is async-signal-safe.
    unsafe { libc::signal(libc::SIGURG, handler as libc::sighandler_t) };
    let findings = Findings::new();
    util::on_workers(1, || until_something_is_reported(&findings));
    assert!(
        !GOT.load(SeqCst),
        "the monitor's own signals do not come through"
    );
    // SAFETY: raise takes any signal, and this one is handled.
    unsafe { libc::raise(libc::SIGURG) };
    assert!(GOT.load(SeqCst));
}

#[test]
#[serial]
fn the_first_report_of_a_place_is_printed_with_its_backtrace() {
    const NAME: &str = "the_first_report_of_a_place_is_printed_with_its_backtrace";
    if util::role().is_none() {
        return in_one_of_a_few(|| {
            let output = util::again!(NAME, "child").output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{stderr}");
            let mut lines = stderr.lines();
            let line = lines.find(|line| line.starts_with("greenroom: coroutine 'printed'"));
            let line = line.ok_or_else(|| stderr.clone())?;
            assert!(line.contains("has held its worker for "), "{line}");
            if !line.ends_with(" so far, and waits in clock_nanosleep")
                || stderr.matches("greenroom: coroutine").count() != 1
            {
                return Err(stderr);
            }
            if cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
                assert!(stderr.contains("   0: "), "{stderr}");
            }
            Ok(())
        });
    }
    greenroom::monitor(MAX).unwrap();
    util::on_workers(1, || {
        for _ in 0..2 {
            // std's own, by the path of the shims.
            named("printed", || shims::real::thread::sleep(10 * MAX))
                .join()
                .unwrap();
        }
    });
}

#[test]
#[serial]
fn a_threshold_of_zero_is_refused() {
    let refused = greenroom::monitor(Duration::ZERO).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
}
