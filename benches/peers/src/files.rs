//! Small operations on a small file that the system has in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use crate::peers::{Blocking, Greenroom, Peer, Threads, run_tokio};
use crate::stats::median;

/// How often each operation is timed, and how many make one time: few, for a batch amid which the
/// thread was preempted tells nothing.
const BATCHES: usize = 61;
const BATCH: usize = 100;
const SIZE: usize = 1_024;
const LINE: &[u8; 32] = b"a line of a log, 32 bytes long.\n";

/// `[ns, ns, ns]`: of a write, of a stat, and of an open, a read and a close.
pub(crate) fn run(peer: Peer) -> Vec<f64> {
    let path = std::env::temp_dir().join(format!("greenroom-peers-{}", std::process::id()));
    fs::write(&path, [0; SIZE]).expect("a temporary file");
    let figures = match peer {
        Peer::Greenroom => with_shims(path.clone()),
        Peer::Threads => with_std(path.clone()),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, asynchronous(path.clone())),
        Peer::May | Peer::Mio => unreachable!("not a peer of this work"),
    };
    fs::remove_file(path).expect("the temporary file");
    figures
}

/// The same, by one module or another.
macro_rules! blocking {
    ($name:ident: $peer:ty, $($std:tt)*) => {
        fn $name(path: PathBuf) -> Vec<f64> {
            use $($std)*::fs::{File, metadata};
            use std::io::{Read, Seek, Write};

            <$peer>::run(1, move || {
                let mut log = File::options().write(true).open(&path).expect("the file");
                let write = time(|| {
                    log.write_all(LINE).expect("a write");
                    // Over and over, because a file that grows is another question.
                    log.rewind().expect("a seek");
                });
                let seek = time(|| log.rewind().expect("a seek"));
                let stat = time(|| assert!(metadata(&path).expect("a stat").is_file()));
                let read = time(|| {
                    let mut buf = [0; SIZE];
                    let mut file = File::open(&path).expect("the file");
                    file.read_exact(&mut buf).expect("a read");
                });
                vec![write - seek, stat, read]
            })
        }
    };
}

blocking!(with_shims: Greenroom, greenroom::shims);
blocking!(with_std: Threads, std);

/// The nanoseconds that `operation` takes.
fn time(mut operation: impl FnMut()) -> f64 {
    let batch = |_| {
        let start = Instant::now();
        (0..BATCH).for_each(|_| operation());
        start.elapsed().as_nanos() as f64 / BATCH as f64
    };
    median(&(0..BATCHES).map(batch).collect::<Vec<_>>())
}

async fn asynchronous(path: PathBuf) -> Vec<f64> {
    /// As [`time`].
    macro_rules! time {
        ($operation:expr) => {{
            let mut times = Vec::new();
            for _ in 0..BATCHES {
                let start = Instant::now();
                for _ in 0..BATCH {
                    $operation;
                }
                times.push(start.elapsed().as_nanos() as f64 / BATCH as f64);
            }
            median(&times)
        }};
    }

    let path: &Path = &path;
    let mut log = tokio::fs::File::options();
    let mut log = log.write(true).open(path).await.expect("the file");
    let write = time!({
        log.write_all(LINE).await.expect("a write");
        // Before, the system has not seen it.
        log.flush().await.expect("a write");
        log.rewind().await.expect("a seek");
    });
    let seek = time!(log.rewind().await.expect("a seek"));
    let stat = time!(assert!(
        tokio::fs::metadata(path).await.expect("a stat").is_file()
    ));
    let read = time!({
        let mut buf = [0; SIZE];
        let mut file = tokio::fs::File::open(path).await.expect("the file");
        file.read_exact(&mut buf).await.expect("a read");
    });
    vec![write - seek, stat, read]
}
