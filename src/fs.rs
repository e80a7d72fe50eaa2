//! What files do that [`std::fs`] has no name for.

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

/// Watches a file, or the entries of a directory.
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
/// The operating system's: `NotFound`; or that there are too many watches.
pub fn watch(path: impl AsRef<Path>) -> io::Result<Watch> {
    // Nobody but this has the descriptor, so its mode disturbs nobody.
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let mut watch = Watch {
        inotify,
        paths: HashMap::new(),
        changes: VecDeque::new(),
    };
    watch.add(path)?;
    Ok(watch)
}

/// Watched files and directories: what [`watch`] returns.
///
/// An iterator over their changes, which parks the coroutine until there is one (off-coroutine,
/// blocks the OS thread). It does not end.
///
/// # Unwinding
///
/// An interruption point.
pub struct Watch {
    inotify: OwnedFd,
    /// What is watched, by the system's number for it.
    paths: HashMap<i32, PathBuf>,
    /// Those that came with one before.
    changes: VecDeque<Change>,
}

/// Something has happened to what is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// To which file or directory: the path that was watched, or that of an entry in it. Of
    /// [`Lost`](ChangeKind::Lost) changes it is empty.
    pub path: PathBuf,
    /// What has happened.
    pub kind: ChangeKind,
}

/// What has happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// An entry was made in the directory, or moved there.
    Created,
    /// It was written to, or truncated.
    Modified,
    /// Its permissions, times, owner or number of links were changed.
    Metadata,
    /// It was removed, or moved away.
    Removed,
    /// There were more changes than the system keeps: some are not reported.
    Lost,
}

impl Watch {
    /// Watches another file or directory, too.
    ///
    /// # Errors
    ///
    /// See [`watch`].
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
        // The way there may lead over a file system that stalls.
        let number = unblock_borrowed(|| inotify::add_watch(&self.inotify, path, events))?;
        self.paths.insert(number, path.to_owned());
        Ok(())
    }

    /// Waits for the next change, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// The operating system's; `TimedOut` when the timeout has passed.
    pub fn next_timeout(&mut self, timeout: Duration) -> io::Result<Change> {
        self.next_until(Instant::now().checked_add(timeout))
    }

    fn next_until(&mut self, deadline: Option<Instant>) -> io::Result<Change> {
        loop {
            self.fetch()?;
            if let Some(change) = self.changes.pop_front() {
                return Ok(change);
            }
            wait_fd(&self.inotify, Interest::READABLE, deadline)?;
        }
    }

    /// Takes what the system has to tell, if nothing is left of the last time.
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
            if event.events().contains(ReadFlags::IGNORED) {
                self.paths.remove(&event.wd());
            }
            if reader.is_buffer_empty() {
                return Ok(());
            }
        }
    }
}

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
