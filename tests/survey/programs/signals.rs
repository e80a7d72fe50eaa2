//! Signals arrive while other threads wait and work: by signal-hook on a thread of the program's, by ctrlc on one of
//! its own.

use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

fn main() {
    let (sender, receiver) = mpsc::channel();
    let interrupted = sender.clone();
    ctrlc::set_handler(move || interrupted.send("interrupted".to_owned()).unwrap()).unwrap();
    let mut signals = Signals::new([SIGUSR1, SIGUSR2]).unwrap();
    thread::spawn(move || {
        for signal in signals.forever() {
            sender.send(format!("signal {}", signal - SIGUSR1)).unwrap();
        }
    });
    let working = thread::spawn(|| {
        for _ in 0..100 {
            thread::sleep(Duration::from_millis(1));
        }
    });
    for name in ["USR1", "INT", "USR2"] {
        let own = std::process::id().to_string();
        let status = Command::new("kill").args(["-s", name, &own]).status();
        assert!(status.unwrap().success());
        println!("{}", receiver.recv().unwrap());
    }
    working.join().unwrap();
    check_os_threads();
}

/// Panics if there are more OS threads than `MOST_OS_THREADS` says.
fn check_os_threads() {
    let Ok(most) = std::env::var("MOST_OS_THREADS") else {
        return;
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mut lines = status.lines();
    let count = lines.find_map(|line| line.strip_prefix("Threads:")).unwrap();
    let count: usize = count.trim().parse().unwrap();
    assert!(count <= most.parse().unwrap(), "{count} OS threads");
}
