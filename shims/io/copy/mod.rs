//! Copying from a reader to a writer.
//!
//! A copy knows readers and writers that lead to a descriptor (`recognise.rs`), and treats them in three ways:
//!
//! | from | to | how |
//! |---|---|---|
//! | a file | a file | a job of the pool calls std's `copy`, which uses `copy_file_range` |
//! | a pipe | a pipe or a file | `splice` |
//! | a file, a pipe or a socket | any writer | through memory, 64 KiB at a time, in a buffer of the worker |
//!
//! In the third case, a coroutine that waits for bytes to read has no buffer. It takes one for an attempt to read,
//! and keeps it until all is written (`part.rs`).
//!
//! std also splices between pipes and sockets. A coroutine does not, because `splice` has no flag like
//! `MSG_DONTWAIT`: it waits for a socket that is in blocking mode. To set another mode around each call would show
//! to other users of the socket, and cost as much CPU time as the copies that `splice` saves: 250 ms per GiB from a
//! pipe to a TCP connection, where 64 KiB through memory take 258 and 8 KiB, std's size, 618 (Linux 6.18; from TCP
//! to TCP through a pipe 341, 372 and 718).
//!
//! All other readers and writers are left to std's `copy`.

mod part;
mod recognise;

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;

use crate::reactor::{Descriptor, Direction};
use crate::shims::fs::File;
use crate::shims::fs::file_system::AT_ONCE;
use crate::shims::park_or_block::park_or_block;
use crate::sys::file::{check_readable, check_writable};

pub(crate) use part::Part;
use recognise::Reading;

/// The most bytes that are spliced at once. A pipe seldom holds more.
const SPLICED: u64 = AT_ONCE as u64;

/// Like [`std::io::copy`].
///
/// Between files, and from a pipe to a file or another pipe, the kernel moves the bytes, as std has it do. What else
/// comes from a file, a pipe, a socket or a child of the shims is moved in parts of up to 64 KiB. A coroutine has no
/// buffer while it waits for bytes to read.
///
/// As with std, readers and writers are known by their types, also in a reference, a [`Take`](io::Take) or a
/// [`BufReader`](io::BufReader): not behind `dyn Read`, and not in a type of yours. All others, among them the
/// standard streams and TLS streams, are copied by std's loop, 8 KiB at a time.
///
/// # Errors
///
/// As std: the first error of the reader or the writer, except `Interrupted`. As with std, bytes that were read and
/// not yet written are then lost.
///
/// # Unwinding
///
/// An interruption point if the reader or the writer is one. What was read and not yet written is lost, as after an
/// error.
pub fn copy<R, W>(reader: &mut R, writer: &mut W) -> io::Result<u64>
where
    R: Read + ?Sized,
    W: Write + ?Sized,
{
    match recognise::reader(reader) {
        Some(reader) => copy_from(reader, writer),
        None => io::copy(reader, writer),
    }
}

fn copy_from<W: Write + ?Sized>(reader: &mut dyn Reading, writer: &mut W) -> io::Result<u64> {
    let ahead = reader.ahead().len();
    if ahead > 0 {
        writer.write_all(reader.ahead())?;
        reader.consume(ahead);
    }
    let mut copied = ahead as u64;
    if let Some(to) = recognise::writer(writer)
        && let Some(route) = Route::between(reader.end(), to.end())
    {
        to.flush()?;
        loop {
            let most = reader.limit();
            if most == 0 {
                return Ok(copied);
            }
            match route.pass(reader.end(), to.end(), most)? {
                Passed::Bytes(0) => return Ok(copied),
                Passed::Bytes(bytes) => {
                    reader.took(bytes);
                    copied += bytes;
                }
                Passed::NoRoom | Passed::Refused => break,
            }
        }
    }
    loop {
        let most = reader.limit().min(Part::MOST as u64) as usize;
        if most == 0 {
            return Ok(copied);
        }
        let part = match reader.source().fill(most) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            filled => filled?,
        };
        if part.is_empty() {
            return Ok(copied);
        }
        reader.took(part.len() as u64);
        writer.write_all(&part)?;
        copied += part.len() as u64;
    }
}

/// What is at the end of all wrappers of a reader.
pub(crate) trait Source {
    /// Reads as [`Read::read`] does, at most `most` bytes, which are no more than [`Part::MOST`].
    fn fill(&self, most: usize) -> io::Result<Part>;

    /// Like `fill`, if others may read at the same cursor.
    fn fill_shared(&self, most: usize) -> io::Result<Part> {
        self.fill(most)
    }

    fn end(&self) -> End<'_> {
        End::Other
    }
}

impl<T: Source> Source for &T {
    fn fill(&self, most: usize) -> io::Result<Part> {
        (**self).fill_shared(most)
    }

    fn end(&self) -> End<'_> {
        (**self).end()
    }
}

/// What is at the end of all wrappers of a writer that the kernel may move bytes to.
pub(crate) trait Sink {
    fn end(&self) -> End<'_>;
}

/// What a reader or a writer leads to.
#[derive(Clone, Copy)]
pub(crate) enum End<'a> {
    /// What std takes for a pipe.
    Pipe(&'a dyn Pollable),
    File(&'a File),
    Other,
}

/// A descriptor that can be polled.
pub(crate) trait Pollable {
    fn fd(&self) -> BorrowedFd<'_>;

    /// Tries `pass` until it does not report that it would block, and parks in between.
    fn attempt(
        &self,
        direction: Direction,
        pass: &mut dyn FnMut() -> io::Result<Passed>,
    ) -> io::Result<Passed>;
}

impl<T: AsFd> Pollable for Descriptor<T> {
    fn fd(&self) -> BorrowedFd<'_> {
        self.get().as_fd()
    }

    fn attempt(
        &self,
        direction: Direction,
        pass: &mut dyn FnMut() -> io::Result<Passed>,
    ) -> io::Result<Passed> {
        self.operation(direction).run(|_| pass())
    }
}

/// What an attempt to have the kernel move bytes has done.
pub(crate) enum Passed {
    /// So many bytes were moved. None is the end.
    Bytes(u64),
    /// The writer has to be waited for.
    NoRoom,
    /// The bytes have to go through memory.
    Refused,
}

/// How the kernel moves bytes.
#[derive(Clone, Copy)]
enum Route {
    Copy,
    Splice,
}

impl Route {
    /// The way from a reader to a writer, if there is one.
    fn between(from: End<'_>, to: End<'_>) -> Option<Route> {
        match (from, to) {
            (End::File(from), End::File(to)) if from.is_on_disk() && to.is_on_disk() => {
                Some(Route::Copy)
            }
            (End::Pipe(from), End::File(to)) if is_pipe(from.fd()) && to.is_on_disk() => {
                Some(Route::Splice)
            }
            // Anything may be in a `ChildStdin`. A socket would block the worker.
            (End::Pipe(from), End::Pipe(to)) if is_pipe(from.fd()) && is_pipe(to.fd()) => {
                Some(Route::Splice)
            }
            _ => None,
        }
    }

    /// Moves at most `most` bytes, which are not none.
    fn pass(self, from: End<'_>, to: End<'_>, most: u64) -> io::Result<Passed> {
        let spliced = most.min(SPLICED);
        match (self, from, to) {
            (Route::Copy, End::File(from), End::File(to)) => from.copy_to(to, most),
            (Route::Splice, End::Pipe(from), End::File(to)) => {
                let splice = |flags| {
                    let from = from.fd();
                    to.write_by(spliced as usize, |to| splice(from, to, spliced, flags))
                };
                park_or_block(
                    splice,
                    |splice| from.attempt(Direction::Read, &mut || splice(SpliceFlags::NONBLOCK)),
                    |splice| splice(SpliceFlags::empty()),
                )
            }
            (Route::Splice, End::Pipe(from), End::Pipe(to)) => park_or_block(
                (),
                |()| splice_parking(from, to, spliced),
                |()| Ok(splice(from.fd(), to.fd(), spliced, SpliceFlags::empty())?),
            ),
            _ => Ok(Passed::Refused),
        }
    }
}

/// Moves bytes between two pipes in a coroutine, which waits for the one that is not ready.
fn splice_parking(from: &dyn Pollable, to: &dyn Pollable, most: u64) -> io::Result<Passed> {
    loop {
        let passed = from.attempt(Direction::Read, &mut || match splice(
            from.fd(),
            to.fd(),
            most,
            SpliceFlags::NONBLOCK,
        ) {
            Err(Errno::AGAIN) => {
                check_readable(from.fd())?;
                Ok(Passed::NoRoom)
            }
            done => Ok(done?),
        })?;
        if !matches!(passed, Passed::NoRoom) {
            return Ok(passed);
        }
        to.attempt(Direction::Write, &mut || {
            check_writable(to.fd())?;
            Ok(Passed::NoRoom)
        })?;
    }
}

fn splice(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    most: u64,
    flags: SpliceFlags,
) -> rustix::io::Result<Passed> {
    loop {
        match rustix::pipe::splice(from, None, to, None, most as usize, flags) {
            Ok(bytes) => return Ok(Passed::Bytes(bytes as u64)),
            Err(Errno::INTR) => {}
            // The file appends, or its file system does not know the call; or a sandbox forbids it.
            Err(Errno::INVAL | Errno::NOSYS | Errno::PERM) => return Ok(Passed::Refused),
            Err(error) => return Err(error),
        }
    }
}

fn is_pipe(fd: BorrowedFd<'_>) -> bool {
    let stat = rustix::fs::fstat(fd);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}
