//! What child processes promise.
//!
//! The tests that start child processes are here and in `copy.rs`, and `tests/process` runs both. Between
//! fork and exec, a child keeps the descriptors of its parent open. That could fail the tests of
//! `tests/behaviour` that expect a pipe or a connection to end.

use super::{std, util};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use std::{fs, thread};

use util::{assert_times_out, everywhere};

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script);
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_status_tells_how_a_child_ended() {
    everywhere(|| {
        assert!(shell("exit 0").status().unwrap().success());
        let status = shell("exit 7").status().unwrap();
        assert!(!status.success());
        assert_eq!((status.code(), status.signal()), (Some(7), None));
        let status = shell("kill -9 $$").status().unwrap();
        assert_eq!((status.code(), status.signal()), (None, Some(9)));
    });
}

#[test]
fn a_program_that_is_not_there_cannot_be_started() {
    everywhere(|| {
        let error = Command::new("/no/such/program").spawn().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(
            Command::new("/no/such/program")
                .output()
                .unwrap_err()
                .kind(),
            ErrorKind::NotFound
        );
        assert_eq!(
            Command::new("nul\0in name").status().unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
        let error = shell("true").current_dir("/no/such/directory").status();
        assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn output_has_both_streams_and_the_status() {
    everywhere(|| {
        let Output {
            status,
            stdout,
            stderr,
        } = shell("echo out; echo err >&2; exit 3").output().unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(text(&stdout), "out\n");
        assert_eq!(text(&stderr), "err\n");
    });
}

#[test]
fn output_takes_more_than_pipes_hold_of_both_streams() {
    everywhere(|| {
        let script =
            "for i in 1 2 3 4; do head -c 100000 /dev/zero; head -c 100000 /dev/zero >&2; done";
        let output = shell(script).output().unwrap();
        assert_eq!(
            (output.stdout.len(), output.stderr.len()),
            (400_000, 400_000)
        );
    });
}

#[test]
fn output_gives_no_input_unless_told_to() {
    everywhere(|| {
        assert_eq!(
            text(&shell("cat; echo end").output().unwrap().stdout),
            "end\n"
        );
    });
}

#[test]
fn a_stream_that_was_decided_on_stays_so_in_output() {
    everywhere(|| {
        let output = shell("echo out; echo err >&2")
            .stderr(Stdio::null())
            .output();
        let output = output.unwrap();
        assert_eq!((text(&output.stdout), text(&output.stderr)), ("out\n", ""));
        let mut command = shell("echo out");
        command.stdout(Stdio::null());
        assert_eq!(command.output().unwrap().stdout, b"");
        assert_eq!(
            command.output().unwrap().stdout,
            b"",
            "the second time, too"
        );
    });
}

#[test]
fn a_command_can_be_started_again_and_again() {
    everywhere(|| {
        let mut command = shell("echo $0");
        for _ in 0..3 {
            assert_eq!(text(&command.output().unwrap().stdout), "/bin/sh\n");
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert_eq!(said, "/bin/sh\n");
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn arguments_environment_and_directory_reach_the_child() {
    everywhere(|| {
        let output = shell("echo \"$1|$2|$NAME|$HOME|$(pwd)\"")
            .args(["zero", "one  word", "*"])
            .env_clear()
            .env("NAME", "value")
            .envs([("HOME", "nowhere")])
            .current_dir("/")
            .output()
            .unwrap();
        assert_eq!(text(&output.stdout), "one  word|*|value|nowhere|/\n");
        let output = shell("echo \"[$NAME]\"")
            .env("NAME", "value")
            .env_remove("NAME")
            .output()
            .unwrap();
        assert_eq!(text(&output.stdout), "[]\n");
    });
}

#[test]
fn a_command_tells_what_it_is_made_of() {
    everywhere(|| {
        let mut command = Command::new("program");
        command
            .args(["a", "b"])
            .env("K", "V")
            .env_remove("GONE")
            .current_dir("/tmp");
        assert_eq!(command.get_program(), "program");
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(command.get_args().len(), 2);
        let envs: Vec<_> = command
            .get_envs()
            .map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned)))
            .collect();
        assert_eq!(
            envs,
            [("GONE".into(), None), ("K".into(), Some("V".into()))]
        );
        assert_eq!(command.get_current_dir(), Some("/tmp".as_ref()));
        assert!(format!("{command:?}").contains("\"program\" \"a\" \"b\""));
    });
}

#[test]
fn what_is_written_to_its_input_reaches_the_child() {
    everywhere(|| {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let bytes = util::noise(1 << 20, 1);
        let mut back = Vec::new();
        thread::scope(|s| {
            s.spawn(|| {
                stdin.write_all(&bytes).unwrap();
                stdin.flush().unwrap();
                drop(stdin);
            });
            stdout.read_to_end(&mut back).unwrap();
        });
        util::assert_same_bytes(&back, &bytes);
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn waiting_closes_the_input_first() {
    everywhere(|| {
        let mut child = shell("cat >/dev/null; exit 5")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(5));
        assert!(child.stdin.is_none());
        let child = shell("cat; exit 6")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(6), 0));
    });
}

#[test]
fn wait_with_output_takes_what_was_captured() {
    everywhere(|| {
        let said = |out: Stdio, err: Stdio| {
            let child = shell("echo out; echo err >&2")
                .stdout(out)
                .stderr(err)
                .spawn();
            let output = child.unwrap().wait_with_output().unwrap();
            assert!(output.status.success());
            (
                text(&output.stdout).to_owned(),
                text(&output.stderr).to_owned(),
            )
        };
        let both = |out: &str, err: &str| (out.to_owned(), err.to_owned());
        assert_eq!(said(Stdio::piped(), Stdio::piped()), both("out\n", "err\n"));
        assert_eq!(said(Stdio::piped(), Stdio::null()), both("out\n", ""));
        assert_eq!(said(Stdio::null(), Stdio::piped()), both("", "err\n"));
        assert_eq!(said(Stdio::null(), Stdio::null()), both("", ""));
    });
}

#[test]
fn a_child_is_waited_for_as_often_as_one_likes() {
    everywhere(|| {
        let mut child = shell("exit 9").spawn().unwrap();
        for _ in 0..3 {
            assert_eq!(child.wait().unwrap().code(), Some(9));
            assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(9));
        }
        child
            .kill()
            .expect("killing one that was waited for does nothing");
    });
}

#[test]
fn a_child_that_runs_has_no_status_yet() {
    everywhere(|| {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        assert!(child.try_wait().unwrap().is_none());
        assert!(child.id() > 1);
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    });
}

#[test]
fn writing_to_a_child_that_has_gone_is_an_error() {
    everywhere(|| {
        let mut child = shell("exec <&-; exit 0")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        assert!(child.wait().unwrap().success());
        // A child that another test has just forked holds the pipe until the child runs its program.
        let error = loop {
            match stdin.write_all(&[0; 100]) {
                Ok(()) => thread::yield_now(),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn children_can_be_piped_together() {
    everywhere(|| {
        let mut first = shell("echo 3; echo 1; echo 2")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let sorted = Command::new("sort")
            .stdin(first.stdout.take().unwrap())
            .output()
            .unwrap();
        assert_eq!(text(&sorted.stdout), "1\n2\n3\n");
        assert!(first.wait().unwrap().success());
    });
}

#[test]
fn a_pipe_can_be_both_streams_of_a_child() {
    everywhere(|| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut command = shell("echo out; echo err >&2");
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let mut child = command.spawn().unwrap();
        drop(command);
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "out\nerr\n");
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn a_pipe_can_be_the_input_of_a_child() {
    everywhere(|| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let child = Command::new("cat")
            .stdin(reader)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        writer.write_all(b"through a pipe").unwrap();
        drop(writer);
        assert_eq!(
            text(&child.wait_with_output().unwrap().stdout),
            "through a pipe"
        );
    });
}

#[test]
fn a_child_s_pipes_convert_to_descriptors_and_back() {
    everywhere(|| {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        assert_eq!(stdin.as_fd().as_raw_fd(), stdin.as_raw_fd());
        let mut stdin = std::process::ChildStdin::from(OwnedFd::from(stdin));
        let stdout = OwnedFd::from(child.stdout.take().unwrap());
        child.stdout = Some(stdout.into());
        stdin.write_all(b"x").unwrap();
        drop(stdin);
        assert_eq!(child.wait_with_output().unwrap().stdout, b"x");
    });
}

#[test]
fn many_children_run_at_once() {
    const CHILDREN: usize = 50;
    everywhere(|| {
        let threads: Vec<_> = (0..CHILDREN)
            .map(|i| {
                thread::spawn(move || {
                    let output = shell(&format!("read line; echo {i}; exit {}", i % 100))
                        .stdin(Stdio::null())
                        .output()
                        .unwrap();
                    assert_eq!(output.status.code(), Some((i % 100) as i32));
                    assert_eq!(text(&output.stdout), format!("{i}\n"));
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn what_runs_before_the_program_can_refuse_it() {
    use std::os::unix::process::CommandExt;
    everywhere(|| {
        let mut command = Command::new("true");
        // SAFETY: the closure makes an error of a number, which neither allocates nor locks.
        unsafe { command.pre_exec(|| Err(std::io::Error::from_raw_os_error(libc::EACCES))) };
        assert_eq!(
            command.status().unwrap_err().kind(),
            ErrorKind::PermissionDenied
        );
        let mut command = Command::new("/bin/sh");
        command
            .arg0("another")
            .args(["-c", "echo $0"])
            .process_group(0);
        assert_eq!(text(&command.output().unwrap().stdout), "another\n");
    });
}

#[test]
fn a_child_shows_its_pipes() {
    everywhere(|| {
        let mut child: Child = shell("exit 0").stdout(Stdio::piped()).spawn().unwrap();
        let shown = format!("{child:?}");
        assert!(
            shown.starts_with("Child { stdin: None, stdout: Some("),
            "{shown}"
        );
        child.wait().unwrap();
    });
}

#[test]
fn what_has_a_null_byte_is_given_to_no_child() {
    everywhere(|| {
        let refused = |command: &mut Command| {
            assert_eq!(command.spawn().unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(
                command.output().unwrap_err().kind(),
                ErrorKind::InvalidInput
            );
        };
        refused(Command::new("true").arg("nul\0inside"));
        refused(Command::new("true").args(["nul\0inside"]));
        refused(Command::new("true").current_dir("nul\0inside"));
        refused(Command::new("true").env("nul\0inside", "value"));
        refused(Command::new("true").env("name", "nul\0inside"));
    });
}

#[test]
fn a_panic_before_the_program_ends_the_child_alone() {
    use std::os::unix::process::CommandExt;
    everywhere(|| {
        let mut command = Command::new("true");
        command.stderr(Stdio::null());
        // SAFETY: a panic in the forked child aborts, and a message without arguments allocates nothing.
        unsafe { command.pre_exec(|| panic!("in the child")) };
        assert_eq!(command.status().unwrap().signal(), Some(libc::SIGABRT));
    });
}

#[test]
fn a_child_has_the_signal_mask_and_the_group_it_was_given() {
    use std::os::unix::process::CommandExt;
    everywhere(|| {
        for forks in [false, true] {
            let mut command = Command::new("cat");
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .process_group(0);
            if forks {
                // SAFETY: the closure does nothing.
                unsafe { command.pre_exec(|| Ok(())) };
            }
            // SAFETY: a zeroed `sigset_t` is valid, and `sigemptyset` and `sigaddset` get pointers to one.
            let (set, mut old) = unsafe {
                let mut set: libc::sigset_t = ::std::mem::zeroed();
                libc::sigemptyset(&mut set);
                libc::sigaddset(&mut set, libc::SIGINT);
                (set, ::std::mem::zeroed())
            };
            // SAFETY: `set` and `old` are valid signal sets. Nothing in between parks, so both calls are on one
            // thread.
            let mut child = unsafe {
                libc::pthread_sigmask(libc::SIG_BLOCK, &set, &mut old);
                let child = command.spawn();
                libc::pthread_sigmask(libc::SIG_SETMASK, &old, ::std::ptr::null_mut());
                child.unwrap()
            };
            let id = child.id() as libc::pid_t;
            // SAFETY: neither call has preconditions. The signal reaches only the group of the child.
            unsafe {
                assert_eq!(libc::getpgid(id), id);
                assert_eq!(libc::kill(-id, libc::SIGINT), 0);
            }
            child.stdin.take().unwrap().write_all(b"alive").unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            assert_eq!(text(&output.stdout), "alive");
        }
    });
}

#[test]
fn a_file_can_be_the_streams_of_many_children() {
    everywhere(|| {
        let dir = util::Scratch::new();
        let path = dir.join("log");
        let log = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        let mut command = shell("cat; echo out; echo err >&2");
        command.stdin(std::fs::File::open("/dev/null").unwrap());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        for _ in 0..2 {
            assert!(command.status().unwrap().success());
        }
        let output = command.output().unwrap();
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "out\nerr\n".repeat(3)
        );
    });
}

#[test]
fn output_takes_the_input_that_was_decided_on() {
    everywhere(|| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"input").unwrap();
        drop(writer);
        let mut command = Command::new("cat");
        command.stdin(reader);
        assert_eq!(text(&command.output().unwrap().stdout), "input");
        assert_eq!(
            text(&command.output().unwrap().stdout),
            "",
            "it has been read"
        );
        // Nothing writes to the pipe, and `output` closes the pipe before waiting for the child.
        let output = Command::new("cat").stdin(Stdio::piped()).output().unwrap();
        assert!(output.status.success() && output.stdout.is_empty());
    });
}

#[test]
fn a_program_is_looked_for_where_the_child_s_path_says() {
    everywhere(|| {
        let dir = util::Scratch::new();
        std::os::unix::fs::symlink("/bin/sh", dir.join("only here")).unwrap();
        let mut command = Command::new("only here");
        command.args(["-c", "exit 4"]);
        assert_eq!(command.status().unwrap_err().kind(), ErrorKind::NotFound);
        command.env("PATH", &*dir);
        assert_eq!(command.status().unwrap().code(), Some(4));
    });
}

#[test]
fn children_can_be_sent_shared_and_caught() {
    fn all<T: Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe + Unpin>() {}
    fn some<T: Send + Sync + Unpin>() {}
    all::<Child>();
    all::<std::process::ChildStdin>();
    all::<std::process::ChildStdout>();
    all::<std::process::ChildStderr>();
    some::<Command>();
}

#[test]
fn a_child_process_can_have_a_socket_as_its_standard_output() {
    everywhere(|| {
        let (mut near, far) = UnixStream::pair().unwrap();
        // A coroutine has waited on the descriptor.
        far.set_read_timeout(Some(Duration::from_millis(10)))
            .unwrap();
        assert_times_out(|| (&far).read(&mut [0; 1]));
        let mut child = Command::new("echo")
            .arg("from the child")
            .stdout(Stdio::from(OwnedFd::from(far)))
            .spawn()
            .unwrap();
        let mut said = String::new();
        near.read_to_string(&mut said).unwrap();
        assert_eq!(said, "from the child\n");
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn a_directory_that_cannot_be_listed_says_so_once() {
    everywhere(|| {
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let proc = format!("/proc/{}", child.id());
        // /proc has a directory of a zombie that can be opened but not read.
        while !fs::read_to_string(format!("{proc}/stat"))
            .unwrap()
            .contains(") Z ")
        {
            thread::sleep(Duration::from_millis(1));
        }
        if let Ok(entries) = fs::read_dir(format!("{proc}/net")) {
            assert!(entries.filter(Result::is_err).take(2).count() < 2);
        }
        child.wait().unwrap();
    });
}
