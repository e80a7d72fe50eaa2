//! rustix for a crate whose own threads may be coroutines: `event::epoll::wait` parks.

pub use rustix::*;

pub mod event {
    pub use rustix::event::*;

    pub mod epoll {
        use std::os::fd::AsFd;
        use std::time::Duration;

        use rustix::buffer::Buffer;
        use rustix::event::Timespec;
        use rustix::io;

        pub use rustix::event::epoll::*;

        /// As [`rustix::event::epoll::wait`].
        pub fn wait<Events: Buffer<Event>>(
            epoll: impl AsFd,
            events: Events,
            timeout: Option<&Timespec>,
        ) -> io::Result<Events::Output> {
            let given = timeout.map(|timeout| Duration::try_from(*timeout));
            let left = match given {
                // The kernel refuses a negative timeout.
                Some(Err(_)) => return rustix::event::epoll::wait(epoll, events, timeout),
                Some(Ok(given)) => greenroom::__wait_for_poll(&epoll, Some(given)),
                None => greenroom::__wait_for_poll(&epoll, None),
            };
            // It is not longer than the given one, which was a `Timespec`.
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            rustix::event::epoll::wait(epoll, events, left.as_ref())
        }
    }
}
