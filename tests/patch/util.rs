//! What the tests share.

#[path = "../util/mod.rs"]
mod shared;

use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use greenroom::RuntimeBuilder;
use libc::{c_int, iovec};

pub(crate) use shared::*;

/// Runs `test` on a coroutine of a runtime with one worker.
pub(crate) fn on_one_worker<R>(test: impl FnOnce() -> R) -> R {
    let runtime = RuntimeBuilder::new().workers(1).build().unwrap();
    runtime.run(test)
}

/// A coroutine is in `under_lock` when its runtime ends. Another one of the worker is unwound first, and calls it in a
/// destructor.
pub(crate) fn contend_as_the_runtime_ends(
    under_lock: impl Fn(&dyn Fn()) + Clone + Send + Sync + 'static,
) {
    let has_locked = Arc::new(AtomicBool::new(false));
    on_workers(1, || {
        let wait = || greenroom::shims::thread::sleep(Duration::from_secs(1000));
        let holder = under_lock.clone();
        begin(move || holder(&wait));
        let note = Arc::clone(&has_locked);
        begin(move || {
            let _later = Finally(|| under_lock(&|| note.store(true, Ordering::Relaxed)));
            wait();
        });
    });
    assert!(has_locked.load(Ordering::Relaxed));
}

/// The two ends of a connection.
pub(crate) fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Two sockets that are connected to each other.
pub(crate) fn udp_pair() -> (UdpSocket, UdpSocket) {
    let sockets = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    sockets[0]
        .connect(sockets[1].local_addr().unwrap())
        .unwrap();
    sockets[1]
        .connect(sockets[0].local_addr().unwrap())
        .unwrap();
    let [one, other] = sockets;
    (one, other)
}

/// Waits until everything was read that this descriptor has to be read.
pub(crate) fn until_read(reader: &impl AsRawFd) {
    until("it is read", || !has_something(reader));
}

/// Waits until a write to this descriptor has filled it.
pub(crate) fn until_full(writer: &impl AsRawFd) {
    until("it is full", || !takes_more(writer));
}

/// Sets SO_RCVTIMEO or SO_SNDTIMEO.
pub(crate) fn set_socket_timeout(socket: &impl AsRawFd, option: c_int, timeout: Duration) {
    let timeout = libc::timeval {
        tv_sec: timeout.as_secs() as _,
        tv_usec: timeout.subsec_micros().into(),
    };
    // SAFETY: the option takes a time, and the length is that of one.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const timeout).cast(),
            size_of_val(&timeout) as _,
        )
    };
    assert_eq!(set, 0);
}

/// Leaves a timestamp in the error queue of a connected TCP socket, which sends a byte for it.
pub(crate) fn leave_timestamp(socket: &TcpStream) {
    let set = |flags: u32| {
        // SAFETY: the option takes a number, and the length is that of one.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_TIMESTAMPING,
                (&raw const flags).cast(),
                size_of_val(&flags) as _,
            )
        };
        assert_eq!(set, 0);
    };
    set(libc::SOF_TIMESTAMPING_TX_SOFTWARE | libc::SOF_TIMESTAMPING_SOFTWARE);
    { socket }.write_all(b"t").unwrap();
    set(0);
    until("there is a timestamp", || {
        let mut entry = libc::pollfd {
            fd: socket.as_raw_fd(),
            events: 0,
            revents: 0,
        };
        // SAFETY: the pointer is to one entry.
        unsafe { libc::poll(&raw mut entry, 1, 0) == 1 && entry.revents == libc::POLLERR }
    });
}

/// The buffers as C has them.
pub(crate) fn iovecs(bufs: &mut [impl AsMut<[u8]>]) -> Vec<iovec> {
    bufs.iter_mut()
        .map(|buf| {
            let buf = buf.as_mut();
            iovec {
                iov_base: buf.as_mut_ptr().cast(),
                iov_len: buf.len(),
            }
        })
        .collect()
}
