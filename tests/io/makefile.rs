//! Files over streams.

#[path = "../fuzz/src/model.rs"]
mod model;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use greenroom::shims;
use model::Script;
use shims::io::makefile::{Encoding, MakeFile, Newline, Record, SocketFile};
use shims::net::{TcpListener, TcpStream};
use shims::os::unix::net::UnixStream;

use crate::util::{self, everywhere};

impl Script {
    fn of(pieces: &[&str]) -> Script {
        Script::of_bytes(pieces.iter().map(|piece| piece.as_bytes().to_vec()))
    }

    fn of_bytes(pieces: impl IntoIterator<Item = Vec<u8>>) -> Script {
        Script {
            pieces: pieces.into_iter().map(Ok).collect(),
            ..Script::default()
        }
    }

    fn then(mut self, piece: &str) -> Script {
        self.pieces.push_back(Ok(piece.into()));
        self
    }

    fn then_fails(mut self, kind: ErrorKind) -> Script {
        self.pieces.push_back(Err(kind.into()));
        self
    }

    fn file(self) -> SocketFile<Script> {
        SocketFile::new(self)
    }
}

fn written(file: &SocketFile<Script>) -> String {
    String::from_utf8(file.get_ref().written.concat()).unwrap()
}

fn complete(bytes: &str) -> Record {
    Record::Complete(bytes.into())
}

fn incomplete(bytes: &str) -> Record {
    Record::Incomplete(bytes.into())
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

// Modes and buffers.

#[test]
fn modes_are_those_of_python() {
    for (mode, readable, writable) in [
        ("rb", true, false),
        ("b", true, false),
        ("wb", false, true),
        ("rwb", true, true),
        ("bwr", true, true),
    ] {
        let options = MakeFile::new().mode(mode).unwrap();
        let file = options.file(Script::default()).unwrap();
        assert_eq!(
            (file.is_readable(), file.is_writable()),
            (readable, writable),
            "{mode}"
        );
        let error = options.text(Script::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    for mode in ["", "r", "w", "rw", "wr"] {
        let options = MakeFile::new().mode(mode).unwrap();
        let file = options.text(Script::default()).unwrap();
        assert_eq!(file.get_ref().is_writable(), mode.contains('w'));
        assert_eq!(file.get_ref().is_readable(), mode != "w");
        let error = options.file(Script::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    for mode in ["a", "r+", "rr", "wbw", "U", "x", "r w", "rbé"] {
        let error = MakeFile::new().mode(mode).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{mode}");
    }
    let raw_text = MakeFile::new().buffer(0).text(Script::default());
    assert_eq!(raw_text.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_file_reads_and_writes_as_its_mode_says() {
    let mut writer = MakeFile::new()
        .read(false)
        .file(Script::of(&["x"]))
        .unwrap();
    assert_eq!(
        writer.read(&mut [0]).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    assert_eq!(
        writer.read_until_seq(b"\n").unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    writer.write_all(b"y").unwrap();
    let mut reader = MakeFile::new()
        .write(false)
        .file(Script::of(&["x"]))
        .unwrap();
    assert_eq!(
        reader.write(b"y").unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    assert_eq!(reader.read(&mut [0]).unwrap(), 1);
    reader.flush().expect("there is nothing to flush");
}

#[test]
fn writes_stay_in_the_buffer_until_it_is_full_or_flushed() {
    let mut file = MakeFile::new().buffer(8).file(Script::default()).unwrap();
    file.write_all(b"abc\n").unwrap();
    assert_eq!(written(&file), "");
    assert_eq!(file.unflushed(), b"abc\n");
    file.write_all(b"defgh").unwrap();
    assert_eq!(written(&file), "abc\n");
    file.flush().unwrap();
    assert_eq!(written(&file), "abc\ndefgh");
}

#[test]
fn without_a_buffer_each_operation_goes_to_the_stream() {
    let mut file = MakeFile::new()
        .buffer(0)
        .file(Script::of(&["abc\nde", "f"]))
        .unwrap();
    file.write_all(b"x").unwrap();
    file.write_all(b"yz").unwrap();
    assert_eq!(file.get_ref().written, [b"x".to_vec(), b"yz".to_vec()]);
    let mut line = String::new();
    file.read_line(&mut line).unwrap();
    assert_eq!(line, "abc\n");
    assert_eq!(file.buffer(), b"", "nothing is read ahead");
    let mut rest = [0; 8];
    assert_eq!(file.get_mut().read(&mut rest).unwrap(), 2);
}

#[test]
fn a_line_buffered_file_flushes_lines() {
    let mut file = MakeFile::new()
        .line_buffered()
        .file(Script::default())
        .unwrap();
    file.write_all(b"half a ").unwrap();
    assert_eq!(written(&file), "");
    file.write_all(b"line\nand").unwrap();
    assert_eq!(written(&file), "half a line\nand");
}

#[test]
fn a_flush_goes_on_after_partial_writes() {
    let script = Script {
        takes: vec![3],
        ..Script::default()
    };
    let mut file = script.file();
    file.write_all(b"0123456789").unwrap();
    file.flush().unwrap();
    assert_eq!(written(&file), "0123456789");
    assert_eq!(file.get_ref().written.len(), 4);
}

#[test]
#[cfg(debug_assertions)]
fn reading_before_flushing_is_reported_once() {
    if util::role().is_some() {
        for _ in 0..2 {
            let mut file = Script::of(&["reply\n"]).file();
            file.write_all(b"request\n").unwrap();
            file.read_until_seq(b"\n").unwrap();
        }
        return;
    }
    let run = |test: &str| {
        let output = util::again!(test, "child").output().unwrap();
        assert!(output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        said.matches("greenroom: a file is read before").count()
    };
    assert_eq!(run("reading_before_flushing_is_reported_once"), 1);
    assert_eq!(run("a_line_buffered_file_flushes_lines"), 0);
}

#[test]
fn reading_does_not_flush() {
    let mut file = Script::of(&["reply\n"]).file();
    file.write_all(b"request\n").unwrap();
    assert_eq!(file.read_until_seq(b"\n").unwrap(), complete("reply\n"));
    assert_eq!(written(&file), "");
}

// Reading.

#[test]
fn a_delimiter_may_span_segments() {
    let mut file = Script::of(&["one\r", "\ntwo\r\r", "\n", "\r\nthree\r", "x\r\ntail\r"]).file();
    assert_eq!(file.read_until_seq(b"\r\n").unwrap(), complete("one\r\n"));
    assert_eq!(file.read_until_seq(b"\r\n").unwrap(), complete("two\r\r\n"));
    assert_eq!(file.read_until_seq(b"\r\n").unwrap(), complete("\r\n"));
    assert_eq!(
        file.read_until_seq(b"\r\n").unwrap(),
        complete("three\rx\r\n")
    );
    assert_eq!(file.read_until_seq(b"\r\n").unwrap(), incomplete("tail\r"));
    assert_eq!(file.read_until_seq(b"\r\n").unwrap(), incomplete(""));
    assert_eq!(
        file.read_until_seq(b"").unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
fn the_kind_of_read_may_change_while_data_is_buffered() {
    let mut file = Script::of(&["5\nhello3\nabc<end>rest"]).file();
    assert_eq!(file.read_until_seq(b"\n").unwrap(), complete("5\n"));
    let mut five = [0; 5];
    file.read_exact(&mut five).unwrap();
    assert_eq!(&five, b"hello");
    assert_eq!(file.read_until_seq(b"\n").unwrap(), complete("3\n"));
    assert_eq!(file.read_until_seq(b"<end>").unwrap(), complete("abc<end>"));
    assert_eq!(file.read_available().unwrap(), b"rest");
    assert_eq!(file.read_available().unwrap(), b"");
}

#[test]
fn a_count_may_span_segments() {
    let mut file = Script::of(&["ab", "c", "defg", "hi"]).file();
    let mut five = [0; 5];
    file.read_exact(&mut five).unwrap();
    assert_eq!(&five, b"abcde");
    let mut ten = [0; 10];
    assert_eq!(file.read_full(&mut ten).unwrap(), 4);
    assert_eq!(&ten[..4], b"fghi");
    assert_eq!(file.read_full(&mut ten).unwrap(), 0);
    file.read_exact(&mut []).unwrap();
}

#[test]
fn a_read_of_a_count_leaves_fewer_bytes_unread() {
    let mut file = Script::of(&["abc"]).file();
    let error = file.read_exact(&mut [0; 5]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(file.read_available().unwrap(), b"abc");
}

#[test]
fn a_read_calls_the_stream_at_most_once() {
    let mut file = Script::of(&["ab", "cd"]).file();
    let mut buf = [0; 10];
    assert_eq!(file.read(&mut buf).unwrap(), 2);
    assert_eq!(file.read(&mut buf[..1]).unwrap(), 1);
    assert_eq!(file.buffer(), b"d");
    assert_eq!(file.read(&mut buf).unwrap(), 1);
    assert_eq!(file.read(&mut buf).unwrap(), 0);
    assert_eq!(file.read(&mut buf).unwrap(), 0);
}

#[test]
fn lines_are_read_with_a_limit_and_in_groups() {
    let mut file = Script::of(&["abcdef\ngh\n", "i\nj\nk"]).file();
    assert_eq!(file.read_line_limit(4).unwrap(), b"abcd");
    assert_eq!(file.read_line_limit(0).unwrap(), b"");
    assert_eq!(file.read_line_limit(3).unwrap(), b"ef\n");
    assert_eq!(
        file.read_lines(4).unwrap(),
        [b"gh\n".to_vec(), b"i\n".to_vec()]
    );
    let mut lines = String::new();
    file.read_line(&mut lines).unwrap();
    assert_eq!(lines, "j\n");
    assert_eq!(file.read_lines(100).unwrap(), [b"k"]);
    assert!(file.read_lines(100).unwrap().is_empty());
}

#[test]
fn an_error_after_some_lines_of_a_group_is_returned_by_the_next_read() {
    type Reading = fn(&mut SocketFile<Script>) -> io::Result<usize>;
    let next: [Reading; 5] = [
        |file| Ok(file.read_lines(100)?.len()),
        |file| file.read_line(&mut String::new()),
        |file| file.read_full(&mut [0; 3]),
        |file| Ok(file.read_line_limit(3)?.len()),
        |file| file.read_to_string(&mut String::new()),
    ];
    for read in next {
        for kind in [ErrorKind::ConnectionReset, ErrorKind::InvalidData] {
            // After the error was returned, the stream is at its end.
            let mut file = Script::of(&["one\ntw"]).then_fails(kind).file();
            assert_eq!(file.read_lines(100).unwrap(), [b"one\n"]);
            assert_eq!(file.buffer(), b"tw");
            assert_eq!(read(&mut file).unwrap_err().kind(), kind);
            assert!(
                file.read_to_string(&mut String::new()).is_ok(),
                "it is told once"
            );
        }
    }
    // The error comes after all data, buffered or not.
    let mut file = Script::of(&["one\ntw"])
        .then_fails(ErrorKind::ConnectionReset)
        .file();
    file.read_lines(100).unwrap();
    assert_eq!(file.read_available().unwrap(), b"tw");
    let error = file.read(&mut vec![0; 100_000]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(file.read(&mut vec![0; 100_000]).unwrap(), 0);

    // A timeout is over by then.
    let mut file = Script::of(&["one\ntw"]).timeout().then("o\n").file();
    assert_eq!(file.read_lines(100).unwrap(), [b"one\n"]);
    assert_eq!(file.read_lines(100).unwrap(), [b"two\n"]);
    // A line that was too long still is.
    let mut file = MakeFile::new()
        .limit(4)
        .file(Script::of(&["one\ntwo and more"]))
        .unwrap();
    assert_eq!(file.read_lines(100).unwrap(), [b"one\n"]);
    for _ in 0..2 {
        let error = file.read_lines(100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
    assert_eq!(file.read_available().unwrap(), b"two and more");
}

#[test]
fn a_file_is_read_in_chunks() {
    let mut file = Script::of(&["abc", "de", "fghi"]).file();
    let chunks: Result<Vec<_>, _> = file.chunks(4).collect();
    assert_eq!(
        chunks.unwrap(),
        [b"abcd".to_vec(), b"efgh".to_vec(), b"i".to_vec()]
    );
}

#[test]
#[cfg(feature = "regex")]
fn a_file_is_read_to_a_match() {
    let mut file = Script::of(&["GET / HTTP/1.1\r\nHost: x\r", "\n\r\nbody"]).file();
    let end_of_head = regex::bytes::Regex::new("\r?\n\r?\n").unwrap();
    let head = file.read_until_regex(&end_of_head).unwrap();
    assert_eq!(head, complete("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert_eq!(
        file.read_until_regex(&end_of_head).unwrap(),
        incomplete("body")
    );
}

#[test]
fn a_limit_bounds_how_far_a_search_looks() {
    let endless = || Script::of_bytes((0..1000).map(|_| vec![b'x'; 1000]));
    let limited = |script: Script| MakeFile::new().limit(5000).file(script).unwrap();
    let mut file = limited(endless());
    let mut bytes = Vec::new();
    for _ in 0..2 {
        let error = file.read_until_seq(b"\n").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(file.buffer().len() < 5000 + (8 << 10));
        let error = file.read_line(&mut String::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert_eq!(
            file.read_to_string(&mut String::new()).unwrap_err().kind(),
            ErrorKind::InvalidData
        );
    }
    assert!(
        file.read_available().unwrap().len() >= 5000,
        "nothing is lost"
    );
    assert_eq!(
        limited(endless())
            .read_to_end(&mut bytes)
            .unwrap_err()
            .kind(),
        ErrorKind::InvalidData
    );
    assert!(bytes.len() <= 5000);
    let mut exact = MakeFile::new()
        .limit(4)
        .file(Script::of(&["abc\nabcd\n"]))
        .unwrap();
    assert_eq!(exact.read_until_seq(b"\n").unwrap(), complete("abc\n"));
    assert!(
        exact.read_until_seq(b"\n").is_err(),
        "its end is beyond the limit"
    );
    assert_eq!(exact.read_line_limit(100).unwrap(), b"abcd\n");
}

#[test]
fn every_read_keeps_what_came_before_a_timeout() {
    let script = || Script::of(&["par"]).timeout().then("tial\nrest");
    let timed_out = |error: io::Error| assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let mut line = String::new();

    let mut file = script().file();
    timed_out(file.read_line(&mut line).unwrap_err());
    file.read_line(&mut line).unwrap();
    assert_eq!(line, "partial\n");

    let mut file = script().file();
    timed_out(file.read_until_seq(b"\n").unwrap_err());
    assert_eq!(file.read_until_seq(b"\n").unwrap(), complete("partial\n"));

    let mut file = script().file();
    timed_out(file.read_exact(&mut [0; 8]).unwrap_err());
    let mut eight = [0; 8];
    file.read_exact(&mut eight).unwrap();
    assert_eq!(&eight, b"partial\n");

    let mut file = script().file();
    let mut text = String::new();
    timed_out(file.read_to_string(&mut text).unwrap_err());
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "partial\nrest");

    let mut file = script().file();
    let mut bytes = Vec::new();
    timed_out(file.read_to_end(&mut bytes).unwrap_err());
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"partial\nrest");

    let mut lines = script().file().lines();
    timed_out(lines.next().unwrap().unwrap_err());
    assert_eq!(lines.next().unwrap().unwrap(), "partial");

    let mut text = MakeFile::new().text(script()).unwrap();
    timed_out(text.read_chars(5).unwrap_err());
    assert_eq!(text.read_chars(5).unwrap(), "parti");
}

#[test]
fn every_read_keeps_what_came_before_it_was_interrupted() {
    util::on_workers(1, || {
        let interrupted = |file: &mut SocketFile<TcpStream>,
                           read: fn(&mut SocketFile<TcpStream>)| {
            greenroom::timeout(util::ms(50), || read(file)).unwrap_err();
        };
        let (near, mut far) = pair();
        let mut file = near.makefile();
        far.write_all(b"one\npar").unwrap();
        interrupted(&mut file, |file| file.read_exact(&mut [0; 20]).unwrap());
        interrupted(&mut file, |file| drop(file.read_full(&mut [0; 20])));
        interrupted(&mut file, |file| drop(file.chunks(20).next()));
        interrupted(&mut file, |file| drop(file.read_lines(100)));
        interrupted(&mut file, |file| {
            drop(file.read_to_string(&mut String::new()))
        });
        far.write_all(b"tial\n").unwrap();
        let lines = file.read_lines(8).unwrap();
        assert_eq!(lines, [b"one\n".to_vec(), b"partial\n".to_vec()]);
    });
}

#[test]
fn what_an_interrupted_flush_has_not_written_is_written_later() {
    let ends: [fn(SocketFile<UnixStream>); 2] = [
        |mut file| {
            file.flush().unwrap();
            assert!(file.unflushed().is_empty());
        },
        |file| {
            let (mut stream, _, unflushed) = file.into_parts();
            stream.write_all(&unflushed).unwrap();
        },
    ];
    for end in ends {
        util::on_workers(1, || {
            let (near, mut far) = UnixStream::pair().unwrap();
            // More than the sockets hold by default.
            let bytes = util::noise(16 << 20, 1);
            let options = MakeFile::new().buffer(bytes.len() + 1);
            let mut file = near.makefile_with(&options).unwrap();
            drop(near);
            file.write_all(&bytes).unwrap();
            greenroom::timeout(util::ms(5), || file.flush()).unwrap_err();
            let reader = greenroom::spawn(move || {
                let mut got = Vec::new();
                far.read_to_end(&mut got).map(|_| got)
            });
            end(file);
            util::assert_same_bytes(&reader.join().unwrap().unwrap(), &bytes);
        });
    }
}

#[test]
fn bytes_that_are_no_text_stay_for_the_next_read() {
    let mut file = Script::of_bytes([b"ab\xff".to_vec()]).file();
    let mut text = String::new();
    let error = file.read_to_string(&mut text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!((&text[..], file.buffer()), ("", &b"ab\xff"[..]));
}

#[test]
fn a_file_may_be_set_to_refuse_reads_after_a_timeout() {
    let script = Script::of(&["par"]).timeout().then("tial\n");
    let mut file = MakeFile::new().refuse_after_timeout().file(script).unwrap();
    let mut line = String::new();
    assert_eq!(
        file.read_line(&mut line).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    for _ in 0..2 {
        let error = file.read_line(&mut line).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read from a file that has timed out"
        );
    }
    file.write_all(b"x").expect("it can still be written to");
}

#[test]
fn interruptions_by_signals_are_retried() {
    let mut script = Script::of(&["a"]);
    script.pieces.push_back(Err(ErrorKind::Interrupted.into()));
    let mut file = script.then("b\n").file();
    assert_eq!(file.read_until_seq(b"\n").unwrap(), complete("ab\n"));
}

#[test]
fn a_delimiter_may_be_the_last_thing_in_the_stream() {
    let mut file = Script::of(&["abc\r", "\n"]).file();
    assert_eq!(file.read_until_seq(b"\r\n").unwrap(), complete("abc\r\n"));
    for _ in 0..2 {
        assert_eq!(file.read_until_seq(b"\r\n").unwrap(), incomplete(""));
        assert_eq!(file.read_line(&mut String::new()).unwrap(), 0);
        assert_eq!(file.read_available().unwrap(), b"");
    }
    assert_eq!(file.read(&mut []).unwrap(), 0);
}

#[test]
fn reads_of_lines_and_single_reads_mix() {
    let mut file = Script::of(&["one\ntwo\nthr", "ee\nfour\nfi"]).file();
    let first = (&mut file).lines().next().unwrap().unwrap();
    let mut two = [0; 4];
    file.read_exact(&mut two).unwrap();
    let mut third = String::new();
    file.read_line(&mut third).unwrap();
    let rest: Vec<_> = file.split(b'\n').map(Result::unwrap).collect();
    assert_eq!((&first[..], &two, &third[..]), ("one", b"two\n", "three\n"));
    assert_eq!(rest, [&b"four"[..], b"fi"]);
}

#[test]
fn a_limit_bounds_every_open_ended_read() {
    let options = MakeFile::new().limit(100).buffer(16);
    let endless = || Script::of_bytes((0..10_000).map(|_| vec![b'x'; 10]));
    let file = || options.file(endless()).unwrap();
    let text = || options.text(endless()).unwrap();
    let too_long = |error: io::Error| assert_eq!(error.kind(), ErrorKind::InvalidData);
    too_long(file().read_until_seq(b"--").unwrap_err());
    too_long(file().read_until(b'-', &mut Vec::new()).unwrap_err());
    too_long(file().read_line(&mut String::new()).unwrap_err());
    too_long(file().read_to_string(&mut String::new()).unwrap_err());
    too_long(file().read_to_string(&mut String::new()).unwrap_err());
    too_long(file().read_lines(1).unwrap_err());
    too_long(file().lines().next().unwrap().unwrap_err());
    too_long(file().split(b'-').next().unwrap().unwrap_err());
    too_long(text().read_line(&mut String::new()).unwrap_err());
    too_long(text().read_to_string(&mut String::new()).unwrap_err());
    too_long(text().read_chars(101).unwrap_err());
    too_long(text().lines().next().unwrap().unwrap_err());
    #[cfg(feature = "regex")]
    too_long(
        file()
            .read_until_regex(&regex::bytes::Regex::new("-").unwrap())
            .unwrap_err(),
    );
    // A read with an end of its own has no limit.
    assert_eq!(file().read_full(&mut [0; 200]).unwrap(), 200);
    assert_eq!(file().read_line_limit(200).unwrap().len(), 200);
    assert_eq!(file().chunks(200).next().unwrap().unwrap().len(), 200);
    let mut reading = file();
    for _ in 0..100 {
        too_long(reading.read_line(&mut String::new()).unwrap_err());
    }
    assert!(reading.buffer().len() <= 100 + 16, "it reads no further");
}

#[test]
fn data_that_ends_at_the_limit_is_within_it() {
    let options = MakeFile::new().limit(5);
    for (content, within) in [("hell", true), ("hello", true), ("hello!", false)] {
        let file = || options.file(Script::of(&[content])).unwrap();
        let text = || options.text(Script::of(&[content])).unwrap();
        let mut string = String::new();
        let read = [
            file().read_to_string(&mut String::new()),
            file().read_to_string(&mut string),
            file().read_until(b'-', &mut Vec::new()),
            file().read_line(&mut String::new()),
            text().read_to_string(&mut String::new()),
            text().read_line(&mut String::new()),
            text().read_chars(7).map(|text| text.len()),
        ];
        for read in read {
            match within {
                true => assert_eq!(read.unwrap(), content.len()),
                false => assert_eq!(read.unwrap_err().kind(), ErrorKind::InvalidData),
            }
        }
        let record = file().read_until_seq(b"--");
        assert_eq!(record.ok(), within.then(|| incomplete(content)));
        let lines = file().read_lines(100);
        assert_eq!(lines.ok(), within.then(|| vec![content.into()]));
    }
    // Whether a newline ends within the limit may depend on the byte after it.
    let untranslated = options.clone().newline(Newline::Untranslated);
    let mut file = untranslated.text(Script::of(&["hell\r", "o"])).unwrap();
    let mut line = String::new();
    assert_eq!(file.read_line(&mut line).unwrap(), 5);
    assert_eq!(line, "hell\r");
}

#[test]
fn a_failed_flush_of_a_line_does_not_take_the_data_twice() {
    let script = Script {
        takes: vec![0, 1],
        ..Script::default()
    };
    let mut file = MakeFile::new().line_buffered().file(script).unwrap();
    assert_eq!(file.write(b"ab\n").unwrap(), 3);
    while let Err(error) = file.flush() {
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "the error is not lost");
    }
    assert_eq!(written(&file), "ab\n");
}

#[test]
fn unflushed_data_that_is_taken_out_is_not_sent() {
    let mut file = Script::of(&["unread"]).file();
    file.write_all(b"discarded").unwrap();
    file.fill_buf().unwrap();
    let (script, unread, unflushed) = file.into_parts();
    assert_eq!(
        (&unread[..], &unflushed[..]),
        (&b"unread"[..], &b"discarded"[..])
    );
    assert!(script.written.is_empty());
}

// Text.

fn text(pieces: &[&[u8]], newline: Newline, encoding: Encoding) -> Vec<String> {
    let script = Script::of_bytes(pieces.iter().map(|piece| piece.to_vec()));
    let options = MakeFile::new().newline(newline).encoding(encoding);
    let mut file = options.text(script).unwrap();
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if file.read_line(&mut line).unwrap() == 0 {
            return lines;
        }
        lines.push(line);
    }
}

#[test]
fn newlines_end_lines_as_in_python() {
    let pieces: &[&[u8]] = &[b"a\nb\rc\r\nd\r", b"\ne\n\rf\r\r", b"\ng"];
    let lines = |newline| text(pieces, newline, Encoding::Utf8);
    assert_eq!(
        lines(Newline::Universal),
        ["a\n", "b\n", "c\n", "d\n", "e\n", "\n", "f\n", "\n", "g"]
    );
    assert_eq!(
        lines(Newline::Untranslated),
        [
            "a\n", "b\r", "c\r\n", "d\r\n", "e\n", "\r", "f\r", "\r\n", "g"
        ]
    );
    assert_eq!(
        lines(Newline::Lf),
        ["a\n", "b\rc\r\n", "d\r\n", "e\n", "\rf\r\r\n", "g"]
    );
    assert_eq!(
        lines(Newline::Cr),
        ["a\nb\r", "c\r", "\nd\r", "\ne\n\r", "f\r", "\r", "\ng"]
    );
    assert_eq!(
        lines(Newline::CrLf),
        ["a\nb\rc\r\n", "d\r\n", "e\n\rf\r\r\n", "g"]
    );
}

#[test]
fn a_lone_carriage_return_ends_a_line_at_once() {
    // There is no more data: a look for a line feed would time out.
    let script = Script::of(&["a\r"]).timeout().then("\nb\n");
    let mut file = MakeFile::new().text(script).unwrap();
    let mut line = String::new();
    file.read_line(&mut line).unwrap();
    assert_eq!(line, "a\n");
    line.clear();
    assert!(file.read_line(&mut line).is_err());
    file.read_line(&mut line).unwrap();
    assert_eq!(line, "b\n", "the line feed belonged to the line before");
}

#[test]
fn written_newlines_are_translated() {
    for (newline, wanted) in [
        (Newline::Universal, "a\nb\n"),
        (Newline::Untranslated, "a\nb\n"),
        (Newline::Lf, "a\nb\n"),
        (Newline::Cr, "a\rb\r"),
        (Newline::CrLf, "a\r\nb\r\n"),
    ] {
        let mut file = MakeFile::new()
            .newline(newline)
            .text(Script::default())
            .unwrap();
        let letter = 'b';
        write!(file, "a\n{letter}\n").unwrap();
        file.flush().unwrap();
        assert_eq!(written(file.get_ref()), wanted);
    }
}

#[test]
fn a_character_may_span_segments() {
    let pieces: &[&[u8]] = &[b"gr\xc3", b"\xbcn \xf0\x9f", b"\x98", b"\x80\n"];
    assert_eq!(text(pieces, Newline::Lf, Encoding::Utf8), ["grün 😀\n"]);
    let script = Script::of_bytes(pieces.iter().map(|piece| piece.to_vec()));
    let mut file = MakeFile::new().text(script).unwrap();
    assert_eq!(file.read_chars(3).unwrap(), "grü");
    assert_eq!(file.read_chars(3).unwrap(), "n 😀");
    assert_eq!(file.read_chars(3).unwrap(), "\n");
    assert_eq!(file.read_chars(3).unwrap(), "");
}

#[test]
fn an_incomplete_character_is_an_error_only_at_the_end() {
    let cut = || Script::of_bytes([b"\xc3".to_vec(), b"\xbc\xe2".to_vec(), b"\x82".to_vec()]);
    let mut lossy = MakeFile::new()
        .encoding(Encoding::Utf8Lossy)
        .text(cut())
        .unwrap();
    assert_eq!(lossy.read_chars(1).unwrap(), "ü");
    assert_eq!(lossy.read_chars(1).unwrap(), "\u{fffd}");
    assert_eq!(lossy.read_chars(1).unwrap(), "");
    let mut strict = MakeFile::new().text(cut()).unwrap();
    assert_eq!(strict.read_chars(1).unwrap(), "ü");
    assert_eq!(
        strict.read_chars(1).unwrap_err().kind(),
        ErrorKind::InvalidData
    );
}

#[test]
fn characters_are_counted_after_translation() {
    let script = Script::of(&["a\r", "\nb\rc", "\r\n"]);
    let mut file = MakeFile::new().text(script).unwrap();
    assert_eq!(file.read_chars(2).unwrap(), "a\n");
    assert_eq!(file.read_chars(3).unwrap(), "b\nc");
    let mut rest = String::new();
    file.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "\n");
}

#[test]
fn encodings_decode_and_encode() {
    let pieces: &[&[u8]] = &[b"\xe9\xff\n"];
    assert_eq!(text(pieces, Newline::Lf, Encoding::Latin1), ["éÿ\n"]);
    assert_eq!(
        text(pieces, Newline::Lf, Encoding::Utf8Lossy),
        ["\u{fffd}\u{fffd}\n"]
    );
    let mut strict = MakeFile::new()
        .text(Script::of_bytes([pieces[0].to_vec()]))
        .unwrap();
    assert_eq!(
        strict.read_line(&mut String::new()).unwrap_err().kind(),
        ErrorKind::InvalidData
    );
    let latin1 = MakeFile::new().encoding(Encoding::Latin1);
    let mut file = latin1.text(Script::default()).unwrap();
    file.write_str("é").unwrap();
    assert_eq!(
        file.write_str("a€").unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    file.flush().unwrap();
    assert_eq!(file.get_ref().get_ref().written.concat(), b"\xe9");
}

#[test]
fn lines_of_text_come_without_their_newlines() {
    let lines = |newline| -> Vec<String> {
        let script = Script::of(&["a\r\nb\nc\r", "d"]);
        let file = MakeFile::new().newline(newline).text(script).unwrap();
        file.lines().map(Result::unwrap).collect()
    };
    assert_eq!(lines(Newline::Universal), ["a", "b", "c", "d"]);
    assert_eq!(lines(Newline::Untranslated), ["a", "b", "c", "d"]);
    assert_eq!(lines(Newline::CrLf), ["a", "b\nc\rd"]);
}

// Over sockets.

#[test]
fn the_connection_lives_until_the_stream_and_its_files_are_gone() {
    everywhere(|| {
        let (near, mut far) = pair();
        let (mut writing, mut reading) = (near.makefile(), near.makefile());
        drop(near);
        writing.write_all(b"after the stream has gone").unwrap();
        writing.close().unwrap();
        far.write_all(b"still read").unwrap();
        let mut ten = [0; 10];
        reading.read_exact(&mut ten).unwrap();
        assert_eq!(&ten, b"still read");
        far.set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        let mut bytes = Vec::new();
        assert!(far.read_to_end(&mut bytes).is_err(), "no end yet");
        far.set_read_timeout(None).unwrap();
        drop(reading);
        far.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"after the stream has gone");
    });
}

#[test]
fn dropping_a_file_flushes_it() {
    everywhere(|| {
        let (near, mut far) = pair();
        near.makefile().write_all(b"unflushed").unwrap();
        drop(near);
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        assert_eq!(text, "unflushed");
    });
}

#[test]
fn what_a_file_has_read_ahead_is_not_in_the_stream() {
    everywhere(|| {
        let (mut near, far) = pair();
        near.write_all(b"one\ntwo\n").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let mut file = far.makefile();
        let mut line = String::new();
        file.read_line(&mut line).unwrap();
        while file.buffer() != b"two\n" {
            // The two lines need not arrive together.
            assert_eq!(file.buffer(), b"");
            file.fill_buf().unwrap();
        }
        assert_eq!((&far).read(&mut [0; 10]).unwrap(), 0);
        let (_stream, unread, unflushed) = file.into_parts();
        assert_eq!((&unread[..], &unflushed[..]), (&b"two\n"[..], &b""[..]));
    });
}

#[test]
fn files_do_not_see_what_another_has_read_ahead() {
    everywhere(|| {
        let (mut near, far) = pair();
        near.write_all(b"one\ntwo\n").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let (mut first, mut second) = (far.makefile(), far.makefile());
        assert_eq!(first.read_until_seq(b"\n").unwrap(), complete("one\n"));
        while first.buffer() != b"two\n" {
            // The two lines need not arrive together.
            assert_eq!(first.buffer(), b"");
            first.fill_buf().unwrap();
        }
        assert_eq!(second.read_until_seq(b"\n").unwrap(), incomplete(""));
        assert_eq!(first.read_until_seq(b"\n").unwrap(), complete("two\n"));
    });
}

#[test]
fn lines_are_answered_by_lines() {
    everywhere(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = shims::thread::spawn(move || {
            let stream = listener.accept().unwrap().0;
            let mut answers = stream.makefile();
            let mut asked = Vec::new();
            for line in stream.makefile().lines() {
                let line = line.unwrap();
                // Like a server that does not send the newline back.
                answers.write_all(line.as_bytes()).unwrap();
                answers.flush().unwrap();
                asked.push(line);
            }
            asked
        });
        let mut client = TcpStream::connect(addr).unwrap();
        for message in ["hello", "how are you", "bye"] {
            client.write_all(format!("{message}\n").as_bytes()).unwrap();
            let mut answer = vec![0; message.len()];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, message.as_bytes());
        }
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "and nothing else");
        assert_eq!(server.join().unwrap(), ["hello", "how are you", "bye"]);
    });
}

/// Yields pseudo-random bytes, any number of them.
struct Producer {
    made: u64,
    left: u64,
    /// The most resident memory of the process meanwhile, in pages.
    resident: u64,
}

impl Producer {
    fn byte(at: u64) -> u8 {
        (at * 31 + (at >> 12)) as u8
    }
}

impl Read for Producer {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let amount = self.left.min(buf.len() as u64);
        for (at, byte) in (self.made..self.made + amount).zip(&mut *buf) {
            *byte = Producer::byte(at);
        }
        if self.made >> 20 != (self.made + amount) >> 20 {
            self.resident = self.resident.max(resident());
        }
        (self.made, self.left) = (self.made + amount, self.left - amount);
        Ok(amount as usize)
    }
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_large_producer_is_sent_whole_in_little_memory() {
    const NAME: &str = "a_large_producer_is_sent_whole_in_little_memory";
    const MUCH: u64 = 48 << 20;
    if util::role().is_none() {
        // In a process of its own: other tests take memory.
        let output = util::again!(NAME, "child").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("1 passed"), "{output:?}");
        return;
    }
    util::on_workers(1, || {
        let (near, far) = pair();
        let receiver = shims::thread::spawn(move || {
            let mut at = 0;
            for chunk in far.makefile().chunks(64 << 10) {
                for byte in chunk.unwrap() {
                    assert!(byte == Producer::byte(at), "byte {at} differs");
                    at += 1;
                }
            }
            at
        });
        let before = resident();
        let mut producer = Producer {
            made: 0,
            left: MUCH,
            resident: before,
        };
        let mut file = near.makefile();
        assert_eq!(io::copy(&mut producer, &mut file).unwrap(), MUCH);
        // Other libraries call this `close_when_done`.
        file.flush().unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(receiver.join().unwrap(), MUCH);
        let grown = (producer.resident - before) * 4096;
        assert!(grown < MUCH / 2, "{} KiB more", grown >> 10);
    });
}

#[test]
fn dropping_the_other_handles_does_not_wake_a_read_of_a_file() {
    util::on_workers(1, || {
        let (near, far) = pair();
        let (mut file, other) = (near.makefile(), near.makefile());
        let reading = greenroom::spawn(move || file.read_until_seq(b"\n").unwrap());
        greenroom::yield_now();
        drop((near, other));
        shims::thread::sleep(Duration::from_millis(2));
        assert!(!reading.is_finished());
        (&far).write_all(b"still here\n").unwrap();
        assert_eq!(reading.join().unwrap(), complete("still here\n"));
    });
}

#[test]
fn a_shutdown_of_a_clone_ends_waits_in_both_directions() {
    util::on_workers(1, || {
        let (near, _far) = pair();
        let (mut reading, mut writing) = (near.makefile(), near.makefile());
        let reader = greenroom::spawn(move || reading.read_until_seq(b"\n").unwrap());
        let writer = greenroom::spawn(move || {
            io::copy(&mut io::repeat(0), &mut writing)
                .unwrap_err()
                .kind()
        });
        shims::thread::sleep(Duration::from_millis(2));
        assert!(!reader.is_finished() && !writer.is_finished());
        near.try_clone().unwrap().shutdown(Shutdown::Both).unwrap();
        assert_eq!(reader.join().unwrap(), incomplete(""));
        assert_eq!(writer.join().unwrap(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_shutdown_through_another_handle_ends_a_read_of_a_file() {
    util::on_workers(1, || {
        let (near, _far) = pair();
        let mut file = near.makefile();
        let reading = greenroom::spawn(move || file.read_until_seq(b"\n").unwrap());
        greenroom::yield_now();
        assert!(!reading.is_finished());
        near.shutdown(Shutdown::Read).unwrap();
        assert_eq!(reading.join().unwrap(), incomplete(""));
    });
}

#[test]
fn the_timeout_of_the_stream_holds_for_each_read() {
    everywhere(|| {
        let (mut near, far) = pair();
        far.set_read_timeout(Some(Duration::from_millis(5)))
            .unwrap();
        let mut file = far.makefile();
        near.write_all(b"par").unwrap();
        let mut line = String::new();
        assert_eq!(
            file.read_line(&mut line).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        near.write_all(b"tial\n").unwrap();
        while let Err(error) = file.read_line(&mut line) {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
        }
        assert_eq!(line, "partial\n");
    });
}

#[test]
fn in_non_blocking_mode_a_read_returns_would_block() {
    everywhere(|| {
        let (mut near, far) = pair();
        far.set_nonblocking(true).unwrap();
        let mut file = far.makefile();
        assert_eq!(
            file.read_until_seq(b"\n").unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        near.write_all(b"line\n").unwrap();
        let line = loop {
            match file.read_until_seq(b"\n") {
                Err(error) if error.kind() == ErrorKind::WouldBlock => greenroom::yield_now(),
                done => break done.unwrap(),
            }
        };
        assert_eq!(line, complete("line\n"));
    });
}

#[test]
fn a_file_has_the_descriptor_of_its_stream() {
    use std::os::fd::{AsFd, AsRawFd};
    let (near, _far) = pair();
    let file = near.makefile();
    assert_eq!(file.as_raw_fd(), near.as_raw_fd());
    assert_eq!(file.as_fd().as_raw_fd(), near.as_raw_fd());
}

#[test]
fn random_reads_and_writes_agree_with_a_model() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        Some((seed >> 33) as usize % below)
    };
    for _ in 0..4000 {
        model::compare(&mut random);
    }
}
