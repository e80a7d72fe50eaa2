//! What descriptors can do beyond std: the way back to std's types, and to other processes.
//!
//! These are extension traits, lest std adds the names.

mod passing;
#[cfg(feature = "socket2")]
mod socket2;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::reactor::Descriptor;

pub use passing::PassDescriptors;

/// Gives a shim up for what it wraps: for code that takes nothing but std's own.
///
/// The same as `From`, where the type that is meant need not be written. The descriptor is then as
/// the user has set it: its mode, its timeouts.
///
/// ```
/// use greenroom::shims::descriptor::IntoStd;
/// use greenroom::shims::os::unix::net::UnixStream;
///
/// # fn main() -> std::io::Result<()> {
/// let (near, far) = UnixStream::pair()?;
/// let far: std::os::unix::net::UnixStream = far.into_std();
/// # drop((near, far));
/// # Ok(())
/// # }
/// ```
pub trait IntoStd {
    /// The type of std's.
    type Std;

    /// Gives the descriptor up to std.
    fn into_std(self) -> Self::Std;
}

/// The descriptor conversions of a shim whose field `io` holds, and by `get` shows, one of std's
/// types, but for what not all of std's have; and both ways between the two, made by `$adopt` and
/// `$release`.
macro_rules! descriptor_conversions {
    (
        $shim:ident, $std:ty,
        adopt: $adopt:expr,
        $(#[$note:meta])*
        release: $release:expr,
    ) => {
        impl ::std::fmt::Debug for $shim {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                self.io.get().fmt(f)
            }
        }

        impl ::std::os::fd::AsFd for $shim {
            fn as_fd(&self) -> ::std::os::fd::BorrowedFd<'_> {
                self.io.expose().as_fd()
            }
        }

        impl ::std::os::fd::AsRawFd for $shim {
            fn as_raw_fd(&self) -> ::std::os::fd::RawFd {
                self.io.expose().as_raw_fd()
            }
        }

        impl ::std::os::fd::IntoRawFd for $shim {
            fn into_raw_fd(self) -> ::std::os::fd::RawFd {
                <$std>::from(self).into_raw_fd()
            }
        }

        impl From<::std::os::fd::OwnedFd> for $shim {
            fn from(fd: ::std::os::fd::OwnedFd) -> $shim {
                <$std>::from(fd).into()
            }
        }

        $(#[$note])*
        impl From<$shim> for ::std::os::fd::OwnedFd {
            fn from(shim: $shim) -> ::std::os::fd::OwnedFd {
                <$std>::from(shim).into()
            }
        }

        /// Takes over what is std's, in the mode and with the timeouts that it has.
        impl From<$std> for $shim {
            fn from(inner: $std) -> $shim {
                let adopt: fn($std) -> $shim = $adopt;
                adopt(inner)
            }
        }

        /// Gives it up to std, in the mode and with the timeouts that the user has set.
        $(#[$note])*
        impl From<$shim> for $std {
            fn from(shim: $shim) -> $std {
                let release: fn($shim) -> $std = $release;
                release(shim)
            }
        }

        $(#[$note])*
        impl $crate::shims::descriptor::IntoStd for $shim {
            type Std = $std;

            fn into_std(self) -> $std {
                self.into()
            }
        }
    };
}

/// The making of a shim from a number, of those where std's type has it.
macro_rules! from_raw_descriptor {
    ($($shim:ident: $std:ty),* $(,)?) => {$(
        impl ::std::os::fd::FromRawFd for $shim {
            unsafe fn from_raw_fd(fd: ::std::os::fd::RawFd) -> $shim {
                // SAFETY: the caller's promise is the same.
                unsafe { <$std>::from_raw_fd(fd) }.into()
            }
        }
    )*};
}

/// The conversions of shims whose field `io` is a `Descriptor` of one of std's types.
macro_rules! plain_descriptor_conversions {
    ($($shim:ident: $std:ty),* $(,)?) => {$(
        $crate::shims::descriptor::descriptor_conversions! {
            $shim, $std,
            adopt: |inner| $shim {
                io: $crate::reactor::Descriptor::foreign(inner),
            },
            release: |shim| shim.io.into_inner(),
        }
    )*};
}

/// What a child may get for a standard stream, of those where std's type has it.
macro_rules! into_stdio {
    ($($shim:ident: $std:ty),* $(,)?) => {$(
        impl From<$shim> for ::std::process::Stdio {
            fn from(shim: $shim) -> ::std::process::Stdio {
                <$std>::from(shim).into()
            }
        }
    )*};
}

/// Reads and writes of a shim, of which a reference can do the same.
macro_rules! reads_and_writes_by_reference {
    ($shim:ident) => {
        impl ::std::io::Read for $shim {
            fn read(&mut self, buf: &mut [u8]) -> ::std::io::Result<usize> {
                (&*self).read(buf)
            }

            fn read_vectored(
                &mut self,
                bufs: &mut [::std::io::IoSliceMut<'_>],
            ) -> ::std::io::Result<usize> {
                (&*self).read_vectored(bufs)
            }

            fn read_to_end(&mut self, buf: &mut Vec<u8>) -> ::std::io::Result<usize> {
                (&*self).read_to_end(buf)
            }

            fn read_to_string(&mut self, buf: &mut String) -> ::std::io::Result<usize> {
                (&*self).read_to_string(buf)
            }
        }

        impl ::std::io::Write for $shim {
            fn write(&mut self, buf: &[u8]) -> ::std::io::Result<usize> {
                (&*self).write(buf)
            }

            fn write_vectored(
                &mut self,
                bufs: &[::std::io::IoSlice<'_>],
            ) -> ::std::io::Result<usize> {
                (&*self).write_vectored(bufs)
            }

            fn flush(&mut self) -> ::std::io::Result<()> {
                (&*self).flush()
            }
        }
    };
}

pub(super) use {
    descriptor_conversions, from_raw_descriptor, into_stdio, plain_descriptor_conversions,
    reads_and_writes_by_reference,
};

/// Takes a stream out, or if a file shares it, a duplicate of it.
///
/// # Panics
///
/// If no descriptor can be had for the duplicate.
pub(super) fn release_shared<T: AsFd>(
    io: Arc<Descriptor<T>>,
    try_clone: fn(&T) -> io::Result<T>,
) -> T {
    Arc::try_unwrap(io).map_or_else(
        |shared| try_clone(shared.get()).expect("a duplicate of a shared connection"),
        Descriptor::into_inner,
    )
}
