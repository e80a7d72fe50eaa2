//! Uploads in chunks: an HTTP/1.1 server with trailers, `100 Continue` and connections that stay open. A body
//! is a `Read`, which is copied to a file as it arrives, and never held in memory.
//!
//! ```text
//! $ cargo run --example upload
//! > PUT /hello.txt in three chunks, once the server wants them
//! HTTP/1.1 100 Continue
//! HTTP/1.1 201 Created
//! hello.txt: 12 bytes
//! X-Author: ray
//! > GET /hello.txt on the same connection
//! HTTP/1.1 200 OK
//! hello, world
//! > PUT /hello.txt with a chunk of no size
//! HTTP/1.1 400 Bad Request
//! malformed size of a chunk
//! ```
//!
//! Given an address and a directory, it serves until it is killed:
//!
//! ```text
//! $ cargo run --release --example upload -- 127.0.0.1:8000 /tmp/uploads
//! $ head -c 4G /dev/zero | curl -T - -H 'Expect: 100-continue' http://127.0.0.1:8000/zeros
//! zeros: 4294967296 bytes
//! ```

#[path = "util/http.rs"]
mod http;
#[path = "util/outcome.rs"]
mod outcome;

use std::fmt::Write as _;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use greenroom::server::Server;
use greenroom::shims::fs::{self, File};
use greenroom::shims::net::{TcpListener, TcpStream};

use http::{Body, Reply, Request};
use outcome::about;

const HELP: &str = "\
An HTTP/1.1 server that takes uploads.

Usage: upload [IP:PORT DIRECTORY [--limit BYTES]]

  PUT /NAME     stores the body as DIRECTORY/NAME
  GET /NAME     returns it
  POST /count   counts the bytes of the body, and drops them
  POST /echo    returns the body while it arrives

  --limit BYTES  the longest body [default: no limit]

Without arguments, it shows a few requests.
";

struct Store {
    directory: PathBuf,
    limit: u64,
}

impl Store {
    fn answer(&self, request: &Request, body: &mut Body, reply: &mut Reply) -> io::Result<()> {
        if request.content_length() > Some(self.limit) {
            return Err(too_large());
        }
        let body = &mut Limited {
            body,
            left: self.limit,
        };
        let (path, _) = request.path_and_query();
        let name = path.trim_start_matches('/');
        match (request.method, name) {
            ("POST", "count") => {
                let length = io::copy(body, &mut io::sink())?;
                reply.text("200 OK", &report("the body", length, body.body))
            }
            ("POST", "echo") => {
                reply.start("200 OK", &[], request.content_length())?;
                let mut piece = [0; 8 * 1024];
                loop {
                    match body.read(&mut piece)? {
                        0 => return Ok(()),
                        length => reply.write_all(&piece[..length])?,
                    }
                    reply.flush()?;
                }
            }
            ("PUT" | "GET" | "HEAD", name) if !is_plain(name) => {
                let why =
                    "a name has letters, digits, '-', '_' and '.', and does not begin with '.'";
                reply.text("400 Bad Request", why)
            }
            ("PUT", name) => {
                let length = self.store(name, body)?;
                reply.text("201 Created", &report(name, length, body.body))
            }
            ("GET" | "HEAD", name) => match File::open(self.directory.join(name)) {
                Ok(mut file) => {
                    reply.start("200 OK", &[], Some(file.metadata()?.len()))?;
                    io::copy(&mut file, reply).map(drop)
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    reply.text("404 Not Found", "there is no such file")
                }
                Err(error) => Err(error),
            },
            _ => reply.start(
                "405 Method Not Allowed",
                &[("Allow", "GET, HEAD, PUT, POST")],
                Some(0),
            ),
        }
    }

    /// Other clients see the file when it is complete.
    fn store(&self, name: &str, body: &mut impl Read) -> io::Result<u64> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name_of_part = format!(".{}.{number}.part", std::process::id());
        let part = Part(self.directory.join(name_of_part));
        let mut file = File::create(&part.0)?;
        let length = io::copy(body, &mut file)?;
        fs::rename(&part.0, self.directory.join(name))?;
        Ok(length)
    }
}

/// An incomplete file, which is removed in the end, unless it has got its name by then.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A body that fails when it turns out to be too long.
struct Limited<'a, 'c> {
    body: &'a mut Body<'c>,
    left: u64,
}

impl Read for Limited<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.body.read(buf)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(too_large)?;
        Ok(read)
    }
}

fn too_large() -> io::Error {
    io::Error::new(ErrorKind::FileTooLarge, "the body is too long")
}

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=200).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain)
}

fn report(name: &str, length: u64, body: &Body) -> String {
    let mut text = format!("{name}: {length} bytes");
    for (name, value) in body.trailers() {
        let _ = write!(text, "\n{name}: {value}");
    }
    text
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let served = match arguments[..] {
        [] => demonstrate(),
        [address, directory] => serve(address, directory, u64::MAX),
        [address, directory, "--limit", limit] => match limit.parse() {
            Ok(limit) => serve(address, directory, limit),
            Err(_) => Err(io::Error::other("--limit needs a number of bytes")),
        },
        ["--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        _ => Err(io::Error::other("wrong arguments (see --help)")),
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(address: &str, directory: &str, limit: u64) -> io::Result<()> {
    fs::create_dir_all(directory).map_err(|error| about(directory, error))?;
    let listener = TcpListener::bind(address).map_err(|error| about(address, error))?;
    let server = serve_store(listener, directory.into(), limit)?;
    println!("serving on {}", server.local_addr());
    server.wait()
}

fn serve_store(listener: TcpListener, directory: PathBuf, limit: u64) -> io::Result<Server> {
    let store = Store { directory, limit };
    http::serve(listener, move |request, body, reply| {
        store.answer(request, body, reply)
    })
}

fn demonstrate() -> io::Result<()> {
    let directory = std::env::temp_dir().join(format!("greenroom-upload-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let server = serve_store(listener, directory.clone(), u64::MAX)?;
    let mut file = TcpStream::connect(server.local_addr())?.makefile();

    let head = "PUT /hello.txt HTTP/1.1\r\nHost: example\r\nTransfer-Encoding: chunked\r\n";
    println!("> PUT /hello.txt in three chunks, once the server wants them");
    write!(file, "{head}Expect: 100-continue\r\n\r\n")?;
    show_answer(&mut file)?;
    file.write_all(
        b"5\r\nhello\r\n2;note=comma\r\n, \r\n5\r\nworld\r\n0\r\nX-Author: ray\r\n\r\n",
    )?;
    show_answer(&mut file)?;
    println!("> GET /hello.txt on the same connection");
    file.write_all(b"GET /hello.txt HTTP/1.1\r\nHost: example\r\n\r\n")?;
    show_answer(&mut file)?;
    println!();
    println!("> PUT /hello.txt with a chunk of no size");
    write!(file, "{head}\r\nhello\r\n")?;
    show_answer(&mut file)?;
    fs::remove_dir_all(directory)
}

fn show_answer(file: &mut (impl BufRead + Write)) -> io::Result<()> {
    file.flush()?;
    let (mut line, mut length) = (String::new(), 0);
    file.read_line(&mut line)?;
    println!("{}", line.trim_end());
    while line != "\r\n" {
        line.clear();
        file.read_line(&mut line)?;
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim_end().parse().unwrap_or(0);
        }
    }
    let mut text = String::new();
    file.take(length).read_to_string(&mut text)?;
    print!("{text}");
    Ok(())
}
