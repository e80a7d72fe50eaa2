//! The servers of the HTTP works: for each peer, a server of a short text on one worker, with the routing, the
//! fields and the date that any server has. greenroom's is that of the examples, tokio's is hyper, may's is
//! may_minihttp.

#[path = "../../../examples/util/http.rs"]
mod example;

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use may_minihttp::{HttpServer, HttpService};

use crate::peers::{ANY_PORT, Blocking, Greenroom, May, Peer, run_tokio};
use crate::server::{Answers, announce, by_hand};

/// What the client asks. `wrk` and browsers send some fields, too.
pub(crate) const REQUEST: &[u8] = b"GET /plaintext HTTP/1.1\r\nHost: localhost\r\n\
    Accept: text/plain,text/html;q=0.9,*/*;q=0.8\r\nConnection: keep-alive\r\n\r\n";

const PATH: &str = "/plaintext";
const TEXT: &str = "Hello, World!";
/// The end of each answer.
pub(crate) const END: &[u8] = TEXT.as_bytes();

/// Serves until the process ends.
pub(crate) fn serve(peer: Peer) -> io::Result<()> {
    match peer {
        Peer::Greenroom => Greenroom::run(1, example_server),
        Peer::Tokio | Peer::TokioMt => run_tokio(peer, 1, hyper_server()),
        Peer::May => May::run(1, may_server),
        Peer::Mio => by_hand(false, Plaintext { out: Vec::new() }),
        Peer::Threads => Err(io::Error::other("no server of HTTP has a thread each")),
    }
}

fn example_server() -> io::Result<()> {
    let listener = greenroom::shims::net::TcpListener::bind(ANY_PORT)?;
    let server = example::serve(listener, |request, _, reply| {
        if request.path_and_query().0 != PATH {
            return reply.text("404 Not Found", "there is no such page");
        }
        let fields = [("Content-Type", "text/plain")];
        reply.start("200 OK", &fields, Some(TEXT.len() as u64))?;
        reply.write_all(TEXT.as_bytes())
    })?;
    announce(*server.local_addr())?;
    server.wait()
}

async fn hyper_server() -> io::Result<()> {
    let listener = tokio::net::TcpListener::bind(ANY_PORT).await?;
    announce(listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut http = http1::Builder::new();
        // Otherwise each answer would be a write of its own.
        http.pipeline_flush(true);
        tokio::spawn(http.serve_connection(TokioIo::new(stream), service_fn(hyper_answer)));
    }
}

async fn hyper_answer(
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let is_there = request.uri().path() == PATH;
    let text = if is_there { TEXT } else { "" };
    let mut response = hyper::Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    if !is_there {
        *response.status_mut() = hyper::StatusCode::NOT_FOUND;
    }
    let plain = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    Ok(response)
}

fn may_server() -> io::Result<()> {
    // It does not tell which port it got. This one is free.
    let addr = std::net::TcpListener::bind(ANY_PORT)?.local_addr()?;
    let server = HttpServer(MayAnswer).start(addr)?;
    announce(addr)?;
    May::join(server);
    Ok(())
}

#[derive(Clone)]
struct MayAnswer;

impl HttpService for MayAnswer {
    fn call(
        &mut self,
        request: may_minihttp::Request<'_, '_, '_>,
        response: &mut may_minihttp::Response<'_>,
    ) -> io::Result<()> {
        match request.path() {
            PATH => response.header("Content-Type: text/plain").body(TEXT),
            _ => drop(response.status_code(404, "Not Found")),
        }
        Ok(())
    }
}

/// The answers of the loop by hand.
struct Plaintext {
    /// Those to the requests of one read.
    out: Vec<u8>,
}

impl Answers for Plaintext {
    fn answer<'a>(&'a mut self, partial: &mut Vec<u8>, input: &'a [u8]) -> io::Result<&'a [u8]> {
        self.out.clear();
        let date = example::date::now();
        let joined;
        let mut rest = input;
        if !partial.is_empty() {
            partial.extend_from_slice(input);
            joined = std::mem::take(partial);
            rest = &joined;
        }
        while !rest.is_empty() {
            let mut fields = [const { MaybeUninit::uninit() }; 16];
            let mut request = httparse::Request::new(&mut []);
            let parsed = request.parse_with_uninit_headers(rest, &mut fields);
            let httparse::Status::Complete(length) = parsed.map_err(io::Error::other)? else {
                partial.extend_from_slice(rest);
                break;
            };
            rest = &rest[length..];
            let (status, text) = match request.path {
                Some(PATH) => ("200 OK", TEXT),
                _ => ("404 Not Found", ""),
            };
            let out = &mut self.out;
            let pieces: [&[u8]; 4] = [b"HTTP/1.1 ", status.as_bytes(), b"\r\nDate: ", &date];
            pieces.iter().for_each(|piece| out.extend_from_slice(piece));
            let length = text.len();
            let fields = "Content-Type: text/plain\r\nContent-Length:";
            write!(out, "\r\n{fields} {length}\r\n\r\n{text}")?;
        }
        Ok(&self.out)
    }
}

/// The length of a server's answer to [`REQUEST`]: it is always the same.
pub(crate) fn length_of_answer(addr: SocketAddr) -> io::Result<usize> {
    let mut stream = TcpStream::connect(addr)?;
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    while !answer.ends_with(TEXT.as_bytes()) {
        let mut piece = [0; 1024];
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => answer.extend_from_slice(&piece[..n]),
        }
    }
    Ok(answer.len())
}
