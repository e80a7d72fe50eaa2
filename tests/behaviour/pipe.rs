//! What pipes promise.

use super::{std, util};
use std::io::{
    BufRead, BufReader, ErrorKind, IoSlice, IoSliceMut, PipeReader, PipeWriter, Read, Write, pipe,
};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

use util::everywhere;

#[test]
fn what_is_written_is_read_in_order_to_the_end() {
    everywhere(|| {
        let (mut reader, mut writer) = pipe().unwrap();
        let bytes = util::noise(500_000, 7);
        let mut back = Vec::new();
        thread::scope(|s| {
            s.spawn(|| {
                for piece in bytes.chunks(7_001) {
                    writer.write_all(piece).unwrap();
                }
                writer.flush().unwrap();
                drop(writer);
            });
            assert_eq!(reader.read_to_end(&mut back).unwrap(), bytes.len());
        });
        util::assert_same_bytes(&back, &bytes);
        for _ in 0..2 {
            assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the end stays the end");
        }
    });
}

#[test]
fn the_end_comes_when_all_writers_are_gone() {
    everywhere(|| {
        let (reader, writer) = pipe().unwrap();
        let (mut again, other) = (reader.try_clone().unwrap(), writer.try_clone().unwrap());
        drop(reader);
        (&other).write_all(b"one ").unwrap();
        drop(other);
        let reading = thread::spawn(move || {
            let mut text = String::new();
            again.read_to_string(&mut text).unwrap();
            text
        });
        thread::sleep(Duration::from_millis(2));
        assert!(!reading.is_finished());
        (&writer).write_all(b"two").unwrap();
        drop(writer);
        assert_eq!(reading.join().unwrap(), "one two");
    });
}

#[test]
fn writing_is_an_error_when_all_readers_are_gone() {
    everywhere(|| {
        let (reader, mut writer) = pipe().unwrap();
        let other = reader.try_clone().unwrap();
        drop(reader);
        writer.write_all(b"x").unwrap();
        drop(other);
        assert_eq!(
            writer.write(b"y").unwrap_err().kind(),
            ErrorKind::BrokenPipe
        );

        // A writer that waits for room gets the error, too.
        let (reader, mut writer) = pipe().unwrap();
        let writing = thread::spawn(move || writer.write_all(&[0; 1 << 20]));
        thread::sleep(Duration::from_millis(2));
        drop(reader);
        assert_eq!(
            writing.join().unwrap().unwrap_err().kind(),
            ErrorKind::BrokenPipe
        );
    });
}

#[test]
fn nothing_is_read_and_written_at_once() {
    everywhere(|| {
        let (reader, mut writer) = pipe().unwrap();
        let waiting = {
            let mut reader = reader.try_clone().unwrap();
            thread::spawn(move || reader.read(&mut [0; 3]).unwrap())
        };
        thread::sleep(Duration::from_millis(2));
        // The other reader has found the pipe empty by now.
        assert_eq!((&reader).read(&mut []).unwrap(), 0);
        assert_eq!((&reader).read_vectored(&mut []).unwrap(), 0);
        let mut bufs = [IoSliceMut::new(&mut []), IoSliceMut::new(&mut [])];
        assert_eq!((&reader).read_vectored(&mut bufs).unwrap(), 0);
        assert_eq!(writer.write(b"").unwrap(), 0);
        assert!(!waiting.is_finished());
        writer.write_all(b"ab").unwrap();
        assert_eq!(waiting.join().unwrap(), 2);

        let (reader, writer) = pipe().unwrap();
        let writing = {
            let mut writer = writer.try_clone().unwrap();
            thread::spawn(move || writer.write_all(&[1; 1 << 20]))
        };
        thread::sleep(Duration::from_millis(2));
        // The pipe is full by now.
        assert_eq!((&writer).write(b"").unwrap(), 0);
        assert_eq!((&writer).write_vectored(&[IoSlice::new(b"")]).unwrap(), 0);
        drop(writer);
        let mut bytes = Vec::new();
        (&reader).read_to_end(&mut bytes).unwrap();
        writing.join().unwrap().unwrap();
        assert_eq!(bytes.len(), 1 << 20);
    });
}

#[test]
fn small_writes_of_several_tasks_stay_whole() {
    const WRITERS: u8 = 5;
    everywhere(|| {
        let (reader, writer) = pipe().unwrap();
        let record = |of: u8| [&[b'a' + of; 999][..], b"\n"].concat();
        thread::scope(|s| {
            for of in 0..WRITERS {
                let mut writer = writer.try_clone().unwrap();
                s.spawn(move || {
                    (0..100).for_each(|_| assert_eq!(writer.write(&record(of)).unwrap(), 1000))
                });
            }
            drop(writer);
            let mut seen = [0; WRITERS as usize];
            for line in BufReader::new(reader).lines() {
                let line = line.unwrap();
                let of = line.as_bytes()[0] - b'a';
                assert_eq!(line.as_bytes(), &record(of)[..999]);
                seen[usize::from(of)] += 1;
            }
            assert_eq!(seen, [100; WRITERS as usize]);
        });
    });
}

#[test]
fn several_readers_share_what_comes() {
    everywhere(|| {
        let (reader, mut writer) = pipe().unwrap();
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let mut reader = reader.try_clone().unwrap();
                thread::spawn(move || {
                    let mut got = 0;
                    while reader.read_exact(&mut [0]).is_ok() {
                        got += 1;
                    }
                    got
                })
            })
            .collect();
        for _ in 0..100 {
            writer.write_all(b"0123456789").unwrap();
            thread::yield_now();
        }
        drop(writer);
        let got: usize = readers
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .sum();
        assert_eq!(got, 1000);
    });
}

#[test]
fn vectored_operations_take_several_buffers() {
    everywhere(|| {
        let (mut reader, mut writer) = pipe().unwrap();
        let bufs = [
            IoSlice::new(b""),
            IoSlice::new(b"abc"),
            IoSlice::new(b"defg"),
        ];
        assert_eq!(writer.write_vectored(&bufs).unwrap(), 7);
        let (mut first, mut second) = ([0; 2], [0; 10]);
        let mut bufs = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        assert_eq!(reader.read_vectored(&mut bufs).unwrap(), 7);
        assert_eq!((&first, &second[..5]), (b"ab", &b"cdefg"[..]));
    });
}

#[test]
fn too_little_for_an_exact_read_is_an_error() {
    everywhere(|| {
        let (mut reader, mut writer) = pipe().unwrap();
        writer.write_all(b"abc").unwrap();
        drop(writer);
        let error = reader.read_exact(&mut [0; 4]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        let (mut reader, mut writer) = pipe().unwrap();
        writer.write_all(b"\xff").unwrap();
        drop(writer);
        let error = reader.read_to_string(&mut String::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    });
}

#[test]
fn pipes_convert_to_descriptors_and_back() {
    everywhere(|| {
        let (reader, writer) = pipe().unwrap();
        let number = reader.as_raw_fd();
        assert_eq!(reader.as_fd().as_raw_fd(), number);
        let shown = format!("{reader:?}");
        assert!(shown.starts_with("PipeReader("), "{shown}");
        let mut reader = PipeReader::from(OwnedFd::from(reader));
        assert_eq!(reader.as_raw_fd(), number);
        let mut writer = PipeWriter::from(OwnedFd::from(writer));
        writer.write_all(b"x").unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    });
}

#[test]
fn pipes_can_be_sent_shared_and_caught() {
    fn all<T: Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe + Unpin>() {}
    all::<PipeReader>();
    all::<PipeWriter>();
}
