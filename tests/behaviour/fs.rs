//! What files and directories promise.

use super::{std, util};
use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions, TryLockError};
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{
    DirBuilderExt, DirEntryExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt,
};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use util::{Scratch, everywhere};

#[test]
fn what_is_written_is_read_back() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("file");
        let bytes = util::noise(300_000, 1);
        let mut file = File::create(&path).unwrap();
        file.write_all(&bytes).unwrap();
        file.flush().unwrap();
        file.sync_all().unwrap();
        file.sync_data().unwrap();
        drop(file);
        let mut file = File::open(&path).unwrap();
        let mut back = Vec::new();
        assert_eq!(file.read_to_end(&mut back).unwrap(), bytes.len());
        util::assert_same_bytes(&back, &bytes);
        assert_eq!(file.read(&mut [0; 8]).unwrap(), 0, "the end stays the end");
        util::assert_same_bytes(&fs::read(&path).unwrap(), &bytes);
        let mut piecewise = vec![0; bytes.len()];
        File::open(&path)
            .unwrap()
            .read_exact(&mut piecewise)
            .unwrap();
        util::assert_same_bytes(&piecewise, &bytes);
        fs::write(&path, "text").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap_err().kind(),
            ErrorKind::InvalidData
        );
    });
}

#[test]
fn errors_have_their_kinds() {
    everywhere(|| {
        let dir = Scratch::new();
        let absent = dir.join("absent");
        assert_eq!(File::open(&absent).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(fs::read(&absent).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(
            fs::remove_file(&absent).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        assert_eq!(
            fs::metadata(&absent).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        assert_eq!(
            fs::read_dir(&absent).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        assert_eq!(
            fs::copy(&absent, dir.join("to")).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        assert!(!fs::exists(&absent).unwrap());
        assert_eq!(
            File::open("nul\0inside").unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        assert_eq!(
            OpenOptions::new().open(&absent).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        File::create_new(&absent).unwrap();
        assert_eq!(
            File::create_new(&absent).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        assert_eq!(
            fs::create_dir(&absent).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&*dir).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(
            fs::read_dir(&absent).unwrap_err().kind(),
            ErrorKind::NotADirectory
        );
        let mut unreadable = OpenOptions::new().write(true).open(&absent).unwrap();
        assert!(unreadable.read(&mut [0]).is_err());
        assert!(File::open(&absent).unwrap().write(&[0]).is_err());
    });
}

#[test]
fn files_are_opened_as_the_options_say() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("file");
        fs::write(&path, "0123456789").unwrap();
        let mut appending = OpenOptions::new().append(true).open(&path).unwrap();
        appending.write_all(b"ab").unwrap();
        appending.write_all(b"cd").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "0123456789abcd");
        let mut over = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        over.write_all(b"__").unwrap();
        let mut rest = String::new();
        over.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "23456789abcd");
        OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        let private = dir.join("private");
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&private)
            .unwrap();
        assert_eq!(
            fs::metadata(&private).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let link = dir.join("link");
        std::os::unix::fs::symlink(&private, &link).unwrap();
        let refused = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&link);
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ELOOP));
        let copy = OpenOptions::new().read(true).clone();
        copy.open(&private).unwrap();
        File::options().read(true).open(&private).unwrap();
    });
}

#[test]
fn a_cursor_moves_and_is_shared_with_duplicates() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("file");
        fs::write(&path, "0123456789").unwrap();
        let mut file = File::open(&path).unwrap();
        let mut two = [0; 2];
        assert_eq!(file.seek(SeekFrom::Start(4)).unwrap(), 4);
        file.read_exact(&mut two).unwrap();
        assert_eq!(&two, b"45");
        let mut duplicate = file.try_clone().unwrap();
        duplicate.read_exact(&mut two).unwrap();
        assert_eq!(&two, b"67");
        assert_eq!(file.stream_position().unwrap(), 8);
        assert_eq!(file.seek(SeekFrom::End(-1)).unwrap(), 9);
        assert_eq!((&duplicate).read(&mut two).unwrap(), 1);
        assert_eq!(file.seek(SeekFrom::Current(-10)).unwrap(), 0);
        assert_eq!(
            file.seek(SeekFrom::Current(-1)).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        let mut far = OpenOptions::new().write(true).open(&path).unwrap();
        far.seek(SeekFrom::Start(100)).unwrap();
        far.write_all(b"x").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 101);
    });
}

#[test]
fn reading_at_an_offset_leaves_the_cursor() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("file");
        fs::write(&path, "0123456789").unwrap();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let mut three = [0; 3];
        assert_eq!(file.read_at(&mut three, 8).unwrap(), 2);
        file.read_exact_at(&mut three, 2).unwrap();
        assert_eq!(&three, b"234");
        let beyond = file.read_exact_at(&mut three, 8).unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::UnexpectedEof);
        assert_eq!(file.write_at(b"xy", 1).unwrap(), 2);
        file.write_all_at(b"z", 12).unwrap();
        assert_eq!((&file).stream_position().unwrap(), 0);
        assert_eq!(fs::read(&path).unwrap(), b"0xy3456789\0\0z");
    });
}

#[test]
fn vectored_operations_take_several_buffers() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("file");
        let mut file = File::create(&path).unwrap();
        let bufs = [
            IoSlice::new(b"abc"),
            IoSlice::new(b""),
            IoSlice::new(b"defg"),
        ];
        assert_eq!(file.write_vectored(&bufs).unwrap(), 7);
        let (mut first, mut second) = ([0; 2], [0; 10]);
        let mut bufs = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        assert_eq!(
            File::open(&path).unwrap().read_vectored(&mut bufs).unwrap(),
            7
        );
        assert_eq!((&first, &second[..5]), (b"ab", &b"cdefg"[..]));
    });
}

#[test]
fn metadata_can_be_asked_for_and_changed() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("file");
        let file = File::create(&path).unwrap();
        file.set_len(1234).unwrap();
        let metadata = file.metadata().unwrap();
        assert!(metadata.is_file() && metadata.len() == 1234 && metadata.nlink() == 1);
        assert_eq!(metadata.ino(), fs::metadata(&path).unwrap().ino());
        let time = UNIX_EPOCH + Duration::from_secs(1_000_000);
        file.set_times(FileTimes::new().set_accessed(time).set_modified(time))
            .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().accessed().unwrap(), time);
        let later = time + Duration::from_secs(5);
        file.set_modified(later).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), later);
        let mut permissions = metadata.permissions();
        permissions.set_readonly(true);
        std::os::unix::fs::chown(&path, None, Some(metadata.gid())).unwrap();
        std::os::unix::fs::lchown(&path, None, None).unwrap();
        std::os::unix::fs::fchown(&file, Some(metadata.uid()), None).unwrap();
        fs::set_permissions(&path, permissions.clone()).unwrap();
        assert!(fs::metadata(&path).unwrap().permissions().readonly());
        permissions.set_mode(0o640);
        file.set_permissions(permissions).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o640);
    });
}

#[test]
fn files_are_copied_renamed_linked_and_removed() {
    everywhere(|| {
        let dir = Scratch::new();
        let (a, b, c) = (dir.join("a"), dir.join("b"), dir.join("c"));
        fs::write(&a, "content").unwrap();
        fs::set_permissions(&a, fs::Permissions::from_mode(0o604)).unwrap();
        assert_eq!(fs::copy(&a, &b).unwrap(), 7);
        assert_eq!(fs::read(&b).unwrap(), b"content");
        assert_eq!(
            fs::metadata(&b).unwrap().permissions().mode() & 0o777,
            0o604
        );
        fs::rename(&a, &c).unwrap();
        assert!(!fs::exists(&a).unwrap() && fs::exists(&c).unwrap());
        fs::hard_link(&c, &a).unwrap();
        assert_eq!(fs::metadata(&a).unwrap().nlink(), 2);
        fs::remove_file(&c).unwrap();
        assert_eq!(fs::read(&a).unwrap(), b"content");
        std::os::unix::fs::symlink(&a, &c).unwrap();
        assert_eq!(fs::read_link(&c).unwrap(), a);
        assert!(fs::symlink_metadata(&c).unwrap().is_symlink());
        assert!(fs::metadata(&c).unwrap().is_file());
        assert_eq!(fs::canonicalize(&c).unwrap(), fs::canonicalize(&a).unwrap());
    });
}

#[test]
fn directories_are_made_listed_and_removed() {
    everywhere(|| {
        let dir = Scratch::new();
        let deep = dir.join("one/two/three");
        assert_eq!(
            fs::create_dir(&deep).unwrap_err().kind(),
            ErrorKind::NotFound
        );
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir_all(&deep).expect("it is there");
        assert!(fs::metadata(&deep).unwrap().is_dir());
        let private = dir.join("private");
        DirBuilder::new().mode(0o700).create(&private).unwrap();
        assert_eq!(
            fs::metadata(&private).unwrap().permissions().mode() & 0o777,
            0o700
        );
        DirBuilder::new()
            .recursive(true)
            .create(private.join("x/y"))
            .unwrap();
        assert_eq!(
            fs::remove_dir(dir.join("one")).unwrap_err().kind(),
            ErrorKind::DirectoryNotEmpty
        );
        fs::remove_dir(&deep).unwrap();
        fs::remove_dir_all(dir.join("one")).unwrap();
        assert!(!fs::exists(dir.join("one")).unwrap());
    });
}

#[test]
fn every_entry_of_a_directory_is_listed_once() {
    everywhere(|| {
        let dir = Scratch::new();
        for i in 0..700 {
            File::create(dir.join(format!("file {i:03}"))).unwrap();
        }
        fs::create_dir(dir.join("directory")).unwrap();
        let mut names: Vec<_> = fs::read_dir(&*dir)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                assert_eq!(entry.path(), dir.join(entry.file_name()));
                let is_dir = entry.file_name() == "directory";
                assert_eq!(entry.file_type().unwrap().is_dir(), is_dir);
                assert_eq!(entry.metadata().unwrap().is_dir(), is_dir);
                assert_eq!(entry.ino(), entry.metadata().unwrap().ino());
                entry.file_name().into_string().unwrap()
            })
            .collect();
        names.sort();
        let mut wanted: Vec<_> = (0..700).map(|i| format!("file {i:03}")).collect();
        wanted.insert(0, "directory".to_owned());
        assert_eq!(names, wanted);
    });
}

#[test]
fn a_locked_file_is_waited_for() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("file");
        let (ours, theirs) = (File::create(&path).unwrap(), File::open(&path).unwrap());
        ours.lock().unwrap();
        assert!(matches!(theirs.try_lock(), Err(TryLockError::WouldBlock)));
        assert!(matches!(
            theirs.try_lock_shared(),
            Err(TryLockError::WouldBlock)
        ));
        let waiting = thread::spawn(move || {
            theirs.lock_shared().unwrap();
            theirs
        });
        thread::sleep(Duration::from_millis(5));
        assert!(!waiting.is_finished());
        ours.unlock().unwrap();
        let theirs = waiting.join().unwrap();
        ours.try_lock_shared().expect("both may share it");
        theirs.unlock().unwrap();
        ours.try_lock().unwrap();
    });
}

#[test]
fn files_convert_to_descriptors_and_back() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("file");
        fs::write(&path, "abc").unwrap();
        let mut file = File::from(OwnedFd::from(File::open(&path).unwrap()));
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        assert!(format!("{file:?}").starts_with("File { fd: "));
    });
}

#[test]
fn devices_are_files() {
    everywhere(|| {
        let mut zeros = [1; 100];
        File::open("/dev/zero")
            .unwrap()
            .read_exact(&mut zeros)
            .unwrap();
        assert_eq!(zeros, [0; 100]);
        assert_eq!(
            File::open("/dev/null").unwrap().read(&mut zeros).unwrap(),
            0
        );
        let mut null = OpenOptions::new().write(true).open("/dev/null").unwrap();
        null.write_all(&zeros).unwrap();
        let mut full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(full.write(&[0]).unwrap_err().kind(), ErrorKind::StorageFull);
    });
}

#[test]
fn a_named_pipe_connects_the_tasks_that_open_its_ends() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("pipe");
        util::make_named_pipe(&path);
        let bytes = util::noise(200_000, 5);
        let reading = {
            let path = path.clone();
            thread::spawn(move || fs::read(path).unwrap())
        };
        let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
        writer.write_all(&bytes).unwrap();
        drop(writer);
        util::assert_same_bytes(&reading.join().unwrap(), &bytes);
    });
}

#[test]
fn a_write_to_a_named_pipe_writes_all() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("pipe");
        util::make_named_pipe(&path);
        let mut reader = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
        let bufs = [
            IoSlice::new(b"head"),
            IoSlice::new(b""),
            IoSlice::new(b"body"),
        ];
        assert_eq!(writer.write_vectored(&bufs).unwrap(), 8);
        let mut back = [0; 8];
        reader.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"headbody");

        // Writes more than there is room for, in parts and in one call.
        let bytes = util::noise(300_000, 3);
        let writing = thread::spawn({
            let bytes = bytes.clone();
            move || {
                let bufs = [&bytes[..1000], &bytes[1000..]].map(IoSlice::new);
                assert_eq!(writer.write_vectored(&bufs).unwrap(), bytes.len());
                assert_eq!(writer.write(&bytes).unwrap(), bytes.len());
            }
        });
        for _ in 0..2 {
            let mut back = vec![0; bytes.len()];
            reader.read_exact(&mut back).unwrap();
            util::assert_same_bytes(&back, &bytes);
        }
        writing.join().unwrap();
    });
}

#[test]
fn a_named_pipe_in_non_blocking_mode_tells_its_end_from_nothing_yet() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("pipe");
        util::make_named_pipe(&path);
        let mut options = OpenOptions::new();
        options.custom_flags(libc::O_NONBLOCK);
        let mut reader = options.clone().read(true).open(&path).unwrap();
        assert_eq!(reader.read(&mut [0; 4]).unwrap(), 0, "nobody writes");
        let mut writer = options.write(true).open(&path).unwrap();
        assert_eq!(
            reader.read(&mut [0; 4]).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        writer.write_all(b"ab").unwrap();
        assert_eq!(reader.read(&mut [0; 4]).unwrap(), 2);
        while writer.write(&[0; 4096]).is_ok() {}
        assert_eq!(
            writer.write(&[0]).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        drop(writer);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert!(rest.len() >= 4096);
        assert_eq!(reader.read(&mut [0; 4]).unwrap(), 0);
    });
}

#[test]
fn small_writes_of_several_tasks_to_a_named_pipe_stay_whole() {
    const WRITERS: u8 = 5;
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("pipe");
        util::make_named_pipe(&path);
        let mut reader = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let record = |of: u8| [b'a' + of; 1000];
        thread::scope(|s| {
            for of in 0..WRITERS {
                let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
                s.spawn(move || {
                    let record = record(of);
                    let bufs = [&record[..300], &record[300..]].map(IoSlice::new);
                    (0..50).for_each(|_| assert_eq!(writer.write_vectored(&bufs).unwrap(), 1000));
                });
            }
            let mut seen = [0; WRITERS as usize];
            for _ in 0..50 * usize::from(WRITERS) {
                let mut back = [0; 1000];
                reader.read_exact(&mut back).unwrap();
                let of = back[0] - b'a';
                assert!(back == record(of), "a record is torn");
                seen[usize::from(of)] += 1;
            }
            assert_eq!(seen, [50; WRITERS as usize]);
        });
    });
}

#[test]
fn an_offset_that_no_file_has_is_an_error() {
    everywhere(|| {
        let dir = Scratch::new();
        let mut file = File::create_new(dir.join("file")).unwrap();
        file.write_all(b"abc").unwrap();
        file.rewind().unwrap();
        for offset in [u64::MAX, u64::MAX - 1, 1 << 63] {
            let error = file.read_at(&mut [0], offset).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
            let error = file.write_at(b"x", offset).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        }
        assert_eq!(file.stream_position().unwrap(), 0);
        assert_eq!(file.metadata().unwrap().len(), 3);
    });
}

#[test]
fn nothing_is_read_at_the_end_and_beyond() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("file");
        let mut file = File::create_new(&path).unwrap();
        let mut buf = [7; 10];
        for _ in 0..2 {
            assert_eq!(file.read(&mut buf).unwrap(), 0);
        }
        file.write_all(b"abc").unwrap();
        assert_eq!(file.read(&mut buf).unwrap(), 0);
        assert_eq!(file.read_at(&mut buf, 1).unwrap(), 2);
        assert_eq!(file.read_at(&mut buf, 3).unwrap(), 0);
        assert_eq!(file.read_at(&mut buf, u64::MAX >> 2).unwrap(), 0);
        assert_eq!(file.seek(SeekFrom::Start(50)).unwrap(), 50);
        assert_eq!(file.read(&mut buf).unwrap(), 0);
        assert_eq!(&buf, b"bc\x07\x07\x07\x07\x07\x07\x07\x07");
    });
}

#[test]
fn nothing_can_be_read_and_written() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("file");
        fs::write(&path, b"").unwrap();
        assert!(fs::read(&path).unwrap().is_empty());
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        assert_eq!(file.write(b"").unwrap(), 0);
        assert_eq!(file.write_vectored(&[]).unwrap(), 0);
        assert_eq!(file.write_at(b"", 10).unwrap(), 0);
        assert_eq!(file.metadata().unwrap().len(), 0);
        file.write_all(b"x").unwrap();
        file.rewind().unwrap();
        assert_eq!(file.read(&mut []).unwrap(), 0);
        assert_eq!(file.read_vectored(&mut []).unwrap(), 0);
        assert_eq!(file.read_at(&mut [], 0).unwrap(), 0);
        assert_eq!(file.stream_position().unwrap(), 0);
    });
}

#[test]
fn what_a_file_shrinks_by_is_gone_and_what_it_grows_by_is_zero() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("file");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"abcdef").unwrap();
        file.set_len(8).unwrap();
        file.write_all(b"g").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abcdefg\0");
        file.set_len(2).unwrap();
        file.write_all(b"hi").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ab\0\0\0\0\0hi");
    });
}

#[test]
fn a_lock_lasts_as_long_as_what_was_opened() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("file");
        let (ours, theirs) = (File::create(&path).unwrap(), File::open(&path).unwrap());
        let refused = |file: &File| matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        ours.lock_shared().unwrap();
        theirs.lock_shared().unwrap();
        assert!(refused(&theirs), "it is shared");
        let duplicate = ours.try_clone().unwrap();
        drop(ours);
        assert!(refused(&theirs), "a duplicate has it");
        drop(duplicate);
        theirs.try_lock().unwrap();
    });
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    everywhere(|| {
        let dir = Scratch::new();
        let path = dir.join("file");
        fs::write(&path, "content").unwrap();
        let new = OpenOptions::new;
        let refused = [
            (
                new(),
                "must specify at least one of read, write, or append access",
            ),
            (
                new().read(true).create(true).clone(),
                "creating or truncating a file requires write or append access",
            ),
            (
                new().read(true).create_new(true).clone(),
                "creating or truncating a file requires write or append access",
            ),
            (
                new().read(true).truncate(true).clone(),
                "creating or truncating a file requires write or append access",
            ),
            (
                new().append(true).truncate(true).clone(),
                "creating or truncating a file requires write or append access",
            ),
        ];
        for (options, why) in refused {
            let error = options.open(&path).unwrap_err();
            assert_eq!(
                (error.kind(), &error.to_string()[..]),
                (ErrorKind::InvalidInput, why)
            );
        }
        assert_eq!(fs::read(&path).unwrap(), b"content");
    });
}

#[test]
fn what_links_lead_to_outlives_a_removed_directory() {
    use std::os::unix::fs::symlink;
    everywhere(|| {
        let dir = Scratch::new();
        let (kept, gone) = (dir.join("kept"), dir.join("gone"));
        fs::create_dir_all(gone.join("deep")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "").unwrap();
        symlink(&kept, gone.join("deep/directory")).unwrap();
        symlink(kept.join("file"), gone.join("link")).unwrap();
        fs::remove_dir_all(&gone).unwrap();
        symlink(&kept, &gone).unwrap();
        fs::remove_dir_all(&gone).expect("it removes the link");
        assert!(!fs::exists(&gone).unwrap());
        let error = fs::remove_dir_all(kept.join("file")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotADirectory);
        assert!(fs::exists(kept.join("file")).unwrap());
    });
}

#[test]
fn only_files_are_copied_and_over_what_is_there() {
    everywhere(|| {
        let dir = Scratch::new();
        let (from, to, link) = (dir.join("from"), dir.join("to"), dir.join("link"));
        fs::write(&from, "short").unwrap();
        fs::write(&to, "what is longer").unwrap();
        std::os::unix::fs::symlink(&to, &link).unwrap();
        assert_eq!(fs::copy(&from, &link).unwrap(), 5);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&to).unwrap(), b"short");
        assert!(fs::copy(&from, &*dir).is_err());
        assert!(fs::copy(&*dir, dir.join("new")).is_err());
        assert!(!fs::exists(dir.join("new")).unwrap());
        assert!(fs::copy(dir.join("absent"), &to).is_err());
        assert_eq!(fs::read(&to).unwrap(), b"short");
    });
}

#[test]
fn a_directory_may_be_made_by_several_at_once() {
    everywhere(|| {
        let dir = Scratch::new();
        let deep: std::path::PathBuf = (0..30).fold(dir.to_path_buf(), |path, _| path.join("d"));
        let makers: Vec<_> = (0..8)
            .map(|_| {
                let deep = deep.clone();
                thread::spawn(move || fs::create_dir_all(deep))
            })
            .collect();
        for maker in makers {
            maker.join().unwrap().unwrap();
        }
        assert!(fs::metadata(&deep).unwrap().is_dir());
    });
}

#[test]
fn renaming_replaces_files_and_moves_directories() {
    everywhere(|| {
        let dir = Scratch::new();
        let (a, b) = (dir.join("a"), dir.join("b"));
        fs::write(&a, "new").unwrap();
        fs::write(&b, "old").unwrap();
        let mut open = File::open(&b).unwrap();
        fs::rename(&a, &b).unwrap();
        let mut text = String::new();
        open.read_to_string(&mut text).unwrap();
        assert_eq!(
            (&text[..], &fs::read(&b).unwrap()[..]),
            ("old", &b"new"[..])
        );
        fs::create_dir_all(dir.join("full/inner")).unwrap();
        fs::create_dir(&a).unwrap();
        let error = fs::rename(&a, dir.join("full")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DirectoryNotEmpty);
        fs::rename(dir.join("full"), a.join("moved")).unwrap();
        assert!(fs::exists(a.join("moved/inner")).unwrap());
    });
}

#[test]
fn what_files_are_made_of_shows_as_std_s() {
    everywhere(|| {
        let dir = Scratch::new();
        let mut options = OpenOptions::new();
        options
            .read(true)
            .append(true)
            .mode(0o640)
            .custom_flags(libc::O_NOFOLLOW);
        let mut theirs = ::std::fs::OpenOptions::new();
        theirs
            .read(true)
            .append(true)
            .mode(0o640)
            .custom_flags(libc::O_NOFOLLOW);
        assert_eq!(
            format!("{options:?} {options:#?}"),
            format!("{theirs:?} {theirs:#?}")
        );
        let (ours, theirs) = (DirBuilder::new(), ::std::fs::DirBuilder::new());
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        fs::write(dir.join("file"), "").unwrap();
        let (mut ours, theirs) = (
            fs::read_dir(&*dir).unwrap(),
            ::std::fs::read_dir(&*dir).unwrap(),
        );
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        let entry = ours.next().unwrap().unwrap();
        assert_eq!(
            format!("{entry:?}"),
            format!("DirEntry({:?})", dir.join("file"))
        );
        assert!(ours.next().is_none() && ours.next().is_none());
    });
}

#[test]
fn files_can_be_sent_shared_and_caught() {
    fn all<T: Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe + Unpin>() {}
    all::<File>();
    all::<OpenOptions>();
    all::<DirBuilder>();
    all::<fs::ReadDir>();
    all::<fs::DirEntry>();
}

#[test]
fn what_the_kernel_makes_up_is_read() {
    everywhere(|| {
        assert_eq!(
            fs::read_to_string("/proc/sys/kernel/ostype").unwrap(),
            "Linux\n"
        );
        let mut file = File::open("/proc/self/status").unwrap();
        let mut text = Vec::new();
        let mut seven = [0; 7];
        loop {
            match file.read(&mut seven).unwrap() {
                0 => break,
                read => text.extend_from_slice(&seven[..read]),
            }
        }
        assert!(text.starts_with(b"Name:") && text.ends_with(b"\n"));
        file.rewind().unwrap();
        assert_eq!(file.read_at(&mut seven, 1).unwrap(), 7);
        assert!(seven.starts_with(b"ame:"));
        for random in ["/dev/random", "/dev/urandom"] {
            let mut bytes = vec![0; 1000];
            File::open(random).unwrap().read_exact(&mut bytes).unwrap();
            assert!(bytes.iter().any(|&byte| byte != bytes[0]));
        }
        assert!(fs::read("/sys/kernel/no such file").is_err());
    });
}

#[test]
fn files_in_memory_are_files() {
    // A tmpfs on most machines.
    let place = std::path::Path::new("/dev/shm");
    if !place.is_dir() {
        return;
    }
    everywhere(|| {
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = place.join(format!(
            "greenroom-{}-{}-{number}",
            std::process::id(),
            module_path!().len()
        ));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        fs::remove_file(&path).unwrap();
        let bytes = util::noise(100_000, 4);
        file.write_all(&bytes).unwrap();
        file.write_all_at(b"xyz", 50_000).unwrap();
        let mut back = vec![0; bytes.len()];
        assert_eq!(file.read_at(&mut back, 0).unwrap(), bytes.len());
        assert_eq!(&back[50_000..50_003], b"xyz");
        file.rewind().unwrap();
        back.clear();
        file.read_to_end(&mut back).unwrap();
        util::assert_same_bytes(&back[50_003..], &bytes[50_003..]);
    });
}
