//! tungstenite, at both ends of WebSockets.

use std::collections::BTreeMap;
use std::net::TcpStream;

use tungstenite::Message;

use crate::Outcome;
use crate::alone::alone;
use crate::crowd::ask_at_once;
use crate::gate::Gate;

fn serve(stream: TcpStream, gate: &Gate) -> Outcome<()> {
    let mut socket = tungstenite::accept(stream)?;
    let message = socket.read()?.into_text()?;
    gate.pass();
    socket.send(Message::text(format!("an answer to {message}")))?;
    while socket.read().is_ok() {}
    Ok(())
}

#[test]
fn clients_of_tungstenite_wait_at_once() {
    alone(|| {
        let ask = |address, number| {
            let stream = TcpStream::connect(address)?;
            let (mut socket, _) = tungstenite::client(format!("ws://{address}/"), stream)?;
            socket.send(Message::text(format!("message {number}")))?;
            let answer = socket.read()?.into_text()?.to_string();
            socket.close(None)?;
            while socket.read().is_ok() {}
            Ok(answer)
        };
        let expected = |number| format!("an answer to message {number}");
        let threads = ask_at_once("tungstenite", serve, ask, expected);
        assert_eq!(threads, BTreeMap::new());
    });
}
