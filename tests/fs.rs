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
