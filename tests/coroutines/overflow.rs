//! A stack overflow names its coroutine and ends the process. Other faults are handled as without
//! greenroom.

use std::ffi::c_void;
use std::hint::black_box;
use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::ptr;

use greenroom::{Builder, RuntimeBuilder};

use crate::util;

/// Runs a test of this binary again, in a process of its own, where `as_child` returns true.
fn child(test: &str) -> Output {
    child_that(test, "")
}

/// As `child`, and passes `how` in `SPAWNED_BY`.
fn child_that(test: &str, how: &str) -> Output {
    util::again!(test, "child")
        .env("SPAWNED_BY", how)
        .output()
        .unwrap()
}

fn as_child() -> bool {
    util::role().is_some()
}

fn assert_reported(output: &Output, name: &str, size: usize) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let report = format!("coroutine '{name}' (spawned at {}:", file!());
    assert!(stderr.contains(&report), "{stderr}");
    let end = format!("has overflowed its stack of {size} bytes");
    assert_eq!(stderr.matches(&end).count(), 1, "{stderr}");
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{stderr}");
}

#[expect(unconditional_recursion, reason = "that is the point")]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 16]);
    recurse(depth + 1) + frame[3]
}

#[inline(never)]
fn big_frame() -> u8 {
    // Far larger than the stack and its guard. The compiler probes each page on the way.
    let frame = black_box([1_u8; 4 << 20]);
    frame[black_box(12345)]
}

fn overflow(workers: usize, name: &str, body: fn()) {
    let runtime = RuntimeBuilder::new().workers(workers).build().unwrap();
    runtime.run(|| {
        // Other coroutines, which the report must not name.
        for _ in 0..20 {
            greenroom::spawn(greenroom::park);
        }
        let deep = Builder::new().name(name.to_owned()).stack_size(128 << 10);
        deep.spawn(body).unwrap().join().unwrap();
    });
}

/// What the report says after the message, where it says more.
fn frames(output: &Output) -> Option<String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let frames = stderr.split_once("its frames, innermost first:\n");
    let prints_frames = cfg!(all(target_arch = "x86_64", target_env = "gnu"));
    assert_eq!(frames.is_some(), prints_frames, "{stderr}");
    frames.map(|(_, frames)| frames.to_owned())
}

/// The numbers of the frames that are printed.
fn numbers(frames: &str) -> Vec<usize> {
    let numbers = frames
        .lines()
        .filter_map(|line| line.trim_start().split_once(": "));
    numbers
        .filter_map(|(number, _)| number.parse().ok())
        .collect()
}

#[test]
fn runaway_recursion_is_reported_on_one_worker() {
    if as_child() {
        return overflow(1, "deep", || {
            black_box(recurse(0));
        });
    }
    let output = child("runaway_recursion_is_reported_on_one_worker");
    assert_reported(&output, "deep", 128 << 10);
    let Some(frames) = frames(&output) else {
        return;
    };
    // A linker merges functions with the same instructions: there is another `recurse`.
    assert!(frames.contains("::recurse\n"), "{frames}");
    assert_eq!(frames.matches(" times more\n").count(), 1, "{frames}");
    let numbers = numbers(&frames);
    assert!(numbers.is_sorted(), "{frames}");
    assert_eq!(numbers[0], 0, "{frames}");
    // The frames of 128 bytes and more that are not printed.
    assert!(numbers.len() < 48, "{frames}");
    let all = *numbers.last().unwrap();
    assert!((50..1024).contains(&all), "{frames}");
    let closure = "runaway_recursion_is_reported_on_one_worker::{{closure}}";
    // An optimiser inlines it.
    assert!(
        frames.contains(closure) || cfg!(not(debug_assertions)),
        "{frames}"
    );
    assert!(frames.contains("root_of_coroutine"), "{frames}");
    assert!(!frames.contains("run_batch"), "{frames}");
}

#[inline(never)]
fn even(depth: u64) -> u64 {
    let frame = black_box([depth; 4]);
    odd(depth + 1) + frame[3]
}

#[inline(never)]
fn odd(depth: u64) -> u64 {
    let frame = black_box([depth; 8]);
    even(depth + 1) + frame[5]
}

#[test]
fn of_a_recursion_of_several_functions_one_round_is_printed() {
    if as_child() {
        return overflow(1, "mutual", || {
            black_box(even(0));
        });
    }
    let output = child("of_a_recursion_of_several_functions_one_round_is_printed");
    assert_reported(&output, "mutual", 128 << 10);
    let Some(frames) = frames(&output) else {
        return;
    };
    for function in ["overflow::even\n", "overflow::odd\n"] {
        assert!(frames.contains(function), "{frames}");
    }
    let line = frames.lines().find(|line| line.ends_with("times more"));
    let line = line.unwrap_or_else(|| panic!("{frames}")).trim_start();
    // An optimiser may inline one of the two.
    assert!(
        line.starts_with("these 2 frames ") || cfg!(not(debug_assertions)),
        "{frames}"
    );
    assert!(numbers(&frames).is_sorted(), "{frames}");
}

/// Frames of one function, which call each other at changing places.
#[inline(never)]
#[expect(unconditional_recursion, reason = "that is the point")]
fn zigzag(depth: u64) -> u64 {
    let frame = black_box([depth; 8]);
    let next = black_box(depth.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29));
    match next % 3 {
        0 => zigzag(black_box(depth + 1)) + frame[0],
        1 => zigzag(black_box(depth + 2)) ^ frame[1],
        _ => zigzag(black_box(depth + 3)) | frame[2],
    }
}

#[test]
fn of_an_irregular_recursion_the_frames_at_both_ends_are_printed() {
    if as_child() {
        return overflow(1, "irregular", || {
            black_box(zigzag(0));
        });
    }
    let output = child("of_an_irregular_recursion_the_frames_at_both_ends_are_printed");
    assert_reported(&output, "irregular", 128 << 10);
    let Some(frames) = frames(&output) else {
        return;
    };
    assert!(frames.contains("overflow::zigzag\n"), "{frames}");
    assert!(frames.contains("root_of_coroutine"), "{frames}");
    assert!(numbers(&frames).len() <= 40, "{frames}");
}

#[test]
fn runaway_recursion_is_reported_on_four_workers() {
    if as_child() {
        return overflow(4, "deep", || {
            black_box(recurse(0));
        });
    }
    let output = child("runaway_recursion_is_reported_on_four_workers");
    assert_reported(&output, "deep", 128 << 10);
}

#[test]
fn a_frame_larger_than_the_stack_is_reported() {
    if as_child() {
        return overflow(1, "wide", || {
            black_box(big_frame());
        });
    }
    let output = child("a_frame_larger_than_the_stack_is_reported");
    assert_reported(&output, "wide", 128 << 10);
    if let Some(frames) = frames(&output) {
        assert!(frames.contains("0: "), "{frames}");
        assert!(frames.contains("overflow::big_frame\n"), "{frames}");
        assert!(!frames.contains("more\n"), "{frames}");
    }
}

#[test]
fn an_overflow_is_reported_with_its_place_however_the_coroutine_was_spawned() {
    let test = "an_overflow_is_reported_with_its_place_however_the_coroutine_was_spawned";
    if as_child() {
        return greenroom::run(|| {
            let body = || {
                black_box(recurse(0));
            };
            match std::env::var("SPAWNED_BY").unwrap().as_str() {
                "spawn" => greenroom::spawn(body).join().unwrap(),
                "spawn_local" => greenroom::spawn_local(body).join().unwrap(),
                _ => greenroom::scope(|s| s.spawn(body).join().unwrap()),
            }
        });
    }
    for how in ["spawn", "spawn_local", "scope"] {
        assert_reported(&child_that(test, how), "<unnamed>", 256 << 10);
    }
}

#[test]
fn an_overflow_during_an_unwind_is_reported() {
    struct Deep;
    impl Drop for Deep {
        fn drop(&mut self) {
            black_box(recurse(0));
        }
    }
    if as_child() {
        return overflow(1, "unwinding", || {
            let _deep = Deep;
            panic!("and then");
        });
    }
    let output = child("an_overflow_during_an_unwind_is_reported");
    assert_reported(&output, "unwinding", 128 << 10);
}

#[test]
fn another_fault_ends_the_process_by_its_signal() {
    if as_child() {
        return overflow(1, "faulty", || {
            let nowhere = black_box(8 as *const u8);
            // SAFETY: not sound. The fault is the purpose.
            black_box(unsafe { nowhere.read_volatile() });
        });
    }
    let output = child("another_fault_ends_the_process_by_its_signal");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{stderr}");
    assert!(!stderr.contains("overflowed"), "{stderr}");
}

#[test]
fn main_thread_and_pool_threads_keep_stds_report() {
    if as_child() {
        return greenroom::run(|| {
            greenroom::unblock(|| {
                black_box(recurse(0));
            });
        });
    }
    let output = child("main_thread_and_pool_threads_keep_stds_report");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        stderr.contains("greenroom-pool") && stderr.contains("overflowed"),
        "{stderr}"
    );
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{stderr}");
}

/// Runs `f` on a thread that std did not make, and that has no stack for signal handlers.
fn on_a_bare_thread(mut f: fn()) {
    extern "C" fn start(f: *mut c_void) -> *mut c_void {
        // SAFETY: the argument points to a function pointer, which lives until this thread was joined.
        let f = unsafe { *f.cast::<fn()>() };
        f();
        ptr::null_mut()
    }
    // SAFETY: all pointers are valid until the thread was joined.
    unsafe {
        let mut thread = std::mem::zeroed();
        let argument = (&raw mut f).cast();
        let made = libc::pthread_create(&raw mut thread, ptr::null(), start, argument);
        assert_eq!(made, 0);
        assert_eq!(libc::pthread_join(thread, ptr::null_mut()), 0);
    }
}

#[test]
fn an_overflow_on_a_thread_that_std_did_not_make_is_reported() {
    if as_child() {
        return on_a_bare_thread(|| {
            RuntimeBuilder::new().workers(1).build().unwrap().run(|| ());
            overflow(1, "on a bare thread", || {
                black_box(recurse(0));
            });
        });
    }
    let output = child("an_overflow_on_a_thread_that_std_did_not_make_is_reported");
    assert_reported(&output, "on a bare thread", 128 << 10);
}

/// The size of the address space, in bytes.
fn address_space() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').next().unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn threads_that_std_did_not_make_free_their_signal_stacks() {
    const NAME: &str = "threads_that_std_did_not_make_free_their_signal_stacks";
    const THREADS: usize = 100;
    if !as_child() {
        let output = child(NAME);
        let stderr = String::from_utf8_lossy(&output.stderr);
        return assert!(output.status.success(), "{stderr}");
    }
    let run = || {
        let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
        assert_eq!(runtime.run(|| 5), 5);
        assert_eq!(runtime.run(|| 6), 6);
    };
    for _ in 0..10 {
        on_a_bare_thread(run);
    }
    let before = address_space();
    for _ in 0..THREADS {
        on_a_bare_thread(run);
    }
    let more = address_space().saturating_sub(before);
    assert!(more < THREADS * (16 << 10), "{more} bytes more");
}
