//! A write takes the room that is there. The kernel reports room only when there is much of it.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use greenroom::shims::io::PipeWriter;
use greenroom::shims::os::unix::net::{UnixDatagram, UnixStream};
use greenroom::shims::thread;

use crate::util;

/// The size of a write. Each write takes all or nothing.
const SIZE: usize = 1000;

/// One of two ends.
struct Ends {
    /// Writes, or returns `WouldBlock`.
    write: Box<dyn FnMut() -> io::Result<usize> + Send>,
    /// Sets the mode of the writing end.
    set_nonblocking: Box<dyn Fn(bool) + Send>,
    /// Reads what one write has written.
    read: Box<dyn FnMut() + Send>,
}

impl Ends {
    /// Fills the buffer. Returns the number of writes.
    fn fill(&mut self) -> usize {
        (self.set_nonblocking)(true);
        let written = std::iter::from_fn(|| (self.write)().ok()).count();
        (self.set_nonblocking)(false);
        written
    }
}

/// A kind of connection, and how to make one with a timeout for writes, if it has timeouts.
type Kind = (&'static str, fn(Option<Duration>) -> Ends);

const KINDS: [Kind; 2] = [
    ("a Unix stream", |timeout| {
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        let near = UnixStream::from(near);
        near.set_write_timeout(timeout).unwrap();
        let set = near.try_clone().unwrap();
        Ends {
            write: Box::new(move || (&near).write(&[7; SIZE])),
            set_nonblocking: Box::new(move |on| set.set_nonblocking(on).unwrap()),
            read: Box::new(move || far.read_exact(&mut [0; SIZE]).unwrap()),
        }
    }),
    ("a Unix datagram socket", |timeout| {
        let (near, far) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let near = UnixDatagram::from(near);
        near.set_write_timeout(timeout).unwrap();
        let set = near.try_clone().unwrap();
        Ends {
            write: Box::new(move || near.send(&[7; SIZE])),
            set_nonblocking: Box::new(move |on| set.set_nonblocking(on).unwrap()),
            read: Box::new(move || assert_eq!(far.recv(&mut [0; SIZE]).unwrap(), SIZE)),
        }
    }),
];

#[test]
fn a_write_that_would_block_does_not_make_the_next_wait_if_there_is_room() {
    for (what, make) in KINDS {
        util::everywhere(|| {
            let mut ends = make(None);
            assert!(ends.fill() > 1, "{what}");
            (ends.read)();
            // This would hang if the write waited.
            assert_eq!((ends.write)().unwrap(), SIZE, "{what}");
        });
    }
}

#[test]
fn a_waiting_write_does_not_time_out_if_there_is_room_at_its_deadline() {
    for (what, make) in KINDS {
        const TIMEOUT: Duration = Duration::from_millis(500);
        util::everywhere(|| {
            let mut ends = make(Some(TIMEOUT));
            assert!(ends.fill() > 1, "{what}");
            let mut read = ends.read;
            let begun = Instant::now();
            let reader = thread::spawn(move || {
                util::settle();
                read();
                (read, Instant::now())
            });
            let written = util::uninterrupted(|| (ends.write)());
            let (_open, read_at) = reader.join().unwrap();
            match written {
                Ok(size) => assert_eq!(size, SIZE, "{what}"),
                // The machine has stood still.
                Err(error) => assert!(read_at >= begun + TIMEOUT, "{what}: {error}"),
            }
            util::assert_times_out(|| (ends.write)());
        });
    }
}

#[test]
fn a_write_into_a_pipe_takes_room_that_another_reader_has_made() {
    util::everywhere(|| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        while (&writer).write(&[7; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(&writer, false).unwrap();
        let mut writer = PipeWriter::from(OwnedFd::from(writer));
        let waiter = thread::spawn(move || writer.write(&[7; 4096]));
        util::settle();
        reader.read_exact(&mut [0; 4096]).unwrap();
        assert_eq!(waiter.join().unwrap().unwrap(), 4096);
    });
}
