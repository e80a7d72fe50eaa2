//! Which readers and writers lead to a descriptor, told by their types.
//!
//! std has specialisation for this, which is not stable. A type that is not `'static` has no [`TypeId`] that safe
//! code can get, but the crate typeid gets that of the same type with all lifetimes `'static`. So if the numbers of
//! two types are equal, the types are the same except for lifetimes. Therefore a type that is not in the list, like
//! a user's wrapper that passes `read` on to a stream inside, is never taken for the stream.

use std::any::TypeId;
use std::io::{self, BufReader, BufWriter, Read, Take, Write};

use super::{End, Sink, Source};
use crate::shims::fs::File;
use crate::shims::io::{PipeReader, PipeWriter};
use crate::shims::net::TcpStream;
use crate::shims::os::unix::net::UnixStream;
use crate::shims::process::{ChildStderr, ChildStdin, ChildStdout};

/// A reader that leads to a [`Source`], and what it adds to that.
///
/// Nothing is put into a reader through this: [`find_reader`] relies on that.
pub(super) trait Reading {
    fn source(&self) -> &dyn Source;

    fn end(&self) -> End<'_> {
        self.source().end()
    }

    /// What was read from the source already, and is to be copied.
    fn ahead(&self) -> &[u8] {
        &[]
    }

    /// Removes so many bytes of those [`ahead`](Reading::ahead).
    fn consume(&mut self, bytes: usize) {
        debug_assert_eq!(bytes, 0);
    }

    /// How many bytes may be read from the source.
    fn limit(&self) -> u64 {
        u64::MAX
    }

    /// Notes that so many bytes were read from the source.
    fn took(&mut self, _: u64) {}
}

macro_rules! sources {
    ($($source:ty),*) => {$(
        impl Reading for $source {
            fn source(&self) -> &dyn Source {
                self
            }
        }
    )*};
}

sources!(
    TcpStream,
    UnixStream,
    File,
    PipeReader,
    ChildStdout,
    ChildStderr
);

impl<T: Source> Reading for &T {
    fn source(&self) -> &dyn Source {
        self
    }
}

impl<T: Reading> Reading for &mut T {
    fn source(&self) -> &dyn Source {
        (**self).source()
    }

    fn ahead(&self) -> &[u8] {
        (**self).ahead()
    }

    fn consume(&mut self, bytes: usize) {
        (**self).consume(bytes);
    }

    fn limit(&self) -> u64 {
        (**self).limit()
    }

    fn took(&mut self, bytes: u64) {
        (**self).took(bytes);
    }
}

impl<T: Reading> Reading for Take<T> {
    fn source(&self) -> &dyn Source {
        self.get_ref().source()
    }

    fn ahead(&self) -> &[u8] {
        let ahead = self.get_ref().ahead();
        let limit = usize::try_from(Take::limit(self)).unwrap_or(usize::MAX);
        &ahead[..ahead.len().min(limit)]
    }

    fn consume(&mut self, bytes: usize) {
        self.set_limit(Take::limit(self) - bytes as u64);
        self.get_mut().consume(bytes);
    }

    fn limit(&self) -> u64 {
        Take::limit(self).min(self.get_ref().limit())
    }

    fn took(&mut self, bytes: u64) {
        self.set_limit(Take::limit(self) - bytes);
        self.get_mut().took(bytes);
    }
}

impl<T: Reading + Read> Reading for BufReader<T> {
    fn source(&self) -> &dyn Source {
        self.get_ref().source()
    }

    fn ahead(&self) -> &[u8] {
        self.buffer()
    }

    fn consume(&mut self, bytes: usize) {
        io::BufRead::consume(self, bytes);
    }

    fn limit(&self) -> u64 {
        self.get_ref().limit()
    }

    fn took(&mut self, bytes: u64) {
        self.get_mut().took(bytes);
    }
}

/// A writer that leads to a [`Sink`].
///
/// Nothing but bytes is put into a writer through this: [`find_writer`] relies on that.
pub(super) trait Writing {
    fn end(&self) -> End<'_>;

    /// Writes what the writer has kept so far.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

macro_rules! sinks {
    ($($sink:ty),*) => {$(
        impl Writing for $sink {
            fn end(&self) -> End<'_> {
                Sink::end(self)
            }
        }

        impl Writing for &$sink {
            fn end(&self) -> End<'_> {
                Sink::end(*self)
            }
        }
    )*};
}

sinks!(File, PipeWriter, ChildStdin);

impl<T: Writing> Writing for &mut T {
    fn end(&self) -> End<'_> {
        (**self).end()
    }

    fn flush(&mut self) -> io::Result<()> {
        (**self).flush()
    }
}

impl<T: Writing + Write> Writing for BufWriter<T> {
    fn end(&self) -> End<'_> {
        self.get_ref().end()
    }

    fn flush(&mut self) -> io::Result<()> {
        Write::flush(self)
    }
}

/// Returns `$pointer` from the function, as a reference to the type in the list that has the number `$id`.
macro_rules! find {
    ($id:ident, $pointer:ident: $($type:ty),* $(,)?) => {$(
        if $id == typeid::of::<$type>() {
            // SAFETY: the caller's: the pointer is to a value of this type, except for lifetimes, and valid and
            // exclusive for 'a. The lifetimes in the value are at least 'a. To make them shorter is harmless,
            // because the traits put nothing into the value.
            return Some(unsafe { &mut *$pointer.cast::<$type>() });
        }
    )*};
}

/// The reader itself, if it is known to lead to a descriptor.
pub(super) fn reader<R: Read + ?Sized>(reader: &mut R) -> Option<&mut dyn Reading> {
    // SAFETY: the number is that of the type, and the pointer is made of the exclusive reference.
    unsafe { find_reader(typeid::of::<R>(), (&raw mut *reader).cast()) }
}

/// # Safety
///
/// `pointer` is to a value that nothing else uses for the lifetime 'a, and `id` the number of its type.
unsafe fn find_reader<'a>(id: TypeId, pointer: *mut ()) -> Option<&'a mut (dyn Reading + 'a)> {
    macro_rules! find_source {
        ($($source:ty),* $(,)?) => {$(
            find! {
                id, pointer:
                $source,
                Take<$source>,
                &'a mut Take<$source>,
                BufReader<$source>,
                &'a mut BufReader<$source>,
                Take<BufReader<$source>>,
                &'a mut Take<BufReader<$source>>,
                Take<&'a mut BufReader<$source>>,
                &'a mut Take<&'a mut BufReader<$source>>,
            }
        )*};
    }
    find_source! {
        TcpStream, &'a TcpStream, &'a mut TcpStream,
        UnixStream, &'a UnixStream, &'a mut UnixStream,
        File, &'a File, &'a mut File,
        PipeReader, &'a PipeReader, &'a mut PipeReader,
        ChildStdout, &'a mut ChildStdout,
        ChildStderr, &'a mut ChildStderr,
    }
    None
}

/// The writer itself, if it is known to lead to a file or a pipe.
pub(super) fn writer<W: Write + ?Sized>(writer: &mut W) -> Option<&mut dyn Writing> {
    // SAFETY: the number is that of the type, and the pointer is made of the exclusive reference.
    unsafe { find_writer(typeid::of::<W>(), (&raw mut *writer).cast()) }
}

/// # Safety
///
/// That of [`find_reader`].
unsafe fn find_writer<'a>(id: TypeId, pointer: *mut ()) -> Option<&'a mut (dyn Writing + 'a)> {
    macro_rules! find_sink {
        ($($sink:ty),* $(,)?) => {$(
            find! {
                id, pointer:
                $sink,
                BufWriter<$sink>,
                &'a mut BufWriter<$sink>,
            }
        )*};
    }
    find_sink! {
        File, &'a File, &'a mut File,
        PipeWriter, &'a PipeWriter, &'a mut PipeWriter,
        ChildStdin, &'a ChildStdin, &'a mut ChildStdin,
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shims::io::pipe;

    #[test]
    fn readers_are_known_by_reference_with_a_limit_and_with_a_buffer() {
        let (mut pipe, _writer) = pipe().unwrap();
        let known: [&mut dyn FnMut(&mut PipeReader) -> bool; 9] = [
            &mut |pipe| reader(pipe).is_some(),
            &mut |pipe| reader(&mut &*pipe).is_some(),
            &mut |pipe| reader(&mut &mut *pipe).is_some(),
            &mut |pipe| reader(&mut (&mut *pipe).take(1)).is_some(),
            &mut |pipe| reader(&mut &mut (&*pipe).take(1)).is_some(),
            &mut |pipe| reader(&mut BufReader::new(&mut *pipe)).is_some(),
            &mut |pipe| reader(&mut &mut BufReader::new(&*pipe)).is_some(),
            &mut |pipe| reader(&mut BufReader::new(&*pipe).take(1)).is_some(),
            &mut |pipe| reader(&mut (&mut BufReader::new(&*pipe)).take(1)).is_some(),
        ];
        for (at, is_known) in known.into_iter().enumerate() {
            assert!(is_known(&mut pipe), "{at}");
        }
        let by_object: &mut dyn Read = &mut pipe;
        assert!(reader(by_object).is_none());
        assert!(reader(&mut (&pipe).chain(io::empty())).is_none());
        assert!(reader(&mut io::empty()).is_none());
    }

    #[test]
    fn writers_are_known_by_reference_and_with_a_buffer() {
        let (_reader, mut pipe) = pipe().unwrap();
        assert!(writer(&mut pipe).is_some());
        assert!(writer(&mut &pipe).is_some());
        assert!(writer(&mut &mut pipe).is_some());
        assert!(writer(&mut BufWriter::new(&pipe)).is_some());
        assert!(writer(&mut &mut BufWriter::new(&mut pipe)).is_some());
        let by_object: &mut dyn Write = &mut pipe;
        assert!(writer(by_object).is_none());
        assert!(writer(&mut io::LineWriter::new(&pipe)).is_none());
        assert!(writer(&mut io::sink()).is_none());
    }
}
