//! The names of coroutines in the call graphs of perf, as the program turns them on.
#![forbid(unsafe_code)]

use std::io;

use crate::coroutine::perf_map;
use crate::task;

/// Has perf show the names of coroutines, in this process and from now on.
///
/// In a call graph of perf, the frame `coroutine NAME` comes between the frames of a coroutine's closure and its root.
/// One without a name has the place where it was spawned. Only coroutines that start after this call have such
/// a frame. [The guide](crate::guide::insight#flame-graphs) has an example.
///
/// The names are written to `/tmp/perf-PID.map`, which stays there when the process ends, as perf reads it later. After
/// 16,384 different names, all others are `coroutine (another name)`.
///
/// Without this call, nothing is written, and a start of a coroutine takes two instructions more. With it, a start
/// takes a look into a table.
///
/// # Errors
///
/// Those of creating the file, and the operating system's if it refuses executable memory. `Unsupported` on another
/// processor than x86-64.
pub fn perf_map() -> io::Result<()> {
    task::aside(perf_map::turn_on)
}
