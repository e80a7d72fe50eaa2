//! Changes in a directory.

use std::io;

use greenroom::fs::watch;
use greenroom::shims::fs;
use greenroom::spawn;

use super::fs::Directory;

pub(crate) fn show() -> io::Result<String> {
    let directory = Directory::new("fs-event")?;
    let mut changes = watch(directory.path())?;
    let file = directory.path().join("file");
    spawn(move || {
        fs::write(&file, "content")?;
        fs::remove_file(&file)
    });
    let mut kinds = Vec::new();
    while kinds.len() < 3 {
        kinds.push(changes.next().expect("it has no end")?.kind);
    }
    Ok(format!("{kinds:?}"))
}
