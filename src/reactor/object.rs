//! What a descriptor is, as a dump tells it.

use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::Path;
use std::{fs, io};

use rustix::net::{SocketAddrAny, SocketAddrUnix, getpeername, getsockname};

use crate::task::{AwaitedDescriptor, Awaits, Reason};

/// The description of a wait for descriptors, each with the interest in it. Asks the kernel about them.
pub(super) fn awaits(
    reason: Reason,
    watched: impl Iterator<Item = (RawFd, &'static str)>,
) -> Awaits {
    let descriptors = watched.map(|(number, interest)| AwaitedDescriptor {
        number,
        interest,
        object: object(number),
    });
    let descriptors: Vec<_> = descriptors.collect();
    let child = match descriptors.as_slice() {
        [only] => child(only),
        _ => None,
    };
    Awaits {
        detail: child.as_ref().map(|pid| format!("process {pid}")),
        descriptors,
        ..Awaits::new(if child.is_some() {
            Reason::Child
        } else {
            reason
        })
    }
}

/// What the descriptor is: the addresses of a socket, or the kernel's name for anything else.
fn object(number: RawFd) -> Option<String> {
    // SAFETY: the descriptor is only asked what it is. A coroutine waits for it, so it is open; if it is closed
    // meanwhile, the kernel says that, or tells what has its number then.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    let peer = getpeername(fd).ok().flatten().and_then(name);
    if let Some(peer) = peer {
        return Some(format!("connected to {peer}"));
    }
    match getsockname(fd) {
        Ok(own) => name(own).map(|own| format!("bound to {own}")),
        Err(_) => {
            let link = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
            Some(link.to_string_lossy().into_owned())
        }
    }
}

fn name(address: SocketAddrAny) -> Option<String> {
    if let Ok(inet) = SocketAddr::try_from(address.clone()) {
        return Some(inet.to_string());
    }
    let unix = SocketAddrUnix::try_from(address).ok()?;
    let name = match (unix.path_bytes(), unix.abstract_name()) {
        (Some(path), _) => String::from_utf8_lossy(path).into_owned(),
        (None, Some(name)) => format!("@{}", String::from_utf8_lossy(name)),
        (None, None) => "an unnamed socket".into(),
    };
    Some(name)
}

/// The process of a pidfd.
fn child(descriptor: &AwaitedDescriptor) -> Option<u32> {
    let object = descriptor.object.as_deref()?;
    if !object.contains("pidfd") {
        return None;
    }
    let info = read_info(descriptor.number).ok()?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok()
}

fn read_info(number: RawFd) -> io::Result<String> {
    fs::read_to_string(Path::new("/proc/self/fdinfo").join(number.to_string()))
}
