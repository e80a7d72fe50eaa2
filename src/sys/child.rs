//! The end of a child process.
#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

/// Opens a descriptor that is readable once the child `pid` has ended, by pidfd_open(2).
///
/// The child must be the caller's, and must not have been reaped: until then no other process can
/// have its number.
///
/// # Errors
///
/// The kernel's: out of descriptors, or the kernel is older than 5.3. `InvalidInput`, if `pid` is not
/// the number of a process.
pub(crate) fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(
        number(pid)?,
        PidfdFlags::empty(),
    )?)
}

/// Blocks the calling OS thread until the child `pid` has ended. Does not reap the child: its exit
/// status is still there to be waited for.
///
/// # Errors
///
/// The kernel's: `ECHILD`, if the caller has no such child. `InvalidInput`, if `pid` is not the
/// number of a process.
pub(crate) fn wait_for_end(pid: u32) -> io::Result<()> {
    let id = number(pid)?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let ended = retry_on_intr(|| rustix::process::waitid(WaitId::Pid(id), options));
    Ok(ended.map(drop)?)
}

/// The process number as the kernel takes it.
fn number(pid: u32) -> io::Result<Pid> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    number.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
