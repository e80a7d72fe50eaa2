//! A file system that does not answer holds up the coroutines that use it, and no worker.

#[path = "../util/fuse.rs"]
mod fuse;

use std::fs::TryLockError;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greenroom::shims;

use crate::util::{self, Scratch};

/// How many turns the worker makes before a request is answered.
const ROUNDS: usize = 5;

/// An operation on a path of that file system. The result does not matter.
type Deed = fn(&std::path::Path) -> io::Result<()>;

const DEEDS: &[(&str, Deed)] = &[
    ("exists", |path| shims::fs::exists(path).map(drop)),
    ("metadata", |path| shims::fs::metadata(path).map(drop)),
    ("symlink_metadata", |path| {
        shims::fs::symlink_metadata(path).map(drop)
    }),
    ("canonicalize", |path| {
        shims::fs::canonicalize(path).map(drop)
    }),
    ("read_link", |path| shims::fs::read_link(path).map(drop)),
    ("an absent file", |path| {
        let absent = path.with_file_name("absent");
        assert!(!shims::fs::exists(&absent)?);
        assert!(shims::fs::File::open(&absent).is_err());
        assert!(shims::fs::metadata(&absent).is_err());
        Ok(())
    }),
    ("read_dir", |path| {
        shims::fs::read_dir(path.parent().unwrap())?.for_each(drop);
        Ok(())
    }),
    ("read", |path| {
        assert_eq!(shims::fs::read(path)?, fuse::CONTENT);
        Ok(())
    }),
    ("read_to_string", |path| {
        shims::fs::read_to_string(path).map(drop)
    }),
    ("write", |path| shims::fs::write(path, "new")),
    ("copy", |path| {
        shims::fs::copy(path, path.with_file_name("copy")).map(drop)
    }),
    ("rename", |path| {
        shims::fs::rename(path, path.with_file_name("renamed"))
    }),
    ("remove_file", |path| shims::fs::remove_file(path)),
    ("watch", |path| greenroom::fs::watch(path).map(drop)),
    ("set_permissions", |path| {
        let permissions = shims::fs::metadata(path)?.permissions();
        shims::fs::set_permissions(path, permissions)
    }),
    ("a file that was opened", |path| {
        use_file(
            shims::fs::File::options()
                .read(true)
                .write(true)
                .open(path)?,
        )
    }),
    ("a file that was taken over", |path| {
        let path = path.to_owned();
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true);
        use_file(greenroom::unblock(move || options.open(path))?.into())
    }),
    ("a file that was taken over and not used", |path| {
        let path = path.to_owned();
        drop(shims::fs::File::from(greenroom::unblock(|| {
            std::fs::File::open(path)
        })?));
        Ok(())
    }),
];

/// All operations on a file.
fn use_file(mut file: shims::fs::File) -> io::Result<()> {
    let mut buf = [0; 8];
    file.metadata()?;
    assert_eq!(file.read(&mut buf)?, 8);
    assert_eq!((&file).read(&mut buf)?, 8);
    assert_eq!(file.read_at(&mut buf, 0)?, 8);
    file.rewind()?;
    file.read_to_end(&mut Vec::new())?;
    let end = file.seek(SeekFrom::End(0))?;
    assert_eq!(end, fuse::CONTENT.len() as u64);
    greenroom::scope(|s| {
        // The kernel lets one call at a time use the cursor.
        s.spawn(|| (&file).read(&mut [0; 8]));
        greenroom::yield_now();
        (&file).stream_position()
    })?;
    file.write_all(b"more")?;
    (&file).write_all(b"more")?;
    file.write_at(b"more", 3)?;
    file.sync_all()?;
    file.sync_data()?;
    file.set_len(5)?;
    file.set_permissions(file.metadata()?.permissions())?;
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)?;
    match file.try_lock() {
        Err(TryLockError::Error(error)) => return Err(error),
        Err(TryLockError::WouldBlock) => panic!("nobody else has it"),
        Ok(()) => {}
    }
    file.unlock()?;
    file.lock_shared()?;
    drop(file.try_clone()?);
    Ok(())
}

#[test]
fn a_file_system_that_does_not_answer_holds_up_no_worker() {
    const NAME: &str = "a_file_system_that_does_not_answer_holds_up_no_worker";
    if util::role().is_none() {
        // In a process of its own, in which all threads see the mount and no other process does.
        let output = util::again!(NAME, "child").output().unwrap();
        let output = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        if output.contains("not tested") {
            return eprintln!("{output}");
        }
        assert!(output.contains("end of child"), "{output}");
        return;
    }
    let dir = Scratch::new();
    if let Err(error) = util::own_mounts() {
        return eprintln!("not tested: no mounts of its own can be had: {error}");
    }
    // The kernel asks for each name every time, or caches names.
    for remembered in [0, 3600] {
        let file_system = match fuse::Fuse::mount(&dir, remembered) {
            Ok(file_system) => file_system,
            Err(error) => return eprintln!("not tested: no FUSE can be mounted: {error}"),
        };
        let (rounds, deed) = (AtomicUsize::new(0), Mutex::new(""));
        let over = AtomicBool::new(false);
        std::thread::scope(|s| {
            let serving = s.spawn(|| {
                let mut stalls = Vec::new();
                file_system.serve(|request| {
                    let deed = *deed.lock().unwrap();
                    let (begun, start) = (rounds.load(Ordering::Relaxed), Instant::now());
                    let goes_on = || rounds.load(Ordering::Relaxed) > begun + ROUNDS;
                    // One stall of each operation is enough.
                    while !(goes_on() || over.load(Ordering::Relaxed) || stalls.contains(&deed)) {
                        // The machine itself may stand still for a while.
                        if start.elapsed() > util::PATIENCE {
                            eprintln!("{deed}: request {request} has stopped the worker");
                            stalls.push(deed);
                        }
                        std::thread::sleep(Duration::from_micros(50));
                    }
                });
                stalls
            });
            let path = dir.join(fuse::NAME);
            util::on_workers(1, || {
                greenroom::scope(|s| {
                    let using = s.spawn(|| {
                        for (name, act) in DEEDS {
                            *deed.lock().unwrap() = name;
                            // Twice: the first attempt teaches greenroom how fast the file system is.
                            for _ in 0..2 {
                                // The file system reports what it does not support.
                                match act(&path).map_err(|error| error.raw_os_error()) {
                                    Ok(()) | Err(Some(libc::ENOSYS | libc::EINVAL)) => {}
                                    Err(error) => panic!("{name}: {error:?}"),
                                }
                            }
                        }
                    });
                    while !using.is_finished() {
                        rounds.fetch_add(1, Ordering::Relaxed);
                        greenroom::park_timeout(Duration::from_micros(200));
                    }
                });
            });
            over.store(true, Ordering::Relaxed);
            util::unmount(&dir).unwrap();
            let stalls = serving.join().unwrap();
            assert!(stalls.is_empty(), "{stalls:?}");
        });
    }
    eprintln!("end of child");
}
