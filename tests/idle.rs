//! An idle runtime makes no wake-ups.

mod util;

use std::fs;

use greenroom::server::{Connection, Server};
use greenroom::shims as std;
use serial_test::serial;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

/// How often the threads of the runtime have been switched in, by thread.
fn switches() -> Vec<(String, u64)> {
    let mut switches: Vec<_> = fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|task| task.unwrap().path())
        .filter_map(|task| {
            // A thread may end meanwhile.
            let comm = fs::read_to_string(task.join("comm")).ok()?;
            let status = fs::read_to_string(task.join("status")).ok()?;
            comm.starts_with("greenroom").then_some((task, status))
        })
        .map(|(task, status)| {
            let count = status
                .lines()
                .filter(|line| line.contains("ctxt_switches"))
                .map(|line| {
                    line.split_whitespace()
                        .last()
                        .unwrap()
                        .parse::<u64>()
                        .unwrap()
                })
                .sum();
            (task.display().to_string(), count)
        })
        .collect();
    switches.sort();
    switches
}

/// Has connections wait in every way, on a runtime with `workers` workers. Counts wake-ups from outside
/// of the runtime.
fn idle_for_a_while(workers: usize) {
    let (ready, is_ready) = ::std::sync::mpsc::channel();
    let driver = ::std::thread::Builder::new().name("greenroom-0".into());
    let runtime = driver.spawn(move || {
        util::on_workers(workers, || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap();
            let acceptor = thread::spawn(move || {
                let streams: Vec<_> = listener.incoming().take(100).map(Result::unwrap).collect();
                let readers = streams.into_iter().enumerate().map(|(n, mut stream)| {
                    // Timeouts that were armed and cancelled must not wake a worker either.
                    let timeout = (n % 2 == 0).then_some(Duration::from_secs(600));
                    stream.set_read_timeout(timeout).unwrap();
                    thread::spawn(move || stream.read(&mut [0]).unwrap())
                });
                readers.collect::<Vec<_>>()
            });
            let clients: Vec<_> = (0..100)
                .map(|_| TcpStream::connect(addr).unwrap())
                .collect();
            // One server is full, and the other waits for a connection.
            let servers = [1, 3].map(|limit| {
                let server = Server::builder().limit(limit);
                let server = server.deadline(Duration::from_secs(600));
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let serve = |mut client: &Connection| client.read(&mut [0]).map(drop);
                server.serve(listener, serve).unwrap()
            });
            let served = servers
                .each_ref()
                .map(|server| TcpStream::connect(server.local_addr()).unwrap());
            let queued = TcpStream::connect(servers[0].local_addr()).unwrap();
            thread::spawn(|| thread::sleep(Duration::from_secs(600)));
            thread::spawn(thread::park);
            // One timer that is far away, and a keeper that has nothing to do after another has fired.
            greenroom::after(Duration::from_millis(1), || ());
            if workers > 1 {
                greenroom::after(Duration::from_secs(600), || ());
            }
            let readers = acceptor.join().unwrap();
            let short = thread::spawn(|| thread::sleep(Duration::from_millis(1)));
            short.join().unwrap();

            // Its client has no question.
            let path = util::Scratch::new();
            let backdoor = greenroom::backdoor::serve(path.join("door")).unwrap();
            let visitor = UnixStream::connect(backdoor.path()).unwrap();

            ready.send(thread::current()).unwrap();
            thread::park();
            drop((clients, served, queued, servers, visitor, backdoor));
            for reader in readers {
                assert_eq!(reader.join().unwrap(), 0);
            }
        });
    });
    let runtime = runtime.unwrap();
    let inside = is_ready.recv().unwrap();
    // Waits until all is quiet. On a noisy machine that may take a while.
    let mut quiet = false;
    for _ in 0..10 {
        ::std::thread::sleep(Duration::from_millis(200));
        let before = switches();
        ::std::thread::sleep(Duration::from_secs(2));
        let after = switches();
        quiet = before == after;
        if !quiet {
            eprintln!("before {before:?}\nafter  {after:?}");
        }
        if quiet {
            break;
        }
    }
    inside.unpark();
    runtime.join().unwrap();
    assert!(
        quiet,
        "some thread woke up in each of ten spells of two seconds"
    );
}

#[test]
#[serial]
fn idle_workers_make_no_wake_ups_under_the_monitor() {
    // Nothing turns it off, so the tests that come later have it, too.
    greenroom::monitor(Duration::from_millis(100)).unwrap();
    idle_for_a_while(1);
    idle_for_a_while(4);
}

#[test]
#[serial]
fn one_idle_worker_makes_no_wake_ups() {
    idle_for_a_while(1);
}

#[test]
#[serial]
fn four_idle_workers_make_no_wake_ups() {
    idle_for_a_while(4);
}
