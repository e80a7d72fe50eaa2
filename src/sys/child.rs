//! The end of a child process.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

/// A descriptor that is readable when the child `pid` has ended. That must be the caller's, and not
/// have been waited for: so nobody else has its number.
pub(crate) fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(
        number(pid)?,
        PidfdFlags::empty(),
    )?)
}

/// Blocks the calling OS thread until the child `pid` has ended, and leaves the rest to others.
pub(crate) fn wait_for_end(pid: u32) -> io::Result<()> {
    let id = number(pid)?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let ended = retry_on_intr(|| rustix::process::waitid(WaitId::Pid(id), options));
    Ok(ended.map(drop)?)
}

fn number(pid: u32) -> io::Result<Pid> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    number.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
