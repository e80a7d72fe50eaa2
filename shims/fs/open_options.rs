//! Opening files.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use super::file_system::Nature;
use super::{File, lookup, unblock_on};
use crate::shims::park_or_block::park_or_block;

/// Like [`std::fs::OpenOptions`], but opening a file parks the coroutine.
#[derive(Clone)]
pub struct OpenOptions {
    options: fs::OpenOptions,
    // Copies of the settings in `options`, which std does not reveal.
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    custom_flags: i32,
}

impl OpenOptions {
    /// Like [`std::fs::OpenOptions::new`].
    #[allow(clippy::new_without_default, reason = "mirrors std")]
    #[must_use]
    pub fn new() -> OpenOptions {
        OpenOptions {
            options: fs::OpenOptions::new(),
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            custom_flags: 0,
        }
    }

    /// Like [`std::fs::OpenOptions::read`].
    pub fn read(&mut self, read: bool) -> &mut OpenOptions {
        self.options.read(read);
        self.read = read;
        self
    }

    /// Like [`std::fs::OpenOptions::write`].
    pub fn write(&mut self, write: bool) -> &mut OpenOptions {
        self.options.write(write);
        self.write = write;
        self
    }

    /// Like [`std::fs::OpenOptions::append`].
    pub fn append(&mut self, append: bool) -> &mut OpenOptions {
        self.options.append(append);
        self.append = append;
        self
    }

    /// Like [`std::fs::OpenOptions::truncate`].
    pub fn truncate(&mut self, truncate: bool) -> &mut OpenOptions {
        self.options.truncate(truncate);
        self.truncate = truncate;
        self
    }

    /// Like [`std::fs::OpenOptions::create`].
    pub fn create(&mut self, create: bool) -> &mut OpenOptions {
        self.options.create(create);
        self.create = create;
        self
    }

    /// Like [`std::fs::OpenOptions::create_new`].
    pub fn create_new(&mut self, create_new: bool) -> &mut OpenOptions {
        self.options.create_new(create_new);
        self.create_new = create_new;
        self
    }

    /// Like [`std::fs::OpenOptions::open`].
    ///
    /// # Errors
    ///
    /// As std.
    ///
    /// # Unwinding
    ///
    /// An interruption point: opening a named pipe waits for the other end.
    pub fn open<P: AsRef<Path>>(&self, path: P) -> io::Result<File> {
        let path = path.as_ref();
        park_or_block(
            path,
            |path| self.open_parking(path),
            |path| self.options.open(path).map(File::from),
        )
    }

    /// Opens a file in a coroutine.
    fn open_parking(&self, path: &Path) -> io::Result<File> {
        let flags = self.flags_for_existing_file();
        if let Some(opened) = flags.and_then(|flags| lookup::open(path, flags)) {
            // A file that is to be created is not looked up but opened on the pool.
            let is_absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
            if !(self.create && opened.as_ref().is_err_and(is_absent)) {
                return opened.map(|(file, nature)| File::new(file, nature));
            }
        }
        let (options, path) = (self.options.clone(), path.to_owned());
        let blocking = self.custom_flags & libc::O_NONBLOCK == 0;
        let (file, nature) = unblock_on([path], move |[path]| {
            let file = options.open(path)?;
            let nature = Nature::ask(file.as_fd());
            io::Result::Ok((file, nature))
        })?;
        Ok(match blocking {
            true => File::new(file, nature),
            false => File::from(file),
        })
    }

    /// The flags to open an existing file with. `None` if these options would change the file or have
    /// flags of the user's.
    fn flags_for_existing_file(&self) -> Option<OFlags> {
        let write = self.write || self.append;
        if self.truncate || self.create_new || self.custom_flags != 0 || self.create && !write {
            return None;
        }
        let mut flags = match (self.read, write) {
            (true, true) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            (true, false) => OFlags::RDONLY,
            (false, false) => return None,
        };
        flags.set(OFlags::APPEND, self.append);
        Some(flags)
    }
}

impl OpenOptionsExt for OpenOptions {
    fn mode(&mut self, mode: u32) -> &mut OpenOptions {
        self.options.mode(mode);
        self
    }

    fn custom_flags(&mut self, flags: i32) -> &mut OpenOptions {
        self.options.custom_flags(flags);
        self.custom_flags = flags;
        self
    }
}

impl fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options.fmt(f)
    }
}
