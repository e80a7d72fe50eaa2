//! Profiles of where coroutines wait.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::util::{self, in_one_of_ten, ms};
use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::sync::mpsc;
use greenroom::shims::thread;
use greenroom::{Builder, JoinHandle, RuntimeBuilder, WaitProfile, WaitProfiler, yield_now};
use serial_test::serial;

const INTERVAL: Duration = Duration::from_millis(5);

fn named<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    Builder::new().name(name.to_owned()).spawn(body).unwrap()
}

/// A stack with its frames, outermost first, and the time in it.
type Stack = (Vec<String>, Duration);

/// Ends the profile. The sum of its lines is its total.
fn finish(profiler: WaitProfiler) -> Vec<Stack> {
    let profile = profiler.finish();
    let mut text = Vec::new();
    profile.write_folded(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let stacks: Vec<Stack> = text
        .lines()
        .map(|line| {
            let (stack, micros) = line.rsplit_once(' ').unwrap();
            let frames = stack.split(';').map(str::to_owned).collect();
            (frames, Duration::from_micros(micros.parse().unwrap()))
        })
        .collect();
    let sum: Duration = stacks.iter().map(|(_, time)| time).sum();
    // Each line is rounded down to a microsecond.
    let lost = profile.total().checked_sub(sum).unwrap();
    assert!(lost <= stacks.len() as u32 * Duration::from_micros(1));
    stacks
}

/// The time of the coroutines with this name, by what they wait for.
fn waits_of(stacks: &[Stack], name: &str) -> HashMap<String, Duration> {
    let mut waits = HashMap::<_, Duration>::new();
    for (frames, time) in stacks.iter().filter(|(frames, _)| frames[0] == name) {
        *waits.entry(frames.last().unwrap().clone()).or_default() += *time;
    }
    waits
}

/// How long a profile took.
#[derive(Debug)]
struct Took {
    /// Until its end was asked for.
    least: Duration,
    /// Until it was finished, which takes long: functions get their names.
    most: Duration,
}

/// Ends a profile that began at `began`.
fn finish_since(began: Instant, profiler: WaitProfiler) -> (Vec<Stack>, Took) {
    let least = began.elapsed();
    let stacks = finish(profiler);
    let most = began.elapsed();
    (stacks, Took { least, most })
}

impl Took {
    /// Whether `count` coroutines have waited for about so long. Processors may be busy.
    fn is_about(&self, waited: Option<&Duration>, count: u32) -> Result<(), String> {
        let about = (self.least * count).mul_f64(0.6)..(self.most * count).mul_f64(1.4);
        let is_so = waited.is_some_and(|waited| about.contains(waited));
        is_so
            .then_some(())
            .ok_or_else(|| format!("{waited:?} instead of {about:?}"))
    }
}

#[inline(never)]
fn sleeps_on(end: &AtomicBool) {
    while !end.load(Ordering::Relaxed) {
        thread::sleep(ms(10));
    }
}

#[inline(never)]
fn receives(values: mpsc::Receiver<()>) {
    values.recv().unwrap_err();
}

#[inline(never)]
fn reads(mut stream: TcpStream) {
    assert_eq!(stream.read(&mut [0]).unwrap(), 1);
}

#[test]
#[serial]
fn each_wait_has_its_share_under_its_name_stack_and_reason() {
    static END: AtomicBool = AtomicBool::new(false);
    let attempt = || {
        END.store(false, Ordering::Relaxed);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        let mut senders = Vec::new();
        for _ in 0..4 {
            all.push(named("sleeper", || sleeps_on(&END)));
        }
        for _ in 0..2 {
            let (sender, values) = mpsc::channel();
            senders.push(sender);
            all.push(named("receiver", || receives(values)));
        }
        all.push(named("reader", || reads(stream)));
        let are_parked = || {
            let reasons = greenroom::parked_by_reason().unwrap();
            reasons.contains(&("receive", 2)) && reasons.contains(&("read", 1))
        };
        while !are_parked() {
            yield_now();
        }
        let (began, profiler) = (Instant::now(), WaitProfile::start(INTERVAL).unwrap());
        thread::sleep(ms(500));
        let (stacks, took) = finish_since(began, profiler);
        END.store(true, Ordering::Relaxed);
        drop(senders);
        peer.write_all(b"x").unwrap();
        for coroutine in all {
            coroutine.join().unwrap();
        }

        for (name, count, reason, function) in [
            ("sleeper", 4, "sleep", "sleeps_on"),
            ("receiver", 2, "receive", "receives"),
            ("reader", 1, "read", "reads"),
        ] {
            let waits = waits_of(&stacks, name);
            took.is_about(waits.get(reason), count)?;
            assert_eq!(waits.len(), 1, "{waits:?}");
            let mut of_name = stacks.iter().filter(|(frames, _)| frames[0] == name);
            let is_there = |frame: &String| frame.ends_with(&format!("profiles::{function}"));
            assert!(
                of_name.all(|(frames, _)| frames.iter().any(is_there)),
                "{stacks:?}"
            );
            // What the function calls comes after it, and the runtime's own frames not before it.
            let mut of_name = stacks.iter().filter(|(frames, _)| frames[0] == name);
            let (frames, _) = of_name.next().unwrap();
            let at = frames.iter().position(is_there).unwrap();
            let callee = |frame: &String| frame.contains("greenroom::");
            assert!(frames[at + 1..].iter().any(callee), "{frames:?}");
            assert!(
                !frames.iter().any(|frame| frame.contains("run_batch")),
                "{frames:?}"
            );
        }
        Ok(())
    };
    util::on_workers(2, || in_one_of_ten(attempt));
}

#[test]
#[serial]
fn what_a_coroutine_computes_is_no_wait() {
    let attempt = || {
        let (began, profiler) = (Instant::now(), WaitProfile::start(INTERVAL).unwrap());
        let computing = named("computing", || {
            let mut computed = Duration::ZERO;
            for _ in 0..60 {
                let began = Instant::now();
                while began.elapsed() < ms(8) {
                    std::hint::spin_loop();
                }
                computed += began.elapsed();
                thread::sleep(ms(1));
            }
            computed
        });
        let computed = computing.join().unwrap();
        let (stacks, took) = finish_since(began, profiler);
        let waits: Duration = waits_of(&stacks, "computing").values().sum();
        if waits >= took.least - computed / 2 {
            return Err(format!(
                "{waits:?} in {took:?}, of which {computed:?} computing"
            ));
        }
        // Main has waited for it, mostly.
        took.is_about(waits_of(&stacks, "main").get("join"), 1)
    };
    util::on_workers(1, || in_one_of_ten(attempt));
}

#[test]
#[serial]
fn of_very_many_coroutines_a_part_stands_for_all() {
    const COUNT: u32 = 2000;
    let attempt = || {
        let all: Vec<_> = (0..COUNT)
            .map(|_| named("one of many", greenroom::park))
            .collect();
        while !greenroom::parked_by_reason()
            .unwrap()
            .contains(&("park", COUNT as usize))
        {
            yield_now();
        }
        let (began, profiler) = (Instant::now(), WaitProfile::start(INTERVAL).unwrap());
        thread::sleep(ms(400));
        let (stacks, took) = finish_since(began, profiler);
        for coroutine in all {
            coroutine.thread().unpark();
            coroutine.join().unwrap();
        }
        took.is_about(waits_of(&stacks, "one of many").get("park"), COUNT)
    };
    util::on_workers(2, || in_one_of_ten(attempt));
}

#[test]
#[serial]
fn a_coroutine_that_ends_meanwhile_has_waited_until_then() {
    let attempt = || {
        let (began, profiler) = (Instant::now(), WaitProfile::start(INTERVAL).unwrap());
        named("short", || thread::sleep(ms(150))).join().unwrap();
        let until_end = began.elapsed();
        thread::sleep(ms(150));
        let stacks = finish(profiler);
        // A machine that stands still may have had no time for samples.
        let Some(&short) = waits_of(&stacks, "short").get("sleep") else {
            return Err(format!("{stacks:?}"));
        };
        assert!(short <= until_end, "{short:?} in {until_end:?}");
        let is_most = short >= ms(50);
        is_most.then_some(()).ok_or_else(|| format!("{short:?}"))
    };
    util::on_workers(1, || in_one_of_ten(attempt));
}

#[test]
#[serial]
fn a_profile_is_of_all_runtimes() {
    in_one_of_ten(|| {
        let profiler = WaitProfile::start(INTERVAL).unwrap();
        std::thread::scope(|scope| {
            for runtime in ["first", "second"] {
                scope.spawn(move || {
                    let workers = RuntimeBuilder::new().workers(1).build().unwrap();
                    workers.run(|| named(runtime, || thread::sleep(ms(200))).join().unwrap());
                });
            }
        });
        let stacks = finish(profiler);
        let have_slept = ["first", "second"].map(|runtime| {
            let waits = waits_of(&stacks, runtime);
            waits.get("sleep").is_some_and(|&slept| slept > ms(100))
        });
        let have_both = have_slept == [true; 2];
        have_both.then_some(()).ok_or_else(|| format!("{stacks:?}"))
    });
}

#[test]
#[serial]
fn a_program_without_coroutines_has_no_waits() {
    let name = "a_program_without_coroutines_has_no_waits";
    if util::role().is_some() {
        let profiler = WaitProfile::start(Duration::from_millis(1)).unwrap();
        std::thread::sleep(ms(50));
        assert_eq!(finish(profiler), []);
        // Nothing is left of one that is dropped.
        drop(WaitProfile::start(Duration::from_secs(1000)).unwrap());
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        util::until("the thread ends", || threads() <= 2);
        return;
    }
    let output = util::again!(name, "child").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[serial]
fn an_interval_beyond_the_range_of_the_clock_takes_no_sample() {
    let profiler = WaitProfile::start(Duration::MAX).unwrap();
    assert!(profiler.finish().total().is_zero());
}

#[test]
#[serial]
fn an_interval_of_zero_is_refused() {
    let error = WaitProfile::start(Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}
