//! Making directories.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::pool::unblock_borrowed;

/// Like [`std::fs::DirBuilder`], but making a directory parks the coroutine.
pub struct DirBuilder(fs::DirBuilder);

impl DirBuilder {
    /// Like [`std::fs::DirBuilder::new`].
    #[allow(clippy::new_without_default, reason = "mirrors std")]
    #[must_use]
    pub fn new() -> DirBuilder {
        DirBuilder(fs::DirBuilder::new())
    }

    /// Like [`std::fs::DirBuilder::recursive`].
    pub fn recursive(&mut self, recursive: bool) -> &mut DirBuilder {
        self.0.recursive(recursive);
        self
    }

    /// Like [`std::fs::DirBuilder::create`].
    ///
    /// # Errors
    ///
    /// As std.
    pub fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let path = path.as_ref();
        unblock_borrowed(|| self.0.create(path))
    }
}

impl DirBuilderExt for DirBuilder {
    fn mode(&mut self, mode: u32) -> &mut DirBuilder {
        self.0.mode(mode);
        self
    }
}

impl fmt::Debug for DirBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
