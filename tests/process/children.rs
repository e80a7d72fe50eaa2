//! Child processes, beyond std's promises.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use greenroom::shims::process::{ChildExt, Command, Stdio};
use serial_test::{parallel, serial};

use crate::util;

fn sleeper() -> greenroom::shims::process::Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

/// Runs a test of this binary again, in a process of its own, where `as_child` returns true.
fn passes_in_a_child(test: &str) {
    let output = util::again!(test, "child").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    assert!(said.contains("end of child"), "{said}");
}

fn as_child() -> bool {
    util::role().is_some()
}

#[test]
#[parallel]
fn a_wait_with_a_limit_ends_in_time_or_with_the_child() {
    util::everywhere(|| {
        let mut child = sleeper();
        let start = Instant::now();
        let limit = Duration::from_millis(20);
        assert!(child.wait_timeout(limit).unwrap().is_none());
        assert!(start.elapsed() >= limit);
        assert!(child.wait_timeout(Duration::ZERO).unwrap().is_none());
        child.kill().unwrap();
        let status = child.wait_timeout(Duration::MAX).unwrap();
        assert!(!status.expect("it was killed").success());
        assert_eq!(child.wait_timeout(Duration::ZERO).unwrap(), status);
        assert_eq!(child.wait().unwrap(), status.unwrap());
    });
}

#[test]
#[parallel]
fn others_run_while_a_coroutine_waits_for_its_child() {
    util::on_workers(1, || {
        let child_ended = AtomicBool::new(false);
        greenroom::scope(|s| {
            s.spawn(|| {
                let mut command = Command::new("cat");
                command.stdin(Stdio::piped()).stdout(Stdio::null());
                let mut child = command.spawn().unwrap();
                let mut stdin = child.stdin.take().unwrap();
                let (mut ticks, mut written) = (0, 0);
                greenroom::scope(|s| {
                    s.spawn(|| {
                        child.wait().unwrap();
                        child_ended.store(true, Ordering::Relaxed);
                    });
                    while ticks < 20 {
                        greenroom::shims::thread::sleep(Duration::from_millis(1));
                        assert!(!child_ended.load(Ordering::Relaxed));
                        written += stdin.write(b"x").unwrap();
                        ticks += 1;
                    }
                    drop(stdin);
                });
                assert_eq!(written, 20);
            });
        });
        assert!(child_ended.load(Ordering::Relaxed));
    });
}

#[test]
#[parallel]
fn others_run_while_a_coroutine_reads_and_writes_slow_pipes() {
    util::on_workers(1, || {
        let (mut reader, mut writer) = greenroom::shims::io::pipe().unwrap();
        let received = greenroom::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all
        });
        let bytes = util::noise(1 << 20, 3);
        writer.write_all(&bytes).unwrap();
        drop(writer);
        util::assert_same_bytes(&received.join().unwrap(), &bytes);
    });
}

#[test]
#[parallel]
fn pipes_stay_in_blocking_mode_for_others() {
    util::on_workers(1, || {
        let (mut reader, writer) = greenroom::shims::io::pipe().unwrap();
        let reading = greenroom::spawn(move || {
            reader.read_exact(&mut [0]).unwrap();
            reader
        });
        greenroom::yield_now();
        let nonblocking = |fd: &dyn AsFd| {
            let flags = rustix::fs::fcntl_getfl(fd.as_fd()).unwrap();
            flags.contains(rustix::fs::OFlags::NONBLOCK)
        };
        assert!(!nonblocking(&writer));
        (&writer).write_all(b"x").unwrap();
        assert!(!nonblocking(&reading.join().unwrap()));
    });
}

#[test]
#[parallel]
fn a_pipe_made_of_a_regular_file_reads_it() {
    util::everywhere(|| {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let mut pipe = greenroom::shims::io::PipeReader::from(std::os::fd::OwnedFd::from(file));
        let mut magic = [0; 4];
        pipe.read_exact(&mut magic).unwrap();
        assert_eq!(&magic, b"\x7fELF");
    });
}

#[test]
#[parallel]
fn two_hundred_children_at_once_leave_no_zombie_and_no_descriptor() {
    // In a process of its own, because other tests would open descriptors meanwhile.
    if !as_child() {
        return passes_in_a_child("two_hundred_children_at_once_leave_no_zombie_and_no_descriptor");
    }
    util::on_workers(2, || {
        let before = util::open_descriptors();
        let children: Vec<_> = (0..200)
            .map(|_| {
                let mut child = Command::new("cat")
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap();
                let stdin = child.stdin.take();
                let id = child.id();
                let waiting = greenroom::spawn(move || child.wait().unwrap());
                (id, stdin, waiting)
            })
            .collect();
        for (id, stdin, waiting) in children {
            assert!(!waiting.is_finished());
            drop(stdin);
            assert!(waiting.join().unwrap().success());
            assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
        }
        assert_eq!(util::open_descriptors(), before);
    });
    eprintln!("end of child");
}

#[test]
#[serial]
fn children_of_other_code_are_left_alone() {
    util::on_workers(1, || {
        let mut theirs = std::process::Command::new("sh")
            .args(["-c", "exit 11"])
            .spawn()
            .unwrap();
        for _ in 0..5 {
            assert!(Command::new("true").status().unwrap().success());
        }
        assert_eq!(theirs.wait().unwrap().code(), Some(11));
    });
}

#[test]
#[parallel]
fn the_end_of_a_runtime_unwinds_a_wait_for_a_child() {
    let mut child = None;
    util::on_workers(1, || {
        let mut started = sleeper();
        child = Some(started.id());
        greenroom::spawn(move || started.wait());
        greenroom::yield_now();
    });
    // The child runs on, as std's children do when nobody waits for them.
    let id = rustix::process::Pid::from_raw(child.unwrap() as i32).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
    rustix::process::waitpid(Some(id), rustix::process::WaitOptions::empty()).unwrap();
}

#[test]
#[parallel]
fn a_command_that_was_run_in_a_coroutine_can_be_run_on_a_thread() {
    let mut command = Command::new("sh");
    command.args(["-c", "cat; echo out; echo err >&2"]);
    let mut both = Vec::new();
    both.extend(util::on_workers(1, || command.output()));
    both.extend(command.output());
    for output in both {
        assert_eq!(
            (&output.stdout[..], &output.stderr[..]),
            (&b"out\n"[..], &b"err\n"[..])
        );
    }
}

#[test]
#[parallel]
fn a_destructor_waits_for_its_child_during_a_panic() {
    struct Guard(greenroom::shims::process::Child);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
    for workers in [1, 4] {
        util::on_workers(workers, || {
            let (tell, told) = std::sync::mpsc::channel();
            let panicked = greenroom::spawn(move || {
                let guard = Guard(sleeper());
                tell.send(guard.0.id()).unwrap();
                std::panic::resume_unwind(Box::new("of its own"));
            });
            assert!(panicked.join().is_err());
            let id = told.recv().unwrap();
            let proc = format!("/proc/{id}");
            assert!(!std::path::Path::new(&proc).exists(), "a zombie is left");
        });
    }
}

#[test]
#[parallel]
fn a_child_that_was_waited_for_holds_no_descriptor() {
    // In a process of its own, because other tests would open descriptors meanwhile.
    if !as_child() {
        return passes_in_a_child("a_child_that_was_waited_for_holds_no_descriptor");
    }
    util::on_workers(1, || {
        let before = util::open_descriptors();
        let mut child = Command::new("sleep").arg("0.01").spawn().unwrap();
        assert!(child.wait().unwrap().success());
        let mut limited = sleeper();
        assert!(
            limited
                .wait_timeout(Duration::from_millis(1))
                .unwrap()
                .is_none()
        );
        limited.kill().unwrap();
        assert!(limited.wait_timeout(Duration::MAX).unwrap().is_some());
        assert_eq!(util::open_descriptors(), before);
    });
    eprintln!("end of child");
}

#[test]
#[parallel]
fn a_child_is_waited_for_without_a_spare_descriptor() {
    if !as_child() {
        return passes_in_a_child("a_child_is_waited_for_without_a_spare_descriptor");
    }
    util::on_workers(1, || {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let open = util::open_descriptors() as u64;
        rustix::process::setrlimit(
            rustix::process::Resource::Nofile,
            rustix::process::Rlimit {
                current: Some(open - 1),
                maximum: Some(open + 100),
            },
        )
        .unwrap();
        let mut taken = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            taken.push(file);
        }
        let waiting = greenroom::spawn(move || child.wait().unwrap());
        for _ in 0..5 {
            greenroom::shims::thread::sleep(Duration::from_millis(1));
        }
        assert!(!waiting.is_finished());
        drop(stdin);
        assert!(waiting.join().unwrap().success());
    });
    eprintln!("end of child");
}

#[test]
#[parallel]
fn waiting_for_a_child_that_was_reaped_elsewhere_is_an_error() {
    if !as_child() {
        return passes_in_a_child("waiting_for_a_child_that_was_reaped_elsewhere_is_an_error");
    }
    let script = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).spawn().unwrap()
    };
    util::everywhere(|| {
        let mut child = script("exit 3");
        let id = rustix::process::Pid::from_raw(child.id() as i32);
        rustix::process::waitpid(id, rustix::process::WaitOptions::empty()).unwrap();
        let echild = |error: std::io::Error| error.raw_os_error() == Some(libc::ECHILD);
        assert!(echild(child.wait().unwrap_err()));
        assert!(echild(
            child.wait_timeout(Duration::from_secs(1)).unwrap_err()
        ));
    });
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    util::everywhere(|| {
        let mut child = script("sleep 0.01");
        let error = child.wait().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
    });
    eprintln!("end of child");
}
