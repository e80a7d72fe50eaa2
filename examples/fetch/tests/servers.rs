//! Servers of std's threads, with TLS and without, and Python's.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};

use crate::program::{Directory, command};

/// Gives each connection to `serve`, on a thread of its own. Ends with the test.
pub(crate) fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.unwrap(), Arc::clone(&serve));
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Answers each request with `answer`, which gets the path that is asked for.
pub(crate) fn http(answer: impl Fn(&mut TcpStream, &str) + Send + Sync + 'static) -> SocketAddr {
    listen(move |mut stream| {
        let path = asked(&mut stream).unwrap_or_default();
        answer(&mut stream, &path);
    })
}

/// A connection of a server with TLS.
pub(crate) type Tls = StreamOwned<ServerConnection, TcpStream>;

/// Like [`http`], over a version of TLS. `answer` sends the close_notify, unless the connection is to be cut.
pub(crate) fn https(
    identity: &Identity,
    version: &'static SupportedProtocolVersion,
    answer: impl Fn(&mut Tls, &str) + Send + Sync + 'static,
) -> SocketAddr {
    let config = identity.config(version);
    listen(move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        // A client that does not trust the certificate asks nothing.
        if let Ok(path) = asked(&mut stream) {
            answer(&mut stream, &path);
        }
    })
}

/// Reads what is asked for. All of the head comes at once.
fn asked(stream: &mut impl Read) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// A certificate that is signed by itself, and its key, as files in PEM.
pub(crate) struct Identity {
    issued: rcgen::CertifiedKey<rcgen::KeyPair>,
    directory: Directory,
}

impl Identity {
    /// For servers of these names and addresses.
    pub(crate) fn of(names: &[&str]) -> Identity {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let issued = rcgen::generate_simple_self_signed(names).unwrap();
        let directory = Directory::new();
        fs::write(directory.join("certificate"), issued.cert.pem()).unwrap();
        fs::write(directory.join("key"), issued.signing_key.serialize_pem()).unwrap();
        Identity { issued, directory }
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.directory.join("certificate")
    }

    fn config(&self, version: &'static SupportedProtocolVersion) -> Arc<ServerConfig> {
        let certificate = self.issued.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(self.issued.signing_key.serialize_der());
        let config = ServerConfig::builder_with_protocol_versions(&[version])
            .with_no_client_auth()
            .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key));
        Arc::new(config.unwrap())
    }
}

/// Has Python serve the files of its directory, over TLS if it is given a certificate and a key.
const SCRIPT: &str = "
import http.server, ssl, sys
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler)
if sys.argv[1:]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[1:])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
";

/// Python's server of the files in a directory. It ends when this is dropped.
pub(crate) struct Python {
    child: Child,
    /// The address of the directory, without its slash.
    pub(crate) url: String,
}

impl Python {
    pub(crate) fn serve(directory: &Directory, identity: Option<&Identity>) -> Python {
        let mut python = command("python3");
        python.args(["-c", SCRIPT]).current_dir(directory.path());
        if let Some(identity) = identity {
            python.arg(identity.certificate());
            python.arg(identity.directory.join("key"));
        }
        let python = python.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = python.spawn().unwrap();
        let mut port = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut port).unwrap();
        let scheme = if identity.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{}", port.trim_end());
        Python { child, url }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
