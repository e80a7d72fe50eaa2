//! Connections that are dropped, in whatever state, leave no descriptor behind.
//!
//! This counts the descriptors of the whole process. Being the only test of this file, it has its
//! process to itself; add none.

mod util;

use greenroom::shims as std;

use ::std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};
use util::{everywhere, open_descriptors};

/// Uses, one after the other, `count` connections in every way that holds a
/// descriptor.
fn use_connections(count: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    for n in 0..count {
        let mut near = TcpStream::connect(addr).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        match n % 4 {
            0 => {
                near.write_all(b"x").unwrap();
                far.read_exact(&mut [0; 1]).unwrap();
            }
            1 => drop((near.try_clone().unwrap(), far.try_clone().unwrap())),
            2 => {
                // Dropped by another task, after having waited there.
                let reader = thread::spawn(move || far.read(&mut [0; 1]).unwrap());
                thread::yield_now();
                drop(near);
                assert_eq!(reader.join().unwrap(), 0);
            }
            _ => {
                far.set_read_timeout(Some(Duration::from_millis(1)))
                    .unwrap();
                assert!(far.read(&mut [0; 1]).is_err());
            }
        }
    }
}

#[test]
fn dropping_streams_releases_their_descriptors() {
    everywhere(|| {
        use_connections(4); // whatever is opened once and kept
        let before = open_descriptors();
        use_connections(200);
        let start = Instant::now();
        loop {
            let after = open_descriptors();
            if after <= before {
                break;
            }
            let patient = start.elapsed() < Duration::from_secs(10);
            assert!(patient, "{before} descriptors became {after}");
            thread::sleep(Duration::from_millis(10));
        }
    });
}
