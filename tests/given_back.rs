//! The memory of a burst goes back to the allocator.

mod util;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::thread;
use greenroom::{spawn, spawn_local, wait_idle};
use serial_test::serial;

static USED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: the system's allocator does the work. This only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        USED.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SECOND: Duration = Duration::from_secs(1);

/// Runs `burst` on one worker. At its peak, `burst` takes at least `least` bytes, and a while later
/// nearly all of them must be free.
fn is_given_back(least: usize, burst: fn(&dyn Fn())) {
    util::on_workers(1, || {
        let small: Vec<_> = (0..10)
            .map(|_| spawn(|| thread::sleep(SECOND / 1_000)))
            .collect();
        small.into_iter().for_each(|one| one.join().unwrap());
        // Hot stacks, and the list of free ones, are kept on purpose.
        thread::sleep(2 * SECOND);
        let before = USED.load(Relaxed);
        let peak = Cell::new(0);
        burst(&|| peak.set(USED.load(Relaxed) - before));
        assert!(peak.get() > least, "{} bytes at the peak", peak.get());
        let end = Instant::now() + 10 * SECOND;
        let kept = || USED.load(Relaxed).saturating_sub(before);
        while kept() >= peak.get() / 6 {
            assert!(
                Instant::now() < end,
                "{} bytes of {} are kept",
                kept(),
                peak.get()
            );
            thread::sleep(SECOND / 4);
        }
    });
}

#[test]
#[serial]
fn fresh_coroutines_in_a_queue() {
    is_given_back(1 << 20, |at_peak| {
        for n in 0..100_000 {
            match n % 2 {
                0 => drop(spawn(|| ())),
                _ => drop(spawn_local(|| ())),
            }
        }
        at_peak();
        wait_idle();
    });
}

/// Beside a coroutine that stays, and its deadline.
#[test]
#[serial]
fn ready_and_sleeping_coroutines() {
    is_given_back(1 << 20, |at_peak| {
        let stays = spawn(|| greenroom::park_timeout(1_000 * SECOND));
        let sleepers: Vec<_> = (0..20_000)
            .map(|_| spawn(|| thread::sleep(SECOND)))
            .collect();
        thread::sleep(SECOND / 2);
        at_peak();
        sleepers
            .into_iter()
            .for_each(|sleeper| sleeper.join().unwrap());
        stays.thread().unpark();
        stays.join().unwrap();
    });
}

#[test]
#[serial]
fn registered_sockets_beside_a_listener_that_stays() {
    is_given_back(100_000, |at_peak| {
        const COUNT: usize = 400;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = spawn(move || {
            let readers: Vec<_> = (0..COUNT)
                .map(|_| {
                    let (mut stream, _) = listener.accept().unwrap();
                    spawn(move || stream.read(&mut [0]).unwrap())
                })
                .collect();
            readers
                .into_iter()
                .for_each(|reader| assert_eq!(reader.join().unwrap(), 0));
            listener
        });
        let clients: Vec<_> = (0..COUNT)
            .map(|_| TcpStream::connect(addr).unwrap())
            .collect();
        util::until("all are parked", || {
            let reasons = greenroom::parked_by_reason().unwrap();
            reasons.contains(&("read", COUNT))
        });
        at_peak();
        drop(clients);
        drop(server.join().unwrap());
    });
}
