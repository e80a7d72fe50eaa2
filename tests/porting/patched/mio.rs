//! A server on mio, an event loop, in a coroutine.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::alone::{alone, on_one_worker};
use crate::threads::os_threads;
use crate::ticker::Ticker;

const CLIENTS: usize = 50;
const LISTENER: Token = Token(0);
const BULK: usize = 100_000;

/// One client of the server, and what it is still to be sent back.
struct Connection {
    stream: TcpStream,
    echo: Vec<u8>,
}

impl Connection {
    /// Moves what can be moved at once. Returns whether there may be more.
    fn go_on(&mut self) -> io::Result<bool> {
        loop {
            let mut part = [0; 4096];
            match self.stream.read(&mut part) {
                Ok(0) => return Ok(false),
                Ok(read) => self.echo.extend_from_slice(&part[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        while !self.echo.is_empty() {
            match self.stream.write(&self.echo) {
                Ok(written) => drop(self.echo.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// An echo server, which ends when so many connections have ended. Returns how often it has polled.
fn serve(address: &mpsc::Sender<SocketAddr>, connections: usize) -> io::Result<usize> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into())?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    address.send(listener.local_addr()?).unwrap();
    let mut clients = HashMap::new();
    let (mut accepted, mut ended, mut polls) = (0, 0, 0);
    let mut events = Events::with_capacity(64);
    while ended < connections {
        poll.poll(&mut events, None)?;
        polls += 1;
        for event in &events {
            if event.token() != LISTENER {
                let client: &mut Connection = clients.get_mut(&event.token()).unwrap();
                if !client.go_on()? {
                    clients.remove(&event.token());
                    ended += 1;
                }
                continue;
            }
            while let Ok((mut stream, _)) = listener.accept() {
                accepted += 1;
                let token = Token(accepted);
                let interest = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut stream, token, interest)?;
                let echo = Vec::new();
                clients.insert(token, Connection { stream, echo });
            }
        }
    }
    Ok(polls)
}

#[test]
fn an_event_loop_of_mio_parks_its_coroutine() {
    alone(|| {
        let (polls, gap, threads) = on_one_worker(|| {
            let ticker = Ticker::start();
            let (tell, address) = mpsc::channel();
            let server = greenroom::spawn(move || serve(&tell, CLIENTS).unwrap());
            let address = loop {
                match address.try_recv() {
                    Ok(address) => break address,
                    Err(_) => greenroom::yield_now(),
                }
            };
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    greenroom::spawn(move || {
                        let mut stream = std::net::TcpStream::connect(address).unwrap();
                        let sent = format!("line of {number}\n").repeat(BULK / 10);
                        let mut writer = stream.try_clone().unwrap();
                        let mut echo = vec![0; sent.len()];
                        let expected = sent.clone();
                        let writing = greenroom::spawn(move || {
                            writer.write_all(sent.as_bytes()).unwrap();
                        });
                        stream.read_exact(&mut echo).unwrap();
                        assert!(echo == expected.as_bytes(), "client {number}");
                        writing.join().unwrap();
                    })
                })
                .collect();
            greenroom::join_all(clients)
                .into_iter()
                .for_each(Result::unwrap);
            (server.join().unwrap(), ticker.largest_gap(), os_threads())
        });
        eprintln!(
            "mio: {CLIENTS} clients in {polls} polls; the ticker's largest gap: {gap:.1?}; OS threads \
            besides the worker: {threads:?}"
        );
        assert_eq!(threads, BTreeMap::from([("watchdog".to_owned(), 1)]));
    });
}
