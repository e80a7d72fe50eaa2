//! Mail, through the crate `lettre`, to a server of the test's own.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use lettre::{Message, SmtpTransport, Transport};

use crate::at_once::{Operations, alone};

/// The name of the server's threads.
pub(crate) const THREADS: &str = "smtp server";

/// The time that the server takes for each mail.
const DELAY: Duration = Duration::from_millis(500);

const BODY_LINES: usize = 2000;

/// Starts a server, and returns its address and the mails that it gets. Its threads end with the process.
fn start() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (mails, received) = mpsc::channel();
    let named = || thread::Builder::new().name(THREADS.into());
    let accept = move || {
        for client in listener.incoming() {
            let (client, mails) = (client.unwrap(), mails.clone());
            named().spawn(move || serve(&client, &mails)).unwrap();
        }
    };
    named().spawn(accept).unwrap();
    (address, received)
}

/// Takes mails until the client says that it quits.
fn serve(client: &TcpStream, mails: &Sender<String>) -> io::Result<()> {
    let mut answers = client;
    let mut lines = BufReader::new(client).lines();
    let mut answer = |text: &str| answers.write_all(format!("{text}\r\n").as_bytes());
    answer("220 localhost")?;
    while let Some(line) = lines.next() {
        match line?.split([' ', ':']).next() {
            Some("EHLO" | "MAIL" | "RCPT") => answer("250 ok")?,
            Some("DATA") => {
                answer("354 go on")?;
                let text = lines
                    .by_ref()
                    .map_while(|line| line.ok().filter(|line| line != "."));
                let mail = text.collect::<Vec<_>>().join("\n");
                thread::sleep(DELAY);
                // The test may have failed, and wait for no mails any more.
                let _ = mails.send(mail);
                answer("250 taken")?;
            }
            Some("QUIT") => return answer("221 bye"),
            other => panic!("{other:?}"),
        }
    }
    Ok(())
}

#[test]
fn mails_of_lettre_are_sent_at_once() {
    let _alone = alone();
    let (server, received) = start();
    let operations = Operations {
        what: "lettre",
        count: 40,
        each: DELAY,
        threads: &[THREADS],
    };
    let answers = operations.run(|number| {
        // More than the buffers of the sockets hold at first.
        let body = format!("line of {number}\r\n").repeat(BODY_LINES);
        let mail = Message::builder()
            .from("client@localhost".parse().unwrap())
            .to(format!("number{number}@localhost").parse().unwrap())
            .subject(format!("mail {number}"))
            .body(body)
            .unwrap();
        let transport = SmtpTransport::builder_dangerous(server.ip().to_string());
        let transport = transport.port(server.port()).build();
        let response = transport.send(&mail).unwrap();
        response.first_line().map(str::to_owned)
    });
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_deref() == Some("taken"))
    );
    let mails: Vec<String> = received.try_iter().collect();
    assert_eq!(mails.len(), answers.len());
    for number in 0..answers.len() {
        let subject = format!("Subject: mail {number}\n");
        let line = format!("line of {number}");
        let mail = mails.iter().find(|mail| mail.contains(&subject)).unwrap();
        assert_eq!(mail.lines().filter(|&of| of == line).count(), BODY_LINES);
    }
}
