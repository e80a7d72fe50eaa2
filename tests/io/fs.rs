//! Files, beyond std's promises: what parks, what is done at once, what stays whole.

use std::ffi::CString;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use greenroom::shims;

use crate::util::{self, Scratch};

#[test]
fn others_run_while_a_coroutine_reads_a_big_file() {
    let dir = Scratch::new();
    let path = dir.join("big");
    let size = 256 << 20;
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    let attempt = || {
        let path = path.clone();
        let read = greenroom::spawn(move || shims::fs::read(path).unwrap().len() as u64);
        let mut ticks = 0;
        while !read.is_finished() {
            shims::thread::sleep(Duration::from_millis(1));
            ticks += 1;
        }
        assert_eq!(read.join().unwrap(), size);
        // Otherwise one. Reading so much takes longer, unless the machine keeps the ticker from running.
        (ticks > 1)
            .then_some(())
            .ok_or_else(|| format!("{ticks} ticks meanwhile"))
    };
    util::on_workers(1, || util::in_one_of_ten(attempt));
}

#[test]
fn others_run_while_a_coroutine_opens_a_named_pipe_without_a_peer() {
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
fn a_reader_of_a_named_pipe_that_another_reader_outruns_holds_up_nobody() {
    for both in [false, true] {
        let dir = Scratch::new();
        let path = dir.join("pipe");
        util::make_named_pipe(&path);
        let mut options = std::fs::OpenOptions::new();
        // The pipe has a writer all the time, so that no open waits for one.
        let mut writer = options.read(true).write(true).open(&path).unwrap();
        let nonblocking = options.custom_flags(libc::O_NONBLOCK).write(false);
        let mut other = nonblocking.open(&path).unwrap();
        let (over, ticks) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|s| {
            s.spawn(|| {
                util::on_workers(1, || {
                    let mut options = shims::fs::OpenOptions::new();
                    let mut reader = options.read(true).write(both).open(&path).unwrap();
                    greenroom::spawn(move || while reader.read(&mut [0]).is_ok() {});
                    while !over.load(Ordering::Relaxed) {
                        ticks.fetch_add(1, Ordering::Relaxed);
                        greenroom::park_timeout(Duration::from_micros(50));
                    }
                });
            });
            s.spawn(|| {
                let readable = greenroom::Interest::READABLE;
                while !over.load(Ordering::Relaxed) {
                    let soon = std::time::Instant::now() + util::ms(10);
                    if greenroom::wait_fd(&other, readable, Some(soon)).is_ok() {
                        let _ = other.read(&mut [0]);
                    }
                }
            });
            for _ in 0..1000 {
                writer.write_all(b"x").unwrap();
                let seen = ticks.load(Ordering::Relaxed);
                util::until("the others went on", || {
                    ticks.load(Ordering::Relaxed) > seen + 1
                });
            }
            over.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn changes_of_a_watched_directory_are_reported_in_order() {
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
fn others_run_while_a_coroutine_watches() {
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

#[test]
fn more_coroutines_may_wait_for_a_file_lock_or_a_peer_than_the_pool_has_threads() {
    const WAITERS: usize = 300;
    let dir = Scratch::new();
    let (locked, pipe) = (dir.join("locked"), dir.join("pipe"));
    util::make_named_pipe(&pipe);
    util::on_workers(1, || {
        let ours = shims::fs::File::create(&locked).unwrap();
        ours.lock().unwrap();
        greenroom::scope(|s| {
            for _ in 0..WAITERS {
                s.spawn(|| {
                    let theirs = std::fs::File::open(&locked).unwrap();
                    shims::fs::File::from(theirs).lock().unwrap();
                });
            }
            let reading = s.spawn(|| shims::fs::read_to_string(&pipe).unwrap());
            for _ in 0..5 {
                shims::thread::sleep(Duration::from_millis(1));
            }
            // The holders of the locks use the pool, too.
            assert!(ours.metadata().unwrap().is_file());
            shims::fs::write(&pipe, "hello").unwrap();
            assert_eq!(reading.join().unwrap(), "hello");
            ours.unlock().unwrap();
        });
    });
}

#[test]
fn cached_files_are_used_without_a_wait() {
    // The first is mostly on a disk, the second in memory.
    for parent in [std::env::temp_dir(), "/dev/shm".into()] {
        match local_scratch(&parent) {
            Some(dir) => use_without_a_wait(&dir),
            None => eprintln!("not tested: {parent:?} is not known to be local"),
        }
    }
}

fn use_without_a_wait(dir: &std::path::Path) {
    let path = dir.join("file");
    std::fs::write(&path, "small").unwrap();
    let link = dir.join("link");
    std::os::unix::fs::symlink("file", &link).unwrap();
    let use_it = || {
        let mut buf = [0; 16];
        assert!(shims::fs::exists(&path).unwrap());
        assert!(!shims::fs::exists(dir.join("absent")).unwrap());
        assert_eq!(shims::fs::metadata(&link).unwrap().len(), 5);
        assert!(shims::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(shims::fs::read(&path).unwrap(), b"small");
        assert_eq!(shims::fs::read_to_string(&link).unwrap(), "small");
        let mut options = shims::fs::File::options();
        let mut file = options
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        assert_eq!(file.read(&mut buf).unwrap(), 5);
        assert_eq!((&file).read(&mut buf).unwrap(), 0);
        assert_eq!(file.read_at(&mut buf, 2).unwrap(), 3);
        file.write_at(b"", 0).unwrap();
        file.write_all(b"").unwrap();
        file.rewind().unwrap();
        assert_eq!((&file).read(&mut buf).unwrap(), 5);
        assert_eq!(file.metadata().unwrap().len(), 5);
        let mut options = shims::fs::File::options();
        let mut file = options.write(true).open(&path).unwrap();
        assert_eq!(file.write(b"small").unwrap(), 5);
        assert_eq!(
            file.write_vectored(&[std::io::IoSlice::new(b"")]).unwrap(),
            0
        );
        drop(file);
        shims::fs::File::open(&path).unwrap();
    };
    util::on_workers(1, || {
        use_it(); // which gets to know the file system
        // An attempt may fail: the pool may have been so fast that nothing had to wait. Or others keep
        // the processor, and the file system seems slow for a while.
        let mut alone_in_a_row = 0;
        util::until("no coroutine has run meanwhile, ten times", || {
            // Refills the budget.
            greenroom::yield_now();
            let other = greenroom::spawn(|| ());
            use_it();
            alone_in_a_row = if other.is_finished() {
                0
            } else {
                alone_in_a_row + 1
            };
            other.join().unwrap();
            alone_in_a_row == 10
        });
    });
}

/// A directory in `parent`, if that is on a local disk or in memory, and the kernel numbers mounts (Linux
/// 6.8 or later).
fn local_scratch(parent: &std::path::Path) -> Option<Scratch> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statfs, statx};

    let unique = StatxFlags::from_bits_retain(0x4000);
    let told = statx(CWD, parent, AtFlags::empty(), unique).ok()?;
    let local = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630];
    let is_local = local.contains(&statfs(parent).ok()?.f_type);
    (told.stx_mask & 0x4000 != 0 && is_local).then(|| Scratch::within(parent))
}

#[test]
fn others_run_while_a_coroutine_uses_cached_files() {
    let dir = Scratch::new();
    let path = dir.join("file");
    std::fs::write(&path, "small").unwrap();
    let deeds: [fn(&std::path::Path); 3] = [
        |path| assert!(shims::fs::metadata(path).unwrap().is_file()),
        |path| assert!(shims::fs::exists(path).unwrap()),
        |path| drop(shims::fs::File::open(path).unwrap()),
    ];
    for deed in deeds {
        util::on_workers(1, || {
            let over = AtomicBool::new(false);
            greenroom::scope(|s| {
                let busy = s.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        deed(&path);
                    }
                });
                for _ in 0..5 {
                    greenroom::yield_now();
                }
                over.store(true, Ordering::Relaxed);
                busy.join().unwrap();
            });
        });
    }
}

#[test]
fn few_threads_wait_for_a_lock_however_many_coroutines_do() {
    const NAME: &str = "few_threads_wait_for_a_lock_however_many_coroutines_do";
    // More than most shells allow descriptors.
    const WAITERS: usize = 700;
    if util::role().is_none() {
        // In a process of its own, because the threads of other tests would be counted.
        let output = util::again!(NAME, "child").output().unwrap();
        let output = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.contains("end of child"), "{output}");
        return;
    }
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let dir = Scratch::new();
    let path = dir.join("locked");
    let held = std::fs::File::create(&path).unwrap();
    for workers in [1, 4] {
        held.lock().unwrap();
        util::on_workers(workers, || {
            let (waiting, inside) = (AtomicUsize::new(0), AtomicUsize::new(0));
            greenroom::scope(|s| {
                for number in 0..WAITERS {
                    let (waiting, inside, path) = (&waiting, &inside, &path);
                    s.spawn(move || {
                        let file = shims::fs::File::open(path).unwrap();
                        waiting.fetch_add(1, Ordering::Relaxed);
                        if number % 7 == 0 {
                            file.lock_shared().unwrap();
                        } else {
                            file.lock().unwrap();
                            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                            greenroom::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                        }
                    });
                }
                util::until("all wait", || waiting.load(Ordering::Relaxed) == WAITERS);
                util::settle();
                let most = 64 + 2 * workers + 256 + 10;
                assert!(threads() < most, "{} threads", threads());
                held.unlock().unwrap();
            });
        });
    }
    eprintln!("end of child");
}

#[test]
fn a_lock_that_is_acquired_after_its_last_waiter_has_gone_is_released() {
    let dir = Scratch::new();
    let path = dir.join("file");
    let (held, wanted, free) = (
        std::fs::File::create(&path).unwrap(),
        shims::fs::File::open(&path).unwrap(),
        std::fs::File::open(&path).unwrap(),
    );
    held.lock().unwrap();
    util::on_workers(1, || {
        let wanted = wanted.try_clone().unwrap();
        greenroom::spawn(move || wanted.lock());
        shims::thread::sleep(Duration::from_millis(5));
    });
    held.unlock().unwrap();
    // The wait that was given up gets the lock first, then this one.
    free.lock().unwrap();
    drop(wanted);
}

/// A wait that was given up gets the lock later. A later wait of the same file, which has the same lock, may get it at
/// the same time.
#[test]
fn a_wait_for_a_lock_that_was_given_up_does_not_undo_a_later_one() {
    let dir = Scratch::new();
    let path = dir.canonicalize().unwrap().join("file");
    let held = std::fs::File::create(&path).unwrap();
    let other = std::fs::File::open(&path).unwrap();
    let open = || {
        let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = descriptors.map(|entry| std::fs::read_link(entry.unwrap().path()));
        targets
            .filter(|target| target.as_ref().is_ok_and(|target| *target == path))
            .count()
    };
    for _ in 0..20 {
        held.lock().unwrap();
        util::on_workers(1, || {
            let file = shims::fs::File::open(&path).unwrap();
            greenroom::timeout(util::ms(1), || file.lock()).unwrap_err();
            let again = file.try_clone().unwrap();
            let again = greenroom::spawn(move || again.lock().map(|()| again));
            shims::thread::sleep(util::ms(2));
            held.unlock().unwrap();
            let again = again.join().unwrap().unwrap();
            // Both waits are over, and their descriptors closed.
            util::until("the threads are done", || open() == 4);
            assert!(other.try_lock().is_err(), "it is locked");
            again.unlock().unwrap();
            other.try_lock().unwrap();
            other.unlock().unwrap();
        });
    }
}

#[test]
fn a_descriptor_without_a_type_can_be_waited_for() {
    let new = || {
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
        shims::fs::File::from(event)
    };
    util::on_workers(1, || {
        let (mut event, left) = (new(), new());
        let mut signal = event.try_clone().unwrap();
        let waiting = greenroom::spawn(move || {
            let mut count = [0; 8];
            assert_eq!(event.read(&mut count).unwrap(), 8);
            u64::from_ne_bytes(count)
        });
        greenroom::yield_now();
        assert!(!waiting.is_finished());
        signal.write_all(&7_u64.to_ne_bytes()).unwrap();
        assert_eq!(waiting.join().unwrap(), 7);
        // The end of the runtime interrupts this read.
        greenroom::spawn(move || (&left).read(&mut [0; 8]));
        shims::thread::sleep(Duration::from_millis(5));
    });
}

#[test]
fn a_device_that_never_polls_as_writable_is_written_to() {
    util::everywhere(|| {
        // Polling /dev/kmsg reports only what can be read. Writing may need privileges.
        let log = shims::fs::OpenOptions::new().write(true).open("/dev/kmsg");
        let Ok(mut log) = log else { return };
        let bufs = [b"<7>green", &b"room: a test\n"[..]].map(std::io::IoSlice::new);
        assert_eq!(log.write_vectored(&bufs).unwrap(), 21);
    });
}

#[test]
fn a_partly_cached_file_is_read_in_full() {
    use rustix::fs::{Advice, fadvise};

    let dir = Scratch::new();
    let path = dir.join("file");
    let bytes = util::noise(1 << 20, 9);
    std::fs::write(&path, &bytes).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    file.sync_all().unwrap();
    let keep_a_part = || {
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        fadvise(&file, 0, None, Advice::Random).unwrap();
        file.read_exact_at(&mut [0; 64 << 10], 0).unwrap();
    };
    util::on_workers(1, || {
        let mut file = shims::fs::File::open(&path).unwrap();
        let mut back = vec![0; bytes.len()];
        keep_a_part();
        assert_eq!(file.read_at(&mut back, 0).unwrap(), bytes.len());
        util::assert_same_bytes(&back, &bytes);
        keep_a_part();
        back.fill(0);
        assert_eq!(file.read(&mut back).unwrap(), bytes.len());
        util::assert_same_bytes(&back, &bytes);
        keep_a_part();
        file.seek(SeekFrom::Start(1)).unwrap();
        let (mut first, mut second) = (vec![0; 100 << 10], vec![0; 10]);
        let mut bufs = [&mut first, &mut second].map(|buf| std::io::IoSliceMut::new(buf));
        let both = (100 << 10) + 10;
        assert_eq!(file.read_vectored(&mut bufs).unwrap(), both);
        util::assert_same_bytes(&[first, second].concat(), &bytes[1..=both]);
        assert_eq!(file.stream_position().unwrap(), 1 + both as u64);
    });
}

#[test]
fn records_read_by_several_coroutines_at_one_cursor_stay_whole() {
    use rustix::fs::{Advice, fadvise};

    const PAGE: usize = 4096;
    const RECORDS: usize = 500;
    let dir = Scratch::new();
    let path = dir.join("file");
    let records: Vec<u8> = (0..RECORDS)
        .flat_map(|number| (number as u64).to_ne_bytes().repeat(2 * PAGE / 8))
        .collect();
    std::fs::write(&path, records).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    file.sync_all().unwrap();
    for cloned in [false, true] {
        // The first half of each record is cached.
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        fadvise(&file, 0, None, Advice::Random).unwrap();
        for number in 0..RECORDS {
            file.read_exact_at(&mut [0], (number * 2 * PAGE) as u64)
                .unwrap();
        }
        util::on_workers(2, || {
            let shared = Arc::new(shims::fs::File::open(&path).unwrap());
            fadvise(&*shared, 0, None, Advice::Random).unwrap();
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    let mut own = cloned.then(|| shared.try_clone().unwrap());
                    let shared = Arc::clone(&shared);
                    greenroom::spawn(move || {
                        let mut record = [0; 2 * PAGE];
                        let mut whole = 0;
                        while match &mut own {
                            Some(own) => own.read(&mut record).unwrap(),
                            None => (&*shared).read(&mut record).unwrap(),
                        } == record.len()
                        {
                            let same = record.chunks(8).all(|number| number == &record[..8]);
                            whole += usize::from(same);
                        }
                        whole
                    })
                })
                .collect();
            let whole: usize = readers.into_iter().map(|r| r.join().unwrap()).sum();
            assert_eq!(whole, RECORDS);
        });
    }
}

#[test]
fn an_appending_write_stays_whole() {
    let dir = Scratch::new();
    let path = dir.join("log");
    util::on_workers(4, || {
        let torn = Mutex::new(0);
        greenroom::scope(|s| {
            for writer in 0..8_u8 {
                let (path, torn) = (&path, &torn);
                s.spawn(move || {
                    let mut options = shims::fs::OpenOptions::new();
                    let mut log = options.append(true).create(true).open(path).unwrap();
                    let line = [&[b'a' + writer; 20_000][..], b"\n"].concat();
                    for _ in 0..20 {
                        if log.write(&line).unwrap() < line.len() {
                            *torn.lock().unwrap() += 1;
                        }
                    }
                });
            }
        });
        assert_eq!(*torn.lock().unwrap(), 0);
        let log = shims::fs::read(&path).unwrap();
        assert_eq!(log.len(), 8 * 20 * 20_001);
        for line in log.split_inclusive(|&byte| byte == b'\n') {
            assert!(line.len() == 20_001 && line[..20_000].iter().all(|&byte| byte == line[0]));
        }
    });
}

#[test]
fn a_file_that_the_kernel_generates_is_read_to_its_end() {
    // The file is longer than what one read returns.
    let path = "/proc/kallsyms";
    let mut buf = vec![0; 256 << 10];
    let Ok(mut file) = std::fs::File::open(path) else {
        return;
    };
    let wanted = file.read(&mut buf).unwrap();
    util::on_workers(1, || {
        let mut file = shims::fs::File::open(path).unwrap();
        assert_eq!(file.read(&mut buf).unwrap(), wanted);
    });
}

/// A regular file whose reads wait: the kernel's trace. `None`, if the kernel has none, or does not allow
/// it.
fn file_that_waits() -> Option<std::fs::File> {
    let open = || {
        let dir = Scratch::new();
        let [kind, at] = [
            c"tracefs",
            &*CString::new(dir.as_os_str().as_bytes()).unwrap(),
        ];
        // SAFETY: the strings end with a null byte. The mount is in the namespace of the calling thread,
        // and ends with it.
        let mounted = unsafe {
            let private = libc::MS_REC | libc::MS_PRIVATE;
            let nothing = std::ptr::null();
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(nothing, c"/".as_ptr(), nothing, private, nothing.cast()) == 0
                && libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, nothing.cast()) == 0
        };
        let file = std::fs::File::open(dir.join("trace_pipe"));
        if mounted {
            // SAFETY: as above.
            unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) };
        }
        file.ok()
    };
    std::thread::spawn(open).join().unwrap()
}

#[test]
fn the_end_of_a_runtime_interrupts_a_read_of_a_regular_file_that_waits() {
    type Reading = fn(shims::fs::File) -> std::io::Result<usize>;
    let ways: [Reading; 3] = [
        |mut file| file.read(&mut [0; 100]),
        |mut file| file.read_to_end(&mut Vec::new()),
        |mut file| file.read_to_string(&mut String::new()),
    ];
    // Only one process can have it open.
    let Some(file) = file_that_waits() else {
        return eprintln!("not tested: this may not see the kernel's trace");
    };
    for read in ways {
        let file = shims::fs::File::from(file.try_clone().unwrap());
        util::on_workers(1, || {
            let reading = greenroom::spawn(move || read(file));
            util::settle();
            assert!(!reading.is_finished());
        });
    }
}

#[test]
fn destructors_use_files_during_a_panic_and_a_shutdown() {
    struct Note(std::path::PathBuf);
    impl Drop for Note {
        fn drop(&mut self) {
            shims::fs::create_dir(&self.0).unwrap();
            let path = self.0.join("file");
            let mut file = shims::fs::File::create_new(&path).unwrap();
            file.lock().unwrap();
            file.write_all(b"noted").unwrap();
            assert_eq!(shims::fs::read(&path).unwrap(), b"noted");
        }
    }
    for workers in [1, 4] {
        let dir = Scratch::new();
        let [panicked, shut_down] = ["panicked", "shut down"].map(|name| dir.join(name));
        util::on_workers(workers, || {
            let panics = Note(panicked.clone());
            let panics = greenroom::spawn(move || {
                let _note = panics;
                std::panic::resume_unwind(Box::new("of its own"));
            });
            assert!(panics.join().is_err());
            let started = Arc::new(AtomicUsize::new(0));
            for number in 0..3 {
                let started = Arc::clone(&started);
                let note = Note(shut_down.with_extension(number.to_string()));
                greenroom::spawn(move || {
                    let _note = note;
                    started.fetch_add(1, Ordering::Relaxed);
                    greenroom::shims::thread::sleep(std::time::Duration::from_secs(1_000));
                });
            }
            while started.load(Ordering::Relaxed) < 3 {
                greenroom::yield_now();
            }
        });
        for at in
            std::iter::once(panicked).chain((0..3).map(|n| shut_down.with_extension(n.to_string())))
        {
            assert_eq!(std::fs::read(at.join("file")).unwrap(), b"noted", "{at:?}");
        }
    }
}
