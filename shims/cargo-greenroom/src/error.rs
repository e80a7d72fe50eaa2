//! Errors as the user sees them.

use std::fmt::{self, Display};
use std::io;
use std::path::Path;

/// One message, which says what was attempted and why it failed.
#[derive(Debug)]
pub(crate) struct Error(String);

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Error {
        Error(message.into())
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Adds what was attempted to the error of an operation.
pub(crate) trait Context<T> {
    fn context(self, attempted: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Display> Context<T> for std::result::Result<T, E> {
    fn context(self, attempted: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error(format!("{}: {error}", attempted())))
    }
}

/// Writes `content` to `path`, at once for whoever reads it meanwhile. Leaves a file that has this content
/// alone, because cargo rebuilds when a file is newer.
pub(crate) fn write_if_changed(path: &Path, content: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|before| before == content) {
        return Ok(());
    }
    replace(path, |new| std::fs::write(new, content))
}

/// Puts a file that `make` makes in the place of `path`.
pub(crate) fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).context(|| format!("cannot create {}", dir.display()))?;
    }
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".new-{}", std::process::id()));
    let new = Path::new(&new);
    make(new)
        .and_then(|()| std::fs::rename(new, path))
        .context(|| format!("cannot write {}", path.display()))
}
