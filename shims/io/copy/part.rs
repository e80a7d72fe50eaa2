//! Buffers for the bytes of a copy.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io;
use std::ops::Deref;

/// How many buffers a thread keeps. Coroutines that wait for writers at the same time need more.
const SPARE: usize = 4;

thread_local! {
    static SPARES: [Cell<Option<Box<[u8]>>>; SPARE] = const { [const { Cell::new(None) }; SPARE] };
}

/// Bytes that were read, in a buffer that the thread uses again.
pub(crate) struct Part {
    /// `Some` until the drop.
    buffer: Option<Box<[u8]>>,
    length: usize,
}

impl Part {
    /// The size of the buffer. More than 64 KiB is not faster, since sockets and pipes mostly hold no more.
    pub(crate) const MOST: usize = 64 << 10;

    /// The bytes that `read` puts into a buffer of `most` bytes, and returns the number of.
    pub(crate) fn fill(
        most: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Part> {
        let spare = SPARES.try_with(|spares| spares.iter().find_map(Cell::take));
        let spare = spare.ok().flatten();
        let mut part = Part {
            buffer: Some(spare.unwrap_or_else(|| vec![0; Part::MOST].into())),
            length: 0,
        };
        if let Some(buffer) = &mut part.buffer {
            part.length = read(&mut buffer[..most])?;
        }
        Ok(part)
    }
}

impl Deref for Part {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.buffer {
            Some(buffer) => &buffer[..self.length],
            None => &[],
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Each is taken out while it is looked at, because a `Cell` lends nothing.
        let _ = SPARES.try_with(|spares| {
            for spare in spares {
                self.buffer = spare.replace(self.buffer.take());
                if self.buffer.is_none() {
                    break;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The buffer that an attempt which would block has had.
    fn attempted() -> *const u8 {
        let mut at = std::ptr::null();
        let attempt = Part::fill(1, |buf| {
            at = buf.as_ptr();
            Err(io::ErrorKind::WouldBlock.into())
        });
        assert!(attempt.is_err());
        at
    }

    #[test]
    fn an_attempt_that_would_block_leaves_its_buffer_to_the_next() {
        let at = attempted();
        assert_eq!(at, attempted());
        let kept = Part::fill(3, |buf| {
            buf.copy_from_slice(b"abc");
            Ok(2)
        });
        let kept = kept.unwrap();
        assert_eq!(&*kept, b"ab");
        assert_eq!(at, kept.as_ptr());
        assert_ne!(at, attempted());
    }

    #[test]
    fn a_thread_keeps_a_few_buffers() {
        let parts: Vec<_> = (0..2 * SPARE)
            .map(|_| Part::fill(1, |_| Ok(1)).unwrap())
            .collect();
        drop(parts);
        let spare = SPARES.with(|spares| spares.iter().filter_map(Cell::take).count());
        assert_eq!(spare, SPARE);
    }
}
