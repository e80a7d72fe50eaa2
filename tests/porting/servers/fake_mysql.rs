//! The C library of MariaDB, and a server of its protocol on the same worker: each waits for the other there.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use greenroom::shims::net::{TcpListener, TcpStream};
use greenroom::shims::sync::Barrier;
use greenroom::shims::thread::sleep;

use crate::at_once::{alone, count_workers, name_worker};
use crate::libmariadb::CConnection;
use crate::util;

const CLIENTS: usize = 50;

/// How long the server takes for an answer, once all have asked.
const EACH: Duration = Duration::from_millis(200);

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn clients_of_libmariadb_wait_at_once_for_a_server_on_their_own_worker() {
    let _alone = alone();
    name_worker();
    util::on_workers(1, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, start) = (Barrier::new(CLIENTS), Instant::now());
        greenroom::scope(|s| {
            let asked = &asked;
            s.spawn(move || {
                for _ in 0..CLIENTS {
                    let (stream, _) = listener.accept().unwrap();
                    s.spawn(move || Session::begin(stream).unwrap().serve(asked).unwrap());
                }
            });
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let query = format!("select {number}");
                    s.spawn(move || CConnection::to_local_port(port)?.first_row(&query))
                })
                .collect();
            for (number, client) in clients.into_iter().enumerate() {
                let row = client.join().unwrap();
                assert_eq!(row, Ok(vec![format!("answer to select {number}")]));
            }
        });
        let took = start.elapsed();
        eprintln!("{CLIENTS} × {EACH:?} of a server on the same worker in {took:.1?}");
    });
}

const COM_QUIT: u8 = 1;
const COM_QUERY: u8 = 3;

const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];

/// A connection of the server, which takes any password.
struct Session {
    stream: TcpStream,
    /// The number of the next packet of a command or its answer.
    number: u8,
}

impl Session {
    fn begin(stream: TcpStream) -> io::Result<Session> {
        const LONG_PASSWORD: u32 = 1;
        const PROTOCOL_41: u32 = 1 << 9;
        const TRANSACTIONS: u32 = 1 << 13;
        const SECURE_CONNECTION: u32 = 1 << 15;
        const PLUGIN_AUTH: u32 = 1 << 19;
        const ABILITIES: u32 =
            LONG_PASSWORD | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | PLUGIN_AUTH;
        let [low, lower, high, higher] = ABILITIES.to_le_bytes();

        let mut session = Session { stream, number: 0 };
        let greeting: [&[u8]; 6] = [
            b"\x0a8.0.0\0",
            // The number of the connection, and the first part of the salt.
            b"\x01\0\0\0saltsalt\0",
            // With the charset utf8 and the state "autocommit" between the abilities, and the length of the salt.
            &[low, lower, 33, 2, 0, high, higher, 21],
            &[0; 10],
            b"saltsaltsalt\0",
            b"mysql_native_password\0",
        ];
        session.send(&greeting.concat())?;
        let _login = session.receive()?;
        session.send(OK)?;
        Ok(session)
    }

    /// Answers queries for one row when all have `asked`, and others at once.
    fn serve(mut self, asked: &Barrier) -> io::Result<()> {
        let started = Instant::now();
        loop {
            self.number = 0;
            let command = self.receive()?;
            match command.split_first() {
                Some((&COM_QUIT, _)) => return Ok(()),
                Some((&COM_QUERY, query)) if query.starts_with(b"select ") => {
                    asked.wait();
                    // A thread that has just begun, or is about to end, may not have its own name.
                    while count_workers() > 1 {
                        assert!(started.elapsed() < PATIENCE, "libmariadb has threads");
                        sleep(EACH / 10);
                    }
                    sleep(EACH);
                    self.send_row(&[b"answer to ", query].concat())?;
                }
                _ => self.send(OK)?,
            }
        }
    }

    /// Sends a row of one column.
    fn send_row(&mut self, value: &[u8]) -> io::Result<()> {
        let column: [&[u8]; 3] = [
            // The catalogue "def", no database and no table; and the name, which is no other column's.
            b"\x03def\0\0\0\x06answer\0",
            // What follows has 12 bytes: utf8, of 255 bytes at most, a string, no flags, no decimals.
            &[12, 33, 0, 255, 0, 0, 0, 0xfd, 0, 0, 0],
            &[0, 0],
        ];
        let row = [&[u8::try_from(value.len()).unwrap()], value].concat();
        for packet in [&[1], &*column.concat(), EOF, &row, EOF] {
            self.send(packet)?;
        }
        Ok(())
    }

    fn send(&mut self, packet: &[u8]) -> io::Result<()> {
        let [a, b, c, _] = u32::try_from(packet.len()).unwrap().to_le_bytes();
        let number = self.number;
        self.number += 1;
        self.stream
            .write_all(&[&[a, b, c, number], packet].concat())
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head)?;
        let [a, b, c, number] = head;
        let mut packet = vec![0; u32::from_le_bytes([a, b, c, 0]) as usize];
        self.stream.read_exact(&mut packet)?;
        self.number = number + 1;
        Ok(packet)
    }
}
