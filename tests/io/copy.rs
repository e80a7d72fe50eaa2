//! What `io::copy` does in a coroutine, beyond what std promises: see also `tests/behaviour/copy.rs`.

use std::io::{BufReader, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;

use greenroom::shims::fs::File;
use greenroom::shims::io;
use greenroom::shims::net::{Shutdown, TcpListener, TcpStream};
use greenroom::shims::os::unix::net::UnixStream;
use greenroom::shims::process::ChildStdin;
use greenroom::shims::thread;

use crate::util::{self, Scratch, ms, on_workers};

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// How many bytes this thread has read by calls that copy to its memory, or from file to file.
fn read_so_far() -> Option<u64> {
    let io = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    let read = io.lines().find_map(|line| line.strip_prefix("rchar: "))?;
    read.parse().ok()
}

#[test]
fn between_pipes_and_from_a_pipe_to_a_file_no_bytes_go_through_memory() {
    const BYTES: usize = 1 << 20;
    let dir = Scratch::new();
    on_workers(1, || {
        let bytes = util::noise(BYTES, 3);
        let Some(before) = read_so_far() else {
            eprintln!("skipped, the kernel does not count");
            return;
        };
        // OS threads feed and collect, so that this thread does nothing but copy.
        let (reader, mut feeder) = std::io::pipe().unwrap();
        let (mut collector, writer) = std::io::pipe().unwrap();
        std::thread::scope(|s| {
            s.spawn(|| {
                feeder.write_all(&bytes).unwrap();
                drop(feeder);
            });
            let collected = s.spawn(move || {
                let mut all = Vec::new();
                collector.read_to_end(&mut all).unwrap();
                all
            });
            let (mut reader, mut writer) =
                (io::PipeReader::from(reader), io::PipeWriter::from(writer));
            assert_eq!(io::copy(&mut reader, &mut writer).unwrap(), BYTES as u64);
            drop(writer);
            util::assert_same_bytes(&collected.join().unwrap(), &bytes);
        });

        let (reader, mut feeder) = std::io::pipe().unwrap();
        std::thread::scope(|s| {
            s.spawn(|| {
                feeder.write_all(&bytes).unwrap();
                drop(feeder);
            });
            let mut reader = BufReader::new(io::PipeReader::from(reader));
            let mut file = File::create(dir.join("to")).unwrap();
            assert_eq!(io::copy(&mut reader, &mut file).unwrap(), BYTES as u64);
        });
        let read = read_so_far().unwrap() - before;
        assert!(read < BYTES as u64 / 4, "{read} bytes");
        util::assert_same_bytes(&std::fs::read(dir.join("to")).unwrap(), &bytes);
    });
}

/// Copies from `reader` to `writer` with many interrupts, while bytes come in pieces. What a limit says was read has
/// come out of `writer` each time.
fn assert_interrupts_lose_nothing<R: Read + Send, W: Write + Send>(
    mut feeder: impl Write + Send,
    reader: R,
    mut writer: W,
    mut arrived: impl FnMut(u64) -> Vec<u8>,
) {
    const PIECES: u64 = 40;
    const PIECE: u64 = 1_000;
    let bytes = util::noise((PIECES * PIECE) as usize, 9);
    thread::scope(|s| {
        let fed = &bytes;
        s.spawn(move || {
            for piece in fed.chunks(PIECE as usize) {
                feeder.write_all(piece).unwrap();
                thread::sleep(ms(1));
            }
            // Nothing ends the copy but its limit.
            thread::sleep(ms(50));
        });
        let mut limited = reader.take(bytes.len() as u64);
        let mut interrupts = 0;
        let mut seen = Vec::new();
        while limited.limit() > 0 {
            let copied = greenroom::timeout(ms(2), || io::copy(&mut limited, &mut writer));
            match copied {
                Ok(copied) => _ = copied.unwrap(),
                Err(_) => interrupts += 1,
            }
            seen.extend(arrived(
                bytes.len() as u64 - limited.limit() - seen.len() as u64,
            ));
        }
        assert!(interrupts > 0);
        util::assert_same_bytes(&seen, &bytes);
    });
}

/// Reads exactly so many bytes.
fn take_from<R: Read>(mut reader: R) -> impl FnMut(u64) -> Vec<u8> {
    move |bytes| {
        let mut taken = vec![0; bytes as usize];
        reader.read_exact(&mut taken).unwrap();
        taken
    }
}

#[test]
fn a_copy_that_is_interrupted_loses_nothing_that_was_counted() {
    on_workers(1, || {
        let (from, feeder) = io::pipe().unwrap();
        let (to, writer) = io::pipe().unwrap();
        assert_interrupts_lose_nothing(feeder, from, writer, take_from(to));

        let (from, feeder) = connection();
        let (to, writer) = connection();
        assert_interrupts_lose_nothing(feeder, &from, writer, take_from(to));

        let dir = Scratch::new();
        let (from, feeder) = io::pipe().unwrap();
        let file = File::create(dir.join("to")).unwrap();
        let read = File::open(dir.join("to")).unwrap();
        assert_interrupts_lose_nothing(feeder, from, file, take_from(read));
    });
}

#[test]
fn a_cancelled_copy_closes_both_ends() {
    on_workers(1, || {
        let (reader, feeder) = io::pipe().unwrap();
        let (mut collector, writer) = io::pipe().unwrap();
        let copying = thread::spawn(move || {
            let (mut reader, mut writer) = (reader, writer);
            io::copy(&mut reader, &mut writer)
        });
        (&feeder).write_all(b"some").unwrap();
        collector.read_exact(&mut [0; 4]).unwrap();
        copying.cancel();
        let payload = copying.join().unwrap_err();
        assert!(payload.is::<greenroom::Cancelled>());
        assert_eq!(collector.read(&mut [0]).unwrap(), 0);
        // A child that another test has just forked has the reader until it executes its program.
        util::until("the pipe is broken", || {
            let written = (&feeder).write(b"more");
            written.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe)
        });
    });
}

#[test]
fn a_socket_in_the_place_of_a_pipe_does_not_block_the_worker() {
    const BYTES: usize = 4 << 20;
    on_workers(1, || {
        let (reader, mut feeder) = io::pipe().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut writer = ChildStdin::from(OwnedFd::from(near));
        let bytes = util::noise(BYTES, 4);
        thread::scope(|s| {
            s.spawn(|| {
                feeder.write_all(&bytes).unwrap();
                drop(feeder);
            });
            s.spawn(move || {
                let copied = io::copy(&mut &reader, &mut writer).unwrap();
                assert_eq!(copied, BYTES as u64);
            });
            // By now, the socket is full, and only this worker can empty it.
            thread::sleep(ms(20));
            let mut all = Vec::new();
            far.read_to_end(&mut all).unwrap();
            util::assert_same_bytes(&all, &bytes);
        });
    });
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) -> u64 {
    let copied = io::copy(&mut from, &mut to).unwrap();
    to.shutdown(Shutdown::Write).unwrap();
    copied
}

#[test]
fn a_connection_is_copied_both_ways_until_both_sides_have_ended() {
    const BYTES: usize = 2 << 20;
    on_workers(1, || {
        let (client, proxied) = connection();
        let (forward, server) = connection();
        let asked = util::noise(BYTES, 1);
        thread::scope(|s| {
            let there = s.spawn(|| pass(&proxied, &forward));
            let back = s.spawn(|| pass(&forward, &proxied));
            s.spawn(|| {
                // Answers when all is there, so only after a half-close.
                let mut all = Vec::new();
                (&server).read_to_end(&mut all).unwrap();
                all.reverse();
                (&server).write_all(&all).unwrap();
                server.shutdown(Shutdown::Write).unwrap();
            });
            (&client).write_all(&asked).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            (&client).read_to_end(&mut answer).unwrap();
            answer.reverse();
            util::assert_same_bytes(&answer, &asked);
            assert_eq!(there.join().unwrap(), BYTES as u64);
            assert_eq!(back.join().unwrap(), BYTES as u64);
        });
    });
}
