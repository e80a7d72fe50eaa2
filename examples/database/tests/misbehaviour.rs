//! The protocol, against a server that breaks its rules.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use database::{Database, Error, Login, Row, Way, wire};

use crate::util;

/// A message of the server.
fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 4).unwrap();
    [&[kind], &length.to_be_bytes()[..], content].concat()
}

/// Lets the client in.
fn welcome() -> Vec<u8> {
    [message(b'R', &[0; 4]), message(b'K', &[0; 8]), ready()].concat()
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// A row of a column, whose length is told to be `length`.
fn row(length: i32, column: &[u8]) -> Vec<u8> {
    let content = [&1u16.to_be_bytes()[..], &length.to_be_bytes(), column].concat();
    message(b'D', &content)
}

/// Reads a message of the client. The first one has no kind.
fn heard(client: &mut TcpStream, has_kind: bool) -> io::Result<()> {
    let mut head = [0; 5];
    let head = &mut head[usize::from(!has_kind)..];
    client.read_exact(head)?;
    let length = u32::from_be_bytes(head[head.len() - 4..].try_into().unwrap());
    io::copy(&mut client.take(u64::from(length) - 4), &mut io::sink()).map(drop)
}

/// A server for one client, which is `served` on a thread. Returns the login for it.
fn serve(served: impl FnOnce(TcpStream) -> io::Result<()> + Send + 'static) -> Login {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // The client may have left in the middle.
    std::thread::spawn(move || served(listener.accept()?.0));
    Login {
        host: "127.0.0.1".into(),
        port,
        user: "test".into(),
        password: Some("secret".into()),
        database: "postgres".into(),
    }
}

/// The outcome of a query, if the server says this to any login and query, and no more.
fn outcome(first: Vec<u8>, reply: Vec<u8>) -> Result<Vec<Row>, Error> {
    let login = serve(move |mut client| {
        client.write_all(&[first, reply].concat())?;
        client.shutdown(Shutdown::Write)?;
        // A close with unread bytes would be a reset, which can overtake what was said.
        client.read_to_end(&mut Vec::new()).map(drop)
    });
    let mut connection = wire::Connection::open(&login)?;
    let rows = database::Connection::rows(&mut connection, "select 1");
    let lost = matches!(rows, Err(Error::Lost(_)));
    assert!(!lost || !database::Connection::is_usable(&connection));
    rows
}

#[test]
fn nonsense_in_a_login_is_told() {
    let scram = |kind: i32, text: &[u8]| message(b'R', &[&kind.to_be_bytes()[..], text].concat());
    let offer = || scram(10, b"SCRAM-SHA-256\0\0");
    let cases: &[(Vec<u8>, &str)] = &[
        (vec![], "the server has closed the connection"),
        (b"R\0\0".to_vec(), "the server has closed the connection"),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            "without a sensible length",
        ),
        (b"R\0\0\0\x03".to_vec(), "without a sensible length"),
        (b"R\xff\xff\xff\xff".to_vec(), "without a sensible length"),
        (message(b'R', b"\0\0"), "malformed"),
        (
            message(b'R', &5i32.to_be_bytes()),
            "login method 5, which is not supported",
        ),
        (
            message(b'R', &[0xff; 4]),
            "login method -1, which is not supported",
        ),
        (message(b'D', b"\0\0"), "unexpected message of kind 'D'"),
        (message(0xff, b""), "unexpected message of kind '\\xff'"),
        (message(b'E', b"SFATAL\0Mgo away"), "malformed"),
        (
            message(b'E', b"SFATAL\0VFATAL\0C28000\0Mgo away\0\0"),
            "go away (28000)",
        ),
        (message(b'E', b"M\xff\0\0"), "not UTF-8"),
        (scram(10, b"SCRAM-SHA-1\0\0"), "does not offer SCRAM"),
        (scram(10, b""), "does not offer SCRAM"),
        (
            [offer(), ready()].concat(),
            "unexpected message of kind 'Z'",
        ),
        (
            [offer(), scram(11, b"r=guessed,s=AAAA,i=4096")].concat(),
            "nonce",
        ),
        ([offer(), scram(11, b"\xff")].concat(), "utf-8"),
        (
            [offer(), message(b'E', b"VFATAL\0C28P01\0Mno\0\0")].concat(),
            "no (28P01)",
        ),
    ];
    util::on_workers(1, || {
        for (first, wanted) in cases {
            match outcome(first.clone(), vec![]) {
                Err(Error::Connect(why)) => assert!(why.contains(wanted), "{why:?}: {wanted:?}"),
                other => panic!("{other:?}: {wanted:?}"),
            }
        }
    });
}

#[test]
fn nonsense_in_a_reply_is_told_and_the_connection_given_up() {
    let cases: &[(Vec<u8>, &str)] = &[
        (vec![], "the server has closed the connection"),
        (
            b"D\0\0\0\x08\0\x01".to_vec(),
            "the server has closed the connection",
        ),
        (b"D\x7f\xff\xff\xff".to_vec(), "without a sensible length"),
        (message(b'D', b"\0"), "malformed"),
        (message(b'D', b"\xff\xff\0\0\0\0"), "malformed"),
        (row(2, b"x"), "malformed"),
        (row(-2, b"x"), "malformed"),
        (row(i32::MAX, b"x"), "malformed"),
        (row(1, b"\xff"), "not UTF-8"),
        (message(b'G', b""), "COPY is not supported"),
        (message(b'R', &[0; 4]), "unexpected message of kind 'R'"),
        (
            message(b'E', b"VFATAL\0C57P01\0Mgoing down\0\0"),
            "going down (57P01)",
        ),
        (message(b'E', b"no end"), "malformed"),
        (
            [row(1, b"x"), message(b'C', b"SELECT 1\0")].concat(),
            "closed the connection",
        ),
    ];
    util::on_workers(1, || {
        for (reply, wanted) in cases {
            match outcome(welcome(), reply.clone()) {
                Err(Error::Lost(why)) => assert!(why.contains(wanted), "{why:?}: {wanted:?}"),
                other => panic!("{other:?}: {wanted:?}"),
            }
        }
    });
}

#[test]
fn a_reply_of_single_bytes_is_read_as_a_whole() {
    let reply = [
        message(b'N', b"SNOTICE\0\0"),
        row(4, "€!".as_bytes()),
        message(b'A', b"\0\0\0\0name\0\0"),
        row(-1, b""),
        message(b'C', b"SELECT 2\0"),
        ready(),
    ];
    let login = serve(move |mut client| {
        client.set_nodelay(true)?;
        heard(&mut client, false)?;
        client.write_all(&welcome())?;
        heard(&mut client, true)?;
        for byte in reply.concat() {
            client.write_all(&[byte])?;
            std::thread::sleep(Duration::from_millis(1));
        }
        // Until the client leaves.
        client.read(&mut [0]).map(drop)
    });
    util::on_workers(1, || {
        let mut connection = wire::Connection::open(&login).unwrap();
        let rows = database::Connection::rows(&mut connection, "select 1");
        assert_eq!(rows, Ok(vec![vec![Some("€!".into())], vec![None]]));
        assert!(database::Connection::is_usable(&connection));
    });
}

#[test]
fn a_reply_without_end_is_given_up() {
    let long = row(1 << 20, &vec![b'x'; 1 << 20]);
    // Rows without columns take memory, too.
    let empty = message(b'D', &[0; 2]).repeat(10_000);
    for rows in [long, empty] {
        let endless = serve(move |mut client| {
            heard(&mut client, false)?;
            client.write_all(&welcome())?;
            heard(&mut client, true)?;
            loop {
                client.write_all(&rows)?;
            }
        });
        util::on_workers(1, || {
            let mut connection = wire::Connection::open(&endless).unwrap();
            let rows = database::Connection::rows(&mut connection, "select 1");
            let Err(Error::Lost(why)) = rows else {
                panic!("it has read to the end")
            };
            assert!(why.contains("more than 67108864 bytes"), "{why}");
        });
    }
}

#[test]
fn a_server_that_is_silent_is_given_up() {
    for way in Way::ALL {
        let silent = serve(|mut client| client.read_to_end(&mut Vec::new()).map(drop));
        util::on_workers(1, || {
            let patience = Duration::from_millis(300);
            let database = Database::new(way, silent, 1, patience);
            let outcome = database.rows("select 1");
            match way {
                // The interrupt is an error of libpq.
                Way::Patch => assert!(matches!(outcome, Err(Error::Connect(_))), "{outcome:?}"),
                _ => assert_eq!(outcome, Err(Error::Busy(patience))),
            }
            assert_eq!(database.size(), 0);
        });
    }
}

#[test]
fn random_damage_never_ends_the_client() {
    let whole = [row(3, b"abc"), message(b'C', b"SELECT 1\0"), ready()].concat();
    // A pseudo-random sequence, the same in each run.
    let mut state = 7_u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as usize
    };
    util::on_workers(1, || {
        for _ in 0..300 {
            let mut first = welcome();
            let mut reply = whole.clone();
            let damaged = if random().is_multiple_of(2) {
                &mut first
            } else {
                &mut reply
            };
            let place = random() % damaged.len();
            damaged[place] = random() as u8;
            // Whatever comes of it, it comes.
            if let Ok(rows) = outcome(first, reply) {
                assert!(rows.len() <= 1, "{rows:?}");
            }
        }
    });
}
