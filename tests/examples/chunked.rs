//! The reader of bodies in chunks.

#[path = "../fuzz/src/chunked_model.rs"]
mod model;

use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::time::Instant;

use greenroom::Builder;
use greenroom::shims::os::unix::net::UnixStream;
use greenroom::shims::thread;

use crate::util::{ms, noise, on_workers};
use model::reader::Chunked;

fn decode(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut decoded = Vec::new();
    Chunked::new(body).read_to_end(&mut decoded)?;
    Ok(decoded)
}

fn encode(content: &[u8], chunk: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for chunk in content.chunks(chunk) {
        write!(body, "{:X}\r\n", chunk.len()).unwrap();
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n\r\n");
    body
}

#[test]
fn chunks_of_all_sizes_give_the_content() {
    let content = noise(100_000, 7);
    for chunk in [1, 2, 15, 16, 17, 4095, 100_000] {
        assert_eq!(decode(&encode(&content, chunk)).unwrap(), content);
    }
    assert_eq!(decode(b"0\r\n\r\n").unwrap(), b"");
}

#[test]
fn extensions_are_skipped_and_trailers_are_kept() {
    let body: &[u8] =
        b"000005 ;a;b=\"c d\"\r\nhello\r\n0;last\r\nETag: \"1\"\r\nX-Empty:\r\n\r\nGET / HTTP/1.1\r\n";
    let mut rest = body;
    let mut chunked = Chunked::new(&mut rest);
    let mut text = String::new();
    chunked.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    let trailers = [("ETag", "\"1\""), ("X-Empty", "")];
    let trailers = trailers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(chunked.trailers(), trailers);
    assert_eq!(rest, b"GET / HTTP/1.1\r\n", "the next request is untouched");
}

#[test]
fn malformed_bodies_are_invalid_data_and_stay_so() {
    let long_line = [b"1;", &[b'x'; 5000][..], b"\r\na\r\n0\r\n\r\n"].concat();
    let long_trailers = [b"0\r\n", &b"A: b\r\n".repeat(5000)[..], b"\r\n"].concat();
    let many_trailers = [b"0\r\n", &b"A: b\r\n".repeat(40)[..], b"\r\n"].concat();
    let bodies: &[&[u8]] = &[
        b"\r\n\r\n",
        b";a\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5;a\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhelloo\r\n0\r\n\r\n",
        b"5\r\nhell\r\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"10000000000000000\r\nhello\r\n0\r\n\r\n",
        b"FFFFFFFFFFFFFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        b"0\r\nnot a field\r\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\n A: b\r\n\r\n",
        b"0\r\nA: b\n\r\n",
        &long_line,
        &long_trailers,
        &many_trailers,
    ];
    for body in bodies {
        let mut chunked = Chunked::new(*body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]);
        for _ in 0..3 {
            let error = io::copy(&mut chunked, &mut io::sink()).expect_err(&shown);
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{shown:?}");
        }
    }
}

#[test]
fn a_chunk_of_the_largest_size_is_read_as_far_as_it_comes() {
    let mut chunked = Chunked::new(&b"FFFFFFFFFFFFFFFF\r\nhello"[..]);
    let mut text = [0; 5];
    chunked.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
    let error = chunked.read(&mut text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn a_body_that_is_cut_off_anywhere_is_no_complete_body() {
    let body = b"3;x\r\nabc\r\n2\r\nde\r\n0\r\nA: b\r\n\r\n";
    for length in 0..body.len() {
        let error = decode(&body[..length]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{length}");
    }
    assert_eq!(decode(body).unwrap(), b"abcde");
}

#[test]
fn damaged_bodies_in_any_pieces_are_read_as_the_whole_is() {
    let whole = b"3;x\r\nabc\r\n0000A\r\n0123456789\r\n0\r\nA: b\r\n\r\nGET /";
    for how in 0..=255 {
        model::check(&[&[how], &whole[..]].concat());
    }
    let likely = b"0123456789abcdefABCDEF\r\n;: x";
    for round in 1..2000 {
        let mut body = [&[0], &whole[..]].concat();
        let choices = noise(20, round);
        body[0] = choices[0];
        for change in choices[1..].chunks(3).take(1 + usize::from(choices[0]) % 4) {
            let at = 1 + usize::from(change[0]) % (body.len() - 1);
            let byte = likely[usize::from(change[1]) % likely.len()];
            match change[2] % 3 {
                0 => body[at] = byte,
                1 => body.insert(at, byte),
                _ => drop(body.remove(at)),
            }
        }
        model::check(&body);
    }
}

/// Notes where on the stack it is called.
struct Watched<R> {
    reader: R,
    lowest: usize,
    highest: usize,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let here = (&raw const buf).addr();
        self.lowest = self.lowest.min(here);
        self.highest = self.highest.max(here);
        self.reader.read(buf)
    }
}

/// The source's read loop went four frames deeper with each chunk.
#[test]
fn a_million_chunks_of_one_byte_do_not_move_the_stack() {
    const CHUNKS: usize = 1_000_000;
    on_workers(1, || {
        let (near, mut far) = UnixStream::pair().unwrap();
        let body = encode(&vec![b'x'; CHUNKS], 1);
        let writer = thread::spawn(move || far.write_all(&body));
        let reader = Builder::new().stack_size(64 << 10).spawn(move || {
            let (lowest, highest) = (usize::MAX, 0);
            let stream = Watched {
                reader: near,
                lowest,
                highest,
            };
            let mut stream = BufReader::with_capacity(64 << 10, stream);
            let length = io::copy(&mut Chunked::new(&mut stream), &mut io::sink()).unwrap();
            let stream = stream.into_inner();
            (length, stream.highest - stream.lowest)
        });
        let start = Instant::now();
        let (length, spread) = reader.unwrap().join().unwrap();
        eprintln!("{CHUNKS} chunks in {:?}", start.elapsed());
        writer.join().unwrap().unwrap();
        assert_eq!(length, CHUNKS as u64);
        assert!(spread <= 4096, "the stack moved by {spread} bytes");
    });
}

#[test]
fn other_coroutines_run_while_chunks_are_there_without_end() {
    on_workers(1, || {
        let (near, mut far) = UnixStream::pair().unwrap();
        let piece = [b"1000\r\n", &[b'x'; 4096][..], b"\r\n"].concat();
        let writer = thread::spawn(move || while far.write_all(&piece).is_ok() {});
        let reader = thread::spawn(move || {
            let body = Chunked::new(BufReader::new(near));
            io::copy(&mut body.take(100 << 20), &mut io::sink())
        });
        let mut ticks = 0;
        while !reader.is_finished() {
            thread::sleep(ms(1));
            ticks += 1;
        }
        assert_eq!(reader.join().unwrap().unwrap(), 100 << 20);
        writer.join().unwrap();
        assert!(ticks > 10, "{ticks}");
    });
}
