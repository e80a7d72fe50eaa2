//! The end of a dump: which coroutine has spawned which.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use greenroom::shims::thread;
use greenroom::sync::Event;
use greenroom::{Builder, Dump};
use serial_test::serial;

use crate::util;

/// A dump without backtraces, made by a patient caller.
fn plain_dump() -> Dump {
    Dump::new()
        .backtraces(false)
        .patience(Duration::from_secs(60))
}

fn tree() -> String {
    let mut text = Vec::new();
    plain_dump().text(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let (_, tree) = text.split_once("\nspawned by\n").unwrap();
    tree.to_owned()
}

fn named(name: &str) -> Builder {
    Builder::new().name(name.into())
}

/// Waits until that many coroutines have called `start`.
fn wait_for(started: &AtomicUsize, count: usize) {
    util::until("all have started", || {
        started.load(Ordering::Relaxed) == count
    });
}

#[test]
#[serial]
fn a_chain_of_spawns_is_dumped_in_linear_size_however_long_it_is() {
    // With two more spaces for each, the last lines would be wider than a format can be.
    const COUNT: usize = 33_000;
    struct Shared {
        started: AtomicUsize,
        end: Event,
    }
    fn chain(left: usize, shared: &Arc<Shared>) {
        shared.started.fetch_add(1, Ordering::Relaxed);
        if left > 1 {
            let below = Arc::clone(shared);
            let body = move || chain(left - 1, &below);
            drop(Builder::new().stack_size(8 << 10).spawn(body).unwrap());
        }
        shared.end.wait();
    }
    util::on_workers(2, || {
        let shared = Arc::new(Shared {
            started: AtomicUsize::new(0),
            end: Event::new(),
        });
        let first = Arc::clone(&shared);
        drop(greenroom::spawn(move || chain(COUNT, &first)));
        wait_for(&shared.started, COUNT);
        let tree = tree();
        assert!(tree.len() < 200 * COUNT, "{}", tree.len());
        let lines: Vec<_> = tree.lines().collect();
        let at = |line: &str| line.trim_start().to_owned();
        // Main is the parent of the first one.
        let main = lines.iter().position(|line| line.contains("'main'"));
        let chain = &lines[main.unwrap() + 1..][..COUNT];
        assert!(at(chain[0]).contains("dump_trees.rs"), "{}", chain[0]);
        assert!(!chain[30].contains("depth"), "{}", chain[30]);
        let last = at(chain[COUNT - 1]);
        assert!(
            last.starts_with(&format!("at depth {COUNT}: 1 of ")),
            "{last}"
        );
        shared.end.set();
    });
}

/// Keeps what is written, and how many turns another coroutine has had by then.
struct Pieces<'a> {
    turns: &'a AtomicUsize,
    all: Vec<(usize, Vec<u8>)>,
}

impl Write for Pieces<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let turns = self.turns.load(Ordering::Relaxed);
        self.all.push((turns, piece.to_vec()));
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
#[serial]
fn others_run_while_a_coroutine_writes_a_tree_of_many_parents() {
    const PARENTS: usize = 2000;
    util::on_workers(1, || {
        let (end, stop) = (Arc::new(Event::new()), Arc::new(AtomicBool::new(false)));
        let (started, turns) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (is_over, had) = (Arc::clone(&stop), Arc::clone(&turns));
        let busy = greenroom::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                had.fetch_add(1, Ordering::Relaxed);
                thread::yield_now();
            }
        });
        for _ in 0..PARENTS {
            let (ends, parent) = (Arc::clone(&end), Arc::clone(&started));
            let body = move || {
                let (end, child) = (Arc::clone(&ends), Arc::clone(&parent));
                let body = move || {
                    child.fetch_add(1, Ordering::Relaxed);
                    end.wait();
                };
                drop(named("child").spawn(body).unwrap());
                parent.fetch_add(1, Ordering::Relaxed);
                ends.wait();
            };
            drop(named("parent").spawn(body).unwrap());
        }
        wait_for(&started, 2 * PARENTS);
        let mut pieces = Pieces {
            turns: &turns,
            all: Vec::new(),
        };
        plain_dump().text(&mut pieces).unwrap();
        let is_first = |(_, piece): &(usize, Vec<u8>)| {
            String::from_utf8_lossy(piece).contains("\nspawned by\n")
        };
        let first = pieces.all.iter().position(is_first).unwrap();
        let tree = &pieces.all[first..];
        assert!(tree.len() >= 3, "{} pieces", tree.len());
        assert!(tree.is_sorted_by(|(before, _), (after, _)| before < after));
        let text: Vec<u8> = tree.iter().flat_map(|(_, piece)| piece.clone()).collect();
        let text = String::from_utf8(text).unwrap();
        let (_, text) = text.split_once("\nspawned by\n").unwrap();
        assert_eq!(text.matches(" 'parent' (").count(), PARENTS);
        assert_eq!(text.matches(" 'child'").count(), PARENTS);
        end.set();
        stop.store(true, Ordering::Relaxed);
        busy.join().unwrap();
    });
}
