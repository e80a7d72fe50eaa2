//! Files and directories. The calls that may wait for a disk are made on a pool of threads.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

use greenroom::shims::fs::{self, OpenOptions};

pub(crate) fn show() -> io::Result<String> {
    let directory = Directory::new("fs")?;
    let [draft, done] = ["draft", "done"].map(|name| directory.path().join(name));
    fs::write(&draft, "one\n")?;
    let mut file = OpenOptions::new().append(true).open(&draft)?;
    file.write_all(b"two\n")?;
    file.sync_all()?;
    fs::rename(&draft, &done)?;
    let names = fs::read_dir(directory.path())?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?;
    let content = fs::read_to_string(&done)?;
    let length = fs::metadata(&done)?.len();
    Ok(format!("{names:?} with {length} bytes, {content:?}"))
}

/// A new directory, which is removed in the end.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> io::Result<Directory> {
        let name = format!("handles-{}-{name}", process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Directory(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
