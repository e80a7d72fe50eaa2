//! What `io::copy` promises.

use super::{std, util};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use util::{Scratch, everywhere, ms};

fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// A file that contains `bytes`, with the cursor at the start.
fn file_of(dir: &Scratch, name: &str, bytes: &[u8]) -> File {
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(dir.join(name))
        .unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn bytes_go_from_a_file_through_a_pipe_a_child_and_a_connection_to_a_file() {
    everywhere(|| {
        let dir = Scratch::new();
        let bytes = util::noise(700_000, 11);
        let mut from = file_of(&dir, "from", &bytes);
        let mut to = file_of(&dir, "to", b"");
        let (reader, mut writer) = io::pipe().unwrap();
        let mut child = Command::new("cat")
            .stdin(reader)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (mut near, mut far) = connection();
        let length = bytes.len() as u64;
        thread::scope(|s| {
            s.spawn(|| {
                assert_eq!(io::copy(&mut from, &mut writer).unwrap(), length);
                drop(writer);
            });
            s.spawn(|| {
                assert_eq!(io::copy(&mut stdout, &mut near).unwrap(), length);
                near.shutdown(Shutdown::Write).unwrap();
            });
            assert_eq!(io::copy(&mut far, &mut to).unwrap(), length);
        });
        assert!(child.wait().unwrap().success());
        let mut back = Vec::new();
        to.rewind().unwrap();
        to.read_to_end(&mut back).unwrap();
        util::assert_same_bytes(&back, &bytes);
    });
}

#[test]
fn a_limit_and_what_is_buffered_are_heeded() {
    everywhere(|| {
        let dir = Scratch::new();
        let mut from = BufReader::with_capacity(4, file_of(&dir, "from", b"0123456789"));
        from.fill_buf().unwrap();
        from.consume(1);
        let mut to = BufWriter::with_capacity(3, file_of(&dir, "to", b"old"));
        to.seek(SeekFrom::End(0)).unwrap();
        to.write_all(b"-").unwrap();
        let mut limited = from.by_ref().take(6);
        assert_eq!(io::copy(&mut limited, &mut to).unwrap(), 6);
        assert_eq!(limited.limit(), 0);
        let mut rest = String::new();
        from.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "789");
        let mut to = to.into_inner().unwrap();
        to.rewind().unwrap();
        let mut all = String::new();
        to.read_to_string(&mut all).unwrap();
        assert_eq!(all, "old-123456");
    });
}

#[test]
fn a_file_that_appends_is_appended_to() {
    everywhere(|| {
        let dir = Scratch::new();
        let much = util::noise(600_000, 2);
        let mut from = file_of(&dir, "from", b"more, ");
        let mut large = file_of(&dir, "large", &much);
        drop(file_of(&dir, "to", b"some, "));
        let mut options = OpenOptions::new();
        let mut to = options.append(true).open(dir.join("to")).unwrap();
        assert_eq!(io::copy(&mut from, &mut to).unwrap(), 6);
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"from a pipe, ").unwrap();
        drop(writer);
        assert_eq!(io::copy(&mut &reader, &mut to).unwrap(), 13);
        assert_eq!(io::copy(&mut large, &mut to).unwrap(), 600_000);
        let appended = std::fs::read(dir.join("to")).unwrap();
        let (begin, end) = appended.split_at(25);
        assert_eq!(begin, b"some, more, from a pipe, ");
        util::assert_same_bytes(end, &much);
    });
}

#[test]
fn what_was_copied_is_what_was_there_then() {
    everywhere(|| {
        let dir = Scratch::new();
        let mut file = file_of(&dir, "file", &[1; 4096]);
        let (mut reader, mut writer) = io::pipe().unwrap();
        assert_eq!(io::copy(&mut file, &mut writer).unwrap(), 4096);
        file.write_all_at(&[2; 4096], 0).unwrap();
        let mut back = [0; 4096];
        reader.read_exact(&mut back).unwrap();
        assert_eq!(back, [1; 4096]);
    });
}

#[test]
fn nothing_is_copied_of_what_is_at_its_end() {
    everywhere(|| {
        let dir = Scratch::new();
        let (mut near, far) = connection();
        drop(far);
        assert_eq!(io::copy(&mut near, &mut io::sink()).unwrap(), 0);
        let mut empty = file_of(&dir, "empty", b"");
        assert_eq!(io::copy(&mut empty, &mut io::sink()).unwrap(), 0);
    });
}

#[test]
fn an_error_of_either_side_ends_a_copy() {
    everywhere(|| {
        let dir = Scratch::new();
        let mut file = file_of(&dir, "file", &[0; 100_000]);
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        let error = io::copy(&mut file, &mut writer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        let mut directory = File::open(&*dir).unwrap();
        let error = io::copy(&mut directory, &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IsADirectory);
    });
}

/// Where the bytes of a copy come out.
enum Outcome {
    File(PathBuf),
    Peer(Box<dyn Read + Send>),
}

fn all_of(mut reader: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    all
}

/// Copies `bytes`, which `feeder` takes if they are not in the reader yet.
fn assert_copied(
    bytes: &[u8],
    feeder: Option<Box<dyn Write + Send>>,
    mut reader: impl Read + Send,
    (mut writer, outcome): (impl Write + Send, Outcome),
) {
    thread::scope(|s| {
        if let Some(mut feeder) = feeder {
            s.spawn(move || feeder.write_all(bytes).unwrap());
        }
        let copying = s.spawn(move || io::copy(&mut reader, &mut writer).unwrap());
        let copied = match outcome {
            Outcome::Peer(peer) => {
                let copied = all_of(peer);
                assert_eq!(copying.join().unwrap(), bytes.len() as u64);
                copied
            }
            Outcome::File(path) => {
                assert_eq!(copying.join().unwrap(), bytes.len() as u64);
                std::fs::read(path).unwrap()
            }
        };
        util::assert_same_bytes(&copied, bytes);
    });
}

/// Copies to a writer that `make` makes, from a reader of each kind.
fn assert_copied_from_all<W: Write + Send>(dir: &Scratch, make: impl Fn() -> (W, Outcome)) {
    // More than pipes and buffers hold, and more than a worker copies from file to file.
    let bytes = &util::noise(600_001, 5);
    assert_copied(bytes, None, file_of(dir, "from", bytes), make());
    std::fs::remove_file(dir.join("from")).unwrap();
    let (reader, feeder) = io::pipe().unwrap();
    assert_copied(bytes, Some(Box::new(feeder)), reader, make());
    let (reader, feeder) = connection();
    assert_copied(bytes, Some(Box::new(feeder)), reader, make());
    let (reader, feeder) = UnixStream::pair().unwrap();
    assert_copied(bytes, Some(Box::new(feeder)), &reader, make());
    let (reader, feeder) = UnixStream::pair().unwrap();
    let reader = BufReader::new(reader);
    assert_copied(bytes, Some(Box::new(feeder)), reader, make());
}

#[test]
fn every_reader_is_copied_to_a_file() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("to");
        let made = || (File::create(&path).unwrap(), Outcome::File(path.clone()));
        assert_copied_from_all(&dir, made);
        assert_copied_from_all(&dir, || {
            let (file, outcome) = made();
            (BufWriter::new(file), outcome)
        });
    });
}

#[test]
fn every_reader_is_copied_to_a_pipe() {
    everywhere(|| {
        assert_copied_from_all(&Scratch::new(), || {
            let (reader, writer) = io::pipe().unwrap();
            (writer, Outcome::Peer(Box::new(reader)))
        });
    });
}

#[test]
fn every_reader_is_copied_to_a_socket() {
    everywhere(|| {
        let dir = Scratch::new();
        assert_copied_from_all(&dir, || {
            let (near, far) = connection();
            (near, Outcome::Peer(Box::new(far)))
        });
        assert_copied_from_all(&dir, || {
            let (near, far) = UnixStream::pair().unwrap();
            (near, Outcome::Peer(Box::new(far)))
        });
    });
}

/// Passes reads on, but changes what is read.
struct Loud<R>(R);

impl<R: Read> Read for Loud<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buf)?;
        buf[..read].make_ascii_uppercase();
        Ok(read)
    }
}

/// Passes writes on, but changes what is written.
struct Quiet<W: Write>(W);

impl<W: Write> Write for Quiet<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(&buf.to_ascii_lowercase())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn a_wrapper_is_not_taken_for_what_is_inside() {
    everywhere(|| {
        let said = || {
            let (reader, mut writer) = io::pipe().unwrap();
            writer.write_all(b"Mixed").unwrap();
            reader
        };
        let (mut reader, writer) = io::pipe().unwrap();
        let mut heard = [0; 5];
        let mut hear = || {
            reader.read_exact(&mut heard).unwrap();
            String::from_utf8_lossy(&heard).into_owned()
        };
        assert_eq!(io::copy(&mut Loud(said()), &mut &writer).unwrap(), 5);
        assert_eq!(hear(), "MIXED");
        let mut loud = BufReader::new(Loud(said())).take(9);
        assert_eq!(io::copy(&mut loud, &mut &writer).unwrap(), 5);
        assert_eq!(hear(), "MIXED");
        assert_eq!(io::copy(&mut said(), &mut Quiet(&writer)).unwrap(), 5);
        assert_eq!(hear(), "mixed");
        let mut quiet = BufWriter::new(Quiet(&writer));
        assert_eq!(io::copy(&mut said(), &mut quiet).unwrap(), 5);
        quiet.flush().unwrap();
        assert_eq!(hear(), "mixed");
        // By an object, nothing is known but that it reads and writes.
        let (from, to): (&mut dyn Read, &mut dyn Write) = (&mut said(), &mut &writer);
        assert_eq!(io::copy(from, to).unwrap(), 5);
        assert_eq!(hear(), "Mixed");
    });
}

#[test]
fn a_limit_ends_a_copy_where_it_is() {
    everywhere(|| {
        let dir = Scratch::new();
        let bytes = util::noise(200_000, 7);
        // From a file, of which both the part and the rest are copied to another.
        let mut from = file_of(&dir, "from", &bytes);
        let mut to = file_of(&dir, "to", b"");
        let mut part = (&mut from).take(150_000);
        assert_eq!(io::copy(&mut part, &mut to).unwrap(), 150_000);
        assert_eq!(part.limit(), 0);
        assert_eq!(from.stream_position().unwrap(), 150_000);
        assert_eq!(to.stream_position().unwrap(), 150_000);
        let mut more = from.take(60_000);
        assert_eq!(io::copy(&mut more, &mut to).unwrap(), 50_000);
        assert_eq!(more.limit(), 10_000);
        util::assert_same_bytes(&std::fs::read(dir.join("to")).unwrap(), &bytes);

        // From a stream and from a pipe, which do not end.
        let (near, mut far) = connection();
        let (reader, mut feeder) = io::pipe().unwrap();
        far.write_all(b"0123456789").unwrap();
        feeder.write_all(b"0123456789").unwrap();
        let mut to = file_of(&dir, "two", b"");
        let mut stream = BufReader::with_capacity(3, near);
        let mut first = [0];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(io::copy(&mut (&mut stream).take(1), &mut to).unwrap(), 1);
        assert_eq!(io::copy(&mut (&mut stream).take(4), &mut to).unwrap(), 4);
        assert_eq!(io::copy(&mut (&reader).take(0), &mut to).unwrap(), 0);
        assert_eq!(io::copy(&mut (&reader).take(6), &mut to).unwrap(), 6);
        assert_eq!(std::fs::read(dir.join("two")).unwrap(), b"12345012345");
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"6");
    });
}

#[test]
fn what_is_kept_in_a_buffer_is_written_first() {
    everywhere(|| {
        let dir = Scratch::new();
        let (reader, mut feeder) = io::pipe().unwrap();
        feeder.write_all(b"0123456789").unwrap();
        drop(feeder);
        let mut reader = BufReader::with_capacity(4, reader);
        reader.fill_buf().unwrap();
        reader.consume(1);
        let mut writer = BufWriter::new(file_of(&dir, "to", b""));
        writer.write_all(b"begin-").unwrap();
        assert_eq!(io::copy(&mut reader, &mut writer).unwrap(), 9);
        writer.write_all(b"-end").unwrap();
        drop(writer);
        let copied = std::fs::read(dir.join("to")).unwrap();
        assert_eq!(copied, b"begin-123456789-end");
    });
}

#[test]
fn a_timeout_of_a_socket_ends_a_copy_and_loses_nothing() {
    everywhere(|| {
        let (near, mut far) = connection();
        near.set_read_timeout(Some(ms(20))).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        far.write_all(b"some").unwrap();
        let mut limited = (&near).take(10);
        let error = loop {
            match io::copy(&mut limited, &mut &writer).unwrap_err() {
                // The operating system may end a call of an OS thread early.
                error if error.kind() == ErrorKind::Interrupted => {}
                error => break error,
            }
        };
        assert!(util::is_timeout(error.kind()), "{error}");
        assert_eq!(limited.limit(), 6);
        far.write_all(b", more").unwrap();
        assert_eq!(io::copy(&mut limited, &mut &writer).unwrap(), 6);
        let mut all = [0; 10];
        reader.read_exact(&mut all).unwrap();
        assert_eq!(&all, b"some, more");
    });
}

#[test]
fn a_peer_that_is_gone_ends_a_copy() {
    everywhere(|| {
        let dir = Scratch::new();
        let (reader, mut feeder) = io::pipe().unwrap();
        feeder.write_all(b"some").unwrap();
        let (gone, mut writer) = io::pipe().unwrap();
        drop(gone);
        let error = io::copy(&mut &reader, &mut writer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        // A file that is not open for writing takes nothing.
        drop(file_of(&dir, "to", b""));
        let mut to = File::open(dir.join("to")).unwrap();
        feeder.write_all(b"more").unwrap();
        io::copy(&mut &reader, &mut to).unwrap_err();
        let mut from = file_of(&dir, "from", &[7; 600_000]);
        io::copy(&mut from, &mut to).unwrap_err();
    });
}
