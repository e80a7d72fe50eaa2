//! A socket as a file: `makefile` gives it buffers for reading and writing lines, as in Python.
//!
//! ```text
//! $ cargo run --example makefile
//! server: 220 ready
//! client: HELLO
//! server: 250 pleased to meet you
//! client: BYE
//! server: 221 goodbye
//! ```

use std::io::{self, BufRead, Write};

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::spawn;

fn serve(stream: TcpStream) -> io::Result<()> {
    // The socket closes when the file is dropped.
    let mut file = stream.makefile();
    let mut line = String::new();
    let mut answer = "220 ready";
    loop {
        writeln!(file, "{answer}")?;
        file.flush()?;
        line.clear();
        if file.read_line(&mut line)? == 0 {
            return Ok(());
        }
        answer = match line.trim_end() {
            "HELLO" => "250 pleased to meet you",
            "BYE" => "221 goodbye",
            _ => "500 what?",
        };
    }
}

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    spawn(move || serve(listener.accept()?.0));

    let mut file = TcpStream::connect(address)?.makefile();
    for command in [Some("HELLO"), Some("BYE"), None] {
        let mut line = String::new();
        file.read_line(&mut line)?;
        println!("server: {}", line.trim_end());
        if let Some(command) = command {
            println!("client: {command}");
            writeln!(file, "{command}")?;
            file.flush()?;
        }
    }
    Ok(())
}
