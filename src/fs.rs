//! Watching files and directories for changes, which [`std::fs`] cannot do.
#![forbid(unsafe_code)]

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use crate::pool::unblock_borrowed;
use crate::reactor::{Interest, wait_fd};

/// Watches a file, or the entries of a directory, for changes. This is inotify(7).
///
/// Entries of subdirectories are not watched: [`add`](Watch::add) each subdirectory for that.
///
/// ```
/// use greenroom::fs::{ChangeKind, watch};
///
/// # fn main() -> std::io::Result<()> {
/// let dir = std::env::temp_dir().join(format!("watched-{}", std::process::id()));
/// std::fs::create_dir(&dir)?;
/// let mut watch = watch(&dir)?;
/// std::fs::write(dir.join("new"), "content")?;
///
/// let change = watch.next().unwrap()?;
/// assert_eq!((change.kind, change.path), (ChangeKind::Created, dir.join("new")));
/// # std::fs::remove_dir_all(dir)
/// # }
/// ```
///
/// # Errors
///
/// The operating system's: `NotFound`, if nothing is at `path`; or that the process or the user has too
/// many descriptors or watches.
pub fn watch(path: impl AsRef<Path>) -> io::Result<Watch> {
    // In non-blocking mode, because nothing else uses this descriptor.
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let mut watch = Watch {
        inotify,
        paths: HashMap::new(),
        changes: VecDeque::new(),
    };
    watch.add(path)?;
    Ok(watch)
}

/// Watched files and directories, and an iterator over their changes. Returned by [`watch`].
///
/// `next` parks the coroutine until there is a change (off-coroutine, it blocks the OS thread). The
/// iterator never returns `None`. It returns an error of the operating system as an item.
///
/// # Unwinding
///
/// An interruption point.
pub struct Watch {
    inotify: OwnedFd,
    /// The paths that are watched, by the kernel's number of the watch.
    paths: HashMap<i32, PathBuf>,
    /// Changes that were read and not returned yet: one read returns many.
    changes: VecDeque<Change>,
}

/// A change of a watched file, or of an entry of a watched directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The path that has changed: the one that was passed to [`watch`], or that of an entry in it. It is
    /// empty for [`Lost`](ChangeKind::Lost) changes.
    pub path: PathBuf,
    /// The kind of the change.
    pub kind: ChangeKind,
}

/// A kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// An entry was created in the directory, or moved into it.
    Created,
    /// The file was written to, or truncated.
    Modified,
    /// The permissions, times, owner or number of links of the file have changed.
    Metadata,
    /// The file was removed, or moved away.
    Removed,
    /// There were more changes than the kernel queues. Some changes are not reported.
    Lost,
}

impl Watch {
    /// Watches another file or directory as well.
    ///
    /// # Errors
    ///
    /// The operating system's: `NotFound`, if nothing is at `path`; or that the user has too many
    /// watches.
    pub fn add(&mut self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let events = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVE_SELF;
        // On the pool, because the lookup of the path may stall in a network file system.
        let number = unblock_borrowed(|| inotify::add_watch(&self.inotify, path, events))?;
        self.paths.insert(number, path.to_owned());
        Ok(())
    }

    /// Waits for the next change, but no longer than `timeout`.
    ///
    /// # Errors
    ///
    /// `TimedOut`, if `timeout` has passed without a change. Otherwise the operating system's.
    ///
    /// # Unwinding
    ///
    /// An interruption point.
    pub fn next_timeout(&mut self, timeout: Duration) -> io::Result<Change> {
        self.next_until(Instant::now().checked_add(timeout))
    }

    /// Waits for the next change until `deadline`; for ever, if that is `None`.
    fn next_until(&mut self, deadline: Option<Instant>) -> io::Result<Change> {
        loop {
            self.fetch()?;
            if let Some(change) = self.changes.pop_front() {
                return Ok(change);
            }
            wait_fd(&self.inotify, Interest::READABLE, deadline)?;
        }
    }

    /// Reads changes from the kernel without blocking, unless changes are left from the last read.
    fn fetch(&mut self) -> io::Result<()> {
        if !self.changes.is_empty() {
            return Ok(());
        }
        let mut buffer = [const { std::mem::MaybeUninit::uninit() }; 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                event => event?,
            };
            let name = event
                .file_name()
                .map(|name| OsStr::from_bytes(name.to_bytes()));
            self.changes.extend(change(&self.paths, &event, name));
            // The kernel has ended the watch: the file was removed, for instance.
            if event.events().contains(ReadFlags::IGNORED) {
                self.paths.remove(&event.wd());
            }
            if reader.is_buffer_empty() {
                return Ok(());
            }
        }
    }
}

/// The change that an event stands for. `None` for an event that is none: the end of a watch.
fn change(
    paths: &HashMap<i32, PathBuf>,
    event: &inotify::Event<'_>,
    name: Option<&OsStr>,
) -> Option<Change> {
    let events = event.events();
    let any = |flags: ReadFlags| events.intersects(flags);
    let kind = if any(ReadFlags::QUEUE_OVERFLOW) {
        ChangeKind::Lost
    } else if any(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
        ChangeKind::Created
    } else if any(ReadFlags::MODIFY) {
        ChangeKind::Modified
    } else if any(ReadFlags::ATTRIB) {
        ChangeKind::Metadata
    } else if any(ReadFlags::DELETE
        | ReadFlags::DELETE_SELF
        | ReadFlags::MOVED_FROM
        | ReadFlags::MOVE_SELF)
    {
        ChangeKind::Removed
    } else {
        return None;
    };
    let mut path = paths.get(&event.wd()).cloned().unwrap_or_default();
    path.extend(name);
    Some(Change { path, kind })
}

impl Iterator for Watch {
    type Item = io::Result<Change>;

    fn next(&mut self) -> Option<io::Result<Change>> {
        Some(self.next_until(None))
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("paths", &self.paths.values())
            .finish_non_exhaustive()
    }
}
