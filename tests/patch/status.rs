//! Which functions reach the patch.

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::ptr::null_mut;

use crate::calls::{alike, call, later};

macro_rules! define_names {
    ($($kind:ident fn $name:ident($($arg:ident: $type:ty),*) -> $ret:ty $(= ($($probe:expr),*))?;)*) => {
        /// All functions of the table.
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

greenroom::__patched_functions!([define_names]);

#[test]
fn the_status_leaves_out_only_what_has_no_harmless_call() {
    let status = greenroom::patch::status();
    assert!(status.is_in_force(), "{status}");
    let is_left_out = |name: &&&str| status.functions().iter().all(|f| f.name != **name);
    let mut left_out: Vec<_> = NAMES.iter().filter(is_left_out).copied().collect();
    left_out.retain(|name| !name.starts_with("gethostby"));
    // Older versions of the C library do not have these.
    left_out.retain(|name| !["epoll_pwait2", "sem_clockwait"].contains(name));
    left_out.retain(|name| !(name.starts_with("pthread_") && name.contains("_clock")));
    assert_eq!(left_out, ["pthread_rwlock_unlock", "wait", "__wait"]);
}

#[test]
fn other_names_of_the_functions_park_too() {
    alike(|c| {
        let (reader, writer) = io::pipe().unwrap();
        let (fd, mut buf) = (reader.into_raw_fd(), [0u8; 9]);
        let writer = later(move || {
            let c = crate::calls::patched();
            let written = call!(c.__write(writer.as_raw_fd(), b"one".as_ptr().cast(), 3));
            assert_eq!(written, Ok(3));
            writer
        });
        assert_eq!(call!(c.__read(fd, buf.as_mut_ptr().cast(), 9)), Ok(3));
        let writer = writer.join().unwrap();
        let closer = later(move || drop(writer));
        let mut entry = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        assert_eq!(call!(c.__poll(&raw mut entry, 1, -1)), Ok(1));
        closer.join().unwrap();
        assert_eq!(call!(c.__close(fd)), Ok(0));
        let no_child = call!(c.__waitpid(libc::pid_t::MAX, null_mut(), 0));
        assert_eq!(no_child, Err(libc::ECHILD));
    });
}
