//! The OS threads of this process.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::Builder;

/// A thread with this name.
pub(crate) fn named(name: &str) -> Builder {
    Builder::new().name(name.to_owned())
}

/// The number of the worker's thread.
static WORKER: AtomicI32 = AtomicI32::new(0);

/// Called by the worker's thread.
pub(crate) fn count_as_worker() {
    // SAFETY: gettid has no preconditions.
    WORKER.store(unsafe { libc::gettid() }, Ordering::Relaxed);
}

/// How many OS threads there are besides the main one and the worker's, by their names. A thread without a name has
/// the one of the thread that has started it: if that is the worker's, it is left out here.
pub(crate) fn os_threads() -> BTreeMap<String, usize> {
    let name_of = |thread: &str| fs::read_to_string(format!("/proc/self/task/{thread}/comm"));
    let main = std::process::id().to_string();
    let worker = WORKER.load(Ordering::Relaxed).to_string();
    let name_of_worker = name_of(&worker).unwrap();
    let mut threads = BTreeMap::new();
    for thread in fs::read_dir("/proc/self/task").unwrap() {
        let thread = thread.unwrap().file_name().into_string().unwrap();
        // It may have ended meanwhile.
        if let (false, Ok(name)) = ([&main, &worker].contains(&&thread), name_of(&thread)) {
            let name = match name == name_of_worker {
                true => "",
                false => name.trim_end(),
            };
            *threads.entry(name.to_owned()).or_default() += 1;
        }
    }
    threads
}
