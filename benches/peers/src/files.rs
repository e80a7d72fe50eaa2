//! Small operations on a small file in the page cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use crate::peers::{Blocking, Greenroom, Peer, Threads, run_tokio};
use crate::stats::median;

/// The number of batches that are timed for each operation.
const BATCHES: usize = 61;
/// Operations in a batch. Few, so that preemption of the thread spoils few of the batches.
const BATCH: usize = 100;
const SIZE: usize = 1_024;
const LINE: &[u8; 32] = b"a line of a log, 32 bytes long.\n";

/// `[ns per write, ns per stat, ns per open, read and close]`
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

/// Defines the blocking version of the work, on the `fs` module of greenroom or of std.
macro_rules! blocking {
    ($name:ident: $peer:ty, $($std:tt)*) => {
        fn $name(path: PathBuf) -> Vec<f64> {
            use $($std)*::fs::{File, metadata};
            use std::io::{Read, Seek, Write};

            <$peer>::run(1, move || {
                let mut log = File::options().write(true).open(&path).expect("the file");
                let write = time(|| {
                    log.write_all(LINE).expect("a write");
                    // Each write overwrites the last one, because growing a file costs extra.
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

/// The median time of `operation`, in ns.
fn time(mut operation: impl FnMut()) -> f64 {
    let batch = |_| {
        let start = Instant::now();
        (0..BATCH).for_each(|_| operation());
        start.elapsed().as_nanos() as f64 / BATCH as f64
    };
    median(&(0..BATCHES).map(batch).collect::<Vec<_>>())
}

async fn asynchronous(path: PathBuf) -> Vec<f64> {
    /// Like the function [`time`], for an expression that may await.
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
        // tokio may still be writing on another thread until `flush` returns.
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
