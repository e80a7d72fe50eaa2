//! One coroutine that waits for several sockets at once, as with `select(2)`.
//!
//! ```text
//! $ cargo run --example select
//! socket 2 has data: c
//! socket 1 has data: b
//! socket 0 has data: a
//! no socket has data within 50 ms
//! ```

use std::io::{self, Read, Write};
use std::time::Duration;

use greenroom::shims::os::unix::net::UnixStream;
use greenroom::shims::select::select;
use greenroom::spawn;

fn main() -> io::Result<()> {
    let pairs = [
        UnixStream::pair()?,
        UnixStream::pair()?,
        UnixStream::pair()?,
    ];
    let (mut near, mut far): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();

    // Writes to the last socket first, and waits for an answer each time.
    let writer = spawn(move || -> io::Result<_> {
        for (number, socket) in far.iter_mut().enumerate().rev() {
            socket.write_all(&[b'a' + number as u8])?;
            socket.read_exact(&mut [0])?;
        }
        Ok(far)
    });

    for _ in 0..3 {
        let ready = select(&near, &[], &[], None)?;
        let number = ready.readable[0];
        let mut byte = [0];
        near[number].read_exact(&mut byte)?;
        println!("socket {number} has data: {}", byte[0] as char);
        near[number].write_all(&byte)?;
    }
    let _far = writer.join().unwrap()?; // Dropped earlier, they would make the near ends readable.
    let ready = select(&near, &[], &[], Some(Duration::from_millis(50)))?;
    assert!(ready.is_empty());
    println!("no socket has data within 50 ms");
    Ok(())
}
