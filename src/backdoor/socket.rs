//! The socket of a backdoor, and its file.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process;

use crate::sys::socket::{bind_privately, connect_unix, unix_name};

/// The file that names a listening socket.
pub(super) struct File {
    path: PathBuf,
    /// Its device and inode, which tell whether another socket has taken its place.
    identity: Option<(u64, u64)>,
    /// The process that has made it.
    maker: u32,
}

/// A socket that listens at `path`. Replaces one on which nobody listens.
///
/// If two processes find the same stale socket at the same moment, one of them may remove the other's new one.
pub(super) fn listen(path: &Path) -> io::Result<(UnixListener, File)> {
    if path.as_os_str().is_empty() {
        let why = "a backdoor needs a path";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let address = SocketAddr::from_pathname(path)?;
    let name = unix_name(&address)?;
    let socket = match bind_privately(&name) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path, &address)? => {
            fs::remove_file(path)?;
            bind_privately(&name)?
        }
        bound => bound?,
    };
    let file = File {
        path: path.to_owned(),
        identity: identity(path),
        maker: process::id(),
    };
    Ok((UnixListener::from(socket), file))
}

/// Whether `path` is a socket on which nobody listens.
fn is_stale(path: &Path, address: &SocketAddr) -> io::Result<bool> {
    let is_socket = fs::symlink_metadata(path)?.file_type().is_socket();
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    Ok(is_socket && connect_unix(&unix_name(address)?).is_err_and(refused))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

impl File {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is the file of a process that has forked this one.
    pub(super) fn is_inherited(&self) -> bool {
        self.maker != process::id()
    }

    /// Removes the file, unless another one has taken its place. Best effort: the directory may be gone.
    pub(super) fn remove(&self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}
