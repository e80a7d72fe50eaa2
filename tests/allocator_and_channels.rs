//! A channel calls the global allocator while none of its locks is held.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Duration;

use greenroom::shims::sync::mpsc;

/// Sends to the channel that the calling thread exercises, at each call. If the thread holds the lock that
/// this takes, it waits for ever.
struct Probing;

thread_local! {
    static PROBE: Cell<Option<&'static dyn Fn()>> = const { Cell::new(None) };
    static PROBES: Cell<usize> = const { Cell::new(0) };
}

fn probe() {
    // Taken out, so that the allocations of the probe itself do not probe.
    if let Some(probe) = PROBE.take() {
        probe();
        PROBES.set(PROBES.get() + 1);
        PROBE.set(Some(probe));
    }
}

// SAFETY: memory comes from the system's allocator, and goes back to it.
unsafe impl GlobalAlloc for Probing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        probe();
        // SAFETY: the caller promises that the layout is valid.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        probe();
        // SAFETY: the caller promises that `alloc` has returned the pointer for this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Probing = Probing;

/// Calls `exercise` on a thread that has never waited, and calls `probe` at its allocations. Returns how
/// often that was.
fn probed(probe: impl Fn() + Send + 'static, exercise: impl FnOnce() + Send + 'static) -> usize {
    let (done, is_done) = std_mpsc::channel();
    thread::spawn(move || {
        let probe: &'static dyn Fn() = Box::leak(Box::new(probe));
        PROBE.set(Some(probe));
        exercise();
        PROBE.set(None);
        done.send(PROBES.get()).unwrap();
    });
    let probes = is_done.recv_timeout(Duration::from_secs(60));
    probes.expect("the allocator does not wait for a lock of the channel")
}

#[test]
fn sending_and_receiving_without_a_bound() {
    let (sender, receiver) = mpsc::channel();
    let probing = sender.clone();
    let probes = probed(
        move || _ = probing.send(1),
        move || {
            for _ in 0..3 {
                (0..10_000).for_each(|_| sender.send(1).unwrap());
                while receiver.try_recv().is_ok() {}
                let _ = receiver.recv_timeout(Duration::from_millis(1));
            }
        },
    );
    assert!(probes > 1_000, "{probes}");
}

#[test]
fn a_thread_that_waits_for_room_for_the_first_time() {
    let (sender, receiver) = mpsc::sync_channel(40);
    let probing = sender.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        receiver.iter().count()
    });
    let probes = probed(
        move || _ = probing.try_send(1),
        move || (0..100).for_each(|_| sender.send(1).unwrap()),
    );
    assert!(probes > 0, "{probes}");
}

#[test]
fn a_thread_that_waits_for_a_value_for_the_first_time() {
    let (sender, receiver) = mpsc::channel();
    let probing = sender.clone();
    let sends = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        // The receiver may have gone, since it also gets the probe's values.
        (0..100).for_each(|_| _ = sender.send(1));
    });
    let probes = probed(
        move || _ = probing.send(1),
        move || (0..100).for_each(|_| assert_eq!(receiver.recv(), Ok(1))),
    );
    assert!(probes > 0, "{probes}");
    sends.join().unwrap();
}
