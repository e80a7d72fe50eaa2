//! Reading directories.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::PathBuf;

use rustix::fs::OFlags;

use super::lookup;
use crate::pool::unblock_borrowed;
use crate::task;

/// How many entries one job of the pool fetches: about as many as one system call returns.
const BATCH: usize = 256;

/// Like [`std::fs::ReadDir`], but fetching entries parks the coroutine.
pub struct ReadDir {
    entries: fs::ReadDir,
    /// Entries that were fetched and not yet returned.
    fetched: VecDeque<io::Result<DirEntry>>,
    /// Whether the last entry has been fetched.
    ended: bool,
}

/// Like [`std::fs::DirEntry`], but asking for metadata parks the coroutine.
pub struct DirEntry {
    entry: fs::DirEntry,
    /// The type at the time of fetching, if the system reported it.
    file_type: Option<FileType>,
}

// As std's: a panic cannot break an invariant of the fetched entries.
impl UnwindSafe for ReadDir {}
impl RefUnwindSafe for ReadDir {}

impl ReadDir {
    pub(super) fn new(entries: fs::ReadDir) -> ReadDir {
        ReadDir {
            entries,
            fetched: VecDeque::new(),
            ended: false,
        }
    }
}

impl Iterator for ReadDir {
    type Item = io::Result<DirEntry>;

    fn next(&mut self) -> Option<io::Result<DirEntry>> {
        if !task::on_coroutine() && self.fetched.is_empty() {
            return Some(self.entries.next()?.map(DirEntry::new));
        }
        if self.fetched.is_empty() && !self.ended {
            let entries = &mut self.entries;
            self.fetched = unblock_borrowed(|| {
                let fetched = entries.take(BATCH);
                fetched
                    .map(|entry| entry.map(DirEntry::with_type))
                    .collect()
            });
            self.ended = self.fetched.len() < BATCH;
        }
        self.fetched.pop_front()
    }
}

impl DirEntry {
    fn new(entry: fs::DirEntry) -> DirEntry {
        DirEntry {
            entry,
            file_type: None,
        }
    }

    fn with_type(entry: fs::DirEntry) -> DirEntry {
        DirEntry {
            file_type: entry.file_type().ok(),
            entry,
        }
    }

    /// Like [`std::fs::DirEntry::path`].
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.entry.path()
    }

    /// Like [`std::fs::DirEntry::metadata`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn metadata(&self) -> io::Result<Metadata> {
        match lookup::metadata(&self.entry.path(), OFlags::NOFOLLOW) {
            // Otherwise the path leads to another file by now.
            Some(Ok(metadata)) if metadata.ino() == self.entry.ino() => Ok(metadata),
            _ => unblock_borrowed(|| self.entry.metadata()),
        }
    }

    /// Like [`std::fs::DirEntry::file_type`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn file_type(&self) -> io::Result<FileType> {
        match self.file_type {
            Some(file_type) => Ok(file_type),
            None => unblock_borrowed(|| self.entry.file_type()),
        }
    }

    /// Like [`std::fs::DirEntry::file_name`].
    #[must_use]
    pub fn file_name(&self) -> OsString {
        self.entry.file_name()
    }
}

impl DirEntryExt for DirEntry {
    fn ino(&self) -> u64 {
        self.entry.ino()
    }
}

impl fmt::Debug for ReadDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries.fmt(f)
    }
}

impl fmt::Debug for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entry.fmt(f)
    }
}
