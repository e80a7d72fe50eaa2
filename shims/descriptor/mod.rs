//! What descriptors can do beyond std: conversion back to std's types, and sending descriptors to other
//! processes.
//!
//! Both are extension traits, so that std may later add methods of the same names.

mod from_raw_fd;
mod passing;
#[cfg(feature = "socket2")]
mod socket2;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::reactor::Descriptor;

pub use passing::PassDescriptors;

/// Converts a shim into the std type that it wraps, for code that takes only std's own types.
///
/// Does the same as `From`, but the target type need not be written. The descriptor keeps the mode and
/// the timeouts that the user has set.
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
    /// The std type.
    type Std;

    /// Returns the wrapped std type.
    fn into_std(self) -> Self::Std;
}

/// Implements the descriptor conversions of a shim. The field `io` of the shim has a method `get` that
/// returns `&$std`, and a method `expose` that returns the same for the user.
///
/// `adopt` makes a shim of a `$std`, and `release` a `$std` of a shim. Without them, the field is taken
/// for a `Descriptor<$std>`.
macro_rules! descriptor_conversions {
    ($($shim:ident: $std:ty),* $(,)?) => {$(
        $crate::shims::descriptor::descriptor_conversions! {
            $shim: $std,
            adopt: |inner| $shim {
                io: $crate::reactor::Descriptor::foreign(inner),
            },
            release: |shim| shim.io.give_away(),
        }
    )*};
    (
        $shim:ident: $std:ty,
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

        /// Takes over the descriptor of a std type, with its mode and its timeouts.
        impl From<$std> for $shim {
            fn from(inner: $std) -> $shim {
                let adopt: fn($std) -> $shim = $adopt;
                adopt(inner)
            }
        }

        /// Gives the descriptor up to std, with the mode and the timeouts that the user has set.
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

/// Implements the conversion of shims into what a child process may get for a standard stream. std has
/// the conversion for the same types.
macro_rules! into_stdio {
    ($($shim:ident: $std:ty),* $(,)?) => {$(
        impl From<$shim> for ::std::process::Stdio {
            fn from(shim: $shim) -> ::std::process::Stdio {
                <$std>::from(shim).into()
            }
        }
    )*};
}

/// Implements `Read` and `Write` for a shim by the implementations for a reference to the shim.
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

pub(super) use {descriptor_conversions, into_stdio, reads_and_writes_by_reference};

/// Takes the stream out of `io`. If a file made by `makefile` shares the stream, returns a duplicate.
///
/// # Panics
///
/// If the duplicate needs a descriptor and none can be had.
pub(super) fn release_shared<T: AsFd>(
    io: Arc<Descriptor<T>>,
    try_clone: fn(&T) -> io::Result<T>,
) -> T {
    Arc::try_unwrap(io).map_or_else(
        |shared| try_clone(shared.expose()).expect("a duplicate of a shared connection"),
        Descriptor::give_away,
    )
}
