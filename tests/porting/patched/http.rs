//! Clients of HTTP.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use crate::Outcome;
use crate::alone::alone;
use crate::crowd::{CLIENTS, ask_at_once};
use crate::gate::{Gate, LIMIT};

/// What the server sends to the client with this number.
pub(crate) fn page(number: usize) -> String {
    format!("line of {number}\n").repeat(2000)
}

/// Reads the head of a request, and returns its path.
fn read_request(reader: &mut impl BufRead) -> Outcome<String> {
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    Ok(request.split(' ').nth(1).ok_or("no path")?.to_owned())
}

/// Serves one request for `/NUMBER`. The answer comes in two parts.
pub(crate) fn serve_on(stream: &mut (impl Read + Write), gate: &Gate) -> Outcome<()> {
    let path = read_request(&mut BufReader::new(&mut *stream))?;
    gate.pass();
    let page = page(path.trim_start_matches('/').parse()?);
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length";
    let (first, second) = page.split_at(page.len() / 2);
    write!(stream, "{head}: {}\r\n\r\n{first}", page.len())?;
    stream.flush()?;
    sleep(Duration::from_millis(10));
    stream.write_all(second.as_bytes())?;
    Ok(stream.flush()?)
}

pub(crate) fn serve(mut stream: TcpStream, gate: &Gate) -> Outcome<()> {
    serve_on(&mut stream, gate)
}

#[test]
fn clients_of_ureq_2_wait_at_once() {
    alone(|| {
        let agent = ureq2::AgentBuilder::new().timeout(LIMIT).build();
        let ask = |address: SocketAddr, number| {
            let port = address.port();
            let response = agent
                .get(&format!("http://localhost:{port}/{number}"))
                .call()?;
            Ok(response.into_string()?)
        };
        let threads = ask_at_once("ureq 2", serve, ask, page);
        // They resolve the name. One that has just begun has no name yet, and all may have ended.
        let are_of_the_pool = threads
            .keys()
            .all(|name| ["greenroom-pool", ""].contains(&&**name));
        assert!(are_of_the_pool, "{threads:?}");
        assert!(threads.values().sum::<usize>() < CLIENTS, "{threads:?}");
    });
}

#[test]
fn clients_of_ureq_3_wait_at_once() {
    alone(|| {
        let agent = ureq::Agent::new_with_defaults();
        let ask = |address, number| {
            let mut response = agent.get(format!("http://{address}/{number}")).call()?;
            Ok(response.body_mut().read_to_string()?)
        };
        let threads = ask_at_once("ureq 3", serve, ask, page);
        assert_eq!(threads, BTreeMap::new());
    });
}

#[test]
fn clients_of_minreq_wait_at_once() {
    alone(|| {
        let ask = |address, number| {
            let response = minreq::get(format!("http://{address}/{number}")).send()?;
            Ok(response.as_str()?.to_owned())
        };
        let threads = ask_at_once("minreq", serve, ask, page);
        assert_eq!(threads, BTreeMap::new());
    });
}

#[test]
fn clients_of_attohttpc_wait_at_once() {
    alone(|| {
        let ask = |address, number| {
            let request = attohttpc::get(format!("http://{address}/{number}"));
            Ok(request.read_timeout(LIMIT).send()?.text()?)
        };
        let threads = ask_at_once("attohttpc", serve, ask, page);
        assert_eq!(threads, BTreeMap::new());
    });
}

#[test]
fn attohttpc_has_a_thread_of_its_own_for_each_timeout() {
    alone(|| {
        let ask = |address, number| {
            let request = attohttpc::get(format!("http://{address}/{number}"));
            let response = request.timeout(LIMIT).read_timeout(LIMIT).send()?;
            Ok(response.text()?)
        };
        let threads = ask_at_once("attohttpc with timeouts", serve, ask, page);
        // They have no name.
        assert_eq!(threads, BTreeMap::from([(String::new(), CLIENTS)]));
    });
}
