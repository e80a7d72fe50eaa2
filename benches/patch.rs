//! What does the patch of the C library cost, on a coroutine and off one?

mod util;

use std::hint::black_box;
use std::io::{Read, Write};

use criterion::Bencher;
use greenroom::patch::original;
use greenroom::shims;
use greenroom::spawn;

greenroom::patch!(unsafe);

fn main() {
    util::run(|criterion| {
        let mut group = criterion.benchmark_group("patch");

        // Off a coroutine: the difference to the original is the price.
        group.bench_function("poll of nothing, original, on a thread", |bencher| {
            // SAFETY: there are no entries.
            bencher.iter(|| unsafe { original::poll(black_box(std::ptr::null_mut()), 0, 0) });
        });
        group.bench_function("poll of nothing, patched, on a thread", |bencher| {
            // SAFETY: there are no entries.
            bencher.iter(|| unsafe { libc::poll(black_box(std::ptr::null_mut()), 0, 0) });
        });
        group.bench_function("futex wake, original, on a thread", |bencher| {
            let word = 0u32;
            // SAFETY: the word is valid.
            bencher.iter(|| unsafe {
                original::syscall(libc::SYS_futex, (&raw const word).addr(), WAKE, 1, 0, 0, 0)
            });
        });
        group.bench_function("futex wake, patched, on a thread", |bencher| {
            let word = 0u32;
            // SAFETY: the word is valid.
            bencher.iter(|| unsafe { libc::syscall(libc::SYS_futex, &raw const word, WAKE, 1) });
        });

        // On a coroutine: std's sockets with the patch beside the shims.
        group.bench_function("byte that is there, by the shims", |bencher| {
            let (mut end, mut stream) = shims::os::unix::net::UnixStream::pair().expect("a pair");
            there(bencher, || {
                end.write_all(b"x").expect("room");
                stream.read_exact(&mut [0]).expect("a byte");
            });
        });
        group.bench_function("byte that is there, by std, patched", |bencher| {
            let (mut end, mut stream) = std::os::unix::net::UnixStream::pair().expect("a pair");
            there(bencher, || {
                end.write_all(b"x").expect("room");
                stream.read_exact(&mut [0]).expect("a byte");
            });
        });
        group.bench_function("round trip that is waited for, by the shims", |bencher| {
            let (mut a, mut b) = shims::os::unix::net::UnixStream::pair().expect("a pair");
            echoes(
                bencher,
                move || {
                    while b
                        .read(&mut [0])
                        .is_ok_and(|n| n > 0 && b.write_all(b"x").is_ok())
                    {}
                },
                move || {
                    a.write_all(b"x").expect("room");
                    a.read_exact(&mut [0]).expect("a byte");
                },
            );
        });
        group.bench_function(
            "round trip that is waited for, by std, patched",
            |bencher| {
                let (mut a, mut b) = std::os::unix::net::UnixStream::pair().expect("a pair");
                echoes(
                    bencher,
                    move || {
                        while b
                            .read(&mut [0])
                            .is_ok_and(|n| n > 0 && b.write_all(b"x").is_ok())
                        {
                        }
                    },
                    move || {
                        a.write_all(b"x").expect("room");
                        a.read_exact(&mut [0]).expect("a byte");
                    },
                );
            },
        );

        group.finish();
    });
}

/// The futex operation that std uses.
const WAKE: usize = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as usize;

/// Measures `trip` on a coroutine that is alone.
fn there(bencher: &mut Bencher<'_>, mut trip: impl FnMut()) {
    util::one_worker().run(|| bencher.iter(&mut trip));
}

/// Measures round trips of two coroutines of one worker: each byte is waited for.
fn echoes(bencher: &mut Bencher<'_>, echo: impl FnOnce() + Send + 'static, mut trip: impl FnMut()) {
    util::one_worker().run(move || {
        let echo = spawn(echo);
        bencher.iter(&mut trip);
        // Ends the echo.
        drop(trip);
        echo.join().expect("a coroutine that does not panic");
    });
}
