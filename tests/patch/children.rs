//! Waits for children, of all kinds. Each test has a process of its own, as a wait for any child would take those of
//! other tests.

use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::ptr::null_mut;

use libc::{ECHILD, SIGCONT, SIGKILL, SIGSTOP, c_int, c_uint, pid_t, rusage, siginfo_t};

use crate::calls::{Calls, alike, call, later};
use crate::forks::alone;

/// A child that ends with 7 when its input ends. It is the leader of a group of its own.
struct Reader {
    child: Child,
    pid: pid_t,
}

impl Reader {
    fn new() -> Reader {
        let mut command = Command::new("sh");
        command.args(["-c", "read line; exit 7"]).process_group(0);
        let child = command.stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id() as pid_t;
        Reader { child, pid }
    }

    /// Ends the child when the caller waits.
    fn end_later(&mut self) {
        let input = self.child.stdin.take();
        drop(later(move || drop(input)));
    }
}

/// Sends the child a signal when the caller waits.
fn signal_later(child: pid_t, signal: c_int) {
    drop(later(move || {
        // SAFETY: kill has no preconditions.
        assert_eq!(unsafe { libc::kill(child, signal) }, 0);
    }));
}

fn status_of(wait: impl FnOnce(*mut c_int) -> Result<i64, c_int>) -> (Result<i64, c_int>, c_int) {
    let mut status = 0;
    (wait(&raw mut status), status)
}

fn usage_of<R>(wait: impl FnOnce(*mut rusage) -> R) -> (R, rusage) {
    let mut usage = MaybeUninit::zeroed();
    let result = wait(usage.as_mut_ptr());
    // SAFETY: a C struct of numbers, for which all-zero bytes are valid.
    (result, unsafe { usage.assume_init() })
}

fn waitid(
    c: &Calls,
    kind: c_uint,
    id: pid_t,
    options: c_int,
) -> (Result<i64, c_int>, pid_t, c_int) {
    let mut info = MaybeUninit::<siginfo_t>::zeroed();
    let result = call!(c.waitid(kind, id as _, info.as_mut_ptr(), options));
    // SAFETY: all-zero bytes are valid; and if the call has succeeded, the structure is about a child.
    let (pid, status) = unsafe {
        let info = info.assume_init();
        (info.si_pid(), info.si_status())
    };
    (result, pid, status)
}

alone!(the_end_of_a_child_is_waited_for, {
    type Wait = fn(&Calls, pid_t, *mut c_int, *mut rusage) -> Result<i64, c_int>;
    let waits: [(&str, Wait); 7] = [
        ("wait", |c, _, status, _| call!(c.wait(status))),
        ("waitpid of it", |c, pid, status, _| {
            call!(c.waitpid(pid, status, 0))
        }),
        ("waitpid of any", |c, _, status, _| {
            call!(c.waitpid(-1, status, 0))
        }),
        ("waitpid of its group", |c, pid, status, _| {
            call!(c.waitpid(-pid, status, 0))
        }),
        ("wait3", |c, _, status, usage| {
            call!(c.wait3(status, 0, usage))
        }),
        ("wait4 of it", |c, pid, status, usage| {
            call!(c.wait4(pid, status, 0, usage))
        }),
        ("wait4 of any", |c, _, status, usage| {
            call!(c.wait4(-1, status, 0, usage))
        }),
    ];
    alike(|c| {
        for (name, wait) in waits {
            let mut reader = Reader::new();
            reader.end_later();
            let ((ended, status), usage) =
                usage_of(|usage| status_of(|status| wait(c, reader.pid, status, usage)));
            assert_eq!(ended, Ok(reader.pid.into()), "{name}");
            assert!(libc::WIFEXITED(status), "{name}: {status:#x}");
            assert_eq!(libc::WEXITSTATUS(status), 7, "{name}");
            assert_eq!(
                usage.ru_maxrss > 0,
                name.contains("wait3") || name.contains("wait4")
            );
            assert_eq!(
                wait(c, reader.pid, null_mut(), null_mut()),
                Err(ECHILD),
                "{name}"
            );
        }
    });
});

alone!(a_child_that_lives_is_not_waited_for_without_leave, {
    alike(|c| {
        let mut reader = Reader::new();
        for which in [reader.pid, -1, -reader.pid] {
            assert_eq!(call!(c.waitpid(which, null_mut(), libc::WNOHANG)), Ok(0));
        }
        assert_eq!(call!(c.wait3(null_mut(), libc::WNOHANG, null_mut())), Ok(0));
        let options = libc::WEXITED | libc::WNOHANG;
        assert_eq!(waitid(c, libc::P_PID, reader.pid, options), (Ok(0), 0, 0));
        reader.end_later();
        let ended = call!(c.waitpid(reader.pid, null_mut(), 0));
        assert_eq!(ended, Ok(reader.pid.into()));
    });
});

alone!(stops_and_continuations_of_a_child_are_waited_for, {
    alike(|c| {
        let reader = Reader::new();
        signal_later(reader.pid, SIGSTOP);
        let (told, status) =
            status_of(|status| call!(c.waitpid(reader.pid, status, libc::WUNTRACED)));
        assert_eq!(told, Ok(reader.pid.into()));
        assert!(libc::WIFSTOPPED(status), "{status:#x}");
        assert_eq!(libc::WSTOPSIG(status), SIGSTOP);

        signal_later(reader.pid, SIGCONT);
        let (told, status) = status_of(|status| call!(c.waitpid(-1, status, libc::WCONTINUED)));
        assert_eq!(told, Ok(reader.pid.into()));
        assert!(libc::WIFCONTINUED(status), "{status:#x}");

        signal_later(reader.pid, SIGSTOP);
        let stopped = waitid(c, libc::P_PGID, reader.pid, libc::WSTOPPED);
        assert_eq!(stopped, (Ok(0), reader.pid, SIGSTOP));

        signal_later(reader.pid, SIGKILL);
        let (told, status) =
            status_of(|status| call!(c.waitpid(reader.pid, status, libc::WUNTRACED)));
        assert_eq!(told, Ok(reader.pid.into()));
        assert!(libc::WIFSIGNALED(status), "{status:#x}");
        assert_eq!(libc::WTERMSIG(status), SIGKILL);
    });
});

alone!(a_child_that_is_only_looked_at_can_be_waited_for, {
    alike(|c| {
        for kind in [libc::P_ALL, libc::P_PID, libc::P_PGID] {
            let mut reader = Reader::new();
            reader.end_later();
            for options in [libc::WEXITED | libc::WNOWAIT, libc::WEXITED] {
                let told = waitid(c, kind, reader.pid, options);
                assert_eq!(told, (Ok(0), reader.pid, 7));
            }
            let (none, _, _) = waitid(c, kind, reader.pid, libc::WEXITED);
            assert_eq!(none, Err(ECHILD));
        }
    });
});
