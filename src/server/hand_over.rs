//! Listening sockets that a process inherits, by the protocol of systemd: `LISTEN_FDS`.
//!
//! The sockets are descriptors 3 and up. `LISTEN_FDS` has their number, and `LISTEN_PID` the process that they
//! are for. A program that forks and executes another one cannot set `LISTEN_PID`: std takes the
//! environment of the child before the fork. So `hand_over` sets the inode numbers of the sockets instead.
//! Children of the successor inherit the variables but not the sockets, and find no sockets of these numbers.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::FdFlags;
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::shims::net::TcpListener;
use crate::shims::os::unix::net::UnixListener;
use crate::shims::process::{Command, CommandExt as _};
use crate::sys::socket::is_listening;

/// The number of the first socket.
const FIRST: RawFd = 3;

const COUNT: &str = "LISTEN_FDS";
const PROCESS: &str = "LISTEN_PID";
const NAMES: &str = "LISTEN_FDNAMES";
const INODES: &str = "GREENROOM_LISTEN_INODES";

/// Has the process that `command` starts inherit listening sockets, so that it can serve in this process's
/// place.
///
/// The new process takes them by [`listen_fds`]. Both processes may accept from a socket at the same time. So
/// start the successor, wait until it is ready, and then [stop](super::Server::stop) the server here. The
/// connections in the backlog are not lost: they belong to the socket.
///
/// ```no_run
/// use greenroom::server::{Server, hand_over};
/// use greenroom::shims::process::{Command, Stdio};
/// use std::io::Read;
/// use std::os::fd::AsFd;
/// use std::time::Duration;
///
/// fn restart(server: &Server) -> std::io::Result<()> {
///     let mut successor = Command::new(std::env::current_exe()?);
///     hand_over(&mut successor, &[server.listener()?.as_fd()])?;
///     let mut child = successor.stdout(Stdio::piped()).spawn()?;
///     // It writes a byte when it serves.
///     child.stdout.take().unwrap().read_exact(&mut [0])?;
///     server.stop(Duration::from_secs(30));
///     Ok(())
/// }
/// ```
///
/// `command` has duplicates of the sockets until it is dropped. A socket can also be sent to a process that
/// runs already, by [`PassDescriptors`](crate::shims::descriptor::PassDescriptors).
///
/// The protocol is that of systemd, without `LISTEN_PID`: systemd's own function `sd_listen_fds` insists on
/// that variable.
///
/// # Errors
///
/// The operating system's, such as that no descriptor can be had.
pub fn hand_over(command: &mut Command, listeners: &[BorrowedFd<'_>]) -> io::Result<()> {
    let end = FIRST + RawFd::try_from(listeners.len()).map_err(io::Error::other)?;
    let mut inherited = Vec::new();
    let mut inodes = Vec::new();
    for listener in listeners {
        // Beyond the numbers that the child's descriptors get.
        inherited.push(rustix::io::fcntl_dupfd_cloexec(listener, end)?);
        inodes.push(rustix::fs::fstat(listener)?.st_ino.to_string());
    }
    let mut taken = Vec::new();
    if let Some(any) = listeners.first() {
        // The pipe by which std hears of a failed `exec` must not get a number that `dup2` replaces.
        loop {
            let fd = rustix::io::fcntl_dupfd_cloexec(any, FIRST)?;
            if fd.as_raw_fd() >= end {
                break;
            }
            taken.push(fd);
        }
    }
    command
        .env(COUNT, listeners.len().to_string())
        .env(INODES, inodes.join(":"))
        .env_remove(PROCESS)
        .env_remove(NAMES);
    let inherit = move || {
        let _ = &taken;
        for (fd, number) in inherited.iter().zip(FIRST..) {
            // SAFETY: the call has no preconditions on descriptors. What `number` was before is lost to the
            // child, which is about to execute another program.
            if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure calls `dup2` only, which is async-signal-safe.
    unsafe { command.pre_exec(inherit) };
    Ok(())
}

/// Takes the listening sockets that this process was started with: by systemd, by [`hand_over`], or by another
/// program with the same protocol. Empty, if there are none.
///
/// The first successful call has them, and later ones return none. Children do not inherit them.
///
/// ```no_run
/// use greenroom::server::listen_fds;
/// use greenroom::shims::net::TcpListener;
///
/// # fn main() -> std::io::Result<()> {
/// let listener = match listen_fds()?.pop() {
///     Some(inherited) => inherited.into_tcp()?,
///     None => TcpListener::bind("0.0.0.0:8080")?,
/// };
/// # drop(listener);
/// # Ok(())
/// # }
/// ```
///
/// The variables are `LISTEN_FDS`, the number of sockets, from descriptor 3 on; `LISTEN_PID`, the process that they
/// are for; and `LISTEN_FDNAMES`. If `LISTEN_PID` is another process, the sockets were for a
/// parent, and this process has none. If it is missing, and the sockets do not come from [`hand_over`], the sockets
/// are taken to be for this process.
///
/// # Errors
///
/// `InvalidInput`, if a variable does not make sense, or names a descriptor that is not open.
pub fn listen_fds() -> io::Result<Vec<ListenFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let Some(count) = announced(|name| env::var_os(name), std::process::id())? else {
        return Ok(Vec::new());
    };
    let numbers = FIRST..FIRST + count;
    if let Some(inodes) = env::var_os(INODES).filter(|_| env::var_os(PROCESS).is_none()) {
        let found: Vec<_> = numbers.clone().map(inode).collect();
        if *inodes != *found.join(":") {
            return Ok(Vec::new());
        }
    }
    for number in numbers.clone() {
        // SAFETY: if the descriptor is not open, the call fails, and nothing else uses it.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        if rustix::io::fcntl_getfd(fd).is_err() {
            let why = format!("{COUNT} is {count}, but descriptor {number} is not open");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
    }
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let names = env::var_os(NAMES).unwrap_or_default();
    let mut names = names.to_str().unwrap_or_default().split(':');
    let inherited = numbers.map(|number| {
        // SAFETY: the descriptor is open. The process that has started this one has made it for this
        // process, whose only code that takes it is here, once.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        let name = names.next().filter(|name| !name.is_empty());
        Ok(ListenFd {
            fd,
            name: name.map(Into::into),
        })
    });
    inherited.collect()
}

/// The inode number of the descriptor, as `hand_over` writes it. Empty, if it is not open.
fn inode(number: RawFd) -> String {
    // SAFETY: if the descriptor is not open, the call fails, and nothing else uses it.
    let stat = rustix::fs::fstat(unsafe { BorrowedFd::borrow_raw(number) });
    stat.map_or_else(|_| String::new(), |stat| stat.st_ino.to_string())
}

/// How many sockets the environment announces for the process `own`. `None`, if it announces none.
fn announced(var: impl Fn(&str) -> Option<OsString>, own: u32) -> io::Result<Option<RawFd>> {
    let number = |name: &str| -> io::Result<Option<u32>> {
        let Some(value) = var(name) else {
            return Ok(None);
        };
        let number = value.to_str().and_then(|value| value.parse().ok());
        number.map(Some).ok_or_else(|| {
            let why = format!("{name} is not a number: {value:?}");
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })
    };
    let Some(count) = number(COUNT)? else {
        return Ok(None);
    };
    if number(PROCESS)?.is_some_and(|process| process != own) {
        return Ok(None);
    }
    // As systemd: the numbers must be those of descriptors.
    let count = RawFd::try_from(count).ok();
    let count = count.filter(|count| *count < RawFd::MAX - FIRST);
    count.map(Some).ok_or_else(|| {
        let why = format!("{COUNT} announces more sockets than there can be");
        io::Error::new(io::ErrorKind::InvalidInput, why)
    })
}

/// A socket that this process was started with. See [`listen_fds`].
#[derive(Debug)]
pub struct ListenFd {
    fd: OwnedFd,
    name: Option<String>,
}

impl ListenFd {
    /// Its name in `LISTEN_FDNAMES`.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The socket as a TCP listener.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, if it is no TCP socket that listens.
    pub fn into_tcp(self) -> io::Result<TcpListener> {
        let families = [AddressFamily::INET, AddressFamily::INET6];
        self.check(&families, "TCP")?;
        Ok(self.fd.into())
    }

    /// The socket as a Unix listener.
    ///
    /// # Errors
    ///
    /// `InvalidInput`, if it is no Unix stream socket that listens.
    pub fn into_unix(self) -> io::Result<UnixListener> {
        self.check(&[AddressFamily::UNIX], "Unix stream")?;
        Ok(self.fd.into())
    }

    fn check(&self, families: &[AddressFamily], kind: &str) -> io::Result<()> {
        let fd = self.fd.as_fd();
        let is_one = is_listening(fd)
            && sockopt::socket_type(fd).is_ok_and(|found| found == SocketType::STREAM)
            && sockopt::socket_domain(fd).is_ok_and(|found| families.contains(&found));
        match is_one {
            true => Ok(()),
            false => {
                let number = fd.as_raw_fd();
                let why = format!("descriptor {number} of {COUNT} is no listening {kind} socket");
                Err(io::Error::new(io::ErrorKind::InvalidInput, why))
            }
        }
    }
}

impl AsFd for ListenFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// For sockets of other kinds, which systemd can pass as well.
impl From<ListenFd> for OwnedFd {
    fn from(inherited: ListenFd) -> OwnedFd {
        inherited.fd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announced_by(vars: &[(&str, &str)]) -> Result<Option<RawFd>, String> {
        let value = |name: &str| {
            vars.iter()
                .find(|var| var.0 == name)
                .map(|var| var.1.into())
        };
        announced(value, 7).map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_announces_sockets_for_one_process() {
        assert_eq!(announced_by(&[]), Ok(None));
        assert_eq!(announced_by(&[(PROCESS, "7")]), Ok(None));
        assert_eq!(announced_by(&[(COUNT, "2"), (PROCESS, "7")]), Ok(Some(2)));
        assert_eq!(announced_by(&[(COUNT, "2"), (PROCESS, "8")]), Ok(None));
        assert_eq!(announced_by(&[(COUNT, "0")]), Ok(Some(0)));
    }

    #[test]
    fn a_variable_that_makes_no_sense_is_an_error_that_names_it() {
        let errors = [
            (&[(COUNT, "two")][..], "LISTEN_FDS is not a number: \"two\""),
            (&[(COUNT, "-1")], "LISTEN_FDS is not a number: \"-1\""),
            (&[(COUNT, "")], "LISTEN_FDS is not a number: \"\""),
            (
                &[(COUNT, "1"), (PROCESS, "me")],
                "LISTEN_PID is not a number: \"me\"",
            ),
            (
                &[(COUNT, "4000000000")],
                "LISTEN_FDS announces more sockets than there can be",
            ),
        ];
        for (vars, error) in errors {
            assert_eq!(announced_by(vars), Err(error.into()));
        }
    }
}
