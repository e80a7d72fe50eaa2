//! Waits for time last as long as they should, whatever happens to the wall clock.
//!
//! The wall clock of this binary jumps by up to an hour, forwards and backwards: its own `clock_gettime`
//! replaces libc's.

mod util;

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

use greenroom::shims::net::{TcpListener, TcpStream, UdpSocket};
use greenroom::shims::thread;
use greenroom::{after, interval, park_timeout, park_until};
use serial_test::serial;

const MILLI: Duration = Duration::from_millis(1);

const HOUR: i64 = 3600;

/// By how many seconds the wall clock is off.
static OFF: AtomicI64 = AtomicI64::new(0);

/// # Safety
///
/// As libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(
    clock: libc::clockid_t,
    time: *mut libc::timespec,
) -> libc::c_int {
    // SAFETY: the caller keeps the contract of `clock_gettime`.
    let done = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    if done == 0 && [libc::CLOCK_REALTIME, libc::CLOCK_REALTIME_COARSE].contains(&clock) {
        // SAFETY: the kernel has just written `time`.
        unsafe { (*time).tv_sec += OFF.load(SeqCst) };
    }
    done as libc::c_int
}

/// # Safety
///
/// As libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn gettimeofday(
    time: *mut libc::timeval,
    zone: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the caller keeps the contract of `gettimeofday`.
    let done = unsafe { libc::syscall(libc::SYS_gettimeofday, time, zone) };
    if done == 0 && !time.is_null() {
        // SAFETY: the kernel has just written `time`.
        unsafe { (*time).tv_sec += OFF.load(SeqCst) };
    }
    done as libc::c_int
}

/// Makes the wall clock jump all the time, until dropped.
struct Jumps {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Jumps {
    fn begin() -> Jumps {
        let over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let over = Arc::clone(&over);
            move || {
                for off in [HOUR, 0, -HOUR, HOUR, -HOUR, 1, 0, -1].iter().cycle() {
                    OFF.store(*off, SeqCst);
                    if over.load(SeqCst) {
                        break;
                    }
                    std::thread::sleep(MILLI / 2);
                }
                OFF.store(0, SeqCst);
            }
        });
        Jumps {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Jumps {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Runs `test` in all places where the result must be the same, while the clock jumps.
fn everywhere(test: impl Fn()) {
    util::everywhere(|| {
        let _jumps = Jumps::begin();
        test();
    });
}

/// A wait that was cut short fails here. A wait that became an hour longer hangs.
#[track_caller]
fn assert_lasts(time: Duration, wait: impl FnOnce()) {
    let start = Instant::now();
    wait();
    let lasted = start.elapsed();
    assert!(lasted >= time, "{lasted:?} instead of {time:?}");
}

#[test]
#[serial]
fn the_wall_clock_jumps_and_the_monotonic_clock_does_not() {
    let (wall, monotonic) = (SystemTime::now(), Instant::now());
    for off in [HOUR, -HOUR] {
        OFF.store(off, SeqCst);
        match SystemTime::now().duration_since(wall) {
            Ok(later) => assert!(off > 0 && later.as_secs() >= HOUR as u64),
            Err(earlier) => assert!(off < 0 && earlier.duration().as_secs() > HOUR as u64 - 100),
        }
    }
    OFF.store(0, SeqCst);
    assert!(monotonic.elapsed() < Duration::from_secs(1000));
}

#[test]
#[serial]
fn sleeps_and_parks_last_their_time() {
    everywhere(|| {
        for time in [MILLI / 10, MILLI, 7 * MILLI] {
            assert_lasts(time, || thread::sleep(time));
            assert_lasts(time, || assert!(!park_timeout(time), "nobody unparks"));
            assert_lasts(time, || assert!(!park_until(Instant::now() + time)));
        }
    });
}

#[test]
#[serial]
fn sleepers_wake_in_the_order_of_their_deadlines() {
    util::on_workers(1, || {
        let _jumps = Jumps::begin();
        let (woken, start) = (Arc::new(AtomicUsize::new(0)), Instant::now());
        let sleepers = [3, 0, 4, 1, 2].map(|n| {
            let woken = Arc::clone(&woken);
            thread::spawn(move || {
                let deadline = start + (20 + 10 * n as u32) * MILLI;
                assert!(!park_until(deadline), "nobody unparks");
                assert!(Instant::now() >= deadline);
                assert_eq!(woken.fetch_add(1, SeqCst), n);
            })
        });
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
    });
}

#[test]
#[serial]
fn timers_fire_when_their_delay_has_passed() {
    everywhere(|| {
        let (start, this) = (Instant::now(), thread::current());
        let fired = Arc::new(AtomicUsize::new(0));
        for delay in [MILLI / 10, 3 * MILLI, 9 * MILLI] {
            let (fired, this) = (Arc::clone(&fired), this.clone());
            let timer = after(delay, move || {
                assert!(start.elapsed() >= delay);
                fired.fetch_add(1, SeqCst);
                this.unpark();
            });
            drop(timer);
        }
        let far = after(Duration::from_secs(HOUR as u64 / 2), || unreachable!());
        while fired.load(SeqCst) < 3 {
            thread::park();
        }
        thread::sleep(3 * MILLI);
        assert!(far.cancel(), "it is not due, even by a clock that is fast");
    });
}

#[test]
#[serial]
fn ticks_stay_in_step() {
    everywhere(|| {
        let mut ticks = interval(2 * MILLI);
        let first = ticks.tick();
        for _ in 0..10 {
            let due = ticks.tick();
            assert!(due <= Instant::now());
            assert_eq!((due - first).as_nanos() % (2 * MILLI).as_nanos(), 0);
        }
    });
}

#[test]
#[serial]
fn timeouts_of_sockets_pass_in_time() {
    fn assert_times_out<T>(operation: impl FnMut() -> io::Result<T>) {
        let kind = util::uninterrupted(operation)
            .err()
            .map(|error| error.kind());
        assert_eq!(kind, Some(ErrorKind::WouldBlock));
    }
    // The kernel counts its own timeouts in ticks, and may be early by a part of one.
    const TIMEOUT: Duration = Duration::from_millis(20);
    const AT_LEAST: Duration = Duration::from_millis(15);
    everywhere(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut near = TcpStream::connect_timeout(&addr, Duration::from_secs(10)).unwrap();
        near.set_read_timeout(Some(TIMEOUT)).unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        datagrams.set_read_timeout(Some(TIMEOUT)).unwrap();
        for _ in 0..3 {
            assert_lasts(AT_LEAST, || assert_times_out(|| near.read(&mut [0])));
            assert_lasts(AT_LEAST, || assert_times_out(|| datagrams.recv(&mut [0])));
        }
        // A wait of up to a minute does not time out because an hour seems to have passed.
        near.set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let far = thread::spawn(move || {
            let (mut far, _) = listener.accept().unwrap();
            thread::sleep(5 * MILLI);
            io::Write::write_all(&mut far, b"x").unwrap();
        });
        assert_eq!(util::uninterrupted(|| near.read(&mut [0])).unwrap(), 1);
        far.join().unwrap();
    });
}

/// A jump of the system's own clock would affect alarms of the kernel, which the tests above cannot show.
#[test]
#[serial]
fn all_alarms_of_the_process_are_monotonic() {
    util::on_workers(4, || {
        let sleepers = [(); 20].map(|()| thread::spawn(|| thread::sleep(MILLI / 3)));
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
        let timer = after(Duration::from_secs(1000), || unreachable!());
        let mut alarms = 0;
        for info in fs::read_dir("/proc/self/fdinfo").unwrap() {
            // The descriptor of the directory itself, or of another test, is closed by then.
            let Ok(info) = fs::read_to_string(info.unwrap().path()) else {
                continue;
            };
            if let Some(clock) = info.lines().find_map(|line| line.strip_prefix("clockid: ")) {
                assert_eq!(clock, libc::CLOCK_MONOTONIC.to_string());
                alarms += 1;
            }
        }
        assert!(alarms > 0);
        assert!(timer.cancel());
    });
}
