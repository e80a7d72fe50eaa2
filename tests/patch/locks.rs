//! flock(2), and the locks of fcntl(2).

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use libc::{
    EAGAIN, EBADF, EFAULT, EINVAL, F_OFD_SETLK, F_OFD_SETLKW, F_SETLK, F_SETLKW, F_UNLCK, F_WRLCK,
    LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, c_int,
};

use crate::calls::{Calls, alike, call, later, nowhere};
use crate::util::{Scratch, again, on_an_os_thread, role};

fn open(path: &Path) -> File {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false);
    options.open(path).unwrap()
}

/// Calls fcntl for a lock of the first ten bytes.
fn lock(c: &Calls, file: &File, command: c_int, kind: c_int) -> Result<i64, c_int> {
    // SAFETY: a C struct of numbers, for which all-zero bytes are valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as _;
    lock.l_len = 10;
    let argument = (&raw const lock).expose_provenance();
    call!(c.fcntl64(file.as_raw_fd(), command, argument))
}

#[test]
fn a_lock_of_a_whole_file_is_waited_for() {
    alike(|c| {
        let dir = Scratch::new();
        let path = dir.join("file");
        let [one, other, third] = [(); 3].map(|()| open(&path));
        let flock = |file: &File, operation| call!(c.flock(file.as_raw_fd(), operation));
        assert_eq!(flock(&one, LOCK_SH), Ok(0));
        assert_eq!(flock(&other, LOCK_SH), Ok(0));
        assert_eq!(flock(&other, LOCK_EX | LOCK_NB), Err(EAGAIN));
        assert_eq!(flock(&other, LOCK_UN), Ok(0));
        let unlocker = later(move || drop(one));
        assert_eq!(flock(&other, LOCK_EX), Ok(0));
        unlocker.join().unwrap();
        assert_eq!(flock(&third, LOCK_SH | LOCK_NB), Err(EAGAIN));
        let copy = other.try_clone().unwrap();
        let unlocker = later(move || {
            // SAFETY: the call takes any numbers.
            assert_eq!(unsafe { libc::flock(copy.as_raw_fd(), LOCK_UN) }, 0);
        });
        assert_eq!(flock(&third, LOCK_SH), Ok(0));
        unlocker.join().unwrap();

        assert_eq!(flock(&third, 0), Err(EINVAL));
        assert_eq!(flock(&third, LOCK_SH | LOCK_EX), Err(EINVAL));
        assert_eq!(call!(c.flock(-1, LOCK_EX)), Err(EBADF));
        assert_eq!(call!(c.flock(99_999, LOCK_UN)), Err(EBADF));
    });
}

#[test]
fn a_lock_of_an_open_file_is_waited_for() {
    alike(|c| {
        let dir = Scratch::new();
        let path = dir.join("file");
        let [one, other] = [(); 2].map(|()| open(&path));
        assert_eq!(lock(c, &one, F_OFD_SETLKW, F_WRLCK), Ok(0));
        assert_eq!(lock(c, &other, F_OFD_SETLK, F_WRLCK), Err(EAGAIN));
        let unlocker = later(move || drop(one));
        assert_eq!(lock(c, &other, F_OFD_SETLKW, F_WRLCK), Ok(0));
        unlocker.join().unwrap();
        assert_eq!(lock(c, &other, F_OFD_SETLKW, F_UNLCK), Ok(0));

        let read_only = File::open(&path).unwrap();
        for command in [F_OFD_SETLKW, F_SETLKW] {
            assert_eq!(lock(c, &read_only, command, F_WRLCK), Err(EBADF));
            assert_eq!(lock(c, &other, command, 77), Err(EINVAL));
            let (fd, bad) = (other.as_raw_fd(), nowhere::<u8>().addr());
            assert_eq!(call!(c.fcntl(fd, command, bad)), Err(EFAULT));
            assert_eq!(call!(c.fcntl(-1, command, bad)), Err(EBADF));
        }
    });
}

#[test]
fn other_commands_of_fcntl_are_as_ever() {
    alike(|c| {
        let file = File::open("/dev/null").unwrap();
        let fd = file.as_raw_fd();
        assert_eq!(
            call!(c.fcntl(fd, libc::F_GETFD, 0)),
            Ok(libc::FD_CLOEXEC.into())
        );
        assert_eq!(call!(c.fcntl64(fd, libc::F_SETFD, 0)), Ok(0));
        assert_eq!(call!(c.fcntl64(fd, libc::F_GETFD, 0)), Ok(0));
        let copy = call!(c.fcntl(fd, libc::F_DUPFD_CLOEXEC, 1000)).unwrap();
        assert!(copy >= 1000);
        assert_eq!(call!(c.close(copy as c_int)), Ok(0));
        assert_eq!(call!(c.fcntl(fd, 9999, 0)), Err(EINVAL));
    });
}

/// Another process that has locked the file, until its input ends.
fn locker(path: &Path) -> (Child, impl Read) {
    let mut command = again!("the_lock_of_another_process_is_waited_for", "locker");
    let command: &mut Command = command.env("LOCKED", path);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap());
    let locked = told
        .by_ref()
        .lines()
        .any(|line| line.unwrap().contains("locked it"));
    assert!(locked);
    (child, told)
}

#[test]
fn the_lock_of_another_process_is_waited_for() {
    if role().is_some() {
        let path = std::env::var_os("LOCKED").unwrap();
        return on_an_os_thread(|| {
            let (c, file) = (crate::calls::patched(), open(path.as_ref()));
            assert_eq!(lock(c, &file, F_SETLKW, F_WRLCK), Ok(0));
            std::io::stdout().write_all(b"\nlocked it\n").unwrap();
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        });
    }
    alike(|c| {
        let dir = Scratch::new();
        let path = dir.join("file");
        let file = open(&path);
        let (mut child, _told) = locker(&path);
        assert_eq!(lock(c, &file, F_SETLK, F_WRLCK), Err(EAGAIN));
        let stdin = child.stdin.take();
        let unlocker = later(move || drop(stdin));
        assert_eq!(lock(c, &file, F_SETLKW, F_WRLCK), Ok(0));
        unlocker.join().unwrap();
        assert!(child.wait().unwrap().success());
    });
}
