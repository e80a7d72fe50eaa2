//! A file system whose answers the test delays: a FUSE server of one directory with one file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use super::util;

/// The numbers of the protocol's requests. The last three get no answer.
const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const SETLK: u32 = 32;
const SETLKW: u32 = 33;
const ACCESS: u32 = 34;
const FORGET: u32 = 2;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const FLOCK_LOCKS: u32 = 1 << 10;
const ROOT: u64 = 1;
const FILE: u64 = 2;
/// The name and the content of the file.
pub(crate) const NAME: &str = "file";
pub(crate) const CONTENT: &[u8] = b"what is in the file";

/// A mount, and the descriptor from which its requests are read.
pub(crate) struct Fuse {
    device: File,
    /// For how many seconds the kernel may cache names.
    remembered: u64,
}

impl Fuse {
    /// Mounts at `at`, in the mount namespace of the calling thread.
    pub(crate) fn mount(at: &Path, remembered: u64) -> io::Result<Fuse> {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            device.as_raw_fd()
        );
        util::mount("greenroom-test", at, "fuse", &options)?;
        Ok(Fuse { device, remembered })
    }

    /// Answers requests until the file system is unmounted. Calls `pause` with the number of each request
    /// before it answers.
    pub(crate) fn serve(mut self, mut pause: impl FnMut(u32)) {
        let mut request = vec![0; 1 << 20];
        loop {
            match self.device.read(&mut request) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The file system was unmounted.
                Err(_) => return,
            }
            let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
            let long = |at: usize| u64::from_ne_bytes(request[at..at + 8].try_into().unwrap());
            let (kind, unique, node) = (word(4), long(8), long(16));
            if matches!(kind, FORGET | INTERRUPT | BATCH_FORGET) {
                continue;
            }
            if kind != INIT {
                pause(kind);
            }
            let answer = match kind {
                INIT => Ok(init()),
                LOOKUP => match request[40..].starts_with(b"file\0") {
                    true => Ok(self.entry()),
                    false => Err(libc::ENOENT),
                },
                GETATTR | SETATTR => Ok([longs(&[0, 0]), attributes(node)].concat()),
                OPEN | OPENDIR => Ok(longs(&[0, 0])),
                READ if long(48) == 0 => Ok(CONTENT.to_vec()),
                READ | READDIR => Ok(Vec::new()),
                WRITE => Ok(longs(&[word(56).into()])),
                STATFS => Ok(longs(&[0; 10])),
                RELEASE | FSYNC | FLUSH | RELEASEDIR | SETLK | SETLKW | ACCESS => Ok(Vec::new()),
                _ => Err(libc::ENOSYS),
            };
            let (error, payload) = match answer {
                Ok(payload) => (0, payload),
                Err(error) => (-error, Vec::new()),
            };
            let mut reply = Vec::from((16 + payload.len() as u32).to_ne_bytes());
            reply.extend(error.to_ne_bytes());
            reply.extend(unique.to_ne_bytes());
            reply.extend(payload);
            // Fails if the requester has gone.
            let _ = self.device.write(&reply);
        }
    }

    fn entry(&self) -> Vec<u8> {
        [longs(&[FILE, 0, self.remembered, 0, 0]), attributes(FILE)].concat()
    }
}

/// The version of the protocol, and the flags to use.
fn init() -> Vec<u8> {
    let mut words = [0_u32; 16];
    [words[0], words[1], words[3], words[5]] = [7, 31, FLOCK_LOCKS, 1 << 16];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn attributes(node: u64) -> Vec<u8> {
    let mode = if node == ROOT { 0o040_755 } else { 0o100_644 };
    let mut bytes = longs(&[node, CONTENT.len() as u64, 0, 0, 0, 0]);
    for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0_u32] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}
