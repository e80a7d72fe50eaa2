//! A bounded group: twenty pages are downloaded, by at most four coroutines at the same time. One page fails,
//! and one takes too long.
//!
//! ```text
//! $ cargo run --example concurrent_download
//! page 3: the connection was closed
//! page 7: it took too long
//! 18 of 20 pages, 2000 bytes
//! ```

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::thread::sleep;
use greenroom::{Group, spawn, timeout};

/// Page `n` has `10 * n` bytes. The server closes the connection for page 3, and forgets about page 7.
fn serve(listener: TcpListener) -> io::Result<()> {
    for stream in listener.incoming() {
        let mut stream = stream?;
        spawn(move || {
            let mut page = [0];
            stream.read_exact(&mut page)?;
            sleep(Duration::from_millis(5));
            match page[0] {
                3 => Ok(()),
                7 => stream.read(&mut page).map(drop),
                page => stream.write_all(&vec![page; 10 * usize::from(page)]),
            }
        });
    }
    Ok(())
}

fn download(server: SocketAddr, page: u8) -> io::Result<Vec<u8>> {
    let limited = timeout(Duration::from_secs(2), || {
        let mut stream = TcpStream::connect(server)?;
        stream.write_all(&[page])?;
        let mut content = Vec::new();
        stream.read_to_end(&mut content)?;
        match content.is_empty() {
            true => Err(ErrorKind::UnexpectedEof.into()),
            false => Ok(content),
        }
    });
    limited?
}

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = listener.local_addr()?;
    spawn(|| serve(listener));

    let group = Group::bounded(4);
    let pages = group.imap(1..=20, move |page| (page, download(server, page)));
    let (mut complete, mut bytes) = (0, 0);
    for page in pages {
        match page.expect("a download does not panic") {
            (_, Ok(content)) => (complete, bytes) = (complete + 1, bytes + content.len()),
            (page, Err(error)) if error.kind() == ErrorKind::TimedOut => {
                println!("page {page}: it took too long");
            }
            (page, Err(_)) => println!("page {page}: the connection was closed"),
        }
    }
    println!("{complete} of 20 pages, {bytes} bytes");
    Ok(())
}
