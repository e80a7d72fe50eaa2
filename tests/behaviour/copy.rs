//! What `io::copy` promises.

use super::{std, util};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::thread;

use util::{Scratch, everywhere};

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
        let mut from = file_of(&dir, "from", b"more");
        drop(file_of(&dir, "to", b"some, "));
        let mut to = OpenOptions::new()
            .append(true)
            .open(dir.join("to"))
            .unwrap();
        assert_eq!(io::copy(&mut from, &mut to).unwrap(), 4);
        assert_eq!(std::fs::read(dir.join("to")).unwrap(), b"some, more");
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
