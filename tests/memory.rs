//! Memory does not grow, however often something is done.

mod util;

use std::cell::Cell;
use std::fs;
use std::io::{self, BufRead, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use greenroom::shims;
use greenroom::shims::io::makefile::SocketFile;
use greenroom::shims::net::{Shutdown, TcpListener, TcpStream};
use greenroom::shims::sync::mpsc;
use greenroom::shims::thread;
use greenroom::{Builder, SendQueue, Unparker};
use serial_test::serial;

/// Fewer without optimisation, where each takes longer.
const MANY: usize = if cfg!(debug_assertions) {
    100_000
} else {
    1_000_000
};

/// How much memory may grow for other reasons, such as the allocator and the first steps of threads.
const NOISE: usize = 1 << 20;

/// The memory that this process occupies, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib: usize = line
        .unwrap()
        .trim()
        .strip_suffix(" kB")
        .unwrap()
        .parse()
        .unwrap();
    kib << 10
}

#[track_caller]
fn assert_flat(before: usize) {
    let after = resident();
    assert!(after < before + NOISE, "{before} bytes became {after}");
}

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// A stream that records how deep in the stack it is read.
struct Sounded {
    stream: TcpStream,
    reads: Cell<usize>,
    highest: Cell<usize>,
    lowest: Cell<usize>,
}

impl Read for Sounded {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let local = 0_u8;
        let address = std::ptr::from_ref(&local).addr();
        self.reads.set(self.reads.get() + 1);
        self.highest.set(self.highest.get().max(address));
        self.lowest.set(self.lowest.get().min(address));
        // In small pieces, so that there are many reads.
        let most = buf.len().min(64);
        (&self.stream).read(&mut buf[..most])
    }
}

impl Write for Sounded {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&self.stream).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Half a million empty lines, each with one byte after it. A reader made of nested callbacks would need
/// a stack frame for each.
#[test]
#[serial]
fn a_million_chunks_in_one_burst_are_read_on_a_small_stack() {
    const PAIRS: usize = 500_000;
    util::on_workers(1, || {
        let (mut near, stream) = connection();
        let sounded = Sounded {
            stream,
            reads: Cell::new(0),
            highest: Cell::new(0),
            lowest: Cell::new(usize::MAX),
        };
        let before = resident();
        let reader = Builder::new().stack_size(64 << 10).spawn(move || {
            let mut file = SocketFile::new(sounded);
            let mut line = Vec::new();
            for pair in 0..PAIRS {
                line.clear();
                assert_eq!(file.read_until(b'\n', &mut line).unwrap(), 1);
                let mut byte = [0];
                file.read_exact(&mut byte).unwrap();
                assert_eq!(byte[0], pair as u8);
            }
            assert_eq!(file.read(&mut [0]).unwrap(), 0);
            let sounded = file.get_ref();
            (
                sounded.reads.get(),
                sounded.highest.get() - sounded.lowest.get(),
            )
        });
        let burst: Vec<u8> = (0..PAIRS).flat_map(|pair| [b'\n', pair as u8]).collect();
        near.write_all(&burst).unwrap();
        drop(near);
        let (reads, depth) = reader.unwrap().join().unwrap();
        assert!(reads >= 2 * PAIRS / 64, "{reads} reads");
        assert!(
            depth < 4 << 10,
            "reads are {depth} bytes apart in the stack"
        );
        assert_flat(before + burst.capacity());
    });
}

#[test]
#[serial]
fn timeouts_that_are_armed_and_cancelled_leave_nothing_behind() {
    for (workers, count) in [(1, MANY), (2, MANY / 10)] {
        util::on_workers(workers, || {
            let rounds = move |count| {
                let parker = thread::spawn(move || {
                    for round in 0..count {
                        // Earlier than the last deadline, whose entry therefore cannot stand in for it.
                        let timeout = Duration::from_secs(2_000_000 - round as u64);
                        assert!(greenroom::park_timeout(timeout));
                    }
                });
                while !parker.is_finished() {
                    parker.thread().unpark();
                    thread::yield_now();
                }
                parker.join().unwrap();
            };
            rounds(count / 10);
            let before = resident();
            rounds(count);
            assert_flat(before);
        });
    }
}

#[test]
#[serial]
fn read_timeouts_that_do_not_pass_leave_nothing_behind() {
    util::on_workers(1, || {
        let (mut near, mut far) = connection();
        for stream in [&near, &far] {
            stream
                .set_read_timeout(Some(Duration::from_secs(600)))
                .unwrap();
        }
        let echo = thread::spawn(move || {
            let mut byte = [0];
            while far.read(&mut byte).unwrap() > 0 {
                far.write_all(&byte).unwrap();
            }
        });
        let mut rounds = |count| {
            for round in 0..count {
                near.write_all(&[round as u8]).unwrap();
                let mut byte = [0];
                near.read_exact(&mut byte).unwrap();
                assert_eq!(byte[0], round as u8);
            }
        };
        rounds(MANY / 50);
        let before = resident();
        rounds(MANY / 5);
        assert_flat(before);
        drop(near);
        echo.join().unwrap();
    });
}

/// Makes `total` bytes, in pieces, as event-driven code has a producer do that it pushes to a channel.
struct Producer {
    made: usize,
    total: usize,
}

/// The bytes that a producer makes from `offset` on. Their period is the size of no buffer.
fn made_at(offset: usize, length: usize) -> &'static [u8] {
    static PERIODS: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..251).cycle().take(PIECE + 251).collect());
    &PERIODS[offset % 251..][..length]
}

const PIECE: usize = 64 << 10;

impl Read for Producer {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let length = buf.len().min(self.total - self.made).min(PIECE);
        buf[..length].copy_from_slice(made_at(self.made, length));
        self.made += length;
        Ok(length)
    }
}

/// Over a stream, and over a queue in front of it. The end of the data comes after all of it.
#[test]
#[serial]
fn a_producer_of_a_gigabyte_takes_no_memory_and_a_close_when_done_delivers_every_byte() {
    const GIGABYTE: usize = 1_000_000_000;
    for queued in [false, true] {
        util::on_workers(1, || {
            let (mut near, mut far) = connection();
            let before = resident();
            let reader = thread::spawn(move || {
                let mut buf = vec![0; PIECE];
                let mut received = 0;
                let mut pause_at = 0;
                loop {
                    if received >= pause_at {
                        pause_at += GIGABYTE / 10;
                        // A producer that did not wait would be far ahead now.
                        thread::sleep(Duration::from_millis(50));
                        assert_flat(before);
                    }
                    let length = far.read(&mut buf).unwrap();
                    if length == 0 {
                        return received;
                    }
                    assert!(buf[..length] == *made_at(received, length), "at {received}");
                    received += length;
                }
            });
            let mut producer = Producer {
                made: 0,
                total: GIGABYTE,
            };
            let copied = match queued {
                false => shims::io::copy(&mut producer, &mut near).unwrap(),
                true => {
                    let mut queue = Queued(SendQueue::new(near.try_clone().unwrap(), PIECE));
                    let copied = shims::io::copy(&mut producer, &mut queue).unwrap();
                    queue.0.close().unwrap();
                    copied
                }
            };
            near.shutdown(Shutdown::Write).unwrap();
            assert_eq!(copied, GIGABYTE as u64);
            assert_eq!(reader.join().unwrap(), GIGABYTE);
        });
    }
}

/// A queue, for code that writes.
struct Queued(SendQueue);

impl Write for Queued {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.send(buf)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Coroutines that have ended leave their place to the next, whether they were joined or detached.
#[test]
#[serial]
fn coroutines_that_come_and_go_leave_nothing_behind() {
    util::on_workers(2, || {
        let rounds = |count| {
            for _ in 0..count / 100 {
                let own = Unparker::current();
                let left = Arc::new(AtomicUsize::new(100));
                for n in 0..100 {
                    let (own, left) = (own.clone(), Arc::clone(&left));
                    let coroutine = thread::spawn(move || {
                        if left.fetch_sub(1, SeqCst) == 1 {
                            own.unpark();
                        }
                    });
                    if n % 2 == 0 {
                        coroutine.join().unwrap();
                    }
                }
                greenroom::park();
            }
        };
        rounds(MANY / 10);
        let before = resident();
        rounds(MANY);
        assert_flat(before);
    });
}

/// A coroutine takes a page of stack, its task and its handle. This is what is allocated, in bytes.
#[cfg(target_env = "gnu")]
fn allocated() -> usize {
    // SAFETY: the call has no preconditions.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

#[test]
#[serial]
#[cfg(target_env = "gnu")]
fn a_burst_through_a_channel_leaves_little_behind_though_nobody_waits() {
    util::on_workers(1, || {
        let (sender, receiver) = mpsc::channel();
        let send = || sender.send([0_u64; 8]).unwrap();
        let before = allocated();
        for _ in 0..MANY {
            send();
        }
        assert!(allocated() > before + MANY * 64);
        assert_eq!(receiver.try_iter().count(), MANY);
        let after = allocated();
        assert!(after < before + NOISE, "{before} bytes became {after}");

        // The queue never becomes empty meanwhile.
        for _ in 0..MANY {
            send();
        }
        assert_eq!(receiver.try_iter().take(MANY - 1).count(), MANY - 1);
        for _ in 0..MANY {
            send();
            receiver.try_recv().unwrap();
        }
        let after = allocated();
        assert!(after < before + NOISE, "{before} bytes became {after}");
    });
}

#[test]
#[serial]
#[cfg_attr(debug_assertions, ignore = "frames are only small when optimised")]
fn a_hundred_thousand_parked_coroutines_take_little_more_than_a_page_each() {
    const COUNT: usize = 100_000;
    const MOST: usize = 6 << 10;
    util::on_workers(1, || {
        let before = resident();
        let mut crowd = Vec::with_capacity(COUNT);
        for _ in 0..COUNT {
            crowd.push(thread::spawn(greenroom::park));
        }
        // All of them have begun, and parked, when this one has run after them.
        thread::spawn(|| ()).join().unwrap();
        let each = (resident() - before) / COUNT;
        for coroutine in crowd {
            assert!(!coroutine.is_finished());
            coroutine.thread().unpark();
            coroutine.join().unwrap();
        }
        assert!(
            each >= 4 << 10,
            "{each} bytes are less than the stack takes"
        );
        assert!(each < MOST, "{each} bytes for each");
    });
}
