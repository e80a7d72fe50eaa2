//! What streams promise, whether TCP's or Unix's. The parent module says what a `Stream` is, and connects
//! a pair of them.

use super::{Stream, std, stream_pair as pair, util};
use ::std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use ::std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use ::std::sync::Arc;
use ::std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use rustix::net::sockopt::{self, Timeout};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};
use util::{
    PATIENCE, assert_same_bytes, assert_times_out, everywhere, is_timeout, ms, noise, settle,
    uninterrupted, until,
};

/// Checks that bytes pass in both directions.
#[track_caller]
pub(super) fn assert_joined(mut a: &Stream, mut b: &Stream) {
    let mut buf = [0; 4];
    a.write_all(b"ping").unwrap();
    b.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"ping");
    b.write_all(b"pong").unwrap();
    a.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"pong");
}

/// Waits until exactly `n` bytes can be read. Takes none of them.
pub(super) fn until_readable(stream: &Stream, n: usize) {
    let readable = || rustix::io::ioctl_fionread(stream).unwrap();
    until("bytes arrive", || readable() >= n as u64);
    assert_eq!(readable(), n as u64);
}

/// The bytes that `write_until_error` writes again and again. The length is a prime, which is no buffer's
/// length, so that lost or repeated bytes do not line up.
pub(super) fn endless() -> Vec<u8> {
    noise(65_537, 77)
}

/// Writes until a write fails. Adds the accepted bytes to `sent`.
pub(super) fn write_until_error(mut stream: &Stream, sent: &AtomicUsize) -> ErrorKind {
    let data = endless();
    loop {
        let at = sent.load(SeqCst);
        assert!(at < 64 << 20, "a peer that reads nothing took 64 MiB");
        match uninterrupted(|| stream.write(&data[at % data.len()..])) {
            Ok(n) => {
                assert!(n > 0);
                sent.fetch_add(n, SeqCst);
            }
            Err(e) => return e.kind(),
        }
    }
}

/// Waits until a writer has started and then stopped making progress.
pub(super) fn until_stuck(sent: &AtomicUsize) {
    until("something was written", || sent.load(SeqCst) > 0);
    let mut before = 0;
    let start = Instant::now();
    while before != sent.load(SeqCst) {
        assert!(start.elapsed() < PATIENCE, "the pipe never filled up");
        before = sent.load(SeqCst);
        thread::sleep(ms(150));
    }
}

pub(super) fn is_broken(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// Sets a timeout on the raw descriptor, as a crate does that does not know the shims.
pub(super) fn set_by_descriptor(socket: &impl AsFd, which: Timeout, timeout: Option<Duration>) {
    sockopt::set_socket_timeout(socket, which, timeout).unwrap();
}

// --------------------------------------------------------- reading and writing

#[test]
fn read_returns_what_is_there_without_waiting_for_a_full_buffer() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        near.write_all(b"hello").unwrap();
        let mut got = Vec::new();
        while got.len() < 5 {
            let mut buf = [0; 100];
            let n = far.read(&mut buf).unwrap();
            assert!((1..=5).contains(&n));
            got.extend_from_slice(&buf[..n]);
        }
        assert_eq!(got, b"hello");
    });
}

#[test]
fn read_waits_for_data_that_comes_later() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        let reader = thread::spawn(move || {
            let mut buf = [0; 100];
            let n = far.read(&mut buf).unwrap();
            buf[..n].to_vec()
        });
        settle();
        assert!(!reader.is_finished());
        near.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap(), b"x");
    });
}

#[test]
fn after_the_peer_closed_reads_give_the_rest_and_then_zero_for_ever() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        near.write_all(b"the rest").unwrap();
        drop(near);
        let mut buf = [0; 8];
        far.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"the rest");
        for _ in 0..10 {
            assert_eq!(far.read(&mut buf).unwrap(), 0);
        }
    });
}

#[test]
fn a_peer_closing_wakes_a_parked_reader_with_zero() {
    everywhere(|| {
        let (near, mut far) = pair();
        let reader = thread::spawn(move || far.read(&mut [0; 8]).unwrap());
        settle();
        drop(near);
        assert_eq!(reader.join().unwrap(), 0);
    });
}

#[test]
fn writing_to_a_peer_that_closed_becomes_an_error_and_not_a_signal() {
    everywhere(|| {
        let (near, mut far) = pair();
        drop(near);
        let start = Instant::now();
        let kind = loop {
            match far.write(b"anybody?") {
                Ok(_) => assert!(start.elapsed() < PATIENCE, "writes go on succeeding"),
                Err(e) => break e.kind(),
            }
            thread::sleep(ms(1));
        };
        assert!(is_broken(kind), "{kind:?}");
    });
}

#[test]
fn write_all_of_8_mib_reaches_a_slow_reader_complete_and_in_order() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        let wanted = Arc::new(noise(8 << 20, 1));
        let writer = thread::spawn({
            let wanted = Arc::clone(&wanted);
            move || near.write_all(&wanted).unwrap()
        });
        settle(); // the socket is full by now
        let mut got = Vec::new();
        let mut buf = vec![0; 128 << 10];
        loop {
            let n = far.read(&mut buf).unwrap();
            if n == 0 {
                break;
            }
            got.extend_from_slice(&buf[..n]);
            thread::sleep(ms(1));
        }
        writer.join().unwrap();
        assert_same_bytes(&got, &wanted);
    });
}

// --------------------------------------------------------------------- sharing

#[test]
fn two_readers_on_one_socket_get_each_byte_exactly_once() {
    everywhere(|| {
        const ROUNDS: usize = 40;
        let (mut near, far) = pair();
        let far = Arc::new(far);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let far = Arc::clone(&far);
                thread::spawn(move || {
                    let mut counts = vec![0usize; 256];
                    let mut buf = [0; 7];
                    loop {
                        let n = (&*far).read(&mut buf).unwrap();
                        if n == 0 {
                            return counts;
                        }
                        buf[..n].iter().for_each(|&b| counts[b as usize] += 1);
                        thread::yield_now();
                    }
                })
            })
            .collect();
        for round in 0..ROUNDS {
            let all: Vec<u8> = (0..=255).collect();
            for piece in all.chunks(16) {
                near.write_all(piece).unwrap();
            }
            if round % 10 == 0 {
                thread::sleep(ms(10)); // both readers run dry and wait again
            }
        }
        drop(near); // both readers must see the end
        let mut sum = vec![0; 256];
        for reader in readers {
            let counts = reader.join().unwrap();
            sum.iter_mut().zip(counts).for_each(|(s, c)| *s += c);
        }
        assert_eq!(sum, vec![ROUNDS; 256]);
    });
}

/// Two writers and two readers use one direction of a connection at once. Checks that each byte that is
/// written is read once.
fn two_writers_and_two_readers(
    near: [impl Write + Send + 'static; 2],
    far: [impl Read + Send + 'static; 2],
    end: impl FnOnce(),
) {
    const LEN: usize = 1 << 18;
    let writers: Vec<_> = near
        .into_iter()
        .zip([11, 23])
        .map(|(mut near, seed)| {
            thread::spawn(move || {
                let data = noise(LEN, seed);
                // No buffer's length is a multiple of the length of a piece.
                for piece in data.chunks(10_007) {
                    near.write_all(piece).unwrap();
                }
            })
        })
        .collect();
    let readers: Vec<_> = far
        .into_iter()
        .map(|mut far| {
            thread::spawn(move || {
                let mut got = Vec::new();
                far.read_to_end(&mut got).unwrap();
                got
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    end();
    // Which reader got which byte is not specified.
    let mut left = [0_i64; 256];
    for byte in [noise(LEN, 11), noise(LEN, 23)].concat() {
        left[usize::from(byte)] += 1;
    }
    for reader in readers {
        for byte in reader.join().unwrap() {
            left[usize::from(byte)] -= 1;
        }
    }
    assert_eq!(left, [0; 256], "lost, if positive, or repeated");
}

/// A shared stream, read and written through `&Stream`.
struct Shared(Arc<Stream>);

impl Read for Shared {
    fn read(&mut self, buf: &mut [u8]) -> ::std::io::Result<usize> {
        (&*self.0).read(buf)
    }
}

impl Write for Shared {
    fn write(&mut self, buf: &[u8]) -> ::std::io::Result<usize> {
        (&*self.0).write(buf)
    }

    fn flush(&mut self) -> ::std::io::Result<()> {
        (&*self.0).flush()
    }
}

#[test]
fn two_writers_and_two_readers_of_one_socket_lose_and_repeat_nothing() {
    everywhere(|| {
        let (near, far) = pair();
        let (near, far) = (Arc::new(near), Arc::new(far));
        let two = |stream: &Arc<Stream>| [(); 2].map(|()| Shared(Arc::clone(stream)));
        two_writers_and_two_readers(two(&near), two(&far), || {
            near.shutdown(Shutdown::Write).unwrap();
        });
    });
}

#[test]
fn two_writers_and_two_readers_on_clones_lose_and_repeat_nothing() {
    everywhere(|| {
        let (near, far) = pair();
        let two = |stream: &Stream| [(); 2].map(|()| stream.try_clone().unwrap());
        two_writers_and_two_readers(two(&near), two(&far), || {
            near.shutdown(Shutdown::Write).unwrap();
        });
    });
}

#[test]
fn two_parked_readers_are_served_one_after_the_other() {
    everywhere(|| {
        let (mut near, far) = pair();
        let far = Arc::new(far);
        let got = Arc::new(AtomicUsize::new(0));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (far, got) = (Arc::clone(&far), Arc::clone(&got));
                thread::spawn(move || {
                    let mut buf = [0; 1];
                    (&*far).read_exact(&mut buf).unwrap();
                    got.fetch_add(1, SeqCst);
                    buf[0]
                })
            })
            .collect();
        settle();
        near.write_all(b"a").unwrap();
        until("one reader is served", || got.load(SeqCst) == 1);
        settle();
        assert_eq!(got.load(SeqCst), 1, "one byte served two readers");
        near.write_all(b"b").unwrap();
        let mut both: Vec<u8> = readers.into_iter().map(|r| r.join().unwrap()).collect();
        both.sort();
        assert_eq!(both, b"ab");
    });
}

/// Each end writes and reads 1 MiB at the same time. If one direction held up the other, both would stop
/// with full buffers.
fn full_duplex(
    near: [impl Read + Write + Send + 'static; 2],
    far: [impl Read + Write + Send + 'static; 2],
) {
    fn end<S: Read + Write + Send + 'static>(
        [mut r, mut w]: [S; 2],
        seeds: [u64; 2],
    ) -> [thread::JoinHandle<()>; 2] {
        const LEN: usize = 1 << 20;
        [
            thread::spawn(move || w.write_all(&noise(LEN, seeds[0])).unwrap()),
            thread::spawn(move || {
                let mut got = vec![0; LEN];
                settle();
                r.read_exact(&mut got).unwrap();
                assert_same_bytes(&got, &noise(LEN, seeds[1]));
            }),
        ]
    }
    let tasks = [end(near, [5, 6]), end(far, [6, 5])];
    for task in tasks.into_iter().flatten() {
        task.join().unwrap();
    }
}

#[test]
fn a_reader_and_a_writer_use_one_socket_at_once_through_references() {
    everywhere(|| {
        let (near, far) = pair();
        let (near, far) = (Arc::new(near), Arc::new(far));
        full_duplex(
            [Shared(Arc::clone(&near)), Shared(near)],
            [Shared(Arc::clone(&far)), Shared(far)],
        );
    });
}

#[test]
fn a_reader_and_a_writer_use_one_socket_at_once_through_clones() {
    everywhere(|| {
        let (near, far) = pair();
        full_duplex(
            [near.try_clone().unwrap(), near],
            [far.try_clone().unwrap(), far],
        );
    });
}

#[test]
fn a_reader_and_a_writer_share_a_socket_in_a_scope() {
    everywhere(|| {
        let (near, far) = pair();
        let wanted = noise(1 << 20, 9);
        let got = thread::scope(|s| {
            s.spawn(|| (&near).write_all(&wanted).unwrap());
            s.spawn(|| {
                let mut buf = vec![0; wanted.len()];
                (&far).read_exact(&mut buf).unwrap();
                (&far).write_all(&buf).unwrap();
            });
            let reader = s.spawn(|| {
                let mut buf = vec![0; wanted.len()];
                (&near).read_exact(&mut buf).unwrap();
                buf
            });
            reader.join().unwrap()
        });
        assert_same_bytes(&got, &wanted);
    });
}

// ---------------------------------------------------------- vectored and empty

#[test]
fn vectored_writes_and_reads_keep_the_order() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        let (a, b, c) = (noise(10, 1), noise(1000, 2), noise(100, 3));
        let mut slices = [
            IoSlice::new(&a),
            IoSlice::new(&[]),
            IoSlice::new(&b),
            IoSlice::new(&c),
        ];
        let mut left = &mut slices[..];
        while !left.is_empty() {
            let n = near.write_vectored(left).unwrap();
            assert!(n > 0);
            IoSlice::advance_slices(&mut left, n);
        }
        until_readable(&far, 1110);
        let (mut x, mut y, mut z) = (vec![0; 500], vec![0; 0], vec![0; 700]);
        let n = far
            .read_vectored(&mut [
                IoSliceMut::new(&mut x),
                IoSliceMut::new(&mut y),
                IoSliceMut::new(&mut z),
            ])
            .unwrap();
        assert_eq!(n, 1110);
        assert_same_bytes(&[x, z[..610].to_vec()].concat(), &[a, b, c].concat());
        assert!(z[610..].iter().all(|&b| b == 0));
    });
}

#[test]
fn a_vectored_read_waits_for_data() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        let reader = thread::spawn(move || {
            let mut byte = [0; 1];
            let n = far
                .read_vectored(&mut [IoSliceMut::new(&mut byte)])
                .unwrap();
            (n, byte[0])
        });
        settle();
        near.write_all(b"v").unwrap();
        assert_eq!(reader.join().unwrap(), (1, b'v'));
    });
}

/// The kernel takes 1024 at a time.
#[test]
fn a_vectored_read_of_more_buffers_than_the_kernel_takes_leaves_the_rest_to_the_next() {
    everywhere(|| {
        let (near, far) = pair();
        let data = noise(3000, 7);
        // The stream has waited once, so that its readiness comes from events.
        far.set_read_timeout(Some(ms(1))).unwrap();
        assert_times_out(|| (&far).read(&mut [0]));
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        (&near).write_all(&data).unwrap();
        until_readable(&far, data.len());

        let mut got = vec![0; data.len()];
        let mut bufs: Vec<_> = got[..2000].chunks_mut(1).map(IoSliceMut::new).collect();
        assert_eq!((&far).read_vectored(&mut bufs).unwrap(), 1024);
        (&far).read_exact(&mut got[1024..]).unwrap();
        assert_same_bytes(&got, &data);
    });
}

#[test]
fn a_vectored_write_of_more_buffers_than_the_kernel_takes_leaves_the_rest_to_the_next() {
    everywhere(|| {
        let (near, far) = pair();
        near.set_write_timeout(Some(ms(100))).unwrap();
        let sent = AtomicUsize::new(0);
        write_until_error(&near, &sent);
        near.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut before = vec![0; sent.into_inner()];
        (&far).read_exact(&mut before).unwrap();

        let data = noise(2001, 7);
        let bufs: Vec<_> = data[..2000].chunks(1).map(IoSlice::new).collect();
        let n = (&near).write_vectored(&bufs).unwrap();
        assert_eq!(n, 1024);
        (&near).write_all(&data[n..]).unwrap();
        let mut got = vec![0; data.len()];
        (&far).read_exact(&mut got).unwrap();
        assert_same_bytes(&got, &data);
    });
}

// `edges.rs` has the cases with nothing to read.
#[test]
fn a_zero_length_read_gives_zero_and_consumes_nothing() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        near.write_all(b"kept").unwrap();
        until_readable(&far, 4);
        assert_eq!(far.read(&mut []).unwrap(), 0);
        assert_eq!(far.read_vectored(&mut []).unwrap(), 0);
        let mut buf = [0; 4];
        far.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"kept");
        drop(near);
        assert_eq!(far.read(&mut []).unwrap(), 0);
    });
}

#[test]
fn a_zero_length_write_gives_zero_and_sends_nothing() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        assert_eq!(near.write(&[]).unwrap(), 0);
        assert_eq!(near.write_vectored(&[]).unwrap(), 0);
        near.write_all(&[]).unwrap();
        near.write_all(b"!").unwrap();
        near.flush().unwrap();
        drop(near);
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"!");
    });
}

#[test]
fn a_zero_length_write_does_not_wait_for_room() {
    everywhere(|| {
        let (near, _far) = pair();
        near.set_write_timeout(Some(ms(50))).unwrap();
        write_until_error(&near, &AtomicUsize::new(0));
        assert_eq!((&near).write(&[]).unwrap(), 0);
        assert_eq!((&near).write_vectored(&[IoSlice::new(&[])]).unwrap(), 0);
        near.shutdown(Shutdown::Write).unwrap();
        let kind = (&near).write(&[]).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::BrokenPipe);
    });
}

// -------------------------------------------------------------------- timeouts

#[test]
fn a_read_times_out_and_the_socket_loses_nothing() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        far.set_read_timeout(Some(ms(50))).unwrap();
        let mut buf = [0; 4];
        for word in [b"one ", b"two ", b"last"] {
            let start = Instant::now();
            assert_times_out(|| far.read(&mut buf));
            let took = start.elapsed();
            assert!(took >= ms(40), "{took:?}");
            assert!(took < PATIENCE, "{took:?}");
            near.write_all(word).unwrap();
            until_readable(&far, 4);
            far.read_exact(&mut buf).unwrap();
            assert_eq!(&buf, word);
        }
        assert_joined(&near, &far);
    });
}

#[test]
fn data_before_the_timeout_is_delivered_and_each_read_has_its_own_timeout() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        let writer = thread::spawn(move || {
            for _ in 0..5 {
                thread::sleep(ms(30));
                near.write_all(b"tick").unwrap();
            }
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"tickticktickticktick");
        writer.join().unwrap();
    });
}

#[test]
fn vectored_reads_obey_the_read_timeout() {
    everywhere(|| {
        let (_near, mut far) = pair();
        far.set_read_timeout(Some(ms(50))).unwrap();
        let start = Instant::now();
        assert_times_out(|| far.read_vectored(&mut [IoSliceMut::new(&mut [0; 4])]));
        assert!(start.elapsed() >= ms(40));
        assert!(start.elapsed() < PATIENCE);
    });
}

#[test]
fn a_read_timeout_taken_away_again_means_waiting() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        far.set_read_timeout(Some(ms(20))).unwrap();
        assert_times_out(|| far.read(&mut [0; 1]));
        far.set_read_timeout(None).unwrap();
        let reader = thread::spawn(move || {
            let mut buf = [0; 1];
            far.read_exact(&mut buf).unwrap();
            buf
        });
        thread::sleep(ms(150));
        assert!(!reader.is_finished());
        near.write_all(b"z").unwrap();
        assert_eq!(&reader.join().unwrap(), b"z");
    });
}

#[test]
fn a_read_timeout_does_not_limit_writes_nor_the_other_way_round() {
    everywhere(|| {
        let (near, far) = pair();
        far.set_read_timeout(Some(ms(20))).unwrap();
        let sent = Arc::new(AtomicUsize::new(0));
        let writer = thread::spawn({
            let sent = Arc::clone(&sent);
            move || write_until_error(&far, &sent)
        });
        until_stuck(&sent);
        thread::sleep(ms(100));
        assert!(!writer.is_finished(), "the read timeout ended a write");
        drop(near);
        writer.join().unwrap();

        let (mut near, mut far) = pair();
        far.set_write_timeout(Some(ms(20))).unwrap();
        let reader = thread::spawn(move || {
            let mut buf = [0; 1];
            far.read_exact(&mut buf).unwrap();
            buf
        });
        thread::sleep(ms(100));
        near.write_all(b"w").unwrap();
        assert_eq!(&reader.join().unwrap(), b"w");
    });
}

#[test]
fn a_write_into_a_full_pipe_times_out_and_what_was_counted_arrives() {
    everywhere(|| {
        let (near, mut far) = pair();
        near.set_write_timeout(Some(ms(100))).unwrap();
        let sent = AtomicUsize::new(0);
        let begun = Instant::now();
        // Nothing reads. A socket that is full for a large write may have room for a small one, so this
        // goes on until a write fails without progress.
        loop {
            let (before, start) = (sent.load(SeqCst), Instant::now());
            let kind = write_until_error(&near, &sent);
            let took = start.elapsed();
            assert!(is_timeout(kind), "{kind:?}");
            assert!(took >= ms(80), "{took:?}");
            if sent.load(SeqCst) == before {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "the pipe never filled up");
        }

        let sent = sent.into_inner();
        let reader = thread::spawn(move || {
            let mut got = vec![0; sent];
            far.read_exact(&mut got).unwrap();
            (got, far)
        });
        let (got, far) = reader.join().unwrap();
        let wanted: Vec<u8> = endless().into_iter().cycle().take(sent).collect();
        assert_same_bytes(&got, &wanted);
        assert_joined(&near, &far);
    });
}

#[test]
fn a_vectored_write_obeys_the_write_timeout() {
    everywhere(|| {
        let (near, far) = pair();
        near.set_write_timeout(Some(ms(50))).unwrap();
        let data = endless();
        let mut sent = 0;
        let kind = loop {
            let slices = [IoSlice::new(&data[..40_001]), IoSlice::new(&data[40_001..])];
            match uninterrupted(|| (&near).write_vectored(&slices)) {
                Ok(n) => sent += n,
                Err(error) => break error.kind(),
            }
            assert!(sent < 64 << 20, "a peer that reads nothing took 64 MiB");
        };
        assert!(is_timeout(kind), "{kind:?}");
        // The counted bytes arrive, and no more.
        drop(near);
        let mut got = Vec::new();
        (&far).read_to_end(&mut got).unwrap();
        assert_eq!(got.len(), sent);
    });
}

#[test]
fn a_timeout_of_zero_is_invalid_input_and_changes_nothing() {
    everywhere(|| {
        let (near, _far) = pair();
        near.set_read_timeout(Some(ms(3000))).unwrap();
        near.set_write_timeout(Some(ms(4000))).unwrap();
        let error = near.set_read_timeout(Some(Duration::ZERO)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = near.set_write_timeout(Some(Duration::ZERO)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(near.read_timeout().unwrap(), Some(ms(3000)));
        assert_eq!(near.write_timeout().unwrap(), Some(ms(4000)));
    });
}

#[test]
fn timeouts_read_back_as_they_were_set() {
    everywhere(|| {
        let (near, _far) = pair();
        assert_eq!(near.read_timeout().unwrap(), None);
        assert_eq!(near.write_timeout().unwrap(), None);
        near.set_read_timeout(Some(ms(1500))).unwrap();
        assert_eq!(near.read_timeout().unwrap(), Some(ms(1500)));
        assert_eq!(near.write_timeout().unwrap(), None);
        near.set_write_timeout(Some(ms(2500))).unwrap();
        assert_eq!(near.read_timeout().unwrap(), Some(ms(1500)));
        assert_eq!(near.write_timeout().unwrap(), Some(ms(2500)));
        near.set_read_timeout(None).unwrap();
        near.set_write_timeout(None).unwrap();
        assert_eq!(near.read_timeout().unwrap(), None);
        assert_eq!(near.write_timeout().unwrap(), None);
    });
}

#[test]
fn a_timeout_too_small_to_measure_is_still_a_timeout() {
    everywhere(|| {
        let (_near, mut far) = pair();
        far.set_read_timeout(Some(Duration::from_nanos(1))).unwrap();
        assert!(far.read_timeout().unwrap().is_some());
        let start = Instant::now();
        assert_times_out(|| far.read(&mut [0; 1]));
        assert!(start.elapsed() < PATIENCE);
    });
}

#[test]
fn a_timeout_too_long_to_end_is_accepted() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        far.set_read_timeout(Some(Duration::MAX)).unwrap();
        far.set_write_timeout(Some(Duration::MAX)).unwrap();
        let reader = thread::spawn(move || {
            let mut buf = [0; 1];
            far.read_exact(&mut buf).unwrap();
            far.write_all(&buf).unwrap();
        });
        thread::sleep(ms(100));
        assert!(!reader.is_finished());
        near.write_all(b"m").unwrap();
        near.read_exact(&mut [0; 1]).unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn timeouts_set_by_the_descriptor_are_heeded() {
    everywhere(|| {
        let (near, far) = pair();
        // The stream has waited with another timeout before.
        far.set_read_timeout(Some(ms(1))).unwrap();
        assert_times_out(|| (&far).read(&mut [0]));
        far.set_read_timeout(None).unwrap();

        set_by_descriptor(&far, Timeout::Recv, Some(ms(60)));
        assert_eq!(far.read_timeout().unwrap(), Some(ms(60)));
        let start = Instant::now();
        assert_times_out(|| (&far).read(&mut [0]));
        assert!(start.elapsed() >= ms(40));
        assert_times_out(|| far.try_clone().unwrap().read(&mut [0]));
        set_by_descriptor(&far, Timeout::Recv, None);
        let reader = thread::spawn(move || {
            (&far).read_exact(&mut [0]).unwrap();
            far
        });
        thread::sleep(ms(100));
        assert!(!reader.is_finished());
        (&near).write_all(b"x").unwrap();
        let far = reader.join().unwrap();

        set_by_descriptor(&far, Timeout::Send, Some(ms(60)));
        let kind = write_until_error(&far, &AtomicUsize::new(0));
        assert!(is_timeout(kind), "{kind:?}");
    });
}

// ---------------------------------------------------------------------- clones

#[test]
fn a_clone_is_the_same_stream() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        let mut clone = near.try_clone().unwrap();
        near.write_all(b"one").unwrap();
        clone.write_all(b"two").unwrap();
        let mut buf = [0; 6];
        far.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"onetwo");
        far.write_all(b"ab").unwrap();
        let mut byte = [0; 1];
        clone.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"a");
        near.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"b");
    });
}

#[test]
fn dropping_one_clone_keeps_the_other_open() {
    everywhere(|| {
        let (near, far) = pair();
        let clone = near.try_clone().unwrap();
        drop(near);
        assert_joined(&clone, &far);
        let again = clone.try_clone().unwrap();
        drop(clone);
        assert_joined(&again, &far);
        drop(again); // closes the connection
        assert_eq!((&far).read(&mut [0; 1]).unwrap(), 0);
    });
}

#[test]
fn a_reader_parked_on_one_clone_goes_on_when_the_other_is_dropped() {
    everywhere(|| {
        for drop_the_original in [true, false] {
            let (near, mut far) = pair();
            let clone = near.try_clone().unwrap();
            let (mut keep, lose) = match drop_the_original {
                true => (clone, near),
                false => (near, clone),
            };
            let reader = thread::spawn(move || {
                let mut buf = [0; 5];
                keep.read_exact(&mut buf).unwrap();
                buf
            });
            settle();
            drop(lose);
            settle();
            assert!(!reader.is_finished());
            far.write_all(b"still").unwrap();
            assert_eq!(&reader.join().unwrap(), b"still");
        }
    });
}

#[test]
fn a_writer_parked_on_one_clone_goes_on_when_the_other_is_dropped() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        let clone = near.try_clone().unwrap();
        let data = Arc::new(noise(16 << 20, 3));
        let writer = thread::spawn({
            let data = Arc::clone(&data);
            move || near.write_all(&data).unwrap()
        });
        thread::sleep(ms(150));
        drop(clone);
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        writer.join().unwrap();
        assert_same_bytes(&got, &data);
    });
}

#[test]
fn options_set_through_one_clone_are_seen_through_the_other() {
    everywhere(|| {
        let (near, _far) = pair();
        let clone = near.try_clone().unwrap();
        // Multiples of 100 ms, because Linux rounds up to clock ticks.
        near.set_read_timeout(Some(ms(100))).unwrap();
        clone.set_write_timeout(Some(ms(2000))).unwrap();
        assert_eq!(clone.read_timeout().unwrap(), Some(ms(100)));
        assert_eq!(near.write_timeout().unwrap(), Some(ms(2000)));
        assert_times_out(|| (&clone).read(&mut [0; 1]));

        near.set_read_timeout(None).unwrap();
        near.set_nonblocking(true).unwrap();
        let start = Instant::now();
        let kind = (&clone).read(&mut [0; 1]).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::WouldBlock);
        assert!(start.elapsed() < PATIENCE);
    });
}

#[test]
fn a_stream_is_cloned_while_a_clone_of_it_is_read() {
    everywhere(|| {
        let (mut near, far) = pair();
        let mut clone = far.try_clone().unwrap();
        let reader = thread::spawn(move || clone.read(&mut [0; 8]).unwrap());
        settle();
        drop(far.try_clone().unwrap());
        near.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap(), 1);
    });
}

#[test]
fn a_reader_is_not_disturbed_when_the_number_of_a_dropped_clone_is_reused() {
    everywhere(|| {
        for round in 0..20 {
            let (mut near, far) = pair();
            // The first wait is on the clone, so state that is kept by number is kept under the clone's.
            let first = far.try_clone().unwrap();
            first.set_read_timeout(Some(ms(1))).unwrap();
            assert_times_out(|| (&first).read(&mut [0; 8]));
            first.set_read_timeout(None).unwrap();
            let reader = thread::spawn(move || {
                let mut buf = [0; 8];
                let n = (&far).read(&mut buf).unwrap();
                buf[..n].to_vec()
            });
            thread::sleep(ms(1));
            drop(first);
            // The clone's number is free, and one of these most likely gets it.
            let (other_near, other_far) = pair();
            assert_joined(&other_near, &other_far);
            drop(other_far);
            assert_eq!((&other_near).read(&mut [0; 8]).unwrap(), 0);
            assert!(!reader.is_finished());
            near.write_all(&[round]).unwrap();
            assert_eq!(reader.join().unwrap(), [round]);
        }
    });
}

// -------------------------------------------------------------------- shutdown

#[test]
fn shutdown_read_wakes_a_reader_parked_on_the_same_socket() {
    everywhere(|| {
        let (near, far) = pair();
        let near = Arc::new(near);
        let reader = thread::spawn({
            let near = Arc::clone(&near);
            move || (&*near).read(&mut [0; 8]).unwrap()
        });
        settle();
        near.shutdown(Shutdown::Read).unwrap();
        assert_eq!(reader.join().unwrap(), 0);
        assert_eq!((&*near).read(&mut [0; 8]).unwrap(), 0);
        // Writing still works.
        (&*near).write_all(b"ok").unwrap();
        let mut buf = [0; 2];
        (&far).read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"ok");
    });
}

#[test]
fn shutdown_write_ends_the_peers_reading_while_the_other_direction_goes_on() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        let peer = thread::spawn(move || {
            let mut question = String::new();
            far.read_to_string(&mut question).unwrap(); // waits for the end
            settle();
            far.write_all(question.to_uppercase().as_bytes()).unwrap();
        });
        near.write_all(b"half closed").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let kind = near.write(b"no").unwrap_err().kind();
        assert_eq!(kind, ErrorKind::BrokenPipe);
        let mut answer = String::new();
        near.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "HALF CLOSED");
        peer.join().unwrap();
    });
}

#[test]
fn shutdown_both_from_another_task_wakes_a_parked_reader() {
    everywhere(|| {
        let (near, far) = pair();
        let near = Arc::new(near);
        let reader = thread::spawn({
            let near = Arc::clone(&near);
            move || (&*near).read(&mut [0; 8]).unwrap()
        });
        settle();
        near.shutdown(Shutdown::Both).unwrap();
        assert_eq!(reader.join().unwrap(), 0);
        assert_eq!((&far).read(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn shutdown_both_through_a_clone_wakes_every_reader() {
    everywhere(|| {
        let (near, _far) = pair();
        let near = Arc::new(near);
        let clone = near.try_clone().unwrap();
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let near = Arc::clone(&near);
                thread::spawn(move || (&*near).read(&mut [0; 8]).unwrap())
            })
            .collect();
        settle();
        clone.shutdown(Shutdown::Both).unwrap();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), 0);
        }
    });
}

#[test]
fn shutdown_both_from_another_task_wakes_a_parked_writer() {
    everywhere(|| {
        let (near, _far) = pair();
        let near = Arc::new(near);
        let sent = Arc::new(AtomicUsize::new(0));
        let writer = thread::spawn({
            let (near, sent) = (Arc::clone(&near), Arc::clone(&sent));
            move || write_until_error(&near, &sent)
        });
        until_stuck(&sent);
        near.shutdown(Shutdown::Both).unwrap();
        let kind = writer.join().unwrap();
        assert!(is_broken(kind), "{kind:?}");
    });
}

#[test]
fn shutdown_write_and_the_end_of_the_peer_wake_a_parked_writer() {
    everywhere(|| {
        for by_peer in [false, true] {
            if !by_peer && util::IS_PATCH {
                // No event tells it of a Unix socket.
                continue;
            }
            let (near, far) = pair();
            let mut clone = near.try_clone().unwrap();
            let writer = thread::spawn(move || clone.write_all(&noise(16 << 20, 1)));
            settle();
            assert!(!writer.is_finished());
            match by_peer {
                false => near.shutdown(Shutdown::Write).unwrap(),
                true => drop(far),
            }
            let kind = writer.join().unwrap().unwrap_err().kind();
            assert!(is_broken(kind), "{kind:?}");
        }
    });
}

#[test]
fn shutdown_both_wakes_a_reader_and_a_writer_of_one_socket_together() {
    everywhere(|| {
        let (near, _far) = pair();
        let near = Arc::new(near);
        let sent = Arc::new(AtomicUsize::new(0));
        let reader = thread::spawn({
            let near = Arc::clone(&near);
            move || (&*near).read(&mut [0; 8]).unwrap()
        });
        let writer = thread::spawn({
            let (near, sent) = (Arc::clone(&near), Arc::clone(&sent));
            move || write_until_error(&near, &sent)
        });
        until_stuck(&sent);
        near.shutdown(Shutdown::Both).unwrap();
        assert_eq!(reader.join().unwrap(), 0);
        let kind = writer.join().unwrap();
        assert!(is_broken(kind), "{kind:?}");
    });
}

#[test]
fn each_side_can_close_its_half_while_the_other_still_speaks() {
    everywhere(|| {
        let (mut near, mut far) = pair();
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(far.read(&mut [0; 8]).unwrap(), 0);
        // The other direction goes on.
        for n in 0..100 {
            far.write_all(&[n]).unwrap();
            let mut got = [0];
            near.read_exact(&mut got).unwrap();
            assert_eq!(got, [n]);
        }
        assert_eq!(far.read(&mut [0; 8]).unwrap(), 0);
        far.shutdown(Shutdown::Write).unwrap();
        for stream in [&mut near, &mut far] {
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
            let kind = stream.write(b"no").unwrap_err().kind();
            assert_eq!(kind, ErrorKind::BrokenPipe);
        }
    });
}

#[test]
fn shutdown_holds_for_clones_made_before_and_after() {
    everywhere(|| {
        let (mut near, _far) = pair();
        let before = near.try_clone().unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        assert!(near.write(b"no").is_err());
        near.shutdown(Shutdown::Read).unwrap();
        assert_eq!(near.read(&mut [0]).unwrap(), 0);
        let after = near.try_clone().unwrap();
        for mut clone in [before, after] {
            let kind = clone.write(b"no").unwrap_err().kind();
            assert_eq!(kind, ErrorKind::BrokenPipe);
            assert_eq!(clone.read(&mut [0]).unwrap(), 0);
            // Shutting down again does no harm.
            clone.shutdown(Shutdown::Read).unwrap();
            clone.shutdown(Shutdown::Write).unwrap();
        }
    });
}

// ----------------------------------------------------------------------- modes

#[test]
fn a_nonblocking_stream_does_not_wait_until_it_is_made_to_again() {
    everywhere(|| {
        let (near, mut far) = pair();
        far.set_nonblocking(true).unwrap();
        let start = Instant::now();
        let mut buf = [0; 5];
        assert_eq!(
            far.read(&mut buf).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        assert!(start.elapsed() < PATIENCE);
        (&near).write_all(b"here!").unwrap();
        until_readable(&far, 5);
        assert_eq!(far.read(&mut buf).unwrap(), 5);
        assert_eq!(&buf, b"here!");

        let sent = AtomicUsize::new(0);
        assert_eq!(write_until_error(&far, &sent), ErrorKind::WouldBlock);
        assert!(sent.into_inner() > 0);

        far.set_nonblocking(false).unwrap();
        let reader = thread::spawn(move || far.read_exact(&mut [0; 4]).unwrap());
        thread::sleep(ms(100));
        assert!(!reader.is_finished());
        (&near).write_all(b"more").unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn a_mode_set_by_the_descriptor_is_heeded() {
    everywhere(|| {
        let (near, far) = pair();
        far.set_read_timeout(Some(ms(1))).unwrap();
        assert_times_out(|| (&far).read(&mut [0]));
        far.set_read_timeout(None).unwrap();

        rustix::io::ioctl_fionbio(&far, true).unwrap();
        let clone = far.try_clone().unwrap();
        for mut far in [&far, &clone] {
            let kind = far.read(&mut [0]).unwrap_err().kind();
            assert_eq!(kind, ErrorKind::WouldBlock);
        }
        let kind = write_until_error(&far, &AtomicUsize::new(0));
        assert_eq!(kind, ErrorKind::WouldBlock);

        rustix::io::ioctl_fionbio(&clone, false).unwrap();
        let reader = thread::spawn(move || (&far).read_exact(&mut [0]).unwrap());
        thread::sleep(ms(100));
        assert!(!reader.is_finished());
        (&near).write_all(b"x").unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn a_nonblocking_stream_ignores_its_read_timeout() {
    everywhere(|| {
        let (_near, mut far) = pair();
        far.set_read_timeout(Some(ms(30_000))).unwrap();
        far.set_nonblocking(true).unwrap();
        let start = Instant::now();
        assert_eq!(
            far.read(&mut [0; 1]).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        assert!(start.elapsed() < PATIENCE);
        assert_eq!(far.read_timeout().unwrap(), Some(ms(30_000)));
        far.set_read_timeout(Some(ms(50))).unwrap();
        far.set_nonblocking(false).unwrap();
        let start = Instant::now();
        assert_times_out(|| far.read(&mut [0; 1]));
        assert!(start.elapsed() >= ms(40));
    });
}

// ----------------------------------------------------------------- conversions

#[test]
fn a_stream_survives_becoming_an_owned_descriptor_and_back() {
    everywhere(|| {
        let (near, far) = pair();
        let fd: OwnedFd = near.into();
        let near = Stream::from(fd);
        assert_joined(&near, &far);

        let raw = near.into_raw_fd();
        // SAFETY: `raw` is open, and `into_raw_fd` has given up the ownership.
        let near = unsafe { Stream::from_raw_fd(raw) };
        assert_eq!(near.as_raw_fd(), raw);
        assert_eq!(near.as_fd().as_raw_fd(), raw);
        assert_joined(&near, &far);

        // The stream still waits for data.
        let reader = thread::spawn(move || (&near).read(&mut [0; 1]).unwrap());
        settle();
        drop(far);
        assert_eq!(reader.join().unwrap(), 0);
    });
}

#[test]
fn a_descriptor_duplicated_by_hand_is_the_same_stream() {
    everywhere(|| {
        let (near, far) = pair();
        let twin = Stream::from(near.as_fd().try_clone_to_owned().unwrap());
        drop(near);
        assert_joined(&twin, &far);
    });
}

#[test]
fn a_descriptor_given_up_is_not_closed() {
    everywhere(|| {
        let (near, mut far) = pair();
        let raw = near.into_raw_fd();
        far.set_read_timeout(Some(ms(50))).unwrap();
        assert_times_out(|| far.read(&mut [0; 1])); // the stream has not ended
        far.set_read_timeout(None).unwrap();
        // SAFETY: `raw` is open, and `into_raw_fd` has given up the ownership.
        drop(unsafe { OwnedFd::from_raw_fd(raw) });
        assert_eq!(far.read(&mut [0; 1]).unwrap(), 0);
    });
}
