//! std's own calls, on coroutines of one worker.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::util::{begin, on_one_worker};

#[test]
fn the_patch_is_in_force() {
    let status = greenroom::patch::status();
    assert!(status.is_in_force(), "{status}");
    on_one_worker(|| {
        let status = greenroom::patch::status();
        assert!(status.is_in_force(), "{status}");
    });
}

#[test]
fn twenty_sleeps_take_as_long_as_one() {
    on_one_worker(|| {
        let begin = Instant::now();
        let sleeps: Vec<_> = (0..20)
            .map(|_| greenroom::spawn(|| sleep(Duration::from_millis(300))))
            .collect();
        for sleep in sleeps {
            sleep.join().unwrap();
        }
        let took = begin.elapsed();
        // One after the other, they would take six seconds.
        assert!(
            took >= Duration::from_millis(300) && took < Duration::from_secs(4),
            "{took:?}"
        );
    });
}

#[test]
fn tcp_clients_and_their_server_share_a_thread() {
    on_one_worker(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = greenroom::spawn(move || {
            for _ in 0..10 {
                let (mut stream, _) = listener.accept().unwrap();
                greenroom::spawn(move || io::copy(&mut stream.try_clone().unwrap(), &mut stream));
            }
        });
        let clients: Vec<_> = (0..10u8)
            .map(|i| {
                greenroom::spawn(move || {
                    let mut stream = TcpStream::connect(addr).unwrap();
                    let sent = vec![i; 1 << 20];
                    let mut writer = stream.try_clone().unwrap();
                    let expected = sent.clone();
                    let writing = greenroom::spawn(move || writer.write_all(&sent).unwrap());
                    let mut echo = vec![0; 1 << 20];
                    stream.read_exact(&mut echo).unwrap();
                    assert!(echo == expected);
                    writing.join().unwrap();
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        server.join().unwrap();
    });
}

#[test]
fn udp_unix_sockets_and_pipes_park() {
    on_one_worker(|| {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = udp.local_addr().unwrap();
        let (datagram, far) = UnixDatagram::pair().unwrap();
        let (mut stream, mut end) = UnixStream::pair().unwrap();
        let (mut reader, mut writer) = io::pipe().unwrap();
        greenroom::spawn(move || {
            sleep(Duration::from_millis(5));
            peer.send_to(b"udp", to).unwrap();
            sleep(Duration::from_millis(5));
            far.send(b"datagram").unwrap();
            sleep(Duration::from_millis(5));
            end.write_all(b"stream").unwrap();
            sleep(Duration::from_millis(5));
            writer.write_all(&[7; 1 << 20]).unwrap();
        });
        let mut buf = [0; 100];
        let n = udp.recv(&mut buf).unwrap();
        assert_eq!(&buf[..n], b"udp");
        let n = datagram.recv(&mut buf).unwrap();
        assert_eq!(&buf[..n], b"datagram");
        let n = stream.read(&mut buf).unwrap();
        assert_eq!(&buf[..n], b"stream");
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert!(all == [7; 1 << 20]);
    });
}

#[test]
fn timeouts_of_sockets_are_kept() {
    on_one_worker(|| {
        let (mut stream, _end) = UnixStream::pair().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        stream.set_nonblocking(true).unwrap();
        assert_eq!(
            stream.read(&mut [0]).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    });
}

#[test]
fn a_unix_listener_accepts_and_a_full_queue_is_waited_for() {
    let dir = std::env::temp_dir().join(format!("greenroom-patch-{}", std::process::id()));
    let _ = std::fs::remove_file(&dir);
    on_one_worker(|| {
        let listener = UnixListener::bind(&dir).unwrap();
        let clients: Vec<_> = (0..300)
            .map(|_| {
                let dir = dir.clone();
                greenroom::spawn(move || {
                    let mut stream = UnixStream::connect(&dir).unwrap();
                    stream.read(&mut [0]).unwrap()
                })
            })
            .collect();
        sleep(Duration::from_millis(20));
        for _ in 0..300 {
            listener.accept().unwrap().0.write_all(b"x").unwrap();
        }
        for client in clients {
            assert_eq!(client.join().unwrap(), 1);
        }
    });
    std::fs::remove_file(&dir).unwrap();
}

#[test]
fn names_are_resolved_beside_a_ticker() {
    on_one_worker(|| {
        use std::net::ToSocketAddrs;
        let addrs: Vec<_> = ("localhost", 80).to_socket_addrs().unwrap().collect();
        assert!(
            addrs.iter().all(|addr| addr.ip().is_loopback()),
            "{addrs:?}"
        );
        assert!(
            ("127.0.0.1", 80)
                .to_socket_addrs()
                .unwrap()
                .next()
                .is_some()
        );
    });
}

#[test]
fn the_output_of_a_child_is_read() {
    on_one_worker(|| {
        let output = std::process::Command::new("sh")
            .args(["-c", "sleep 0.05; echo out; echo err >&2"])
            .output()
            .unwrap();
        assert_eq!(
            (&*output.stdout, &*output.stderr),
            (&b"out\n"[..], &b"err\n"[..])
        );
    });
}

#[test]
fn interrupts_are_errors() {
    on_one_worker(|| {
        let (mut stream, _end) = UnixStream::pair().unwrap();
        let timed_out = greenroom::timeout(Duration::from_millis(10), || {
            let error = stream.read(&mut [0]).unwrap_err();
            error.raw_os_error()
        });
        assert_eq!(timed_out, Ok(Some(libc::ETIMEDOUT)));
        let reader = begin(move || {
            let error = stream.read(&mut [0]).unwrap_err();
            stream
                .set_read_timeout(Some(Duration::from_millis(10)))
                .unwrap();
            let told_once = stream.read(&mut [0]).unwrap_err();
            (error.raw_os_error(), told_once.raw_os_error())
        });
        reader.cancel();
        assert_eq!(
            reader.join().unwrap(),
            (Some(libc::ECANCELED), Some(libc::EAGAIN))
        );
        let start = Instant::now();
        let slept =
            greenroom::timeout(Duration::from_millis(10), || sleep(Duration::from_secs(60)));
        assert_eq!(slept, Ok(()));
        assert!(start.elapsed() < Duration::from_secs(30));
    });
}

#[test]
fn a_close_ends_the_waits_for_the_descriptor() {
    on_one_worker(|| {
        use std::os::fd::{AsRawFd, IntoRawFd};
        let (stream, _end) = UnixStream::pair().unwrap();
        let fd = stream.as_raw_fd();
        let reader = greenroom::spawn(move || {
            let mut buf = [0u8];
            // SAFETY: the buffer has room for one byte.
            let n = unsafe { libc::recv(fd, buf.as_mut_ptr().cast(), 1, 0) };
            (n, io::Error::last_os_error().raw_os_error())
        });
        sleep(Duration::from_millis(5));
        // SAFETY: the descriptor is owned here.
        unsafe { libc::close(stream.into_raw_fd()) };
        assert_eq!(reader.join().unwrap(), (-1, Some(libc::EBADF)));
    });
}
