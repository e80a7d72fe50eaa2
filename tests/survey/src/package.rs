//! The sources of a crate, from the registry.

use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::MetadataCommand;

use crate::crates::Entry;

/// Copies the published package of `entry` below `work`, as a workspace of its own; returns where it is.
pub(crate) fn fetch(entry: &Entry, work: &Path) -> Result<PathBuf, String> {
    let package = work.join("packages").join(&entry.name);
    let done = package.join(".complete");
    if fs::read_to_string(&done).is_ok_and(|version| version == entry.version) {
        return Ok(package);
    }
    // A package that depends on it has cargo fetch it.
    let asker = work.join("askers").join(&entry.name);
    write(&asker.join("lib.rs"), "")?;
    let manifest = format!(
        "[package]\nname = \"asker\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\
         [lib]\npath = \"lib.rs\"\n[workspace]\n[dependencies]\n{} = \"={}\"\n",
        entry.name, entry.version
    );
    write(&asker.join("Cargo.toml"), &manifest)?;
    let metadata = MetadataCommand::new().current_dir(&asker).exec();
    let metadata = metadata.map_err(|error| error.to_string())?;
    let found = metadata
        .packages
        .iter()
        .find(|package| package.name == entry.name);
    let found = found.ok_or("cargo has not fetched it")?;
    let source = found
        .manifest_path
        .parent()
        .ok_or("its manifest is nowhere")?;
    let _ = fs::remove_dir_all(&package);
    copy(source.as_std_path(), &package).map_err(|error| error.to_string())?;
    let manifest = package.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(|error| error.to_string())?;
    if !text.contains("\n[workspace]") {
        write(&manifest, &format!("{text}\n[workspace]\n"))?;
    }
    write(&done, &entry.version)?;
    Ok(package)
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    let dir = path.parent().unwrap_or(path);
    let written = fs::create_dir_all(dir).and_then(|()| fs::write(path, text));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => fs::copy(entry.path(), target).map(drop)?,
        }
    }
    Ok(())
}
