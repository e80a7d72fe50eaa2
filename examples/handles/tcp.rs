//! TCP: listen, accept, connect, write, read, and the end of one direction.

use std::io::{self, Read, Write};

use greenroom::shims::net::{Shutdown, TcpListener, TcpStream};
use greenroom::spawn;

pub(crate) fn show() -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut request = String::new();
        stream.read_to_string(&mut request)?;
        stream.write_all(request.to_uppercase().as_bytes())
    });
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.write_all(b"hello")?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(format!("{reply:?}, and the end"))
}
