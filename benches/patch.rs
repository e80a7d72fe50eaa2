//! What does the patch of the C library cost, on a coroutine and off one?

mod util;

use std::hint::black_box;
use std::io::{self, Read, Write};

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
            there(bencher, shims::os::unix::net::UnixStream::pair());
        });
        group.bench_function("byte that is there, by std, patched", |bencher| {
            there(bencher, std::os::unix::net::UnixStream::pair());
        });
        group.bench_function("round trip that is waited for, by the shims", |bencher| {
            echo(bencher, shims::os::unix::net::UnixStream::pair());
        });
        group.bench_function(
            "round trip that is waited for, by std, patched",
            |bencher| echo(bencher, std::os::unix::net::UnixStream::pair()),
        );

        group.finish();
    });
}

/// The futex operation that std uses.
const WAKE: usize = (libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG) as usize;

/// Measures a write and the read of what it has written, on a coroutine that is alone.
fn there<S: Read + Write>(bencher: &mut Bencher<'_>, pair: io::Result<(S, S)>) {
    let (mut end, mut stream) = pair.expect("a pair");
    util::one_worker().run(|| {
        bencher.iter(|| {
            end.write_all(b"x").expect("room");
            stream.read_exact(&mut [0]).expect("a byte");
        });
    });
}

/// Measures round trips of two coroutines of one worker: each byte is waited for.
fn echo<S>(bencher: &mut Bencher<'_>, pair: io::Result<(S, S)>)
where
    S: Read + Write + Send + 'static,
{
    let (mut stream, mut end) = pair.expect("a pair");
    util::one_worker().run(|| {
        let echo =
            spawn(
                move || {
                    while end.read(&mut [0]).is_ok_and(|n| n > 0) && end.write_all(b"x").is_ok() {}
                },
            );
        bencher.iter(|| {
            stream.write_all(b"x").expect("room");
            stream.read_exact(&mut [0]).expect("a byte");
        });
        // Ends the echo.
        drop(stream);
        echo.join().expect("a coroutine that does not panic");
    });
}
