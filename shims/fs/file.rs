//! Files.
#![forbid(unsafe_code)]

use std::fs::{self, FileTimes, Metadata, Permissions, TryLockError};
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use super::OpenOptions;
use super::file_system::{AT_ONCE, Nature};
use super::lock::FileLock;
use super::open_file::OpenFile;
use crate::park;
use crate::pool::{many_wait, unblock_borrowed, unblock_operation};
use crate::shims::back_off::BackOff;
use crate::shims::descriptor::{descriptor_conversions, into_stdio};
use crate::shims::io::any_file::{AnyFile, may_wait};
use crate::shims::io::copy::{End, Part, Passed, Sink, Source};
use crate::shims::io::pipe::Pipe;
use crate::shims::park_or_block::park_or_block;
use crate::task;

/// The longest pause between attempts of a coroutine that waits for the lock of a file without a thread.
const LONGEST_PAUSE: Duration = Duration::from_millis(256);

/// The most bytes that a job copies from file to file, so that the coroutine has other jobs between them.
const COPIED_AT_ONCE: u64 = 16 << 20;

/// Like [`std::fs::File`], but waits park the coroutine.
///
/// In a coroutine, a write to a `File` that was made of an unnamed pipe takes as many bytes as the pipe
/// has room for.
pub struct File {
    io: OpenFile,
    /// Set once the file or a duplicate of it may be locked.
    lock: OnceLock<FileLock>,
}

impl File {
    pub(super) fn new(file: fs::File, nature: Nature) -> File {
        File {
            io: OpenFile::new(file, nature),
            lock: OnceLock::new(),
        }
    }

    /// Like [`std::fs::File::open`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn open<P: AsRef<Path>>(path: P) -> io::Result<File> {
        OpenOptions::new().read(true).open(path)
    }

    /// Like [`std::fs::File::create`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn create<P: AsRef<Path>>(path: P) -> io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
    }

    /// Like [`std::fs::File::create_new`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn create_new<P: AsRef<Path>>(path: P) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
    }

    /// Like [`std::fs::File::options`].
    #[must_use]
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }

    /// Like [`std::fs::File::sync_all`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn sync_all(&self) -> io::Result<()> {
        self.unblock(fs::File::sync_all)
    }

    /// Like [`std::fs::File::sync_data`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn sync_data(&self) -> io::Result<()> {
        self.unblock(fs::File::sync_data)
    }

    /// Like [`std::fs::File::lock`].
    ///
    /// For a coroutine that waits, a thread of the [pool](crate::unblock) waits. If no descriptor can be
    /// had for the thread, or if 64 threads of the pool wait already, the coroutine tries again after
    /// pauses that grow to a quarter of a second.
    ///
    /// If the coroutine is interrupted, the thread still gets the lock at some time, and unlocks the file then; unless
    /// the file, or a duplicate by [`try_clone`](File::try_clone), was locked again meanwhile, or waits for the lock.
    /// The thread knows of no other duplicates. While it waits, shared and exclusive locks of the file may replace each
    /// other. So after an interrupt, it is better to open the file anew.
    ///
    /// # Errors
    ///
    /// As std.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn lock(&self) -> io::Result<()> {
        self.wait_for_lock(fs::File::try_lock, fs::File::lock)
    }

    /// Like [`std::fs::File::lock_shared`]; waits as [`lock`](File::lock) does.
    ///
    /// # Errors
    ///
    /// As std.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn lock_shared(&self) -> io::Result<()> {
        self.wait_for_lock(fs::File::try_lock_shared, fs::File::lock_shared)
    }

    fn file_lock(&self) -> &FileLock {
        task::get_or_init_aside(&self.lock, FileLock::default)
    }

    /// Tries to lock the file.
    fn lock_at_once(
        &self,
        try_lock: fn(&fs::File) -> Result<(), TryLockError>,
    ) -> Result<(), TryLockError> {
        self.at_once(|file| self.file_lock().take(|| try_lock(file)))
    }

    fn wait_for_lock(
        &self,
        try_lock: fn(&fs::File) -> Result<(), TryLockError>,
        lock: fn(&fs::File) -> io::Result<()>,
    ) -> io::Result<()> {
        park_or_block(
            (),
            |()| self.park_for_lock(try_lock, lock),
            |()| self.file_lock().block(|| lock(self.io.get())),
        )
    }

    /// Waits for a lock in a coroutine.
    fn park_for_lock(
        &self,
        try_lock: fn(&fs::File) -> Result<(), TryLockError>,
        lock: fn(&fs::File) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut back_off = BackOff::up_to(LONGEST_PAUSE);
        loop {
            match self.lock_at_once(try_lock) {
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
            // All duplicates of a descriptor share a lock, so the pool can lock a duplicate.
            if !many_wait()
                && let Ok(duplicate) = self.io.get().try_clone()
            {
                return self.file_lock().wait(duplicate, lock);
            }
            back_off.pause(None)?;
        }
    }

    /// Like [`std::fs::File::try_lock`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn try_lock(&self) -> Result<(), TryLockError> {
        self.lock_at_once(fs::File::try_lock)
    }

    /// Like [`std::fs::File::try_lock_shared`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn try_lock_shared(&self) -> Result<(), TryLockError> {
        self.lock_at_once(fs::File::try_lock_shared)
    }

    /// Like [`std::fs::File::unlock`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn unlock(&self) -> io::Result<()> {
        self.at_once(|file| self.file_lock().release(|| file.unlock()))
    }

    /// Like [`std::fs::File::set_len`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        self.unblock(|file| file.set_len(size))
    }

    /// Like [`std::fs::File::metadata`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn metadata(&self) -> io::Result<Metadata> {
        if self.is_local() {
            park::spend_operation();
            return self.io.get().metadata();
        }
        self.unblock(fs::File::metadata)
    }

    /// Like [`std::fs::File::try_clone`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn try_clone(&self) -> io::Result<File> {
        let duplicate = self.io.get().try_clone()?;
        Ok(File {
            io: self.io.share(duplicate),
            lock: self.file_lock().clone().into(),
        })
    }

    /// Like [`std::fs::File::set_permissions`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn set_permissions(&self, perm: Permissions) -> io::Result<()> {
        self.unblock(|file| file.set_permissions(perm))
    }

    /// Like [`std::fs::File::set_times`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn set_times(&self, times: FileTimes) -> io::Result<()> {
        self.unblock(|file| file.set_times(times))
    }

    /// Like [`std::fs::File::set_modified`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        self.set_times(FileTimes::new().set_modified(time))
    }

    /// Whether the caller is a coroutine and the file is on a local file system, which answers questions
    /// about an open file from memory.
    fn is_local(&self) -> bool {
        task::on_coroutine() && matches!(self.io.nature(), Nature::Local(_))
    }

    /// The file's operations for a coroutine. `shared` says whether other readers may use the cursor.
    fn any(&self, shared: bool) -> AnyFile<'_, fs::File> {
        AnyFile::new(self.io.descriptor(), self.io.nature(), shared)
    }

    fn read_at_cursor(&self, bufs: &mut [IoSliceMut<'_>], shared: bool) -> io::Result<usize> {
        park_or_block(
            bufs,
            |bufs| self.any(shared).read_at(None, bufs),
            |bufs| self.io.get().read_vectored(bufs),
        )
    }

    /// Reads to the end of the file.
    pub(super) fn read_all<B: Grow>(&self, buf: &mut B, shared: bool) -> io::Result<usize> {
        park_or_block(
            buf,
            |buf| self.read_all_parking(buf, shared),
            |buf| B::read_all(&mut self.io.get(), buf),
        )
    }

    /// Reads to the end of the file in a coroutine.
    fn read_all_parking<B: Grow>(&self, buf: &mut B, shared: bool) -> io::Result<usize> {
        match self.io.nature() {
            Nature::Pipe => B::read_all(&mut Pipe(self.io.descriptor()), buf),
            Nature::Local(_) => {
                let length = self.io.get().metadata()?.len();
                let rest = length.saturating_sub(rustix::fs::tell(self.io.get())?);
                match usize::try_from(rest) {
                    Ok(rest @ 0..=AT_ONCE) => {
                        buf.try_reserve(rest)?;
                        B::read_all(&mut self.any(shared), buf)
                    }
                    _ => self.unblock(|mut file| B::read_all(&mut file, buf)),
                }
            }
            Nature::Elsewhere => {
                let read = self.unblock(|mut file| match may_wait(file.as_fd()) {
                    true => Err(file.try_clone()),
                    false => Ok(B::read_all(&mut file, buf)),
                });
                match read {
                    Ok(read) => read,
                    // The read may wait for another process. A duplicate is read, so that the caller can
                    // be interrupted.
                    Err(Ok(mut duplicate)) => {
                        let (read, new) = unblock_operation(move || {
                            let mut new = B::default();
                            (B::read_all(&mut duplicate, &mut new), new)
                        })?;
                        buf.append(new);
                        read
                    }
                    Err(Err(_)) => self.unblock(|mut file| B::read_all(&mut file, buf)),
                }
            }
        }
    }

    /// Whether the file is none that a poll can wait for.
    pub(in crate::shims) fn is_on_disk(&self) -> bool {
        !matches!(self.io.nature(), Nature::Pipe)
    }

    /// Copies at most `most` bytes from the cursor of this file to that of another, both of them on a disk. Refuses
    /// if the bytes are few, or if reading them may wait for another process.
    pub(in crate::shims) fn copy_to(&self, to: &File, most: u64) -> io::Result<Passed> {
        let copy = |most| {
            let mut limited = self.io.get().take(most);
            let copied = io::copy(&mut limited, &mut to.io.get());
            match most - limited.limit() {
                0 => copied.map(Passed::Bytes),
                // The next call returns the error, if there was one.
                bytes => Ok(Passed::Bytes(bytes)),
            }
        };
        if !task::on_coroutine() {
            return copy(most);
        }
        let both_are_local = matches!(self.io.nature(), Nature::Local(_))
            && matches!(to.io.nature(), Nature::Local(_));
        if both_are_local {
            let length = self.io.get().metadata()?.len();
            let rest = length.saturating_sub(rustix::fs::tell(self.io.get())?);
            if rest.min(most) <= AT_ONCE as u64 {
                return Ok(Passed::Refused);
            }
        }
        self.unblock(|file| match may_wait(file.as_fd()) {
            true => Ok(Passed::Refused),
            false => copy(most.min(COPIED_AT_ONCE)),
        })
    }

    /// Calls `write`, which writes at most `most` bytes at the cursor, where that may block.
    pub(in crate::shims) fn write_by(
        &self,
        most: usize,
        write: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<Passed> + Send,
    ) -> io::Result<Passed> {
        park_or_block(
            write,
            |write| self.any(true).write_bytes(most, write),
            |write| Ok(write(self.io.get().as_fd())?),
        )
    }

    /// Reads for a copy. `shared` says whether other readers may use the cursor.
    fn fill_part(&self, most: usize, shared: bool) -> io::Result<Part> {
        if task::on_coroutine() && !self.is_on_disk() {
            return Pipe(self.io.descriptor()).fill(most);
        }
        Part::fill(most, |buf| {
            self.read_at_cursor(&mut [IoSliceMut::new(buf)], shared)
        })
    }

    /// Calls `f`, which waits for the file system at most: on the pool unless the file system is local.
    fn at_once<T: Send>(&self, f: impl FnOnce(&fs::File) -> T + Send) -> T {
        match task::on_coroutine() && matches!(self.io.nature(), Nature::Elsewhere) {
            true => self.unblock(f),
            false => f(self.io.get()),
        }
    }

    fn unblock<T: Send>(&self, f: impl FnOnce(&fs::File) -> T + Send) -> T {
        unblock_borrowed(|| f(self.io.get()))
    }
}

/// A buffer that takes all of a file.
pub(super) trait Grow: Default + Send + 'static {
    fn read_all(from: &mut impl Read, to: &mut Self) -> io::Result<usize>;
    fn try_reserve(&mut self, bytes: usize) -> io::Result<()>;
    fn append(&mut self, new: Self);
}

impl Grow for Vec<u8> {
    fn read_all(from: &mut impl Read, to: &mut Vec<u8>) -> io::Result<usize> {
        from.read_to_end(to)
    }

    fn try_reserve(&mut self, bytes: usize) -> io::Result<()> {
        Ok(Vec::try_reserve(self, bytes)?)
    }

    fn append(&mut self, new: Vec<u8>) {
        self.extend_from_slice(&new);
    }
}

impl Grow for String {
    fn read_all(from: &mut impl Read, to: &mut String) -> io::Result<usize> {
        from.read_to_string(to)
    }

    fn try_reserve(&mut self, bytes: usize) -> io::Result<()> {
        Ok(String::try_reserve(self, bytes)?)
    }

    fn append(&mut self, new: String) {
        self.push_str(&new);
    }
}

impl Read for File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.read_at_cursor(bufs, self.io.is_shared())
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        self.read_all(buf, self.io.is_shared())
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        self.read_all(buf, self.io.is_shared())
    }
}

impl Read for &File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        // Other references may read at the same cursor.
        self.read_at_cursor(bufs, true)
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        self.read_all(buf, true)
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        self.read_all(buf, true)
    }
}

impl Source for File {
    fn fill(&self, most: usize) -> io::Result<Part> {
        self.fill_part(most, self.io.is_shared())
    }

    fn fill_shared(&self, most: usize) -> io::Result<Part> {
        self.fill_part(most, true)
    }

    fn end(&self) -> End<'_> {
        End::File(self)
    }
}

impl Sink for File {
    fn end(&self) -> End<'_> {
        End::File(self)
    }
}

impl Write for File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for &File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        park_or_block(
            buf,
            |buf| self.any(true).write(buf),
            |buf| self.io.get().write(buf),
        )
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        park_or_block(
            bufs,
            |bufs| self.any(true).write_vectored(bufs),
            |bufs| self.io.get().write_vectored(bufs),
        )
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for &File {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        // Seeking may wait: the file system reports where the end is, and a read at the cursor holds a
        // lock.
        self.at_once(|mut file| file.seek(pos))
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        self.at_once(|mut file| file.stream_position())
    }
}

impl FileExt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        park_or_block(
            buf,
            |buf| {
                let bufs = &mut [IoSliceMut::new(buf)];
                self.any(false).read_at(Some(offset), bufs)
            },
            |buf| self.io.get().read_at(buf, offset),
        )
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        park_or_block(
            buf,
            |buf| self.any(false).write_at(buf, offset),
            |buf| self.io.get().write_at(buf, offset),
        )
    }
}

impl Seek for File {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        (&*self).seek(pos)
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        (&*self).stream_position()
    }
}

descriptor_conversions! {
    File: fs::File,
    adopt: |file| File {
        io: OpenFile::foreign(file),
        lock: OnceLock::new(),
    },
    release: |file| file.io.give_away(),
}
into_stdio!(File: fs::File);
