//! Polls: waiting for a descriptor of any kind.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use greenroom::shims::fs::File;
use greenroom::{Interest, after, wait_fd};
use rustix::event::{EventfdFlags, eventfd};

pub(crate) fn show() -> io::Result<String> {
    let counter = eventfd(0, EventfdFlags::CLOEXEC)?;
    let soon = Instant::now() + Duration::from_millis(10);
    let silence = wait_fd(&counter, Interest::READABLE, Some(soon)).unwrap_err();

    let adder = counter.try_clone()?;
    after(Duration::from_millis(10), move || {
        rustix::io::write(&adder, &3_u64.to_ne_bytes()).expect("the counter is small");
    });
    let ready = wait_fd(&counter, Interest::READABLE, None)?;
    let mut value = [0; 8];
    rustix::io::read(&counter, &mut value)?;
    let value = u64::from_ne_bytes(value);

    // A poll of a file would say at once that it is ready, and the read would block.
    let file = File::open(std::env::current_exe()?)?;
    let refused = wait_fd(&file, Interest::READABLE, None).unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::TimedOut);
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    Ok(format!(
        "silence, then an eventfd with {value} (readable: {}), and no waiting for files",
        ready.is_readable()
    ))
}
