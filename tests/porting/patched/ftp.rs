//! suppaftp, a client of FTP, whose files come through connections of their own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use suppaftp::FtpStream;

use crate::Outcome;
use crate::alone::alone;
use crate::crowd::ask_at_once;
use crate::gate::Gate;
use crate::http::page;

/// Serves one file.
fn serve(stream: TcpStream, gate: &Gate) -> Outcome<()> {
    let mut answers = &stream;
    let mut answer = |text: &str| answers.write_all(format!("{text}\r\n").as_bytes());
    let mut data = None;
    answer("220 localhost")?;
    for line in BufReader::new(&stream).lines() {
        let line = line?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("USER", _) => answer("331 who are you")?,
            ("PASS", _) => answer("230 come in")?,
            ("TYPE", _) => answer("200 ok")?,
            ("PASV", _) => {
                let listener = TcpListener::bind(("127.0.0.1", 0))?;
                let port = listener.local_addr()?.port();
                let [high, low] = port.to_be_bytes();
                data = Some(listener);
                answer(&format!("227 here (127,0,0,1,{high},{low})"))?;
            }
            ("RETR", number) => {
                let (mut data, _) = data.take().ok_or("no PASV")?.accept()?;
                gate.pass();
                answer("150 it comes")?;
                data.write_all(page(number.parse()?).as_bytes())?;
                drop(data);
                answer("226 that was it")?;
            }
            ("QUIT", _) => return Ok(answer("221 bye")?),
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(())
}

#[test]
fn clients_of_suppaftp_wait_at_once() {
    alone(|| {
        let ask = |address, number: usize| {
            let mut connection = FtpStream::connect(address)?;
            connection.login("user", "password")?;
            let file = connection.retr_as_buffer(&number.to_string())?;
            connection.quit()?;
            Ok(String::from_utf8(file.into_inner())?)
        };
        let threads = ask_at_once("suppaftp", serve, ask, page);
        assert_eq!(threads, BTreeMap::new());
    });
}
