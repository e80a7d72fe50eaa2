//! What files promise: the same, whether std's or the shims'.

mod util;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use greenroom::shims;
use util::Scratch;

/// The real thing: shows that what is demanded below is what std does.
mod of_std {
    use ::std;

    use crate::util::of_std as util;

    include!("behaviour/fs.rs");
}

mod of_shims {
    use greenroom::shims as std;

    use crate::util;

    include!("behaviour/fs.rs");
}

#[test]
fn others_go_on_while_a_coroutine_reads_a_big_file() {
    let dir = Scratch::new();
    let path = dir.join("big");
    let size = 256 << 20;
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    util::on_workers(1, || {
        let read = greenroom::spawn(move || shims::fs::read(path).unwrap().len() as u64);
        let mut ticks = 0;
        while !read.is_finished() {
            shims::thread::sleep(Duration::from_millis(1));
            ticks += 1;
        }
        assert_eq!(read.join().unwrap(), size);
        assert!(ticks > 3, "{ticks}: reading so much takes longer");
    });
}

#[test]
fn others_go_on_while_a_coroutine_waits_for_the_other_end_of_a_named_pipe() {
    let dir = Scratch::new();
    let path = dir.join("pipe");
    util::make_named_pipe(&path);
    util::on_workers(1, || {
        let opened = AtomicBool::new(false);
        greenroom::scope(|s| {
            s.spawn(|| {
                let line = shims::fs::read_to_string(&path).unwrap();
                assert_eq!(line, "hello");
                opened.store(true, Ordering::Relaxed);
            });
            for _ in 0..5 {
                shims::thread::sleep(Duration::from_millis(1));
            }
            assert!(!opened.load(Ordering::Relaxed));
            shims::fs::write(&path, "hello").unwrap();
        });
        assert!(opened.load(Ordering::Relaxed));
    });
}

#[test]
fn changes_of_what_is_watched_are_seen_in_their_order() {
    use greenroom::fs::ChangeKind::{Created, Metadata, Modified, Removed};
    use greenroom::fs::{Change, watch};
    use std::io::ErrorKind::{NotFound, TimedOut};

    util::everywhere(|| {
        let dir = Scratch::new();
        assert_eq!(watch(dir.join("absent")).unwrap_err().kind(), NotFound);
        let [file, moved, alone] = ["file", "moved", "alone"].map(|name| dir.join(name));
        std::fs::write(&alone, "1").unwrap();
        let mut watching = watch(&*dir).unwrap();
        let nothing = watching.next_timeout(Duration::from_millis(5));
        assert_eq!(nothing.unwrap_err().kind(), TimedOut);

        std::fs::write(&file, "content").unwrap();
        std::fs::set_permissions(&file, std::fs::metadata(&file).unwrap().permissions()).unwrap();
        std::fs::rename(&file, &moved).unwrap();
        std::fs::remove_file(&moved).unwrap();
        let seen: Vec<_> = (0..6)
            .map(|_| watching.next().unwrap().unwrap())
            .map(|Change { path, kind, .. }| (path, kind))
            .collect();
        let wanted = [
            (&file, Created),
            (&file, Modified),
            (&file, Metadata),
            (&file, Removed),
            (&moved, Created),
            (&moved, Removed),
        ];
        assert_eq!(seen, wanted.map(|(path, kind)| (path.clone(), kind)));

        let mut watching = watch(&alone).unwrap();
        std::fs::write(dir.join("other"), "").unwrap();
        std::fs::write(&alone, "").unwrap();
        let change = watching.next().unwrap().unwrap();
        assert_eq!((&change.path, change.kind), (&alone, Modified));
    });
}

#[test]
fn others_go_on_while_a_coroutine_watches() {
    util::on_workers(1, || {
        let dir = Scratch::new();
        let mut watching = greenroom::fs::watch(&*dir).unwrap();
        let seen = greenroom::spawn(move || watching.next().unwrap().unwrap().path);
        shims::thread::sleep(Duration::from_millis(2));
        assert!(!seen.is_finished());
        let file = dir.join("file");
        shims::fs::write(&file, "").unwrap();
        assert_eq!(seen.join().unwrap(), file);
    });
}
