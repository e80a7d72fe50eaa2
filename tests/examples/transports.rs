//! The transports of `examples/echo_four_ways`: how connections end.

#[path = "../../examples/util/accept.rs"]
mod accept;
#[allow(dead_code, reason = "its server is tested from outside")]
#[path = "../../examples/echo_four_ways/protocol.rs"]
mod protocol;
#[path = "../../examples/echo_four_ways/transport.rs"]
mod transport;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use greenroom::shims::net::TcpListener;
use greenroom::spawn;

use crate::util::{PATIENCE, assert_same_bytes, noise, on_workers, reset_on_close};
use protocol::{Protocol, Reason, converse};
use transport::Transport;

/// What has happened to a connection, in words.
type Log = Arc<Mutex<Vec<String>>>;

/// Calls functions of the test, and logs.
struct Scripted<M, R> {
    made: M,
    received: R,
    log: Log,
}

impl<M: FnMut(&Transport), R: FnMut(&Transport, &[u8])> Protocol for Scripted<M, R> {
    fn connection_made(&mut self, transport: &Transport) {
        (self.made)(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        let text = String::from_utf8_lossy(data).into_owned();
        self.log.lock().unwrap().push(text);
        (self.received)(transport, data);
    }

    fn connection_lost(&mut self, reason: Reason) {
        self.log.lock().unwrap().push(reason.to_string());
    }
}

/// Serves one connection with these functions. `client` has the other end, on an OS thread. Returns the log.
fn with_client(
    made: impl FnMut(&Transport) + Send + 'static,
    received: impl FnMut(&Transport, &[u8]) + Send + 'static,
    client: impl FnOnce(TcpStream) + Send + 'static,
) -> Vec<String> {
    let log = Log::default();
    let kept = Arc::clone(&log);
    on_workers(1, move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = thread::spawn(move || {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            client(stream);
        });
        let (stream, _) = listener.accept().unwrap();
        let log = kept;
        let served = spawn(move || {
            let protocol = Scripted {
                made,
                received,
                log,
            };
            converse(&Transport::new(stream), protocol);
        });
        served.join().unwrap();
        greenroom::join_thread(client).unwrap();
    });
    Arc::into_inner(log).unwrap().into_inner().unwrap()
}

const LARGE: usize = 10 << 20;

#[test]
fn lose_connection_sends_everything_first_to_a_slow_peer_too() {
    let log = with_client(
        |transport| {
            transport.write(&noise(LARGE, 1));
            transport.lose_connection();
            transport.write(b"too late");
        },
        |_, _| {},
        |mut stream| {
            thread::sleep(Duration::from_millis(200));
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            assert_same_bytes(&all, &noise(LARGE, 1));
        },
    );
    assert_eq!(log, ["closed cleanly"]);
}

#[test]
fn lose_connection_while_data_is_received_ends_the_conversation() {
    let log = with_client(
        |_| {},
        |transport, data| {
            transport.write(data);
            transport.lose_connection();
        },
        |mut stream| {
            stream.write_all(b"bye").unwrap();
            let mut all = String::new();
            stream.read_to_string(&mut all).unwrap();
            assert_eq!(all, "bye");
        },
    );
    assert_eq!(log, ["bye", "closed cleanly"]);
}

#[test]
fn lose_connection_sends_everything_to_a_peer_whose_data_is_not_read() {
    with_client(
        |_| {},
        |transport, _| {
            transport.write(&noise(LARGE, 1));
            transport.lose_connection();
        },
        |mut stream| {
            // More than the server reads at once.
            stream.write_all(&noise(20_000, 2)).unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            assert_same_bytes(&all, &noise(LARGE, 1));
        },
    );
}

#[test]
fn abort_connection_resets_and_drops_what_is_queued() {
    let log = with_client(
        |transport| {
            transport.write(&noise(60_000, 1));
        },
        |transport, _| transport.abort_connection(),
        |mut stream| {
            stream.write_all(b"abort").unwrap();
            let mut all = Vec::new();
            let error = stream.read_to_end(&mut all).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        },
    );
    assert_eq!(log, ["abort", "aborted"]);
}

/// Serves one connection, which first writes `written`. `other` is another coroutine, with the transport and the
/// peer. Returns the log.
fn with_another_coroutine(
    written: Vec<u8>,
    other: impl FnOnce(Arc<Transport>, &mut TcpStream),
) -> Vec<String> {
    on_workers(1, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let transport = Arc::new(Transport::new(listener.accept().unwrap().0));
        let log = Log::default();
        let served = spawn({
            let (transport, log) = (Arc::clone(&transport), Arc::clone(&log));
            move || {
                let protocol = Scripted {
                    made: |transport: &Transport| transport.write(&written),
                    received: |_: &Transport, _: &[u8]| {},
                    log,
                };
                converse(&transport, protocol);
            }
        });
        greenroom::shims::thread::sleep(Duration::from_millis(50));
        assert!(!served.is_finished());
        other(transport, &mut peer);
        served.join().unwrap();
        Arc::into_inner(log).unwrap().into_inner().unwrap()
    })
}

#[test]
fn abort_connection_by_another_coroutine_ends_a_wait_for_a_peer_that_does_not_read() {
    let log = with_another_coroutine(noise(LARGE, 1), |transport, peer| {
        transport.abort_connection();
        let error = peer.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
    assert_eq!(log, ["aborted"]);
}

#[test]
fn lose_connection_by_another_coroutine_wakes_the_reader() {
    let log = with_another_coroutine(b"hello".to_vec(), |transport, peer| {
        let mut hello = [0; 5];
        peer.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
        transport.lose_connection();
    });
    assert_eq!(log, ["closed cleanly"]);
}

#[test]
fn lose_write_connection_ends_the_data_and_goes_on_receiving() {
    let log = with_client(
        |transport| {
            transport.write(b"all there is");
            transport.lose_write_connection();
        },
        |_, _| {},
        |mut stream| {
            let mut all = String::new();
            stream.read_to_string(&mut all).unwrap();
            assert_eq!(all, "all there is");
            stream.write_all(b"thanks").unwrap();
        },
    );
    assert_eq!(log, ["thanks", "closed cleanly"]);
}

#[test]
fn a_peer_that_closes_and_one_that_resets_are_told_apart() {
    let closed = with_client(
        |_| {},
        |_, _| {},
        |stream| stream.shutdown(Shutdown::Write).unwrap(),
    );
    assert_eq!(closed, ["closed cleanly"]);
    let reset = with_client(|_| {}, |_, _| {}, |stream| reset_on_close(&stream));
    assert_eq!(reset.len(), 1);
    assert!(reset[0].starts_with("lost: "), "{reset:?}");
}
