//! The parent's ends of a child's pipes.
#![forbid(unsafe_code)]

use std::process;

use crate::reactor::Descriptor;
use crate::shims::descriptor::{descriptor_conversions, into_stdio};
use crate::shims::io::pipe::{
    is_copied_from, is_copied_to, reads_from_its_pipe, writes_to_its_pipe,
};

/// Like [`std::process::ChildStdin`], but waits park the coroutine.
///
/// In a coroutine, a write takes as many bytes as the pipe has room for. std's write takes all.
pub struct ChildStdin {
    pub(super) io: Descriptor<process::ChildStdin>,
}

/// Like [`std::process::ChildStdout`], but waits park the coroutine.
pub struct ChildStdout {
    pub(super) io: Descriptor<process::ChildStdout>,
}

/// Like [`std::process::ChildStderr`], but waits park the coroutine.
pub struct ChildStderr {
    pub(super) io: Descriptor<process::ChildStderr>,
}

descriptor_conversions!(
    ChildStdin: process::ChildStdin,
    ChildStdout: process::ChildStdout,
    ChildStderr: process::ChildStderr,
);
into_stdio!(
    ChildStdin: process::ChildStdin,
    ChildStdout: process::ChildStdout,
    ChildStderr: process::ChildStderr,
);
writes_to_its_pipe!(ChildStdin, &ChildStdin);
reads_from_its_pipe!(ChildStdout, ChildStderr);
is_copied_from!(ChildStdout, ChildStderr);
is_copied_to!(ChildStdin);
