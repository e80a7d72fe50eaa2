//! The reader of chunked bodies among the examples, fed with whatever bytes there are: shared by a test and a
//! fuzz target.
//!
//! The first byte says how the rest is cut into pieces, between which reads time out. Whatever the pieces, the
//! outcome is that of the whole. The content of a body that is accepted, encoded again, is the same.

#[path = "../../../examples/util/chunked.rs"]
pub(crate) mod reader;

use std::io::{self, BufReader, ErrorKind, Read};

use reader::Chunked;

/// What a body is: its content, its trailers, and how many bytes it takes; or the kind of error.
type Outcome = Result<(Vec<u8>, Vec<(String, String)>, usize), (Vec<u8>, ErrorKind)>;

fn decode(body: &[u8], piece: usize, buffer: usize) -> Outcome {
    let stream = Pieces {
        left: body,
        piece,
        timed_out: piece == 0,
    };
    let mut stream = BufReader::with_capacity(64, stream);
    let mut chunked = Chunked::new(&mut stream);
    let mut content = Vec::new();
    loop {
        let mut buf = vec![0; buffer];
        match chunked.read(&mut buf) {
            Ok(0) => break,
            Ok(length) => content.extend_from_slice(&buf[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                if error.kind() == ErrorKind::InvalidData {
                    let again = chunked.read(&mut buf).unwrap_err();
                    assert_eq!(again.kind(), error.kind());
                }
                return Err((content, error.kind()));
            }
        }
    }
    assert_eq!(chunked.read(&mut [0]).unwrap(), 0);
    let trailers = chunked.trailers().to_vec();
    let used = body.len() - stream.buffer().len() - stream.get_ref().left.len();
    Ok((content, trailers, used))
}

/// A stream that times out before each piece.
struct Pieces<'a> {
    left: &'a [u8],
    /// The length of a piece. 0 is for all at once, without timeouts.
    piece: usize,
    timed_out: bool,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.piece == 0 {
            return self.left.read(buf);
        }
        self.timed_out = !self.timed_out;
        if self.timed_out {
            return Err(ErrorKind::WouldBlock.into());
        }
        let length = self.piece.min(buf.len());
        self.left.read(&mut buf[..length])
    }
}

/// Panics if there is something wrong with how `data` is read.
pub(crate) fn check(data: &[u8]) {
    let Some((&how, body)) = data.split_first() else {
        return;
    };
    let whole = decode(body, 0, 1 << 16);
    let (piece, buffer) = (1 + usize::from(how >> 4), 1 + usize::from(how & 15));
    assert_eq!(decode(body, piece, buffer), whole);
    if let Ok((content, _, used)) = whole {
        assert!(used <= body.len());
        let mut again = Vec::new();
        for chunk in content.chunks(buffer) {
            again.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            again.extend_from_slice(chunk);
            again.extend_from_slice(b"\r\n");
        }
        again.extend_from_slice(b"0\r\n\r\n");
        let length = again.len();
        assert_eq!(decode(&again, 0, 99), Ok((content, Vec::new(), length)));
    }
}
