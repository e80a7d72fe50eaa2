//! What sockets have in common: how long operations wait, and whether they do.

/// The two kinds of operations of a shim whose field `io` is the descriptor of a `$std`, and their
/// timeouts and mode: for the impl of the shim.
macro_rules! waits_as_set {
    ($std:path) => {
        fn reading(&self) -> $crate::reactor::Operation<'_, $std> {
            self.io
                .operation($crate::reactor::Direction::Read)
                .socket_timeout(<$std>::read_timeout)
        }

        fn writing(&self) -> $crate::reactor::Operation<'_, $std> {
            self.io
                .operation($crate::reactor::Direction::Write)
                .socket_timeout(<$std>::write_timeout)
        }

        #[doc = concat!("Like [`", stringify!($std), "::set_read_timeout`].")]
        pub fn set_read_timeout(
            &self,
            timeout: Option<::std::time::Duration>,
        ) -> ::std::io::Result<()> {
            self.io.get().set_read_timeout(timeout)?;
            self.io
                .set_timeout($crate::reactor::Direction::Read, timeout);
            Ok(())
        }

        #[doc = concat!("Like [`", stringify!($std), "::set_write_timeout`].")]
        pub fn set_write_timeout(
            &self,
            timeout: Option<::std::time::Duration>,
        ) -> ::std::io::Result<()> {
            self.io.get().set_write_timeout(timeout)?;
            self.io
                .set_timeout($crate::reactor::Direction::Write, timeout);
            Ok(())
        }

        #[doc = concat!("Like [`", stringify!($std), "::read_timeout`].")]
        pub fn read_timeout(&self) -> ::std::io::Result<Option<::std::time::Duration>> {
            self.io.get().read_timeout()
        }

        #[doc = concat!("Like [`", stringify!($std), "::write_timeout`].")]
        pub fn write_timeout(&self) -> ::std::io::Result<Option<::std::time::Duration>> {
            self.io.get().write_timeout()
        }

        #[doc = concat!("Like [`", stringify!($std), "::set_nonblocking`]: in non-blocking mode,")]
        /// operations return `WouldBlock` instead of parking.
        pub fn set_nonblocking(&self, nonblocking: bool) -> ::std::io::Result<()> {
            self.io.get().set_nonblocking(nonblocking)?;
            self.io.set_nonblocking(nonblocking);
            Ok(())
        }
    };
}

pub(super) use waits_as_set;
