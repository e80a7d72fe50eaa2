//! The links, and the file that keeps them.

use std::fs::TryLockError;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use greenroom::shims::fs::{File, OpenOptions};
use greenroom::shims::sync::{Mutex, RwLock};

/// Addresses, each of which has a code: its line in the journal.
pub(crate) struct Links {
    addresses: RwLock<Vec<String>>,
    journal: Mutex<Journal>,
}

struct Journal {
    file: File,
    /// The length of its complete lines.
    length: u64,
}

impl Links {
    /// Reads the journal, or makes it if there is none. One process at a time can have it.
    pub(crate) fn open(path: &Path) -> io::Result<Links> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another process has this journal"),
            TryLockError::Error(error) => error,
        })?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A loss of power leaves a part of the last line, for which nobody has got a code.
        let length = text.rfind('\n').map_or(0, |end| end + 1);
        Ok(Links {
            addresses: RwLock::new(text[..length].lines().map(str::to_owned).collect()),
            journal: Mutex::new(Journal {
                file,
                length: length as u64,
            }),
        })
    }

    /// Stores an address, and returns its code. By then, it is on the disk.
    ///
    /// The lock is held while the disk works. Coroutines that have an address to store wait for the lock, all
    /// others run on. The deadline of a request interrupts neither locks nor files.
    pub(crate) fn add(&self, address: &str) -> io::Result<String> {
        let journal = &mut *self.journal.lock().unwrap();
        // Removes what an earlier call has left that has failed, such as on a full disk.
        journal.file.set_len(journal.length)?;
        let line = format!("{address}\n");
        journal.file.write_all(line.as_bytes())?;
        journal.file.sync_data()?;
        journal.length += line.len() as u64;
        let mut addresses = self.addresses.write().unwrap();
        addresses.push(address.to_owned());
        Ok(format!("{:x}", addresses.len()))
    }

    pub(crate) fn get(&self, code: &str) -> Option<String> {
        let number = usize::from_str_radix(code, 16).ok()?;
        let addresses = self.addresses.read().unwrap();
        addresses.get(number.checked_sub(1)?).cloned()
    }

    pub(crate) fn count(&self) -> usize {
        self.addresses.read().unwrap().len()
    }
}

/// Whether this is an address of HTTP that a field of a reply, and a line of the journal, can hold.
pub(crate) fn check(address: &str) -> io::Result<()> {
    let host = ["http://", "https://"]
        .iter()
        .find_map(|scheme| address.strip_prefix(scheme));
    let is_plain = address.bytes().all(|byte| byte.is_ascii_graphic());
    match host {
        Some(host) if !host.is_empty() && is_plain => Ok(()),
        _ => {
            let why = "an address begins with http:// or https://, and has no spaces";
            Err(io::Error::new(ErrorKind::InvalidData, why))
        }
    }
}
