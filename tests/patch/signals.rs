//! Signals while coroutines wait in calls of the C library. Each test starts this binary again.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use greenroom::signal::{self, SIGINT, SIGUSR1, SIGUSR2, Signals};

use crate::util::{self, ms, on_one_worker, tcp_pair};

/// Handles `signal` on the calling thread, before it returns.
fn raise(signal: i32) {
    // SAFETY: raise has no preconditions.
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

#[test]
fn signals_come_while_coroutines_are_in_calls_of_the_c_library() {
    if util::role().is_none() {
        let test = "signals_come_while_coroutines_are_in_calls_of_the_c_library";
        let status = util::again!(test, "alone").status().unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    on_one_worker(|| {
        let signals = Signals::new(&[SIGUSR1, SIGUSR2]).unwrap();
        let waiter = greenroom::spawn(|| signal::wait(&[SIGUSR2]).unwrap());
        let (mut client, mut server) = tcp_pair();
        let reader = greenroom::spawn(move || {
            let mut read = Vec::new();
            server.read_to_end(&mut read).map(|_| read).unwrap()
        });
        let mut kill = Command::new("sh");
        let own = std::process::id();
        let kill = kill
            .arg("-c")
            .arg(format!("for i in 1 2 3 4 5; do kill -USR1 {own}; done"));
        for n in 0..100 {
            client.write_all(&[n]).unwrap();
            raise(SIGUSR1);
            std::thread::sleep(Duration::from_micros(50));
        }
        // By the patched calls, too, the waits are for a child and its pipes.
        assert!(kill.output().unwrap().status.success());
        drop(client);
        assert_eq!(reader.join().unwrap(), (0..100).collect::<Vec<u8>>());
        assert_eq!(signals.next_timeout(Duration::MAX).unwrap(), SIGUSR1);
        raise(SIGUSR2);
        assert_eq!(waiter.join().unwrap(), SIGUSR2);
    });
}

#[test]
fn ctrl_c_ends_calls_of_the_c_library_where_coroutines_are_to_unwind() {
    if util::role().is_some() {
        struct Note(&'static str);
        impl Drop for Note {
            fn drop(&mut self) {
                println!("dropped {}", self.0);
            }
        }
        signal::unwind_on(&[SIGINT]).unwrap();
        on_one_worker(|| {
            let (_client, mut server) = tcp_pair();
            let reader = greenroom::spawn(move || {
                let _note = Note("reader");
                server.read(&mut [0]).unwrap_err()
            });
            greenroom::spawn(|| {
                std::thread::sleep(ms(10));
                raise(SIGINT);
            });
            let _note = Note("main");
            drop(reader.join());
        });
    }
    let test = "ctrl_c_ends_calls_of_the_c_library_where_coroutines_are_to_unwind";
    let output = util::again!(test, "alone")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(SIGINT), "{}", output.status);
    let said = String::from_utf8(output.stdout).unwrap();
    for note in ["main", "reader"] {
        assert!(said.contains(&format!("dropped {note}\n")), "{said}");
    }
}
