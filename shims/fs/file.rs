//! Files.

use std::fs::{self, FileTimes, Metadata, Permissions, TryLockError};
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::OpenOptions;
use crate::blocking::{many_wait, unblock_borrowed, unblock_waiting};
use crate::park;
use crate::reactor::Descriptor;
use crate::shims::descriptor::{from_raw_descriptor, into_stdio, plain_descriptor_conversions};
use crate::shims::io::any_file::{AnyFile, Place};
use crate::shims::io::pipe::Pipe;
use crate::task;

/// The pauses between attempts of a coroutine that waits for the lock of a file without a thread.
/// Each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(256);

/// Like [`std::fs::File`], but waits park the coroutine.
///
/// Made of an unnamed pipe, it writes in a coroutine what there is room for, be that a part.
pub struct File {
    io: Descriptor<fs::File>,
}

impl File {
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
    /// A coroutine that waits has a thread of the [pool](crate::unblock) do so. Where no descriptor
    /// can be had for that, or 64 threads of the pool wait already, the coroutine tries again after
    /// pauses that grow to a quarter of a second.
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

    fn wait_for_lock(
        &self,
        try_lock: fn(&fs::File) -> Result<(), TryLockError>,
        lock: fn(&fs::File) -> io::Result<()>,
    ) -> io::Result<()> {
        if !task::on_coroutine() {
            return lock(self.io.get());
        }
        let mut pause = FIRST_PAUSE;
        loop {
            match try_lock(self.io.get()) {
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
            // The lock belongs to all descriptors of the open file.
            if !many_wait()
                && let Ok(duplicate) = self.io.get().try_clone()
            {
                let waiting = move || lock(&duplicate).map(|()| Locked(Some(duplicate)));
                unblock_waiting(waiting)?.keep();
                return Ok(());
            }
            park::sleep(pause);
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Like [`std::fs::File::try_lock`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn try_lock(&self) -> Result<(), TryLockError> {
        self.io.get().try_lock()
    }

    /// Like [`std::fs::File::try_lock_shared`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn try_lock_shared(&self) -> Result<(), TryLockError> {
        self.io.get().try_lock_shared()
    }

    /// Like [`std::fs::File::unlock`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn unlock(&self) -> io::Result<()> {
        self.io.get().unlock()
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

    fn read_at_cursor(&self, bufs: &mut [IoSliceMut<'_>], shared: bool) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().read_vectored(bufs);
        }
        let place = match shared {
            true => Place::SharedCursor,
            false => Place::Cursor,
        };
        AnyFile(&self.io).read_at(place, bufs)
    }

    /// How to read all of it.
    fn kind(&self) -> Kind {
        let file = AnyFile(&self.io);
        if !task::on_coroutine() {
            return Kind::Regular;
        }
        if file.polls() {
            return Kind::Pipe;
        }
        let duplicate = file.may_wait().then(|| self.io.get().try_clone().ok());
        duplicate.flatten().map_or(Kind::Regular, Kind::Waiting)
    }

    fn unblock<T: Send>(&self, f: impl FnOnce(&fs::File) -> T + Send) -> T {
        unblock_borrowed(|| f(self.io.get()))
    }
}

/// How to read all of a file.
enum Kind {
    /// A poll can wait for it.
    Pipe,
    /// A read may wait for others, without a poll: that of this duplicate, so that who waits for it can
    /// be interrupted.
    Waiting(fs::File),
    /// In one job, or on the OS thread.
    Regular,
}

/// A lock that has been waited for. Unlocks the file when it is dropped: because who waited has
/// been interrupted.
struct Locked(Option<fs::File>);

impl Locked {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            // Cannot fail on what is locked.
            let _ = file.unlock();
        }
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
        (&*self).read_to_end(buf)
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        (&*self).read_to_string(buf)
    }
}

impl Read for &File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        // There may be more references.
        self.read_at_cursor(bufs, true)
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        match self.kind() {
            Kind::Pipe => Pipe(&self.io).read_to_end(buf),
            Kind::Waiting(mut file) => {
                let (read, bytes) = unblock_waiting(move || {
                    let mut bytes = Vec::new();
                    (file.read_to_end(&mut bytes), bytes)
                });
                buf.extend_from_slice(&bytes);
                read
            }
            Kind::Regular => self.unblock(|mut file| file.read_to_end(buf)),
        }
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        match self.kind() {
            Kind::Pipe => Pipe(&self.io).read_to_string(buf),
            Kind::Waiting(mut file) => {
                let (read, text) = unblock_waiting(move || {
                    let mut text = String::new();
                    (file.read_to_string(&mut text), text)
                });
                buf.push_str(&text);
                read
            }
            Kind::Regular => self.unblock(|mut file| file.read_to_string(buf)),
        }
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
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().write_vectored(bufs);
        }
        AnyFile(&self.io).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for &File {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.io.get().seek(pos)
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        self.io.get().stream_position()
    }
}

impl FileExt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if !task::on_coroutine() {
            return self.io.get().read_at(buf, offset);
        }
        AnyFile(&self.io).read_at(Place::Offset(offset), &mut [IoSliceMut::new(buf)])
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        self.unblock(|file| file.write_at(buf, offset))
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

plain_descriptor_conversions!(File: fs::File);
from_raw_descriptor!(File: fs::File);
into_stdio!(File: fs::File);
