//! What types with a descriptor have in common.

/// The conversions of a type that holds a `Descriptor` of std's type in its field `io`.
macro_rules! converts_like_std {
    ($($type:ident: $std:ty),* $(,)?) => {$(
        impl ::std::fmt::Debug for $type {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Debug::fmt(self.io.get(), f)
            }
        }

        impl ::std::os::fd::AsFd for $type {
            fn as_fd(&self) -> ::std::os::fd::BorrowedFd<'_> {
                ::std::os::fd::AsFd::as_fd(self.io.get())
            }
        }

        impl ::std::os::fd::AsRawFd for $type {
            fn as_raw_fd(&self) -> ::std::os::fd::RawFd {
                ::std::os::fd::AsRawFd::as_raw_fd(self.io.get())
            }
        }

        impl ::std::os::fd::IntoRawFd for $type {
            fn into_raw_fd(self) -> ::std::os::fd::RawFd {
                ::std::os::fd::IntoRawFd::into_raw_fd(<$std>::from(self))
            }
        }

        impl From<::std::os::fd::OwnedFd> for $type {
            fn from(fd: ::std::os::fd::OwnedFd) -> $type {
                <$std>::from(fd).into()
            }
        }

        impl From<$type> for ::std::os::fd::OwnedFd {
            fn from(this: $type) -> ::std::os::fd::OwnedFd {
                <$std>::from(this).into()
            }
        }

        impl From<$std> for $type {
            fn from(inner: $std) -> $type {
                $type { io: $crate::reactor::Descriptor::foreign(inner) }
            }
        }

        impl From<$type> for $std {
            fn from(this: $type) -> $std {
                this.io.into_inner()
            }
        }

        impl From<$type> for ::std::process::Stdio {
            fn from(this: $type) -> ::std::process::Stdio {
                <$std>::from(this).into()
            }
        }
    )*};
}

pub(crate) use converts_like_std;
